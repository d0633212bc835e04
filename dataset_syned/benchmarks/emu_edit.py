"""Emu Edit's generations: photographs, what the model made of them, and the instruction it was given.

    python -m dataset_syned fetch emu_edit && python -m dataset_syned prepare emu_edit

A raw annotation is a row of a Parquet file (images shortened):

    {"instruction": "Make the sky night", "image": {"bytes": b"..", "path": None}, "task": "global", "idx": 296,
     "hash": "5b..", "input_caption": "a street by day", "output_caption": "a street at night", "edited_image": {..}}

There are two Parquet parts: `validation` (3,589 pairs) and `test` (2,022). BLIP2IDC trains on the first, cut in two by
the `splits.json` released with Syned. A sister repository, facebook/emu_edit_test_set, has no edited images and calls
the parts the other way round.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow.parquet import ParquetFile

from ..annotations import read_json, reading_parquet
from ..pair_builder import Mirror, PairBuilder
from ..pairs import CHANGE_TYPES, BrokenEntry, DataError, RawPair
from ..parquet_pairs import named_image

SOURCE = "facebook/emu_edit_test_set_generations"
SPLITS = {"train": "validation", "validation": "validation", "test": "test"}  # our name -> the authors'
SPLITS_FILE = "splits.json"
COLUMNS = ["instruction", "image", "task", "idx", "hash", "input_caption", "output_caption", "edited_image"]
BATCH = 16  # rows of about 250 kB each


@dataclass(frozen=True)
class Edit:
    """A row of the Parquet files."""

    idx: int
    hash: str
    instruction: str
    task: str
    input_caption: str
    output_caption: str
    before: bytes
    after: bytes

    @property
    def change_type(self) -> str:
        """Return the authors' task, all of which are change types; "" for one that they may add."""
        return self.task if self.task in CHANGE_TYPES else ""

    @property
    def provenance(self) -> dict[str, Any]:
        """Return the origin of the pair, with captions of both images, by which synthesis ranks its edits."""
        captions = {"input": self.input_caption, "output": self.output_caption}
        return {"source": SOURCE, "idx": self.idx, "hash": self.hash, "task": self.task, **captions}


def shards(root: Path, split: str) -> list[Path]:
    """Return the Parquet files that contain a split."""
    return sorted((root / "data").glob(f"{SPLITS[split]}-*.parquet"))


