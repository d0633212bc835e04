"""Drawing toy pairs: CPU time, against the usual way to get smooth edges with Pillow.

    python measurements/drawing.py

Baseline: the same things with ImageDraw at four times the size, then reduced; without ruled lines, light and shift,
which makes the baseline faster than a true equal. Both include PNG compression.
"""

import argparse
import io
import random
import sys

from paired import Row, compare, run_measurement
from PIL import Image, ImageDraw

from dataset_syned.benchmarks.toy import (
    ToyConfig,
    draw_any_pair,
    draw_captions,
    draw_row,
)
from dataset_syned.pairs import png
from dataset_syned.scene_drawing import COLORS, Thing

PAIRS, SCALE = 200, 4


def pillow_picture(things: list[Thing], width: int, height: int) -> Image.Image:
    picture = Image.new("RGB", (width * SCALE, height * SCALE), (240, 230, 210))
    draw = ImageDraw.Draw(picture)
    unit = height * SCALE
    for thing in things:
        x, y, r = thing.x * unit, thing.y * unit, thing.radius * unit
        box = (x - r, y - r, x + r, y + r)
        if thing.shape == "circle":
            draw.ellipse(box, COLORS[thing.color], (48, 48, 48), SCALE)
        elif thing.shape == "square":
            draw.rectangle(box, COLORS[thing.color], (48, 48, 48), SCALE)
        elif thing.shape == "cross":
            for half in ((r, 0.36 * r), (0.36 * r, r)):
                draw.rectangle((x - half[0], y - half[1], x + half[0], y + half[1]), COLORS[thing.color])
        else:
            draw.polygon([(x, y - r), (x + r, y + r), (x - r, y + r)], COLORS[thing.color], (48, 48, 48))
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def pillow_row(config: ToyConfig, index: int) -> list[bytes | str]:
    rng = random.Random(index)
    pair = draw_any_pair(config, rng)
    pictures = [pillow_picture(things, config.width, config.height) for things in (pair.before, pair.after)]
    return [*map(png, pictures), *draw_captions(rng, pair, config.wording)]


def check_sizes(config: ToyConfig) -> None:
    """Raise RuntimeError unless both draw pictures of the same size."""
    ours, theirs = draw_row(config, "train", 0), pillow_row(config, 0)
    files = [ours["before"]["bytes"], ours["after"]["bytes"], *theirs[:2]]
    sizes = {Image.open(io.BytesIO(file)).size for file in files}
    if sizes != {(config.width, config.height)}:
        raise RuntimeError(f"pictures of {sizes} instead of {config.width}x{config.height} pixels were drawn")


def measure(arguments: argparse.Namespace) -> list[Row]:
    config = ToyConfig()
    check_sizes(config)
    return [
        compare(
            f"{arguments.pairs} toy pairs drawn as PNG",
            f"Pillow at {SCALE} times the size, reduced",
            lambda: [pillow_row(config, index) for index in range(arguments.pairs)],
            lambda: [draw_row(config, "train", index) for index in range(arguments.pairs)],
        )
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=PAIRS)
    return run_measurement(measure, parser)


if __name__ == "__main__":
    sys.exit(main())
