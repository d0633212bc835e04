"""toy: any number of drawn pairs in the spirit of CLEVR-Change, made offline.

    python -m dataset_syned prepare toy        # then load_dataset("toy") works from any directory

There are no raw files; a row's `provenance` has all that its drawing depends on besides the options:

    {"drawn_by": "toy 2.0.0", "seed": 0, "split": "train", "index": 17}

Each pair shows a scene of several things before and after one change (`color`, `add`, `remove`, `move`) or none. A
small shift of the view and other light are not a change. Row i of a split depends only on the options, the split and
i.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import datasets
import numpy as np
from PIL import Image

from ..pair_builder import PairBuilder, PairConfig
from ..pairs import NO_CHANGE, BrokenEntry, RawPair, image_bytes, pair_row, png
from ..scene_drawing import (
    COLORS,
    Look,
    Thing,
    View,
    between,
    draw_background,
    draw_scene,
    draw_things,
    pick,
    place,
    separate,
)

VERSION = "2.0.0"
Wording = Literal["description", "instruction"]
Difficulty = Literal["single", "easy", "hard"]
CHANGE_TYPES = ("color", "add", "remove", "move", NO_CHANGE)  # the types that are drawn
REFERENCES = 5

# {o}: the thing's phrase, {c}: its new colour. A row has REFERENCES of its change type's sentences, in random order.
SENTENCES: dict[Wording, dict[str, tuple[str, ...]]] = {
    "description": {
        "add": (
            "a {o} has been added",
            "a {o} has appeared",
            "there is a new {o}",
            "someone placed a {o} in the scene",
            "a {o} can now be seen",
            "a new {o} showed up",
        ),
        "remove": (
            "the {o} has been removed",
            "the {o} has disappeared",
            "the {o} is gone",
            "someone took the {o} away",
            "the {o} is no longer there",
            "the {o} is missing",
        ),
        "color": (
            "the {o} turned {c}",
            "the {o} became {c}",
            "the {o} is now {c}",
            "the {o} changed its color to {c}",
            "someone painted the {o} {c}",
            "the color of the {o} is {c} now",
        ),
        "move": (
            "the {o} has moved",
            "the {o} is in a different place",
            "the {o} changed its position",
            "someone moved the {o}",
            "the {o} was shifted to another spot",
            "the {o} is at another location",
        ),
        "none": (
            "nothing has changed",
            "the scene is the same as before",
            "no change was made",
            "the two pictures show the same scene",
            "everything stayed the same",
            "there is no difference",
        ),
    },
    "instruction": {
        "add": (
            "add a {o}",
            "put a {o} into the picture",
            "insert a {o}",
            "draw a {o} here",
            "bring in a {o}",
        ),
        "remove": (
            "remove the {o}",
            "delete the {o}",
            "take the {o} away",
            "erase the {o}",
            "get rid of the {o}",
        ),
        "color": (
            "make the {o} {c}",
            "paint the {o} {c}",
            "turn the {o} {c}",
            "recolor the {o} to {c}",
            "change the color of the {o} to {c}",
        ),
        "move": (
            "move the {o}",
            "shift the {o} to another spot",
            "put the {o} somewhere else",
            "move the {o} to a different place",
            "change the position of the {o}",
        ),
        "none": (
            "leave everything as it is",
            "change nothing",
            "do nothing",
            "keep the picture as it is",
            "make no change",
        ),
    },
}


@dataclass(frozen=True)
class Setting:
    """The difficulty of the pairs; lengths are in picture heights."""

    things: tuple[int, int]  # fewest and most
    shift: float  # the view of each picture is shifted by up to this much
    gain: float  # brightness varies by up to this share
    slope: float
    move: float  # a moved thing goes at least this far


SETTINGS: dict[Difficulty, Setting] = {
    "single": Setting(things=(1, 1), shift=0.015, gain=0.08, slope=0.10, move=0.5),
    "easy": Setting(things=(3, 5), shift=0.015, gain=0.08, slope=0.10, move=0.5),
    "hard": Setting(things=(5, 8), shift=0.06, gain=0.20, slope=0.30, move=0.3),
}


@dataclass(frozen=True)
class Pair:
    """A pair before it is drawn."""

    change_type: str
    before: list[Thing]
    after: list[Thing]
    subject: Thing | None  # the changed thing before the change (for `add`: after it)
    new_color: str
    views: tuple[View, View]


def draw_view(rng: random.Random, setting: Setting) -> View:
    """Return a random view within the limits of a setting."""
    return View(
        shift_x=between(rng, -setting.shift, setting.shift),
        shift_y=between(rng, -setting.shift, setting.shift),
        gain=1.0 + between(rng, -setting.gain, setting.gain),
        slope=between(rng, -setting.slope, setting.slope),
    )


def moved(rng: random.Random, thing: Thing, others: list[Thing], aspect: float, least: float) -> Thing | None:
    """Return the thing at another free spot, at least `least` away, or None if there is no room."""
    for _ in range(10):
        spot = place(rng, thing.shape, thing.color, thing.size, others, aspect)
        if spot and (spot.x - thing.x) ** 2 + (spot.y - thing.y) ** 2 >= least**2 and separate(spot, [thing]):
            return spot
    return None


def draw_pair(rng: random.Random, change_type: str, setting: Setting, aspect: float) -> Pair:
    """Return a random pair of a change type; one unchanged pair in four is the same picture twice."""
    low, high = setting.things
    while True:
        things = draw_things(rng, low + int(rng.random() * (high - low + 1)), aspect)
        if len(things) < low:
            continue
        views = (draw_view(rng, setting), draw_view(rng, setting))
        index = int(rng.random() * len(things))
        subject, others = things[index], things[:index] + things[index + 1 :]
        if change_type == NO_CHANGE:
            same = views[0] if rng.random() < 0.25 else views[1]
            return Pair(change_type, things, things, None, "", (views[0], same))
        if change_type == "add":
            return Pair(change_type, others, things, subject, "", views)
        if change_type == "remove":
            return Pair(change_type, things, others, subject, "", views)
        if change_type == "color":
            other = replace(subject, color=pick(rng, [c for c in COLORS if c != subject.color]))
            if all(other.phrase != thing.phrase for thing in others):
                return Pair(
                    change_type, things, things[:index] + [other] + things[index + 1 :], subject, other.color, views
                )
        else:
            other = moved(rng, subject, others, aspect, setting.move)
            if other:
                return Pair(change_type, things, things[:index] + [other] + things[index + 1 :], subject, "", views)


def draw_captions(rng: random.Random, pair: Pair, wording: Wording, count: int = REFERENCES) -> list[str]:
    """Return `count` differently worded sentences about the pair, in random order."""
    sentences = list(SENTENCES[wording][pair.change_type])
    phrase = pair.subject.phrase if pair.subject else ""
    chosen = [sentences.pop(int(rng.random() * len(sentences))) for _ in range(count)]
    return [sentence.format(o=phrase, c=pair.new_color) for sentence in chosen]


@dataclass
class ToyConfig(PairConfig):
    """The options of `toy`.

    Args:
        train, validation, test: number of pairs in each split.
        seed: each seed gives different pairs.
        look: "paper" (cream, ruled, outlined things) or "studio" (grey, plain things).
        wording: "description" ("the small red circle is gone") or "instruction" ("remove the small red circle").
        difficulty: "single" (one thing in each scene), "easy", or "hard" (more things, larger shifts of view and
            light, shorter moves).
        width, height: pixels of each picture.
    """

    train: int = 3000
    validation: int = 300
    test: int = 1000
    seed: int = 0
    look: Look = "paper"
    wording: Wording = "description"
    difficulty: Difficulty = "easy"
    width: int = 128
    height: int = 64

    def check(self) -> None:
        """Raise ValueError that quotes an option which cannot be used."""
        allowed = {"look": ("paper", "studio"), "wording": tuple(SENTENCES), "difficulty": tuple(SETTINGS)}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"toy: {name}={getattr(self, name)!r}, use one of {', '.join(values)}")
        for name in ("train", "validation", "test", "seed", "width", "height"):
            if type(getattr(self, name)) is not int:
                raise ValueError(f"toy: {name}={getattr(self, name)!r}, use a whole number")
        for name in ("train", "validation", "test"):
            if getattr(self, name) < 1:
                raise ValueError(f"toy: {name}={getattr(self, name)}, use a number of pairs of at least 1")
        if self.height < 32 or self.width < self.height:
            raise ValueError(
                f"toy: pictures of {self.width}x{self.height}, use at least 32 high and no narrower than high"
            )


def draw_row(config: ToyConfig, split: str, index: int) -> dict[str, Any]:
    """Return row `index` of a split."""
    pair = draw_raw(config, split, index)
    images = image_bytes(*pair.before), image_bytes(*pair.after)
    return pair_row(pair.pair_id, *images, pair.captions, pair.change_type, pair.provenance)


def draw_any_pair(config: ToyConfig, rng: random.Random) -> Pair:
    """Return a pair of a random change type."""
    return draw_pair(rng, pick(rng, CHANGE_TYPES), SETTINGS[config.difficulty], config.width / config.height)


def compose(config: ToyConfig, split: str, index: int) -> tuple[Pair, np.ndarray, random.Random]:
    """Return row `index` of a split before it is drawn, its background, and the random generator for its captions."""
    rng = random.Random(f"{config.seed}/{split}/{index}")
    pair = draw_any_pair(config, rng)
    return pair, draw_background((config.width, config.height), config.look, rng), rng


def draw_raw(config: ToyConfig, split: str, index: int) -> RawPair:
    """Return row `index` of a split as a pair."""
    pair, background, rng = compose(config, split, index)
    before = draw_scene(pair.before, background, config.look, pair.views[0])
    after = draw_scene(pair.after, background, config.look, pair.views[1])
    pair_id = f"{split}-{index:06d}"
    return RawPair(
        pair_id=pair_id,
        before=(f"{pair_id}-before.png", png(Image.fromarray(before))),
        after=(f"{pair_id}-after.png", png(Image.fromarray(after))),
        captions=draw_captions(rng, pair, config.wording),
        change_type=pair.change_type,
        provenance={"drawn_by": f"toy {VERSION}", "seed": config.seed, "split": split, "index": index},
    )


class Toy(PairBuilder):
    VERSION = datasets.Version(VERSION)
    BUILDER_CONFIG_CLASS = ToyConfig
    BUILDER_CONFIGS = [ToyConfig(name="default")]
    DESCRIPTION = "Drawn before/after pairs in the spirit of CLEVR-Change, five references each."
    LICENSE = "MIT"
    EXPECTED = {"default": {"train": 3000, "validation": 300, "test": 1000}}

    def _info(self) -> datasets.DatasetInfo:
        self.config.check()  # not in the config's __init__: the base class sets the options later
        return super()._info()

    def raw_splits(self) -> list[str]:
        return ["train", "validation", "test"]

    def count_pairs(self, split: str) -> int:
        return getattr(self.config, split)

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        return (draw_raw(self.config, split, index) for index in range(self.count_pairs(split)))

    def numbered_rows(self, split: str, shards: list[tuple[int, int]]) -> Iterator[tuple[int, dict[str, Any]]]:
        for start, stop in shards:
            for index in range(start, stop):
                yield index, draw_row(self.config, split, index)  # a row does not need the rows before it
