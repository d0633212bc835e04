"""describe_the_difference: rows are pairs, under the names of columns that are usual."""

from pathlib import Path
from typing import Any

import pytest
from parquet_files import IMAGE, cell, picture, write_parquet

from dataset_syned.benchmarks.describe_the_difference import DescribeTheDifference
from dataset_syned.pairs import DataError, RawPair

COLUMNS = {"image_1": IMAGE, "image_2": IMAGE, "caption": str}
FILE = Path("default") / "training" / "0000.parquet"


def row(number: int, text: str = "a boat came") -> dict[str, Any]:
    return {"image_1": cell(number), "image_2": cell(number + 1), "caption": text}


def write_tiny(root: Path, broken: bool) -> None:
    write_parquet(root / FILE, [row(1), row(2), row(3)] + [row(9, " ")] * broken, COLUMNS)


def test_rows_are_pairs(tmp_path: Path) -> None:
    write_tiny(tmp_path, broken=False)
    builder = DescribeTheDifference(root=tmp_path)
    assert builder.raw_splits() == ["train"] and builder.count_pairs("train") == 3
    images = ("0000-1-before.png", picture(2)), ("0000-1-after.png", picture(3))
    assert list(builder.raw_pairs("train"))[1] == RawPair("0000-1", *images, ["a boat came"])


def test_other_names_are_read_and_what_differs_is_named(tmp_path: Path) -> None:
    names = {"image_1": "source_image", "image_2": "target_image", "caption": "description"}
    renamed = {names[name]: value for name, value in row(1).items()}
    columns = {names[name]: kind for name, kind in COLUMNS.items()}
    write_parquet(tmp_path / FILE, [renamed], columns)
    (pair,) = DescribeTheDifference(root=tmp_path).raw_pairs("train")
    assert pair.captions == ["a boat came"]
    write_parquet(tmp_path / FILE, [{"one": "x"}], {"one": str})
    with pytest.raises(DataError, match="0000.parquet' has no column 'image_1' .or 'image1', .*it has: one"):
        list(DescribeTheDifference(root=tmp_path).raw_pairs("train"))
