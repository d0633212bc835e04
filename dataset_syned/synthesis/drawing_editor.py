"""The editor of toy scenes: it carries out e.g. "make the red circle blue" and draws the rest of the scene
again, so that the way from instruction to pair can be tried with an editor that makes no mistakes.

The provenance of a toy row gives back its scene; the picture drawn again is compared with the image.
"""

import random
import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from ..benchmarks.toy import SENTENCES, SETTINGS, VERSION, Pair, ToyConfig, compose, draw_view, moved
from ..pairs import NO_CHANGE
from ..preparing import benchmark_builder
from ..scene_drawing import COLORS, RADII, SHAPES, Thing, draw_scene, pick, place
from .editors import Candidate, Edited, Task
from .settings import SettingsError, SynthesisConfig

ANY = ("thing", "object", "one")  # words for a thing of whatever shape


class EditError(ValueError):
    """An instruction that this scene does not allow."""


@lru_cache
def patterns() -> list[tuple[str, re.Pattern[str]]]:
    """Return change types with patterns of their instructions: the benchmark's wordings, with any phrase in them."""
    found = []
    for change_type, sentences in SENTENCES["instruction"].items():
        for sentence in sentences:
            text = re.escape(sentence).replace(r"\{o\}", r"(?P<thing>[\w ]+?)").replace(r"\{c\}", r"(?P<color>\w+)")
            found.append((change_type, re.compile(text.replace(r"a\ ", r"an?\ ") + r"\.?", re.IGNORECASE)))
    return found


def understand(instruction: str) -> tuple[str, dict[str, str]]:
    """Return the change type, and `thing` and `color` if the instruction names them.

    Raises: EditError.
    """
    for change_type, pattern in patterns():
        match = pattern.fullmatch(instruction.strip())
        named = {name: text.lower() for name, text in match.groupdict().items()} if match else {}
        # "put the red circle somewhere else" could read as another sentence with a long phrase: words decide.
        if match and named.get("color", "red") in COLORS and known(named.get("thing", "thing")):
            return change_type, named
    raise EditError(f"{instruction!r} asks for nothing that can be drawn")


def known(phrase: str) -> bool:
    """Return whether all words of a phrase are known."""
    return all(word in (*COLORS, *RADII, *SHAPES, *ANY) for word in phrase.split())


def attributes(phrase: str) -> dict[str, str]:
    """Return those of `size`, `color` and `shape` that a phrase such as "small red circle" names."""
    words_of = {"size": RADII, "color": COLORS, "shape": SHAPES}
    return {name: word for word in phrase.split() for name, words in words_of.items() if word in words}


def find(things: list[Thing], phrase: str) -> Thing:
    """Return the thing that a phrase names.

    Raises: EditError if there is none, or more than one.
    """
    wanted = attributes(phrase)
    named = [thing for thing in things if all(getattr(thing, name) == word for name, word in wanted.items())]
    if len(named) != 1:
        raise EditError(f"the scene has {len(named) or 'no'} {phrase!r}: {', '.join(t.phrase for t in things)}")
    return named[0]


def change(
    things: list[Thing], instruction: str, rng: random.Random, aspect: float, least_move: float
) -> tuple[str, list[Thing]]:
    """Return the change type, and the things after the change.

    Raises: EditError.
    """
    change_type, named = understand(instruction)
    if change_type == NO_CHANGE:
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
        raise EditError(f"{instruction!r} cannot be done here, or would be ambiguous")
    return change_type, [new if other is thing else other for other in things]


class SceneEditor:
    """Editor by drawing: each candidate has another view and light, as the benchmark's pairs have."""

    guidances: list[list[tuple[str, float]]] = []

    def __init__(self, config: SynthesisConfig):
        builder = benchmark_builder(config.benchmark, **config.benchmark_options) if config.benchmark else None
        if builder is None or not isinstance(builder.config, ToyConfig):
            raise SettingsError("editor='drawing' edits the scenes of the benchmark 'toy' alone: set benchmark to it")
        if config.guidance_scales or config.image_guidance_scales:
            raise SettingsError(f"editor {config.editor!r} has no guidance: leave guidance_scales and the like out")
        self.toy = builder.config
        self.description = {"editor": "drawing", "model": f"toy {VERSION}", "revision": VERSION}

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the size unchanged."""
        return size

    def edit(self, tasks: list[Task], candidates: list[list[Candidate]]) -> list[list[Edited]]:
        """Return one result per candidate of each task."""
        return [
            [self.edit_scene(task, candidate) for candidate in row]
            for task, row in zip(tasks, candidates, strict=True)
        ]

    def scene(self, task: Task) -> tuple[Pair, np.ndarray]:
        """Return the pair and background that a task's image was drawn from.

        Raises: SettingsError if the image is another one.
        """
        drawn: dict[str, Any] = task.provenance
        pair, background, _ = compose(replace(self.toy, seed=drawn["seed"]), drawn["split"], drawn["index"])
        if not np.array_equal(draw_scene(pair.before, background, self.toy.look, pair.views[0]), task.image):
            raise SettingsError(
                f"pair {task.pair_id!r}: its scene is not the one of its image: check benchmark_options"
            )
        return pair, background

    def edit_scene(self, task: Task, candidate: Candidate) -> Edited:
        """Return the edited scene, or why there is none."""
        pair, background = self.scene(task)
        rng, setting = random.Random(candidate.seed), SETTINGS[self.toy.difficulty]
        try:
            _, things = change(pair.before, task.instruction, rng, self.toy.width / self.toy.height, setting.move)
        except EditError as error:
            return str(error)
        return Image.fromarray(draw_scene(things, background, self.toy.look, draw_view(rng, setting)))
