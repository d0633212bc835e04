"""The one row that every benchmark yields, its change types, and the pair as its authors distribute it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets

NO_CHANGE = "none"
# The values of `change_type`; "" means unknown. A benchmark's own finer labels go into provenance.
CHANGE_TYPES: dict[str, str] = {
    NO_CHANGE: "nothing changed, also if view or light moved",
    "add": "something appeared",
    "remove": "something disappeared",
    "move": "something is in another place",
    "color": "something has another color",
    "material": "something is of another material",
    "text": "written text changed",
    "background": "what surrounds the main thing changed",
    "style": "the picture is drawn or rendered in another style",
    "global": "the whole picture changed, e.g. weather, season or time of day",
}
# Sentences of CLEVR-Change, CLEVR-DC and LEVIR-CC for unchanged pairs, in all their spellings.
NO_CHANGE_SENTENCES = {
    "the scene remains the same",
    "the scene is the same as before",
    "the two scenes seem identical",
    "nothing has changed",
    "almost nothing has changed",
    "nothing was modified",
    "no change was made",
    "no change has occured",
    "no change has occurred",
    "there is no change",
    "there is no difference",
}
FEATURES = datasets.Features(
    {
        "pair_id": datasets.Value("string"),
        "before": datasets.Image(),
        "after": datasets.Image(),
        "captions": datasets.List(datasets.Value("string")),
        "change_type": datasets.Value("string"),  # a key of CHANGE_TYPES, or ""
        "provenance": datasets.Value("string"),  # JSON of how a pair was made; empty for hand-made sets
    }
)

ImageSource = Path | tuple[str, bytes]  # a file, or the name and content of one that lies inside another


class DataError(ValueError):
    """Missing or broken files; the message names them and says what to do."""


@dataclass(frozen=True)
class RawPair:
    """A pair as its authors distribute it, before its image files are read.

    Raises: DataError for a change type outside CHANGE_TYPES, or a text that is not valid Unicode.
    """

    pair_id: str
    before: ImageSource
    after: ImageSource
    captions: list[str]
    change_type: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_change_type(self.change_type, self.pair_id)
        names = (source[0] if isinstance(source, tuple) else source.name for source in (self.before, self.after))
        try:  # JSON can spell half of a surrogate pair, which no file can contain
            "".join((self.pair_id, *names, *self.captions)).encode()
        except UnicodeEncodeError as error:
            raise DataError(f"pair {self.pair_id!r}: a text is not valid Unicode ({error})") from error


@dataclass(frozen=True)
class BrokenEntry:
    """An annotation that could not be read, in place of its pair."""

    error: DataError
    pair_id: str = ""  # if it is known


def check_change_type(change_type: str, pair_id: str) -> None:
    """Raise DataError for a value outside CHANGE_TYPES and not ""."""
    if change_type and change_type not in CHANGE_TYPES:
        raise DataError(
            f"pair {pair_id!r}: unknown change_type {change_type!r}: use one of {', '.join(CHANGE_TYPES)}, or leave "
            "it out and put your own label into provenance"
        )


def says_no_change(sentence: str) -> bool:
    """Return whether a sentence is one of NO_CHANGE_SENTENCES, whatever its case and final dot."""
    return sentence.lower().strip(" .") in NO_CHANGE_SENTENCES


def no_change_or_unknown(captions: list[str]) -> str:
    """Return the change type of a pair that has no other label: `none` if all captions deny a change, else ""."""
    return NO_CHANGE if captions and all(map(says_no_change, captions)) else ""


def image_bytes(name: str, data: bytes) -> dict[str, Any]:
    """Return an image as rows contain it: the raw file under its base name, without a path of this machine."""
    return {"path": name, "bytes": data}


def decode_image(data: bytes) -> Any:
    """Return the image as the network sees it: RGB, upright, over white.

    Raises: ImageError (a ValueError) for what cannot be read.
    """
    from modeling_blip2idc.image_fusion import load_image  # the one decoder; it needs torch, which takes seconds

    return load_image(data)


def read_image(source: ImageSource) -> dict[str, Any]:
    """Return the raw file of an image that the network can read.

    Raises: DataError that names it.
    """
    name, data = source if isinstance(source, tuple) else (source.name, None)
    shown = repr(str(source) if data is None else name)
    try:
        data = source.read_bytes() if data is None else data
        decode_image(data)
    except FileNotFoundError as error:
        raise DataError(f"image {shown} is missing") from error
    except (OSError, ValueError) as error:
        raise DataError(f"image {shown} cannot be read ({error})") from error
    return image_bytes(name, data)


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
    """Raise DataError if a pair has no caption, or one without text."""
    if not pair.captions or not all(caption.strip() for caption in pair.captions):
        raise DataError(f"pair {pair.pair_id!r} has no caption, or one without text: {pair.captions}")


def is_blank(entry: RawPair | BrokenEntry) -> bool:
    """Return whether a pair has captions, all of them without text."""
    return isinstance(entry, RawPair) and bool(entry.captions) and not any(map(str.strip, entry.captions))


def read_row(pair: RawPair) -> dict[str, Any]:
    """Return the row of a pair, with its images read.

    Raises: DataError that names the pair and the image.
    """
    try:
        images = read_image(pair.before), read_image(pair.after)
    except DataError as error:
        raise DataError(f"pair {pair.pair_id!r}: {error}") from error
    return pair_row(pair.pair_id, *images, pair.captions, pair.change_type, pair.provenance)
