"""The idea of the paper: two images become one picture, so that every attention layer of BLIP-2 sees both.

`fuse` is all of it. `load_image` is the one decoder of the project: it turns any image into RGB. `load_cell` is the
same decoder for what the network sees: it makes each image as small as its place on the canvas at once.
"""

import io
import math
import os
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFilter, ImageOps, UnidentifiedImageError

Layout = Literal["vertical", "horizontal"]
WHITE = (255, 255, 255, 255)
LEAST_BLUR = 0.1  # sigma in pixels; below it, a neighbour would weigh less than e^-50
MOST_BLUR = 5.0  # sigma in pixels; a 3x3 kernel is flat by then
LARGEST_SIDE = 4096  # of a canvas, in pixels: its tensor has 200 MB
# How many times as large as its cell a JPEG is at least decoded, per side. The decoder's own filter then differs from
# bicubic resizing of the whole image by 0.003 of the range; without this margin it would be 0.006.
LEAST_REDUCTION = 1.125

Size = tuple[int, int]  # width, height


class ImageError(ValueError):
    """An unreadable image; the message names it and says what to do."""


class Cell:
    """An image as the network sees it: blurred, and as large as its cell of the canvas.

    Args:
        image: RGB; or its levels from 0 to 255, [3, height, width], which need not become a picture before they are
            put on the canvas.
    """

    def __init__(self, image: Image.Image | torch.Tensor):
        self.pixels = _pixels(image)[0].contiguous() if isinstance(image, Image.Image) else image

    @property
    def size(self) -> Size:
        """Width and height."""
        return self.pixels.shape[2], self.pixels.shape[1]

    @property
    def picture(self) -> Image.Image:
        """A new picture of the pixels."""
        return Image.fromarray(self.pixels.permute(1, 2, 0).contiguous().numpy())


def fuse(
    before: Any,
    after: Any,
    layout: Layout,
    canvas: tuple[int, int],
    blur: float = 0.0,
    scaled_decoding: bool = True,
) -> Image.Image:
    """Return one RGB picture of `canvas` (height, width): before on top or left, after below or right.

    Args:
        before, after: anything that `load_cell` takes.
        blur: sigma in pixels of the original image of a 3x3 Gaussian, applied before resizing; 0 means none.
        scaled_decoding: as for `load_cell`.

    Raises: ImageError for an unreadable image, ValueError for an impossible layout, canvas or blur.
    """
    check_blur(blur)
    height, width = cell_size(layout, canvas)
    # Each image is resized straight into its cell: nothing bleeds across the seam, and sizes may differ.
    first, second = (load_cell(image, (width, height), blur, scaled_decoding) for image in (before, after))
    return join(first, second, layout).picture


def join(first: Cell, second: Cell, layout: Layout) -> Cell:
    """Return two cells of one size as one: the first on top or left, the second below or right."""
    return Cell(torch.cat((first.pixels, second.pixels), dim=1 if layout == "vertical" else 2))


def load_cell(
    image: Any, size: Size | Callable[[Size], Size], blur: float = 0.0, scaled_decoding: bool = True
) -> Cell:
    """Return an image at the size of its cell; a `Cell` of this size is returned as it is.

    Args:
        image: a `Cell`, or anything that `load_image` takes.
        size: width and height, or what returns them for the size of the whole image.
        blur: as for `fuse`.
        scaled_decoding: decode a JPEG file at a fraction of its size where it stays larger than its cell, unless there
            is a blur, which counts pixels of the file; and resize with torch, which may differ by one of 255 levels
            from Pillow. False: decode it as a whole and resize with Pillow, five times slower.

    Raises: ImageError for an unreadable image; ValueError for a `Cell` of another size.
    """
    cell_of = size if callable(size) else lambda _: size
    if isinstance(image, Cell):
        found, wanted = image.size, cell_of(image.size)
        if found != wanted:
            raise ValueError(f"a cell has the size {found}, this canvas needs {wanted}: load it again.")
        return image
    whole: list[Size] = []  # of a file, before it is decoded at a fraction of it

    def least(file_size: Size) -> Size:
        whole.append(file_size)
        width, height = cell_of(file_size)
        return math.ceil(LEAST_REDUCTION * width), math.ceil(LEAST_REDUCTION * height)

    picture = _blurred(_load(image, least if scaled_decoding and blur < LEAST_BLUR else None), blur)
    size = cell_of(whole[0] if whole else picture.size)
    if picture.size == size:
        return Cell(picture)
    return Cell(_resized(picture, size) if scaled_decoding else picture.resize(size, Image.Resampling.BICUBIC))


