"""The signature in metrics.json: enough to distinguish two results and to reproduce one of them."""

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from loopback_hub import LoopbackHub

from captioner_idc.adapters import add_lora, save_adapter
from captioner_idc.loading import load, processor_fingerprint
from common_idc.provenance import code_commit
from dataset_syned import load_benchmark
from metric_idc import read_predictions, score_rows, write_predictions
from run_idc.signature import hub_dataset, settings_fingerprint

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
    """Return two adapters of one base on the Hub, whose weights differ."""
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

    def recorded(name: str) -> list[str | None]:
        keys = ("model", "revision", "commit", "adapter", "adapter_revision", "adapter_commit", "adapter_sha256")
        signature = signature_of(tmp_path / name)
        return [signature[key] for key in keys]

    first_hash, second_hash = map(sha256, adapters)
    assert first_hash != second_hash and first != second
    assert recorded("both") == [BASE, base, base, ADAPTER, first, first, first_hash]
    assert recorded("alone") == [BASE, None, base, ADAPTER, first, first, first_hash]
    assert recorded("newest") == [BASE, None, base, ADAPTER, None, second, second_hash]
    assert recorded("as model") == recorded("alone")
    assert recorded("in a folder") == [tiny_captioner.name, None, None, adapters[1].name, None, None, second_hash]
    assert signature_of(tmp_path / "in a folder")["adapter_trained_on"] == BASE
    assert recorded("no adapter") == [BASE, None, base, None, None, None, None]


