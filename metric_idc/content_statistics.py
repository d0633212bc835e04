"""Statistics of what the sentences say: right change types, change detected or not, length and diversity."""

from collections import Counter
from typing import Any

from .change_type import CHANGE_TYPES, stated_change_type

Row = dict[str, Any]
NO_CHANGE = "none"  # of CHANGE_TYPES; every benchmark marks its unchanged pairs with it


def change_type_accuracy(rows: list[Row]) -> dict[str, float | int]:
    """Return how often the prediction states the row's change type; types without rules are left out."""
    known = [row for row in rows if row.get("change_type", "") in CHANGE_TYPES]
    right = [stated_change_type(row["prediction"]) == row["change_type"] for row in known]
    return {"change_type_accuracy": sum(right) / len(right), "change_type_pairs": len(right)} if right else {}


def change_detection(rows: list[Row]) -> dict[str, dict[str, float | int]]:
    """Return how well the predictions say whether anything changed; empty if no pair is marked as unchanged.

    "Changed" is the positive class. A sentence states a change unless `stated_change_type` says "none"; a pair has
    changed unless its change type is "none", also if its type is unknown.
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
    """Return the share of sentences that deny a change."""
    return sum(stated_change_type(sentence) == NO_CHANGE for sentence in sentences) / len(sentences)


def length_and_diversity(sentences: list[str]) -> dict[str, float]:
    """Return mean length in tokens, distinct-1 and distinct-2 (share of different words and word pairs)."""
    words = [sentence.split() for sentence in sentences]
    bigrams = [pair for sentence in words for pair in zip(sentence, sentence[1:], strict=False)]
    single = [word for sentence in words for word in sentence]
    return {
        "mean_tokens": len(single) / len(words),
        "distinct_1": len(set(single)) / max(1, len(single)),
        "distinct_2": len(set(bigrams)) / max(1, len(bigrams)),
        "distinct_sentences": len(set(sentences)) / len(sentences),
    }
