"""VLM-SubtleBench: only lines with a caption are pairs, and images are found under the path of their address."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataset_syned.benchmarks.vlm_subtlebench import VlmSubtleBench, local_name
from dataset_syned.pairs import DataError, RawPair

ADDRESS = "https://huggingface.co/datasets/KRAFTON/VLM-SubtleBench/resolve/main/"


def line(source_id: str, caption: str | None, address: str = ADDRESS) -> dict[str, Any]:
    names = {f"image_{number}": f"{address}images/coco/{source_id}_{number}.png" for number in (1, 2)}
    labels = {"category": "attribute", "domain": "natural", "source": "coco", "source_id": source_id}
    question = {"question": "which?", "answer": "first image", "distractors": ["second image"]}
    return names | question | labels | {"has_caption": caption is not None, "caption": caption}


LINES = [line("30", " the dog has a collar "), line("31", None), line("32", "it is red", address="")]


def write_lines(root: Path, name: str, lines: list[Any]) -> Path:
    for number in ("30", "32"):
        for side, color in (("1", "white"), ("2", "black")):
            path = root / "images" / "coco" / f"{number}_{side}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), color).save(path)
    (root / "data").mkdir(exist_ok=True)
    (root / "data" / name).write_text("\n".join(map(json.dumps, lines)))
    return root


def write_tiny(root: Path, broken: bool) -> None:
    without = {name: value for name, value in LINES[0].items() if name != "has_caption"}
    write_lines(root, "val.jsonl", [without] * broken + LINES[:2])
    write_lines(root, "test.jsonl", LINES)


def test_lines_with_a_caption_are_pairs(tmp_path: Path) -> None:
    write_tiny(tmp_path, broken=False)
    builder, images = VlmSubtleBench(root=tmp_path), tmp_path / "images" / "coco"
    assert builder.raw_splits() == ["validation", "test"]
    labels = {"category": "attribute", "domain": "natural", "source": "coco"}
    assert list(builder.raw_pairs("test")) == [
        RawPair(
            f"attribute_coco_{number}",
            *(images / f"{number}_1.png", images / f"{number}_2.png", [caption]),
            provenance=labels | {"source_id": number},
        )
        for number, caption in (("30", "the dog has a collar"), ("32", "it is red"))
    ]
    assert builder.count_pairs("test") == 2


def test_the_name_of_an_image_is_the_path_in_any_revision_of_the_repository() -> None:
    assert local_name(f"{ADDRESS}images/a.png") == local_name("images/a.png") == "images/a.png"
    assert local_name(ADDRESS.replace("main", "0e2331c") + "images/a.png") == "images/a.png"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"caption": " "}, "test.jsonl', line 1: no text in 'caption'"),
        ({"image_2": "../../etc/passwd"}, "line 1: the name '../../etc/passwd' leads out"),
        ({"image_2": 5}, "line 1: a field has a wrong type"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_lines(tmp_path, "test.jsonl", [LINES[0] | change])
    with pytest.raises(DataError, match=message):
        list(VlmSubtleBench(root=tmp_path).raw_pairs("test"))


def test_the_first_field_that_differs_is_named(tmp_path: Path) -> None:
    other = {f"{name}_of_pair" if name == "category" else name: value for name, value in LINES[0].items()}
    write_lines(tmp_path, "test.jsonl", [other])
    with pytest.raises(DataError, match="line 1: no field 'category'"):
        list(VlmSubtleBench(root=tmp_path).raw_pairs("test"))
