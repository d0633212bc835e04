"""Images at the size that is needed, made once: the option `max_side` of every benchmark."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from .pairs import decode_image, image_bytes, png

SIDES = (32, 4096)  # pixels: smallest and largest `max_side`
QUALITY = 95  # of JPEG files that are written again; Pillow's own is 75
JPEG = b"\xff\xd8"  # begins each JPEG file


def check_max_side(benchmark: str, max_side: Any) -> None:
    """Raise ValueError that quotes a `max_side` which cannot be used; None is the size of the files."""
    if max_side is not None and (type(max_side) is not int or not SIDES[0] <= max_side <= SIDES[1]):
        raise ValueError(f"{benchmark}: max_side={max_side!r}, use a whole number of {SIDES[0]} to {SIDES[1]} pixels")


def at_most(max_side: int, image: dict[str, Any]) -> dict[str, Any]:
    """Return an image whose longer side has at most `max_side` pixels; a smaller one as it is.

    JPEG stays JPEG, and everything else becomes PNG. The new file is upright and has no transparent parts.

    Args:
        image: an image as rows contain it.

    Raises: DataError that names an image which cannot be decoded.
    """
    picture = decode_image(image)
    if max(picture.size) <= max_side:
        return image
    size = [max(1, round(side * max_side / max(picture.size))) for side in picture.size]
    smaller = picture.resize(size, Image.Resampling.BICUBIC)
    if not image["bytes"].startswith(JPEG):
        return image_bytes(str(Path(image["path"]).with_suffix(".png")), png(smaller))
    file = io.BytesIO()
    smaller.save(file, "JPEG", quality=QUALITY)
    return image_bytes(image["path"], file.getvalue())
