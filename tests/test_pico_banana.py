"""Pico-Banana-400K: long and short instruction are captions, and the licence forbids derivatives."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataset_syned.benchmarks.pico_banana import ANNOTATIONS, PicoBanana
from dataset_syned.pairs import DataError, RawPair

SOURCE = "openimage_source_images/train_0/0000e2.jpg"


def line(name: str, **more: Any) -> dict[str, Any]:
    texts = {"text": f"Remove the red flag of {name}.", "summarized_text": "Remove the flag"}
    places = {"output_image": f"images/positive-edit/{name}.png", "local_input_image": SOURCE}
    return (
        {"open_image_input_url": "https://x.org/1.jpg", "edit_type": "Remove an existing object"}
        | texts
        | places
        | more
    )


LINES = [line("1"), line("kewsee_retry1", summarized_text="", edit_type="Zoom in")]


def write_lines(root: Path, lines: list[Any]) -> Path:
    for name in (SOURCE, "images/positive-edit/1.png", "images/positive-edit/kewsee_retry1.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(root / name)
    (root / ANNOTATIONS).write_text("\n".join(map(json.dumps, lines)))
    return root


def write_tiny(root: Path, broken: bool) -> None:
    write_lines(root, [line("2", local_input_image=None)] * broken + LINES)


def test_lines_are_pairs(tmp_path: Path) -> None:
    write_tiny(tmp_path, broken=False)
    builder = PicoBanana(root=tmp_path)
    first, second = builder.raw_pairs("train")
    images = tmp_path / SOURCE, tmp_path / "images" / "positive-edit" / "1.png"
    captions, known = ["Remove the red flag of 1.", "Remove the flag"], {"edit_type": "Remove an existing object"}
    assert first == RawPair("1", *images, captions, "remove", known)
    assert (second.pair_id, second.change_type) == ("kewsee_retry1", "")
    assert second.captions == ["Remove the red flag of kewsee_retry1."]


def test_the_licence_states_that_derivatives_are_not_allowed() -> None:
    assert "ND" in PicoBanana.LICENSE and "no derivatives" in PicoBanana.LICENSE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"local_input_image": None},
            "line 1: no source image of 'images/positive-edit/1.png': local_input_image is null",
        ),
        ({"text": None}, "line 1: no text in 'text'"),
        ({"output_image": "../x.png"}, "leads out"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_lines(tmp_path, [LINES[0] | change])
    with pytest.raises(DataError, match=message):
        list(PicoBanana(root=tmp_path).raw_pairs("train"))


def test_a_second_line_of_one_output_is_a_duplicate(tmp_path: Path) -> None:
    write_lines(tmp_path, [line("1"), line("1")])
    with pytest.raises(DataError, match="duplicate pair_id '1'"):
        list(PicoBanana(root=tmp_path).raw_pairs("train"))
