"""evaluate.py through its own command: predictions first, then scores that anyone can have again from the file."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioner_idc.captioning import caption
from captioner_idc.loading import load, load_image
from dataset_syned import load_benchmark
from metric_idc import read_predictions, stated_change_type
from metric_idc.__main__ import main as metric_main
from metric_idc.comparison import TABLE_MARKS, compare
from metric_idc.result_files import write_rows

OPTIONS = {"train": 48, "validation": 8, "test": 24}
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SPOT = {
    "BLEU-1": 0.2963,
    "BLEU-2": 0.1870,
    "BLEU-3": 0.1176,
    "BLEU-4": 0.0757,
    "METEOR": 0.1091,
    "ROUGE-L": 0.2797,
    "CIDEr": 0.3506,
}


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
    assert not list(evaluated.glob("*.tmp"))


def test_metrics_hold_scores_control_kinds_and_signature(evaluated: Path, tiny_captioner: Path) -> None:
    metrics = metrics_of(evaluated)
    assert list(metrics["scores"]) == list(SPOT)
    control = metrics["controls"]["constant_caption"]
    assert control["chosen_from"] == "train" and list(control["scores"]) == list(SPOT)
    training = load_benchmark("toy", "train", **OPTIONS)
    assert control["caption"] in {text for captions in training["captions"] for text in captions}
    assert sum(change_type["pairs"] for change_type in metrics["per_change_type"].values()) == OPTIONS["test"]
    signature = metrics["signature"]
    assert signature["protocol"] == "standard" and signature["pairs"] == OPTIONS["test"]
    assert (signature["benchmark"], signature["split"], signature["model"]) == ("toy", "test", str(tiny_captioner))


def test_predictions_scored_again_give_the_same_file(evaluated: Path, tmp_path: Path) -> None:
    """Without model and data; in another folder, and in a copy of its own."""
    own = Path(shutil.copytree(evaluated, tmp_path / "own"))
    for source, folder in ((evaluated, tmp_path / "other"), (own, own)):
        assert metric_main(["score", str(source / "predictions.jsonl"), "--output_dir", str(folder)]) == 0
        again = metrics_of(folder)
        assert again["signature"].pop("predictions") == "predictions.jsonl"
        assert again == metrics_of(evaluated)


def test_a_predictions_file_alone_gives_the_same_scores(evaluated: Path, tmp_path: Path) -> None:
    shutil.copy(evaluated / "predictions.jsonl", tmp_path / "predictions_mine.jsonl")
    assert metric_main(["score", str(tmp_path / "predictions_mine.jsonl"), "--output_dir", str(tmp_path)]) == 0
    again, first = metrics_of(tmp_path), metrics_of(evaluated)
    for part in ("scores", "per_change_type", "change_type_accuracy", "intervals"):
        assert again[part] == first[part]
    assert again["controls"]["constant_caption"]["chosen_from"] == "references"
    assert (tmp_path / "predictions_mine.jsonl").exists()  # it looks like the file of a control, and is the user's


def test_input_controls_count_what_the_files_hold(evaluated: Path) -> None:
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


def test_report_and_clip_see_the_images_as_the_network_does(
    program: ModuleType, tiny_captioner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after in this order; transparent red over white and 16-bit grey as load_image gives them."""
    data = folder_of_pairs(tmp_path / "data", [0, 1])
    clear, deep = Image.new("RGBA", (40, 30), (255, 0, 0, 0)), Image.fromarray(np.full((30, 40), 30000, np.uint16))
    clear.save(data / "test" / "0-before.png")
    deep.save(data / "test" / "0-after.png")
    seen: dict[str, list[Any]] = {}
    monkeypatch.setattr("run_idc.report.write_report", lambda _, images: seen.setdefault("report", list(images)))
    score = program.score_with_controls

    def scored(*arguments: Any, images: Any, **options: Any) -> Any:
        seen["clip"] = list(images)
        return score(*arguments, **{**options, "clip_model": None})

    monkeypatch.setattr(program, "score_with_controls", scored)
    monkeypatch.setattr(program, "check_scoring", lambda *_, **__: None)
    command = ["--model", str(tiny_captioner), "--benchmark", "folder", "--output_dir", str(tmp_path / "out")]
    command += ["--benchmark_options", json.dumps({"data_dir": str(data)}), "--input_controls", "False"]
    assert program.main([*command, "--clip_model", "a model"]) == 0
    for number, pair in enumerate(seen["report"]):
        for side, image in zip(("before", "after"), pair, strict=True):
            expected = load_image(data / "test" / f"{number}-{side}.png")
            assert np.array_equal(image, expected), (number, side)
        assert np.array_equal(seen["clip"][number], pair[1])
    before, after = (np.asarray(image) for image in seen["report"][0])
    assert (before == 255).all() and abs(int(after[0, 0, 0]) - 117) <= 1


