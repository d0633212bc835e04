"""evaluate.py as a command: predictions, then scores that can be repeated from the files alone."""

import dataclasses
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from safetensors.torch import load_file, save_file
from test_metric_models import save_tiny_clip
from test_report import thumbnails

from captioner_idc.adapters import add_lora, save_adapter
from captioner_idc.captioning import caption
from captioner_idc.change_probability import Calibration, read_calibration, write_calibration
from captioner_idc.loading import ImageError, load
from dataset_syned import load_benchmark
from metric_idc import clip_score, read_predictions, score_rows, segment_scores, stated_change_type
from metric_idc.__main__ import main as score_main
from modeling_blip2idc import processing_blip2idc

OPTIONS = {"train": 48, "validation": 8, "test": 24}
NAMES = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr"]
NAMES += ["Unit-P", "Unit-R", "Unit-F1", "Unit-Action-F1", "Unit-TNR", "Unit-HR"]
MODEL, LIMIT = ("--model", "m", "--output_dir", "o"), ("--max_new_tokens", "9")


@pytest.fixture(scope="module")
def evaluated(root: Path, tiny_captioner: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated") / "eval" / "toy-test"
    command = [sys.executable, "evaluate.py", "--model", str(tiny_captioner), "--benchmark", "toy", "--input_controls"]
    command += ["--benchmark_options", json.dumps(OPTIONS), "--output_dir", str(folder)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "constant caption" in done.stdout and "images exchanged" in done.stdout
    return folder


def metrics_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def test_every_pair_is_predicted_once_and_in_order(evaluated: Path) -> None:
    rows, truth = read_predictions(evaluated / "predictions.jsonl"), load_benchmark("toy", "test", **OPTIONS)
    assert [row["pair_id"] for row in rows] == truth["pair_id"][:]
    assert [row["references"] for row in rows] == truth["captions"][:]
    assert [row["change_type"] for row in rows] == truth["change_type"][:]
    assert not list(evaluated.glob(".*"))


def test_metrics_have_scores_controls_change_types_and_a_signature(evaluated: Path, tiny_captioner: Path) -> None:
    metrics = metrics_of(evaluated)
    assert list(metrics["scores"]) == NAMES
    control = metrics["controls"]["constant_caption"]
    assert control["chosen_from"] == "train" and list(control["scores"]) == NAMES
    training = load_benchmark("toy", "train", **OPTIONS)
    assert control["caption"] in {text for captions in training["captions"] for text in captions}
    assert sum(change_type["pairs"] for change_type in metrics["per_change_type"].values()) == OPTIONS["test"]
    signature = metrics["signature"]
    assert signature["protocol"] == "standard" and signature["pairs"] == OPTIONS["test"]
    assert (signature["benchmark"], signature["split"], signature["model"]) == ("toy", "test", tiny_captioner.name)


def test_predictions_scored_again_give_the_same_files(evaluated: Path, tmp_path: Path) -> None:
    """Scoring again needs neither model nor data, in another folder or in the same."""
    own = Path(shutil.copytree(evaluated, tmp_path / "own"))
    for source, folder in ((evaluated, tmp_path / "other"), (own, own)):
        assert score_main(["score", str(source / "predictions.jsonl"), "--output_dir", str(folder)]) == 0
        for file in evaluated.glob("*.json*"):
            assert (folder / file.name).read_bytes() == file.read_bytes(), file.name


def test_input_controls_count_what_the_files_contain(evaluated: Path) -> None:
    controls = metrics_of(evaluated)["controls"]
    first = read_predictions(evaluated / "predictions.jsonl")
    swapped = read_predictions(evaluated / "predictions_swapped.jsonl")
    same = read_predictions(evaluated / "predictions_identical.jsonl")
    both = zip(first, swapped, strict=True)
    counted = [a["prediction"] != b["prediction"] for a, b in both if a["change_type"] in ("add", "remove")]
    assert controls["swapped_images"] == {"pairs": len(counted), "sentence_differs": sum(counted) / len(counted)}
    unchanged = sum(stated_change_type(row["prediction"]) == "none" for row in same) / len(same)
    assert controls["identical_images"] == {"pairs": len(same), "said_unchanged": unchanged}


def test_predictions_are_captions_of_the_right_images(evaluated: Path, tiny_captioner: Path) -> None:
    model, processor = load(tiny_captioner, device="cpu")
    rows = load_benchmark("toy", "test", **OPTIONS)
    sides = {"predictions": ("before", "after"), "predictions_swapped": ("after", "before")}
    for name, (first, second) in {**sides, "predictions_identical": ("before", "before")}.items():
        expected = caption(model, processor, ((row[first], row[second]) for row in rows), batch_size=32)
        assert [row["prediction"] for row in read_predictions(evaluated / f"{name}.jsonl")] == expected, name


def test_each_pair_has_its_scores_and_stated_change_type(evaluated: Path) -> None:
    rows = read_predictions(evaluated / "predictions.jsonl")
    pairs = [json.loads(line) for line in (evaluated / "pairs.jsonl").read_text().splitlines()]
    expected = [stated_change_type(row["prediction"]) for row in rows]
    assert [pair["stated_change_type"] for pair in pairs] == expected
    names = ["BLEU", "METEOR", "ROUGE-L", "CIDEr", "DifferenceUnits"]
    assert [pair["scores"] for pair in pairs] == segment_scores(rows, names)


def test_true_units_of_the_benchmark_go_into_the_predictions(program: ModuleType) -> None:
    units = [{"thing": "tiger", "action": "add", "place": "top"}]
    rows = [{"pair_id": str(number)} for number in range(4)]
    provenance = [json.dumps({"units": units}), json.dumps({"units": []}), json.dumps({"seed": 0}), ""]
    found = program.with_true_units(rows, provenance)
    assert [row.get("units") for row in found] == [units, [], None, None]
    assert [row["pair_id"] for row in found] == ["0", "1", "2", "3"]


def mean_color(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), dtype=float).mean(axis=(0, 1))


def test_the_report_shows_before_and_after_images_in_order(evaluated: Path) -> None:
    rows = load_benchmark("toy", "test", **OPTIONS)
    for number, images in thumbnails(evaluated / "report.html").items():
        colors = [mean_color(image) for image in images]
        expected = [mean_color(rows[number][side]) for side in ("before", "after")]
        assert np.abs(np.array(colors) - expected).max() < 3
    assert number == OPTIONS["test"] - 1
    differing = [np.abs(mean_color(row["before"]) - mean_color(row["after"])).max() > 7 for row in rows]
    assert sum(differing) > 2, "otherwise exchanged images would not be noticed"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--metrics", "Meteor"], "unknown metrics"),
        (["--sentence_model", "no/folder"], "no/folder"),
        (["--protocol", "paper"], "the paper protocol drops the last incomplete batch, which is all of these 3 pairs"),
    ],
)
def test_what_cannot_be_scored_is_reported_before_anything_is_predicted(
    program: ModuleType, tiny_captioner: Path, tmp_path: Path, capsys: pytest.CaptureFixture, wrong: list, message: str
) -> None:
    (tmp_path / "metrics.json").write_text("old")
    command = ["--model", str(tiny_captioner), "--benchmark", "toy", "--output_dir", str(tmp_path)]
    options = ["--benchmark_options", json.dumps({**OPTIONS, "test": 3})]
    assert program.main([*command, *options, *wrong]) == 2
    assert message in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def folder_of_pairs(folder: Path, order: list[int]) -> Path:
    """Write a benchmark with only a test split."""
    (folder / "test").mkdir(parents=True, exist_ok=True)
    pairs = load_benchmark("toy", "test", **OPTIONS)
    lines = []
    for number in order:
        names = {side: f"{number}-{side}.png" for side in ("before", "after")}
        for side, name in names.items():
            pairs[number][side].save(folder / "test" / name)
        row = {f"{side}_file_name": name for side, name in names.items()}
        lines.append(json.dumps({**row, "captions": pairs[number]["captions"], "pair_id": str(number)}) + "\n")
    (folder / "test" / "metadata.jsonl").write_text("".join(lines))
    return folder


