"""The fused picture: order of the images, layouts, and every kind of image a user may have."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from modeling_blip2idc import image_fusion
from modeling_blip2idc.image_fusion import Cell, ImageError, fuse, is_same_file, load_cell, load_image

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def solid(color: tuple[int, ...], size: tuple[int, int] = (10, 6), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, color)


def close(image: Image.Image, color: tuple[int, int, int], tolerance: int = 2) -> bool:
    """Return whether the middle pixel has this colour."""
    found = image.getpixel((image.width // 2, image.height // 2))
    return max(abs(a - b) for a, b in zip(found, color, strict=True)) <= tolerance


def test_vertical_puts_before_on_top_and_horizontal_left() -> None:
    vertical = fuse(solid(RED), solid(BLUE), "vertical", (8, 6))
    assert vertical.size == (6, 8) and vertical.mode == "RGB"
    assert {vertical.getpixel((x, y)) for x in range(6) for y in range(4)} == {RED}
    assert {vertical.getpixel((x, y)) for x in range(6) for y in range(4, 8)} == {BLUE}
    horizontal = fuse(solid(RED), solid(BLUE), "horizontal", (8, 6))
    assert {horizontal.getpixel((x, y)) for x in range(3) for y in range(8)} == {RED}
    assert {horizontal.getpixel((x, y)) for x in range(3, 6) for y in range(8)} == {BLUE}


def test_swapping_the_images_changes_the_picture() -> None:
    assert fuse(solid(RED), solid(BLUE), "vertical", (8, 8)) != fuse(solid(BLUE), solid(RED), "vertical", (8, 8))


def test_each_image_is_resized_on_its_own_into_its_cell() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8))
    resized = noise.resize((48, 16), Image.Resampling.BICUBIC)
    for scaled_decoding in (True, False):
        picture = fuse(noise, solid(BLUE, (5, 90)), "vertical", (32, 48), scaled_decoding=scaled_decoding)
        found = picture.crop((0, 0, 48, 16))
        assert largest_difference(found, resized) <= 1 if scaled_decoding else found == resized
        below = {picture.getpixel((x, y)) for x in range(48) for y in range(16, 32)}
        assert below == {BLUE}, "no bleeding at the seam"


@pytest.mark.parametrize(
    ("layout", "canvas", "message"),
    [
        ("vertical", (7, 8), r"height of canvas \[7, 8\] cannot be halved"),
        ("horizontal", (8, 7), r"width of canvas \[8, 7\] cannot be halved"),
        ("vertical", (0, 8), r"positive whole numbers.*\[0, 8\]"),
        ("vertical", (4098, 8), r"canvas \[4098, 8\] is too large: height and width are at most 4096"),
        ("horizontal", (8, 10**6), r"canvas \[8, 1000000\] is too large"),
        ("diagonal", (8, 8), "'vertical' or 'horizontal', got 'diagonal'"),
    ],
)
def test_impossible_canvas_is_quoted(layout: str, canvas: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fuse(solid(RED), solid(BLUE), layout, canvas)


def blurred(image: Image.Image, sigma: float) -> np.ndarray:
    """Apply the paper's transform explicitly: a 3x3 Gaussian over the mirrored image."""
    side = torch.exp(torch.tensor(-0.5 / sigma**2, dtype=torch.float64))
    row = torch.stack([side, torch.ones_like(side), side]) / (1 + 2 * side)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[:, None].double()  # [3, 1, H, W]
    mirrored = torch.nn.functional.pad(pixels, (1, 1, 1, 1), mode="reflect")
    return torch.nn.functional.conv2d(mirrored, torch.outer(row, row)[None, None])[:, 0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("sigma", [0.3, 0.5, 2])
def test_blur_is_the_papers_gaussian_on_each_source_image(sigma: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8))
    picture = fuse(noise, solid(BLUE), "vertical", (74, 53), blur=sigma)  # cells of the image's size: no resizing
    found, wanted = np.asarray(picture.crop((0, 0, 53, 37))).astype(float), blurred(noise, sigma)
    assert np.abs(found - wanted).max() < 0.501  # rounded to whole levels, edges and corners too
    smaller = fuse(solid(BLUE), noise, "vertical", (32, 48), blur=sigma).crop((0, 16, 48, 32))
    before = Image.fromarray(np.rint(wanted).astype(np.uint8)).resize((48, 16), Image.Resampling.BICUBIC)
    after = Image.fromarray(blurred(noise.resize((48, 16), Image.Resampling.BICUBIC), sigma).astype(np.uint8))
    assert largest_difference(smaller, before) <= 2
    assert largest_difference(smaller, after) > 2


