"""Pico-Banana-400K, its single edits: photographs of Open Images edited by Nano-Banana and checked by a model.

    python -m dataset_syned prepare pico_banana        # raw files in data/pico_banana, see BY_HAND

Its licence, CC-BY-NC-ND-4.0, allows no derivatives: train on it, but pass on neither captions nor pairs made from it.

A raw annotation is a line of what the authors' map_openimage_url_to_local.py makes of sft.jsonl (shortened):

    {"open_image_input_url": "https://..jpg", "text": "Remove the red flag on the left, and ..",
     "summarized_text": "Remove the red flag", "output_image": "images/positive-edit/1.png",
     "edit_type": "Remove an existing object", "local_input_image": "openimage_source_images/train_0/0000e2.jpg"}

Both instructions, long and short, are captions; `edit_type` is in provenance. Some lines share an `output_image` and
are said to be mixed up: the second one is reported as a duplicate.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ..annotations import inside, json_object, numbered_lines, read_each, required_text
from ..pair_builder import PairBuilder
from ..pairs import BrokenEntry, DataError, RawPair

ANNOTATIONS = "sft_with_local_source_image_path.jsonl"
CHANGE_TYPES = {"Remove an existing object": "remove"}  # the only one of 35 edit types whose name was seen


def read_line(entry: dict[str, Any], root: Path) -> RawPair:
    """Return the pair of a line. Raises: DataError if the source image was not found by the authors' program."""
    output, source = required_text(entry["output_image"], "output_image"), entry["local_input_image"]
    if source is None:
        raise DataError(f"no source image of {output!r}: local_input_image is null")
    captions = [required_text(entry["text"], "text")]
    if (entry.get("summarized_text") or "").strip():
        captions.append(entry["summarized_text"].strip())
    edit_type = entry["edit_type"]
    images = inside(root, source), inside(root, output)
    pair_id = PurePosixPath(output).stem
    return RawPair(pair_id, *images, captions, CHANGE_TYPES.get(edit_type, ""), {"edit_type": edit_type})


class PicoBanana(PairBuilder):
    """The single edits: about 257,000, the exact number is not published."""

    DESCRIPTION = "Pico-Banana-400K: photographs edited by Nano-Banana, a long and a short instruction each."
    LICENSE = "CC-BY-NC-ND-4.0: no derivatives, pass on neither captions nor pairs made from it"
    HOMEPAGE = "https://github.com/apple/pico-banana-400k"
    CITATION = """@misc{qian2025picobanana,
  title={Pico-Banana-400K: A Large-Scale Dataset for Text-Guided Image Editing},
  author={Qian, Yusu and Bocek-Rivele, Eli and Song, Liangchen and Tong, Jialing and Yang, Yinfei and Lu, Jiasen and
          Hu, Wenze and Gan, Zhe},
  year={2025},
  eprint={2510.19808},
  archivePrefix={arXiv}
}"""
    BY_HAND = (
        "Follow the download guide of https://github.com/apple/pico-banana-400k in that folder: the edited images in "
        "images/positive-edit/, the photographs of Open Images in openimage_source_images/, and "
        f"{ANNOTATIONS}, which its map_openimage_url_to_local.py writes."
    )

    def raw_splits(self) -> list[str]:
        self.require(ANNOTATIONS)
        return ["train"]

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        lines = numbered_lines(self.require(ANNOTATIONS))
        return read_each(lines, lambda entry: read_line(json_object(entry[1]), self.root))
