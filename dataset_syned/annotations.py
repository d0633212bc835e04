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
    """The file `name` of a data folder. Raises: DataError if the name leads out of the folder."""
    # By the name alone: asking the file system takes longer than reading the annotation, and links may leave.
    normal = os.path.normpath(name)
    if os.path.isabs(normal) or normal.split(os.sep)[0] == "..":
        raise DataError(f"the name {name!r} leads out of the folder {str(root)!r}: correct it in the annotations")
    return root / name


def read_json(path: Path) -> Any:
    """Raises: DataError for a file that is missing or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{str(path)!r} is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{str(path)!r} cannot be read as JSON ({error})") from error


def read_each(
    entries: Iterable[tuple[str, Entry] | BrokenEntry], read: Callable[[Entry], Made]
) -> Iterator[Made | BrokenEntry]:
    """What `read` makes of each entry, and a BrokenEntry that names the place for each entry that is broken.

    Args:
        entries: (place, entry), the place for messages; faults are passed on.
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
    if isinstance(error, KeyError):
        return f"no field {error}"
    return f"a field has a wrong type ({error})" if isinstance(error, (TypeError, AttributeError)) else str(error)


def by_split(
    entries: Iterable[tuple[str, Any] | BrokenEntry], names: dict[str, str]
) -> dict[str, list[tuple[str, Any] | BrokenEntry]]:
    """Our name of a split -> its entries, by their field `split`. Faults, whose split nobody knows, go to the first.

    Args:
        names: the authors' name of a split -> ours.

    Raises: DataError where there are faults and nothing else.
    """
    parts: dict[str, list[tuple[str, Any] | BrokenEntry]] = {ours: [] for ours in names.values()}
    faults: list[BrokenEntry] = []
    for entry in entries:
        if isinstance(entry, BrokenEntry):
            faults.append(entry)
            continue
        place, fields = entry
        split = fields.get("split") if isinstance(fields, dict) else None
        if isinstance(split, str) and split in names:
            parts[names[split]].append(entry)
        else:
            faults.append(
                BrokenEntry(DataError(f"{place}: split={split!r}, which should be one of {', '.join(names)}"))
            )
    found = {split: part for split, part in parts.items() if part}
    if faults and not found:
        raise faults[0].error
    for split in list(found)[:1]:
        found[split] = faults + found[split]
    return found


def numbered_lines(path: Path) -> Iterator[tuple[str, tuple[int, bytes]]]:
    """(place, (number, line)) of all lines that are not blank, one at a time: memory does not grow with the file."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"{str(path)!r}, line {number}", (number, line)


def json_object(line: bytes) -> dict[str, Any]:
    """Raises: DataError."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"no JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError("no JSON object")
    return content
