"""Draw the pictures of README and docs: a pair as two files, its canvas, toy pairs, and a pair with its sentence.

python docs/draw_figures.py --adapter runs/toy
"""

import argparse
import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from captioner_idc.captioning import caption
from captioner_idc.loading import load
from dataset_syned.benchmarks.toy import CHANGE_TYPES, ToyConfig, draw_row
from modeling_blip2idc import fuse

FOLDER = Path(__file__).parent
UNSEEN = ToyConfig(seed=2026, width=256, height=128)  # another seed than the benchmark's own, and larger
EXAMPLE = 3
FONT_SIZE = 17


def picture(row: dict, side: str) -> Image.Image:
    """Return an image of a row."""
    return Image.open(io.BytesIO(row[side]["bytes"])).convert("RGB")


def sheet(rows: list[dict], sentences: list[list[str]], columns: int) -> Image.Image:
    """Return pairs side by side, with sentences below."""
    font = ImageFont.load_default(FONT_SIZE)
    lines = max(map(len, sentences))
    width, height = 2 * 256 + 8, 128 + lines * (FONT_SIZE + 5) + 18
    page = Image.new("RGB", (columns * (width + 24), -(-len(rows) // columns) * height), "white")
    draw = ImageDraw.Draw(page)
    for number, (row, texts) in enumerate(zip(rows, sentences, strict=True)):
        x, y = number % columns * (width + 24) + 12, number // columns * height + 6
        page.paste(picture(row, "before"), (x, y))
        page.paste(picture(row, "after"), (x + 256 + 8, y))
        for line, text in enumerate(texts):
            draw.text((x, y + 132 + line * (FONT_SIZE + 5)), text, "black", font)
    return page


def one_of_each_type() -> list[dict]:
    """Return a row of each change type."""
    rows = [draw_row(UNSEEN, "test", index) for index in range(40)]
    return [next(row for row in rows[10:] if row["change_type"] == change_type) for change_type in CHANGE_TYPES]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--adapter", required=True, help="adapter whose sentence is shown")
    adapter = parser.parse_args(argv).adapter
    example = draw_row(UNSEEN, "test", EXAMPLE)
    for side in ("before", "after"):
        picture(example, side).save(FOLDER / f"{side}.png")
    pair = picture(example, "before"), picture(example, "after")
    fuse(*pair, layout="vertical", canvas=(256, 256)).save(FOLDER / "canvas.png")
    model, processor = load(adapter)
    sentence = caption(model, processor, [pair])[0]
    sheet([example], [[f"model: {sentence}"]], columns=1).save(FOLDER / "pair.png")
    rows = one_of_each_type()
    sheet(rows, [[f"{row['change_type']}:", *row["captions"][:3]] for row in rows], columns=2).save(FOLDER / "toy.png")


if __name__ == "__main__":
    main()