def test_a_benchmark_without_training_pairs_that_changes_between_two_calls(
    program: ModuleType, tiny_captioner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predictions of an interrupted call are not used for other pairs."""
    data, out = tmp_path / "data", tmp_path / "out"
    command = ["--model", str(tiny_captioner), "--benchmark", "folder", "--output_dir", str(out)]
    command += ["--benchmark_options", json.dumps({"data_dir": str(data)}), "--no_input_controls"]
    folder_of_pairs(data, [0, 1, 2])
    with monkeypatch.context() as patched:
        patched.setattr(program, "score", lambda *_: (_ for _ in ()).throw(OSError("stopped")))
        assert program.main(command) == 2 and list(out.glob(".partial-*"))
    folder_of_pairs(data, [2, 1, 0])
    assert program.main(command) == 0
    assert metrics_of(out)["controls"]["constant_caption"]["chosen_from"] == "references"
    rows = load_benchmark("folder", "test", data_dir=str(data))
    expected = caption(*load(tiny_captioner, device="cpu"), [(row["before"], row["after"]) for row in rows])
    predicted = read_predictions(out / "predictions.jsonl")
    assert [(row["pair_id"], row["prediction"]) for row in predicted] == list(zip("210", expected, strict=True))


def test_the_card_of_a_run_is_updated(
    program: ModuleType, tiny_captioner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of an earlier version also gets captioner.json, which the card needs."""
    write_card = create_autospec(program.write_card)
    monkeypatch.setattr(program, "write_card", write_card)
    folder = tmp_path / "eval" / "toy-test"
    quick(program, tiny_captioner, folder)
    assert not write_card.called, "not a run"
    (tmp_path / "train_config.yaml").write_text("")
    quick(program, tiny_captioner, folder)
    write_card.assert_called_once_with(tmp_path)
    assert json.loads((tmp_path / "captioner.json").read_text())["family"] == "blip2"


# ---- options

FEW = {"train": 8, "validation": 4, "test": 6}
SAMPLED = ("--do_sample", "--temperature", "3.0")


def quick(program: ModuleType, model: Path, folder: Path, *options: str) -> Path:
    """Evaluate six pairs without controls; `options` override the defaults."""
    arguments = ["--model", str(model), "--benchmark", "toy", "--benchmark_options", json.dumps(FEW)]
    arguments += ["--no_input_controls", "--metrics", "BLEU", "--output_dir", str(folder), *options]
    assert program.main(arguments) == 0
    return folder


def predictions_of(folder: Path) -> list[str]:
    return [row["prediction"] for row in read_predictions(folder / "predictions.jsonl")]


def signature_entry(name: str) -> Callable[[Path], Any]:
    return lambda folder: metrics_of(folder)["signature"][name]


# Every field of EvaluateConfig is in one table: CHANGES has two sets of options and what must differ in their results,
# REFUSALS has options and their error message.
CHANGES: dict[str, tuple[tuple[str, ...], tuple[str, ...], Callable[[Path], Any]]] = {
    "model": ((), ("--model", "COPY"), signature_entry("model")),
    "adapter": ((), ("--adapter", "ADAPTER"), predictions_of),
    "revision": ((), ("--revision", "main"), signature_entry("revision")),
    "processor": ((), ("--processor", '{"blur": 3.0}'), signature_entry("processor")),
    "prompt": ((), ("--prompt", "the difference is"), signature_entry("processor")),
    "examples": (("--examples", "1"), ("--examples", "2"), signature_entry("processor")),
    "benchmark_options": ((), ("--benchmark_options", json.dumps({**FEW, "seed": 1})), signature_entry("data_sha256")),
    "split": ((), ("--split", "validation"), signature_entry("pairs")),
    "output_dir": ((), ("--output_dir", "ELSEWHERE"), lambda folder: (folder / "metrics.json").exists()),
    "batch_size": ((), ("--batch_size", "4"), signature_entry("batch_size")),
    "dtype": ((), ("--dtype", "bfloat16"), signature_entry("dtype")),
    "num_beams": ((), ("--num_beams", "3"), signature_entry("decoding")),
    "do_sample": ((), ("--do_sample",), signature_entry("decoding")),
    "temperature": (("--do_sample",), SAMPLED, predictions_of),
    "top_p": (SAMPLED, (*SAMPLED, "--top_p", "0.01"), predictions_of),
    "max_new_tokens": ((), ("--max_new_tokens", "2"), predictions_of),
    "seed": (SAMPLED, (*SAMPLED, "--seed", "1"), predictions_of),
    "input_controls": ((), ("--input_controls", "True"), lambda f: (f / "predictions_swapped.jsonl").exists()),
    "change_probability": ((), ("--change_probability",), lambda folder: "change_probability" in metrics_of(folder)),
    "metrics": ((), ("--metrics", "CIDEr"), lambda folder: list(metrics_of(folder)["scores"])),
}
REFUSALS = {
    "allow_pickle": (("--model", "PICKLED"), "--allow_pickle"),
    "quantize": (("--quantize", "4bit"), "CUDA GPU"),
    "benchmark": (("--benchmark", "toys"), "unknown benchmark 'toys'"),
    "adapter_revision": (("--adapter_revision", "main"), "needs --model and --adapter"),
    "protocol": (("--protocol", "paper"), "the paper protocol drops the last incomplete batch"),
    "sentence_model": (("--sentence_model", "none"), "'none' has no config.json"),
    "clip_model": (("--clip_model", "none"), "'none' has no config.json"),
    "judge": (("--judge", "none"), "'none' has no config.json"),
    "unit_parser": (("--unit_parser", "ftp"), "'ftp' has no config.json"),
    "judge_model": (("--judge_model", "m"), "judge_model 'm' is the name of a model at a server"),
    "push_to_hub": (("--push_to_hub", "--hub_model_id", "a/b"), "must be RUN/eval/NAME"),
    "hub_model_id": (("--hub_model_id", "a/b"), "need each other"),
    "hub_private": (("--hub_private",), "need --push_to_hub"),
    "merge": (("--merge",), "need --push_to_hub"),
}


@pytest.fixture(scope="module")
def folders(tiny_captioner: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("folders")
    model, processor = load(tiny_captioner, device="cpu")
    model = add_lora(model, 4, 8, 0.0, 0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.5)
    save_adapter(model, processor, folder / "adapter", str(tiny_captioner), None)
    shutil.copytree(tiny_captioner, folder / "copy")
    pickled = Path(shutil.copytree(tiny_captioner, folder / "pickled"))
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    return {
        "PICKLED": str(pickled),
        "COPY": str(folder / "copy"),
        "ADAPTER": str(folder / "adapter"),
        "ELSEWHERE": str(folder / "elsewhere"),
    }


def test_every_option_has_an_entry(program: ModuleType) -> None:
    names = {field.name for field in dataclasses.fields(program.EvaluateConfig)}
    assert names == CHANGES.keys() | REFUSALS.keys() and not CHANGES.keys() & REFUSALS.keys()


@pytest.mark.parametrize("name", CHANGES)
def test_every_option_changes_something(
    program: ModuleType, tiny_captioner: Path, folders: dict[str, str], tmp_path: Path, name: str
) -> None:
    before, after, observed = CHANGES[name]
    first = quick(program, tiny_captioner, tmp_path / "first", *before)
    if name == "output_dir":
        shutil.rmtree(tmp_path / "first")
    second = quick(program, tiny_captioner, tmp_path / "second", *(folders.get(word, word) for word in after))
    second = Path(folders["ELSEWHERE"]) if name == "output_dir" else second
    assert observed(first) != observed(second)


def test_a_saved_calibration_is_used_and_another_one_is_fitted_and_saved(
    program: ModuleType, tiny_captioner: Path, folders: dict[str, str], tmp_path: Path
) -> None:
    adapter = Path(shutil.copytree(folders["ADAPTER"], tmp_path / "adapter"))

    def probabilities(folder: Path) -> list[float]:
        options = ("--adapter", str(adapter), "--change_probability")
        rows = read_predictions(quick(program, tiny_captioner, folder, *options) / "predictions.jsonl")
        return [row["change_probability"] for row in rows]

    fitted = probabilities(tmp_path / "first")
    calibration = read_calibration(tmp_path / "first")
    assert calibration.pairs >= FEW["validation"] and read_calibration(adapter) == Calibration()
    assert "change_probability" in metrics_of(tmp_path / "first")
    write_calibration(dataclasses.replace(calibration, temperature=2 * calibration.temperature), adapter)
    flatter = probabilities(tmp_path / "second")
    assert not (tmp_path / "second" / "change_probability.json").exists()
    for sharp, flat in zip(fitted, flatter, strict=True):
        assert np.log(sharp / (1 - sharp)) == pytest.approx(2 * np.log(flat / (1 - flat)), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("name", REFUSALS)
def test_every_other_option_is_refused_where_it_cannot_be_used(
    program: ModuleType,
    tiny_captioner: Path,
    folders: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    name: str,
) -> None:
    options, message = REFUSALS[name]
    options = [folders.get(word, word) for word in options]
    arguments = ["--model", str(tiny_captioner), "--benchmark", "toy", "--benchmark_options", json.dumps(FEW)]
    assert program.main([*arguments, "--output_dir", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_question_shows_example_sentences_of_the_training_split(
    program: ModuleType, tiny_captioner: Path, tmp_path: Path
) -> None:
    folder = quick(program, tiny_captioner, tmp_path / "out", "--prompt", "what changed?", "--examples", "3")
    signature = metrics_of(folder)["signature"]
    question, _, header, *lines = signature["processor"]["prompt"].split("\n")
    first_sentences = [captions[0] for captions in load_benchmark("toy", "train", **FEW)["captions"]]
    assert (question, header[-1], signature["examples"]) == ("what changed?", ":", 3)
    assert lines == [f"- {first_sentences[index]}" for index in (0, 2, 5)]


def test_example_sentences_are_different_and_from_the_whole_split(program: ModuleType) -> None:
    training = [["a", "x"], ["a"], ["a"], ["b"], ["b"], ["c"]]
    assert program.example_sentences(training, 2) == ["a", "b"]
    assert program.example_sentences(training, 3) == ["a", "b", "c"]
    assert program.example_sentences([], 0) == []
    with pytest.raises(ValueError, match="--examples 4: the training split has 3 different"):
        program.example_sentences(training, 4)


def test_prompt_is_set_once(program: ModuleType) -> None:
    with pytest.raises(ValueError, match="both set the prompt"):
        program.parse_config([*MODEL, "--benchmark", "toy", "--prompt", "a", "--processor", '{"prompt": "b"}'])


def test_options_may_be_in_a_file(program: ModuleType, tmp_path: Path) -> None:
    content = "model: m\nbenchmark: toy\nbenchmark_options: {seed: 1}\noutput_dir: o\nprocessor: {blur: 1.0}\n"
    (tmp_path / "evaluate.yaml").write_text(content)
    config = program.parse_config(["--config", str(tmp_path / "evaluate.yaml"), "--output_dir", "elsewhere"])
    assert (config.benchmark_options, config.processor) == ({"seed": 1}, {"blur": 1.0})
    assert (config.output_dir, config.batch_size) == ("elsewhere", 32)


@pytest.mark.parametrize("setting", [{"blur": 3.0}, {"layout": "horizontal"}, {"max_caption_length": 3}])
def test_an_interrupted_evaluation_does_not_continue_with_other_processor_settings(
    program: ModuleType,
    tiny_captioner: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    setting: dict[str, Any],
) -> None:
    arguments = ["--model", str(tiny_captioner), "--benchmark", "toy", "--benchmark_options", json.dumps(FEW)]
    arguments += ["--no_input_controls", "--metrics", "BLEU", "--output_dir", str(tmp_path)]
    with monkeypatch.context() as patched:
        patched.setattr(program, "score", lambda *_: (_ for _ in ()).throw(OSError("stopped")))
        assert program.main(arguments) == 2 and list(tmp_path.glob(".partial-*"))
        capsys.readouterr()
        assert program.main(arguments) == 2
        messages = capsys.readouterr().err
        assert "continuing" in messages and "error: stopped" in messages, "nothing is left to predict"
    assert program.main([*arguments, "--processor", json.dumps(setting)]) == 0
    assert "continuing" not in capsys.readouterr().err
    rows = load_benchmark("toy", "test", **FEW)
    model, processor = load(tiny_captioner, device="cpu", processor=setting)
    expected = caption(model, processor, [(row["before"], row["after"]) for row in rows], batch_size=32)
    assert predictions_of(tmp_path) == expected


def test_the_fingerprint_depends_on_every_processor_setting(program: ModuleType, tiny_captioner: Path) -> None:
    """This includes settings that evaluate.py does not know."""
    model, processor = load(tiny_captioner, device="cpu")
    config = program.parse_config(["--model", str(tiny_captioner), "--benchmark", "toy", *MODEL[2:], *LIMIT])
    settings = {**processor.settings, "something_new": 1}

    class Changed:
        def __init__(self, **changes: Any) -> None:
            self.settings = settings | changes

        def __getattr__(self, name: str) -> Any:
            return getattr(processor, name)

    def fingerprint(**changes: Any) -> str:
        signature = program.run_signature(config, model, Changed(**changes))
        return json.dumps(program.signature.settings_fingerprint(signature, "data", 0))

    assert len({fingerprint(), *(fingerprint(**{name: "changed"}) for name in settings)}) == len(settings) + 1


# ---- images


@pytest.mark.parametrize("alone", [True, False])
def test_the_images_of_a_pair_are_loaded_once_for_all_questions(
    program: ModuleType, tiny_captioner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    plain, loaded = processing_blip2idc.Blip2IdcProcessor.load_pair, []

    def watched(self: Any, before: Any, after: Any, name: str) -> Any:
        loaded.append(name)
        return plain(self, before, after, name)

    quick(program, tiny_captioner, tmp_path / "expected", "--input_controls", "True")
    monkeypatch.setattr(processing_blip2idc.Blip2IdcProcessor, "loads_each_alone", alone)
    monkeypatch.setattr(processing_blip2idc.Blip2IdcProcessor, "load_pair", watched)
    folder = quick(program, tiny_captioner, tmp_path / "out", "--input_controls", "True")
    named = [name for name in loaded if name.startswith("pair '")]  # the others are names for what is loaded already
    assert len(named) == FEW["test"] * (1 if alone else 2)
    for name in ("predictions", "predictions_swapped", "predictions_identical"):
        assert (folder / f"{name}.jsonl").read_bytes() == (tmp_path / "expected" / f"{name}.jsonl").read_bytes()


def test_one_batch_is_loaded_ahead_and_errors_come_in_order(program: ModuleType) -> None:
    begun, free = [], threading.Event()

    def load_batch(batch: int) -> str:
        begun.append(batch)
        if batch == 2:
            raise ValueError("the third batch")
        if batch == 3:
            free.set()
        return f"pairs of {batch}"

    seen = []
    with pytest.raises(ValueError, match="the third batch"):
        for batch, pairs in program.loaded_ahead(load_batch, [0, 1, 2, 3]):
            seen.append((batch, pairs))
            assert not free.wait(0.05) and max(begun) <= batch + 1
    assert seen == [(0, "pairs of 0"), (1, "pairs of 1")] and begun == [0, 1, 2]
    assert list(program.loaded_ahead(load_batch, [])) == []


def test_a_broken_image_is_named_with_its_pair(program: ModuleType, tiny_captioner: Path) -> None:
    config = program.parse_config(["--model", str(tiny_captioner), "--benchmark", "toy", *MODEL[2:]])
    rows = Dataset.from_list([{"pair_id": "a", "before": b"no image", "after": b"no image"}])
    processor, questions = load(tiny_captioner, device="cpu")[1], {"own": program.Question(("before", "after"))}
    with pytest.raises(ImageError, match="before image of pair 'a'"):
        program.load_batch(config, processor, rows, 0, questions)


def odd_images(folder: Path) -> Path:
    """Write a benchmark of PNG files that decoders may read differently: with alpha, and with 16-bit grey."""
    (folder / "test").mkdir(parents=True)
    transparent = np.zeros((64, 64, 4), dtype=np.uint8)
    transparent[..., 0] = 255  # red, and invisible in the left half
    transparent[:, 32:, 3] = 255
    grey = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    Image.fromarray(transparent).save(folder / "test" / "alpha.png")
    Image.fromarray(grey).save(folder / "test" / "grey.png")
    names = {"before_file_name": "alpha.png", "after_file_name": "grey.png"}
    lines = [{**names, "captions": ["a"], "pair_id": "1"}]
    lines += [{"before_file_name": "grey.png", "after_file_name": "alpha.png", "captions": ["b"], "pair_id": "2"}]
    (folder / "test" / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_network_report_and_clip_see_the_same_images(
    program: ModuleType, tiny_captioner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clip").mkdir()
    clip, data, seen = save_tiny_clip(tmp_path / "clip"), odd_images(tmp_path / "data"), {"network": [], "clip": []}
    join = processing_blip2idc.join

    def watched_join(before: Any, after: Any, layout: str) -> Any:
        seen["network"].append((before.picture, after.picture))
        return join(before, after, layout)

    monkeypatch.setattr(processing_blip2idc, "join", watched_join)
    embed = clip_score._embed_images
    monkeypatch.setattr(
        clip_score,
        "_embed_images",
        lambda model, processor, images: embed(model, processor, [seen["clip"].append(i) or i for i in images]),
    )
    options = {"--benchmark": "folder", "--benchmark_options": json.dumps({"data_dir": str(data)})}
    words = [word for option in options.items() for word in option]
    same_size = json.dumps({"canvas": [128, 64]})  # for two images of 64 x 64, so that none is resized
    words += ["--processor", same_size, "--clip_model", str(clip)]
    folder = quick(program, tiny_captioner, tmp_path / "out", *words)
    # the two pairs; before them, loading has tried the processor
    network = [tuple(np.asarray(image) for image in pair) for pair in seen["network"][-2:]]
    assert network[0][0][0, 0].tolist() == [255] * 3, "a transparent pixel is white, whatever its color"
    assert network[0][1][0, 32].tolist() == [129] * 3 or network[0][1][0, 32].tolist() == [130] * 3
    for (_, after), image in zip(network, seen["clip"], strict=True):
        assert image.mode == "RGB" and np.array_equal(np.asarray(image), after)
    shown = thumbnails(folder / "report.html")
    for number, pair in enumerate(network):
        for picture, image in zip(shown[number], pair, strict=True):
            assert np.abs(np.asarray(picture.convert("RGB"), dtype=int) - image).mean() < 6  # WebP


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--benchmark is missing"),
        (["--benchmark", "toy", "--output_dir", "o"], "--model or --adapter is missing"),
        (["--benchmark", "toy", "--model", "m"], "--output_dir is missing"),
        (["--benchmark", "toys", *MODEL], "unknown benchmark 'toys'"),
        (["--benchmark", "toy", *MODEL, "--push_to_hub", "--hub_model_id", "a/b"], "must be RUN/eval/NAME"),
        (["--benchmark", "toy", *MODEL, "--push_to_hub"], "--push_to_hub and --hub_model_id need each other"),
        (["--benchmark", "toy", *MODEL, "--merge"], "--hub_private and --merge need --push_to_hub"),
        (["--benchmark", "toy", "--model", "./none", "--output_dir", "o"], "'./none' does not exist"),
        (["--benchmark", "toy", *MODEL, "--batch_size", "0"], "batch_size=0 must be at least 1"),
        (["--benchmark", "toy", *MODEL, "--top_p", "0.5"], "need --do_sample"),
        (["--benchmark", "toy", *MODEL, "--seed", "1"], "need --do_sample"),
        (["--benchmark", "toy", *MODEL, "--do_sample", "--top_p", "1.5"], "top_p=1.5 must be above 0 and at most 1"),
        (["--benchmark", "toy", *MODEL, "--do_sample", "--temperature", "0"], "temperature=0.0 must be above 0"),
        (["--config", "none.yaml"], "config 'none.yaml' cannot be read"),
    ],
)
def test_bad_calls_get_one_line(
    program: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert program.main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ") and message in lines[-1]
    assert not list(tmp_path.iterdir())


def test_clip_scores_use_the_after_images(program: ModuleType, tiny_captioner: Path, tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    clip = str(save_tiny_clip(tmp_path / "clip"))
    weights = load_file(tmp_path / "clip" / "model.safetensors")
    weights["text_projection.weight"] *= -1  # its cosines with these images are below 0, which counts as 0
    save_file(weights, tmp_path / "clip" / "model.safetensors", metadata={"format": "pt"})
    arguments = ["--model", str(tiny_captioner), "--benchmark", "toy", "--benchmark_options", json.dumps(FEW)]
    arguments += ["--no_input_controls", "--metrics", "BLEU", "--clip_model", clip]
    assert program.main([*arguments, "--output_dir", str(tmp_path / "scores")]) == 0
    metrics = metrics_of(tmp_path / "scores")
    assert list(metrics["scores"])[-2:] == ["CLIPScore", "RefCLIPScore"]
    assert "clip on the after image" in metrics["signature"]["metrics"]["CLIPScore"]
    rows, data = read_predictions(tmp_path / "scores" / "predictions.jsonl"), load_benchmark("toy", "test", **FEW)
    expected = {
        side: score_rows(rows, ["BLEU"], clip_model=clip, images=data[side])["scores"] for side in ("before", "after")
    }
    assert metrics["scores"]["CLIPScore"] == pytest.approx(expected["after"]["CLIPScore"], abs=1e-6)
    assert abs(expected["before"]["CLIPScore"] - expected["after"]["CLIPScore"]) > 1e-4, (
        "otherwise exchanged images would not be noticed"
    )


def test_import_evaluate_finds_the_library_and_loads_no_torch(root: Path, tmp_path: Path) -> None:
    """A stub replaces the library, which itself may load torch."""
    (tmp_path / "evaluate.py").write_text("load = print\n")
    code = (
        f"import sys; sys.path[:0] = [{str(root)!r}, {str(tmp_path)!r}]; import evaluate; "
        "assert evaluate.load is print, evaluate; "
        "print(sorted({'torch', 'accelerate', 'captioner_idc', 'modeling_blip2idc'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
