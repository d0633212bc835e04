"""Images that are stored at the size that is needed: `max_side`."""

import io
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from dataset_syned import benchmark_builder, load_benchmark, undecoded
from dataset_syned.__main__ import main
from dataset_syned.image_sizes import at_most
from dataset_syned.pairs import DataError, image_bytes


def picture(size: tuple[int, int]) -> Image.Image:
    rough = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, suffix: str, **options: object) -> dict[str, object]:
    file = io.BytesIO()
    image.save(file, {"jpg": "JPEG"}.get(suffix, suffix), **options)
    return image_bytes(f"a.b.{suffix}", file.getvalue())


def opened(image: dict[str, object]) -> Image.Image:
    return Image.open(io.BytesIO(image["bytes"]))


@pytest.mark.parametrize(
    ("size", "smaller"), [((300, 200), (96, 64)), ((200, 300), (64, 96)), ((96, 97), (95, 96)), ((3000, 2), (96, 1))]
)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
def test_the_longer_side_becomes_max_side(size: tuple[int, int], smaller: tuple[int, int], suffix: str) -> None:
    image = encoded(picture(size), suffix)
    found = at_most(96, image)
    assert found["path"] == ("a.b.jpg" if suffix == "jpg" else "a.b.png")
    assert opened(found).format == ("JPEG" if suffix == "jpg" else "PNG") and opened(found).size == smaller
    wanted = opened(image).convert("RGB").resize(smaller, Image.Resampling.BICUBIC)
    difference = np.abs(np.asarray(opened(found)).astype(int) - np.asarray(wanted))
    assert difference.max() == 0 if suffix != "jpg" else difference.mean() < 4, "nearly without loss"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_smaller_images_stay_the_same_files(suffix: str) -> None:
    for size in ((96, 96), (5, 7)):
        image = encoded(picture(size), suffix)
        assert at_most(96, image) is image


def test_the_new_file_is_upright_and_opaque() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = opened(at_most(40, encoded(picture((200, 100)), "jpg", exif=exif)))
    assert turned.size == (20, 40) and not turned.getexif()
    clear = opened(at_most(40, encoded(Image.new("RGBA", (80, 60), (255, 0, 0, 0)), "png")))
    assert clear.mode == "RGB" and clear.getpixel((3, 3)) == (255, 255, 255), "as the network sees it"


def test_an_image_that_cannot_be_read_is_named() -> None:
    with pytest.raises(DataError, match=r"image 'a\.png' cannot be read"):
        at_most(40, image_bytes("a.png", b"x"))


@pytest.mark.parametrize("value", [31, 4097, 0, -5, 64.0, "64", True])
def test_impossible_values_are_quoted(value: object) -> None:
    with pytest.raises(ValueError, match=f"toy: max_side={value!r}, use a whole number of 32 to 4096 pixels"):
        benchmark_builder("toy", max_side=value)


def sizes(rows: datasets.Dataset) -> set[tuple[int, int]]:
    return {row[side].size for row in rows for side in ("before", "after")}


def test_programs_and_commands_share_what_was_prepared(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "train").mkdir()
    for name in ("a", "b"):
        picture((200, 100)).save(tmp_path / "train" / f"{name}.jpg")
    (tmp_path / "train" / "metadata.jsonl").write_text(
        '{"before_file_name": "a.jpg", "after_file_name": "b.jpg", "captions": ["it left"]}'
    )
    data = ("folder", "--data_dir", str(tmp_path))
    assert main(["prepare", *data, "--max_side", "64"]) == 0
    found = f'load_dataset("folder", data_dir="{tmp_path}", max_side=64)'
    assert found in capsys.readouterr().out
    assert sizes(eval(found, {"load_dataset": datasets.load_dataset})["train"]) == {(64, 32)}
    options = {"data_dir": str(tmp_path), "max_side": 64}
    rows = load_benchmark("folder", "train", **options)
    assert sizes(rows) == {(64, 32)}
    assert sizes(load_benchmark("folder", "train", data_dir=str(tmp_path))) == {(200, 100)}
    before = undecoded(rows)[0]["before"]
    assert before["path"] == "a.jpg" and before["bytes"].startswith(b"\xff\xd8")
    capsys.readouterr()
    assert main(["prepare", *data, "--max_side", "64"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["export", *data, str(tmp_path / "out"), "--max_side", "64"]) == 0
    assert sizes(datasets.load_dataset(str(tmp_path / "out"), split="train")) == {(64, 32)}
    assert "Images have at most 64 pixels per side." in (tmp_path / "out" / "README.md").read_text()
    assert main(["prepare", *data, "--max_side", "9"]) == 2
    assert "folder: max_side=9, use a whole number of 32 to 4096 pixels" in capsys.readouterr().err
