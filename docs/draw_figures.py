"""Draw the pictures of the README: one pair as two files, a sheet of toy pairs, and a pair with its sentence.

python docs/draw_figures.py --adapter runs/toy
"""

import argparse
import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from captioner_idc.captioning import caption
from captioner_idc.loading import load
from dataset_syned.benchmarks.toy import CHANGE_TYPES, ToyConfig, draw_row

FOLDER = Path(__file__).parent
UNSEEN = ToyConfig(seed=2026, width=256, height=128)  # another seed than the benchmark's own, and larger
EXAMPLE = 3
FONT_SIZE = 17


def picture(row: dict, side: str) -> Image.Image:
    return Image.open(io.BytesIO(row[side]["bytes"])).convert("RGB")


def sheet(rows: list[dict], sentences: list[list[str]], columns: int) -> Image.Image:
    """Before and after side by side, sentences below."""
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


def one_of_each_kind() -> list[dict]:
    rows = [draw_row(UNSEEN, "test", index) for index in range(40)]
    return [next(row for row in rows[10:] if row["change_type"] == change_type) for change_type in CHANGE_TYPES]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--adapter", required=True, help="whose sentence stands under the pair")
    adapter = parser.parse_args(argv).adapter
    example = draw_row(UNSEEN, "test", EXAMPLE)
    for side in ("before", "after"):
        picture(example, side).save(FOLDER / f"{side}.png")
    model, processor = load(adapter)
    sentence = caption(model, processor, [(picture(example, "before"), picture(example, "after"))])[0]
    sheet([example], [[f"model: {sentence}"]], columns=1).save(FOLDER / "pair.png")
    rows = one_of_each_kind()
    sheet(rows, [[f"{row['change_type']}:", *row["captions"][:3]] for row in rows], columns=2).save(FOLDER / "toy.png")


if __name__ == "__main__":
    main()
