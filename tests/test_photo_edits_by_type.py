"""measurements/photo_edits_by_type.py: what sentences about edited photographs state, counted by change type."""

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from program_files import load_program

from dataset_syned import load_benchmark
from dataset_syned.benchmarks.photo_edits import packaged_folder
from metric_idc import score_rows, write_predictions, write_results

FEW = {"train": 4, "validation": 2, "test": 40}


@pytest.fixture(scope="module")
def by_type(root: Path) -> ModuleType:
    return load_program(root / "measurements/photo_edits_by_type.py")


@pytest.fixture(scope="module")
def rows() -> Any:
    pytest.importorskip("skimage", reason="scikit-image, whose photographs are used, is not installed")
    return load_benchmark("photo_edits", "test", **FEW)


def evaluation(folder: Path, rows: Any, sentences: list[str], **signature: Any) -> Path:
    """Write the files of an evaluation with these sentences."""
    columns = zip(rows["pair_id"], sentences, rows["captions"], rows["change_type"], strict=True)
    names = ("pair_id", "prediction", "references", "change_type")
    predicted = [dict(zip(names, values, strict=True)) for values in columns]
    folder.mkdir()
    write_predictions(predicted, folder / "predictions.jsonl")
    result = score_rows(predicted, metrics=["BLEU"])
    result["signature"] |= {"benchmark": "photo_edits", "split": "test", "benchmark_options": FEW, **signature}
    write_results(folder, result)
    return folder


def test_true_sentences_are_all_right(by_type: ModuleType, rows: Any, tmp_path: Path) -> None:
    folder = evaluation(tmp_path / "true", rows, [captions[1] for captions in rows["captions"]])
    assert by_type.main([str(folder)]) == 0
    result = json.loads((folder / "by_type.json").read_text())
    unchanged = rows["change_type"].count("none")
    assert 0 < unchanged < FEW["test"]
    assert result["all"]["right type"] == {"share": 1.0, "interval": [1.0, 1.0], "pairs": FEW["test"]}
    assert result["all"]["right action"]["share"] == result["all"]["right place"]["share"] == 1.0
    assert result["all"]["said unchanged"]["share"] == pytest.approx(unchanged / FEW["test"])
    assert result["changed"]["said unchanged"] == {
        "share": 0.0,
        "interval": [0.0, 0.0],
        "pairs": FEW["test"] - unchanged,
    }
    assert set(result["by change type"]) == set(rows["change_type"])


def test_one_sentence_for_all_is_right_for_unchanged_pairs_only(
    by_type: ModuleType, rows: Any, tmp_path: Path
) -> None:
    folder = evaluation(tmp_path / "constant", rows, ["nothing has changed"] * FEW["test"])
    result = by_type.measure(folder)
    assert result["all"]["right type"]["share"] == rows["change_type"].count("none") / FEW["test"]
    assert result["changed"]["right type"]["share"] == 0 and result["changed"]["said unchanged"]["share"] == 1
    assert by_type.table(result).count("\n") == len(result["by change type"]) + 3


def test_things_may_be_called_by_name_last_word_or_categories(by_type: ModuleType) -> None:
    unit = {"thing": "sumatran tiger", "action": "add", "place": "top"}
    provenance = {"units": [unit], "changes": [{"change_type": "add"}], "cut_outs": ["animals/mammals/cats/tiger.png"]}
    truth = by_type.truth_of(provenance)
    assert truth.names == {"sumatran tiger", "tiger", "animal"}
    bird = by_type.truth_of({**provenance, "cut_outs": ["animals/birds/x.png"]})
    assert bird.names == {"sumatran tiger", "tiger", "bird", "animal"}
    assert by_type.truth_of({**provenance, "cut_outs": ["mine/x.png"]}).names == {"sumatran tiger", "tiger"}
    for name, right in (("a tiger", True), ("an animal", True), ("a bengal tiger", True), ("a horse", False)):
        counted = by_type.count_right(truth, by_type.statements(f"{name} has appeared at the top"))
        assert (counted["right thing"], counted["right type"], counted["right place"]) == (right, True, True)
    wrong = by_type.count_right(truth, by_type.statements("the tiger on the left has been removed"))
    assert (wrong["right type"], wrong["right place"], wrong["right thing"]) == (False, False, True)
    nothing = by_type.count_right(truth, by_type.statements("who knows"))
    assert not any(nothing.values())
    assert by_type.chance([truth, by_type.Truth(["add"], [unit], {"horse", "animal"})]) == 1.0
    assert by_type.chance([]) is None


def test_both_changes_of_a_pair_must_be_stated(by_type: ModuleType) -> None:
    truth = by_type.Truth(["text", "noise"], [{"action": "add text", "place": "top"}, {"action": "add noise"}], set())
    both = by_type.statements("some text appeared at the top and the picture is full of grain")
    assert by_type.count_right(truth, both)["right type"]
    assert not by_type.count_right(truth, both[:1])["right type"]


def test_other_evaluations_are_refused(
    by_type: ModuleType, rows: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    sentences = ["nothing has changed"] * FEW["test"]
    folder = evaluation(tmp_path / "toy", rows, sentences, benchmark="toy")
    assert by_type.main([str(folder)]) == 2 and "not on photo_edits" in capsys.readouterr().err
    folder = evaluation(tmp_path / "other", rows, sentences, benchmark_options={**FEW, "test": 20})
    assert by_type.main([str(folder)]) == 2 and "other pairs" in capsys.readouterr().err


def test_photographs_of_ones_own_are_named_again(
    by_type: ModuleType, rows: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """An evaluation records no path of this machine."""
    folder, few = str(tmp_path / "photographs"), {**FEW, "test": 4}
    (tmp_path / "photographs").mkdir()
    for name in ("astronaut.png", "chelsea.png", "coffee.png"):
        shutil.copy(packaged_folder() / name, folder)
    own = load_benchmark("photo_edits", "test", data_dir=folder, **few)
    said = [captions[0] for captions in own["captions"]]
    place = evaluation(tmp_path / "own", own, said, benchmark_options={**few, "data_dir": "photographs"})
    assert by_type.main([str(place)]) == 2 and "missing" in capsys.readouterr().err
    assert by_type.main([str(place), "--data_dir", folder]) == 0
    assert json.loads((place / "by_type.json").read_text())["all"]["right type"] == {
        "share": 1.0,
        "interval": [1.0, 1.0],
        "pairs": 4,
    }
