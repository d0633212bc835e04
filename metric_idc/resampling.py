"""Intervals and p-values from a bootstrap over pairs, of any score that is a function of summed statistics."""

from collections.abc import Callable

import numpy as np

Reduce = Callable[[dict[str, np.ndarray]], dict[str, float]]
CHUNK = 2**22  # counts at a time, so that memory does not grow with the pairs


def resampled_scores(
    statistics: dict[str, np.ndarray], reduce: Reduce, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Per score [resamples]: `reduce` gets, per metric, the statistics summed over pairs drawn with replacement."""
    pairs = len(next(iter(statistics.values())))
    random = np.random.default_rng(seed)
    at_a_time = max(1, CHUNK // pairs)
    rows: list[dict[str, float]] = []
    while len(rows) < resamples:
        # [resamples, pairs] how often each pair was drawn: sums are then one matrix product
        draws = [random.integers(pairs, size=pairs) for _ in range(min(at_a_time, resamples - len(rows)))]
        counts = np.array([np.bincount(draw, minlength=pairs) for draw in draws], dtype=float)
        sums = {name: counts @ array for name, array in statistics.items()}
        rows += [reduce({name: array[row] for name, array in sums.items()}) for row in range(len(draws))]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def interval(values: np.ndarray) -> list[float]:
    """The middle 95 %."""
    return [float(bound) for bound in np.percentile(values, [2.5, 97.5])]


def p_value(differences: np.ndarray) -> float:
    """Two-sided: how rarely the difference has the other sign."""
    # one is added so that no finite number of resamples claims certainty
    tail = (1 + min((differences <= 0).sum(), (differences >= 0).sum())) / (1 + len(differences))
    return float(min(1.0, 2 * tail))
