"""Files of bounded size between the stages, and which process makes which.

Shard i of every stage contains the same pairs in the same order, and depends on shard i of earlier stages alone. A
process makes the shards of its share from the first stage to the last, so that processes and machines never wait for
each other. A shard grows by parts, one per batch, each written atomically: an existing part is not made again.
Rows with images are read and written one at a time, so that a batch is in memory and not a shard.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from common_idc.atomic_files import TEMPORARY, write_atomically, write_text

Row = dict[str, Any]  # of one pair; `position` is its place in the shard, `problem` why nothing else is in it

IMAGES = ("image", "candidates")  # columns with images


@dataclass(frozen=True)
class Share:
    """Every `processes`-th shard, from `process` on."""

    process: int = 0
    processes: int = 1

    @classmethod
    def of_this_process(cls) -> "Share":
        """Return this process's share, from the variables that `accelerate launch` and torchrun set."""
        share = cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
        if not 0 <= share.process < share.processes:
            raise ValueError(f"RANK={share.process}, WORLD_SIZE={share.processes}: RANK counts from 0")
        return share

    def __contains__(self, shard: int) -> bool:
        return shard % self.processes == self.process


class StageFolder:
    """The shards of one stage.

    Args:
        schema: of Parquet files, for rows with images; None for JSON lines.
    """

    def __init__(self, folder: Path, schema: pa.Schema | None = None):
        self.folder, self.schema = folder, schema
        self.suffix = "jsonl" if schema is None else "parquet"

    def path(self, shard: int) -> Path:
        return self.folder / f"{shard:05d}.{self.suffix}"

    def has(self, shard: int) -> bool:
        return self.path(shard).is_file()

    def _write(self, path: Path, rows: Iterable[Row]) -> None:
        if self.schema is None:
            text = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
            write_text(path, text, among_many=True)  # `sweep` removes leftovers
        else:
            write_atomically(path, lambda unfinished: self._write_table(unfinished, rows), among_many=True)

    def _write_table(self, path: Path, rows: Iterable[Row]) -> None:
        """Write a row group per row, so that one can be read without the others."""
        with pq.ParquetWriter(path, self.schema) as writer:
            for row in rows:
                writer.write_table(pa.Table.from_pylist([row], schema=self.schema))

    def _read(self, path: Path, places: Sequence[int] | None = None, light: bool = False) -> list[Row]:
        if self.schema is None:
            # not splitlines, which also cuts at characters that JSON leaves as they are
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
            return rows if places is None else [rows[place] for place in places]
        columns = [name for name in self.schema.names if name not in IMAGES] if light else None
        with pq.ParquetFile(path) as file:
            places = range(file.num_row_groups) if places is None else places
            return [row for place in places for row in file.read_row_group(place, columns).to_pylist()]

    def read(self, shard: int, positions: Sequence[int] | None = None, light: bool = False) -> list[Row]:
        """Return all rows, or those of some positions.

        Args:
            light: without images.

        Raises: FileNotFoundError that names the stage to run.
        """
        if not self.has(shard):
            raise FileNotFoundError(f"{str(self.path(shard))!r} is missing: run the stage {self.folder.name!r} first")
        return self._read(self.path(shard), positions, light)

    def parts_folder(self, shard: int) -> Path:
        return self.folder / f"{shard:05d}.parts"

    def parts(self, shard: int) -> list[Path]:
        return sorted(self.parts_folder(shard).glob(f"[0-9]*.{self.suffix}"))

    def done(self, shard: int) -> set[int]:
        """Return the positions of the pairs in the parts of an unfinished shard."""
        return {row["position"] for path in self.parts(shard) for row in self._read(path, light=True)}

    def write_whole(self, shard: int, rows: Iterable[Row]) -> None:
        self._write(self.path(shard), rows)

    def write_part(self, shard: int, rows: list[Row]) -> None:
        """Write a part, named after the position of its first pair."""
        self._write(self.parts_folder(shard) / f"{rows[0]['position']:05d}.{self.suffix}", rows)

    def finish(self, shard: int, pairs: int) -> None:
        """Replace the parts by one file."""
        places = {
            row["position"]: (path, place)
            for path in self.parts(shard)
            for place, row in enumerate(self._read(path, light=True))
        }
        assert sorted(places) == list(range(pairs)), f"{self.path(shard)}: not each pair once"
        ordered = (places[position] for position in range(pairs))
        self.write_whole(shard, (self._read(path, [place])[0] for path, place in ordered))
        self.remove_parts(shard)

    def remove_parts(self, shard: int) -> None:
        shutil.rmtree(self.parts_folder(shard), ignore_errors=True)

    def reopen(self, shard: int, again: Sequence[int]) -> None:
        """Turn a finished shard into an unfinished one, without the rows of some positions."""
        kept = [row["position"] for row in self.read(shard, light=True) if row["position"] not in again]
        self.remove_parts(shard)
        if kept:
            rows = (self.read(shard, [position])[0] for position in kept)
            self._write(self.parts_folder(shard) / f"{kept[0]:05d}.{self.suffix}", rows)
        self.remove(shard)

    def remove(self, shard: int) -> None:
        self.path(shard).unlink(missing_ok=True)

    def sweep(self, share: Share) -> None:
        """Remove what a killed process left of a share: incomplete files, and parts of finished shards."""
        for unfinished in self.folder.glob(f".[0-9]*{TEMPORARY}"):
            if int(unfinished.name[1:].split(".")[0]) in share:
                unfinished.unlink(missing_ok=True)
        for parts in self.folder.glob("*.parts"):
            shard = int(parts.stem)
            if shard in share and self.has(shard):
                self.remove_parts(shard)

    def is_empty(self) -> bool:
        return not any(self.folder.glob(f"*.{self.suffix}")) and not any(self.folder.glob("*.parts"))


class ShardReader:
    """Rows of several stages for the pairs of a shard; images are read on demand."""

    def __init__(self, folders: dict[str, StageFolder], shard: int):
        self.shard = shard
        self.with_images = {name: folder for name, folder in folders.items() if folder.schema}
        rows = [folder.read(shard, light=True) for folder in folders.values()]
        self.light = [dict(zip(folders, row, strict=True)) for row in zip(*rows, strict=True)]

    def __len__(self) -> int:
        return len(self.light)

    def pairs(self, positions: Sequence[int]) -> list[dict[str, Row]]:
        images = {name: folder.read(self.shard, positions) for name, folder in self.with_images.items()}
        return [
            self.light[position] | {name: rows[place] for name, rows in images.items()}
            for place, position in enumerate(positions)
        ]


def seed_of(*parts: Any) -> int:
    """Return a seed below 2**32 that depends on all parts and nothing else."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4], "big")


def batched(items: Sequence[Any], size: int) -> list[list[Any]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]
