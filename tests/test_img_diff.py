"""Img-Diff: the boxes of two pictures become one pair with as many captions and units."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataset_syned.benchmarks.img_diff import ImgDiff
from dataset_syned.pairs import DataError, RawPair

FOLDER = "filtered_new_edit_data"


def item(stem: str, text: str, box: str = "[0.1, 0.2, 0.3, 1]") -> dict[str, Any]:
    turns = [{"from": "human", "value": "what differs?"}, {"from": "gpt", "value": text}]
    captions = {"captions1": "A truck.", "captions2": "A tractor."}
    return {"path": f"./{FOLDER}/{stem}", "bbox": box, "conversations": turns} | captions


ITEMS = [item("2_23_0", "a truck became a tractor"), item("7_1_0", "blue"), item("2_23_0", "a sign", "[0, 0, 1, 1]")]


def write_files(root: Path, name: str, items: list[Any], folder: Path) -> Path:
    for stem in ("2_23_0", "7_1_0"):
        for number, color in enumerate(("white", "black")):
            path = folder / FOLDER / f"{stem}_{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), color).save(path)
    (root / f"img_diff_{name}.json").write_text(json.dumps(items))
    return root


def write_tiny(root: Path, broken: bool) -> None:
    write_files(root, "object_replacement", ITEMS + [item("9", "x", "[1]")] * broken, root)
    write_files(root, "object_removal", ITEMS[:1], root / "object_removal")


def test_boxes_of_two_pictures_are_one_pair(tmp_path: Path) -> None:
    write_tiny(tmp_path, broken=False)
    builder = ImgDiff(root=tmp_path)
    assert builder.raw_splits() == ["train"] and builder.count_pairs("train") == 3
    first, second, removal = builder.raw_pairs("train")
    unit = {"thing": "A truck.", "action": "replace", "other": "A tractor."}
    boxes = [0.1, 0.2, 0.3, 1], [0, 0, 1, 1]
    images = tmp_path / FOLDER / "2_23_0_0.jpg", tmp_path / FOLDER / "2_23_0_1.jpg"
    captions, units = ["a truck became a tractor", "a sign"], [unit | {"box": box} for box in boxes]
    assert first == RawPair("object_replacement-2_23_0", *images, captions, "replace", {"units": units})
    assert second.captions == ["blue"]
    assert (removal.pair_id, removal.change_type) == ("object_removal-2_23_0", "")
    assert removal.before == tmp_path / "object_removal" / FOLDER / "2_23_0_0.jpg"
    assert removal.provenance == {"boxes": [boxes[0]]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": "[0.1, 0.2]"}, r"item 0: bbox='\[0.1, 0.2\]', expected four numbers"),
        ({"bbox": "os.remove"}, "item 0: bbox='os.remove', expected four numbers"),
        ({"path": ["a"]}, "item 0: no text in 'path'"),
        ({"path": "../../etc/x"}, "the name '../../etc/x_0.jpg' leads out"),
        ({"conversations": []}, "item 0: no field 'role' .or 'from'."),
    ],
)
def test_a_broken_item_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_files(tmp_path, "object_replacement", [ITEMS[0] | change], tmp_path)
    with pytest.raises(DataError, match=message):
        list(ImgDiff(root=tmp_path).raw_pairs("train"))
