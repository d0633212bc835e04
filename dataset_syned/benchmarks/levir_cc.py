"""LEVIR-CC: two aerial views of one place, years apart, with five sentences on what was built (or on no change).

    python -m dataset_syned fetch levir_cc && python -m dataset_syned prepare levir_cc

A raw annotation is an entry of `images` in LevirCCcaptions.json:

    {"filepath": "train", "filename": "train_000016.png", "split": "train", "changeflag": 1,
     "sentences": [{"raw": " a road is built .", "tokens": ["a", "road", "is", "built"]}, ..]}

LEVIR-MCI, the later release of the same pairs with masks, has the same layout and is read too. levir_family.py reads
the sets that took over this form.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..annotations import Located, by_split, inside, read_each, read_json, say_no_change
from ..pair_builder import Mirror, PairBuilder
from ..pairs import NO_CHANGE, BrokenEntry, DataError, RawPair

SPLITS = {"train": "train", "validation": "val", "test": "test"}  # our name -> the authors'


def caption(sentence: dict[str, Any]) -> str:
    """Return a sentence without the blanks and the final dot of `raw`; not every copy has `tokens`."""
    return " ".join(sentence["tokens"]) if "tokens" in sentence else sentence["raw"].strip(" .\n")


def change_type_of(entry: dict[str, Any], captions: list[str]) -> str:
    """Return the change type by the authors' flag; copies without it have fixed sentences for no change."""
    flag = entry.get("changeflag", 0 if say_no_change(captions) else 1)
    if flag not in (0, 1):
        raise ValueError(f"changeflag={flag!r}, use 0 or 1")
    return NO_CHANGE if flag == 0 else ""


def read_pair(entry: dict[str, Any], folders: tuple[Path, Path]) -> RawPair:
    """Return the pair of an entry, whose images are in the folders of the first and the second time."""
    filename = entry["filename"]
    pair_id = Path(filename).stem
    captions = [caption(sentence) for sentence in entry["sentences"]]
    if not captions or not all(captions):
        raise ValueError(f"pair {pair_id!r} has no caption, or one without text")
    before, after = (inside(folder, filename) for folder in folders)
    return RawPair(pair_id, before, after, captions, change_type_of(entry, captions))


def read_images(path: Path) -> list[Located]:
    """Return the list `images` of a file of annotations, each entry with its place."""
    images = read_json(path, dict).get("images")
    if not isinstance(images, list):
        raise DataError(f"{str(path)!r} has no list 'images'")
    return [(f"{str(path)!r}, images[{number}]", entry) for number, entry in enumerate(images)]


class LevirCc(PairBuilder):
    DESCRIPTION = (
        "LEVIR-CC: aerial views of one place at two times, five sentences each, half of them without a change."
    )
    LICENSE = "none stated (LEVIR-MCI, the later release: MIT, for academic purposes only)"
    HOMEPAGE = "https://github.com/Chen-Yang-Liu/RSICC"
    CITATION = """@article{liu2022remote,
  title={Remote Sensing Image Change Captioning With Dual-Branch Transformers: A New Method and a Large Scale Dataset},
  author={Liu, Chenyang and Zhao, Rui and Chen, Hao and Zou, Zhengxia and Shi, Zhenwei},
  journal={IEEE Transactions on Geoscience and Remote Sensing},
  volume={60},
  pages={1--20},
  year={2022}
}"""
    MIRRORS = (Mirror("lcybuaa/LEVIR-CC", "main", ("Levir-CC-dataset.zip",)),)
    BY_HAND = (
        "Download Levir-CC-dataset.zip (2.7 GB) from https://huggingface.co/datasets/lcybuaa/LEVIR-CC and unpack it "
        "so that LevirCCcaptions.json and images/{train,val,test}/{A,B}/ are in that folder."
    )
    EXPECTED = {"default": {"train": 6815, "validation": 1333, "test": 1929}}

    ANNOTATIONS = "LevirCCcaptions.json"  # in the data folder or one of PLACES below it: copies differ
    PLACES = ("", "images", "Levir-CC-dataset", "Levir-CC-dataset/images")
    BEFORE, AFTER = "A", "B"  # folders below that of a split

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        folder = self.images_folder() / SPLITS[split]
        folders = folder / self.BEFORE, folder / self.AFTER
        return read_each(self.listed().get(split, []), lambda entry: read_pair(entry, folders))

    def listed(self) -> dict[str, list[Located | BrokenEntry]]:
        """Return the entries of each split, with their places; images without an entry are not pairs."""
        return by_split(read_images(self.annotations()), SPLITS)

    def annotations(self) -> Path:
        """Return the file of annotations. Raises: DataError, with BY_HAND, if it is missing."""
        for folder in self.PLACES:
            if (path := self.root / folder / self.ANNOTATIONS).exists():
                return path
        raise self.missing(self.ANNOTATIONS)

    def images_folder(self) -> Path:
        """Return the folder with the images of all splits."""
        folder = self.annotations().parent
        return folder / "images" if (folder / "images").is_dir() else folder
