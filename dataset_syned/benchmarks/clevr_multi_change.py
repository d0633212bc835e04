"""CLEVR-Multi-Change: drawn scenes of 30 to 40 objects with four changes at once, each said in one sentence.

    python -m dataset_syned fetch clevr_multi_change && python -m dataset_syned prepare clevr_multi_change

A raw annotation is a line of a file whose name contains `train` or `test` (read in the authors' code):

    {"images": ["images/CLEVR_new_000007.png", "images/CLEVR_new_000007_after.png"],
     "messages": [.., {"role": "assistant", "content": "The small red metal cube has been moved. A large .."}]}

The text of all four sentences is the reference, as a model has to find all; their order means nothing, so provenance
lists them one by one. Every sentence is one of five for its type of change, which the files do not state.

The authors have no validation split: it is the last hundredth of their train file, whose lines are shuffled.
"""

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ..annotations import inside, numbered_lines
from ..conversations import answer, image_names, read_conversations, sentences
from ..pair_builder import Mirror, PairBuilder
from ..pairs import BrokenEntry, RawPair

SOURCE = "zwcolin/clevr-multichange"
FILES = {
    "train": "train",
    "validation": "train",
    "test": "test",
}  # our name of a split -> part of the name of its file


def read_line(entry: dict[str, Any], root: Path) -> RawPair:
    """Return the pair of a line."""
    before, after = image_names(entry)
    text = answer(entry)
    changes = sentences(text)
    change_type = "multiple" if len(changes) > 1 else ""
    images = inside(root, before), inside(root, after)
    return RawPair(Path(before).stem, *images, [text], change_type, {"sentences": changes})


class ClevrMultiChange(PairBuilder):
    DESCRIPTION = "CLEVR-Multi-Change: drawn scenes of 30 to 40 objects, four of which changed."
    LICENSE = "CC-BY-4.0"
    HOMEPAGE = f"https://huggingface.co/datasets/{SOURCE}"
    CITATION = """@misc{stateful2026,
  title={Stateful Visual Encoders},
  year={2026},
  eprint={2606.04433},
  archivePrefix={arXiv}
}"""
    MIRRORS = (Mirror(SOURCE, "main", ("*.jsonl", "images_part_*.zip")),)
    BY_HAND = (
        f"Put the .jsonl files of {HOMEPAGE} there and unpack its images_part_*.zip, which contain images/, next to "
        "them."
    )
    EXPECTED = {"default": {"train": 99_000, "validation": 1000, "test": 1000}}

    def split_file(self, split: str) -> Path | None:
        """Return the file of a split; None if it is missing."""
        return min(self.root.glob(f"*{FILES[split]}*.jsonl"), default=None)

    def raw_splits(self) -> list[str]:
        splits = [split for split in FILES if self.split_file(split)]
        if not splits:
            raise self.missing("clevr_multichange_train.jsonl")
        return splits

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        path = self.split_file(split)
        if not path:
            return iter(())
        pairs = read_conversations(path, lambda entry: read_line(entry, self.root))
        if split == "test":
            return pairs
        total = sum(1 for _ in numbered_lines(path))
        held_out = total - math.ceil(total / 100)
        return islice(pairs, held_out) if split == "train" else islice(pairs, held_out, None)
