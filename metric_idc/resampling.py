"""Bootstrap intervals and permutation p-values of any score that is a function of sums over pairs."""

from collections.abc import Callable

import numpy as np

Statistics = dict[str, np.ndarray]  # metric -> [pairs, numbers]
Reduce = Callable[[dict[str, np.ndarray]], dict[str, float]]
CHUNK = 2**22  # counts at a time, so that memory does not grow with the number of pairs


def resampled_scores(statistics: Statistics, reduce: Reduce, resamples: int, seed: int) -> dict[str, np.ndarray]:
    """Return per score [resamples] values: `reduce` of the statistics summed over pairs drawn with replacement."""
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
    """Return the bounds of the middle 95 %, of the values that are not nan."""
    return [float(bound) for bound in np.nanpercentile(values, [2.5, 97.5])]


def permuted_differences(
    a: Statistics, b: Statistics, reduce: Reduce, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Return per score [resamples] a minus b, where each pair's statistics are exchanged with probability 1/2."""
    pairs = len(next(iter(a.values())))
    random = np.random.default_rng(seed)
    at_a_time = max(1, CHUNK // pairs)
    found: list[dict[str, float]] = []
    while len(found) < resamples:
        changes = random.integers(2, size=(min(at_a_time, resamples - len(found)), pairs)).astype(float)
        moved = {name: changes @ (b[name] - a[name]) for name in a}  # from b to a, summed over pairs
        for row in range(len(changes)):
            first = reduce({name: a[name].sum(axis=0) + moved[name][row] for name in a})
            second = reduce({name: b[name].sum(axis=0) - moved[name][row] for name in a})
            found.append({name: first[name] - second[name] for name in first})
    return {name: np.array([row[name] for row in found]) for name in found[0]}


def differences(
    a: Statistics, b: Statistics, reduce: Reduce, resamples: int, seed: int
) -> dict[str, dict[str, float]]:
    """Return a minus b per score, with the 95 % interval of a paired bootstrap over pairs and a two-sided p-value.

    The p-value is that of a permutation test: how often is the difference as large when each pair's two predictions
    change sides at random? (Approximate randomization, Noreen 1989; a bootstrap's is too small with few pairs.)
    Scores that are nan, because they apply to no pair, are left out.
    """
    whole_a, whole_b = (reduce({name: array.sum(axis=0) for name, array in side.items()}) for side in (a, b))
    draws_a, draws_b = (resampled_scores(side, reduce, resamples, seed) for side in (a, b))
    permuted = permuted_differences(a, b, reduce, resamples, seed)
    found = {}
    for name in whole_a:
        difference = whole_a[name] - whole_b[name]
        if not np.isnan(difference):
            low, high = interval(draws_a[name] - draws_b[name])
            p = p_value(difference, permuted[name])
            found[name] = {"difference": difference, "low": low, "high": high, "p_value": p}
    return found


def p_value(difference: float, permuted: np.ndarray) -> float:
    """Return the two-sided p-value: how often permutations differ at least as much; never 0."""
    as_large = np.abs(permuted) >= abs(difference) - 1e-12  # sums in another order differ by rounding
    return float((1 + as_large.sum()) / (1 + len(permuted)))


def mean_over_seeds(values: np.ndarray, resamples: int = 2000) -> dict[str, float | list[float]]:
    """Return the mean of [seeds, pairs], with the middle 95 % of a bootstrap over both, and the mean of each seed."""
    random, (seeds, pairs) = np.random.default_rng(0), values.shape
    draws = [
        values[random.integers(seeds, size=seeds)][:, random.integers(pairs, size=pairs)].mean()
        for _ in range(resamples)
    ]
    return {
        "mean": float(values.mean()),
        "interval": interval(np.array(draws)),
        "seeds": values.mean(axis=1).tolist(),
    }
