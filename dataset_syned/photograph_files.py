"""Photographs in a folder: which are usable, which split each belongs to, and reduced copies to draw from."""

import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from .pairs import BrokenEntry, DataError, decode_image, read_file, require_file

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
LEAST_SIDE = 64
LONGEST_SHAPE = 5  # the longer side divided by the shorter
SALT = "1800/"  # with it, each split of scikit-image's photographs has coloured ones
VALIDATION_FROM, TEST_FROM = 0.7, 0.8  # of the hashes, which are between 0 and 1


def list_files(folder: Path, suffixes: tuple[str, ...], leave_out: Sequence[Path] = ()) -> list[str]:
    """Return the names of a folder's files, relative to it, in alphabetical order; no file is opened.

    Args:
        leave_out: folders in it that are not searched. Hidden files and folders are not either.
    """
    names, seen = [], set()
    left_out = {os.path.realpath(path) for path in leave_out}
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        real = os.path.realpath(parent)
        if real in seen or real in left_out:  # links may lead in a circle
            folders.clear()
            continue
        seen.add(real)
        inner = os.path.relpath(parent, folder)
        chosen = (name for name in files if name.lower().endswith(suffixes) and not name.startswith("."))
        names += [name if inner == "." else f"{inner}/{name}".replace(os.sep, "/") for name in chosen]
    return sorted(names)


def position(name: str) -> float:
    """Return a number from 0 to 1 that depends on a name alone."""
    digest = hashlib.sha256((SALT + name).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(name: str) -> str:
    """Return the split of a file by its name, so that more files change the split of no other."""
    share = position(name)
    return "train" if share < VALIDATION_FROM else "validation" if share < TEST_FROM else "test"


def split_names(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of each split, in the order of their hashes."""
    splits: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for name in sorted(names, key=lambda name: (position(name), name)):
        splits[split_of(name)].append(name)
    return splits


def fill(splits: dict[str, list], least: int) -> None:
    """Move entries from the largest split to those that have fewer than `least`; in total there are enough."""
    for entries in splits.values():
        while len(entries) < least:
            entries.append(max(splits.values(), key=len).pop())


def usable_photographs(
    folder: Path, splits: dict[str, list[str]], wanted: dict[str, int]
) -> tuple[dict[str, list[str]], dict[str, list[BrokenEntry]]]:
    """Return the first `wanted` usable photographs of each split, and the unusable ones among them.

    Only their headers are read; of a large folder, most files are not opened.
    """
    usable, broken = {}, {}
    for split, names in splits.items():
        usable[split], broken[split] = [], []
        for name in names:
            if len(usable[split]) == wanted[split]:
                break
            try:
                check_photograph(folder / name)
                usable[split].append(name)
            except DataError as error:
                broken[split].append(BrokenEntry(error))
    return usable, broken


def check_photograph(path: Path) -> None:
    """Raise DataError that names a file whose header is not that of a picture, or of a tiny one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(require_file(path, "photograph")) as file:
                width, height = file.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"photograph {str(path)!r} cannot be read ({error}): replace or remove it") from error
    if min(width, height) < LEAST_SIDE:
        raise DataError(
            f"photograph {str(path)!r} is {width}x{height} pixels: use one of at least {LEAST_SIDE} on each side, or "
            "remove it"
        )
    if max(width, height) > LONGEST_SHAPE * min(width, height):
        raise DataError(
            f"photograph {str(path)!r} is {width}x{height} pixels: use one that is at most {LONGEST_SHAPE} times as "
            "long as wide, or remove it"
        )


def reduced_photograph(path: Path, longest: int) -> Image.Image:
    """Return a photograph of which no side is longer than `longest`. Raises: DataError that names it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        picture = decode_image(read_file(path), str(path), least=longest * 2 // 3)
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return picture