def _resized(picture: Image.Image, size: Size) -> torch.Tensor:
    """Resize as Pillow does, with its filter and its whole numbers, but in vector instructions; [3, height, width]."""
    return torch.nn.functional.interpolate(_pixels(picture), size[::-1], mode="bicubic", antialias=True)[0]


def _pixels(picture: Image.Image) -> torch.Tensor:
    """Return the levels of an RGB picture, [1, 3, H, W], in its own order, which torch calls "channels last"."""
    return torch.from_numpy(np.array(picture)[None]).permute(0, 3, 1, 2)


def is_same_file(image: Any, other: Any) -> bool:
    """Return whether two images are one object, or files of the same content, so that one need not be decoded."""
    contents = [each.get("bytes") if isinstance(each, dict) else each for each in (image, other)]
    return image is other or (all(isinstance(each, bytes) for each in contents) and contents[0] == contents[1])


def cell_size(layout: Layout, canvas: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of the cell of each image.

    Raises: ValueError for an unknown layout, or a canvas that cannot be halved.
    """
    if layout not in ("vertical", "horizontal"):
        raise ValueError(f"layout must be 'vertical' or 'horizontal', got {layout!r}.")
    if len(canvas) != 2 or not all(isinstance(size, int) and size > 0 for size in canvas):
        raise ValueError(f"canvas must be two positive whole numbers, height and width; got {list(canvas)}.")
    if max(canvas) > LARGEST_SIDE:
        raise ValueError(f"canvas {list(canvas)} is too large: height and width are at most {LARGEST_SIDE} pixels.")
    height, width = canvas
    name, halved = ("height", height) if layout == "vertical" else ("width", width)
    if halved % 2:
        raise ValueError(
            f"The {name} of canvas {list(canvas)} cannot be halved: layout {layout!r} needs an even {name}, "
            f"for example {halved + 1}."
        )
    return (height // 2, width) if layout == "vertical" else (height, width // 2)


def check_blur(blur: float) -> None:
    """Raise ValueError unless `blur` is a sigma in pixels from 0 to below MOST_BLUR."""
    if isinstance(blur, bool) or not isinstance(blur, (int, float)) or not 0 <= blur < MOST_BLUR:
        raise ValueError(f"blur must be a number of pixels from 0 to below {MOST_BLUR:g}, got {blur!r}.")


def _blurred(image: Image.Image, sigma: float) -> Image.Image:
    """Apply torchvision's GaussianBlur(3, sigma): edges are mirrored, values rounded."""
    if sigma < LEAST_BLUR:
        return image
    side = math.exp(-0.5 / sigma**2)
    row = [side / (1 + 2 * side), 1 / (1 + 2 * side), side / (1 + 2 * side)]
    kernel = ImageFilter.Kernel((3, 3), [a * b for a in row for b in row], scale=1)
    # Pillow leaves the outermost pixels as they are: [H, W, 3] -> [H + 2, W + 2, 3], and back
    mirrored = Image.fromarray(np.pad(np.asarray(image), ((1, 1), (1, 1), (0, 0)), mode="reflect"))
    return mirrored.filter(kernel).crop((1, 1, image.width + 1, image.height + 1))


def load_image(source: Any, least: int | None = None) -> Image.Image:
    """Return an RGB image from a path, the bytes of a file, a PIL image, an array or a tensor.

    It also reads an image that `datasets` has not decoded, {"path": ..., "bytes": ...}, and names it by its path.
    Transparent parts become white, 16 bits become 8, and the EXIF orientation is applied.

    Args:
        least: pixels per side that a JPEG file must at least have when it is decoded at a fraction of its size; None
            for its whole size.

    Raises: ImageError for what cannot be read or is not an image.
    """
    image = _load(source, None if least is None else lambda _: (least, least))
    if type(image) is Image.Image and not image.info:
        return image
    image = image.copy()  # of a file or of a caller's image
    image.info = {}
    return image


def _load(source: Any, least: Callable[[Size], Size] | None) -> Image.Image:
    """Return an upright RGB image, perhaps `source` itself.

    Args:
        least: width and height of the whole image -> those that a JPEG file must at least have when it is decoded at a
            fraction of its size; None for its whole size.
    """
    if type(source) is Image.Image and source.mode == "RGB" and not source.info:
        return source  # nothing to convert, e.g. an image that `load_image` returned
    name = "the image"
    if isinstance(source, dict):
        name = repr(source["path"]) if source.get("path") else name
        source = source.get("path") if source.get("bytes") is None else source["bytes"]
    if isinstance(source, (str, os.PathLike)):
        check_file(source)
        return _decode(source, repr(os.fspath(source)), least)
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), name, least)
    if isinstance(source, Image.Image):
        return _to_rgb(source)
    if isinstance(source, torch.Tensor):
        # numpy has no bfloat16
        source = (source.float() if source.is_floating_point() else source).detach().cpu().numpy()
    if isinstance(source, np.ndarray):
        return _from_array(source)
    raise ImageError(
        f"a {type(source).__name__} is not an image; pass a path, the bytes of a file, a PIL image, a numpy array or "
        "a torch tensor."
    )