def read_groups(path: Path, columns: list[str], wanted: Collection[int] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of one file, a few at a time; row groups without a wanted idx are skipped."""
    with reading_parquet(path), ParquetFile(path) as file:
        absent = [name for name in columns if name not in file.schema_arrow.names]
        if absent:
            raise DataError(f"{str(path)!r} has no column {absent[0]!r}: is it of {SOURCE}?")
        for group in range(file.num_row_groups):
            if wanted is not None:
                ids = file.read_row_group(group, columns=["idx"])["idx"].to_pylist()
                if not any(idx in wanted for idx in ids):
                    continue
            for batch in file.iter_batches(BATCH, row_groups=[group], columns=columns):
                yield from batch.to_pylist()


def read_ids(paths: list[Path]) -> list[int]:
    """Return all idx, in order; no image is read. Raises: DataError for a duplicate idx."""
    ids = [row["idx"] for path in paths for row in read_groups(path, ["idx"])]
    twice = [idx for idx, count in Counter(ids).items() if count > 1]
    if twice:
        raise DataError(
            f"duplicate idx {twice[0]} in {paths[0].parent}: old revisions of {SOURCE} contain two sets of files, "
            "keep the newer one"
        )
    return ids


def image_content(cell: Any) -> bytes:
    """Return the bytes of an image; none if the cell is empty, so that the pair is reported and can be left out."""
    return (cell.get("bytes") if isinstance(cell, dict) else None) or b""


def read_edits(paths: list[Path], wanted: Collection[int]) -> Iterator[Edit]:
    """Yield the rows of the wanted idx, in the files' order."""
    for path in paths:
        for row in read_groups(path, COLUMNS, wanted):
            if row["idx"] in wanted:
                yield Edit(
                    idx=row["idx"],
                    hash=row["hash"] or "",
                    instruction=(row["instruction"] or "").strip(),
                    task=row["task"] or "",
                    input_caption=row["input_caption"] or "",
                    output_caption=row["output_caption"] or "",
                    before=image_content(row["image"]),
                    after=image_content(row["edited_image"]),
                )


def edit_pair(pair_id: str, edit: Edit, captions: list[str]) -> RawPair:
    """Return the pair of an edit."""
    # The files' own paths may be empty, or equal for both images of a pair.
    before, after = named_image(f"{pair_id}-before", edit.before), named_image(f"{pair_id}-after", edit.after)
    return RawPair(pair_id, before, after, captions, edit.change_type, edit.provenance)


def read_splits(path: Path) -> dict[str, set[int]]:
    """Return Syned's cut of the part `validation`: split -> idx. Raises: DataError for other content."""
    content = read_json(path)
    lists = [content.get(name) for name in ("train", "validation")] if isinstance(content, dict) else [None]
    if not all(isinstance(ids, list) and all(type(idx) is int for idx in ids) for ids in lists):
        raise DataError(f"{str(path)!r} should be {json.dumps({'train': [296], 'validation': [1941]})}: lists of idx")
    train, validation = map(set, lists)
    both = sorted(train & validation)
    if both:
        raise DataError(f"{str(path)!r}: idx {both[0]} is in train and in validation")
    return {"train": train, "validation": validation}


def require_ids(wanted: Collection[int], ids: Collection[int], asked_by: str, part: str) -> None:
    """Raise DataError that names a wanted idx which the Parquet files lack."""
    absent = sorted(set(wanted) - set(ids))
    if absent:
        raise DataError(
            f"idx {absent[0]} of {asked_by} ({len(absent)} in all) is not in the Parquet files of {part!r} of {SOURCE}"
        )


class EmuEdit(PairBuilder):
    """Emu Edit's pairs; the instruction is the reference. Ids are `<split>-<idx>`: `test` counts from 0 again."""

    DESCRIPTION = "Emu Edit's generations: photographs before and after an edit by a model, one instruction each."
    LICENSE = "CC-BY-NC-4.0"
    HOMEPAGE = "https://huggingface.co/datasets/facebook/emu_edit_test_set_generations"
    CITATION = """@inproceedings{sheynin2024emuedit,
  title={Emu Edit: Precise Image Editing via Recognition and Generation Tasks},
  author={Sheynin, Shelly and Polyak, Adam and Singer, Uriel and Kirstain, Yuval and Zohar, Amit and Ashual, Oron and
          Parikh, Devi and Taigman, Yaniv},
  booktitle={Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year={2024}
}"""
    MIRRORS = (Mirror(SOURCE, "main", ("data/validation-*.parquet", "data/test-*.parquet")),)
    BY_HAND = (
        "Put data/validation-*.parquet and data/test-*.parquet of https://huggingface.co/datasets/" + SOURCE + " "
        "there, and splits.json of https://huggingface.co/datasets/Gevennou/Syned (without it there is no train)."
    )
    EXPECTED = {"default": {"train": 3050, "validation": 539, "test": 2022}}

    def raw_splits(self) -> list[str]:
        cut = (self.root / SPLITS_FILE).exists()
        splits = [split for split in SPLITS if (cut or split != "train") and shards(self.root, split)]
        if not splits:
            raise self.missing("data/validation-*.parquet")
        return splits

    def split_ids(self, split: str) -> set[int]:
        """Return the idx of a split's pairs."""
        ids = read_ids(shards(self.root, split))
        path = self.root / SPLITS_FILE
        if split == "test" or not path.exists():
            return set(ids)
        wanted = read_splits(path)[split]
        require_ids(wanted, ids, SPLITS_FILE, SPLITS[split])
        return wanted

    def count_pairs(self, split: str) -> int:
        return len(self.split_ids(split))

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        for edit in read_edits(shards(self.root, split), self.split_ids(split)):
            yield edit_pair(f"{split}-{edit.idx}", edit, [edit.instruction])
