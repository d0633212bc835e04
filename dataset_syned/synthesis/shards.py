"""Files of bounded size between the stages, and which process makes which.

Shard i of every stage holds the same pairs in the same order, and depends on shard i of earlier stages alone. A
process makes the shards of its share from the first stage to the last, so that processes and machines never wait for
each other. A shard grows by parts, one per batch, each written beside and renamed: what is there is not made again.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]  # of one pair; `position` is its place in the shard, `problem` why there is no more to it

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


@dataclass(frozen=True)
class Share:
    """Every `processes`-th shard, from `process` on."""

    process: int = 0
    processes: int = 1

    @classmethod
    def of_this_process(cls) -> "Share":
        """By the variables that `accelerate launch` and torchrun set."""
        share = cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
        if not 0 <= share.process < share.processes:
            raise ValueError(f"RANK={share.process}, WORLD_SIZE={share.processes}: RANK counts from 0")
        return share

    def __contains__(self, shard: int) -> bool:
        return shard % self.processes == self.process


def write_beside(path: Path, write: Callable[[Path], Any]) -> None:
    """Calls `write` with a temporary name, which then takes the place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    write_beside(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


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

    def _write(self, path: Path, rows: list[Row]) -> None:
        if self.schema is None:
            text = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
            write_text(path, text)
        else:
            table = pa.Table.from_pylist(rows, schema=self.schema)
            write_beside(path, lambda unfinished: pq.write_table(table, unfinished))

    def _read(self, path: Path) -> list[Row]:
        if self.schema is None:
            # not splitlines, which also cuts at characters that JSON leaves as they are
            return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        return pq.read_table(path, memory_map=False).to_pylist()

    def read(self, shard: int) -> list[Row]:
        """Raises: FileNotFoundError that names the stage to run."""
        if not self.has(shard):
            raise FileNotFoundError(f"{str(self.path(shard))!r} is missing: run the stage {self.folder.name!r} first")
        return self._read(self.path(shard))

    def parts(self, shard: int) -> list[Path]:
        return sorted(self.folder.glob(f"{shard:05d}.part-*.{self.suffix}"))

    def done(self, shard: int) -> set[int]:
        """Positions of the pairs in the parts of an unfinished shard."""
        return {row["position"] for path in self.parts(shard) for row in self._read(path)}

    def write_whole(self, shard: int, rows: list[Row]) -> None:
        self._write(self.path(shard), rows)

    def write_part(self, shard: int, rows: list[Row]) -> None:
        """Under the position of its first pair, which no other part holds."""
        self._write(self.folder / f"{shard:05d}.part-{rows[0]['position']:05d}.{self.suffix}", rows)

    def finish(self, shard: int, pairs: int) -> None:
        """One file in place of the parts."""
        parts = self.parts(shard)
        rows = sorted((row for path in parts for row in self._read(path)), key=lambda row: row["position"])
        assert [row["position"] for row in rows] == list(range(pairs)), f"{self.path(shard)}: not each pair once"
        self.write_whole(shard, rows)
        self.remove_parts(shard)

    def remove_parts(self, shard: int) -> None:
        for path in self.parts(shard):
            path.unlink(missing_ok=True)


def seed_of(*parts: Any) -> int:
    """A seed below 2**32 that depends on all parts and on nothing else."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4], "big")


def batched(items: Sequence[Any], size: int) -> list[list[Any]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]
