"""CLEVR-DC: one pair for each number, the same for every file layout; only unchanged pairs have a change_type."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataset_syned.benchmarks.clevr_dc import LAYOUTS, ClevrDc, FileLayout
from dataset_syned.pairs import FEATURES, DataError, read_row

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "clevr-dc"
AUTHORS = LAYOUTS[0]
SPLITS = {"train": [10, 2], "val": [], "test": [7200]}
CAPTIONS = {
    2: ["no change was made", "There is no difference."],
    9: ["a pair of no split"],
    10: ["the small ball turned red", "the ball is red now"],
    7200: ["no change was made", "the small cube has moved"],
}
COLORS = {2: "red", 9: "green", 10: "blue", 7200: "white"}  # sorted by name, 10 comes before 2


def write_tree(folder: Path, layout: FileLayout, splits: Any = SPLITS, captions: Any = None) -> Path:
    for height, name in enumerate((layout.before, layout.after), start=8):
        (folder / name).mkdir(parents=True)
        for number, color in COLORS.items():
            Image.new("RGB", (12, height), color).save(folder / name / layout.image.format(number))
    if captions is None:
        captions = {layout.key.format(number): sentences for number, sentences in CAPTIONS.items()}
    (folder / layout.split).write_text(json.dumps(splits))
    (folder / layout.captions).write_text(json.dumps(captions))
    return folder


def write_tiny(root: Path, broken: bool) -> None:
    write_tree(root, AUTHORS, SPLITS | {"train": [10, *[9999] * broken, 2], "val": [9]})


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.split)
def test_every_layout_gives_the_same_rows(tmp_path: Path, layout: FileLayout) -> None:
    builder = ClevrDc(root=write_tree(tmp_path / "raw", layout), cache_dir=str(tmp_path / "cache"))
    assert builder.raw_splits() == ["train", "test"]
    builder.download_and_prepare()
    rows = [*builder.as_dataset(split="train"), *builder.as_dataset(split="test")]
    assert builder.as_dataset(split="train").features == FEATURES
    assert [(row["pair_id"], row["captions"], row["change_type"], row["provenance"]) for row in rows] == [
        ("10", CAPTIONS[10], "", ""),
        ("2", CAPTIONS[2], "none", ""),
        ("7200", CAPTIONS[7200], "", ""),
    ]
    for row, color in zip(rows, [(0, 0, 255), (255, 0, 0), (255, 255, 255)], strict=True):
        assert row["before"].getpixel((0, 0)) == row["after"].getpixel((0, 0)) == color
        assert (row["before"].height, row["after"].height) == (8, 9)


@pytest.mark.parametrize(
    ("splits", "captions", "message"),
    [
        ({"test": ["../../etc/passwd"]}, None, "split.json', 'test': '../../etc/passwd' is not a scene number"),
        ({"training": [2]}, None, "split.json' has no list 'train', 'val' or 'test', it has: training"),
        ({"test": [3]}, None, "captions.json' has no list of sentences for '3'"),
        (SPLITS, {"7200": "the cube has moved"}, "captions.json' has no list of sentences for '7200'"),
        (SPLITS, [["the cube has moved"]], "captions.json' contains a list, expected a JSON object"),
    ],
)
def test_broken_annotations_are_named(tmp_path: Path, splits: Any, captions: Any, message: str) -> None:
    builder = ClevrDc(root=write_tree(tmp_path, AUTHORS, splits, captions))
    with pytest.raises(DataError, match=message):
        builder.raw_splits()
        list(builder.raw_pairs("test"))


def test_missing_files_are_named(tmp_path: Path) -> None:
    builder = ClevrDc(root=write_tree(tmp_path, AUTHORS))
    (tmp_path / "aft" / "7200.png").unlink()
    with pytest.raises(DataError, match="pair '7200': image .*aft/7200.png' is missing"):
        list(map(read_row, builder.raw_pairs("test")))
    (tmp_path / "captions.json").unlink()
    with pytest.raises(DataError, match="split.json with captions.json is missing in .*bef.tar.gz"):
        builder.raw_splits()


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real split is not in {REAL}")
def test_the_real_split_gives_the_published_counts(tmp_path: Path) -> None:
    """The caption file of the real set is not available, so one sentence replaces each list."""
    (tmp_path / "split.json").write_text((REAL / "split.json").read_text())
    (tmp_path / "captions.json").write_text(json.dumps({str(number): ["a sentence"] for number in range(48000)}))
    builder = ClevrDc(root=tmp_path)
    assert {split: builder.count_pairs(split) for split in builder.raw_splits()} == builder.EXPECTED["default"]
    assert next(builder.raw_pairs("test")).pair_id == "7200"
