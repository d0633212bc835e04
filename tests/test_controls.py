"""Controls: the constant caption, exchanged and identical images, and scoring a file again without the model."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from kill_points import after_kills

from metric_idc import input_controls, results, score_rows, write_predictions, write_results
from metric_idc.__main__ import main
from run_idc import paths

QUICK = ["BLEU", "CIDEr"]
ROWS = [
    ("1", "the red cube is gone", ["the red cube was removed"], "remove"),
    ("2", "a ball was added", ["there is a new blue ball", "a ball was added"], "add"),
    ("3", "the cube moved", ["the cube has moved"], "move"),
    ("4", "nothing has changed", ["no change"], "none"),
]
SWAPPED = ("a red cube was added", "a ball was added", "it moved", "no change")
IDENTICAL = ("nothing has changed", "nothing has changed", "no change", "a ball was added")


def rows_of(predictions: tuple[str, ...] = tuple(row[1] for row in ROWS)) -> list[dict[str, Any]]:
    return [
        {"pair_id": row[0], "prediction": prediction, "references": row[2], "change_type": row[3]}
        for row, prediction in zip(ROWS, predictions, strict=True)
    ]


@pytest.fixture
def evaluated(tmp_path: Path) -> Path:
    """Return a folder of results like those of evaluate.py."""
    folder = tmp_path / "evaluated"
    others = {"swapped": rows_of(SWAPPED), "identical": rows_of(IDENTICAL)}
    write_predictions(rows_of(), folder / "predictions.jsonl")
    for name, rows in others.items():
        write_predictions(rows, folder / f"predictions_{name}.jsonl")
    result = score_rows(rows_of(), QUICK, "a car left", same_image_twice=list(IDENTICAL))
    result["controls"] |= input_controls(rows_of(), **others)
    result["signature"] |= {"benchmark": "toy", "constant_caption": "of 7 pairs"}
    result["signature"]["versions"]["torch"] = "0"
    write_results(folder, result)
    return folder


def metrics_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def score_again(source: Path, folder: Path, *options: str) -> dict[str, Any]:
    file = str(source / "predictions.jsonl")
    assert main(["score", file, "--output_dir", str(folder), "--metrics", *QUICK, *options]) == 0
    return metrics_of(folder)


def test_input_controls_by_hand() -> None:
    """One of two pairs with an added or removed object changes its caption; three of four captions deny a change."""
    assert input_controls(rows_of(), rows_of(SWAPPED), rows_of(IDENTICAL)) == {
        "swapped_images": {"pairs": 2, "sentence_differs": 1 / 2},
        "identical_images": {"pairs": 4, "said_unchanged": 3 / 4},
    }
    unchanged = [row | {"change_type": "none"} for row in rows_of()]
    assert "swapped_images" not in input_controls(unchanged, rows_of(SWAPPED), rows_of(IDENTICAL))


def test_captions_of_the_same_image_twice_are_scored_like_predictions() -> None:
    result = score_rows(rows_of(), QUICK, same_image_twice=list(IDENTICAL))
    expected = {"scores": score_rows(rows_of(IDENTICAL), QUICK)["scores"], "said_unchanged": 3 / 4}
    assert result["controls"]["same_image_twice"] == expected
    assert "same_image_twice" not in score_rows(rows_of(), QUICK)["controls"]
    with pytest.raises(ValueError, match="1 captions in same_image_twice for 4 rows"):
        score_rows(rows_of(), QUICK, same_image_twice=["a"])


def test_scoring_again_gives_the_same_files(evaluated: Path, tmp_path: Path) -> None:
    """The scores are written to another folder, and to the folder itself."""
    own = Path(shutil.copytree(evaluated, tmp_path / "own"))
    for source, folder in ((evaluated, tmp_path / "other"), (own, own)):
        score_again(source, folder)
        assert {file.name for file in folder.iterdir()} == {file.name for file in evaluated.iterdir()}
        for file in evaluated.iterdir():
            assert (folder / file.name).read_bytes() == file.read_bytes(), file.name


def test_results_of_controls_are_kept_without_their_files(evaluated: Path, tmp_path: Path) -> None:
    before = metrics_of(evaluated)
    (evaluated / "predictions_swapped.jsonl").unlink()
    assert score_again(evaluated, tmp_path / "same") == before
    other = score_again(evaluated, tmp_path / "paper", "--protocol", "paper", "--paper_batch_size", "3")
    assert set(other["controls"]) == {"constant_caption", "swapped_images", "identical_images"}, "twice would differ"
    assert other["controls"]["constant_caption"]["caption"] == "a car left"
    assert other["signature"]["paper_protocol"]["pairs_dropped"] == 1
    assert other["signature"]["benchmark"] == "toy" and other["signature"]["constant_caption"] == "of 7 pairs"
    standard = score_again(tmp_path / "paper", tmp_path / "standard")
    assert "paper_protocol" not in standard["signature"] and standard["signature"]["protocol"] == "standard"


def test_facts_of_other_predictions_are_not_used(evaluated: Path, tmp_path: Path) -> None:
    write_predictions([rows_of()[0] | {"prediction": "x"}, *rows_of()[1:]], evaluated / "predictions.jsonl")
    result = score_again(evaluated, tmp_path / "scores")
    assert "benchmark" not in result["signature"] and result["signature"]["predictions"] == "predictions.jsonl"
    assert list(result["controls"]) == ["constant_caption"]
    assert result["controls"]["constant_caption"]["chosen_from"] == "references"
    assert "scored reference" in result["signature"]["constant_caption"]


def test_old_results_never_remain_next_to_new_predictions(evaluated: Path, tmp_path: Path) -> None:
    names = ("metrics.json", "pairs.jsonl", "report.html", "predictions_swapped.jsonl", "predictions_mine.jsonl")
    for name in names:
        (tmp_path / name).write_text("old")
    write_predictions(rows_of(), tmp_path / "alone.jsonl")
    assert main(["score", str(tmp_path / "alone.jsonl"), "--output_dir", str(tmp_path), "--metrics", *QUICK]) == 0
    assert not (tmp_path / "report.html").exists() and not (tmp_path / "predictions_swapped.jsonl").exists()
    assert metrics_of(tmp_path)["scores"] and len((tmp_path / "pairs.jsonl").read_text().splitlines()) == 4
    assert (tmp_path / "predictions_mine.jsonl").read_text() == "old", "not a file of this program"


def test_the_file_names_are_those_of_run_folders() -> None:
    names = (results.PREDICTIONS, results.PAIRS, results.METRICS, results.REPORT)
    assert names == (paths.PREDICTIONS, paths.PAIRS, paths.METRICS, paths.REPORT)
    for control in results.CONTROLS:
        assert results.control_predictions(control) == paths.control_predictions(control)


FILES = ("metrics.json", "pairs.jsonl", "predictions.jsonl")
SCORE = """
import contextlib, io
from metric_idc.__main__ import main
from metric_idc.results import write_predictions
ROWS = [
    {"pair_id": "1", "prediction": "a cat left", "references": ["the cat left"]},
    {"pair_id": "2", "prediction": "no change", "references": ["nothing changed"]},
]

def command(folder):
    given, out = folder / "given.jsonl", folder / "out"
    write_predictions(ROWS, given)
    with contextlib.redirect_stdout(io.StringIO()):
        assert not main(["score", str(given), "--output_dir", str(out), "--metrics", "BLEU"])
"""


def test_a_score_that_is_killed_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    *killed, unbroken = after_kills(SCORE, tmp_path, ("os.rename", "os.mkdir", "os.remove"))
    assert sorted(unbroken) == ["given.jsonl", "out", *(f"out/{name}" for name in FILES)]
    assert len(killed) > 8 and all(listing == unbroken for listing in killed)
