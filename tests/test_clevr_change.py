"""CLEVR-Change: two pairs for each scene, found by number and not by rank, each with its change_type."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataset_syned.benchmarks.clevr_change import ClevrChange
from dataset_syned.pairs import FEATURES, DataError, read_row

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "clevr-change"
# 597 has images but no captions, as in the real set: matched by rank, 598 would get its images.
NUMBERS, COLORS = (596, 597, 598), ("red", "green", "blue")


def default_name(number: int) -> str:
    return f"CLEVR_default_{number:06d}.png"


def annotations() -> dict[str, Any]:
    return {
        "splits.json": {"train": [598], "val": [], "test": [16001, 596]},
        "change_captions.json": {
            default_name(596): ["the tiny cube became blue", "the cube; changed"],
            default_name(598): ["the ball is gone"],
            default_name(16001): ["a ball was added"],
        },
        "no_change_captions.json": {
            default_name(596): ["no change was made"],
            default_name(598): ["nothing has changed", "the scene remains the same"],
            default_name(16001): ["no change has occured"],
        },
        "type_mapping.json": {
            "color": ["000000.png"],
            "material": ["000596.png"],
            "add": ["016001.png"],
            "drop": ["000598.png"],
            "move": [],
        },
    }


def write_tree(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    """Write the authors' files, with some contents replaced (None omits a file)."""
    names = ("images/CLEVR_default", "sc_images/CLEVR_semantic", "nsc_images/CLEVR_nonsemantic")
    for height, name in enumerate(names, start=8):  # height encodes the folder, colour the scene
        for number, color in zip((*NUMBERS, 16001), (*COLORS, "white"), strict=True):
            path = folder / f"{name}_{number:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (12, height), color).save(path)
    for name, content in (annotations() | (changes or {})).items():
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    return folder


def write_tiny(root: Path, broken: bool) -> None:
    splits = {"train": [598, *[597] * broken], "val": [596], "test": [16001]}
    write_tree(root, {"splits.json": splits})


def height_and_color(image: Image.Image) -> tuple[int, tuple[int, ...]]:
    return image.height, image.convert("RGB").getpixel((0, 0))


def test_each_scene_gives_a_changed_and_an_unchanged_pair(tmp_path: Path) -> None:
    write_tree(tmp_path / "data")  # as the archive unpacks
    builder = ClevrChange(root=tmp_path, cache_dir=str(tmp_path / "cache"))
    assert builder.raw_splits() == ["train", "test"]
    builder.download_and_prepare()
    train, test = builder.as_dataset(split="train"), builder.as_dataset(split="test")
    assert train.features == FEATURES
    texts = ("pair_id", "captions", "change_type", "provenance")
    assert [tuple(row[name] for name in texts) for row in train.to_list()] == [
        ("000598.png", ["the ball is gone"], "remove", '{"type": "drop"}'),
        ("000598.png_n", ["nothing has changed", "the scene remains the same"], "none", ""),
    ]
    assert [tuple(row[name] for name in texts) for row in test.to_list()] == [
        ("016001.png", ["a ball was added"], "add", '{"type": "add"}'),
        ("016001.png_n", ["no change has occured"], "none", ""),
        ("000596.png", ["the tiny cube became blue", "the cube; changed"], "material", '{"type": "material"}'),
        ("000596.png_n", ["no change was made"], "none", ""),
    ]
    blue = (0, 0, 255)
    assert [(height_and_color(row["before"]), height_and_color(row["after"])) for row in train] == [
        ((8, blue), (9, blue)),
        ((8, blue), (10, blue)),
    ]


def test_files_may_be_outside_the_archives_folder(tmp_path: Path) -> None:
    flat = ClevrChange(root=write_tree(tmp_path))
    assert [pair.before for pair in flat.raw_pairs("train")] == 2 * [tmp_path / "images" / default_name(598)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits.json": None}, "splits.json is missing in .*clevr_change.tar.gz"),
        ({"no_change_captions.json": None}, "no_change_captions.json is missing"),
        ({"splits.json": {"training": [1]}}, "splits.json' has no list 'train', 'val' or 'test', it has: training"),
        (
            {"splits.json": {"test": ["../../etc/passwd"]}},
            "splits.json', 'test': '../../etc/passwd' is not a scene number",
        ),
        ({"splits.json": {"test": {"596": 1}}}, "'test': {'596': 1} is not a scene number"),
        ({"splits.json": [1]}, "splits.json' contains a list, expected a JSON object"),
        ({"splits.json": {"test": [597]}, "type_mapping.json": {"move": ["000597.png"]}}, "no list of sentences for"),
        ({"change_captions.json": {default_name(16001): "a ball"}}, "change_captions.json' has no list of sentences"),
        (
            {"type_mapping.json": {"texture": []}},
            "type_mapping.json': unknown change 'texture', expected one of color",
        ),
        ({"type_mapping.json": {"move": [596]}}, "type_mapping.json', 'move': not a list of names"),
        (
            {"type_mapping.json": {"move": ["016001.png"], "color": ["016001.png"]}},
            "'016001.png' is listed under both 'move' and 'color'",
        ),
        ({"type_mapping.json": {}}, "type_mapping.json' has no type of change for '016001.png'"),
    ],
)
def test_broken_annotations_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    builder = ClevrChange(root=write_tree(tmp_path, changes))
    with pytest.raises(DataError, match=message):
        builder.raw_splits()
        list(builder.raw_pairs("test"))


def test_missing_images_are_named(tmp_path: Path) -> None:
    builder = ClevrChange(root=write_tree(tmp_path))
    (tmp_path / "nsc_images" / "CLEVR_nonsemantic_000598.png").unlink()
    with pytest.raises(DataError, match="pair '000598.png_n': image .*nonsemantic_000598.png' is missing"):
        list(map(read_row, builder.raw_pairs("train")))


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real splits are not in {REAL}")
def test_the_real_splits_give_the_published_counts(tmp_path: Path) -> None:
    """The caption files of the real set are not available, so one sentence replaces each list."""
    splits = json.loads((REAL / "splits.json").read_text())
    stand_in = {default_name(number): ["a sentence"] for numbers in splits.values() for number in numbers}
    contents = {"change_captions.json": stand_in, "no_change_captions.json": stand_in, "splits.json": splits}
    contents["type_mapping.json"] = json.loads((REAL / "type_mapping.json").read_text())
    for name, content in contents.items():
        (tmp_path / name).write_text(json.dumps(content))
    builder = ClevrChange(root=tmp_path)
    pairs = {split: list(builder.raw_pairs(split)) for split in builder.raw_splits()}
    assert {split: len(part) for split, part in pairs.items()} == builder.EXPECTED["default"]
    assert len({pair.pair_id for part in pairs.values() for pair in part}) == 2 * 39803
    assert [pair.pair_id for pair in pairs["test"][:3]] == ["006594.png", "006594.png_n", "006580.png"]
    assert Counter(pair.change_type for pair in pairs["test"]) == dict.fromkeys(
        ("color", "material", "add", "remove", "move"), 797
    ) | {"none": 3985}
