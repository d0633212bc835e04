"""No-change pairs: the same picture recompressed, cropped, tinted, resized or seen slightly from the side.

The images after of other pairs are altered in the same ways: a model that saw such differences only where nothing
changed would learn to take them for the answer.
"""

import io
import random
from collections.abc import Callable

from PIL import Image

from ..pairs import png

SENTENCES = [
    "nothing has changed",
    "there is no difference",
    "the two pictures show the same scene",
    "no change was made",
    "everything stayed the same",
    "the images are the same",
]


def reencode(image: Image.Image, rng: random.Random) -> bytes:
    """Save as JPEG of lower quality."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.uniform(40, 85)))
    return buffer.getvalue()


def slight_crop(image: Image.Image, rng: random.Random) -> bytes:
    """Crop up to 4 % off each side and resize back."""
    width, height = image.size
    left, top, right, bottom = (rng.uniform(0.01, 0.04) for _ in range(4))
    box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    return png(image.resize(image.size, Image.Resampling.BICUBIC, box=box))


def colour_shift(image: Image.Image, rng: random.Random) -> bytes:
    """Make each channel brighter or darker by up to 8 %."""
    gains = [rng.uniform(0.92, 1.08) for _ in range(3)]
    return png(image.point([min(255, round(value * gain)) for gain in gains for value in range(256)]))


def resize(image: Image.Image, rng: random.Random) -> bytes:
    """Resize to a smaller size and back."""
    scale = rng.uniform(0.5, 0.8)
    small = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)
    return png(small.resize(image.size, Image.Resampling.BICUBIC))


def viewpoint(image: Image.Image, rng: random.Random) -> bytes:
    """Move each corner inwards by up to 4 %, as a flat picture seen slightly from the side."""
    width, height = image.size
    x, y = ([rng.uniform(0, 0.04) * side for _ in range(4)] for side in (width, height))
    corners = (x[0], y[0], x[1], height - y[1], width - x[2], height - y[2], width - x[3], y[3])
    return png(image.transform(image.size, Image.Transform.QUAD, corners, Image.Resampling.BICUBIC))


ALTERATIONS: dict[str, Callable[[Image.Image, random.Random], bytes]] = {
    "reencode": reencode,
    "slight_crop": slight_crop,
    "colour_shift": colour_shift,
    "resize": resize,
    "viewpoint": viewpoint,
}


def wanted(changed: int, share: float, rng: random.Random) -> int:
    """Return how many no-change pairs to add to `changed` others, so that they are `share` of all on average."""
    exact = changed * share / (1 - share)
    return int(exact) + (rng.random() < exact - int(exact))


def captions(sentences: list[str], count: int, rng: random.Random) -> list[str]:
    """Return `count` different sentences in random order, or all if there are fewer."""
    return rng.sample(sentences, min(count, len(sentences)))