def test_everything_that_a_number_depends_on_is_recorded(
    program: ModuleType, tiny_captioner: Path, tmp_path: Path
) -> None:
    """Compare all keys of the signature with the sources of their values."""
    arguments = ["--model", str(tiny_captioner), "--benchmark", "toy", "--benchmark_options", json.dumps(OPTIONS)]
    arguments += ["--no_input_controls", "--metrics", "BLEU", "--do_sample", "--seed", "7", "--batch_size", "4"]
    assert program.main([*arguments, "--output_dir", str(tmp_path)]) == 0
    signature, rows = signature_of(tmp_path), load_benchmark("toy", "test", **OPTIONS)
    model, processor = load(tiny_captioner, device="cpu")
    pairs = sorted(zip(rows["pair_id"], rows["captions"], strict=True))
    predicted = sorted((row["pair_id"], row["prediction"]) for row in read_predictions(tmp_path / "predictions.jsonl"))
    texts = {
        name: "".join(json.dumps([pair_id, value]) + "\n" for pair_id, value in values)
        for name, values in (("data", pairs), ("predictions", predicted))
    }
    packages = ("pycocoevalcap", "numpy", "torch", "transformers", "peft", "datasets")
    generation = model.generation_config.to_diff_dict()
    generation.pop("transformers_version", None)
    sampling = {"num_beams": 1, "do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
    assert signature.pop("tokenizer").startswith("PTBTokenizer")
    assert list(signature.pop("metrics")) == ["BLEU"]
    assert "8 training pairs with the highest CIDEr" in signature.pop("constant_caption")
    assert signature == {
        "protocol": "standard",
        "data_sha256": hashlib.sha256(texts["data"].encode()).hexdigest(),
        "predictions_sha256": hashlib.sha256(texts["predictions"].encode()).hexdigest(),
        "pairs": OPTIONS["test"],
        "references_per_pair": {"min": 5, "max": 5, "mean": 5.0},
        "bootstrap": {"resamples": 1000, "seed": 0, "interval": 0.95, "unit": "pair"},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "data_version": str(rows.info.version),
        "data_source": None,  # the pairs are drawn here
        "benchmark": "toy",
        "benchmark_options": OPTIONS,
        "split": "test",
        "hub_dataset": None,
        "model": tiny_captioner.name,
        "revision": None,
        "commit": None,
        "adapter": None,
        "adapter_revision": None,
        "adapter_commit": None,
        "adapter_sha256": None,
        "adapter_trained_on": None,
        "processor": json.loads(json.dumps(processor.settings)),
        "processor_sha256": processor_fingerprint(processor),
        "dtype": "float32",
        "device": "cpu",
        "batch_size": 4,
        # no limit is given, so that the processor's is used
        "decoding": {**generation, "max_new_tokens": processor.settings["max_caption_length"], **sampling},
        "seed": 7,
        "code_commit": code_commit(),
    }


def test_the_hash_of_the_data_depends_on_pair_ids_and_references_only(tmp_path: Path) -> None:
    rows = [
        {
            "pair_id": str(number),
            "prediction": "a",
            "references": ["a ball", f"ball {number} é"],
            "change_type": "add",
        }
        for number in range(5)
    ]

    def hash_of(rows: list[dict[str, Any]], **options: Any) -> str:
        return score_rows(rows, ["BLEU"], resamples=2, **options)["signature"]["data_sha256"]

    assert hash_of(rows) == hash_of(rows[::-1]) == hash_of([row | {"prediction": "b"} for row in rows])
    assert hash_of(rows) == hash_of(rows, protocol="paper", paper_batch_size=2), (
        "a pair is dropped, the data are the same"
    )
    write_predictions(rows, tmp_path / "rows.jsonl")
    assert hash_of(rows) == hash_of(read_predictions(tmp_path / "rows.jsonl"))
    assert hash_of(rows) != hash_of(rows[1:])
    assert hash_of(rows) != hash_of([rows[0] | {"references": ["a ball", "another"]}, *rows[1:]])
    assert hash_of(rows) != hash_of([rows[0] | {"pair_id": "x"}, *rows[1:]])


def test_fetched_files_are_recorded_by_their_commit(program: ModuleType, tmp_path: Path) -> None:
    """Read the mirror from the file that `fetch` writes (see test_fetching.py)."""
    (tmp_path / ".fetching").mkdir()
    (tmp_path / ".fetching" / "mirror.json").write_text(json.dumps({"repo_id": "a/b", "commit": "c" * 40}))
    options = json.dumps({**OPTIONS, "data_dir": str(tmp_path)})
    config = program.parse_config(
        ["--benchmark", "toy", "--benchmark_options", options, "--model", "m", "--output_dir", "o"]
    )
    recorded = program.data_signature(config, load_benchmark("toy", "test", **config.benchmark_options), [])
    assert recorded == {"data_version": "2.0.0", "data_source": f"a/b@{'c' * 40}"}


def test_an_adapter_revision_needs_both_names(program: ModuleType) -> None:
    with pytest.raises(ValueError, match="--adapter_revision needs --model and --adapter"):
        program.parse_config(["--adapter", "a", "--adapter_revision", "r", "--benchmark", "toy", "--output_dir", "o"])


def test_the_fingerprint_changes_with_files_of_weights_and_the_hash_of_the_data(tmp_path: Path) -> None:
    for name in ("weights.safetensors", "notes.txt"):
        (tmp_path / name).write_text("1")

    def fingerprint(**changes: Any) -> str:
        values = {"signature": {"model": str(tmp_path), "adapter": None}}
        return json.dumps(settings_fingerprint(**{**values, "data_fingerprint": "f", "seed": 0} | changes))

    first = fingerprint()
    (tmp_path / "notes.txt").write_text("22")
    assert fingerprint() == first
    assert fingerprint(seed=1) != first and fingerprint(data_fingerprint="g") != first
    (tmp_path / "weights.safetensors").write_text("22")
    assert fingerprint() != first


def test_the_hub_dataset_is_the_home_page_or_a_mirror() -> None:
    pages = "https://huggingface.co/datasets/"
    assert hub_dataset(f"{pages}a/b", [("c/d", "dataset")]) == "a/b"
    assert hub_dataset("https://example.org", [("m", "model"), ("c/d", "dataset")]) == "c/d"
    assert hub_dataset("https://example.org", []) is None
