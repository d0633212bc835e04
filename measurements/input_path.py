"""Pairs of image files to the pixel values of a batch, against the original's recipe on one core.

    python measurements/input_path.py

Photographs of scikit-image are cropped and enlarged, and get the grain of a camera, because enlarging removes all
detail; JPEG files then have about as many bits per pixel as the photographs have at their own size. The pixel values
of the default settings are compared with those of `scaled_decoding=False`: a mean absolute difference of more than
0.005 of the range is an error. A row for decoding alone shows how much of our time Pillow's decoder needs.
"""

import argparse
import io
import random
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from original_recipe import NAME, pixel_values, small_processor
from paired import Row, compare, run_measurement
from PIL import Image

from dataset_syned.benchmarks.photo_edits import packaged_folder
from dataset_syned.image_sizes import at_most
from dataset_syned.pairs import image_bytes

NAMES = "astronaut.png chelsea.png coffee.png motorcycle_left.png rocket.jpg hubble_deep_field.jpg".split()
GRAIN = 2.0  # standard deviation in levels
PAIRS = {512: 16, 1024: 16, 2048: 4}  # in a batch, all different
GOALS = {("JPEG", 512): 3.0, ("JPEG", 1024): 6.0, ("PNG", 512): 1.5, ("PNG", 1024): 1.5, ("PNG", 2048): 1.5}
QUALITIES = (75, 90)  # Pillow's default, and a camera's
MAX_SIDE = 512
LARGEST_DIFFERENCE = 0.005

Files = list[tuple[bytes, bytes]]


def photograph(rng: random.Random, side: int) -> Image.Image:
    """Return a random square of a photograph, at `side` pixels."""
    folder = packaged_folder()
    if folder is None:
        raise ImportError("the photographs are those of scikit-image: pip install scikit-image")
    with Image.open(folder / rng.choice(NAMES)) as image:
        photo = image.convert("RGB")
    length = int(min(photo.size) * rng.uniform(0.7, 1.0))
    left, top = (rng.randint(0, whole - length) for whole in photo.size)
    return photo.resize((side, side), Image.Resampling.LANCZOS, box=(left, top, left + length, top + length))


def pair(rng: random.Random, side: int) -> tuple[Image.Image, Image.Image]:
    """Return a photograph, and the same one with a part of another."""
    before = photograph(rng, side)
    after = before.copy()
    after.paste(photograph(rng, side // 4), (rng.randint(0, side // 2), rng.randint(0, side // 2)))
    return with_grain(rng, before), with_grain(rng, after)


def with_grain(rng: random.Random, image: Image.Image) -> Image.Image:
    """Return an image with noise that is the same in all channels."""
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, GRAIN, (image.height, image.width, 1))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, file_format: str, **options: int) -> bytes:
    """Return the content of an image file."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def files(pairs: list[tuple[Image.Image, Image.Image]], file_format: str, **options: int) -> Files:
    """Return both files of each pair."""
    return [tuple(encoded(image, file_format, **options) for image in pair) for pair in pairs]


def bits_per_pixel(pairs: Files, side: int) -> float:
    """Return the mean over all files."""
    return 8 * sum(len(file) for pair in pairs for file in pair) / (2 * len(pairs) * side**2)


def ours(processor: object, pairs: Files) -> torch.Tensor:
    """Return the pixel values of our processor."""
    return processor(before=[first for first, _ in pairs], after=[second for _, second in pairs])["pixel_values"]


def decode(pairs: Files) -> None:
    """Decode all files with Pillow, as a whole."""
    for pair in pairs:
        for file in pair:
            Image.open(io.BytesIO(file)).load()


def check_difference(what: str, processor: object, pairs: Files) -> None:
    """Raise ValueError if the pixel values differ too much from the exact ones, or from the baseline's."""
    fast = ours(processor, pairs)
    deviation = torch.tensor(processor.image_processor.image_std)[:, None, None]  # to shares of the range
    exact = {"scaled_decoding=False": ours(processor.with_settings(scaled_decoding=False), pairs)}
    for name, values in {**exact, NAME: pixel_values(processor, pairs)}.items():
        difference = ((fast - values) * deviation).abs().mean().item()
        if difference > LARGEST_DIFFERENCE:
            raise ValueError(f"{what}: {difference:.4f} of the range from {name}, at most {LARGEST_DIFFERENCE}")


def row_of(what: str, processor: object, pairs: Files, goal: float | None, own: Callable | None = None) -> Row:
    """Return the row of a batch; `own` instead of our processor if given."""
    baseline = partial(pixel_values, processor, pairs)
    return compare(what, NAME, baseline, own or partial(ours, processor, pairs), at_least=goal)


def rows_of_side(processor: object, side: int) -> list[Row]:
    """Return the rows of JPEG and PNG files of one size."""
    rng = random.Random(side)
    images = [pair(rng, side) for _ in range(PAIRS[side])]
    kinds = {f"JPEG of quality {quality}": ("JPEG", {"quality": quality}) for quality in QUALITIES}
    rows = []
    for kind, (file_format, options) in {**kinds, "PNG": ("PNG", {})}.items():
        pairs = files(images, file_format, **options)
        what = f"pair to pixel values, {kind}, {side} px, {bits_per_pixel(pairs, side):.1f} bits per pixel"
        check_difference(what, processor, pairs)
        # the goals are those of Pillow's default quality
        goal = None if options.get("quality") == QUALITIES[1] else GOALS.get((file_format, side))
        rows.append(row_of(what, processor, pairs, goal))
        if file_format == "PNG":
            rows.append(row_of(f"{what}, decoding alone", processor, pairs, None, partial(decode, pairs)))
        if side == max(PAIRS):
            smaller = [tuple(at_most(MAX_SIDE, image_bytes("a", file))["bytes"] for file in pair) for pair in pairs]
            own = partial(ours, processor, smaller)
            rows.append(row_of(f"{what}, prepared with max_side={MAX_SIDE}", processor, pairs, None, own))
    return rows


def measure(_: argparse.Namespace) -> list[Row]:
    """Return all rows."""
    torch.set_num_threads(1)
    processor = small_processor()
    return [row for side in PAIRS for row in rows_of_side(processor, side)]


if __name__ == "__main__":
    sys.exit(run_measurement(measure, argparse.ArgumentParser(description=__doc__.split("\n")[0])))
