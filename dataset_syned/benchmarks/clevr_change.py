"""CLEVR-Change: drawn scenes that differ by one change, or by nothing but light and camera.

    python -m dataset_syned prepare clevr_change        # raw files in data/clevr_change, see BY_HAND

Every scene gives two pairs. Their ids are those of the authors' result files: `006594.png` for the changed scene,
`006594.png_n` for the same scene seen again. The raw annotations of a scene:

    splits.json                {"train": [6594, ..], "val": .., "test": ..}
    change_captions.json       {"CLEVR_default_006594.png": ["the tiny cube became blue", ..], ..}
    no_change_captions.json    {"CLEVR_default_006594.png": ["no change was made", ..], ..}
    type_mapping.json          {"color": ["006594.png", ..], "material": .., "add": .., "drop": .., "move": ..}
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..annotations import are_texts, read_each, read_json
from ..pair_builder import PairBuilder
from ..pairs import NO_CHANGE, BrokenEntry, DataError, RawPair

SPLITS = {"train": "train", "validation": "val", "test": "test"}  # our name -> the authors'
TYPES = {"color": "color", "material": "material", "add": "add", "drop": "remove", "move": "move"}  # theirs -> ours
ANNOTATIONS = ("splits.json", "change_captions.json", "no_change_captions.json", "type_mapping.json")


def split_numbers(path: Path) -> dict[str, list[int]]:
    """Return the scene numbers of each split, in the file's order. Raises: DataError for other content."""
    data = read_json(path, dict)
    splits = {ours: data[theirs] for ours, theirs in SPLITS.items() if data.get(theirs)}
    if not splits:
        raise DataError(f"{str(path)!r} has no list 'train', 'val' or 'test', it has: {', '.join(data) or 'nothing'}")
    for split, numbers in splits.items():
        # File names are made of these, so nothing but a number gets through.
        wrong = [n for n in numbers if type(n) is not int or n < 0] if isinstance(numbers, list) else [numbers]
        if wrong:
            raise DataError(f"{str(path)!r}, {SPLITS[split]!r}: {wrong[0]!r} is not a scene number")
    return splits


def sentences_of(captions: dict[str, Any], key: str, path: Path) -> list[str]:
    """Return the references under a key of a captions file. Raises: DataError if they are not a list of strings."""
    sentences = captions.get(key)
    if not sentences or not are_texts(sentences):
        raise DataError(f"{str(path)!r} has no list of sentences for {key!r}")
    return sentences


def types_of(path: Path) -> dict[str, str]:
    """Return the authors' type of change of each scene, by `006594.png`.

    Raises: DataError for an unknown type, or for a scene that has two.
    """
    types: dict[str, str] = {}
    for theirs, names in read_json(path, dict).items():
        if theirs not in TYPES:
            raise DataError(f"{str(path)!r}: unknown change {theirs!r}, expected one of {', '.join(TYPES)}")
        if not are_texts(names):
            raise DataError(f"{str(path)!r}, {theirs!r}: not a list of names, e.g. '006594.png'")
        for name in names:
            if types.setdefault(name, theirs) != theirs:
                raise DataError(f"{str(path)!r}: {name!r} is listed under both {types[name]!r} and {theirs!r}")
    return types


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
        "and no_change_captions.json. That link has been reported dead; any copy with these names works."
    )
    SUBFOLDER = "data"
    EXPECTED = {"default": {"train": 67660, "validation": 3976, "test": 7970}}

    def annotations(self) -> list[Path]:
        """Return the files ANNOTATIONS. Raises: DataError, with BY_HAND, if one is missing."""
        return [self.require(name) for name in ANNOTATIONS]

    def raw_splits(self) -> list[str]:
        return list(split_numbers(self.annotations()[0]))

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        splits, changed_file, unchanged_file, types_file = self.annotations()
        images, changed_images, unchanged_images = (self.folder / f"{prefix}images" for prefix in ("", "sc_", "nsc_"))
        changed, unchanged = read_json(changed_file, dict), read_json(unchanged_file, dict)
        types = types_of(types_file)

        def read(entry: tuple[str, bool]) -> RawPair:
            name, is_changed = entry
            key = f"CLEVR_default_{name}"  # in both caption files
            if not is_changed:
                same = unchanged_images / f"CLEVR_nonsemantic_{name}"
                return RawPair(
                    f"{name}_n", images / key, same, sentences_of(unchanged, key, unchanged_file), NO_CHANGE
                )
            if name not in types:
                raise DataError(f"{str(types_file)!r} has no type of change for {name!r}")
            theirs, after = types[name], changed_images / f"CLEVR_semantic_{name}"
            captions = sentences_of(changed, key, changed_file)
            return RawPair(name, images / key, after, captions, TYPES[theirs], {"type": theirs})

        # The number names the files. Other code uses its rank in the sorted folder, which is a different file as soon
        # as one is absent: 197 scenes have no captions.
        names = [f"{number:06d}.png" for number in split_numbers(splits).get(split, [])]
        scenes = ((f"scene {name!r}", (name, is_changed)) for name in names for is_changed in (True, False))
        return read_each(scenes, read)
