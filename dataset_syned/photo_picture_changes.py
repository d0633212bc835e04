"""Changes of a whole photograph: its light and colors, its sharpness, and how it is turned or cropped."""

import math
import random
from dataclasses import replace

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

from .photo_edit import Edit, either, opposite, whole_edit
from .photo_scenes import PAINTS, coarse_difference
from .scene_drawing import between, pick

VISIBLE_GEOMETRY = 16.0  # from far: of mirrored grass one sees nothing
QUARTERS = {
    "rotate left": Image.Transpose.ROTATE_90,
    "rotate right": Image.Transpose.ROTATE_270,
    "rotate by half": Image.Transpose.ROTATE_180,
}


def geometry_edit(before: Image.Image, after: Image.Image, change_type: str, action: str, **parameters) -> Edit | None:
    """Return the edit of a picture whose parts went elsewhere, or None if it looks the same from far."""
    if coarse_difference(before, after) < VISIBLE_GEOMETRY:
        return None
    return whole_edit(before, after, VISIBLE_GEOMETRY, change_type, action, **parameters)


def brightness(rng: random.Random, picture: Image.Image) -> Edit | None:
    """Make the picture brighter or darker."""
    factor = either(rng, (0.4, 0.65), (1.4, 1.9))
    action, other = ("brighten", "darken") if factor > 1 else ("darken", "brighten")
    after = ImageEnhance.Brightness(picture).enhance(factor)
    return opposite(rng, whole_edit(picture, after, 24, "brightness", action, factor=factor), other, 0.5)


def contrast(rng: random.Random, picture: Image.Image) -> Edit | None:
    """Raise or lower the contrast."""
    factor = either(rng, (0.3, 0.5), (1.8, 2.6))
    names = ("raise contrast", "lower contrast")
    action, other = names if factor > 1 else names[::-1]
    after = ImageEnhance.Contrast(picture).enhance(factor)
    return opposite(rng, whole_edit(picture, after, 20, "contrast", action, factor=factor), other, 0.5)


def saturation(rng: random.Random, picture: Image.Image) -> Edit | None:
    """Make the colors stronger or weaker."""
    factor = either(rng, (0.2, 0.4), (2.0, 3.2))
    names = ("raise saturation", "lower saturation")
    action, other = names if factor > 1 else names[::-1]
    after = ImageEnhance.Color(picture).enhance(factor)
    return opposite(rng, whole_edit(picture, after, 17, "saturation", action, factor=factor), other, 0.5)


def black_and_white(rng: random.Random, picture: Image.Image) -> Edit | None:
    """Take the colors away, or bring them back."""
    edit = whole_edit(picture, ImageOps.grayscale(picture).convert("RGB"), 16, "black-and-white", "black and white")
    return opposite(rng, edit, "colorize", 0.35)


def tint(rng: random.Random, picture: Image.Image) -> Edit | None:
    """Lay one color over the picture, or take it off."""
    color, strength = pick(rng, list(PAINTS)), between(rng, 0.3, 0.5)
    after = Image.blend(picture, Image.new("RGB", picture.size, PAINTS[color]), strength)
    edit = whole_edit(picture, after, 30, "tint", "tint", color, strength=strength)
    return opposite(rng, edit, "remove tint", 0.3)


def shift_hues(rng: random.Random, picture: Image.Image) -> Edit | None:
    """Turn all hues by the same angle."""
    turn = int(between(rng, 64, 192))
    hue, *others = picture.convert("HSV").split()
    after = Image.merge("HSV", (hue.point([(value + turn) % 256 for value in range(256)]), *others)).convert("RGB")
    return whole_edit(picture, after, 26, "color", "shift colors", turn=turn)


def blurred(rng: random.Random, picture: Image.Image) -> Edit | None:
    """Blur the picture."""
    radius = between(rng, 0.014, 0.026) * max(picture.size)
    after = picture.filter(ImageFilter.GaussianBlur(radius))
    return whole_edit(picture, after, 9, "blur", "blur", radius=radius)


