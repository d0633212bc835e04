"""CLEVR-Change: drawn scenes that differ by one change, or by nothing but light and camera.

    python -m dataset_syned prepare clevr_change        # raw files in data/clevr_change, see BY_HAND

Every scene gives two pairs. Their ids are those of the authors' result files: `006594.png` for the changed scene,
`006594.png_n` for the same scene seen again. change_captions.json, type_mapping.json and splits.json:

    {"CLEVR_default_006594.png": ["the tiny cube became blue", ..]}    {"color": ["006594.png", ..], "drop": ..}
    {"train": [6594, ..], "val": [..], "test": [..]}
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..annotations import read_each, read_json
from ..pair_builder import PairBuilder
from ..pairs import NO_CHANGE, BrokenEntry, DataError, RawPair

SPLITS = {"train": "train", "validation": "val", "test": "test"}  # our name -> the authors'
CHANGE_TYPE_OF_NAME = {"color": "color", "material": "material", "add": "add", "drop": "remove", "move": "move"}
ANNOTATIONS = ("splits.json", "change_captions.json", "no_change_captions.json", "type_mapping.json")


def read_object(path: Path) -> dict[str, Any]:
    """Raises: DataError for JSON that is no object."""
    data = read_json(path)
    if not isinstance(data, dict):
        raise DataError(f"{str(path)!r} holds a {type(data).__name__}, expected a JSON object")
    return data


def split_numbers(path: Path) -> dict[str, list[int]]:
    """The scene numbers of each split, in the file's order. Raises: DataError for anything but whole numbers."""
    data = read_object(path)
    splits = {ours: data[theirs] for ours, theirs in SPLITS.items() if data.get(theirs)}
    if not splits:
        raise DataError(f"{str(path)!r} has no list 'train', 'val' or 'test', it has: {', '.join(data) or 'nothing'}")
    for split, numbers in splits.items():
        # File names are made of these, so nothing but a number gets through.
        wrong = [n for n in numbers if type(n) is not int or n < 0] if isinstance(numbers, list) else [numbers]
        if wrong:
            raise DataError(f"{str(path)!r}, {SPLITS[split]!r}: {wrong[0]!r} is no scene number")
    return splits


def sentences_of(captions: dict[str, Any], key: str, path: Path) -> list[str]:
    """The references under a key of a captions file. Raises: DataError where they are not a list of strings."""
    sentences = captions.get(key)
    if not isinstance(sentences, list) or not sentences or not all(isinstance(s, str) for s in sentences):
        raise DataError(f"{str(path)!r} has no list of sentences for {key!r}")
    return sentences


def change_types_of(path: Path) -> dict[str, str]:
    """The type of change of each scene, by `006594.png`. Raises: DataError for an unknown change_type."""
    change_types = {}
    for theirs, names in read_object(path).items():
        if theirs not in CHANGE_TYPE_OF_NAME:
            raise DataError(f"{str(path)!r}: unknown change {theirs!r}, use one of {', '.join(CHANGE_TYPE_OF_NAME)}")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{str(path)!r}, {theirs!r}: no list of names such as '006594.png'")
        change_types |= dict.fromkeys(names, CHANGE_TYPE_OF_NAME[theirs])
    return change_types


class ClevrChange(PairBuilder):
    DESCRIPTION = "CLEVR-Change: drawn scenes with one change, and as many with none, under other light and camera."
    LICENSE = "none stated"
    HOMEPAGE = "https://github.com/Seth-Park/RobustChangeCaptioning"
    CITATION = """@inproceedings{park2019robust,
  title = {Robust Change Captioning},
  author = {Park, Dong Huk and Darrell, Trevor and Rohrbach, Anna},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision (ICCV)},
  year = {2019}
}"""
    BY_HAND = (
        "Unpack clevr_change.tar.gz, linked at https://github.com/Seth-Park/RobustChangeCaptioning, there: it gives a "
        "folder data/ with images/, sc_images/, nsc_images/, splits.json, type_mapping.json, change_captions.json "
        "and no_change_captions.json. That link has been reported dead; any copy that holds these names will do."
    )
    EXPECTED = {"default": {"train": 67660, "validation": 3976, "test": 7970}}

    @property
    def folder(self) -> Path:
        """Where the files are: the archive puts them into a folder `data`."""
        unpacked = self.root / "data"
        return unpacked if unpacked.is_dir() else self.root

    def annotations(self) -> list[Path]:
        """The files ANNOTATIONS. Raises: DataError, with BY_HAND, where one is missing."""
        for name in ANNOTATIONS:
            if not (self.folder / name).is_file():
                raise self.missing(name)
        return [self.folder / name for name in ANNOTATIONS]

    def raw_splits(self) -> list[str]:
        return list(split_numbers(self.annotations()[0]))

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        splits, changed_file, unchanged_file, types = self.annotations()
        images, changed_images, unchanged_images = (self.folder / f"{prefix}images" for prefix in ("", "sc_", "nsc_"))
        changed, unchanged, change_types = (
            read_object(changed_file),
            read_object(unchanged_file),
            change_types_of(types),
        )

        def read(entry: tuple[str, bool]) -> RawPair:
            name, is_changed = entry
            key = f"CLEVR_default_{name}"  # in both caption files
            if not is_changed:
                same = unchanged_images / f"CLEVR_nonsemantic_{name}"
                sentences = sentences_of(unchanged, key, unchanged_file)
                return RawPair(f"{name}_n", images / key, same, sentences, NO_CHANGE)
            if name not in change_types:
                raise DataError(f"{str(types)!r} names no change for {name!r}")
            after = changed_images / f"CLEVR_semantic_{name}"
            return RawPair(name, images / key, after, sentences_of(changed, key, changed_file), change_types[name])

        # The number names the files. Its rank in the sorted folder, which other code uses, is another file as soon as
        # one is absent: 197 scenes have no captions.
        names = [f"{number:06d}.png" for number in split_numbers(splits).get(split, [])]
        scenes = ((f"scene {name!r}", (name, is_changed)) for name in names for is_changed in (True, False))
        return read_each(scenes, read)