def test_results_of_a_run_go_onto_its_card(program: ModuleType, evaluated: Path, tmp_path: Path) -> None:
    (tmp_path / "eval" / "toy-test").mkdir(parents=True)
    for name in ("metrics.json", "predictions.jsonl"):
        (tmp_path / "eval" / "toy-test" / name).write_bytes((evaluated / name).read_bytes())
    config = "model: base\nbenchmark: toy\nrevision: null\nbenchmark_options: {}\nprocessor: {}\nlora_rank: 8\n"
    config += "lora_alpha: 16\nlora_dropout: 0.0\nlearning_rate: 0.1\nlr_scheduler_type: constant\nbatch_size: 1\n"
    (tmp_path / "train_config.yaml").write_text(config + "gradient_accumulation_steps: 1\n")
    made = {"device": "cpu", "processes": 1, **dict.fromkeys(("torch", "transformers", "peft", "accelerate"), "1")}
    start = {"step": 0, "environment": {**made, "datasets": "1"}, "trainable_parameters": 1, "parameters": 2}
    lines = [json.dumps({**start, "training_pairs": 3}), json.dumps({"step": 5, "seconds": 60.0})]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    facts = {"tags": [], "method": "It looks.", "requirements": "torch", "adapter_use": "print(1)", "limits": []}
    (tmp_path / "captioner.json").write_text(json.dumps(facts))
    program.renew_card(tmp_path / "eval" / "toy-test")
    card = (tmp_path / "README.md").read_text()
    assert f"{metrics_of(evaluated)['scores']['CIDEr']:.4f}" in card and "toy-test" in card


def test_old_results_never_stand_beside_new_predictions(evaluated: Path, tmp_path: Path) -> None:
    for name in ("metrics.json", "predictions_swapped.jsonl"):
        (tmp_path / name).write_text("old")
    shutil.copy(evaluated / "predictions.jsonl", tmp_path / "alone.jsonl")
    assert metric_main(["score", str(tmp_path / "alone.jsonl"), "--output_dir", str(tmp_path)]) == 0
    assert not (tmp_path / "predictions_swapped.jsonl").exists() and metrics_of(tmp_path)["scores"]


def test_scores_of_other_predictions_are_not_compared(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    mixed = Path(shutil.copytree(evaluated, tmp_path / "mixed"))
    rows = read_predictions(mixed / "predictions.jsonl")
    write_rows(mixed / "predictions.jsonl", [{**row, "prediction": "x"} for row in rows])
    assert metric_main(["compare", str(evaluated), str(mixed)]) == 2
    assert "metrics.json was made from other predictions than predictions.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--metrics", "Meteor"], "unknown metrics"),
        (["--sentence_model", "no/folder"], "no/folder"),
        (["--protocol", "paper"], "the paper protocol drops the last incomplete batch, which is all of these 3 pairs"),
    ],
)
def test_what_cannot_be_scored_is_told_before_anything_is_predicted(
    program: ModuleType, tiny_captioner: Path, tmp_path: Path, capsys: pytest.CaptureFixture, wrong: list, message: str
) -> None:
    (tmp_path / "metrics.json").write_text("old")
    command = ["--model", str(tiny_captioner), "--benchmark", "toy", "--output_dir", str(tmp_path)]
    options = ["--benchmark_options", json.dumps({**OPTIONS, "test": 3})]
    assert program.main([*command, *options, *wrong]) == 2
    assert message in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def folder_of_pairs(folder: Path, order: list[int]) -> Path:
    """A benchmark of one split, test."""
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


