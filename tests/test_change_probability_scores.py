"""Scores of the probabilities of a change: by hand, by brute force, and what the report shows of them."""

import random
from typing import Any

import pytest

from metric_idc import change_probability, describe_change_probability


def rows_of(values: list[float], changed: list[bool]) -> list[dict[str, Any]]:
    return [
        {"pair_id": str(index), "change_probability": value, "change_type": "add" if has_changed else "none"}
        for index, (value, has_changed) in enumerate(zip(values, changed, strict=True))
    ]


def test_scores_by_hand() -> None:
    rows = rows_of([0.05, 0.05, 0.65, 0.6, 1.0], [False, True, False, True, True])
    scores = change_probability(rows)["change_probability"]
    # of six (changed, unchanged) pairs: 1.0 wins twice, 0.6 once, 0.05 ties once
    assert scores["AUROC"] == pytest.approx(3.5 / 6)
    assert [(each["pairs"], each["changed"]) for each in scores["reliability"]] == [(2, 0.5), (2, 0.5), (1, 1.0)]
    # bins 0.0-0.1, 0.6-0.7 and 0.9-1.0
    assert scores["expected_calibration_error"] == pytest.approx((2 * 0.45 + 2 * 0.125 + 1 * 0.0) / 5)
    assert describe_change_probability({"change_probability": scores}) == (
        "probability of a change: AUROC 0.583, expected calibration error 0.230"
    )


def test_auroc_counts_pairs_of_rows() -> None:
    rng = random.Random(0)
    values = [rng.randrange(10) / 10 for _ in range(60)]
    changed = [rng.random() < 0.4 for _ in range(60)]
    wins = [
        0.5 * (a == b) + (a > b)
        for a, up in zip(values, changed, strict=True)
        if up
        for b, other in zip(values, changed, strict=True)
        if not other
    ]
    scores = change_probability(rows_of(values, changed))["change_probability"]
    assert scores["AUROC"] == pytest.approx(sum(wins) / len(wins))


def test_without_probabilities_or_unchanged_pairs() -> None:
    assert change_probability([]) == {}
    rows = rows_of([0.5, 0.7], [True, True])
    scores = change_probability(rows)["change_probability"]
    assert "AUROC" not in scores and scores["expected_calibration_error"] == pytest.approx(0.4)
    assert "AUROC" not in describe_change_probability({"change_probability": scores})
    del rows[0]["change_probability"]
    assert change_probability(rows) == {} and describe_change_probability({}) == ""


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), True, "0.5", None])
def test_values_that_are_no_probability_are_refused(value: Any) -> None:
    rows = rows_of([0.5, 0.5], [True, False])
    rows[1]["change_probability"] = value
    with pytest.raises(ValueError, match="change_probability of pair '1' is"):
        change_probability(rows)
