"""Pairs that are rows of Parquet files with their images inside, as the Hub keeps them, read a few rows at a time."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pyarrow.parquet import ParquetFile, read_metadata, read_schema

from .annotations import read_each, reading_parquet
from .pair_builder import PairBuilder
from .pairs import BrokenEntry, DataError, RawPair

BATCH = 8  # rows of up to some MB each
SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp"}
Row = dict[str, Any]
Columns = dict[str, tuple[str, ...]]  # our name -> the column's possible names, in one release or another


def shard_columns(path: Path, names: list[str], columns: Columns, optional: frozenset[str]) -> dict[str, str]:
    """Return our name -> the column of this file.

    Raises: DataError that names the first column the file lacks, and those that it has.
    """
    found = {ours: next((name for name in theirs if name in names), "") for ours, theirs in columns.items()}
    absent = [columns[ours] for ours, name in found.items() if not name and ours not in optional]
    if absent:
        others = f" (or {', '.join(map(repr, absent[0][1:]))})" if absent[0][1:] else ""
        raise DataError(f"{str(path)!r} has no column {absent[0][0]!r}{others}, it has: {', '.join(names)}")
    return {ours: name for ours, name in found.items() if name}


def read_rows(path: Path, columns: Columns, optional: frozenset[str] = frozenset()) -> Iterator[Row]:
    """Yield the rows of a Parquet file under our names; memory is a few times that of a row group, not of the file.

    Args:
        columns: what is read; other columns are not touched.
        optional: our names that are None where the file has no such column.
    """
    with reading_parquet(path), ParquetFile(path) as file:
        found = shard_columns(path, file.schema_arrow.names, columns, optional)
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(BATCH, row_groups=[group], columns=list(dict.fromkeys(found.values()))):
                for row in batch.to_pylist():
                    yield {ours: row[found[ours]] if ours in found else None for ours in columns}


def column_names(path: Path) -> list[str]:
    """Return the names of the columns of a Parquet file."""
    with reading_parquet(path):
        return read_schema(path).names


def count_rows(path: Path) -> int:
    """Return the number of rows of a Parquet file, without reading them."""
    with reading_parquet(path):
        return read_metadata(path).num_rows


def named_image(stem: str, data: bytes) -> tuple[str, bytes]:
    """Return an image under a new name, with the usual suffix of its format."""
    return stem + next((suffix for magic, suffix in SUFFIXES.items() if data.startswith(magic)), ""), data


def cell_image(cell: Any, stem: str, column: str) -> tuple[str, bytes]:
    """Return the base name and the bytes of an image in a row; `stem` names it where the row does not.

    Raises: DataError if the cell has no image.
    """
    data = cell.get("bytes") if isinstance(cell, dict) else None
    if not data:
        raise DataError(f"no image bytes in {column!r}")
    return (Path(cell["path"]).name, data) if cell.get("path") else named_image(stem, data)


class ParquetPairs(PairBuilder):
    """A builder whose rows are pairs. A benchmark states SHARDS and COLUMNS, and `row_pair` reads a row.

    Errors in a row name its file and number. A row without an id of its own gets `<file>-<number>`, which stays the
    same however many files of the set are there.
    """

    SHARDS: dict[
        str, tuple[str, ...]
    ] = {}  # our name of a split -> patterns of its files; the first with files counts
    COLUMNS: Columns = {}
    OPTIONAL: frozenset[str] = frozenset()  # our names in COLUMNS that not every release has

    @abstractmethod
    def row_pair(self, row: Row, row_id: str) -> RawPair:
        """Return the pair of a row, whose fields have our names. Raises: DataError for what cannot be used."""

    def row_readers(self) -> tuple[Callable[[Row, str], RawPair], ...]:
        """Return what reads a row, one function for each pair that a row contains."""
        return (self.row_pair,)

    def row_images(self, row: Row, stem: str) -> tuple[tuple[str, bytes], tuple[str, bytes]]:
        """Return the images of a row, from its fields `before` and `after`."""
        before, after = (
            cell_image(row[side], f"{stem}-{side}", self.COLUMNS[side][0]) for side in ("before", "after")
        )
        return before, after

    def shards(self, split: str) -> list[Path]:
        """Return the files of the first pattern that has any: two names of one split are two releases of it."""
        found = (sorted(self.folder.glob(pattern)) for pattern in self.SHARDS.get(split, ()))
        return next(filter(None, found), [])

    def raw_splits(self) -> list[str]:
        splits = [split for split in self.SHARDS if self.shards(split)]
        if not splits:
            raise self.missing(next(iter(self.SHARDS.values()))[0])
        return splits

    def count_pairs(self, split: str) -> int:
        return sum(map(count_rows, self.shards(split))) * len(self.row_readers())

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        for path in self.shards(split):
            for number, row in enumerate(read_rows(path, self.COLUMNS, self.OPTIONAL)):
                place, row_id = f"{str(path)!r}, row {number}", f"{path.stem}-{number}"
                for read in self.row_readers():
                    yield from read_each([(place, row)], lambda row, read=read, row_id=row_id: read(row, row_id))
