"""HQ-Edit: each row is a pair there and a pair back, under old and new names of columns."""

from pathlib import Path
from typing import Any

import pytest
from parquet_files import IMAGE, cell, picture, write_parquet

from dataset_syned.benchmarks.hq_edit import HqEdit
from dataset_syned.pairs import BrokenEntry, RawPair

COLUMNS = {"input": str, "input_image": IMAGE, "edit": str, "inverse_edit": str, "output": str, "output_image": IMAGE}


def row(number: int, edit: str = "add a hat", inverse: str = "take it off") -> dict[str, Any]:
    images = {"input_image": cell(number), "output_image": cell(number + 1)}
    return images | {"input": "a dog", "output": "a dog with a hat", "edit": edit, "inverse_edit": inverse}


def write_tiny(root: Path, broken: bool) -> None:
    write_parquet(root / "data" / "train-0.parquet", [row(1), row(2)] + [row(3, " ", " ")] * broken, COLUMNS)


def test_a_row_is_a_pair_there_and_one_back(tmp_path: Path) -> None:
    write_tiny(tmp_path, broken=False)
    builder = HqEdit(root=tmp_path)
    assert builder.raw_splits() == ["train"] and builder.count_pairs("train") == 4
    there, back, *_ = builder.raw_pairs("train")
    first, second = ("train-0-0-before.png", picture(1)), ("train-0-0-after.png", picture(2))
    known = {"input": "a dog", "output": "a dog with a hat"}
    assert there == RawPair("train-0-0", first, second, ["add a hat"], "", known)
    turned = {"input": known["output"], "output": known["input"]}
    assert back == RawPair("train-0-0-inverse", second, first, ["take it off"], "", turned)


@pytest.mark.parametrize("names", [("edit_instruction", "inverse_edit_instruction"), ("edit", "inverse-edit")])
def test_older_names_of_columns_are_read(tmp_path: Path, names: tuple[str, str]) -> None:
    new = dict(zip(("edit", "inverse_edit"), names, strict=True))
    columns = {new.get(name, name): kind for name, kind in COLUMNS.items()}
    write_parquet(tmp_path / "data" / "train-0.parquet", [{new.get(k, k): v for k, v in row(1).items()}], columns)
    assert [pair.captions for pair in HqEdit(root=tmp_path).raw_pairs("train")] == [["add a hat"], ["take it off"]]


def test_a_row_without_the_way_back_keeps_the_way_there(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "train-0.parquet", [row(1, inverse="")], COLUMNS)
    there, back = HqEdit(root=tmp_path).entries("train")
    assert isinstance(there, RawPair) and isinstance(back, BrokenEntry)
    assert "row 0: no text in 'inverse_edit'" in str(back.error)
