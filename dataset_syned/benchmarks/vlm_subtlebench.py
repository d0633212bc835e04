"""VLM-SubtleBench, its captioned pairs: subtle differences of photographs, scans, aerial and other views.

    python -m dataset_syned fetch vlm_subtlebench && python -m dataset_syned prepare vlm_subtlebench

A raw annotation is a line of data/val.jsonl or data/test.jsonl (shortened; read in the authors' code):

    {"image_1": "https://huggingface.co/datasets/KRAFTON/VLM-SubtleBench/resolve/main/images/coco/30.jpg",
     "image_2": .., "question": "..", "answer": "second image", "distractors": ["first image"], "has_caption": true,
     "caption": "the second dog has a collar", "category": "attribute", "domain": "natural", "source": "coco",
     "source_id": "30", "raw_folder": "coco_attribute"}

Most lines are multiple choice questions only; those with a caption are pairs. Images lie below the data folder under
the path after `/resolve/main/`. No change type is stated: `category`, in provenance, says what differs.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..annotations import inside, json_object, numbered_lines, read_each, required_text
from ..pair_builder import Mirror, PairBuilder
from ..pairs import BrokenEntry, RawPair

SOURCE = "KRAFTON/VLM-SubtleBench"
SPLITS = {"validation": "data/val.jsonl", "test": "data/test.jsonl"}  # our name -> the authors' file
LABELS = ("category", "domain", "source", "source_id")


def local_name(address: str) -> str:
    """Return the path of an image in the repository; files of older revisions have no address before it."""
    return address.split("/resolve/", 1)[1].split("/", 1)[1] if "/resolve/" in address else address


def read_item(item: dict[str, Any], root: Path) -> RawPair | None:
    """Return the pair of a line, None if it has no caption; the id is that of the authors' evaluation."""
    if not item["has_caption"]:
        return None
    labels = {name: str(item[name]) for name in LABELS}
    pair_id = "_".join(labels[name] for name in ("category", "source", "source_id"))
    before, after = (inside(root, local_name(item[name])) for name in ("image_1", "image_2"))
    return RawPair(pair_id, before, after, [required_text(item["caption"], "caption")], provenance=labels)


class VlmSubtleBench(PairBuilder):
    """The captioned pairs: 1,200 in both splits, not published how many in each."""

    DESCRIPTION = "VLM-SubtleBench: pairs with a subtle difference in ten categories, one caption by a person each."
    LICENSE = "CC-BY-NC-4.0"
    HOMEPAGE = "https://github.com/krafton-ai/VLM-SubtleBench"
    CITATION = """@inproceedings{vlmsubtlebench2026,
  title={VLM-SubtleBench: How Far Are VLMs from Human-Level Subtle Comparative Reasoning?},
  booktitle={International Conference on Learning Representations},
  year={2026},
  note={arXiv:2603.07888}
}"""
    MIRRORS = (Mirror(SOURCE, "main", ("data/*.jsonl", "images/*")),)
    BY_HAND = f"Put data/val.jsonl, data/test.jsonl and images/ of https://huggingface.co/datasets/{SOURCE} there."

    def raw_splits(self) -> list[str]:
        splits = [split for split, name in SPLITS.items() if (self.root / name).exists()]
        if not splits:
            raise self.missing(SPLITS["test"])
        return splits

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        lines = numbered_lines(self.require(SPLITS[split]))
        items = read_each(lines, lambda entry: read_item(json_object(entry[1]), self.root))
        return (item for item in items if item is not None)
