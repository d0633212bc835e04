"""ROUGE-L as pycocoevalcap computes it: the mean over pairs of the longest-common-subsequence F score, beta 1.2."""

import numpy as np

SCORES = ("ROUGE-L",)
IMPLEMENTATION = "pycocoevalcap Rouge, beta 1.2, best precision and best recall over the references"
BETA = 1.2


def segment_statistics(systems: list[list[str]], references: list[list[str]]) -> list[np.ndarray]:
    """Return per system [pairs] the score of each prediction."""
    # split at single spaces, as pycocoevalcap does: an empty sentence becomes one empty word
    words = [[text.split(" ") for text in texts] for texts in references]
    return [np.array([_score(*pair) for pair in zip(system, words, strict=True)]) for system in systems]


def reduce(total: np.ndarray, pairs: int) -> dict[str, float]:
    """Return the mean over pairs."""
    return {"ROUGE-L": float(total / pairs)}


def _score(prediction: str, references: list[list[str]]) -> float:
    words = prediction.split(" ")
    common = _common_lengths(words, references)
    precision = max(common) / len(words)
    recall = max(length / len(reference) for length, reference in zip(common, references, strict=True))
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision) if precision and recall else 0.0


def _common_lengths(words: list[str], references: list[list[str]]) -> list[int]:
    """Return the length of the longest common subsequence with each reference.

    A row of the usual table is one integer, in which a 0 marks a word where the length grows (Hyyro 2004,
    "Bit-parallel LCS-length computation revisited"): one step per word of the reference.
    """
    positions: dict[str, int] = {}
    for position, word in enumerate(words):
        positions[word] = positions.get(word, 0) | 1 << position
    full = (1 << len(words)) - 1
    lengths = []
    for reference in references:
        row = full
        for word in reference:
            matches = row & positions.get(word, 0)
            row = (row + matches | row - matches) & full
        lengths.append(len(words) - row.bit_count())
    return lengths
