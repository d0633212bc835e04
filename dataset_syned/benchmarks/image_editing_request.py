"""Image-Editing-Request: photographs that people edited on request, each with the request in other people's words.

    python -m dataset_syned prepare image_editing_request        # raw files in data/image_editing_request, see BY_HAND

An item of train.json, valid.json and test.json:

    {"uid": "3KLL..", "img0": "3KLL.._0.jpg", "img1": "3KLL.._1.jpg", "sents": ["remove the man in the back", ..]}
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..annotations import inside, read_each, read_json
from ..pair_builder import PairBuilder
from ..pairs import BrokenEntry, DataError, RawPair

SPLITS = {"train": "train.json", "validation": "valid.json", "test": "test.json"}
FIELDS = ("uid", "img0", "img1")


def read_item(item: Any, images: Path) -> RawPair:
    known = item if isinstance(item, dict) else {}
    wrong = [name for name in FIELDS if not isinstance(known.get(name), str) or not known[name]]
    if wrong:
        raise DataError(f"no {wrong[0]!r} that is a string")
    sents = known.get("sents")
    if not isinstance(sents, list) or not sents or not all(isinstance(sentence, str) for sentence in sents):
        raise DataError(f"{known['uid']} has no 'sents' that is a list of strings")
    # By uid: the 495 items of test have only 446 different image pairs.
    return RawPair(known["uid"], inside(images, known["img0"]), inside(images, known["img1"]), sents)


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
        splits = [split for split, name in SPLITS.items() if (self.root / name).is_file()]
        if not splits:
            raise self.missing(SPLITS["train"])
        return splits

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        path, images = self.root / SPLITS[split], self.root / "images"
        if not path.is_file():
            raise self.missing(SPLITS[split])
        items = read_json(path)
        if not isinstance(items, list):
            raise DataError(f"{str(path)!r} holds a {type(items).__name__}, expected a list")
        places = ((f"{str(path)!r}, item {index}", item) for index, item in enumerate(items))
        return read_each(places, lambda item: read_item(item, images))