def test_no_blur_is_the_default_and_tiny_images_can_be_blurred() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8))
    plain = fuse(noise, noise, "vertical", (32, 32))
    assert (
        plain == fuse(noise, noise, "vertical", (32, 32), blur=0.0) != fuse(noise, noise, "vertical", (32, 32), blur=1)
    )
    assert plain == fuse(noise, noise, "vertical", (32, 32), blur=1e-200)
    for size in ((1, 1), (1, 7), (7, 1)):
        assert close(
            fuse(solid(RED, size), solid(BLUE, size), "vertical", (8, 8), blur=0.5).crop((0, 0, 8, 4)), RED, 0
        )


def test_blur_sigma_is_in_pixels_of_the_whole_file(tmp_path: Path) -> None:
    """A JPEG decoded at a fraction of its size would be blurred more."""
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.jpg", quality=100, subsampling=0)
    with Image.open(tmp_path / "stripes.jpg") as image:
        whole = image.copy()
    path = tmp_path / "stripes.jpg"
    assert fuse(path, path, "vertical", (64, 64), blur=0.5) == fuse(whole, whole, "vertical", (64, 64), blur=0.5)


@pytest.mark.parametrize("blur", [-0.1, 5, float("nan"), float("inf"), "0.3", True, None])
def test_impossible_blur_is_quoted(blur: object) -> None:
    with pytest.raises(ValueError, match=f"blur must be a number of pixels from 0 to below 5, got {blur!r}"):
        fuse(solid(RED), solid(BLUE), "vertical", (8, 8), blur=blur)


def test_transparent_pixels_become_white() -> None:
    palette = Image.new("P", (10, 6), 0)
    palette.putpalette([255, 0, 0])
    palette.info["transparency"] = 0
    keyed = solid(RED)
    keyed.info["transparency"] = RED
    for image in (solid((255, 0, 0, 0), mode="RGBA"), solid((7, 0), mode="LA"), palette, keyed):
        assert close(load_image(image), WHITE), image.mode
    assert close(load_image(solid((255, 0, 0, 128), mode="RGBA")), (255, 127, 127))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "LAB"])
def test_every_mode_keeps_its_picture(mode: str) -> None:
    red = solid(RED) if mode not in ("1", "L", "LA") else solid(WHITE)
    image = red.convert("RGB") if mode == "LAB" else red.convert(mode)
    assert close(load_image(image), load_image(red).getpixel((0, 0)))


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_grey_is_scaled_to_eight_bits(mode: str, tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)[None].repeat(4, axis=0)
    image = Image.fromarray(ramp.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
    assert image.mode == mode
    expected = np.arange(256)
    assert np.abs(np.asarray(load_image(image))[0, :, 0].astype(int) - expected).max() <= 1
    image.save(tmp_path / "deep.tiff")
    loaded = np.asarray(load_image(tmp_path / "deep.tiff")).astype(int)
    assert loaded.shape == (4, 256, 3) and np.abs(loaded[0, :, 0] - expected).max() <= 1


def test_sixteen_bit_png_is_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 32768, np.uint16)).save(tmp_path / "deep.png")
    assert close(load_image(tmp_path / "deep.png"), (128, 128, 128))


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp", "bmp", "gif"])
def test_file_formats(suffix: str, tmp_path: Path) -> None:
    solid(RED, (16, 16)).save(tmp_path / f"red.{suffix}")
    for source in (tmp_path / f"red.{suffix}", str(tmp_path / f"red.{suffix}")):
        assert close(load_image(source), RED)


