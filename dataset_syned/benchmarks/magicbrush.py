"""MagicBrush: photographs before and after an edit that people asked for, and checked, turn by turn.

    python -m dataset_syned fetch magicbrush && python -m dataset_syned prepare magicbrush

A raw annotation of train and validation is a row of a Parquet file, of test an entry of edit_sessions.json:

    {"img_id": "327", "turn_index": 1, "source_img": {"bytes": b"..", "path": "327-input.png"}, "mask_img": ..,
     "instruction": "add a dog", "target_img": {..}}
    {"139306": [{"input": "139306-input.png", "mask": .., "output": "139306-output1.png", "instruction": ".."}, ..]}

A session of up to three turns edits one photograph: the source of turn 2 is the target of turn 1. Each turn is a pair.
No change type is stated.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyarrow.parquet import ParquetFile, read_metadata

from ..annotations import inside, read_each, read_json, reading_parquet
from ..pair_builder import Mirror, PairBuilder
from ..pairs import BrokenEntry, DataError, RawPair

SHARDS = {"train": ("train-*.parquet",), "validation": ("dev-*.parquet", "validation-*.parquet")}
SESSIONS = "test/edit_sessions.json"
# Our name -> the column, and the column of older revisions, which also lack mask_img (not read here).
COLUMNS = {
    "img_id": ("img_id",),
    "turn_index": ("turn_index",),
    "before": ("source_img", "input_img"),
    "after": ("target_img", "output_img"),
    "instruction": ("instruction",),
}
BATCH = 8  # rows of about 3 MB each


def shard_columns(path: Path, names: list[str]) -> dict[str, str]:
    """Return our name -> the column of this shard."""
    columns = {ours: next((name for name in theirs if name in names), None) for ours, theirs in COLUMNS.items()}
    absent = [ours for ours, name in columns.items() if name is None]
    if absent:
        raise DataError(f"{str(path)!r} has no column {COLUMNS[absent[0]][0]!r}, it has: {', '.join(names)}")
    return columns


def read_shard(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows under our names, a few at a time, so that memory is that of a batch and not that of a shard."""
    with reading_parquet(path), ParquetFile(path) as file:
        columns = shard_columns(path, file.schema_arrow.names)
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(BATCH, row_groups=[group], columns=list(columns.values())):
                for row in batch.to_pylist():
                    yield {ours: row[name] for ours, name in columns.items()}


def row_image(row: dict[str, Any], side: str, pair_id: str) -> tuple[str, bytes]:
    """Return the base name and the bytes of an image of a row. Raises: DataError if it has none."""
    data = row[side]["bytes"] if row[side] else None
    if not data:
        raise DataError(f"pair {pair_id!r}: no image bytes in column {COLUMNS[side][0]!r}")
    return Path(row[side]["path"] or f"{pair_id}-{side}").name, data


def instruction(text: Any, pair_id: str) -> list[str]:
    """Return the instruction as the only caption. Raises: DataError if it has no text."""
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"pair {pair_id!r}: its instruction has no text")
    return [text.strip()]


def row_pair(row: dict[str, Any]) -> RawPair:
    """Return the pair of a row of train or validation."""
    pair_id = f"{row['img_id']}-{row['turn_index']}"
    images = row_image(row, "before", pair_id), row_image(row, "after", pair_id)
    return RawPair(pair_id, *images, instruction(row["instruction"], pair_id))


def turn_pair(images: Path, img_id: str, turn: int, fields: dict[str, Any]) -> RawPair:
    """Return the pair of a turn of test."""
    pair_id, folder = f"{img_id}-{turn}", inside(images, img_id)
    before, after = inside(folder, fields["input"]), inside(folder, fields["output"])
    return RawPair(pair_id, before, after, instruction(fields["instruction"], pair_id))


class MagicBrush(PairBuilder):
    DESCRIPTION = "MagicBrush: photographs edited on request, in sessions of up to three turns, one instruction each."
    LICENSE = "CC-BY-4.0"
    HOMEPAGE = "https://osu-nlp-group.github.io/MagicBrush/"
    CITATION = """@inproceedings{zhang2023magicbrush,
  title={MagicBrush: A Manually Annotated Dataset for Instruction-Guided Image Editing},
  author={Zhang, Kai and Mo, Lingbo and Chen, Wenhu and Sun, Huan and Su, Yu},
  booktitle={Advances in Neural Information Processing Systems},
  year={2023}
}"""
    MIRRORS = (Mirror("osunlp/MagicBrush", "main", ("data/train-*.parquet", "data/dev-*.parquet")),)
    BY_HAND = (
        "Put data/train-*.parquet and data/dev-*.parquet of https://huggingface.co/datasets/osunlp/MagicBrush there, "
        "and for the split test what the zip linked on that page contains (its password is MagicBrush; please do not "
        f"pass the pictures on): {SESSIONS} and test/images/."
    )
    EXPECTED = {"default": {"train": 8807, "validation": 528, "test": 1053}}

    def raw_splits(self) -> list[str]:
        splits = [split for split in SHARDS if self.shards(split)]
        splits += ["test"] if (self.root / SESSIONS).exists() else []
        if not splits:
            raise self.missing("data/train-*.parquet")
        return splits

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        return self.test_pairs() if split == "test" else self.shard_pairs(split)

    def count_pairs(self, split: str) -> int:
        if split == "test":
            return super().count_pairs(split)
        return sum(shard_length(path) for path in self.shards(split))

    def shards(self, split: str) -> list[Path]:
        """Return the shards of the first name pattern that has any: two names of one split are two releases of it."""
        found = (sorted((self.root / "data").glob(pattern)) for pattern in SHARDS[split])
        return next(filter(None, found), [])

    def shard_pairs(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        """Yield the pairs of train or validation."""
        for path in self.shards(split):
            rows = ((f"{str(path)!r}, row {index}", row) for index, row in enumerate(read_shard(path)))
            yield from read_each(rows, row_pair)

    def test_pairs(self) -> Iterator[RawPair | BrokenEntry]:
        """Yield the pairs of test."""
        path, images = self.root / SESSIONS, self.root / "test" / "images"
        sessions = read_json(path)
        if not isinstance(sessions, dict):
            raise DataError(f"{str(path)!r} is not an object of image id -> list of turns")
        for img_id, turns in sessions.items():
            if not isinstance(turns, list):
                text = f"image {img_id!r}: {turns!r} is not a list of turns"
                yield BrokenEntry(DataError(f"{str(path)!r}, {text}"))
                continue
            places = (
                (f"{str(path)!r}, pair '{img_id}-{turn}'", (img_id, turn, fields))
                for turn, fields in enumerate(turns, start=1)
            )
            yield from read_each(places, lambda entry: turn_pair(images, *entry))


def shard_length(path: Path) -> int:
    """Return the number of rows of a Parquet file, without reading them."""
    with reading_parquet(path):
        return read_metadata(path).num_rows
