"""Flat drawn scenes: a few things of one shape, colour and size each, drawn with numpy alone.

Pixels are computed by `+ - * /`, `min`, `max` and `sqrt` only, and all random numbers come from
`random.Random.random`, so that the same seed draws the same picture on every machine. Lengths are in units of the
picture's height.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

Look = Literal["paper", "studio"]
T = TypeVar("T")

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (205, 32, 36),
    "green": (34, 150, 60),
    "blue": (36, 70, 205),
    "yellow": (240, 208, 30),
    "purple": (140, 46, 168),
    "cyan": (40, 200, 214),
    "black": (28, 28, 30),
}
RADII = {"small": 0.13, "large": 0.23}
OUTLINE = 0.022  # width of the dark line around a thing in the "paper" look


@dataclass(frozen=True)
class Thing:
    """One drawn object; `x`, `y` is its centre, from the top left corner, in picture heights."""

    shape: str
    color: str
    size: str
    x: float
    y: float

    @property
    def phrase(self) -> str:
        return f"{self.size} {self.color} {self.shape}"

    @property
    def radius(self) -> float:
        return RADII[self.size]


@dataclass(frozen=True)
class View:
    """View and light of a picture, which differ between two pictures of one scene without being a change."""

    shift_x: float = 0.0
    shift_y: float = 0.0
    gain: float = 1.0  # brightness
    slope: float = 0.0  # light from one side: the gain grows by this much from left to right


def pick(rng: random.Random, options: Sequence[T]) -> T:
    """Return one of the options; unlike `Random.choice`, it is the same in every Python version."""
    return options[int(rng.random() * len(options))]


def between(rng: random.Random, low: float, high: float) -> float:
    """Return a random number from `low` to `high`."""
    return low + (high - low) * rng.random()


def _circle(x: Any, y: Any, r: float) -> Any:
    return np.sqrt(x * x + y * y) - r


def _square(x: Any, y: Any, r: float) -> Any:
    return np.maximum(np.abs(x), np.abs(y)) - 0.88 * r


def _triangle(x: Any, y: Any, r: float) -> Any:
    return np.maximum(0.894 * np.abs(x) - 0.447 * (y + r), y - 0.85 * r)


def _cross(x: Any, y: Any, r: float) -> Any:
    ax, ay = np.abs(x), np.abs(y)
    return np.maximum(np.maximum(ax, ay) - r, np.minimum(ax, ay) - 0.36 * r)


# Signed distance to the outline: negative inside. Near the outline it is exact enough for one pixel of anti-aliasing.
SHAPES = {"circle": _circle, "square": _square, "triangle": _triangle, "cross": _cross}


def coverage(
    thing: Thing, size: tuple[int, int], view: View | None = None, grow: float = 0.0
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Return the box of pixels that a thing touches, and how much of each it covers.

    Args:
        size: (width, height) of the picture in pixels.
        grow: widens the thing by this much on every side.

    Returns: (rows, columns) and a float32 array of that box, 0 to 1.
    """
    width, height = size
    view = view or View()
    cx, cy = (thing.x + view.shift_x) * height, (thing.y + view.shift_y) * height
    reach = (thing.radius + grow) * height + 1.0
    left, right = max(0, int(cx - reach)), min(width, int(cx + reach) + 1)
    top, bottom = max(0, int(cy - reach)), min(height, int(cy + reach) + 1)
    x = np.arange(left, max(left, right), dtype=np.float32)[None, :] + np.float32(0.5 - cx)
    y = np.arange(top, max(top, bottom), dtype=np.float32)[:, None] + np.float32(0.5 - cy)
    distance = SHAPES[thing.shape](x, y, thing.radius * height) - grow * height
    return (slice(top, bottom), slice(left, right)), np.clip(0.5 - distance, 0.0, 1.0)


def draw_background(size: tuple[int, int], look: Look, rng: random.Random) -> np.ndarray:
    """Return an empty scene, float32 [height, width, 3], 0 to 255."""
    width, height = size
    if look == "paper":
        base = np.array([between(rng, 226, 250), between(rng, 218, 240), between(rng, 196, 226)], dtype=np.float32)
        picture = np.broadcast_to(base, (height, width, 3)).copy()
        step = max(4, int(height * between(rng, 0.13, 0.2)))
        picture[int(step * rng.random()) :: step] -= 18.0  # ruled lines
        return picture
    shade = between(rng, 118, 186)
    tint = np.array([between(rng, -14, 14) for _ in range(3)], dtype=np.float32)
    fall = np.linspace(between(rng, -22, 22), between(rng, -22, 22), height, dtype=np.float32)
    return np.broadcast_to((shade + tint)[None, None, :] + fall[:, None, None], (height, width, 3)).astype(np.float32)


def draw_scene(things: Sequence[Thing], background: np.ndarray, look: Look, view: View | None = None) -> np.ndarray:
    """Return the things on a copy of the background, later ones in front, uint8 [height, width, 3]."""
    view = view or View()
    picture = background.copy()
    height, width = picture.shape[:2]
    for thing in things:
        color = np.array(COLORS[thing.color], dtype=np.float32)
        if look == "paper":
            box, alpha = coverage(thing, (width, height), view, grow=OUTLINE)
            picture[box] += alpha[..., None] * (np.float32(48.0) - picture[box])
        box, alpha = coverage(thing, (width, height), view)
        picture[box] += alpha[..., None] * (color - picture[box])
    light = np.linspace(view.gain - view.slope / 2, view.gain + view.slope / 2, width, dtype=np.float32)
    picture *= light[None, :, None]
    return np.clip(picture + 0.5, 0.0, 255.0).astype(np.uint8)


def separate(thing: Thing, others: Sequence[Thing], gap: float = 0.05) -> bool:
    """Return whether the thing touches none of the others."""
    return all(
        (thing.x - other.x) ** 2 + (thing.y - other.y) ** 2 > (thing.radius + other.radius + gap) ** 2
        for other in others
    )


def place(
    rng: random.Random, shape: str, color: str, size: str, others: Sequence[Thing], aspect: float
) -> Thing | None:
    """Return a thing at a free spot of a picture `aspect` heights wide, or None if 40 tries found no spot."""
    edge = RADII[size] + 0.06
    for _ in range(40):
        thing = Thing(shape, color, size, between(rng, edge, aspect - edge), between(rng, edge, 1.0 - edge))
        if separate(thing, others):
            return thing
    return None


def draw_things(rng: random.Random, count: int, aspect: float) -> list[Thing]:
    """Return `count` things that do not touch and have different phrases (fewer if there is no room)."""
    things: list[Thing] = []
    for _ in range(4 * count):
        if len(things) == count:
            break
        shape, color, size = pick(rng, list(SHAPES)), pick(rng, list(COLORS)), pick(rng, list(RADII))
        if any((t.shape, t.color, t.size) == (shape, color, size) for t in things):
            continue
        thing = place(rng, shape, color, size, things, aspect)
        if thing:
            things.append(thing)
    return things