def blur(rng: random.Random, picture: Image.Image) -> Edit | None:
    """Blur the picture, or make it sharp."""
    return opposite(rng, blurred(rng, picture), "sharpen", 0.35)


def noise(rng: random.Random, picture: Image.Image) -> Edit | None:
    """Add grain, or remove it."""
    sigma = between(rng, 30, 60)
    grain = random_grain(rng, picture.size, sigma)
    after = ImageChops.add(picture, grain, 1, -128)
    return opposite(rng, whole_edit(picture, after, 15, "noise", "add noise", sigma=sigma), "remove noise", 0.35)


def random_grain(rng: random.Random, size: tuple[int, int], sigma: float) -> Image.Image:
    """Return noise around 128 that depends on `rng` alone."""
    width, height = size
    bits = np.random.Generator(np.random.PCG64(int(rng.random() * 2**53)))
    grain = bits.random((4, height, width, 3), dtype=np.float32).sum(axis=0) - 2.0  # nearly normal, sigma 0.577
    return Image.fromarray(np.clip(128.0 + grain * np.float32(sigma / 0.577), 0, 255).astype(np.uint8))


def pixelated(rng: random.Random, picture: Image.Image) -> Edit | None:
    """Turn the picture into large squares."""
    cell = between(rng, 0.03, 0.06) * max(picture.size)
    small = picture.resize([max(2, round(side / cell)) for side in picture.size], Image.Resampling.BOX)
    after = small.resize(picture.size, Image.Resampling.NEAREST)
    return whole_edit(picture, after, 9, "pixelate", "pixelate", cell=cell)


def flip(rng: random.Random, picture: Image.Image) -> Edit | None:
    """Mirror the picture, or flip it upside down."""
    if rng.random() < 0.65:
        return geometry_edit(picture, ImageOps.mirror(picture), "flip", "mirror")
    return geometry_edit(picture, ImageOps.flip(picture), "flip", "flip upside down")


def rotate(rng: random.Random, picture: Image.Image) -> Edit | None:
    """Turn the picture by a quarter or by half, or tilt it."""
    if rng.random() < 0.35:
        return tilt(rng, picture)
    action = pick(rng, list(QUARTERS))
    if QUARTERS[action] != Image.Transpose.ROTATE_180:  # both pictures have one shape: a square
        picture = ImageOps.fit(picture, [max(picture.size)] * 2)
    return geometry_edit(picture, picture.transpose(QUARTERS[action]), "rotate", action)


def tilt(rng: random.Random, picture: Image.Image) -> Edit | None:
    """Turn by a small angle and enlarge, so that no empty corners show."""
    angle = either(rng, (-25, -12), (12, 25))
    width, height = picture.size
    turned = picture.rotate(angle, Image.Resampling.BICUBIC)
    scale = inner_scale(width, height, abs(angle))
    box = ((1 - scale) * width / 2, (1 - scale) * height / 2, (1 + scale) * width / 2, (1 + scale) * height / 2)
    after = turned.resize(picture.size, Image.Resampling.BICUBIC, box=box)
    return geometry_edit(picture, after, "rotate", "tilt left" if angle > 0 else "tilt right", angle=angle)


def inner_scale(width: int, height: int, angle: float) -> float:
    """Return the scale of the largest picture of the same shape inside one that is turned by `angle` degrees."""
    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    return min(width / (width * cosine + height * sine), height / (width * sine + height * cosine))


def crop(rng: random.Random, picture: Image.Image) -> Edit | None:
    """Enlarge a part of the picture."""
    part = between(rng, 0.45, 0.7)
    left, top = (rng.random() * (1 - part) * side for side in picture.size)
    box = (left, top, left + part * picture.width, top + part * picture.height)
    after = picture.resize(picture.size, Image.Resampling.BICUBIC, box=box)
    edit = geometry_edit(picture, after, "crop", "crop", part=part)
    return edit and replace(edit, change=replace(edit.change, box=tuple(map(round, box)), area=round(part**2, 4)))
