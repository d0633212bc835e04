"""Tiny Parquet files with images inside, as the Hub keeps them, for the tests of benchmarks."""

import io
from pathlib import Path
from typing import Any

import pyarrow
from PIL import Image
from pyarrow import parquet

IMAGE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def picture(number: int) -> bytes:
    """Return a PNG file whose color tells its number."""
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def cell(number: int, path: str | None = None) -> dict[str, Any]:
    """Return an image as a row of the Hub contains it."""
    return {"bytes": picture(number), "path": path}


def write_parquet(path: Path, rows: list[dict[str, Any]], columns: dict[str, Any], group: int = 2) -> Path:
    """Write rows, of which each group has two.

    Args:
        columns: name -> type of pyarrow, str for texts.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pyarrow.schema([(name, pyarrow.string() if kind is str else kind) for name, kind in columns.items()])
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema), path, row_group_size=group)
    return path
