"""Measure which errors of a sentence each score notices, and which harmless changes of wording it punishes.

    python measurements/corruptions.py --page docs/reading_scores.md --output docs/results/corruptions.json

A pair has a random change (sometimes two) in the wording of photo_edits: four sentences are its references, a fifth is
the prediction, and the true units are known. Then one thing in the prediction is made wrong, or said in other words.
An error is noticed if the score of the pair falls. No pictures are needed. It also prints how well the rules read the
wordings of photo_edits: precision and recall of (thing, action) against the true units.
"""

import argparse
import random
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from common_idc.atomic_files import write_json
from common_idc.commands import run_command
from dataset_syned.photo_edit import PART, PICTURE, TEXT, Change
from dataset_syned.photo_part_changes import SHEETS
from dataset_syned.photo_scenes import PAINTS, PLACES
from dataset_syned.photo_wordings import SENTENCES, Style, words_for
from dataset_syned.scene_drawing import pick
from dataset_syned.thing_names import ThingName, described_name
from metric_idc import score_rows, stated_units
from metric_idc.comparison import renew_table
from metric_idc.difference_units import LOWER_IS_BETTER, best_counts, true_units, word_similarity

MARKS = ("<!-- corruptions: generated -->", "<!-- corruptions: end -->")
REFERENCES = 4  # of six sentences; the others are the prediction and what says the same
SHOWN = "BLEU-4 METEOR ROUGE-L CIDEr SentenceSimilarity Unit-F1 Unit-Action-F1 Unit-F1-Embedded Unit-TNR".split()
NAMES = [
    described_name(text)
    for text in (
        "A Sumatran tiger. A horse. Two African lions. A bunch of grapes. A drum kit. A green apple. A sea lion. "
        "A great horned owl. A fire engine. A teddy bear. A sailing boat. Some carrots. A red squirrel. A piano. "
        "An old steam train. Bread. A walking stick. A hot air balloon. A pair of shoes. A butterfly."
    ).split(". ")
]
WHERE = [place for row in PLACES for place in row]
THING_ACTIONS = ("add", "remove", "replace", "move", "recolor", "duplicate")
PART_ACTIONS = ("blur part", "pixelate part", "duplicate part")
LEFT_AND_RIGHT = {
    **{"rotate left": "rotate right", "rotate right": "rotate left"},
    **{"tilt left": "tilt right", "tilt right": "tilt left"},
}
PICTURE_ACTIONS = [name for name in SENTENCES["description"] if name not in (*THING_ACTIONS, *PART_ACTIONS)]
PICTURE_ACTIONS = [name for name in PICTURE_ACTIONS if name not in ("none", "cover") and "text" not in name]
SYNONYMS = {
    **{
        "picture": "image",
        "photo": "image",
        "upper left": "top left",
        "lower left": "bottom left",
        "has been": "was",
        "gone": "missing",
    },
    **{"removed": "deleted", "disappeared": "vanished", "added": "inserted", "shifted": "moved", "blurry": "blurred"},
    **{"raised": "increased", "lowered": "reduced", "vivid": "colorful", "grain": "noise", "swapped": "exchanged"},
}

Row = dict[str, Any]


def random_change(rng: random.Random, actions: list[str]) -> Change:
    """Return a change whose fields are all set, so that each action can be said of it."""
    action = pick(rng, actions)
    name = pick(rng, NAMES)
    other = pick(rng, [thing for thing in NAMES if thing.head != name.head])
    place, source = rng.sample(WHERE, 2)
    things = {"cover": ThingName(pick(rng, ("rectangle", "circle"))), "add text": TEXT, "remove text": TEXT}
    thing = name if action in THING_ACTIONS else PART if action in PART_ACTIONS else things.get(action, PICTURE)
    color = pick(rng, list(SHEETS if action == "cover" else PAINTS))
    return Change("", action, thing, place, other, source, color)


def unit_of(change: Change) -> dict[str, str]:
    """Return the true unit as `provenance` has it."""
    return change.unit()


