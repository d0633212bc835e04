"""Lists of pairs of any size: a table (.csv, .jsonl, .parquet) or a folder, read entry by entry.

    pairs = read_pairs(Path("pairs.csv"))   # columns before, after and optionally pair_id
    read_pairs(Path("data"))                # data/before/1.png and data/after/1.png, or Parquet files
    for entry in pairs.entries(): ...

An entry that is no pair has the reason in `error`, so that one bad line ends no run over a million.
"""

import csv
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from common_idc.strict_json import parse_json

COLUMNS = ("pair_id", "before", "after")
SIDES = ("before", "after")
FOLDERS = (SIDES, ("A", "B"))  # names of two sibling folders of images
PARQUET_ROWS = 16  # in memory at a time
IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

Wanted = Callable[[int], bool]


class PairListError(ValueError):
    """A mistake in a list of pairs, or an output that cannot be written; the message names the file."""


@dataclass(frozen=True)
class Entry:
    """An entry of a list of pairs.

    Args:
        number: of the entry, from 0.
        pair_id: its own, or the number.
        before, after: as the list names them; None where it does not.
        where: file and line, for messages.
        images: what the two images are loaded from: paths, or what `datasets` stores; None for no pair.
        error: why this is no pair; None if it is one.
    """

    number: int
    pair_id: str
    before: str | None
    after: str | None
    where: str
    images: tuple[Any, Any] | None = None
    error: str | None = None

    def state(self) -> str | None:
        """Return a text that changes if the images do; None if one of them does not exist."""
        values: list[Any] = [self.pair_id, self.before, self.after]
        for image in self.images or ():
            if isinstance(image, Path):
                try:
                    file = image.stat()
                except (OSError, ValueError):  # ValueError: a NUL in the path
                    return None
                values += [file.st_size, file.st_mtime_ns]
        return json.dumps(values)


@dataclass(frozen=True)
class PairList:
    """A list of pairs that is read again for each use, so that its size does not matter.

    Args:
        path: file or folder.
        count: its entries.
        read: (number -> whether it is wanted) -> the wanted entries, in their order.
        state: changes if the file that contains the images does; "" if they are files of their own.
    """

    path: Path
    count: int
    read: Callable[[Wanted], Iterator[Entry]]
    state: str = ""

    def entries(self, wanted: Wanted = lambda number: True) -> Iterator[Entry]:
        """Yield the wanted entries; each call reads the list once."""
        return self.read(wanted)


def read_pairs(path: Path) -> PairList:
    """Return the pairs of a .csv, .jsonl or .parquet file, or of a folder.

    A folder contains two folders of images, before and after (or A and B), in which the images of a pair have the same
    name, or Parquet files.

    Raises: PairListError for a file or folder that is not such a list, or that has no pairs.
    """
    if not path.exists():
        raise PairListError(f"{path} does not exist; check the path of --pairs.")
    readers = {".csv": _csv_pairs, ".jsonl": _jsonl_pairs, ".parquet": _parquet_file}
    if not path.is_dir() and path.suffix.lower() not in readers:
        raise PairListError(
            f"{path}: pairs are read from .csv, .jsonl or .parquet files or a folder; rename or convert this one."
        )
    try:
        pairs = _folder_pairs(path) if path.is_dir() else readers[path.suffix.lower()](path)
    except (OSError, UnicodeDecodeError) as error:
        raise PairListError(f"{path} cannot be read ({error}); save it as UTF-8 text.") from error
    except csv.Error as error:
        raise PairListError(f"{path} is not a CSV file ({error}); check its quotation marks.") from error
    if not pairs.count:
        raise PairListError(f"{path} contains no pairs; write one per line, with before and after.")
    return pairs


def _csv_pairs(path: Path) -> PairList:
    with path.open(encoding="utf-8-sig", newline="") as file:
        entries = sum(1 for _ in _csv_reader(path, file))
    return PairList(path, entries, lambda wanted: _table_entries(path, _csv_rows, wanted))


def _jsonl_pairs(path: Path) -> PairList:
    with path.open(encoding="utf-8-sig") as file:
        entries = sum(1 for line in file if line.strip())
    return PairList(path, entries, lambda wanted: _table_entries(path, _jsonl_rows, wanted))


def _csv_reader(path: Path, file: Any) -> csv.DictReader:
    """Return a reader of a file whose columns are those of a list of pairs."""
    reader = csv.DictReader(file, strict=True)  # a quotation mark that is never closed would swallow lines
    names = list(reader.fieldnames or [])
    if missing := [name for name in SIDES if name not in names]:
        raise PairListError(
            f"{path}, line 1: column {missing[0]!r} is missing, found {names}; "
            "the first line must name the columns before and after."
        )
    if repeated := [name for name in COLUMNS if names.count(name) > 1]:
        raise PairListError(f"{path}, line 1: column {repeated[0]!r} is given more than once; rename the others.")
    return reader


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:  # Excel starts its files with a byte order mark
        reader = _csv_reader(path, file)
        for row in reader:
            yield reader.line_num, row


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield line number and row, or what is wrong with it."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = parse_json(line.strip())
            except ValueError as error:
                row = f"not valid JSON ({error}); correct the line."
            yield number, row


