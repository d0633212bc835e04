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

from ..annotations import inside, read_each, read_json, required_text
from ..pair_builder import Mirror
from ..pairs import BrokenEntry, DataError, RawPair
from ..parquet_pairs import ParquetPairs, Row

SESSIONS = "test/edit_sessions.json"


def turn_pair(images: Path, img_id: str, turn: int, fields: dict[str, Any]) -> RawPair:
    """Return the pair of a turn of test."""
    pair_id, folder = f"{img_id}-{turn}", inside(images, img_id)
    before, after = inside(folder, fields["input"]), inside(folder, fields["output"])
    return RawPair(pair_id, before, after, [required_text(fields["instruction"], "instruction")])


class MagicBrush(ParquetPairs):
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
    SHARDS = {"train": ("data/train-*.parquet",), "validation": ("data/dev-*.parquet", "data/validation-*.parquet")}
    COLUMNS = {  # the second name is that of older revisions, which also lack mask_img (not read here)
        "img_id": ("img_id",),
        "turn_index": ("turn_index",),
        "before": ("source_img", "input_img"),
        "after": ("target_img", "output_img"),
        "instruction": ("instruction",),
    }

    def raw_splits(self) -> list[str]:
        if not (self.root / SESSIONS).exists():
            return super().raw_splits()
        return [split for split in self.SHARDS if self.shards(split)] + ["test"]

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        return self.test_pairs() if split == "test" else super().entries(split)

    def count_pairs(self, split: str) -> int:
        return sum(1 for _ in self.test_pairs()) if split == "test" else super().count_pairs(split)

    def row_pair(self, row: Row, row_id: str) -> RawPair:
        pair_id = f"{row['img_id']}-{row['turn_index']}"
        return RawPair(pair_id, *self.row_images(row, pair_id), [required_text(row["instruction"], "instruction")])

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
