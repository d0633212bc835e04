"""The row that every benchmark yields, its change types, and a pair as its authors distribute it."""

import io
import json
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from PIL import Image

NO_CHANGE = "none"
# The change type of a row is one of these, or "" where nobody knows it. A benchmark's own finer labels go into
# provenance.
CHANGE_TYPES: dict[str, str] = {
    NO_CHANGE: "nothing changed, or only the viewpoint or the light",
    "add": "something appeared",
    "remove": "something disappeared",
    "replace": "something became something else",
    "move": "something is in another place",
    "color": "something, or the whole image, has another color",
    "material": "something has another material or texture",
    "text": "written text appeared, disappeared or reads differently",
    "background": "what is behind the main object is different",
    "style": "the whole image looks as if it were made in another way, e.g. painted",
    "local": "one object is altered in a way that no other type names, e.g. its expression",
    "global": "the whole scene is altered, e.g. its season or weather",
    "brightness": "the image is clearly brighter or darker, more than by other light",
    "contrast": "the image has more or less contrast",
    "saturation": "the colors are more or less vivid",
    "black-and-white": "the image lost its colors, or got them",
    "tint": "one color lies over the whole image",
    "blur": "the image, or a part of it, is blurred or became sharp",
    "noise": "grain appeared or disappeared",
    "pixelate": "the image, or a part of it, consists of large squares",
    "flip": "the image is mirrored or upside down",
    "rotate": "the image is turned or tilted",
    "crop": "only a part of the image is left",
    "cover": "a part is hidden behind a plain shape",
    "duplicate": "something, or a part of the image, is there a second time",
    "multiple": "several changes of different types",
}
FEATURES = datasets.Features(
    {
        "pair_id": datasets.Value("string"),  # unique within its split
        "before": datasets.Image(),
        "after": datasets.Image(),
        "captions": datasets.List(datasets.Value("string")),
        "change_type": datasets.Value("string"),  # one of CHANGE_TYPES, or ""
        "provenance": datasets.Value("string"),  # JSON object that describes how the pair was made, or ""
    }
)

ImageSource = Path | tuple[str, bytes]  # a file, or the name and content of one inside another file


class DataError(ValueError):
    """Missing or broken files; the message names them and says what to do."""


@dataclass(frozen=True)
class RawPair:
    """A pair as its authors distribute it, before its image files are read.

    Raises: DataError for a change type that is not in CHANGE_TYPES, and for text that UTF-8 cannot encode, e.g. half
        of a surrogate pair, which JSON can spell.
    """

    pair_id: str
    before: ImageSource
    after: ImageSource
    captions: list[str]
    change_type: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = (source[0] if isinstance(source, tuple) else source.name for source in (self.before, self.after))
        try:
            "".join((self.pair_id, self.change_type, *names, *self.captions)).encode()
        except UnicodeEncodeError as error:
            raise DataError(f"pair {self.pair_id!r}: a text is not valid Unicode ({error})") from error
        if self.change_type and self.change_type not in CHANGE_TYPES:
            raise DataError(
                f"pair {self.pair_id!r}: unknown change type {self.change_type!r}, use one of: "
                f"{', '.join(CHANGE_TYPES)}; or leave it empty"
            )


@dataclass(frozen=True)
class BrokenEntry:
    """An annotation that could not be read, in place of its pair."""

    error: DataError
    pair_id: str = ""  # empty where it is unknown


def image_bytes(name: str, data: bytes) -> dict[str, Any]:
    """Return an image as rows contain it: the raw file under its base name, so that no local path is published."""
    return {"path": name, "bytes": data}


def require_file(path: Path, what: str = "") -> Path:
    """Return `path` if it is a file, without opening it: to read a pipe or a device may take for ever.

    Args:
        what: what messages call it, before its name.

    Raises: DataError that names it.
    """
    name = f"{what} {str(path)!r}".lstrip()
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise DataError(f"{name} is missing") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in its name
        raise DataError(f"{name} cannot be read ({error})") from error
    if not stat.S_ISREG(mode):
        found = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise DataError(f"{name} is {found}: replace it with a file")
    return path


def read_file(source: ImageSource) -> dict[str, Any]:
    """Return an image file as rows contain it, not decoded. Raises: DataError that names a missing file."""
    if isinstance(source, tuple):
        return image_bytes(*source)
    try:
        return image_bytes(source.name, require_file(source, "image").read_bytes())
    except OSError as error:
        raise DataError(f"image {str(source)!r} cannot be read ({error})") from error


def decode_image(image: dict[str, Any], name: str | None = None, least: int | None = None) -> Image.Image:
    """Return the RGB image that training would see; the only place of this package that decodes images.

    Args:
        image: an image as rows contain it.
        name: what messages call it; its base name if None.
        least: pixels per side that a JPEG must at least have when it is decoded at a fraction of its size; None for
            its whole size.

    Raises: DataError that names an image that training would refuse.
    """
    from modeling_blip2idc.image_fusion import load_image  # imports torch, which most commands do not need

    try:
        return load_image(image["bytes"], least)
    except ValueError as error:
        reason = str(error).removeprefix("the image: ")
        raise DataError(f"image {name or image['path']!r} cannot be read ({reason})") from error


def read_image(source: ImageSource) -> tuple[dict[str, Any], Image.Image]:
    """Return an image file as rows contain it, and decoded. Raises: DataError that names it."""
    image = read_file(source)
    return image, decode_image(image, None if isinstance(source, tuple) else str(source))


def png(picture: Image.Image) -> bytes:
    """Return a picture as the content of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def pair_row(
    pair_id: str,
    before: dict[str, Any],
    after: dict[str, Any],
    captions: list[str],
    change_type: str = "",
    provenance: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a row of FEATURES."""
    return {
        "pair_id": pair_id,
        "before": before,
        "after": after,
        "captions": captions,
        "change_type": change_type,
        "provenance": json.dumps(provenance, sort_keys=True) if provenance else "",
    }


def check_captions(pair: RawPair) -> None:
    """Raise DataError that names the pair if it has no caption or one without text."""
    if not pair.captions or not all(caption.strip() for caption in pair.captions):
        raise DataError(f"pair {pair.pair_id!r} has no caption, or one without text: {pair.captions}")


def is_blank(entry: RawPair | BrokenEntry) -> bool:
    """Return whether a pair has captions, all of them without text."""
    return isinstance(entry, RawPair) and bool(entry.captions) and not any(map(str.strip, entry.captions))


def read_row(pair: RawPair) -> dict[str, Any]:
    """Return the row of a pair with its images. Raises: DataError that names the pair and the image."""
    try:
        images = read_image(pair.before)[0], read_image(pair.after)[0]
    except DataError as error:
        raise DataError(f"pair {pair.pair_id!r}: {error}") from error
    return pair_row(pair.pair_id, *images, pair.captions, pair.change_type, pair.provenance)
