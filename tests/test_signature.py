"""What metrics.json says of its making: enough to tell two results apart and to have one of them again."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from loopback_hub import LoopbackHub

from captioner_idc.adapters import add_lora, save_adapter
from captioner_idc.loading import load
from dataset_syned import load_benchmark
from metric_idc import read_predictions, score_rows, write_predictions

BASE, ADAPTER = "tester/base", "tester/adapter"
OPTIONS = {"train": 8, "validation": 4, "test": 6}
EVALUATE = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("evaluate_program", {program!r})
sys.modules[spec.name] = program = importlib.util.module_from_spec(spec)
spec.loader.exec_module(program)
for arguments in {calls!r}:
    assert program.main(arguments) == 0
"""


@pytest.fixture(scope="module")
def adapters(tiny_captioner: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters of one base on the Hub, whose weights differ."""
    folders = []
    for seed in (0, 1):
        model, processor = load(tiny_captioner, device="cpu")
        folders.append(tmp_path_factory.mktemp(f"adapter-{seed}"))
        save_adapter(add_lora(model, 2, 4, 0.0, seed), processor, folders[-1], BASE, None)
    return folders


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def sha256(adapter: Path) -> str:
    return hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()


def signature_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())["signature"]


def test_weights_are_named_by_commit_or_hash(root: Path, tiny_captioner: Path, adapters: list[Path], tmp_path: Path):
    with LoopbackHub() as hub:
        base = hub.add_repo(BASE, files_of(tiny_captioner))
        first, second = (hub.add_repo(ADAPTER, files_of(folder)) for folder in adapters)
        given = {
            "both": ["--model", BASE, "--revision", base, "--adapter", ADAPTER, "--adapter_revision", first],
            "alone": ["--adapter", ADAPTER, "--revision", first],
            "newest": ["--adapter", ADAPTER],
            "as model": ["--model", ADAPTER, "--revision", first],
            "in a folder": ["--model", str(tiny_captioner), "--adapter", str(adapters[1])],
            "no adapter": ["--model", BASE],
        }
        common = ["--benchmark", "toy", "--benchmark_options", json.dumps(OPTIONS), "--no_input_controls"]
        common += ["--metrics", "BLEU", "--output_dir"]
        calls = [[*names, *common, str(tmp_path / name)] for name, names in given.items()]
        done = hub.run(EVALUATE.format(program=str(root / "evaluate.py"), calls=calls), tmp_path / "home", cwd=root)
        assert done.returncode == 0, done.stderr[-3000:]

    def told(name: str) -> list[str | None]:
        keys = ("model", "revision", "commit", "adapter", "adapter_revision", "adapter_commit", "adapter_sha256")
        signature = signature_of(tmp_path / name)
        return [signature[key] for key in keys]

    one, other = map(sha256, adapters)
    assert one != other and first != second
    assert told("both") == [BASE, base, base, ADAPTER, first, first, one]
    assert told("alone") == [BASE, None, base, ADAPTER, first, first, one]
    assert told("newest") == [BASE, None, base, ADAPTER, None, second, other]
    assert told("as model") == told("alone")
    assert told("in a folder") == [str(tiny_captioner), None, None, str(adapters[1]), None, None, other]
    assert told("no adapter") == [BASE, None, base, None, None, None, None]


def test_the_signature_has_everything_that_a_number_depends_on(
    program: ModuleType, tiny_captioner: Path, tmp_path: Path
) -> None:
    """The keys that the field asks for, with values that are checked against what they come from."""
    arguments = ["--model", str(tiny_captioner), "--benchmark", "toy", "--benchmark_options", json.dumps(OPTIONS)]
    arguments += ["--no_input_controls", "--metrics", "BLEU", "--do_sample", "--seed", "7"]
    assert program.main([*arguments, "--output_dir", str(tmp_path)]) == 0
    signature, rows = signature_of(tmp_path), load_benchmark("toy", "test", **OPTIONS)
    assert signature["pairs"] == OPTIONS["test"]
    assert signature["references_per_pair"] == {"min": 5, "max": 5, "mean": 5.0}
    assert signature["tokenizer"].startswith("PTBTokenizer") and signature["protocol"] == "standard"
    assert list(signature["metrics"]) == ["BLEU"]
    names = {"pycocoevalcap", "python", "numpy", "torch", "transformers", "peft", "datasets"}
    assert set(signature["versions"]) == names and signature["versions"]["torch"] == version("torch")
    processor = load(tiny_captioner, device="cpu")[1]
    assert signature["processor"] == processor.settings and signature["dtype"] == "float32"
    assert (signature["benchmark_options"], signature["batch_size"]) == (OPTIONS, 32)
    assert signature["data_version"] == str(rows.info.version) == "1.0.0"
    assert signature["data_source"] is None, "it is drawn here"
    pairs = sorted(zip(rows["pair_id"], rows["captions"], strict=True))
    text = "".join(json.dumps([pair_id, captions]) + "\n" for pair_id, captions in pairs)
    assert signature["data_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert signature["decoding"]["do_sample"] and signature["seed"] == 7
    limit = processor.settings["max_caption_length"]
    assert signature["decoding"]["max_new_tokens"] == limit, "nobody gave it, and yet it held"


def test_the_hash_of_the_data_is_of_pairs_and_references_alone(tmp_path: Path) -> None:
    rows = [
        {
            "pair_id": str(number),
            "prediction": "a",
            "references": ["a ball", f"ball {number} é"],
            "change_type": "add",
        }
        for number in range(5)
    ]

    def told(rows: list[dict[str, Any]], **how: Any) -> str:
        return score_rows(rows, ["BLEU"], resamples=2, **how)["signature"]["data_sha256"]

    assert told(rows) == told(rows[::-1]) == told([row | {"prediction": "b"} for row in rows])
    assert told(rows) == told(rows, protocol="paper", paper_batch_size=2), "a pair is dropped, the data are the same"
    write_predictions(rows, tmp_path / "rows.jsonl")
    assert told(rows) == told(read_predictions(tmp_path / "rows.jsonl"))
    assert told(rows) != told(rows[1:])
    assert told(rows) != told([rows[0] | {"references": ["a ball", "another"]}, *rows[1:]])
    assert told(rows) != told([rows[0] | {"pair_id": "x"}, *rows[1:]])


def test_fetched_files_are_told_by_their_commit(program: ModuleType, tmp_path: Path) -> None:
    """`fetch` notes the mirror in the data folder; tests of `fetch` see it written."""
    (tmp_path / ".fetching").mkdir()
    (tmp_path / ".fetching" / "mirror.json").write_text(json.dumps({"repo_id": "a/b", "commit": "c" * 40}))
    options = json.dumps({**OPTIONS, "data_dir": str(tmp_path)})
    config = program.parse_config(
        ["--benchmark", "toy", "--benchmark_options", options, "--model", "m", "--output_dir", "o"]
    )
    told = program.data_signature(config, load_benchmark("toy", "test", **config.benchmark_options))
    assert told == {"data_version": "1.0.0", "data_source": f"a/b@{'c' * 40}"}


def test_an_adapter_revision_needs_both_names(program: ModuleType) -> None:
    with pytest.raises(ValueError, match="--adapter_revision needs --model and --adapter"):
        program.parse_config(["--adapter", "a", "--adapter_revision", "r", "--benchmark", "toy", "--output_dir", "o"])
