"""Drawing toy pairs: rows per second on one core, against the usual way to get smooth edges with Pillow.

    python measurements/drawing.py

Baseline: the same things with ImageDraw at four times the size, then reduced; without ruled lines, light and shift,
which makes the baseline faster than a true equal. Both include PNG compression.
"""

import random
import time
from collections.abc import Callable

from PIL import Image, ImageDraw

from dataset_syned.benchmarks.toy import (
    ToyConfig,
    draw_any_pair,
    draw_captions,
    draw_row,
)
from dataset_syned.pairs import png
from dataset_syned.scene_drawing import COLORS, Thing

PAIRS, SCALE = 1000, 4


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


def pairs_per_second(draw: Callable[[int], object]) -> float:
    started = time.perf_counter()
    for index in range(PAIRS):
        draw(index)
    return PAIRS / (time.perf_counter() - started)


def main() -> None:
    config = ToyConfig()
    ours = pairs_per_second(lambda index: draw_row(config, "train", index))
    baseline = pairs_per_second(lambda index: pillow_row(config, index))
    print(
        f"ours {ours:.0f} pairs/s, Pillow at {SCALE}x {baseline:.0f} pairs/s: {ours / baseline:.2f} times the baseline"
    )


if __name__ == "__main__":
    main()
