"""Read authors' annotation files, JSON and JSON lines, entry by entry; a broken entry is named, not fatal."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from .pairs import BrokenEntry, DataError

Entry = TypeVar("Entry")
Made = TypeVar("Made")


def inside(root: Path, name: str) -> Path:
    """Return the file `name` of a data folder.

    Raises: DataError if the name leads out of the folder.
    """
    # By the name alone: asking the file system takes longer than reading the annotation, and links may leave.
    normal = os.path.normpath(name)
    if os.path.isabs(normal) or normal.split(os.sep)[0] == "..":
        raise DataError(f"the name {name!r} leads out of the folder {str(root)!r}: correct it in the annotations")
    return root / name


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises: DataError for a missing file, or one that is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{str(path)!r} is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{str(path)!r} cannot be read as JSON ({error})") from error


def read_each(
    entries: Iterable[tuple[str, Entry] | BrokenEntry], read: Callable[[Entry], Made]
) -> Iterator[Made | BrokenEntry]:
    """Yield what `read` returns for each entry, and a BrokenEntry that names the place for each broken one.

    Args:
        entries: (place, entry), the place for messages; broken entries are passed on.
    """
    for entry in entries:
        if isinstance(entry, BrokenEntry):
            yield entry
            continue
        try:
            made = read(entry[1])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            made = BrokenEntry(DataError(f"{entry[0]}: {describe_fault(error)}"))
        yield made


def describe_fault(error: Exception) -> str:
    """Return what is wrong with an entry whose reading raised `error`."""
    if isinstance(error, KeyError):
        return f"no field {error}"
    return f"a field has a wrong type ({error})" if isinstance(error, (TypeError, AttributeError)) else str(error)


def by_split(
    entries: Iterable[tuple[str, Any] | BrokenEntry], names: dict[str, str]
) -> dict[str, list[tuple[str, Any] | BrokenEntry]]:
    """Return entries by our name of the split in their field `split`; broken ones go to the first split.

    Args:
        names: our name of a split -> the authors'.

    Raises: DataError if all entries are broken.
    """
    parts: dict[str, list[tuple[str, Any] | BrokenEntry]] = {ours: [] for ours in names}
    ours_of = {theirs: ours for ours, theirs in names.items()}
    faults: list[BrokenEntry] = []
    for entry in entries:
        if isinstance(entry, BrokenEntry):
            faults.append(entry)
            continue
        place, fields = entry
        split = fields.get("split") if isinstance(fields, dict) else None
        if isinstance(split, str) and split in ours_of:
            parts[ours_of[split]].append(entry)
        else:
            faults.append(
                BrokenEntry(DataError(f"{place}: split={split!r}, which should be one of {', '.join(ours_of)}"))
            )
    found = {split: part for split, part in parts.items() if part}
    if faults and not found:
        raise faults[0].error
    for split in list(found)[:1]:
        found[split] = faults + found[split]
    return found


def numbered_lines(path: Path) -> Iterator[tuple[str, tuple[int, bytes]]]:
    """Yield (place, (number, line)) of all lines that are not blank; memory does not grow with the file."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"{str(path)!r}, line {number}", (number, line)


def json_object(line: bytes) -> dict[str, Any]:
    """Return the object on a line of JSON.

    Raises: DataError.
    """
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError("not a JSON object")
    return content
