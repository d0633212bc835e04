"""Spot-the-Diff: annotators of one pair are merged, blank sentences dropped, references as in the papers."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataset_syned.benchmarks.spot_the_diff import SpotTheDiff
from dataset_syned.pairs import FEATURES, DataError, read_row

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
REAL = SHARED / "spot-the-diff"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the real annotations are not in {REAL}")
ROWS = [
    {"img_id": "400", "sentences": ["two people have moved", "a van is gone"]},
    {"img_id": "56", "sentences": [""]},
    {"img_id": "256", "sentences": ["", "a man left", "the car is new"]},
    {"img_id": "400", "sentences": ["there is no van", "two people have moved"]},
    {"img_id": "256", "sentences": [""]},
]
IMAGES = {"56": "red", "256": "green", "400": "blue", "1000": "white"}  # the last belongs to no row


def write_tree(folder: Path, **splits: Any) -> Path:
    images, annotations = folder / "resized_images", folder / "annotations"
    images.mkdir(parents=True)
    annotations.mkdir()
    for name, color in IMAGES.items():
        Image.new("RGB", (12, 8), color).save(images / f"{name}.png")
        Image.new("RGB", (12, 9), color).save(images / f"{name}_2.png")
        Image.new("RGB", (12, 10), color).save(images / f"{name}_diff.jpg")
    for split, content in splits.items():
        (annotations / f"{split}.json").write_text(json.dumps(content))
    return folder


def write_tiny(root: Path, broken: bool) -> None:
    write_tree(root, train=[*ROWS, *[{"img_id": "1000", "sentences": 5}] * broken], val=ROWS[:3], test=ROWS)


def build(root: Path, config: str = "default") -> SpotTheDiff:
    return SpotTheDiff(config_name=config, root=root, cache_dir=str(root.parent / "cache"))


@pytest.mark.parametrize(
    ("config", "captions"),
    [
        (
            "default",
            [
                ["two people have moved", "a van is gone", "there is no van", "two people have moved"],
                [""],
                ["a man left", "the car is new"],
            ],
        ),
        (
            "multi",
            [
                ["two people have moved a van is gone", "there is no van two people have moved"],
                [""],
                ["a man left the car is new"],
            ],
        ),
    ],
)
def test_rows_of_one_id_are_one_pair(tmp_path: Path, config: str, captions: list[list[str]]) -> None:
    write_tree(tmp_path / "raw" / "data", test=ROWS, val=ROWS[:1])  # as in a clone of the authors' repository
    builder = build(tmp_path / "raw", config)
    assert builder.raw_splits() == ["validation", "test"]
    builder.download_and_prepare()
    rows = builder.as_dataset(split="test")
    assert rows.features == FEATURES
    assert rows["pair_id"][:] == ["400", "56", "256"]
    assert rows["captions"][:] == captions
    assert set(rows["change_type"]) == set(rows["provenance"]) == {""}
    assert [row["before"].getpixel((0, 0)) for row in rows] == [(0, 0, 255), (255, 0, 0), (0, 128, 0)]
    assert [(row["before"].height, row["after"].height) for row in rows] == [(8, 9)] * 3


@pytest.mark.parametrize("config", ["default", "multi"])
def test_train_has_no_pair_without_text_and_the_scored_splits_keep_theirs(tmp_path: Path, config: str) -> None:
    builder = build(write_tree(tmp_path / "raw", train=ROWS, val=ROWS, test=ROWS), config)
    builder.download_and_prepare()
    ids = {split: rows["pair_id"][:] for split, rows in builder.as_dataset().items()}
    assert ids == {"train": ["400", "256"], "validation": ["400", "56", "256"], "test": ["400", "56", "256"]}
    assert builder.notes() == ["train pairs left out because no caption of theirs has text: 1"]


def test_files_without_the_clones_folder_give_the_same_pairs(tmp_path: Path) -> None:
    pairs = list(build(write_tree(tmp_path / "raw", train=ROWS)).raw_pairs("train"))
    assert [pair.after.relative_to(tmp_path).as_posix() for pair in pairs] == [
        f"raw/resized_images/{img_id}_2.png" for img_id in ("400", "56", "256")
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"img_id": "400", "sentence": ["a man left"]}], "test.json', row 0: id '400' has no 'sentences'"),
        ([*ROWS, {"img_id": "1000", "sentences": "a man left"}], "test.json', row 5: id '1000' has no 'sentences'"),
        ([{"img_id": 400, "sentences": ["a man left"]}], "test.json', row 0: no 'img_id' that is a string"),
        ([{"img_id": "400", "sentences": []}], "test.json', row 0: id '400' has no 'sentences'"),
        ({"400": ["a man left"]}, "test.json' contains a dict, expected a list"),
        ([{"img_id": "../../etc/passwd", "sentences": ["a man left"]}], "'../../etc/passwd.png' leads out of"),
    ],
)
def test_broken_annotations_are_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(build(write_tree(tmp_path / "raw", test=content)).raw_pairs("test"))


def test_missing_files_are_named(tmp_path: Path) -> None:
    builder = build(write_tree(tmp_path / "raw", test=ROWS))
    with pytest.raises(DataError, match="annotations/val.json is missing in .*github.com/harsh19/spot-the-diff"):
        list(builder.raw_pairs("validation"))
    (tmp_path / "raw" / "resized_images" / "256_2.png").unlink()
    with pytest.raises(DataError, match="pair '256': image .*256_2.png' is missing"):
        list(map(read_row, builder.raw_pairs("test")))
    (tmp_path / "raw" / "annotations" / "test.json").unlink()
    with pytest.raises(DataError, match="annotations/train.json is missing"):
        builder.raw_splits()


@needs_real
@pytest.mark.parametrize("config", ["default", "multi"])
def test_the_real_annotations_give_the_expected_counts(config: str) -> None:
    builder = SpotTheDiff(config_name=config, root=REAL)
    splits = {split: list(builder.raw_pairs(split)) for split in builder.raw_splits()}
    assert {split: len(part) for split, part in splits.items()} == builder.EXPECTED[config]
    pairs = {pair.pair_id: pair.captions for part in splits.values() for pair in part}
    assert builder.notes() == ["train pairs left out because no caption of theirs has text: 37"]
    assert len(pairs) == 11329, "no id is in two splits"
    assert sum(captions == [""] for captions in pairs.values()) == 37 + 4 + 7
    assert not any("" in captions and len(captions) > 1 for captions in pairs.values())
    # Of 23093 sentences in 12562 rows, 18 are blank though their pair has others; 12 of these are alone in their row.
    assert sum(map(len, pairs.values())) == {"default": 23093 - 18, "multi": 12562 - 12}[config]


@needs_real
@pytest.mark.parametrize(
    ("oracle", "suffix"),
    [
        ("CLIP4IDC/spot_total_change_captions_reformat.json", ".png"),
        ("spot-the-diff/predictions/ddla_rerun_gtfile.json", ""),
    ],
)
def test_references_equal_the_published_reference_files(oracle: str, suffix: str) -> None:
    published = defaultdict(list)
    for annotation in json.loads((SHARED / oracle).read_text())["annotations"]:
        published[annotation["image_id"]].append(annotation["caption"])
    pairs = list(SpotTheDiff(root=REAL).raw_pairs("test"))
    ours = {pair.pair_id + suffix: pair.captions for pair in pairs}
    assert ours == published and list(ours) == list(published)
    assert (len(ours), sum(map(len, ours.values()))) == (1270, 2107)


@pytest.mark.parametrize("config", ["default", "multi"])
def test_pairs_are_unchanged_if_all_annotators_say_so(tmp_path: Path, config: str) -> None:
    same, gone = ["There is no difference.", "no change"], ["a van is gone"]
    rows = [("400", same), ("56", same), ("400", same), ("56", gone), ("256", [""])]
    write_tree(tmp_path / "raw", test=[{"img_id": img_id, "sentences": sentences} for img_id, sentences in rows])
    pairs = build(tmp_path / "raw", config).raw_pairs("test")
    assert {pair.pair_id: pair.change_type for pair in pairs} == {"400": "none", "56": "", "256": ""}
