"""Cut-outs: pictures of single things with transparent surroundings, and their names.

The name of `tiger.png` is the first line of `tiger.txt` next to it ("A Sumatran tiger."), otherwise "tiger"; this is
the layout of Debian's tuxpaint-stamps-default.
"""

import io
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from .pairs import BrokenEntry, DataError, read_file
from .photograph_files import list_files
from .thing_names import SOMETHING, ThingName, name_of

SUFFIXES = (".png", ".webp")
DRAWN = ("cartoon", "symbols")  # folders of drawings, not photographs
LEAST_SIDE = 32
LONGEST_SIDE = 400  # to which larger ones are reduced
# 2 ** entropy of the colours, of 16 levels per channel; most drawings have fewer, most photographs more.
LEAST_COLORS = 16.0
OPAQUE = 200  # of 255
# Folder of tuxpaint-stamps-default -> what its things are called by someone who does not know a more exact name.
CATEGORIES = {
    **{"birds": "bird", "fish": "fish", "insects": "insect", "shellfish": "shellfish", "animals": "animal"},
    **{"fruit": "fruit", "vegetables": "vegetable", "food": "food", "flowers": "flower", "trees": "tree"},
    **{"mushrooms": "mushroom", "plants": "plant", "planes": "plane", "ship": "ship", "vehicles": "vehicle"},
    **{"music": "instrument", "hats": "hat", "clothes": "clothing", "utensils": "utensil", "tools": "tool"},
    **{"electronics": "device", "roadsigns": "sign", "monuments": "monument", "sports": "toy"},
}
MASS_CATEGORIES = {"clothing", "food", "fruit", "shellfish"}


@dataclass(frozen=True)
class CutOut:
    """A usable cut-out; `file` is relative to the folder of cut-outs."""

    file: str
    name: ThingName


@dataclass
class CutOutListing:
    """The cut-outs of a folder, and how many were left out for which reason."""

    usable: list[CutOut] = field(default_factory=list)
    left_out: Counter = field(default_factory=Counter)
    broken: list[BrokenEntry] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Return lines that say what was left out, and how many have no name."""
        lines = [f"cut-outs left out because {reason}: {count}" for reason, count in sorted(self.left_out.items())]
        unnamed = sum(cut_out.name == SOMETHING for cut_out in self.usable)
        return lines + ([f'cut-outs without an English name, called "something": {unnamed}'] if unnamed else [])


def list_cut_outs(folder: Path) -> CutOutListing:
    """Return the usable cut-outs of a folder and its subfolders."""
    listing = CutOutListing()
    for file in list_files(folder, SUFFIXES):
        try:
            reason = unusable(file, load_cut_out(folder / file))
        except DataError as error:
            listing.broken.append(BrokenEntry(error))
            continue
        if reason:
            listing.left_out[reason] += 1
        else:
            listing.usable.append(CutOut(file, read_name(folder / file)))
    return listing


def categories_of(file: str) -> list[ThingName]:
    """Return the categories of a cut-out by its folders, the narrowest first: "bird", "animal"."""
    folders = [folder for folder in reversed(file.split("/")[:-1]) if folder in CATEGORIES]
    return [ThingName(CATEGORIES[folder], mass=CATEGORIES[folder] in MASS_CATEGORIES) for folder in folders]


def read_name(path: Path) -> ThingName:
    """Return the name of a cut-out's thing."""
    try:
        lines = path.with_suffix(".txt").read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError:
        lines = []
    return name_of(lines[0] if lines else "", path.stem)


def unusable(file: str, picture: Image.Image | None) -> str:
    """Return why a cut-out is left out, or ""."""
    if set(file.lower().split("/")[:-1]) & set(DRAWN):
        return f"they are in a folder named {' or '.join(map(repr, DRAWN))}"
    if picture is None:
        return "nothing is transparent, or everything"
    if min(picture.size) < LEAST_SIDE:
        return f"they are smaller than {LEAST_SIDE} pixels"
    return "" if color_count(picture) >= LEAST_COLORS else "they have few colors, as symbols and drawings have"


def color_count(picture: Image.Image) -> float:
    """Return the effective number of colours of the opaque part."""
    values = np.asarray(picture)
    levels = (values[values[..., 3] > OPAQUE][:, :3] >> 4).astype(np.int64) @ np.array([256, 16, 1])
    if not levels.size:
        return 0.0
    shares = np.unique(levels, return_counts=True)[1] / levels.size
    return float(2 ** -(shares * np.log2(shares)).sum())


def load_cut_out(path: Path) -> Image.Image | None:
    """Return a cut-out without its empty margins, as RGBA, or None if nothing of it is transparent, or everything.

    `load_image` would make transparent parts white. Raises: DataError that names a file which cannot be read.
    """
    data = read_file(path)["bytes"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as file:
                picture = file.convert("RGBA")
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"cut-out {str(path)!r} cannot be read ({error}): replace or remove it") from error
    alpha = picture.getchannel("A")
    solid = alpha.point([255 * (value > OPAQUE) for value in range(256)])
    box = solid.getbbox()
    if box is None or alpha.getextrema()[0] > OPAQUE:
        return None
    picture = picture.crop(alpha.point([255 * (value > 16) for value in range(256)]).getbbox())
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return picture
