"""A judge: a chat model reads which true changes a sentence states, and which stated changes are invented.

The scores are those of DiffSpot (2026). A changed pair is found if at least one of its changes is stated correctly
(partly does not count), an unchanged pair is right if nothing is invented; Judge-Recall and Judge-Specificity are the
shares of these, Judge-Overall that of both together. Judge-Correct and Judge-Partial are shares of all true changes,
Judge-Hallucinations is the number of invented changes per pair (lower is better).

The true changes of a pair are its `units` or, without these, its different references, each judged on its own. The
prompt, judge_prompt.txt, is the same for changed and unchanged pairs, so that it does not give the answer away; its
verdicts have DiffSpot's meanings. A pair without a usable answer counts nowhere, and is reported, as is a changed pair
of which no change is known.
"""

import json
from typing import Any

import numpy as np

from .change_type import stated_change_type
from .chat_answers import ChatAnswers, Question, fill, read_prompt
from .content_statistics import NO_CHANGE
from .difference_units import is_unchanged
from .resampling import differences

VERDICTS = ("correct", "partial", "missed")
PROMPT = "judge_prompt.txt"
NOTHING_STATED: dict[str, Any] = {"verdicts": [], "hallucinations": []}  # what counts of a sentence without a change
DIFFSPOT = ("Judge-Overall", "Judge-Recall", "Judge-Specificity")  # of one pair 0 or 1; the score is their mean

Row = dict[str, Any]


class Judge:
    """A metric by a chat model.

    Args:
        rows: with `pair_id`, `change_type` and perhaps the true `units`; in the order of the sentences.
        answers: of the chat model.
    """

    SCORES = (*DIFFSPOT, "Judge-Correct", "Judge-Partial", "Judge-Hallucinations")

    def __init__(self, rows: list[Row], answers: ChatAnswers) -> None:
        self.rows, self.answers = rows, answers
        self.prompt, sha256 = read_prompt(PROMPT)
        self.failed: list[Any] = []  # pair_ids
        self.judged = self.unknown = 0  # pairs
        truth = "true units" if any("units" in row for row in rows) else "each reference"
        self.IMPLEMENTATION = (
            f"verdicts by {answers.model} at temperature 0, prompt with SHA-256 {sha256}, true changes: {truth}; "
            "overall, recall and specificity of DiffSpot"
        )

    def segment_statistics(self, systems: list[list[str]], references: list[list[str]]) -> list[np.ndarray]:
        """Return per system [pairs, 8], of untokenized captions; all 0 for a pair without a usable answer.

        1 and whether a change was found, of changed pairs; 1 and whether nothing was invented, of unchanged pairs;
        numbers of true, of correct and of partly correct changes; the number of invented changes.
        """
        return [self._statistics(system, references) for system in systems]

    def no_change_statistics(self, references: list[list[str]]) -> np.ndarray:
        """Return [pairs, 8] of a sentence that denies a change: nothing is found, nothing is invented.

        All 0 for the pairs that have failed: the control has the pairs of the predictions.
        """
        listed = [true_changes(row, texts) for row, texts in zip(self.rows, references, strict=True)]
        failed = set(self.failed)
        for number, row in enumerate(self.rows):
            if row["pair_id"] in failed:
                listed[number] = None
        return np.array([_counts(changes, NOTHING_STATED) for changes in listed], float)

    @staticmethod
    def reduce(total: np.ndarray, pairs: int) -> dict[str, float]:
        """Return the scores of summed statistics; nan for those that no pair has."""
        changed, found, unchanged, right, changes, correct, partial, invented = total.tolist()
        return {
            "Judge-Overall": _share(found + right, changed + unchanged),
            "Judge-Recall": _share(found, changed),
            "Judge-Specificity": _share(right, unchanged),
            "Judge-Correct": _share(correct, changes),
            "Judge-Partial": _share(partial, changes),
            "Judge-Hallucinations": _share(invented, changed + unchanged),
        }

    def facts(self) -> dict[str, Any]:
        """Return how many pairs were judged, which had no usable answer, and how often the model was asked again."""
        return {
            "judged_pairs": self.judged,
            "unknown_pairs": self.unknown,  # changed, but none of the references states a change
            "failed_pairs": len(self.failed),
            "failed_pair_ids": self.failed,
            "reasons": self.answers.reasons(),
            "retries": self.answers.retries,
        }

    def _statistics(self, sentences: list[str], references: list[list[str]]) -> np.ndarray:
        listed = [true_changes(row, texts) for row, texts in zip(self.rows, references, strict=True)]
        asked = [number for number, changes in enumerate(listed) if changes is not None]
        judged = self.answers.ask([self._question(self.rows[n], listed[n], sentences[n]) for n in asked])
        statistics = np.zeros((len(sentences), 8))
        for number, answer in zip(asked, judged, strict=True):
            if answer is None:
                self.failed.append(self.rows[number]["pair_id"])
            else:
                statistics[number] = _counts(listed[number], answer)
        self.judged += len(asked) - judged.count(None)
        self.unknown += len(sentences) - len(asked)
        return statistics

    def _question(self, row: Row, changes: list[Any], sentence: str) -> Question:
        numbered = [{"number": number, "change": change} for number, change in enumerate(changes, start=1)]
        prompt = fill(
            self.prompt,
            differences=json.dumps(numbered, indent=1, ensure_ascii=False),
            sentence=json.dumps(sentence, ensure_ascii=False),
        )
        about = {"pair_id": row["pair_id"], "sentence": sentence}
        return Question(about, prompt, lambda answer: checked_verdicts(answer, len(changes)))


