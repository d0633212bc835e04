"""folder: anyone's own pairs, in one of two layouts.

    python -m dataset_syned prepare folder --data_dir my_pairs

    metadata.jsonl   {"before_file_name": "a.png", "after_file_name": "b.png", "captions": ["the car left", ..]}
                     with the optional fields "pair_id", "change_type" and "provenance" (an object);
                     or metadata.csv with the same columns, without provenance
    before/ after/   with equal file names, and captions.json {"a.png": ["the car left", ..]};
                     or captions.csv with the columns file_name, captions

In CSV, a cell of `captions` is one caption, with further rows for more captions, or a JSON list of all. The files are
in train/, validation/ and test/; without such folders they are in the data folder itself, and all pairs are `train`.
Images are named relative to the folder of metadata.*, or absolute, and are anywhere in the data folder.
A change type that is not in `pairs.CHANGE_TYPES` goes into provenance, and the row's change type is empty.
"""

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..annotations import (
    are_texts,
    check_columns,
    inside,
    json_object,
    numbered_lines,
    open_text,
    read_each,
    read_json,
)
from ..pair_builder import PairBuilder
from ..pairs import CHANGE_TYPES, BrokenEntry, DataError, RawPair

FOLDERS = ("train", "validation", "test")
ANNOTATIONS = ("metadata.jsonl", "metadata.csv", "captions.json", "captions.csv")

Row = dict[str, Any]
Numbered = tuple[int, Row]  # by the line in its file


def annotations(folder: Path) -> Path | None:
    """Return the file of annotations in a folder."""
    return next((folder / name for name in ANNOTATIONS if (folder / name).exists()), None)


def field(row: Row, name: str) -> str:
    """Return a text that a row must have. Raises: DataError if it has none."""
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"no text in field {name!r}")
    return value


def optional(row: Row, name: str) -> str:
    """Return a text that a row may have, or "". Raises: DataError for a value of another type."""
    value = row.get(name)
    if value is None or value == "":
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{name}={value!r} is not a text")
    return str(value)


def checked_captions(captions: Any, pair_id: str) -> list[str]:
    """Return the captions. Raises: DataError if they are not a list of texts."""
    if not are_texts(captions):
        raise DataError(f"captions of pair {pair_id!r} are not a list of texts")
    return captions