def check_file(file: str | os.PathLike) -> None:
    """Raise ImageError if a path cannot be that of an image, without opening it."""
    name = repr(os.fspath(file))
    if not os.path.exists(file):
        raise ImageError(f"{name} does not exist; check the path (relative paths start at {os.getcwd()!r}).")
    if not os.path.isfile(file) and not os.path.isdir(file):  # to open a pipe may take for ever
        raise ImageError(f"{name} is a pipe or a device; pass an image file.")


def _decode(file: str | os.PathLike | io.BytesIO, name: str, least: Callable[[Size], Size] | None) -> Image.Image:
    try:
        with Image.open(file) as image:  # animated files open at their first frame
            if least is not None and image.format in ("JPEG", "MPO"):
                turned = _orientation(image) >= 5  # by 90 degrees: the file's width is the image's height
                size = least(image.size[::-1] if turned else image.size)
                image.draft(None, size[::-1] if turned else size)
            return _to_rgb(image)
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not an image that Pillow can read; convert it to PNG or JPEG.") from error
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        # Pillow reports damaged files with each of these types.
        raise ImageError(f"{name} cannot be read ({error}); replace the file or save it again.") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return an RGB image, upright as its EXIF block says; `image` itself if nothing is to be done."""
    try:
        image.load()
        if _orientation(image) != 1:  # exif_transpose would copy every other image too
            image = ImageOps.exif_transpose(image)
    except Exception:  # any error that Pillow raises for a broken EXIF block; a broken picture fails in load
        image.load()
    if image.mode.startswith("I;16"):
        return _from_array(np.asarray(image).astype(np.uint16))
    if image.mode in ("I", "F"):
        return _from_wide_values(np.asarray(image))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, WHITE), rgba)
    return image if image.mode == "RGB" else image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """Return how the EXIF block says that an image is turned, from 1 (upright) to 8; 1 for a broken block."""
    try:
        exif = image.getexif()
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        if orientation != 1:
            exif.tobytes()  # fails where exif_transpose would, and only for turned images
    except Exception:  # any error that Pillow raises for such a block
        return 1
    return orientation if orientation in range(1, 9) else 1


def _from_wide_values(values: np.ndarray) -> Image.Image:
    """Scale modes I and F, which do not define white, by the smallest usual range that contains the values."""
    lowest, highest = float(values.min()), float(values.max())
    ranges = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0)
    white = next((white for white in ranges if highest <= white), None)
    if white is None or not lowest >= 0:  # "not >=" holds for NaN too
        raise ImageError(f"values from {lowest:g} to {highest:g} are not grey levels; scale them to 0..65535.")
    return Image.fromarray(np.rint(values * (255.0 / white)).astype(np.uint8)).convert("RGB")


def _from_array(array: np.ndarray) -> Image.Image:
    array = _channels_last(array)
    if array.dtype == np.uint16:
        array = np.rint(array / 257.0).astype(np.uint8)  # 65535 / 257 = 255
    elif array.dtype.kind == "f":
        lowest, highest = float(array.min()), float(array.max())
        if not (lowest >= 0 and highest <= 1):
            raise ImageError(
                f"float arrays must contain values from 0 to 1, this one contains {lowest:g} to {highest:g}; "
                "scale it or convert it to uint8."
            )
        array = np.rint(array * 255.0).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ImageError(
            f"arrays of dtype {array.dtype} are not supported; convert it to uint8, uint16 or float 0..1."
        )
    # PIL wants [H, W] for grey
    return _to_rgb(Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array))


def _channels_last(array: np.ndarray) -> np.ndarray:
    shape = array.shape
    if array.size and array.ndim == 2:
        return array[:, :, None]  # [H, W] -> [H, W, 1]
    if array.size and array.ndim == 3 and shape[2] in (1, 3, 4):
        return np.ascontiguousarray(array)
    if array.size and array.ndim == 3 and shape[0] in (1, 3, 4):
        return np.ascontiguousarray(array.transpose(1, 2, 0))  # [C, H, W] -> [H, W, C]
    raise ImageError(
        f"arrays of shape {shape} are not supported; pass HxW, HxWxC or CxHxW with 1, 3 or 4 channels "
        "(a list of them for many images)."
    )
