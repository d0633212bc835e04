"""BLEU-1 to BLEU-4 of a corpus, with the closest reference length; the arithmetic is pycocoevalcap's BleuScorer."""

import numpy as np

from .ngrams import ORDER, NgramCounts, count_ngrams

SCORES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
IMPLEMENTATION = "pycocoevalcap BleuScorer, corpus level, closest reference length"


def segment_statistics(systems: list[list[str]], references: list[list[str]]) -> list[np.ndarray]:
    """Return per system [pairs, 2 + 2 * 4]: prediction length, reference length, n-grams, correct n-grams."""
    per_pair = np.array([len(texts) for texts in references])
    counts = count_ngrams([text for texts in [*references, *systems] for text in texts])
    parts = np.split(np.arange(len(counts.words)), np.cumsum([per_pair.sum(), *(len(s) for s in systems[:-1])]))
    theirs = counts.rows(parts[0])
    allowed = _most_in_one_reference(theirs, np.repeat(np.arange(len(references)), per_pair))
    return [_statistics(counts.rows(part), theirs.words, per_pair, allowed) for part in parts[1:]]


def reduce(total: np.ndarray, pairs: int) -> dict[str, float]:
    """Return BLEU of the summed statistics, which is not the mean of sentence scores."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    length, reference_length, *counts = total.tolist()
    scorer = BleuScorer(n=ORDER)
    # the whole corpus as one segment: BleuScorer then does the official arithmetic on the sums
    scorer.ctest = [
        {"testlen": length, "reflen": [reference_length], "guess": counts[:ORDER], "correct": counts[ORDER:]}
    ]
    scores, _ = scorer.compute_score(option="closest", verbose=0)
    return dict(zip(SCORES, map(float, scores), strict=True))


def _most_in_one_reference(references: NgramCounts, pair_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted keys, pair * n-grams + n-gram, and the most often that a reference of the pair contains it."""
    keys = pair_of[references.text_of] * len(references.orders) + references.ngrams
    order = np.argsort(keys)
    unique, first = np.unique(keys[order], return_index=True)
    return unique, np.maximum.reduceat(references.counts[order], first) if len(first) else references.counts


def _statistics(
    predictions: NgramCounts,
    reference_lengths: np.ndarray,
    per_pair: np.ndarray,
    allowed: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    pair_of, (known, most) = predictions.text_of, allowed
    keys = pair_of * len(predictions.orders) + predictions.ngrams
    found = np.minimum(np.searchsorted(known, keys), max(0, len(known) - 1))
    correct = np.zeros(len(keys))
    if len(known):
        correct = np.where(known[found] == keys, np.minimum(predictions.counts, most[found]), 0)
    cells = pair_of * ORDER + predictions.orders[predictions.ngrams]
    matches = np.bincount(cells, correct, minlength=len(per_pair) * ORDER).reshape(-1, ORDER)
    possible = np.maximum(0, predictions.words[:, None] - np.arange(ORDER))
    closest = _closest_lengths(predictions.words, reference_lengths, per_pair)
    return np.column_stack([predictions.words, closest, possible, matches])


def _closest_lengths(lengths: np.ndarray, reference_lengths: np.ndarray, per_pair: np.ndarray) -> np.ndarray:
    """Return [pairs] the reference length nearest to the prediction's; of two, the shorter."""
    far = reference_lengths.max() + 1
    ranks = np.abs(np.repeat(lengths, per_pair) - reference_lengths) * far + reference_lengths
    return np.minimum.reduceat(ranks, np.cumsum(per_pair) - per_pair) % far