def read_csv(path: Path, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> Iterator[tuple[str, Numbered]]:
    """Yield the place and the row of each line of a CSV file; other columns, e.g. pandas' index, are left out."""
    with open_text(path) as file:
        reader = csv.DictReader(file, strict=True)
        try:
            check_columns(path, reader.fieldnames or [], required, optional)
            read = {*required, *optional, None}  # None: cells without a column
            for cells in reader:
                row = {name: cell for name, cell in cells.items() if name in read}
                yield f"{str(path)!r}, line {reader.line_num}", (reader.line_num, row)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{str(path)!r}, line {reader.line_num + 1}: not CSV in UTF-8 ({error})") from error


def cell_captions(cell: str | None) -> list[str]:
    """Return the captions in a CSV cell: a JSON list, or one caption."""
    if not (cell or "").lstrip().startswith("["):
        return [cell or ""]
    try:
        return json.loads(cell)
    except ValueError as error:
        raise DataError(f"captions begin with '[' but are not a JSON list ({error})") from error


def merged(rows: Iterator[tuple[str, Numbered]]) -> Iterator[tuple[str, Numbered] | BrokenEntry]:
    """Yield one row per pair, with the captions of all its rows in their order, as a list."""
    pairs: dict[Any, tuple[str, Numbered]] = {}

    def add(entry: tuple[str, Numbered]) -> None:
        place, (number, row) = entry
        if None in row:
            raise DataError("more cells than the header has: put captions with commas in quotes")
        captions = cell_captions(row["captions"])
        fields = {name: value for name, value in row.items() if name != "captions"}
        key = row.get("pair_id") or (row.get("before_file_name"), row.get("after_file_name"), row.get("file_name"))
        first_place, (_, first) = pairs.setdefault(key, (place, (number, {**fields, "captions": []})))
        for name, value in fields.items():
            if first[name] != value:
                raise DataError(f"the same pair as in {first_place}, but {name} is {value!r} and not {first[name]!r}")
        first["captions"] += captions

    yield from filter(
        None, read_each(((row[0], row) for row in rows), add)
    )  # only broken entries: `add` returns nothing
    yield from pairs.values()


def own_change_type(row: Row) -> str:
    """Return a row's change type if it is not in CHANGE_TYPES, else ""."""
    change_type = optional(row, "change_type")
    return "" if change_type in CHANGE_TYPES else change_type


def metadata_pairs(path: Path, split: str, root: Path) -> Iterator[RawPair | BrokenEntry]:
    """Yield the pairs of metadata.jsonl or metadata.csv, whose images are anywhere in the data folder `root`."""
    folder = "" if path.parent == root else path.parent.name

    def read(numbered: Numbered) -> RawPair:
        number, row = numbered
        names = field(row, "before_file_name"), field(row, "after_file_name")
        # without an id, the line: it is unique and easy to find
        pair_id = optional(row, "pair_id") or f"{split}-{number:06d}"
        before, after = (inside(root, os.path.join(folder, name)) for name in names)
        provenance = row.get("provenance") or {}
        if not isinstance(provenance, dict):
            raise DataError(f"provenance={provenance!r} is not an object")
        captions, own = checked_captions(row.get("captions"), pair_id), own_change_type(row)
        if own:
            return RawPair(pair_id, before, after, captions, provenance={**provenance, "change_type": own})
        return RawPair(pair_id, before, after, captions, optional(row, "change_type"), provenance)

    if path.suffix == ".jsonl":
        return read_each(numbered_lines(path), lambda line: read((line[0], json_object(line[1]))))
    required = ("before_file_name", "after_file_name", "captions")
    return read_each(merged(read_csv(path, required, ("pair_id", "change_type", "provenance"))), read)


def sibling_pairs(path: Path) -> Iterator[RawPair | BrokenEntry]:
    """Yield the pairs of captions.json or captions.csv, with the images in before/ and after/."""

    def read(entry: tuple[str, Any]) -> RawPair:
        name, captions = entry
        before, after = inside(path.parent / "before", name), inside(path.parent / "after", name)
        return RawPair(name, before, after, checked_captions(captions, name))

    if path.suffix == ".csv":
        rows = merged(read_csv(path, ("file_name", "captions")))
        return read_each(rows, lambda numbered: read((field(numbered[1], "file_name"), numbered[1]["captions"])))
    captions = read_json(path, dict)
    return read_each(((repr(str(path)), entry) for entry in captions.items()), read)


class Folder(PairBuilder):
    OWN_PAIRS = True
    DESCRIPTION = "Your own pairs: a folder of images with a file that names them and their captions."
    BY_HAND = (
        "Put there, or into its folders train/, validation/ and test/: metadata.jsonl or metadata.csv with "
        "before_file_name, after_file_name and captions; or the folders before/ and after/ with equal file names, and "
        "captions.json {file name: [captions]} or captions.csv (file_name, captions)."
    )

    def raw_splits(self) -> list[str]:
        folders = [split for split in FOLDERS if (self.root / split).is_dir()]
        splits = [split for split in folders if annotations(self.root / split)]
        if not splits and annotations(self.root):
            return ["train"]
        if not splits:
            raise self.missing(f"a file of annotations ({', '.join(ANNOTATIONS)})")
        if splits != folders:  # rather than silently leave out a split
            without = next(split for split in folders if split not in splits)
            raise self.missing(f"a file of annotations in {without}/ ({', '.join(ANNOTATIONS)})")
        return splits

    def notes(self) -> list[str]:
        """Return a line that names the change types which are not in CHANGE_TYPES."""
        pairs = (pair for split in self.raw_splits() for pair in self.unique_entries(split))
        own = Counter(
            pair.provenance["change_type"]
            for pair in pairs
            if isinstance(pair, RawPair) and not pair.change_type and "change_type" in pair.provenance
        )
        if not own:
            return []
        counts = ", ".join(f"{change_type!r} {count}" for change_type, count in own.items())
        return [
            f"unknown change types, kept in provenance only: {counts}; "
            f"for scores per change type use one of: {', '.join(CHANGE_TYPES)}"
        ]

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        path = annotations(self.root / split) or annotations(self.root)
        if path is None:
            raise self.missing(f"a file of annotations for {split}")
        return metadata_pairs(path, split, self.root) if path.stem == "metadata" else sibling_pairs(path)
