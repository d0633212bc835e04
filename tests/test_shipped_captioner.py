"""What the captioner that ships says about photographs it has not seen: scikit-image's, which its training had not."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image, ImageFilter, ImageOps
from program_files import load_program

from captioner_idc.captioning import caption
from captioner_idc.loading import SHIPPED, load, load_image
from dataset_syned.benchmarks.photo_edits import PhotoEdits, draw_raw, packaged_folder
from dataset_syned.benchmarks.toy import ToyConfig
from dataset_syned.benchmarks.toy import draw_raw as draw_toy
from dataset_syned.pairs import RawPair
from dataset_syned.photo_statements import statements

PAIRS = 100
EVERYDAY = (
    "the woman left the bicycle next to the window because it was raining and her friends were waiting",
    "a gray sphere and a rubber cylinder stand behind the metallic cube",
)


def images(pair: RawPair) -> tuple[Image.Image, Image.Image]:
    return load_image(pair.before[1]), load_image(pair.after[1])


@pytest.fixture(scope="module")
def captioner() -> tuple[Any, Any]:
    return load(SHIPPED, device="cpu")


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    pytest.importorskip("skimage", reason="scikit-image, whose photographs are used, is not installed")
    names = ("chelsea.png", "coffee.png", "motorcycle_left.png", "astronaut.png", "rocket.jpg")
    return [Image.open(packaged_folder() / name).convert("RGB") for name in names]


@pytest.fixture(scope="module")
def counted(root: Path, captioner: tuple[Any, Any], photographs: list) -> list[dict[str, bool]]:
    """Return what is right of each sentence about edited photographs."""
    program: ModuleType = load_program(root / "measurements/photo_edits_by_type.py")
    builder = PhotoEdits(train=1, validation=1, test=PAIRS, seed=3)
    material = builder.material("test")
    pairs = [draw_raw(builder.config, material, "test", index) for index in range(PAIRS)]
    said = caption(*captioner, [images(pair) for pair in pairs])
    truths = [program.truth_of(pair.provenance) for pair in pairs]
    return [program.count_right(truth, statements(text)) for truth, text in zip(truths, said, strict=True)]


@pytest.mark.parametrize(("name", "least"), [("right type", 0.72), ("right place", 0.7)])
def test_what_it_says_about_edited_photographs_is_right(counted: list[dict[str, bool]], name: str, least: float):
    values = [pair[name] for pair in counted if name in pair]
    assert len(values) > 20 and sum(values) / len(values) >= least


def test_the_same_picture_twice_is_unchanged(captioner: tuple[Any, Any], photographs: list[Image.Image]) -> None:
    for text in caption(*captioner, [(picture, picture) for picture in photographs]):
        assert [statement.action for statement in statements(text)] == ["none"]


def test_changes_have_directions(captioner: tuple[Any, Any], photographs: list[Image.Image]) -> None:
    soft = [picture.filter(ImageFilter.GaussianBlur(9)) for picture in photographs]
    pairs = [*zip(photographs, soft, strict=True), *zip(soft, photographs, strict=True)]
    said = [[statement.action for statement in statements(text)] for text in caption(*captioner, pairs)]
    assert said == [["blur"]] * len(soft) + [["sharpen"]] * len(soft)


def test_of_a_change_that_it_does_not_know_it_says_no_more_than_where(
    captioner: tuple[Any, Any], photographs: list[Image.Image]
) -> None:
    pairs = []
    for before in (picture.resize((320, 240)) for picture in photographs):
        after = before.copy()
        after.paste(ImageOps.invert(before.crop((10, 10, 120, 100))), (10, 10))
        pairs.append((before, after))
    said = caption(*captioner, pairs)
    right = [text.startswith("something") and text.endswith("in the upper left") for text in said]
    assert sum(right) >= 4, said


def test_drawn_scenes_get_instructions(captioner: tuple[Any, Any]) -> None:
    pairs = [draw_toy(ToyConfig(wording="instruction", seed=3), "test", index) for index in range(40)]
    said = caption(*captioner, [images(pair) for pair in pairs])
    right = [text in pair.captions for text, pair in zip(said, pairs, strict=True)]
    assert sum(right) / len(right) >= 0.8


def test_its_tokenizer_spells_any_english(captioner: tuple[Any, Any]) -> None:
    tokenizer = captioner[1].tokenizer
    pieces = [tokenizer(sentence, add_special_tokens=False)["input_ids"] for sentence in EVERYDAY]
    assert [tokenizer.decode(each) for each in pieces] == list(EVERYDAY)
    assert sum(map(len, pieces)) <= 2 * sum(len(sentence.split()) for sentence in EVERYDAY)
