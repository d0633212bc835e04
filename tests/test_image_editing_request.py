"""Image-Editing-Request: an item is a pair, also where two items share their images; sentences stay as written."""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from dataset_syned.benchmarks.image_editing_request import ImageEditingRequest
from dataset_syned.pairs import FEATURES, DataError, read_row

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "image-editing-request"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the real annotations are not in {REAL}")


def item(uid: str, img0: str, img1: str, *sents: str) -> dict[str, Any]:
    return {"img0": img0, "img1": img1, "sents": list(sents), "uid": uid}


ITEMS = [
    item("Zhopped_2", "b.jpg", "a.JPG", " Change the back ground ", 'add "x', "add x"),
    item("Reddit_1052", "b.jpg", "a.JPG", "remove it"),  # the same images
    item("Reddit_7", "move.gif", "after.png", "make it move"),
]


def write_tree(root: Path, **splits: Any) -> Path:
    images = root / "images"
    images.mkdir(parents=True)
    for number, name in enumerate(("a.JPG", "after.png", "b.jpg", "unused.jpeg")):
        Image.new("RGB", (12 + number, 8), "red").save(images / name)
    frames = [Image.new("RGB", (12, 8), color) for color in ("blue", "red")]
    frames[0].save(images / "move.gif", save_all=True, append_images=frames[1:])
    for split, content in splits.items():
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


def write_tiny(root: Path, broken: bool) -> None:
    write_tree(root, train=[{"uid": "x"}] * broken + ITEMS, valid=ITEMS[:1], test=ITEMS)


def build(root: Path) -> ImageEditingRequest:
    return ImageEditingRequest(root=root, cache_dir=str(root.parent / "cache"))


def test_every_item_is_a_pair(tmp_path: Path) -> None:
    builder = build(write_tree(tmp_path / "raw", test=ITEMS, valid=ITEMS[:1]))
    assert builder.raw_splits() == ["validation", "test"]
    builder.download_and_prepare()
    rows = builder.as_dataset(split="test")
    assert rows.features == FEATURES
    assert rows["pair_id"][:] == ["Zhopped_2", "Reddit_1052", "Reddit_7"]
    assert rows["captions"][:] == [[" Change the back ground ", 'add "x', "add x"], ["remove it"], ["make it move"]]
    assert set(rows["change_type"]) == set(rows["provenance"]) == {""}
    assert [(row["before"].width, row["after"].width) for row in rows] == [(14, 12), (14, 12), (12, 13)]
    assert rows[2]["before"].convert("RGB").getpixel((0, 0)) == (0, 0, 255), "the first frame"
    raw = rows.cast_column("before", datasets.Image(decode=False))[2]["before"]
    assert raw == {"path": "move.gif", "bytes": (tmp_path / "raw" / "images" / "move.gif").read_bytes()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"img0": "a.JPG", "img1": "b.jpg", "sents": ["x"]}], "test.json', item 0: no 'uid' that is a string"),
        ([*ITEMS, {"uid": "Reddit_8", "img0": "a.JPG", "sents": ["x"]}], "test.json', item 3: no 'img1'"),
        ([item("Reddit_8", "a.JPG", "b.jpg") | {"sents": "x"}], "item 0: Reddit_8 has no 'sents' that is a list"),
        (["Reddit_8"], "test.json', item 0: no 'uid'"),
        ({"Reddit_8": {}}, "test.json' contains a dict, expected a list"),
        ([item("Reddit_8", "a.JPG", "../../../etc/passwd", "x")], "name '../../../etc/passwd' leads out of"),
        ([item("Reddit_8", "/etc/passwd", "a.JPG", "x")], "name '/etc/passwd' leads out of"),
    ],
)
def test_broken_annotations_are_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(build(write_tree(tmp_path / "raw", test=content)).raw_pairs("test"))


def test_missing_files_are_named(tmp_path: Path) -> None:
    builder = build(write_tree(tmp_path / "raw", test=ITEMS))
    with pytest.raises(DataError, match="valid.json is missing in .*github.com/airsplay/VisualRelationships"):
        list(builder.raw_pairs("validation"))
    (tmp_path / "raw" / "images" / "after.png").unlink()
    with pytest.raises(DataError, match="pair 'Reddit_7': image .*after.png' is missing"):
        list(map(read_row, builder.raw_pairs("test")))
    (tmp_path / "raw" / "test.json").unlink()
    with pytest.raises(DataError, match="train.json is missing"):
        builder.raw_splits()


@needs_real
def test_the_real_annotations_give_the_published_counts() -> None:
    builder = ImageEditingRequest(root=REAL)
    pairs = {split: list(builder.raw_pairs(split)) for split in builder.raw_splits()}
    assert {split: len(part) for split, part in pairs.items()} == builder.EXPECTED["default"]
    assert len({pair.pair_id for part in pairs.values() for pair in part}) == 3939
    assert len({(pair.before, pair.after) for pair in pairs["test"]}) == 446
    assert [sum(len(pair.captions) for pair in part) for part in pairs.values()] == [3061, 1149, 1485]


def published_references(name: str) -> dict[str, list[str]]:
    references = defaultdict(list)
    for annotation in json.loads((REAL / "coco" / name).read_text())["annotations"]:
        references[annotation["image_id"]].append(annotation["caption"])
    return references


@needs_real
def test_references_equal_the_published_reference_files() -> None:
    builder = ImageEditingRequest(root=REAL)
    ours = {pair.pair_id: pair.captions for pair in builder.raw_pairs("test")}
    published = published_references("IER_test_change_captions_reformat.json")
    assert ours == published and list(ours) == list(published)

    def words(captions: list[str]) -> list[list[str]]:
        return [re.findall(r"\w+", caption.lower()) for caption in captions]

    # The published validation references were lower-cased and lost quotation marks, full stops and double blanks.
    ours = {pair.pair_id: words(pair.captions) for pair in builder.raw_pairs("validation")}
    published = published_references("IER_val_change_captions_reformat.json")
    assert ours == {uid: words(captions) for uid, captions in published.items()}
    assert list(ours) == list(published)
