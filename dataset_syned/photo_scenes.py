"""Views of photographs with cut-outs placed on them, whose light and shadow fit the photograph.

Positions are pixels of the drawn picture. All random numbers come from `random.Random.random`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps, ImageStat

from .cut_outs import CutOut, load_cut_out
from .pairs import DataError
from .photograph_files import reduced_photograph
from .scene_drawing import between, pick

Box = tuple[int, int, int, int]  # left, top, right, bottom

PAINTS: dict[str, tuple[int, int, int]] = {
    "red": (205, 40, 35),
    "orange": (240, 130, 30),
    "yellow": (235, 205, 40),
    "green": (50, 150, 60),
    "blue": (45, 85, 205),
    "purple": (135, 60, 175),
    "pink": (240, 130, 185),
}
ASPECTS = (1.0, 1.0, 4 / 3, 3 / 2, 3 / 4)  # width / height of views
# Rows come in windows of this many photographs, each of which is in REPEATS rows of its window: to read a
# large photograph takes longer than drawing a pair.
WINDOW, REPEATS = 64, 4
REDUCED = 3  # photographs are kept this many times as large as the pictures that are drawn
LEAST_VIEW = 0.45  # a view has at least this share of the width or height that fits
MOST_ENLARGED = 1.3
SMALLEST, LARGEST = 0.24, 0.5  # longest side of a cut-out, of the shorter side of the picture
GRID_GAP = 0.035  # a centre is at least this far from a line of the 3x3 grid, so that its place is clear
COARSE = 32  # cells along the longest side of a picture that is seen from far away
PLACES = (
    ("upper left", "top", "upper right"),
    ("left", "middle", "right"),
    ("lower left", "bottom", "lower right"),
)


@dataclass(frozen=True)
class Placed:
    """A cut-out at a place: its centre, the length of its longest side, and how it is turned and painted."""

    cut_out: CutOut
    x: float
    y: float
    longest: float
    mirrored: bool
    angle: float
    color: str = ""


@dataclass(frozen=True)
class View:
    """A part of a photograph: left, top, right and bottom as shares of its width and height."""

    box: tuple[float, float, float, float]
    size: tuple[int, int]
    mirrored: bool
    brightness: float
    saturation: float


def photographs_shown(rows: int) -> int:
    """Return the number of different photographs in the first rows of a split, if there are that many."""
    return WINDOW * -(-rows // (WINDOW * REPEATS))


class Material:
    """The photographs and cut-outs of one split, with those that were used last kept in memory."""

    def __init__(
        self,
        folder: Path,
        photographs: Sequence[str],
        cut_out_folder: Path | None,
        cut_outs: Sequence[CutOut],
        size: int,
    ):
        self.folder, self.cut_out_folder, self.size = folder, cut_out_folder, size
        self.photographs, self.cut_outs = photographs, cut_outs
        self.photograph = lru_cache(maxsize=WINDOW)(self._photograph)  # about 1 MB each
        self.cut_out = lru_cache(maxsize=128)(self._cut_out)

    def photograph_name(self, index: int) -> str:
        """Return the name of the photograph that row `index` shows."""
        window, position = divmod(index, WINDOW * REPEATS)
        return self.photographs[(window * WINDOW + position % WINDOW) % len(self.photographs)]

    def _photograph(self, name: str) -> Image.Image:
        return reduced_photograph(self.folder / name, REDUCED * self.size)

    def _cut_out(self, file: str) -> Image.Image:
        picture = load_cut_out(self.cut_out_folder / file)
        if picture is None:
            raise DataError(f"cut-out {file!r} has changed since it was listed: prepare again")
        return picture


def draw_view(rng: random.Random, photograph: Image.Image, size: int) -> View:
    """Return a random view whose longest side has `size` pixels."""
    aspect = pick(rng, ASPECTS)
    width, height = (size, round(size / aspect)) if aspect >= 1 else (round(size * aspect), size)
    fitting = min(photograph.width / width, photograph.height / height)
    least = min(1.0, max(LEAST_VIEW, 1 / (MOST_ENLARGED * fitting)))
    scale = fitting * between(rng, least, 1.0)
    view = (width, height)
    left, top = (rng.random() * (full - scale * part) for full, part in zip(photograph.size, view, strict=True))
    right, bottom = left + scale * width, top + scale * height
    shares = (left / photograph.width, top / photograph.height, right / photograph.width, bottom / photograph.height)
    box = tuple(min(1.0, max(0.0, round(share, 4))) for share in shares)
    light = round(between(rng, 0.85, 1.15), 3), round(between(rng, 0.85, 1.15), 3)
    return View(box, (width, height), rng.random() < 0.5, *light)


def show_view(photograph: Image.Image, view: View) -> Image.Image:
    """Return the picture of a view."""
    sides = photograph.size * 2
    box = tuple(share * side for share, side in zip(view.box, sides, strict=True))
    picture = photograph.resize(view.size, Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
    picture = ImageOps.mirror(picture) if view.mirrored else picture
    picture = ImageEnhance.Color(picture).enhance(view.saturation)
    return ImageEnhance.Brightness(picture).enhance(view.brightness)


def place_of(x: float, y: float, size: tuple[int, int]) -> str:
    """Return the place of a point in words."""
    column, row = (min(2, max(0, int(3 * value / side))) for value, side in zip((x, y), size, strict=True))
    return PLACES[row][column]


def place_of_box(box: Box, size: tuple[int, int]) -> str:
    """Return the place of a box's centre in words."""
    return place_of((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, size)


def free_box(
    rng: random.Random, size: tuple[int, int], extent: tuple[float, float], taken: Sequence[Box] = ()
) -> Box | None:
    """Return a box of an extent inside the picture that overlaps no other, or None if 30 tries found none."""
    width, height = (min(part, side) for part, side in zip(extent, size, strict=True))
    for _ in range(30):
        x, y = free_centre(rng, width / size[0]), free_centre(rng, height / size[1])
        if x is None or y is None:
            continue
        left, top = x * size[0] - width / 2, y * size[1] - height / 2
        box = (round(left), round(top), round(left + width), round(top + height))
        if not any(overlap(box, other) for other in taken):
            return box
    return None


def free_centre(rng: random.Random, extent: float) -> float | None:
    """Return a centre in a random third of a side, or None if a thing of this extent sticks out there.

    All lengths are shares of the side.
    """
    third = int(3 * rng.random())
    low = max(extent / 2, third / 3 + GRID_GAP * (third > 0))
    high = min(1 - extent / 2, (third + 1) / 3 - GRID_GAP * (third < 2))
    return between(rng, low, high) if low <= high else None


def overlap(box: Box, other: Box) -> bool:
    """Return whether two boxes overlap."""
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


@dataclass
class Stage:
    """A view of a photograph with the cut-outs that both pictures show."""

    material: Material
    background: Image.Image
    bystanders: list[Placed] = field(default_factory=list)
    sprites: dict[Placed, Image.Image] = field(default_factory=dict)  # drawn once, used several times

    @property
    def size(self) -> tuple[int, int]:
        return self.background.size

    def draw(self, *more: Placed) -> Image.Image:
        """Return the picture with further cut-outs in front."""
        picture = self.background.copy()
        for placed in (*self.bystanders, *more):
            self.paste(picture, placed)
        return picture

    def place(self, rng: random.Random, cut_out: CutOut | None = None, *others: Placed) -> Placed | None:
        """Return a cut-out at a free place, or None if none was found.

        Args:
            cut_out: which one; a random one that is not in the picture if None.
            others: cut-outs besides the bystanders that it must not overlap.
        """
        if not self.material.cut_outs:
            return None
        cut_out = cut_out or pick(rng, self.material.cut_outs)
        if any(cut_out.name.head == placed.cut_out.name.head for placed in (*self.bystanders, *others)):
            return None
        longest = between(rng, SMALLEST, LARGEST) * min(self.size)
        placed = Placed(cut_out, 0, 0, longest, rng.random() < 0.5, between(rng, -8, 8))
        return self.elsewhere(rng, placed, *others)

    def elsewhere(self, rng: random.Random, placed: Placed, *others: Placed) -> Placed | None:
        """Return the same cut-out at a free place, or None if none was found."""
        taken = [self.box(other) for other in (*self.bystanders, *others)]
        box = free_box(rng, self.size, self.sprite(placed).size, taken)
        return box and moved(placed, box)

    def sprite(self, placed: Placed) -> Image.Image:
        """Return the cut-out in its size and colour, RGBA, wherever it is placed."""
        key = replace(placed, x=0, y=0)
        if key not in self.sprites:
            self.sprites[key] = self.draw_sprite(key)
        return self.sprites[key]

    def draw_sprite(self, placed: Placed) -> Image.Image:
        """Return the cut-out in its size and colour, RGBA."""
        picture = self.material.cut_out(placed.cut_out.file)
        scale = placed.longest / max(picture.size)
        size = [max(1, round(side * scale)) for side in picture.size]
        picture = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
        picture = ImageOps.mirror(picture) if placed.mirrored else picture
        picture = picture.rotate(placed.angle, Image.Resampling.BILINEAR, expand=True)
        return painted(picture, placed.color) if placed.color else picture

    def box(self, placed: Placed) -> Box:
        """Return the box of a cut-out."""
        width, height = self.sprite(placed).size
        left, top = round(placed.x - width / 2), round(placed.y - height / 2)
        return left, top, left + width, top + height

    def mask(self, placed: Placed) -> Image.Image:
        """Return where a cut-out is, in the size of the picture."""
        mask = Image.new("L", self.size)
        mask.paste(self.sprite(placed).getchannel("A"), self.box(placed)[:2])
        return mask

    def paste(self, picture: Image.Image, placed: Placed) -> None:
        """Paste a cut-out and its shadow, in the light of its surroundings."""
        sprite, box = self.sprite(placed), self.box(placed)
        around = self.background.crop(box)
        sprite = lit(sprite, ImageStat.Stat(around).mean)
        alpha = sprite.getchannel("A").filter(ImageFilter.GaussianBlur(0.6))
        blur = max(1.0, 0.03 * placed.longest)
        reach = round(3 * blur)
        shadow = ImageOps.expand(alpha, reach).filter(ImageFilter.GaussianBlur(blur)).point(lambda value: value * 0.35)
        left, top = box[0] - reach, box[1] - reach + round(0.04 * placed.longest)
        picture.paste((12, 12, 16), (left, top), shadow)
        picture.paste(sprite.convert("RGB"), box[:2], alpha)


def moved(placed: Placed, box: Box) -> Placed:
    """Return the same cut-out with the centre of a box."""
    return replace(placed, x=(box[0] + box[2]) / 2, y=(box[1] + box[3]) / 2)


def luminance(color: Sequence[float]) -> float:
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]


