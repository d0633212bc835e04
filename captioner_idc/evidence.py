"""Where a captioner finds the change: which part of the image after makes its sentence likely.

    found = find_evidence(model, processor, ("before.png", "after.png"), "a cat has been added on the left")
    found.box, found.strength
    overlay("after.png", found).save("evidence.png")

It needs nothing but the likelihood of the sentence, so it serves every family.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from modeling_blip2idc.image_fusion import Cell, load_image

from .captioning import Pair
from .likelihood import log_likelihoods

GRID = 8
IN_BOX = 0.5  # heat from which on a neighbour of the strongest part belongs to the box
COLOR = (255, 64, 0)
OPACITY = 0.6  # of the overlay where the heat is 1

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Evidence:
    """Where the evidence for a sentence is, in both images.

    Args:
        heat: of each part, 0 to 1, the strongest has 1; [grid, grid], rows from the top.
        box: around the strongest part and its neighbours: left, top, right and bottom as shares of the sides.
        strength: by how much the log-likelihood of the sentence falls without the difference inside the box.
    """

    heat: np.ndarray
    box: Box
    strength: float


def find_evidence(
    model: Any,
    processor: Any,
    pair: Pair,
    sentence: str,
    grid: int = GRID,
    batch_size: int = 32,
    text: str | None = None,
) -> Evidence:
    """Return where the evidence for a sentence is.

    Each part of the image after is put into the image before in turn: the heat is how much more likely this single
    difference makes the sentence than no difference.

    Args:
        grid: parts per side.
        batch_size: variants of the pair at a time.
        text: prompt instead of the one in the processor's settings.

    Raises: ImageError for an unreadable image.
    """
    before, after = processor.load_pair(*pair, "the pair")
    places = [
        (column / grid, row / grid, (column + 1) / grid, (row + 1) / grid)
        for row in range(grid)
        for column in range(grid)
    ]
    variants: list[Pair] = [(before, before), *((before, with_part(before, after, place)) for place in places)]
    scores = log_likelihoods(model, processor, variants, [[sentence]] * len(variants), batch_size, text)
    none, *single = (score for (score,) in scores)
    rises = np.clip(np.array(single).reshape(grid, grid) - none, 0.0, None)
    heat = rises / max(rises.max(), 1e-9)
    box = box_around(heat)
    without = (before, with_part(after, before, box))
    [[whole], [left]] = log_likelihoods(model, processor, [(before, after), without], [[sentence]] * 2, text=text)
    return Evidence(heat, box, whole - left)


def with_part(image: Cell, other: Cell, place: Box) -> Cell:
    """Return an image with the part of another one that is at `place`, in shares of the sides."""
    size = image.size
    left, top, right, bottom = (round(share * side) for share, side in zip(place, size * 2, strict=True))
    picture = image.picture
    picture.paste(other.picture.resize(size).crop((left, top, right, bottom)), (left, top))
    return Cell(picture)


def box_around(heat: np.ndarray) -> Box:
    """Return the box around the strongest part and the parts of at least IN_BOX that are connected to it."""
    start = np.unravel_index(heat.argmax(), heat.shape)
    inside, waiting = {start}, [start]
    while waiting:
        row, column = waiting.pop()
        for place in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            in_grid = 0 <= place[0] < heat.shape[0] and 0 <= place[1] < heat.shape[1]
            if in_grid and place not in inside and heat[place] >= IN_BOX:
                inside.add(place)
                waiting.append(place)
    rows, columns = zip(*inside, strict=True)
    edges = min(columns), min(rows), max(columns) + 1, max(rows) + 1
    return tuple(float(edge / side) for edge, side in zip(edges, heat.shape[::-1] * 2, strict=True))


def overlay(image: Any, evidence: Evidence) -> Image.Image:
    """Return an image with the heat and the box of the evidence drawn over it.

    Args:
        image: before or after, as `load_image` takes it.

    Raises: ImageError for an unreadable image.
    """
    picture = load_image(image)
    heat = Image.fromarray((255 * OPACITY * evidence.heat).astype(np.uint8))
    mask = heat.resize(picture.size, Image.Resampling.BICUBIC)
    drawn = Image.composite(Image.new("RGB", picture.size, COLOR), picture, mask)
    left, top, right, bottom = (share * side for share, side in zip(evidence.box, picture.size * 2, strict=True))
    line = max(2, round(min(picture.size) / 150))
    ImageDraw.Draw(drawn).rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=COLOR, width=line)
    return drawn
