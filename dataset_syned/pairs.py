"""The one row that every benchmark yields, and the pair as its authors distribute it."""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from PIL import Image

NO_CHANGE = "none"  # the change type of a pair without a change
FEATURES = datasets.Features(
    {
        "pair_id": datasets.Value("string"),
        "before": datasets.Image(),
        "after": datasets.Image(),
        "captions": datasets.List(datasets.Value("string")),
        "change_type": datasets.Value("string"),
        "provenance": datasets.Value("string"),  # JSON of how a pair was made; empty for hand-made sets
    }
)

ImageSource = Path | tuple[str, bytes]  # a file, or the name and content of one that lies inside another


class DataError(ValueError):
    """Files that are missing or broken; the message names them and says what to do."""


@dataclass(frozen=True)
class RawPair:
    """A pair as its authors distribute it, before its image files are read."""

    pair_id: str
    before: ImageSource
    after: ImageSource
    captions: list[str]
    change_type: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises: DataError for text that no file can hold, such as half of a surrogate pair, which JSON can spell."""
        names = (source[0] if isinstance(source, tuple) else source.name for source in (self.before, self.after))
        try:
            "".join((self.pair_id, self.change_type, *names, *self.captions)).encode()
        except UnicodeEncodeError as error:
            raise DataError(f"pair {self.pair_id!r}: a text that is no Unicode ({error})") from error


@dataclass(frozen=True)
class BrokenEntry:
    """Stands where the annotations should have given a pair."""

    error: DataError
    pair_id: str = ""  # where it can be told


def image_bytes(name: str, data: bytes) -> dict[str, Any]:
    """An image as rows hold it: the raw file under its base name, so that no path of this machine travels with it."""
    return {"path": name, "bytes": data}


def read_image(source: ImageSource) -> dict[str, Any]:
    """The raw file, once it has been decoded to the last pixel. Raises: DataError that names it."""
    name, data = source if isinstance(source, tuple) else (source.name, None)
    try:
        data = source.read_bytes() if data is None else data
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except FileNotFoundError as error:
        raise DataError(f"image {str(source)!r} is missing") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        # Pillow reports damaged files with each of these types
        raise DataError(f"image {str(source if data is None else name)!r} cannot be read ({error})") from error
    return image_bytes(name, data)


def pair_row(
    pair_id: str,
    before: dict[str, Any],
    after: dict[str, Any],
    captions: list[str],
    change_type: str = "",
    provenance: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "pair_id": pair_id,
        "before": before,
        "after": after,
        "captions": captions,
        "change_type": change_type,
        "provenance": json.dumps(provenance, sort_keys=True) if provenance else "",
    }


def check_captions(pair: RawPair) -> None:
    """Raises: DataError that names the pair, if it has no caption or one without text."""
    if not pair.captions or not all(caption.strip() for caption in pair.captions):
        raise DataError(f"pair {pair.pair_id!r} has no caption, or one without text: {pair.captions}")


def is_blank(entry: RawPair | BrokenEntry) -> bool:
    """Whether a pair has captions, and none of them a text."""
    return isinstance(entry, RawPair) and bool(entry.captions) and not any(map(str.strip, entry.captions))


def read_row(pair: RawPair) -> dict[str, Any]:
    """Raises: DataError that names the pair and the image."""
    try:
        images = read_image(pair.before), read_image(pair.after)
    except DataError as error:
        raise DataError(f"pair {pair.pair_id!r}: {error}") from error
    return pair_row(pair.pair_id, *images, pair.captions, pair.change_type, pair.provenance)