def lit(sprite: Image.Image, around: Sequence[float]) -> Image.Image:
    """Return a cut-out with brightness and tint drawn towards the mean colour of its surroundings."""
    own = luminance(ImageStat.Stat(sprite.convert("RGB"), sprite.getchannel("A")).mean)
    light = max(luminance(around), 1.0)
    gain = min(1.35, max(0.6, (0.3 * light + 0.7 * own) / max(own, 1.0)))
    gains = [gain * min(1.15, max(0.85, 1 + 0.2 * (value / light - 1))) for value in around]
    return sprite.point([min(255, round(value * gain)) for gain in (*gains, 1.0) for value in range(256)])


def painted(picture: Image.Image, color: str) -> Image.Image:
    """Return a cut-out in another colour, with its own light and dark."""
    grey = ImageOps.autocontrast(picture.convert("RGB").convert("L"), cutoff=1, mask=picture.getchannel("A"))
    dark = tuple(value // 6 for value in PAINTS[color])
    colored = ImageOps.colorize(grey, dark, (250, 250, 250), PAINTS[color], midpoint=150)
    colored = Image.blend(picture.convert("RGB"), colored, 0.9)
    colored.putalpha(picture.getchannel("A"))
    return colored


def difference(first: Image.Image, second: Image.Image, mask: Image.Image | None = None) -> float:
    """Return the mean difference, 0 to 255, of the channel that differs most, where a mask is white."""
    red, green, blue = ImageChops.difference(first, second).split()
    return ImageStat.Stat(ImageChops.lighter(ImageChops.lighter(red, green), blue), mask).mean[0]


def coarse_difference(first: Image.Image, second: Image.Image, mask: Image.Image | None = None) -> float:
    """Return the mean difference of two pictures as seen from far away, where their textures cannot be seen."""
    cell = max(1, max(first.size) // COARSE)
    if mask:
        mask = mask.reduce(cell).point([255 * (value > 127) for value in range(256)])
    return difference(first.reduce(cell), second.reduce(cell), mask)
