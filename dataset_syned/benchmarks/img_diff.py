"""Img-Diff: generated pictures in which one object became another, or was removed, described box by box by a model.

    python -m dataset_syned fetch img_diff && python -m dataset_syned prepare img_diff

A raw annotation is an item of img_diff_object_replacement.json (as the paper prints it, shortened):

    {"path": "./filtered_new_edit_data/2_2311_0", "bbox": "[0.86, 0.41, 0.98, 0.54]",
     "captions1": "The front of a truck.", "captions2": "A yellow tractor.",
     "conversations": [.., {"from": "gpt", "value": "The left image shows .."}]}

The images are `<path>_0.jpg` and `<path>_1.jpg`. Two pictures can differ in several boxes, each an item: they become
one pair, with an answer for each as its captions and the objects as `units`. The items of
img_diff_object_removal.json are read in the same way; that form was not seen, nor which of its images has the object.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..annotations import inside, read_each, required_text
from ..conversations import answer, read_conversations
from ..pair_builder import Mirror, PairBuilder
from ..pairs import BrokenEntry, DataError, RawPair

SOURCE = "datajuicer/Img-Diff"
# Part of the names of a file and of its archive -> the change type of its pairs.
FILES = {"object_replacement": "replace", "object_removal": ""}


def read_box(text: Any) -> list[float]:
    """Return left, top, right and bottom as shares of the image. Raises: DataError unless there are four numbers."""
    try:
        box = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        box = None
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(edge, (int, float)) for edge in box):
        raise DataError(f"bbox={text!r}, expected four numbers")
    return box


def read_item(entry: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Return the path of the images without their ends, the answer, and the unit of one box."""
    unit = {"thing": entry["captions1"], "action": "replace", "other": entry["captions2"]}
    return required_text(entry["path"], "path"), answer(entry), unit | {"box": read_box(entry["bbox"])}


class ImgDiff(PairBuilder):
    """Img-Diff's pairs. Published is the number of boxes, about 12,700 replacements, not of pairs."""

    DESCRIPTION = "Img-Diff: generated pictures with a replaced or removed object, described by a model per box."
    LICENSE = "Apache-2.0"
    HOMEPAGE = f"https://huggingface.co/datasets/{SOURCE}"
    CITATION = """@inproceedings{jiao2025imgdiff,
  title={Img-Diff: Contrastive Data Synthesis for Multimodal Large Language Models},
  author={Jiao, Qirui and Chen, Daoyuan and Huang, Yilun and Ding, Bolin and Li, Yaliang and Shen, Ying},
  booktitle={IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year={2025}
}"""
    MIRRORS = (Mirror(SOURCE, "main", ("img_diff_object_*.json", "object_replacement.zip", "object_removal.zip")),)
    BY_HAND = (
        f"Put img_diff_object_replacement.json and img_diff_object_removal.json of {HOMEPAGE} there, and unpack the "
        "archives object_replacement.zip and object_removal.zip next to them, or each into a folder of its own name."
    )

    def files(self) -> dict[str, Path]:
        """Return the files of annotations that are there, by the name of their kind of change."""
        paths = {name: self.root / f"img_diff_{name}.json" for name in FILES}
        return {name: path for name, path in paths.items() if path.exists()}

    def raw_splits(self) -> list[str]:
        if not self.files():
            raise self.missing("img_diff_object_replacement.json")
        return ["train"]

    def images_folder(self, name: str) -> Path:
        """Return the folder to which the paths of a file are relative; an archive may be unpacked into its own."""
        return self.root / name if (self.root / name).is_dir() else self.root

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        for name, path in self.files().items():
            yield from self.file_pairs(name, path)

    def file_pairs(self, name: str, path: Path) -> Iterator[RawPair | BrokenEntry]:
        """Yield the pairs of one file, each with all its boxes."""
        boxes: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for item in read_conversations(path, read_item):
            if isinstance(item, BrokenEntry):
                yield item
            else:
                boxes.setdefault(item[0], []).append(item[1:])
        folder = self.images_folder(name)

        def read(stem: str) -> RawPair:
            answers, units = zip(*boxes[stem], strict=True)
            images = inside(folder, f"{stem}_0.jpg"), inside(folder, f"{stem}_1.jpg")
            known = {"units": list(units)} if FILES[name] else {"boxes": [unit["box"] for unit in units]}
            return RawPair(f"{name}-{Path(stem).name}", *images, list(answers), FILES[name], known)

        yield from read_each(((f"{str(path)!r}, path {stem!r}", stem) for stem in boxes), read)
