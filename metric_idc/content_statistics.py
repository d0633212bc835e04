"""What predictions are like beside their scores: right types of change, change seen or not, length and variety."""

from collections import Counter
from typing import Any

from .change_type import CHANGE_TYPES, stated_change_type

Row = dict[str, Any]
NO_CHANGE = "none"  # of CHANGE_TYPES; every benchmark marks pairs without a change so


def change_type_accuracy(rows: list[Row]) -> dict[str, float | int]:
    """How often the prediction tells the row's type of change; change_types without rules are left out of it."""
    right = [
        stated_change_type(row["prediction"]) == row["change_type"]
        for row in rows
        if row.get("change_type", "") in CHANGE_TYPES
    ]
    return {"change_type_accuracy": sum(right) / len(right), "change_type_pairs": len(right)} if right else {}


def change_detection(rows: list[Row]) -> dict[str, dict[str, float | int]]:
    """Whether the predictions say that something changed where something did; nothing where no pair is without one.

    "Changed" is the positive class. A sentence says so unless the rules of `stated_change_type` find that it denies it, and
    a pair has changed unless its change_type is "none": also one of unknown change_type, if others of the data set are marked.
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
    """Share of the sentences that deny a change."""
    return sum(stated_change_type(sentence) == NO_CHANGE for sentence in sentences) / len(sentences)


def wording(sentences: list[str]) -> dict[str, float]:
    """Mean length in tokens; distinct-1 and distinct-2, the share of different words (word pairs) in all sentences."""
    words = [sentence.split() for sentence in sentences]
    bigrams = [pair for sentence in words for pair in zip(sentence, sentence[1:], strict=False)]
    single = [word for sentence in words for word in sentence]
    return {
        "mean_tokens": len(single) / len(words),
        "distinct_1": len(set(single)) / max(1, len(single)),
        "distinct_2": len(set(bigrams)) / max(1, len(bigrams)),
        "distinct_sentences": len(set(sentences)) / len(sentences),
    }
