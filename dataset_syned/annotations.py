"""Read authors' annotation files entry by entry; a broken entry is named, not fatal."""

import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypeVar

import pyarrow

from common_idc.strict_json import parse_json

from .pairs import BrokenEntry, DataError, require_file

Entry = TypeVar("Entry")
Result = TypeVar("Result")
Located = tuple[str, Entry]  # an entry and its place, e.g. "'train.json', item 3", for messages

# Sentences by which annotators say that two images show no difference, in CLEVR-Change, LEVIR-CC and Spot-the-Diff.
NO_CHANGE_SENTENCES = frozenset(
    {
        "the scene remains the same",
        "the scene is the same as before",
        "the two scenes seem identical",
        "nothing has changed",
        "nothing changed",
        "nothing was modified",
        "no change was made",
        "no change has occured",
        "no change has occurred",
        "almost nothing has changed",
        "there is no change",
        "there is no difference",
        "there are no differences",
        "there is no difference between the two pictures",
        "there is no difference between the two images",
        "there is no difference between the images",
        "there are no differences between the two images",
        "there are no differences in the pictures",
        "i see no differences between the two images",
        "i do not see any differences",
        "no change",
        "no changes",
        "no difference",
        "no differences",
        "both images are identical",
        "these images are the same",
    }
)


NO_CHANGE_CAPTION = "there is no difference between the two images"  # of unchanged pairs without a sentence


def say_no_change(captions: list[str]) -> bool:
    """Return whether every caption is one of NO_CHANGE_SENTENCES, whatever its case and its final full stop."""
    return bool(captions) and all(text.lower().strip(" .\n") in NO_CHANGE_SENTENCES for text in captions)


def inside(root: Path, name: str) -> Path:
    """Return the file `name` of a data folder, relative to it or absolute.

    Raises: DataError if the name leads out of the folder.
    """
    # By the name alone: asking the file system takes longer than reading the annotation, and links may leave.
    normal = os.path.normpath(name)
    if os.path.isabs(normal):  # below the folder, or below what a link to the folder leads to
        leads_out = not any(Path(normal).is_relative_to(folder) for folder in (os.path.abspath(root), root.resolve()))
    else:
        leads_out = normal.split(os.sep)[0] == ".."
    if leads_out:
        raise DataError(f"the name {name!r} leads out of the folder {str(root)!r}: correct it in the annotations")
    return root / name


@contextmanager
def open_binary(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading. Raises: DataError that names it if it is missing or cannot be read."""
    try:
        with require_file(path).open("rb") as file:
            yield file
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read ({error})") from error


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file in UTF-8, with or without a byte order mark; line ends stay as they are.

    Raises: DataError that names it if it is missing or cannot be read.
    """
    with open_binary(path) as file:
        yield io.TextIOWrapper(file, encoding="utf-8-sig", newline="")


@contextmanager
def reading_parquet(path: Path) -> Iterator[None]:
    """Raise DataError that names a Parquet file if it is missing, or if the block cannot read it."""
    try:
        require_file(path)
        yield
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{str(path)!r} cannot be read as Parquet ({error})") from error


def read_json(path: Path, kind: type | None = None) -> Any:
    """Return the content of a JSON file.

    Args:
        kind: list or dict, if the content has to be one.

    Raises: DataError if the file is missing, not JSON, has a repeated key, or contains something else than `kind`.
    """
    with open_text(path) as file:
        try:
            content = parse_json(file.read())
        except ValueError as error:
            raise DataError(f"{str(path)!r} cannot be read as JSON ({error})") from error
    if kind and not isinstance(content, kind):
        expected = "a list" if kind is list else "a JSON object"
        raise DataError(f"{str(path)!r} contains a {type(content).__name__}, expected {expected}")
    return content


def check_columns(path: Path, header: list[str], required: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Raise DataError if the header of a table lacks a required column, or repeats a column that is read."""
    for name in required:
        if name not in header:
            raise DataError(f"{str(path)!r}, line 1: no column {name!r}")
    for name in (*required, *optional):
        if header.count(name) > 1:
            raise DataError(f"{str(path)!r}, line 1: the column {name!r} is given {header.count(name)} times")


def are_texts(value: Any) -> bool:
    """Return whether a value is a list of strings."""
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def read_each(
    entries: Iterable[Located | BrokenEntry], read: Callable[[Any], Result]
) -> Iterator[Result | BrokenEntry]:
    """Yield what `read` returns for each entry, or a BrokenEntry that names its place.

    Args:
        entries: with their places; broken ones are passed on.
    """
    for entry in entries:
        if isinstance(entry, BrokenEntry):
            yield entry
            continue
        place, content = entry
        try:
            result = read(content)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            result = BrokenEntry(DataError(f"{place}: {describe_problem(error)}"))
        yield result


def first_field(entry: dict[str, Any], *names: str) -> Any:
    """Return the value of the first of `names` that an entry has.

    Raises: DataError that names the first of them, and the fields that there are.
    """
    for name in names:
        if name in entry:
            return entry[name]
    others = f" (or {', '.join(map(repr, names[1:]))})" if names[1:] else ""
    raise DataError(f"no field {names[0]!r}{others}, it has: {', '.join(entry) or 'none'}")


def required_text(value: Any, field: str) -> str:
    """Return the text of a field without outer blanks. Raises: DataError if there is none."""
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"no text in {field!r}")
    return value.strip()


def describe_problem(error: Exception) -> str:
    """Return what is wrong with an annotation, given the error of reading it."""
    if isinstance(error, KeyError):
        return f"no field {error}"
    return f"a field has a wrong type ({error})" if isinstance(error, (TypeError, AttributeError)) else str(error)


def by_split(
    entries: Iterable[Located | BrokenEntry], names: dict[str, str]
) -> dict[str, list[Located | BrokenEntry]]:
    """Return the entries of each split by their field `split`; broken ones, of unknown split, are in the first.

    Args:
        names: our name of a split -> the authors'.

    Raises: DataError if all entries are broken.
    """
    ours_of = {theirs: ours for ours, theirs in names.items()}
    parts: dict[str, list[Located | BrokenEntry]] = {ours: [] for ours in names}
    broken: list[BrokenEntry] = []
    for entry in entries:
        if isinstance(entry, BrokenEntry):
            broken.append(entry)
            continue
        place, fields = entry
        split = fields.get("split") if isinstance(fields, dict) else None
        if isinstance(split, str) and split in ours_of:
            parts[ours_of[split]].append(entry)
        else:
            broken.append(BrokenEntry(DataError(f"{place}: split={split!r}, use one of {', '.join(ours_of)}")))
    found = {split: part for split, part in parts.items() if part}
    if broken and not found:
        raise broken[0].error
    for split in list(found)[:1]:
        found[split] = broken + found[split]
    return found


def numbered_lines(path: Path) -> Iterator[tuple[str, tuple[int, bytes]]]:
    """Yield (place, (number, line)) of all lines that are not blank, one at a time, in constant memory."""
    with open_binary(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"{str(path)!r}, line {number}", (number, line)


def json_object(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line. Raises: DataError if there is none, or one with a repeated key."""
    try:
        content = parse_json(line)
    except ValueError as error:
        raise DataError(f"not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError("not a JSON object")
    return content
