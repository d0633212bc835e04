"""Difference units: which changes does a sentence state, and are they those of the references?

The form is that of SPOT-THE-SHIFT (2026), with rules in place of a language model. A sentence becomes units (thing,
action). The units of a prediction and of a reference are assigned one to one, so that the sum of the similarities of
their things is largest; a match below LEAST_SIMILARITY is none. Matched units are true positives, the others of the
prediction false positives, the others of the reference false negatives; precision, recall and F1 are those of their
sums over all changed pairs. In Unit-Action-F1, the similarity of units with different actions is 0.

References are alternatives: each pair counts with the one that gives the best F1. Where a row has the true `units`,
these alone count. On unchanged pairs, Unit-TNR is the share of predictions without any unit, and Unit-HR the number of
units per pair (lower is better).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

from .change_type import stated_change_type
from .content_statistics import NO_CHANGE
from .noun_phrases import things_of
from .sentence_similarity import SentenceSimilarity
from .unit_rules import NAME as RULES
from .unit_rules import Unit, stated_units

LEAST_SIMILARITY = 0.5
LOWER_IS_BETTER = ("Unit-HR", "Judge-Hallucinations")  # of all scores
NO_CHANGE_SENTENCE = "nothing has changed"  # the control's answer to every pair
# Other names of actions, as data sets have them in their true units.
ACTION_NAMES = {
    **{"shift colors": "recolor", "color": "recolor", "add text": "add", "remove text": "remove", "drop": "remove"},
    **{"flip upside down": "flip", "rotate by half": "rotate"},
    **{f"{action} part": action for action in ("blur", "pixelate", "duplicate")},
}

Row = dict[str, Any]
Units = Sequence[Unit]
Parser = Callable[[str], Units]  # e.g. rules, or a chat model
Similarity = Callable[[str, str], float]


class DifferenceUnits:
    """A metric of the changes that sentences state.

    Args:
        rows: with `change_type` and perhaps the true `units`; in the order of the sentences.
        sentence_model: things are compared by the cosine of its embeddings, and the scores have other names.
        parser: sentence -> units; none for a sentence that denies a change.
        parser_name: what the signature says of the parser, e.g. its model and prompt.
    """

    SCORES = ("Unit-P", "Unit-R", "Unit-F1", "Unit-Action-F1", "Unit-TNR", "Unit-HR")

    def __init__(
        self,
        rows: list[Row],
        sentence_model: SentenceSimilarity | None = None,
        parser: Parser = stated_units,
        parser_name: str = RULES,
    ) -> None:
        self.rows, self.sentence_model, self.parser = rows, sentence_model, parser
        similarity = f"{sentence_model.folder.resolve().name} embeddings" if sentence_model else "words"
        truth = "true units" if any("units" in row for row in rows) else "best reference"
        self.IMPLEMENTATION = (
            f"units (thing, action) by {parser_name}, things compared by {similarity}, one-to-one assignment, "
            f"matches from {LEAST_SIMILARITY}, {truth}"
        )

    def segment_statistics(self, systems: list[list[str]], references: list[list[str]]) -> list[np.ndarray]:
        """Return per system [pairs, 9], of untokenized captions.

        True positives, false positives and false negatives of things, and those of things with actions, of changed
        pairs; 1, whether no unit was stated, and the number of stated units, of unchanged pairs.
        """
        truths = [self._alternatives(row, texts) for row, texts in zip(self.rows, references, strict=True)]
        stated = [[self.parser(sentence) for sentence in system] for system in systems]
        similarity = word_similarity
        if self.sentence_model:
            listed = [*chain(*stated), *chain(*(truth or () for truth in truths))]
            similarity = _cosines(self.sentence_model, sorted({unit.thing for units in listed for unit in units}))

        def statistics(units: Units, truth: list[Units] | None) -> list[float]:
            if truth is None:
                return [0] * 6 + [1, not units, len(units)]
            by_thing = best_counts(units, truth, similarity)
            return [*by_thing, *best_counts(units, truth, similarity, same_action=True), 0, 0, 0]

        return [np.array([statistics(*pair) for pair in zip(system, truths, strict=True)], float) for system in stated]

    def reduce(self, total: np.ndarray, pairs: int) -> dict[str, float]:
        """Return the scores of summed statistics; nan for those of changed or unchanged pairs if there are none."""
        matched, invented, missed, *with_actions, unchanged, right, wrong_units = total
        found = {
            "Unit-P": _ratio(matched, matched + invented, matched + missed),
            "Unit-R": _ratio(matched, matched + missed, matched + missed),
            "Unit-F1": f1(matched, invented, missed),
            "Unit-Action-F1": f1(*with_actions),
        }
        if self.sentence_model:
            return {f"{name}-Embedded": value for name, value in found.items()}
        return found | {
            "Unit-TNR": _ratio(right, unchanged, unchanged),
            "Unit-HR": _ratio(wrong_units, unchanged, unchanged),
        }

    def _alternatives(self, row: Row, references: list[str]) -> list[Units] | None:
        """Return the units of each reference that states any, or the true units alone; None for an unchanged pair."""
        if is_unchanged(row, references):
            return None
        if "units" in row:
            return [true_units(row["units"])]
        return [units for units in dict.fromkeys(tuple(self.parser(text)) for text in references) if units]


def read_references(rows: Iterable[Row]) -> Iterable[str]:
    """Return the references whose units are compared: those of changed pairs without true units."""
    for row in rows:
        if "units" not in row and not is_unchanged(row, row["references"]):
            yield from row["references"]


def is_unchanged(row: Row, references: list[str]) -> bool:
    """Return whether a pair has not changed: by its true units, its change type or, without both, its references."""
    if "units" in row:
        return not row["units"]
    change_type = row.get("change_type", "")
    return change_type == NO_CHANGE or not change_type and all(stated_change_type(t) == NO_CHANGE for t in references)


def true_units(units: Iterable[dict[str, str]]) -> tuple[Unit, ...]:
    """Return units of a data set in the words of the rules."""
    return tuple(
        Unit(
            next(iter(things_of(unit["thing"].lower())), unit["thing"]),
            ACTION_NAMES.get(unit["action"], unit["action"]),
        )
        for unit in units
    )


@lru_cache(maxsize=2**16)
def word_similarity(a: str, b: str) -> float:
    """Return the mean of two numbers: 1 if the last words, the nouns, are equal, and the F1 of the sets of words."""
    first, second = a.split(), b.split()
    common = len({*first} & {*second})
    return ((first[-1:] == second[-1:]) + 2 * common / max(1, len({*first}) + len({*second}))) / 2


def _cosines(model: SentenceSimilarity, things: list[str]) -> Similarity:
    """Return the similarity of things by their embeddings."""
    vector_of = dict(zip(things, model.embed(things), strict=True)) if things else {}
    return lambda a, b: float(vector_of[a] @ vector_of[b])


def count_matches(similarity: np.ndarray) -> int:
    """Return how many of [units, units] are matched by the one-to-one assignment with the largest sum."""
    if 1 in similarity.shape or 0 in similarity.shape:
        return int(similarity.size > 0 and similarity.max() >= LEAST_SIMILARITY)
    from scipy.optimize import linear_sum_assignment  # only here: it takes longer to import than all else together

    return int((similarity[linear_sum_assignment(similarity, maximize=True)] >= LEAST_SIMILARITY).sum())


def best_counts(
    units: Units, alternatives: list[Units], similarity: Similarity, same_action: bool = False
) -> tuple[int, int, int]:
    """Return true positives, false positives and false negatives for the reference that gives the best F1.

    Of equal ones, the reference with the fewest units counts; without a reference nothing does.
    """

    def compared(a: Unit, b: Unit) -> float:
        return 0.0 if same_action and a.action != b.action else similarity(a.thing, b.thing)

    counts = []
    for truth in alternatives:
        matched = count_matches(np.array([[compared(a, b) for b in truth] for a in units]).reshape(-1, len(truth)))
        counts.append((matched, len(units) - matched, len(truth) - matched))
    return max(counts, key=lambda found: (f1(*found), -found[2]), default=(0, 0, 0))


def f1(matched: float, invented: float, missed: float) -> float:
    """Return 2 TP / (2 TP + FP + FN), nan if there was nothing to find."""
    return _ratio(2 * matched, 2 * matched + invented + missed, matched + missed)


def _ratio(part: float, whole: float, to_find: float) -> float:
    if not to_find:
        return float("nan")
    return float(part / whole) if whole else 0.0
