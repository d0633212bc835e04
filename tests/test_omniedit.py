"""OmniEdit: all instructions of an edit are captions; dev is validation."""

from pathlib import Path
from typing import Any

import pyarrow
import pytest
from parquet_files import IMAGE, cell, picture, write_parquet

from dataset_syned.benchmarks.omniedit import OmniEdit
from dataset_syned.pairs import DataError, RawPair

TEXTS = pyarrow.list_(pyarrow.string())
COLUMNS = {"omni_edit_id": str, "task": str, "src_img": IMAGE, "edited_img": IMAGE, "edited_prompt_list": TEXTS}


def row(number: int, task: str = "removal", *texts: str) -> dict[str, Any]:
    images = {"src_img": cell(number), "edited_img": cell(number + 1)}
    return {"omni_edit_id": f"task_{number}", "task": task, "edited_prompt_list": list(texts)} | images


ROWS = [
    row(1, "removal", " remove the dog ", "", "take it away"),
    row(2, "swap", "a cat instead"),
    row(3, "env", "snow"),
]


def write_tiny(root: Path, broken: bool) -> None:
    write_parquet(root / "data" / "train-00000-of-00571.parquet", ROWS + [row(4)] * broken, COLUMNS)
    write_parquet(root / "data" / "dev-00000-of-00001.parquet", ROWS[:1], COLUMNS)


def test_rows_are_pairs(tmp_path: Path) -> None:
    write_tiny(tmp_path, broken=False)
    builder = OmniEdit(root=tmp_path)
    assert builder.raw_splits() == ["train", "validation"] and builder.count_pairs("train") == 3
    images = ("task_1-before.png", picture(1)), ("task_1-after.png", picture(2))
    expected = RawPair("task_1", *images, ["remove the dog", "take it away"], "remove", {"task": "removal"})
    assert list(builder.raw_pairs("validation")) == [expected]
    assert [pair.change_type for pair in builder.raw_pairs("train")] == ["remove", "", ""]


@pytest.mark.parametrize("texts", [None, [], [" "]])
def test_an_edit_without_instruction_is_named(tmp_path: Path, texts: list[str] | None) -> None:
    write_parquet(tmp_path / "data" / "dev-0.parquet", [ROWS[0] | {"edited_prompt_list": texts}], COLUMNS)
    with pytest.raises(DataError, match="dev-0.parquet', row 0: no text in 'edited_prompt_list'"):
        list(OmniEdit(root=tmp_path).raw_pairs("validation"))
