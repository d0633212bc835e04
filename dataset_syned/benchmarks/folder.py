"""folder: anyone's own pairs, in one of two layouts.

    metadata.jsonl   {"before_file_name": "a.png", "after_file_name": "b.png", "captions": ["the car left", ..]}
                     and, if wanted, "pair_id", "kind", "provenance" (an object); or metadata.csv, without the last
    before/ after/   with equal file names, and captions.json {"a.png": ["the car left", ..]};
                     or captions.csv with the columns file_name, captions

In CSV, a cell of `captions` is one caption, with further rows for those that follow, or a JSON list of all. These
files lie in train/, validation/ and test/; without such folders, right in the data folder, and all pairs are `train`.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

from ..pair_builder import DataError, PairBuilder, RawPair, inside, read_json

SPLITS = ("train", "validation", "test")
ANNOTATIONS = ("metadata.jsonl", "metadata.csv", "captions.json", "captions.csv")

Row = dict[str, Any]
Place = str  # of an entry: file and line, for messages


def annotations(folder: Path) -> Path | None:
    return next((folder / name for name in ANNOTATIONS if (folder / name).is_file()), None)


def field(row: Row, name: str, place: Place) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place}: no text in field {name!r}")
    return value


def optional(row: Row, name: str, place: Place) -> str:
    value = row.get(name)
    if value is None or value == "":
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{place}: {name}={value!r}, which should be a text")
    return str(value)


def checked_captions(captions: Any, pair_id: str, place: Place) -> list[str]:
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise DataError(f"{place}: captions of pair {pair_id!r} should be a list of texts")
    return captions


def read_lines(path: Path) -> Iterator[tuple[Place, int, Row]]:
    """Entries of a JSON-lines file, one at a time: memory does not grow with it."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            place = f"{str(path)!r}, line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{place}: no JSON ({error})") from error
            if not isinstance(row, dict):
                raise DataError(f"{place}: no JSON object")
            yield place, number, row


def read_csv(path: Path, required: tuple[str, ...]) -> Iterator[tuple[Place, int, Row]]:
    """Rows of a CSV file, `captions` as a list."""
    with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets write a byte order mark
        reader = csv.DictReader(file, strict=True)
        try:
            absent = [name for name in required if name not in (reader.fieldnames or [])]
            if absent:
                raise DataError(f"{str(path)!r}, line 1: no column {absent[0]!r}")
            for row in reader:
                place = f"{str(path)!r}, line {reader.line_num}"
                if None in row:
                    raise DataError(f"{place}: more cells than the header has, put captions with commas in quotes")
                yield place, reader.line_num, {**row, "captions": cell_captions(row["captions"], place)}
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{str(path)!r}, line {reader.line_num + 1}: no CSV in UTF-8 ({error})") from error


def cell_captions(cell: str | None, place: Place) -> list[str]:
    if not (cell or "").lstrip().startswith("["):
        return [cell or ""]
    try:
        return json.loads(cell)
    except ValueError as error:
        raise DataError(f"{place}: captions begin with '[' and are no JSON list ({error})") from error


def merged(rows: Iterator[tuple[Place, int, Row]]) -> Iterator[tuple[Place, int, Row]]:
    """One row per pair, with the captions of all its rows in their order."""
    pairs: dict[Any, tuple[Place, int, Row]] = {}
    for place, number, row in rows:
        names = {name: value for name, value in row.items() if name != "captions"}
        key = row.get("pair_id") or (row.get("before_file_name"), row.get("after_file_name"), row.get("file_name"))
        first_place, _, first = pairs.setdefault(key, (place, number, {**names, "captions": []}))
        if any(first.get(name) != value for name, value in names.items()):
            raise DataError(f"{place}: the same pair as in {first_place}, but not the same fields")
        first["captions"] += row["captions"]
    yield from pairs.values()


def metadata_pairs(path: Path, split: str) -> Iterator[RawPair]:
    required = ("before_file_name", "after_file_name", "captions")
    seen: set[int] = set()  # hashes, not ids: about 4 MiB for 60,000 of them
    for place, number, row in read_lines(path) if path.suffix == ".jsonl" else merged(read_csv(path, required)):
        names = field(row, "before_file_name", place), field(row, "after_file_name", place)
        given = optional(row, "pair_id", place)
        if given and hash(given) in seen:
            raise DataError(f"{place}: pair_id {given!r} for a second time")
        if given:
            seen.add(hash(given))
        pair_id = given or f"{split}-{number:06d}"  # by its line, which is unique and easy to find
        captions = checked_captions(row.get("captions"), pair_id, place)
        before, after = (inside(path.parent, name) for name in names)
        provenance = row.get("provenance") or {}
        if not isinstance(provenance, dict):
            raise DataError(f"{place}: provenance={provenance!r}, which should be an object")
        yield RawPair(pair_id, before, after, captions, optional(row, "kind", place), provenance)


def sibling_pairs(path: Path) -> Iterator[RawPair]:
    for place, name, captions in read_captions(path):
        before, after = inside(path.parent / "before", name), inside(path.parent / "after", name)
        yield RawPair(name, before, after, checked_captions(captions, name, place))


def read_captions(path: Path) -> Iterator[tuple[Place, str, Any]]:
    """Place, file name and captions of each pair of equal file names."""
    if path.suffix == ".csv":
        for place, _, row in merged(read_csv(path, ("file_name", "captions"))):
            yield place, field(row, "file_name", place), row["captions"]
        return
    captions = read_json(path)
    if not isinstance(captions, dict):
        raise DataError(f"{str(path)!r} is no object of file name -> captions")
    for name, texts in captions.items():
        yield repr(str(path)), name, texts


class Folder(PairBuilder):
    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIGS = [datasets.BuilderConfig(name="default", version=VERSION)]
    DEFAULT_CONFIG_NAME = "default"
    DESCRIPTION = "Your own pairs: a folder of images with a file that names them and their captions."
    BY_HAND = (
        "Put there, or into its folders train/, validation/ and test/: metadata.jsonl or metadata.csv with "
        "before_file_name, after_file_name and captions; or the folders before/ and after/ with equal file names, and "
        "captions.json {file name: [captions]} or captions.csv (file_name, captions)."
    )

    def raw_splits(self) -> list[str]:
        folders = [split for split in SPLITS if (self.root / split).is_dir()]
        splits = [split for split in folders if annotations(self.root / split)]
        if not splits and annotations(self.root):
            return ["train"]
        if not splits:
            raise self.missing(f"a file of annotations ({', '.join(ANNOTATIONS)})")
        if splits != folders:  # rather than a data set that silently has no such split
            without = next(split for split in folders if split not in splits)
            raise self.missing(f"a file of annotations in {without}/ ({', '.join(ANNOTATIONS)})")
        return splits

    def raw_pairs(self, split: str) -> Iterator[RawPair]:
        path = annotations(self.root / split) or annotations(self.root)
        if path is None:
            raise self.missing(f"a file of annotations for {split}")
        return metadata_pairs(path, split) if path.stem == "metadata" else sibling_pairs(path)
