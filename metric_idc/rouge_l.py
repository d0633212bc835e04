"""ROUGE-L by pycocoevalcap's Rouge: mean over pairs of the longest-common-subsequence F score, beta 1.2."""

import numpy as np

SCORES = ("ROUGE-L",)
IMPLEMENTATION = "pycocoevalcap Rouge, beta 1.2, best precision and best recall over the references"


def segment_statistics(systems: list[list[str]], references: list[list[str]]) -> list[np.ndarray]:
    """Per system [pairs]: the score of each prediction."""
    from pycocoevalcap.rouge.rouge import Rouge

    rouge = Rouge()

    def scores(system: list[str]) -> list[float]:
        return [rouge.calc_score([text], texts) for text, texts in zip(system, references, strict=True)]

    return [np.array(scores(system), dtype=float) for system in systems]


def reduce(statistics: np.ndarray) -> dict[str, float]:
    """The mean over pairs."""
    return {"ROUGE-L": float(statistics.mean())}