def true_changes(row: Row, references: list[str]) -> list[Any] | None:
    """Return what changed, [] for an unchanged pair; None for a changed one of which nothing is known.

    References that deny a change are left out for a changed pair.
    """
    if is_unchanged(row, references):
        return []
    if "units" in row:
        return row["units"]
    return [text for text in dict.fromkeys(references) if stated_change_type(text) != NO_CHANGE] or None


def judged_differences(
    scores_a: list[dict[str, float]], scores_b: list[dict[str, float]], resamples: int = 1000, seed: int = 0
) -> tuple[dict[str, dict[str, float]], int]:
    """Return a minus b of the scores of DiffSpot, as `differences` does, and the number of pairs, all judged in both.

    Args:
        scores_a, scores_b: of the same pairs in the same order, as pairs.jsonl has them.
    """
    nan = float("nan")
    values = [np.array([[pair.get(name, nan) for name in DIFFSPOT] for pair in side]) for side in (scores_a, scores_b)]
    known = ~np.isnan(values[0] - values[1])  # [pairs, scores]
    sides = [{"Judge": np.hstack([np.where(known, side, 0), known])} for side in values]

    def reduce(sums: dict[str, np.ndarray]) -> dict[str, float]:
        right, pairs = np.split(sums["Judge"], 2)
        return dict(zip(DIFFSPOT, map(_share, right, pairs), strict=True))

    return differences(*sides, reduce, resamples, seed), int(known[:, 0].sum())  # the first score is of all pairs


def checked_verdicts(answer: dict[str, Any], changes: int) -> dict[str, Any]:
    """Return the verdicts, in the order of the changes, and hallucinations of an answer.

    Raises: ValueError unless each change has exactly one of VERDICTS, and hallucinations are a list of sentences.
    """
    verdicts, invented = answer.get("verdicts"), answer.get("hallucinations")
    if not isinstance(verdicts, list) or not all(isinstance(each, dict) for each in verdicts):
        raise ValueError('"verdicts" is not a list of objects')
    wrong = [each.get("verdict") for each in verdicts if each.get("verdict") not in VERDICTS]
    if wrong:
        raise ValueError(f"{json.dumps(wrong[0])} is not a verdict, use one of {', '.join(VERDICTS)}")
    verdict_of = {each["number"]: each["verdict"] for each in verdicts if type(each.get("number")) is int}
    if len(verdicts) != changes or verdict_of.keys() != set(range(1, changes + 1)):
        raise ValueError(f'"verdicts" must contain each number of the list once, and it has {changes}')
    if not isinstance(invented, list) or not all(isinstance(text, str) and text.strip() for text in invented):
        raise ValueError('"hallucinations" is not a list of sentences')
    ordered = [{"number": number, "verdict": verdict_of[number]} for number in sorted(verdict_of)]
    return {"verdicts": ordered, "hallucinations": invented}


def _counts(changes: list[Any] | None, answer: dict[str, Any]) -> list[float]:
    """Return the statistics of one pair."""
    if changes is None:
        return [0.0] * 8
    verdicts, invented = [each["verdict"] for each in answer["verdicts"]], len(answer["hallucinations"])
    correct, changed = verdicts.count("correct"), bool(changes)
    unchanged_right = not changed and not invented
    counts = (changed, correct > 0, not changed, unchanged_right, len(changes), correct, verdicts.count("partial"))
    return [float(count) for count in (*counts, invented)]


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
