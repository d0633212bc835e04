"""Pairs in files of trainers of vision-language models: two images and a conversation whose end is the caption."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .annotations import Result, first_field, json_object, numbered_lines, read_each, read_json, required_text
from .pairs import BrokenEntry, DataError

SPEAKERS = ("assistant", "gpt")  # of an answer, in ShareGPT's form and in LLaVA's


def answer(entry: dict[str, Any]) -> str:
    """Return the last answer of an entry's conversation.

    Args:
        entry: with `messages` of {"role", "content"}, or with `conversations` of {"from", "value"}.

    Raises: DataError if there is none, or it has no text.
    """
    turns = first_field(entry, "messages", "conversations")
    last = turns[-1] if isinstance(turns, list) and turns else {}
    if not isinstance(last, dict) or first_field(last, "role", "from") not in SPEAKERS:
        raise DataError(f"its conversation ends with {last!r}, not with an answer of {' or '.join(SPEAKERS)}")
    return required_text(first_field(last, "content", "value"), "answer")


def image_names(entry: dict[str, Any]) -> tuple[str, str]:
    """Return the file names of both images of an entry. Raises: DataError unless there are two."""
    names = first_field(entry, "images", "image")
    if not isinstance(names, list) or len(names) != 2 or not all(isinstance(name, str) for name in names):
        raise DataError(f"images are {names!r}, expected the names of two")
    return names[0], names[1]


def sentences(text: str) -> list[str]:
    """Return the sentences of a text of which each ends with a full stop and a blank."""
    return [f"{sentence.removesuffix('.')}." for sentence in text.split(". ")]


def read_conversations(path: Path, read: Callable[[dict[str, Any]], Result]) -> Iterator[Result | BrokenEntry]:
    """Yield what `read` returns for each entry of a file, or a BrokenEntry that names its place.

    Args:
        path: a list in a .json file, or JSON lines (.jsonl), which are read one at a time.
    """
    if path.suffix == ".jsonl":
        return read_each(numbered_lines(path), lambda entry: read(json_object(entry[1])))

    def read_object(entry: Any) -> Result:
        if not isinstance(entry, dict):
            raise DataError("not a JSON object")
        return read(entry)

    return read_each(
        ((f"{str(path)!r}, item {n}", entry) for n, entry in enumerate(read_json(path, list))), read_object
    )
