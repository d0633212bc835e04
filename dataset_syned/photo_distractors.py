"""Differences between two pictures of one scene that are not a change: view, light, resizing, compression."""

import io
import random
from typing import Any

from PIL import Image

from .scene_drawing import between

SHIFT = 0.022  # of each side, by which a corner moves at most
GAIN, CHANNEL_GAIN = 0.05, 0.02
PLAIN_QUALITY = 95


def viewpoint(rng: random.Random, picture: Image.Image, record: dict[str, Any]) -> Image.Image:
    """Move each corner inwards by a little, as a picture seen slightly from the side."""
    width, height = picture.size
    shares = [round(SHIFT * rng.random(), 4) for _ in range(8)]
    record["corners"] = shares
    x, y = [share * width for share in shares[:4]], [share * height for share in shares[4:]]
    corners = (x[0], y[0], x[1], height - y[1], width - x[2], height - y[2], width - x[3], y[3])
    return picture.transform(picture.size, Image.Transform.QUAD, corners, Image.Resampling.BILINEAR)


def light(rng: random.Random, picture: Image.Image, record: dict[str, Any]) -> Image.Image:
    """Make the picture and each channel slightly brighter or darker."""
    gain = 1 + between(rng, -GAIN, GAIN)
    gains = [round(gain * (1 + between(rng, -CHANNEL_GAIN, CHANNEL_GAIN)), 3) for _ in range(3)]
    record["gains"] = gains
    return picture.point([min(255, round(value * gain)) for gain in gains for value in range(256)])


def resize(rng: random.Random, picture: Image.Image, record: dict[str, Any]) -> Image.Image:
    """Resize to a slightly smaller size and back."""
    scale = round(between(rng, 0.7, 0.95), 3)
    record["scale"] = scale
    small = picture.resize([round(scale * side) for side in picture.size], Image.Resampling.BICUBIC)
    return small.resize(picture.size, Image.Resampling.BICUBIC)


STEPS = {viewpoint: 0.6, light: 0.6, resize: 0.4}  # with their probabilities


def distract(rng: random.Random, picture: Image.Image) -> tuple[bytes, dict[str, Any]]:
    """Return a picture as a JPEG file with random distractors, and which they are."""
    record: dict[str, Any] = {}
    for step, probability in STEPS.items():
        if rng.random() < probability:
            picture = step(rng, picture, record)
    record["quality"] = round(between(rng, 70, 95))
    return jpeg(picture, record["quality"]), record


def jpeg(picture: Image.Image, quality: int) -> bytes:
    """Return a picture as the content of a JPEG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
