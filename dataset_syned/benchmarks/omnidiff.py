"""OmniDiff: photographs and rendered scenes with changes of twelve types, described by people in about 60 words.

    python -m dataset_syned prepare omnidiff        # raw files in data/omnidiff, see BY_HAND

No file of the set has been seen. Its authors train M3Diff, a LLaVA-OneVision, on it, so this reads LLaVA's form, one
JSON list (or JSON lines) per split, and `check` names the first field that differs:

    {"id": "real_0007_2", "image": ["real/0007/0.png", "real/0007/2.png"],
     "conversations": [{"from": "human", "value": "<image>.."}, {"from": "gpt", "value": "The red car ..."}]}

The authors' file of training data mixes many sets: keep the entries of OmniDiff. `part`, in provenance, is the first
folder of an image; the paper scores real and rendered scenes apart.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ..annotations import inside
from ..conversations import answer, image_names, read_conversations
from ..pair_builder import PairBuilder
from ..pairs import BrokenEntry, RawPair

SPLITS = {"train": "train", "validation": "val", "test": "test"}  # our name -> the file's, without its suffix


def read_item(entry: dict[str, Any], images: Path) -> RawPair:
    """Return the pair of an entry."""
    before, after = image_names(entry)
    part = PurePosixPath(before).parts[0]
    return RawPair(
        str(entry["id"]), inside(images, before), inside(images, after), [answer(entry)], "", {"part": part}
    )


class OmniDiff(PairBuilder):
    """OmniDiff's pairs. Published are 15,598 in all, about 1,500 of them test."""

    DESCRIPTION = "OmniDiff: 324 real and rendered scenes, with changes described by people in about 60 words."
    LICENSE = "other (see the page of the data)"
    HOMEPAGE = "https://yuan-liu-omnidiff.github.io"
    CITATION = """@inproceedings{liu2025omnidiff,
  title={OmniDiff: A Comprehensive Benchmark for Fine-grained Image Difference Captioning},
  author={Liu, Yuan and others},
  booktitle={IEEE/CVF International Conference on Computer Vision},
  year={2025},
  note={arXiv:2503.11093}
}"""
    BY_HAND = (
        "Put the annotations of OmniDiff (its page is https://yuan-liu-omnidiff.github.io, training data are in "
        "https://huggingface.co/datasets/IVC-liuyuan/training_m3diff) there as train.json, val.json and test.json, "
        "and the images they name into images/."
    )

    def split_file(self, split: str) -> Path | None:
        """Return the file of a split; None if it is missing."""
        paths = (self.root / f"{SPLITS[split]}{suffix}" for suffix in (".json", ".jsonl"))
        return next((path for path in paths if path.exists()), None)

    def raw_splits(self) -> list[str]:
        splits = [split for split in SPLITS if self.split_file(split)]
        if not splits:
            raise self.missing("train.json")
        return splits

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        path, images = self.split_file(split), self.root / "images"
        return read_conversations(path, lambda entry: read_item(entry, images)) if path else iter(())
