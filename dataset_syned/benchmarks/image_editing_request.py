"""Image-Editing-Request: photographs that people edited on request, each with the request in other people's words.

    python -m dataset_syned prepare image_editing_request        # raw files in data/image_editing_request, see BY_HAND

A raw annotation is an item of train.json, valid.json or test.json:

    {"uid": "Reddit_1052", "img0": "b.jpg", "img1": "a.jpg", "sents": ["remove the man on the left", ..]}

No change type is stated, and none follows safely from the words: "add" and "remove" are also said of contrast and
glare.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..annotations import are_texts, inside, read_each, read_json
from ..pair_builder import PairBuilder
from ..pairs import BrokenEntry, DataError, RawPair

SPLITS = {"train": "train.json", "validation": "valid.json", "test": "test.json"}  # our name -> the authors' file
FIELDS = ("uid", "img0", "img1")


def read_item(item: Any, images: Path) -> RawPair:
    """Return the pair of an item. Raises: DataError that names a missing field."""
    fields = item if isinstance(item, dict) else {}
    wrong = [name for name in FIELDS if not isinstance(fields.get(name), str) or not fields[name]]
    if wrong:
        raise DataError(f"no {wrong[0]!r} that is a string")
    sents = fields.get("sents")
    if not sents or not are_texts(sents):
        raise DataError(f"{fields['uid']} has no 'sents' that is a list of strings")
    # By uid: the 495 items of test have only 446 different image pairs.
    return RawPair(fields["uid"], inside(images, fields["img0"]), inside(images, fields["img1"]), sents)


class ImageEditingRequest(PairBuilder):
    DESCRIPTION = "Image-Editing-Request: photographs before and after an edit, with requests for it."
    LICENSE = "none stated"
    HOMEPAGE = "https://github.com/airsplay/VisualRelationships"
    CITATION = """@inproceedings{tan2019expressing,
  title = {Expressing Visual Relationships via Language},
  author = {Tan, Hao and Dernoncourt, Franck and Lin, Zhe and Bui, Trung and Bansal, Mohit},
  booktitle = {Proceedings of the Annual Meeting of the Association for Computational Linguistics (ACL)},
  year = {2019}
}"""
    BY_HAND = (
        "Put train.json, valid.json and test.json of https://github.com/airsplay/VisualRelationships there, and all "
        "images of the Google Drive folder linked in its README into one folder images/."
    )
    EXPECTED = {"default": {"train": 3061, "validation": 383, "test": 495}}

    def raw_splits(self) -> list[str]:
        splits = [split for split, name in SPLITS.items() if (self.root / name).exists()]
        if not splits:
            raise self.missing(SPLITS["train"])
        return splits

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        path, images = self.require(SPLITS[split]), self.root / "images"
        items = read_json(path, list)
        places = ((f"{str(path)!r}, item {index}", item) for index, item in enumerate(items))
        return read_each(places, lambda item: read_item(item, images))