def said(change: Change, number: int, seed: int, style: Style = "description") -> str:
    """Return the sentence with a number about a change; the seed decides between its short and its long name."""
    templates = SENTENCES[style][change.action]
    return templates[number % len(templates)].format(**words_for(random.Random(seed), change))


def wrong_thing(rng: random.Random, change: Change) -> Change | None:
    others = [thing for thing in NAMES if thing.head not in (change.thing.head, change.other and change.other.head)]
    return replace(change, thing=pick(rng, others)) if change.action in THING_ACTIONS else None


def wrong_action(rng: random.Random, change: Change) -> Change | None:
    group = next((names for names in (THING_ACTIONS, PART_ACTIONS, PICTURE_ACTIONS) if change.action in names), ())
    others = [name for name in group if name not in (change.action, LEFT_AND_RIGHT.get(change.action))]
    return replace(change, action=pick(rng, others)) if others else None


def wrong_place(rng: random.Random, change: Change) -> Change | None:
    return replace(change, place=pick(rng, [place for place in WHERE if place not in (change.place, change.source)]))


def wrong_direction(rng: random.Random, change: Change) -> Change | None:
    if change.action == "move":
        return replace(change, place=change.source, source=change.place)
    turned = LEFT_AND_RIGHT.get(change.action)
    return replace(change, action=turned) if turned else None


def wrong_color(rng: random.Random, change: Change) -> Change | None:
    return replace(change, color=pick(rng, [color for color in PAINTS if color != change.color]))


ERRORS: dict[str, Callable[[random.Random, Change], Change | None]] = {
    "thing": wrong_thing,
    "action": wrong_action,
    "place": wrong_place,
    "direction": wrong_direction,
    "color": wrong_color,
}


def with_synonyms(sentence: str) -> str:
    """Return the sentence with each word of SYNONYMS replaced, once."""
    pattern = rf"\b(?:{'|'.join(SYNONYMS)})\b"
    return re.sub(pattern, lambda match: SYNONYMS[match[0]], sentence)


def variants(rng: random.Random, seed: int) -> tuple[Row, dict[str, str]]:
    """Return the row of a pair, whose prediction is true, and by kind of variant what else may be said."""
    everything = [name for name in SENTENCES["description"] if name != "none"]
    changes = [random_change(rng, everything)]
    if rng.random() < 0.2:
        changes = [random_change(rng, list(THING_ACTIONS)), random_change(rng, PICTURE_ACTIONS)]
    first, numbers = changes[0], rng.sample(range(6), 6)

    def sentence(number: int, stated: list[Change]) -> str:
        return " and ".join(said(change, number, seed) for change in stated)

    true = sentence(numbers[0], changes)
    found = {kind: error(rng, first) for kind, error in ERRORS.items()}
    other = {kind: sentence(numbers[0], [change, *changes[1:]]) for kind, change in found.items() if change}
    stated = {change.action for change in changes}
    invented = random_change(rng, [name for name in PICTURE_ACTIONS if name not in stated])
    other["invented change"] = f"{true} and {said(invented, numbers[0], seed)}"
    if len(changes) == 2:
        other["left-out change"] = said(first, numbers[0], seed)
    other["no change"] = "nothing has changed"
    other["other sentence"] = sentence(numbers[1], changes)
    other["synonyms"] = with_synonyms(true)
    row = {
        "prediction": true,
        "references": [sentence(number, changes) for number in numbers[2 : 2 + REFERENCES]],
        "units": [unit_of(change) for change in changes],
    }
    return row, {kind: text for kind, text in other.items() if text != true}


def unchanged_variants(rng: random.Random, seed: int) -> tuple[Row, dict[str, str]]:
    """Return the row of an unchanged pair, and a change that nobody made."""
    templates = rng.sample(SENTENCES["description"]["none"], 6)
    invented = said(random_change(rng, list(THING_ACTIONS)), seed, seed)
    row = {"prediction": templates[0], "references": templates[2 : 2 + REFERENCES], "units": []}
    return row, {"invented on unchanged": invented, "other sentence": templates[1]}


