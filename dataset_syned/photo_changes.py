"""The changes of photographs by their change types.

A function of CHANGES returns an Edit, or None where it does not fit or a person could hardly see it.
"""

import random
from collections.abc import Callable

from PIL import Image

from .photo_edit import Edit
from .photo_part_changes import cover, duplicate_part, text, with_part
from .photo_picture_changes import (
    black_and_white,
    blur,
    blurred,
    brightness,
    contrast,
    crop,
    flip,
    noise,
    pixelated,
    rotate,
    saturation,
    shift_hues,
    tint,
)
from .photo_scenes import Stage
from .photo_thing_changes import add, copy, move, recolor, remove, replace_thing


def of_picture(function: Callable[[random.Random, Image.Image], Edit | None]) -> Callable:
    """Return a change of the whole picture as one of a stage."""
    return lambda rng, stage: function(rng, stage.draw())


def whole_or_part(
    whole: Callable[[random.Random, Image.Image], Edit | None],
    source: Callable[[random.Random, Image.Image], Edit | None],
    shape: str,
) -> Callable:
    """Return a change of the whole picture, or in two pairs of five of a part."""

    def change(rng: random.Random, stage: Stage) -> Edit | None:
        if rng.random() < 0.6:
            return whole(rng, stage.draw())
        return with_part(rng, stage, source(rng, stage.draw()), shape)

    return change


def color(rng: random.Random, stage: Stage) -> Edit | None:
    """Paint a thing, or in two pairs of five shift the colors of the whole picture."""
    if stage.material.cut_outs and rng.random() < 0.6:
        return recolor(rng, stage)
    return shift_hues(rng, stage.draw())


def duplicate(rng: random.Random, stage: Stage) -> Edit | None:
    """Copy a thing, or in three pairs of ten a part of the picture."""
    if not stage.material.cut_outs or rng.random() < 0.3:
        return duplicate_part(rng, stage)
    return copy(rng, stage)


TONES = {
    "brightness": brightness,
    "contrast": contrast,
    "saturation": saturation,
    "black-and-white": black_and_white,
    "tint": tint,
    "noise": noise,
}
WITH_CUT_OUTS = ("add", "remove", "replace", "move")
LOCAL = ("add", "remove", "replace", "move", "text", "cover", "duplicate")  # may be followed by one of TONES
CHANGES: dict[str, Callable[[random.Random, Stage], Edit | None]] = {
    "add": add,
    "remove": remove,
    "replace": replace_thing,
    "move": move,
    "color": color,
    **{name: of_picture(function) for name, function in TONES.items()},
    "blur": whole_or_part(blur, blurred, "soft"),
    "pixelate": whole_or_part(pixelated, pixelated, "rectangle"),
    "flip": of_picture(flip),
    "rotate": of_picture(rotate),
    "crop": of_picture(crop),
    "text": text,
    "cover": cover,
    "duplicate": duplicate,
}
