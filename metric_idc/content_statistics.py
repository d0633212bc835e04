"""Statistics of what predictions say: the change type, change or no change, length and diversity."""

from collections import Counter
from typing import Any

from .change_type import CHANGE_TYPES, stated_change_type

Row = dict[str, Any]
NO_CHANGE = "none"  # one of CHANGE_TYPES: every benchmark's change type of unchanged pairs


def change_type_accuracy(rows: list[Row]) -> dict[str, float | int]:
    """Return how often the prediction states the row's change type; {} if no row has a type that rules recognize."""
    right = [
        stated_change_type(row["prediction"]) == row["change_type"]
        for row in rows
        if row.get("change_type", "") in CHANGE_TYPES
    ]
    return {"change_type_accuracy": sum(right) / len(right), "change_type_pairs": len(right)} if right else {}


def change_detection(rows: list[Row]) -> dict[str, dict[str, float | int]]:
    """Return how well the predictions separate changed from unchanged pairs; {} if there is no unchanged pair.

    "Changed" is the positive class. A sentence states a change unless the rules of `stated_change_type` find that it
    denies one. A pair has changed unless its change_type is "none", also if its type is unknown.
    """
    truth = [row.get("change_type", "") != NO_CHANGE for row in rows]
    if all(truth):
        return {}
    said = [stated_change_type(row["prediction"]) != NO_CHANGE for row in rows]
    both = Counter(zip(truth, said, strict=True))
    found, missed, invented, right = both[True, True], both[True, False], both[False, True], both[False, False]
    return {
        "change_detection": {
            "accuracy": (found + right) / len(rows),
            "precision": found / (found + invented) if found + invented else 0.0,
            "recall": found / (found + missed) if found + missed else 0.0,
            "f1": 2 * found / (2 * found + missed + invented) if found + missed + invented else 0.0,
            "no_change_recall": right / (right + invented),
            "changed_pairs": found + missed,
            "unchanged_pairs": right + invented,
        }
    }


def said_unchanged(sentences: list[str]) -> float:
    """Return the share of the sentences that deny a change."""
    return sum(stated_change_type(sentence) == NO_CHANGE for sentence in sentences) / len(sentences)


def length_and_diversity(sentences: list[str]) -> dict[str, float]:
    """Return the mean length in tokens, distinct-1, distinct-2 and the share of distinct sentences.

    distinct-1 and distinct-2 (Li et al. 2016): the number of distinct words (word pairs) divided by that of all.
    """
    words = [sentence.split() for sentence in sentences]
    bigrams = [pair for sentence in words for pair in zip(sentence, sentence[1:], strict=False)]
    single = [word for sentence in words for word in sentence]
    return {
        "mean_tokens": len(single) / len(words),
        "distinct_1": len(set(single)) / max(1, len(single)),
        "distinct_2": len(set(bigrams)) / max(1, len(bigrams)),
        "distinct_sentences": len(set(sentences)) / len(sentences),
    }
