"""levir_cc: two aerial views of one place, years apart, with five sentences on what was built (or on no change).

LEVIR-MCI, the later release of the same pairs with masks, has the same layout and is read too. An entry of `images`:

    {"filename": "train_000016.png", "split": "train", "changeflag": 1, "sentences": [{"raw": " a road is built .",
     "tokens": ["a", "road", "is", "built"]}, ..]}
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..annotations import by_split, inside, read_each, read_json
from ..pair_builder import Mirror, PairBuilder
from ..pairs import NO_CHANGE, BrokenEntry, DataError, RawPair, no_change_or_unknown

ANNOTATIONS = "LevirCCcaptions.json"
SPLITS = {"train": "train", "validation": "val", "test": "test"}  # our name -> the authors'


def caption(sentence: dict[str, Any]) -> str:
    """`raw` (" there is no difference .") has blanks and a dot that `tokens` has not; not every copy has `tokens`."""
    return " ".join(sentence["tokens"]) if "tokens" in sentence else sentence["raw"].strip(" .\n")


def change_type_of(entry: dict[str, Any], captions: list[str]) -> str:
    """Return `none` by the authors' flag or, if a copy lacks it, by the captions, which deny a change."""
    flag = entry.get("changeflag")
    if flag is None:
        return no_change_or_unknown(captions)
    if flag not in (0, 1):
        raise ValueError(f"changeflag={flag!r}, which should be 0 or 1")
    return NO_CHANGE if flag == 0 else ""


def read_pair(entry: dict[str, Any], images: Path) -> RawPair:
    filename, folder = entry["filename"], images / entry["split"]  # one of SPLITS
    pair_id = Path(filename).stem
    captions = [caption(sentence) for sentence in entry["sentences"]]
    if not captions or not all(captions):
        raise ValueError(f"pair {pair_id!r} has no caption, or one without text")
    before, after = inside(folder / "A", filename), inside(folder / "B", filename)
    return RawPair(pair_id, before, after, captions, change_type_of(entry, captions))


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
        f"so that {ANNOTATIONS} and images/{{train,val,test}}/{{A,B}}/ lie in that folder."
    )
    EXPECTED = {"default": {"train": 6815, "validation": 1333, "test": 1929}}

    def raw_splits(self) -> list[str]:
        return list(self.listed())

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        images = self.images_folder()
        return read_each(self.listed().get(split, []), lambda entry: read_pair(entry, images))

    def listed(self) -> dict[str, list[tuple[str, dict[str, Any]] | BrokenEntry]]:
        """Places and entries by split. The folders hold images that have none: they are no pairs."""
        path = self.annotations()
        data = read_json(path)
        images = data.get("images") if isinstance(data, dict) else None
        if not isinstance(images, list):
            raise DataError(f"{str(path)!r} has no list 'images'")
        return by_split(((f"{str(path)!r}, images[{number}]", entry) for number, entry in enumerate(images)), SPLITS)

    def annotations(self) -> Path:
        for folder in ("", "images", "Levir-CC-dataset", "Levir-CC-dataset/images"):  # copies differ
            if (path := self.root / folder / ANNOTATIONS).is_file():
                return path
        raise self.missing(ANNOTATIONS)

    def images_folder(self) -> Path:
        beside = self.annotations().parent
        return beside / "images" if (beside / "images").is_dir() else beside
