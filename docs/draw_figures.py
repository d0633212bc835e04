"""Draw the pictures of README and docs: a photographed pair as two files, its canvas, and that pair with sentences;
edited photographs and toy pairs of each change type.

python docs/draw_figures.py --adapter runs/photo_edits
"""

import argparse
import textwrap
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from captioner_idc.captioning import caption
from captioner_idc.loading import SHIPPED, load, load_image
from dataset_syned.benchmarks.photo_edits import PhotoEdits, draw_raw, drawn_row
from dataset_syned.benchmarks.toy import CHANGE_TYPES, ToyConfig, draw_row
from modeling_blip2idc import fuse

FOLDER = Path(__file__).parent
UNSEEN = 2026  # another seed than the benchmarks' own
SIDE = 256
EXAMPLE = 11  # the cat Chelsea (CC0), held out
FONT_SIZE = 17
LINE_LENGTH = 62  # letters that fit below a pair


def sheet(rows: list[dict[str, Any]], sentences: list[list[str]], columns: int) -> Image.Image:
    """Return pairs side by side, with sentences below."""
    font = ImageFont.load_default(FONT_SIZE)
    wrapped = [[line for text in texts for line in textwrap.wrap(text, LINE_LENGTH)] for texts in sentences]
    pairs = [[load_image(row[side]) for side in ("before", "after")] for row in rows]
    for image in (image for pair in pairs for image in pair):
        image.thumbnail((SIDE, SIDE))
    tallest = max(image.height for pair in pairs for image in pair)
    width, height = 2 * SIDE + 8, tallest + max(map(len, wrapped)) * (FONT_SIZE + 5) + 18
    page = Image.new("RGB", (columns * (width + 24), -(-len(rows) // columns) * height), "white")
    draw = ImageDraw.Draw(page)
    for number, (pair, lines) in enumerate(zip(pairs, wrapped, strict=True)):
        x, y = number % columns * (width + 24) + 12, number // columns * height + 6
        for column, image in enumerate(pair):
            page.paste(image, (x + column * (SIDE + 8), y))
        for line, text in enumerate(lines):
            draw.text((x, y + tallest + 4 + line * (FONT_SIZE + 5)), text, "black", font)
    return page


def photo_rows(count: int) -> list[dict[str, Any]]:
    """Return the first pairs of scikit-image's held-out photographs."""
    builder = PhotoEdits(seed=UNSEEN, size=384)
    material = builder.material("test")
    return [drawn_row(draw_raw(builder.config, material, "test", index)) for index in range(count)]


def first_of_each_type(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row of each change type, in the order in which they come."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(row["change_type"], row)
    return list(found.values())


def draw_example(row: dict[str, Any], adapter: str) -> None:
    """Write the example as two files, its canvas, and both with the sentences of the captioner and the adapter."""
    for side in ("before", "after"):
        (FOLDER / f"{side}.jpg").write_bytes(row[side]["bytes"])
    pair = load_image(row["before"]), load_image(row["after"])
    fuse(*pair, layout="vertical", canvas=(2 * SIDE, SIDE)).save(FOLDER / "canvas.jpg", quality=90)
    names = {"the captioner that ships": SHIPPED, "after make demo": adapter}
    said = [f"{name}: {caption(*load(model), [pair])[0]}" for name, model in names.items()]
    sheet([row], [said], columns=1).save(FOLDER / "pair.jpg", quality=90)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--adapter", required=True, help="adapter whose sentence is shown")
    rows = photo_rows(120)
    draw_example(rows[EXAMPLE], parser.parse_args(argv).adapter)
    edited = first_of_each_type(rows)
    texts = [[f"{row['change_type']}:", *row["captions"][:2]] for row in edited]
    sheet(edited, texts, columns=3).save(FOLDER / "photo_edits.jpg", quality=80)
    config = ToyConfig(seed=UNSEEN, width=SIDE, height=SIDE // 2)
    toy = first_of_each_type([draw_row(config, "test", index) for index in range(10, 40)])
    toy.sort(key=lambda row: CHANGE_TYPES.index(row["change_type"]))
    texts = [[f"{row['change_type']}:", *row["captions"][:3]] for row in toy]
    sheet(toy, texts, columns=2).save(FOLDER / "toy.png")


if __name__ == "__main__":
    main()
