"""Rows of Parquet files: other names of columns, missing ones, images without names, and memory of a row group."""

import random
from pathlib import Path

import pyarrow
import pytest
from parquet_files import IMAGE, cell, picture, write_parquet

from dataset_syned.pairs import DataError
from dataset_syned.parquet_pairs import cell_image, count_rows, read_rows

COLUMNS = {"text": ("caption", "description"), "before": ("image_1",), "note": ("note",)}
OPTIONAL = frozenset({"note"})


def test_a_column_may_have_another_of_its_names_and_optional_ones_may_be_missing(tmp_path: Path) -> None:
    rows = [{"description": f"text {number}", "image_1": cell(number), "unread": "x"} for number in range(5)]
    path = write_parquet(tmp_path / "a.parquet", rows, {"description": str, "image_1": IMAGE, "unread": str})
    assert count_rows(path) == 5
    assert list(read_rows(path, COLUMNS, OPTIONAL)) == [
        {"text": f"text {number}", "before": cell(number), "note": None} for number in range(5)
    ]


def test_the_first_missing_column_is_named_with_those_that_exist(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "a.parquet", [{"image_1": cell(1), "sentence": "x"}], {"image_1": IMAGE, "sentence": str}
    )
    with pytest.raises(DataError, match="no column 'caption' .or 'description'., it has: image_1, sentence"):
        list(read_rows(path, COLUMNS, OPTIONAL))


def test_an_image_gets_the_base_name_of_its_cell_or_one_with_the_suffix_of_its_format() -> None:
    assert cell_image(cell(1, "/home/someone/x.png"), "7-before", "image_1") == ("x.png", picture(1))
    assert cell_image(cell(1), "7-before", "image_1") == ("7-before.png", picture(1))
    assert cell_image({"bytes": b"\xff\xd8\xff.."}, "7", "image_1")[0] == "7.jpg"
    for empty in (None, {"bytes": None, "path": "x.png"}, {"path": "x.png"}):
        with pytest.raises(DataError, match="no image bytes in 'image_1'"):
            cell_image(empty, "7", "image_1")


def test_memory_is_that_of_a_row_group_whatever_the_number_of_rows(tmp_path: Path) -> None:
    size, rng = 2**16, random.Random(0)
    rows = [{"image_1": {"bytes": rng.randbytes(size), "path": "large.png"}} for _ in range(320)]
    path = write_parquet(tmp_path / "a.parquet", rows, {"image_1": IMAGE}, group=20)
    before = pyarrow.total_allocated_bytes()
    allocated = [pyarrow.total_allocated_bytes() - before for _ in read_rows(path, {"before": ("image_1",)})]
    assert len(allocated) == 320 and max(allocated) < 120 * size
