"""OmniDiff: entries of LLaVA's form are pairs, in a list or in lines."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataset_syned.benchmarks.omnidiff import OmniDiff
from dataset_syned.pairs import DataError, RawPair


def item(name: str, text: str = "The red car is gone. A bench stands there.") -> dict[str, Any]:
    turns = [{"from": "human", "value": "<image><image> what changed?"}, {"from": "gpt", "value": text}]
    return {"id": name, "image": [f"real/{name}/0.png", f"real/{name}/1.png"], "conversations": turns}


def write_images(root: Path, *names: str) -> None:
    for name in names:
        for number, color in enumerate(("white", "black")):
            path = root / "images" / "real" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), color).save(path)


def write_tiny(root: Path, broken: bool) -> None:
    write_images(root, "a", "b")
    (root / "train.json").write_text(json.dumps([{"id": "x"}] * broken + [item("a"), item("b")]))
    (root / "test.jsonl").write_text(json.dumps(item("a")))


def test_entries_are_pairs(tmp_path: Path) -> None:
    write_tiny(tmp_path, broken=False)
    builder, images = OmniDiff(root=tmp_path), tmp_path / "images" / "real" / "a"
    assert builder.raw_splits() == ["train", "test"] and builder.count_pairs("train") == 2
    text = "The red car is gone. A bench stands there."
    expected = RawPair("a", images / "0.png", images / "1.png", [text], "", {"part": "real"})
    assert list(builder.raw_pairs("test")) == [expected] == list(builder.raw_pairs("train"))[:1]


def test_what_differs_is_named(tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text(json.dumps([{"question_id": 1, "caption": "x"}]))
    with pytest.raises(
        DataError, match="test.json', item 0: no field 'images' .or 'image'., it has: question_id, cap"
    ):
        list(OmniDiff(root=tmp_path).raw_pairs("test"))
