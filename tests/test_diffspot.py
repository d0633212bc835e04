"""DiffSpot: changed and unchanged screenshots, whatever the difficulty says of the latter."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from parquet_files import IMAGE, cell, picture, write_parquet

from dataset_syned.annotations import say_no_change
from dataset_syned.benchmarks.diffspot import DiffSpot
from dataset_syned.pairs import DataError, RawPair

COLUMNS = {
    **{"id": str, "image_before": IMAGE, "image_after": IMAGE, "task_type": str, "difficulty": str, "domain": str},
    **{"mutation_dicts_json": pyarrow.list_(pyarrow.string()), "ground_truth_diff": str},
}


def row(number: int, operator: str = "", text: str | None = None, difficulty: str = "easy") -> dict[str, Any]:
    return {
        "id": f"p{number}",
        "image_before": cell(number),
        "image_after": cell(number + 1),
        "task_type": "visual_diff" if operator else "no_diff",
        "difficulty": difficulty,
        "domain": "finance",
        "mutation_dicts_json": [json.dumps({"type": operator, "after": "2px"})] if operator else [],
        "ground_truth_diff": text,
    }


ROWS = [
    row(1, "font_size", " The caption is larger. "),
    row(2, difficulty="unknown"),
    row(3, "text", "It reads more."),
    row(4, difficulty="no_diff"),
]


def write_tiny(root: Path, broken: bool) -> None:
    write_parquet(root / "test-00000-of-00001.parquet", [row(9, "color", " ")] * broken + ROWS, COLUMNS)


def test_rows_are_pairs(tmp_path: Path) -> None:
    write_tiny(tmp_path, broken=False)
    builder = DiffSpot(root=tmp_path)
    assert (builder.raw_splits(), builder.count_pairs("test")) == (["test"], 4)
    first, same, text, _ = builder.raw_pairs("test")
    provenance = {"difficulty": "easy", "domain": "finance", "operator": "font_size"}
    assert first == RawPair(
        "p1",
        *(("p1-before.png", picture(1)), ("p1-after.png", picture(2)), ["The caption is larger."], "local"),
        provenance | {"changes": [{"type": "font_size", "after": "2px"}]},
    )
    assert (same.change_type, same.provenance) == ("none", {"difficulty": "no_diff", "domain": "finance"})
    assert say_no_change(same.captions) and text.change_type == "text"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ground_truth_diff": None}, "row 0: no text in 'ground_truth_diff'"),
        ({"mutation_dicts_json": ["{"]}, "row 0: not valid JSON"),
        ({"mutation_dicts_json": ["{}"]}, "row 0: no field 'type'"),
        ({"image_after": None}, "row 0: no image bytes in 'image_after'"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_parquet(tmp_path / "test-00000-of-00001.parquet", [ROWS[0] | change], COLUMNS)
    with pytest.raises(DataError, match=message):
        list(DiffSpot(root=tmp_path).raw_pairs("test"))