def noticed(pairs: int, sentence_model: str | None) -> dict[str, dict[str, list[float]]]:
    """Return per kind of variant and per score [share of pairs where the score falls, number of pairs]."""
    rng = random.Random(0)
    drawn = [(unchanged_variants if number % 4 == 0 else variants)(rng, number) for number in range(pairs)]
    rows = []
    for number, (row, others) in enumerate(drawn):
        for kind, text in {"": row["prediction"], **others}.items():
            rows.append(row | {"prediction": text, "pair_id": f"{number} {kind}"})
    result = score_rows(rows, constant_caption="nothing has changed", resamples=1, sentence_model=sentence_model)
    scores = {pair["pair_id"]: pair["scores"] for pair in result["pairs"]}
    falls: dict[str, dict[str, list[bool]]] = {}
    for number, (_, others) in enumerate(drawn):
        for kind in others:
            for name, true in scores[f"{number} "].items():
                sign = -1 if name in LOWER_IS_BETTER else 1
                fell = sign * (true - scores[f"{number} {kind}"][name]) > 1e-9
                falls.setdefault(kind, {}).setdefault(name, []).append(fell)
    return {kind: {n: [sum(f) / len(f), len(f)] for n, f in by.items()} for kind, by in falls.items()}


def parser_quality(style: Style, repeats: int = 4) -> dict[str, float]:
    """Return precision and recall of the units that the rules read in all sentences of a style, alone and in twos."""
    rng, total = random.Random(1), [0, 0, 0]

    def count(sentence: str, changes: list[Change]) -> None:
        truth = true_units([unit_of(change) for change in changes])
        units = stated_units(sentence)
        found = best_counts(units, [truth], word_similarity, same_action=True) if truth else (0, len(units), 0)
        total[:] = [a + b for a, b in zip(total, found, strict=True)]

    for action, templates in SENTENCES[style].items():
        for number in range(len(templates) * repeats):
            change = random_change(rng, [action])
            count(said(change, number, number, style), [] if action == "none" else [change])
            if action != "none":
                second = random_change(rng, [name for name in PICTURE_ACTIONS if name != action])
                both = f"{said(change, number, number, style)} and {said(second, number, number, style)}"
                count(both, [change, second])
    matched, invented, missed = total
    return {"precision": matched / (matched + invented), "recall": matched / (matched + missed)}


def table_of(found: dict[str, dict[str, list[float]]]) -> str:
    """Return a Markdown table in per cent, with the number of pairs of each kind in its first row."""
    kinds = [*ERRORS, "invented change", "left-out change", "no change", "invented on unchanged", "other sentence"]
    kinds.append("synonyms")
    counts = [max(int(count) for _, count in found[kind].values()) for kind in kinds]
    lines = [f"| | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    lines.append(f"| pairs | {' | '.join(map(str, counts))} |")
    for name in SHOWN:
        if any(name in found[kind] for kind in kinds):
            cells = [f"{100 * found[kind][name][0]:.0f}" if name in found[kind] else "" for kind in kinds]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def run(arguments: argparse.Namespace) -> None:
    """Measure, print, and write what was asked for."""
    quality = {style: parser_quality(style) for style in SENTENCES}
    for style, values in quality.items():
        print(f"rules on {style}s: precision {values['precision']:.3f}, recall {values['recall']:.3f}")
    found = noticed(arguments.pairs, arguments.sentence_model)
    table = table_of(found)
    if arguments.page:
        renew_table(arguments.page, table, MARKS)
    if arguments.output:
        write_json(arguments.output, {"rules": quality, "score_falls": found})
    print(table)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=800, help="a quarter of them unchanged (default: %(default)s)")
    parser.add_argument("--sentence_model", help="folder of a sentence-embedding model")
    parser.add_argument("--page", type=Path, help="Markdown file with the marks of the table")
    parser.add_argument("--output", type=Path, metavar="FILE.json")
    arguments = parser.parse_args(argv)
    return run_command(lambda: run(arguments), ValueError, OSError, ImportError)


if __name__ == "__main__":
    sys.exit(main())