def _table_entries(path: Path, rows: Callable[[Path], Iterator], wanted: Wanted) -> Iterator[Entry]:
    for number, (line, values) in enumerate(rows(path)):
        if wanted(number):
            yield _table_entry(path, number, f"{path}, line {line}", values)


def _table_entry(path: Path, number: int, where: str, values: Any) -> Entry:
    if not isinstance(values, dict):
        error = values if isinstance(values, str) else "not an object; write {'before': ..., 'after': ...}."
        return Entry(number, str(number), None, None, where, error=error)
    pair_id = _pair_id(values, number)
    names = {side: values.get(side) for side in SIDES}
    for side, name in names.items():
        if not isinstance(name, str) or not name.strip():
            known = {other: text if isinstance(text, str) else None for other, text in names.items()}
            return Entry(number, pair_id, **known, where=where, error=f"{side!r} is missing; give its path.")
    images = tuple(path.parent / os.path.expanduser(name) for name in names.values())
    return Entry(number, pair_id, **names, where=where, images=images)


def _pair_id(row: dict[str, Any], number: int) -> str:
    pair_id = row.get("pair_id")
    return str(number if pair_id in (None, "") else pair_id)


def _folder_pairs(path: Path) -> PairList:
    for names in FOLDERS:
        if all((path / name).is_dir() for name in names):
            return _sibling_folders(path, names)
    files = sorted(path.glob("*.parquet"))
    if not files:
        raise PairListError(f"{path} contains neither the folders before and after (or A and B) nor Parquet files.")
    lists = [_parquet_file(file) for file in files]

    def entries(wanted: Wanted) -> Iterator[Entry]:
        for first, pairs in zip(accumulate((pairs.count for pairs in lists), initial=0), lists, strict=False):
            for entry in pairs.entries(lambda number, first=first: wanted(first + number)):
                yield replace(entry, number=first + entry.number)

    return PairList(path, sum(pairs.count for pairs in lists), entries, json.dumps([pairs.state for pairs in lists]))


def _sibling_folders(path: Path, names: tuple[str, str]) -> PairList:
    """Return the pairs of images of the same name, extension aside, in two folders; sorted by name."""
    found: list[dict[str, str]] = []
    for name in names:
        files = sorted(entry.name for entry in os.scandir(path / name) if entry.name.lower().endswith(IMAGES))
        by_stem = {os.path.splitext(file)[0]: file for file in files}
        if len(by_stem) < len(files):
            raise PairListError(f"{path / name} contains two images of the same name; rename one of them.")
        found.append(by_stem)
    stems = sorted(set(found[0]) | set(found[1]))

    def entries(wanted: Wanted) -> Iterator[Entry]:
        for number, stem in enumerate(stems):
            if wanted(number):
                yield _sibling_entry(path, number, stem, [files.get(stem) for files in found], names)

    return PairList(path, len(stems), entries)


def _sibling_entry(path: Path, number: int, stem: str, files: list[str | None], folders: tuple[str, str]) -> Entry:
    named = [file and f"{folder}/{file}" for folder, file in zip(folders, files, strict=True)]
    where = f"{path}, pair {stem!r}"
    if None in files:
        missing = folders[files.index(None)]
        return Entry(number, stem, *named, where=where, error=f"the folder {missing} has no image of this name.")
    return Entry(number, stem, *named, where=where, images=tuple(path / name for name in named))


def _parquet_file(path: Path) -> PairList:
    """Return the pairs of a Parquet file: paths, or images as `datasets` stores them."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise PairListError(f'{path}: Parquet files need pyarrow: pip install "blip2idc[data]"') from error
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise PairListError(f"{path} is not a Parquet file ({error}).") from error
    with file:
        names = file.schema_arrow.names
        columns = [name for name in COLUMNS if name in names]
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    if missing := [name for name in SIDES if name not in names]:
        raise PairListError(f"{path}: column {missing[0]!r} is missing, found {names}; before and after are needed.")

    def entries(wanted: Wanted) -> Iterator[Entry]:
        with pyarrow.parquet.ParquetFile(path) as file:
            for group, first in enumerate(accumulate(sizes[:-1], initial=0)):
                numbers = range(first, first + sizes[group])
                if not any(map(wanted, numbers)):
                    continue  # none of its images is read
                batches = file.iter_batches(batch_size=PARQUET_ROWS, row_groups=[group], columns=columns)
                rows = (row for batch in batches for row in batch.to_pylist())
                yield from (_parquet_entry(path, *row) for row in zip(numbers, rows, strict=True) if wanted(row[0]))

    state = path.stat()
    return PairList(path, sum(sizes), entries, json.dumps([path.name, state.st_size, state.st_mtime_ns]))


def _parquet_entry(path: Path, number: int, row: dict[str, Any]) -> Entry:
    where = f"{path}, row {number}"
    if all(isinstance(row[side], str) for side in SIDES):
        return _table_entry(path, number, where, row)
    pair_id = _pair_id(row, number)
    names = [row[side].get("path") if isinstance(row[side], dict) else None for side in SIDES]
    for side in SIDES:
        if not isinstance(row[side], dict) or not row[side].get("bytes"):
            return Entry(number, pair_id, *names, where=where, error=f"{side!r} has no image.")
    return Entry(number, pair_id, *names, where=where, images=tuple(row[side] for side in SIDES))
