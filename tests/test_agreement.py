"""`python -m metric_idc agreement`: Kendall's tau of scores with judgements whose agreement is known."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metric_idc.__main__ import main
from metric_idc.agreement import EXAMPLES, agreement, agreement_table, tau_of_preferences, tau_of_ratings

UNITS = ["DifferenceUnits"]
GOOD, HALF, BAD = "the red car was removed", "the red car was added", "a dog appeared"
REFERENCES = ["the red car has disappeared"]


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def preference(a: str, b: str, preferred: str) -> dict[str, Any]:
    return {"prediction_a": a, "prediction_b": b, "references": REFERENCES, "preference": preferred}


def rating(prediction: str, value: float) -> dict[str, Any]:
    return {"prediction": prediction, "references": REFERENCES, "rating": value}


def test_tau_of_preferences_by_hand() -> None:
    """Two of three comparisons agree; a tie of the score or of the people counts as in tau-b."""
    assert tau_of_preferences(np.array([0.5, -1, 2.0]), np.array([1.0, -1, -1])) == pytest.approx(1 / 3)
    assert tau_of_preferences(np.array([0.5, 0.0]), np.array([1.0, 1])) == pytest.approx(1 / np.sqrt(2))
    assert tau_of_preferences(np.array([0.5, -0.5]), np.array([1.0, 0])) == pytest.approx(1 / np.sqrt(2))
    assert np.isnan(tau_of_preferences(np.array([0.0, 0.0]), np.array([1.0, 1])))


def test_tau_of_ratings_by_hand() -> None:
    """Of six pairs of lines five are concordant and one is discordant."""
    assert tau_of_ratings(np.array([1, 2, 3, 4.0]), np.array([1, 3, 2, 4.0])) == pytest.approx(4 / 6)
    assert tau_of_ratings(np.array([1, 2, 3.0]), np.array([3, 2, 1.0])) == pytest.approx(-1)


def test_preferences_that_units_share_or_reverse(tmp_path: Path) -> None:
    lines = [preference(GOOD, BAD, "a"), preference(BAD, HALF, "b"), preference(HALF, GOOD, "b")] * 4
    found = agreement(write(tmp_path / "same.jsonl", lines), UNITS).scores
    assert found["Unit-Action-F1"]["tau"] == pytest.approx(8 / np.sqrt(8 * 12)), "a third of the lines are ties"
    assert found["Unit-F1"]["tau"] == pytest.approx(8 / np.sqrt(8 * 12)), "things of the last are equal"
    assert found["Unit-F1"]["low"] <= found["Unit-F1"]["tau"] <= found["Unit-F1"]["high"]
    reversed_lines = [line | {"preference": {"a": "b", "b": "a"}[line["preference"]]} for line in lines]
    opposite = agreement(write(tmp_path / "other.jsonl", reversed_lines), UNITS).scores
    assert opposite["Unit-F1"]["tau"] == -found["Unit-F1"]["tau"]


def test_ratings_that_scores_share_in_part(tmp_path: Path) -> None:
    """Each score is equal for two of three sentences: two of the three pairs of lines are concordant."""
    lines = [rating(GOOD, 5), rating(HALF, 3.5), rating(BAD, 1)]
    found = agreement(write(tmp_path / "r.jsonl", lines), [*UNITS, "ROUGE-L"]).scores
    for name in ("ROUGE-L", "Unit-F1", "Unit-Action-F1"):
        assert (found[name]["tau"], found[name]["lines"]) == (pytest.approx(2 / np.sqrt(2 * 3)), 3), name
    assert agreement(tmp_path / "r.jsonl", UNITS) == agreement(tmp_path / "r.jsonl", UNITS), "the seed is fixed"


def test_more_hallucinated_units_are_worse(tmp_path: Path) -> None:
    unchanged = {"references": ["nothing has changed"], "change_type": "none"}
    sentences = ["no change", "a car was added", "a car was added and a dog was removed"]
    lines = [rating(text, -number) | unchanged for number, text in enumerate(sentences)]
    lines.append(rating(GOOD, 5))
    found = agreement(write(tmp_path / "r.jsonl", lines), UNITS).scores
    assert found["Unit-HR"]["tau"] == pytest.approx(1) and found["Unit-HR"]["lines"] == 3
    assert found["Unit-F1"]["lines"] == 1


def test_the_command_prints_the_best_first(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write(tmp_path / "p.jsonl", [rating(REFERENCES[0], 5), rating(HALF, 3.5), rating(BAD, 1)])
    assert main(["agreement", str(tmp_path / "p.jsonl"), "--metrics", "DifferenceUnits", "ROUGE-L"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| score | Kendall's tau [95 %] | lines |"
    assert re.fullmatch(r"\| ROUGE-L \| 1\.000 \[\S+ 1\.000\] \| 3 \|", lines[2])
    taus = [float(line.split("|")[2].split()[0]) for line in lines[2:] if line.split("|")[2].strip()]
    assert taus == sorted(taus, reverse=True) and len(taus) >= 4


def test_a_score_without_differences_has_no_tau() -> None:
    table = agreement_table({"x": {"tau": float("nan"), "low": float("nan"), "high": float("nan"), "lines": 4}})
    assert table.splitlines()[-1] == "| x |  | 4 |"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "has 0 lines; agreement needs at least 2"),
        ([rating("a", 1), preference("a", "b", "a")], "use one form in a file"),
        ([preference("a", "b", "c")] * 2, r"line 1: preference is 'c'; use one of a, b, tie"),
        ([rating("a", "high")] * 2, "line 1: rating is 'high'; use a finite number"),
        ([rating("a", 2), rating("b", 2)], "all lines have the same judgement"),
        ([preference("a", "b", "tie")] * 2, "all lines have the same judgement"),
        ([rating("a", 1), {"prediction": "a"}], "line 2: expected the fields of .*preference.* or of .*rating"),
        (["x"], "line 1: expected the fields"),
        ([rating("a", 1), rating(None, 2)], "the prediction of pair 'line 2' is None; it must be a string"),
        ([rating("a", 1) | {"references": []}, rating("b", 2)], "pair 'line 1' has no reference"),
    ],
)
def test_what_cannot_be_used_is_quoted(
    tmp_path: Path, lines: list[Any], message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(ValueError, match=message):
        agreement(write(tmp_path / "p.jsonl", lines), UNITS)
    assert main(["agreement", str(tmp_path / "p.jsonl"), "--metrics", *UNITS]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_lines_that_are_not_json_are_quoted(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(f"{EXAMPLES[0]}\n{{")
    with pytest.raises(ValueError, match="line 2: not a line of JSON"):
        agreement(tmp_path / "p.jsonl", UNITS)


def test_the_examples_in_messages_can_be_used(tmp_path: Path) -> None:
    for number, example in enumerate(EXAMPLES):
        first = json.loads(example)
        second = first | ({"rating": 1} if "rating" in first else {"preference": "b"})
        assert agreement(write(tmp_path / f"{number}.jsonl", [first, second]), UNITS).scores