def test_cmyk_jpeg_and_grey_alpha_png(tmp_path: Path) -> None:
    solid(RED, (16, 16)).convert("CMYK").save(tmp_path / "red.jpg")
    assert close(load_image(tmp_path / "red.jpg"), RED)
    solid((0, 0), (16, 16), mode="LA").save(tmp_path / "clear.png")
    assert close(load_image(tmp_path / "clear.png"), WHITE)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_animated_files_give_their_first_frame(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"moving.{suffix}"
    solid(RED, (16, 16)).save(path, save_all=True, append_images=[solid(BLUE, (16, 16))], duration=50)
    with Image.open(path) as image:
        assert image.n_frames == 2
    assert close(load_image(path), RED)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff"])
def test_exif_orientation_is_applied_once(suffix: str, tmp_path: Path) -> None:
    image = Image.new("RGB", (32, 16), RED)
    image.paste(BLUE, (16, 0, 32, 16))  # red left, blue right
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise: red on top
    image.save(tmp_path / f"turned.{suffix}", exif=exif)
    loaded = load_image(tmp_path / f"turned.{suffix}")
    assert loaded.size == (16, 32)
    assert loaded.getpixel((8, 4))[0] > 200 and loaded.getpixel((8, 28))[2] > 200
    with Image.open(tmp_path / f"turned.{suffix}") as opened:
        assert load_image(opened) == loaded


@pytest.mark.parametrize(
    ("array", "color"),
    [
        (np.full((6, 8), 200, np.uint8), (200, 200, 200)),
        (np.full((6, 8, 1), 200, np.uint8), (200, 200, 200)),
        (np.full((6, 8, 3), RED, np.uint8), RED),
        (np.full((6, 8, 4), (255, 0, 0, 0), np.uint8), WHITE),
        (np.full((8, 6, 3), RED, np.uint8).transpose(2, 1, 0), RED),
        (np.full((1, 6, 8), 200, np.uint8), (200, 200, 200)),
        (np.full((6, 8, 3), 65535, np.uint16), WHITE),
        (np.full((6, 8), 0.5, np.float32), (128, 128, 128)),
        (np.full((6, 8, 3), (1.0, 0.0, 0.0), np.float64), RED),
        (torch.full((3, 6, 8), 1.0, dtype=torch.bfloat16), WHITE),
        (torch.full((6, 8), 200, dtype=torch.uint8), (200, 200, 200)),
    ],
)
def test_arrays_and_tensors(array: np.ndarray | torch.Tensor, color: tuple[int, int, int]) -> None:
    image = load_image(array)
    assert image.size == (8, 6) and image.mode == "RGB" and close(image, color, 0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((2, 3, 4, 5), np.uint8), r"shape \(2, 3, 4, 5\)"),
        (np.zeros((6, 8, 2), np.uint8), r"shape \(6, 8, 2\)"),
        (np.zeros((0, 8, 3), np.uint8), r"shape \(0, 8, 3\)"),
        (np.zeros((6, 8), np.int64), "dtype int64"),
        (np.full((6, 8), 200.0), "from 0 to 1.* 200 to 200"),
        (np.full((6, 8), np.nan), "from 0 to 1"),
        (Image.fromarray(np.full((6, 8), -5, np.int32)), "from -5 to -5"),
        (b"bytes", "is not an image that Pillow can read"),
        (None, "a NoneType is not an image"),
    ],
)
def test_inputs_that_are_not_images_are_quoted(source: object, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_image(source)


def test_unreadable_files_are_named_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match=r"missing\.png' does not exist; check the path"):
        load_image(tmp_path / "missing.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ImageError, match=r"text\.png' is not an image .* convert"):
        load_image(tmp_path / "text.png")
    solid(RED, (200, 200)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:400])
    for name in ("cut.jpg", ""):  # a damaged file, a folder
        with pytest.raises(ImageError, match=f"{name}' cannot be read .* replace"):
            load_image(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses twice as many: a decompression bomb
    with pytest.raises(ImageError, match=r"whole\.jpg' cannot be read .* replace"):
        load_image(tmp_path / "whole.jpg")


# Orientation 6, and a resolution that is not a number, at which Pillow fails after it has turned the picture.
BROKEN_EXIF = bytes.fromhex(
    "4578696600004d4d002a000000080004010e0002000000060000003e011200030000000100060000011a000700000001000000448769000400"
    "0000010000004c0000000068656c6c6f0000000048000000010002829a0003000000020001001e90000007000000043032333000000000"
)


def test_a_picture_with_a_broken_exif_block_is_read_unturned(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (200, 10, 10)).save(tmp_path / "a.jpg", exif=BROKEN_EXIF)
    with Image.open(tmp_path / "a.jpg") as image, pytest.raises(TypeError):
        ImageOps.exif_transpose(image)
    assert load_image(tmp_path / "a.jpg").size == (40, 30)


def photograph(size: tuple[int, int]) -> Image.Image:
    """Return smooth areas, hard edges and a little noise."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    image = coarse.resize(size, Image.Resampling.BICUBIC)
    image.paste(coarse.resize((size[0] // 3, size[1] // 3), Image.Resampling.NEAREST), (size[0] // 4, size[1] // 4))
    noise = generator.normal(0, 4, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def difference(image: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(image).astype(int) - np.asarray(other)).mean())


def largest_difference(image: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(image).astype(int) - np.asarray(other)).max())


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return the sizes at which images are decoded, in the order of decoding."""
    sizes, convert = [], image_fusion._to_rgb
    monkeypatch.setattr(image_fusion, "_to_rgb", lambda image: sizes.append(image.size) or convert(image))
    return sizes


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(mode: str, tmp_path: Path, decoded: list) -> None:
    path = tmp_path / "photograph.jpg"
    photograph((1600, 1200)).convert(mode).save(path, quality=90)
    whole = load_image(path)
    assert whole.size == (1600, 1200)
    decoded.clear()
    for size, seen in (
        ((96, 48), (200, 150)),  # 9 / 8 of the cell's width are 108 pixels
        ((224, 112), (400, 300)),
        ((356, 10), (800, 600)),  # 400 pixels would be a little less than 9 / 8 of the width
        ((10, 267), (800, 600)),  # and 300 a little less than 9 / 8 of the height
        ((800, 600), (1600, 1200)),
        ((2000, 1500), (1600, 1200)),
    ):
        expected = whole.resize(size, Image.Resampling.BICUBIC)
        for source in (path, path.read_bytes(), {"path": "a.jpg", "bytes": path.read_bytes()}):
            cell = load_cell(source, size).picture
            assert cell.size == size and difference(cell, expected) < 0.005 * 255
            assert decoded.pop() == seen
            assert load_cell(source, size, scaled_decoding=False).picture == expected, "exactly"
            assert decoded.pop() == (1600, 1200)
        assert difference(load_cell(path, size).picture, expected.rotate(180)) > 20
        decoded.clear()


def test_the_size_of_a_cell_may_depend_on_the_size_of_the_whole_image(tmp_path: Path, decoded: list) -> None:
    """`fit` of the chat models: a fraction of the size would be a little wider or higher."""
    path, seen = tmp_path / "photograph.jpg", []
    photograph((1603, 1201)).save(path)
    cell = load_cell(path, lambda size: seen.append(size) or (size[0] // 7, size[1] // 7))
    assert cell.picture.size == (229, 171) and set(seen) == {(1603, 1201)} and decoded == [(401, 301)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_holds_for_jpegs_at_a_fraction_of_their_size(
    orientation: int, tmp_path: Path, decoded: list
) -> None:
    exif, path = Image.Exif(), tmp_path / "turned.jpg"
    exif[0x0112] = orientation
    photograph((1600, 800)).save(path, quality=90, exif=exif)
    whole, seen = load_image(path), []
    assert whole.size == ((1600, 800) if orientation < 5 else (800, 1600))
    decoded.clear()
    # 9 / 8 of the cell are 180 x 54 pixels: an eighth of the width would do, if it were not the height
    cell = load_cell(path, lambda size: seen.append(size) or (160, 48)).picture
    assert difference(cell, whole.resize((160, 48), Image.Resampling.BICUBIC)) < 0.005 * 255
    assert set(seen) == {whole.size} and decoded == [(200, 100) if orientation < 5 else (400, 200)]


@pytest.mark.parametrize("suffix", ["png", "tiff", "bmp", "webp", "gif"])
def test_other_files_give_the_resized_image(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"whole.{suffix}"
    photograph((1000, 600)).save(path)
    expected = load_image(path).resize((32, 16), Image.Resampling.BICUBIC)
    assert largest_difference(load_cell(path, (32, 16)).picture, expected) <= 1, (
        "torch rounds as Pillow, nearly always"
    )
    assert load_cell(path, (32, 16), scaled_decoding=False).picture == expected


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (900, 2), (53, 37), (106, 74), (1000, 30)])
def test_torch_resizes_as_pillow_does(size: tuple[int, int]) -> None:
    """Smaller or larger, per axis; on photographs they differ in one value of 1,000, by one level."""
    image = photograph((530, 370))
    found, wanted = load_cell(image, size).picture, image.resize(size, Image.Resampling.BICUBIC)
    assert found.size == size and largest_difference(found, wanted) <= 1
    assert difference(found, wanted) < 0.01 or size == (1, 1)


def test_files_of_the_same_content_are_the_same() -> None:
    data, image = photograph((9, 9)).tobytes(), photograph((9, 9))
    for same in ((image, image), (data, bytes(bytearray(data))), ({"path": "a", "bytes": data}, {"bytes": data})):
        assert is_same_file(*same)
    for other in ((data, data[:-1]), (image, image.copy()), ({"bytes": None}, {"bytes": None})):
        assert not is_same_file(*other)


def test_a_cell_is_accepted_as_it_is_and_only_at_its_size() -> None:
    cell = load_cell(photograph((60, 40)), (6, 4), blur=1)
    assert load_cell(cell, (6, 4), blur=1) is cell, "not blurred a second time"
    assert fuse(cell, cell, "vertical", (8, 6), blur=1).crop((0, 4, 6, 8)) == cell.picture
    with pytest.raises(ValueError, match=r"a cell has the size \(6, 4\), this canvas needs \(4, 6\)"):
        fuse(cell, cell, "horizontal", (6, 8))
    with pytest.raises(ImageError, match="a Cell is not an image"):
        load_image(Cell(Image.new("RGB", (6, 4))))


def test_images_that_are_not_decoded_yet_are_read_and_named(tmp_path: Path) -> None:
    solid(RED).save(tmp_path / "red.png")
    data = (tmp_path / "red.png").read_bytes()
    for image in (
        {"path": None, "bytes": data},
        {"path": "elsewhere.png", "bytes": data},
        {"path": str(tmp_path / "red.png"), "bytes": None},
    ):
        assert close(load_image(image), RED)
    for image, message in (
        ({"path": "a.png", "bytes": b"x"}, "'a.png' is not an image"),
        ({"path": "a.png", "bytes": data[:50]}, "'a.png' cannot be read"),
        ({"path": None, "bytes": b"x"}, "^the image is not an image"),
        ({"path": "no.png", "bytes": None}, "'no.png' does not exist"),
        ({"path": None, "bytes": None}, "a NoneType is not an image"),
    ):
        with pytest.raises(ImageError, match=message):
            load_image(image)


def test_the_caller_s_image_stays_as_it_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph((1600, 800)).save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(tmp_path / "turned.jpg") as image:
        loaded, cell = load_image(image), load_cell(image, (48, 96)).picture
        assert image.size == (1600, 800) and image.getexif()[0x0112] == 6
    assert loaded.size == (800, 1600) and type(loaded) is Image.Image and not loaded.info
    assert largest_difference(cell, loaded.resize((48, 96), Image.Resampling.BICUBIC)) <= 1, "decoded as a whole"
    assert not cell.info
    kept = load_image(loaded)
    assert load_cell(kept, (800, 1600)).picture == kept, "an image of the cell's size needs no copy"
    noted = solid(RED)
    noted.info = {"comment": "mine"}
    assert not load_image(noted).info and noted.info == {"comment": "mine"}


def test_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        with pytest.raises(ImageError, match=f"'{path}' is a pipe or a device; pass an image file"):
            load_image(path)


@pytest.mark.parametrize("values", [[-1.0, 2.0], [float("nan"), 1.0], [0.0, 70_000.0], [0.0, float("inf")]])
def test_values_that_are_no_grey_levels_are_refused_with_the_file(values: list[float], tmp_path: Path) -> None:
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"a\.tif': values from .* are not grey levels"):
        load_image(tmp_path / "a.tif")
