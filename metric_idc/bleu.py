"""BLEU-1 to BLEU-4 of a corpus, with the closest reference length, by pycocoevalcap's BleuScorer."""

import numpy as np

SCORES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
IMPLEMENTATION = "pycocoevalcap BleuScorer, corpus level, closest reference length"
ORDER = len(SCORES)


def segment_statistics(systems: list[list[str]], references: list[list[str]]) -> list[np.ndarray]:
    """Per system [pairs, 2 + 2 * 4]: prediction length, reference length, n-grams, correct n-grams."""
    from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test

    cooked = [cook_refs(texts, n=ORDER) for texts in references]

    def row(prediction: str, reference: tuple) -> list[int]:
        counts = cook_test(prediction, reference, eff="closest", n=ORDER)
        return [counts["testlen"], counts["reflen"], *counts["guess"], *counts["correct"]]

    return [np.array([row(*pair) for pair in zip(system, cooked, strict=True)]) for system in systems]


def reduce(statistics: np.ndarray) -> dict[str, float]:
    """BLEU of the corpus: counts are summed first, so it is no mean of sentence scores."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    length, reference_length, *counts = statistics.sum(axis=0).tolist()
    scorer = BleuScorer(n=ORDER)
    # the whole corpus as one segment: BleuScorer then does the official arithmetic on the sums
    scorer.ctest = [
        {"testlen": length, "reflen": [reference_length], "guess": counts[:ORDER], "correct": counts[ORDER:]}
    ]
    scores, _ = scorer.compute_score(option="closest", verbose=0)
    return dict(zip(SCORES, map(float, scores), strict=True))
