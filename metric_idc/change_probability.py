"""How good the probabilities of a change are that predictions came with: ranking, calibration, reliability."""

from typing import Any

import numpy as np

from .content_statistics import NO_CHANGE

BINS = 10

Row = dict[str, Any]


def change_probability(rows: list[Row]) -> dict[str, dict[str, Any]]:
    """Return scores of the field `change_probability` of the rows; {} unless every row has it.

    A pair has changed unless its change_type is "none". AUROC is the probability that a changed pair has a higher
    value than an unchanged one (ties count half); it is missing if all pairs are changed, or none is. The expected
    calibration error is the mean distance between probability and share of changed pairs over BINS bins of equal
    width, weighted by pairs (Naeini et al. 2015; Guo et al. 2017). `reliability` lists the bins that have pairs.

    Raises: ValueError for a value outside 0 to 1.
    """
    if not rows or not all("change_probability" in row for row in rows):
        return {}
    values = np.array([_checked(row) for row in rows])
    changed = np.array([row.get("change_type", "") != NO_CHANGE for row in rows])
    bins = np.minimum((values * BINS).astype(int), BINS - 1)
    reliability = [
        {
            "pairs": int((bins == index).sum()),
            "probability": float(values[bins == index].mean()),
            "changed": float(changed[bins == index].mean()),
        }
        for index in range(BINS)
        if (bins == index).any()
    ]
    error = sum(each["pairs"] * abs(each["probability"] - each["changed"]) for each in reliability) / len(rows)
    auroc = {} if changed.all() or not changed.any() else {"AUROC": _auroc(values, changed)}
    scores = {**auroc, "expected_calibration_error": error, "reliability": reliability}
    return {"change_probability": scores}


def describe_change_probability(result: dict[str, Any]) -> str:
    """Return what the result of `score_rows` says about probabilities in one line; "" if it has none."""
    scores = result.get("change_probability")
    if scores is None:
        return ""
    auroc = f"AUROC {scores['AUROC']:.3f}, " if "AUROC" in scores else ""
    return f"probability of a change: {auroc}expected calibration error {scores['expected_calibration_error']:.3f}"


def _checked(row: Row) -> float:
    value = row["change_probability"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(
            f"the change_probability of pair {row['pair_id']!r} is {value!r}; it must be a number from 0 to 1"
        )
    return float(value)


def _auroc(values: np.ndarray, changed: np.ndarray) -> float:
    """Return the area under the ROC curve as the Mann-Whitney statistic, with mean ranks for ties."""
    _, position, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[position]
    positive, negative = changed.sum(), (~changed).sum()
    return float((ranks[changed].sum() - positive * (positive + 1) / 2) / (positive * negative))
