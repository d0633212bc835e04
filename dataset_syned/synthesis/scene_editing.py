"""The editor of toy scenes: it carries out "make the red circle blue" or "remove the small square", and draws the rest
of the scene again as it was, so that the way from instruction to pair can be tried with an editor that is right.

A toy row tells how it was drawn, which gives back its scene; the picture drawn again is compared with the image.
"""

import random
import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from ..benchmarks.toy import SENTENCES, SETTINGS, VERSION, Pair, ToyConfig, compose, draw_view, moved
from ..scene_drawing import COLORS, RADII, SHAPES, Thing, draw_scene, pick, place
from .editing import Draw, Edited, Task
from .settings import SettingsError, SynthesisConfig

ANY = ("thing", "object", "one")  # words for a thing of whatever shape


class EditError(ValueError):
    """An instruction that this scene does not allow."""


@lru_cache
def patterns() -> list[tuple[str, re.Pattern[str]]]:
    """Kind of change and what asks for it: the wordings of the benchmark's instructions, with any phrase in them."""
    found = []
    for change_type, sentences in SENTENCES["instruction"].items():
        for sentence in sentences:
            text = re.escape(sentence).replace(r"\{o\}", r"(?P<thing>[\w ]+?)").replace(r"\{c\}", r"(?P<color>\w+)")
            found.append((change_type, re.compile(text.replace(r"a\ ", r"an?\ ") + r"\.?", re.IGNORECASE)))
    return found


def understand(instruction: str) -> tuple[str, dict[str, str]]:
    """The type of change, and `thing` and `color` where it names them. Raises: EditError."""
    for change_type, pattern in patterns():
        match = pattern.fullmatch(instruction.strip())
        named = {name: text.lower() for name, text in match.groupdict().items()} if match else {}
        # "put the red circle somewhere else" could read as another sentence with a long phrase: words decide.
        if match and named.get("color", "red") in COLORS and known(named.get("thing", "thing")):
            return change_type, named
    raise EditError(f"{instruction!r} asks for nothing that can be drawn")


def known(phrase: str) -> bool:
    return all(word in (*COLORS, *RADII, *SHAPES, *ANY) for word in phrase.split())


def attributes(phrase: str) -> dict[str, str]:
    """`size`, `color` and `shape`, those of them that a phrase such as "small red circle" names."""
    change_types = {"size": RADII, "color": COLORS, "shape": SHAPES}
    return {name: word for word in phrase.split() for name, words in change_types.items() if word in words}


def find(things: list[Thing], phrase: str) -> Thing:
    """Raises: EditError where the phrase names none of the things, or more than one."""
    wanted = attributes(phrase)
    named = [thing for thing in things if all(getattr(thing, name) == word for name, word in wanted.items())]
    if len(named) != 1:
        raise EditError(f"the scene holds {len(named) or 'no'} {phrase!r}: {', '.join(t.phrase for t in things)}")
    return named[0]


def change(
    things: list[Thing], instruction: str, rng: random.Random, aspect: float, least_move: float
) -> tuple[str, list[Thing]]:
    """The type of change, and the things after it. Raises: EditError."""
    change_type, named = understand(instruction)
    if change_type == "none":
        return change_type, things
    if change_type == "add":
        wanted = {"size": pick(rng, list(RADII)), "color": pick(rng, list(COLORS)), "shape": pick(rng, list(SHAPES))}
        thing = place(rng, **wanted | attributes(named["thing"]), others=things, aspect=aspect)
        if thing is None:
            raise EditError("there is no room for another thing")
        return change_type, [*things, thing]
    thing = find(things, named["thing"])
    others = [other for other in things if other is not thing]
    if change_type == "remove":
        return change_type, others
    new = (
        replace(thing, color=named["color"])
        if change_type == "color"
        else moved(rng, thing, others, aspect, least_move)  # None where there is no other spot
    )
    if new is None or new == thing or any(new.phrase == other.phrase for other in others):
        raise EditError(f"{instruction!r} cannot be done here, or not be told apart")
    return change_type, [new if other is thing else other for other in things]


class SceneEditor:
    """Each candidate sees the scene from another point, in other light, as the benchmark's pairs do."""

    def __init__(self, config: SynthesisConfig):
        from .. import benchmark_builder  # the package imports all benchmarks

        builder = benchmark_builder(config.benchmark, **config.benchmark_options) if config.benchmark else None
        if builder is None or not isinstance(builder.config, ToyConfig):
            raise SettingsError("editor='drawing' edits the scenes of the benchmark 'toy' alone: set benchmark to it")
        self.toy = builder.config
        self.told = {"editor": "drawing", "model": f"toy {VERSION}", "revision": VERSION}

    def edit(self, tasks: list[Task], draws: list[list[Draw]]) -> list[list[Edited]]:
        return [[self.one(task, draw) for draw in row] for task, row in zip(tasks, draws, strict=True)]

    def scene(self, task: Task) -> tuple[Pair, np.ndarray]:
        told: dict[str, Any] = task.provenance
        pair, background, _ = compose(replace(self.toy, seed=told["seed"]), told["split"], told["index"])
        if not np.array_equal(draw_scene(pair.before, background, self.toy.look, pair.views[0]), task.image):
            raise SettingsError(
                f"pair {task.pair_id!r}: its scene is not the one of its image: check benchmark_options"
            )
        return pair, background

    def one(self, task: Task, draw: Draw) -> Edited:
        pair, background = self.scene(task)
        rng, setting = random.Random(draw.seed), SETTINGS[self.toy.difficulty]
        try:
            _, things = change(pair.before, task.instruction, rng, self.toy.width / self.toy.height, setting.move)
        except EditError as error:
            return str(error)
        return Image.fromarray(draw_scene(things, background, self.toy.look, draw_view(rng, setting)))
