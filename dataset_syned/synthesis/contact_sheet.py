"""A picture of before and after images with their captions, scores and verdicts: accepted left, rejected right."""

from dataclasses import dataclass
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

from ..pairs import decode_image

CELL, GAP, LINES, LINE = 160, 8, 5, 13  # pixels; lines of text below the images
WIDTH = 2 * CELL + 3 * GAP
HEIGHT = CELL + LINES * LINE + 3 * GAP
COLORS = {True: (0, 110, 40), False: (170, 20, 20)}


@dataclass(frozen=True)
class Panel:
    """A candidate as the sheet shows it."""

    before: bytes
    after: bytes | None
    accepted: bool
    captions: list[str]
    verdict: str
    scores: dict[str, float | None]


def thumbnail(data: bytes | None) -> Image.Image:
    cell = Image.new("RGB", (CELL, CELL), (225, 225, 225))
    if data:
        image = decode_image({"path": "candidate", "bytes": data})
        image.thumbnail((CELL, CELL))
        cell.paste(image, ((CELL - image.width) // 2, (CELL - image.height) // 2))
    return cell


def words(panel: Panel) -> list[str]:
    scores = "  ".join(
        f"{name} {'-' if value is None else format(value, '.2f')}" for name, value in panel.scores.items()
    )
    lines = [part for text in (panel.verdict, scores, " | ".join(panel.captions)) for part in wrap(text, 60)]
    return lines[:LINES]


def draw_panel(panel: Panel) -> Image.Image:
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    picture.paste(thumbnail(panel.before), (GAP, GAP))
    picture.paste(thumbnail(panel.after), (CELL + 2 * GAP, GAP))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(11)
    for number, text in enumerate(words(panel)):
        color = COLORS[panel.accepted] if number == 0 else (0, 0, 0)
        draw.text((GAP, CELL + 2 * GAP + number * LINE), text, color, font)
    return picture


def draw_sheet(panels: list[Panel], columns: int = 2) -> Image.Image | None:
    """Return the sheet, or None if there is nothing to show.

    Args:
        columns: of accepted and of rejected panels each.
    """
    if not panels:
        return None
    sides = {accepted: [panel for panel in panels if panel.accepted is accepted] for accepted in (True, False)}
    rows = max(-(-len(side) // columns) for side in sides.values())
    sheet = Image.new("RGB", (2 * columns * WIDTH + GAP, rows * HEIGHT), "white")
    for accepted, side in sides.items():
        left = 0 if accepted else columns * WIDTH + GAP
        for number, panel in enumerate(side):
            sheet.paste(draw_panel(panel), (left + number % columns * WIDTH, number // columns * HEIGHT))
    ImageDraw.Draw(sheet).rectangle((columns * WIDTH, 0, columns * WIDTH + GAP, sheet.height), (90, 90, 90))
    return sheet