def test_a_benchmark_without_training_pairs_and_that_changes_meanwhile(
    program: ModuleType, tiny_captioner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predictions of an interrupted call are not taken for those of other pairs."""
    data, out = tmp_path / "data", tmp_path / "out"
    command = ["--model", str(tiny_captioner), "--benchmark", "folder", "--output_dir", str(out)]
    command += ["--benchmark_options", json.dumps({"data_dir": str(data)}), "--no_input_controls"]
    folder_of_pairs(data, [0, 1, 2])
    with monkeypatch.context() as patched:
        patched.setattr(program, "score_benchmark", lambda *_: (_ for _ in ()).throw(OSError("stopped")))
        assert program.main(command) == 2 and list(out.glob(".partial-*"))
    folder_of_pairs(data, [2, 1, 0])
    assert program.main(command) == 0
    assert metrics_of(out)["controls"]["constant_caption"]["chosen_from"] == "references"
    rows = load_benchmark("folder", "test", data_dir=str(data))
    expected = caption(*load(tiny_captioner, device="cpu"), [(row["before"], row["after"]) for row in rows])
    predicted = read_predictions(out / "predictions.jsonl")
    assert [(row["pair_id"], row["prediction"]) for row in predicted] == list(zip("210", expected, strict=True))


def test_compare_prints_one_table_with_the_gain(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = read_predictions(evaluated / "predictions.jsonl")
    perfect = [{**row, "prediction": row["references"][0]} for row in rows]
    write_rows(tmp_path / "best.jsonl", perfect)
    assert metric_main(["score", str(tmp_path / "best.jsonl"), "--output_dir", str(tmp_path / "best")]) == 0
    readme = tmp_path / "README.md"
    readme.write_text("above\n<!-- results: generated -->\nold\n<!-- results: end -->\nbelow\n")
    capsys.readouterr()
    arguments = ["compare", str(tmp_path / "best"), str(evaluated), "--names", "perfect", "ours"]
    assert metric_main([*arguments, "--table_in", str(readme)]) == 0
    table = capsys.readouterr().out.strip()
    best, ours = metrics_of(tmp_path / "best")["scores"]["CIDEr"], metrics_of(evaluated)["scores"]["CIDEr"]
    assert "perfect minus ours" in table and f"- CIDEr {best - ours:+.3f}" in table
    assert "| perfect |" in table and "constant caption" in table
    text = readme.read_text()
    assert table in text and "old" not in text and text.startswith("above\n") and text.endswith("below\n")


def test_the_readme_and_its_metrics_agree(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    start, end = TABLE_MARKS
    shown = text.split(start)[1].split(end)[0].strip()
    folders = [root / "docs" / "results" / name for name in ("toy", "toy-base")]
    assert shown == compare(folders, ["after LoRA", "before LoRA"])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published predictions (../shared/data) are not on this machine")
def test_published_scores_of_spot_the_diff_to_four_digits(tmp_path: Path) -> None:
    folder = SHARED / "spot-the-diff" / "predictions"
    arguments = ["score", str(folder / "ddla_rerun_predfile.json")]
    arguments += ["--references", str(folder / "ddla_rerun_gtfile.json"), "--output_dir", str(tmp_path)]
    assert metric_main(arguments) == 0
    assert {name: round(score, 4) for name, score in metrics_of(tmp_path)["scores"].items()} == SPOT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--benchmark is missing"),
        (["--benchmark", "toy", "--output_dir", "o"], "--model or --adapter is missing"),
        (["--benchmark", "toy", "--model", "m"], "--output_dir is missing"),
        (["--benchmark", "toys", "--model", "m", "--output_dir", "o"], "unknown benchmark 'toys'"),
        (["--benchmark", "toy", "--model", "m", "--output_dir", "o", "--temperature", "2"], "need --do_sample"),
        (
            ["--benchmark", "toy", "--model", "m", "--output_dir", "o", "--push_to_hub", "--hub_model_id", "a/b"],
            "must be RUN/eval/NAME",
        ),
        (["--benchmark", "toy", "--model", "m", "--output_dir", "o", "--push_to_hub"], "--hub_model_id go together"),
        (["--benchmark", "toy", "--model", "./none", "--output_dir", "o"], "the folder './none' does not exist"),
        (["--benchmark", "toy", "--model", "m", "--output_dir", "o", "--batch_size", "0"], "at least 1, got 0"),
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
