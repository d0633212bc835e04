"""SPOT-THE-SHIFT: each change is a reference and a unit; pairs without one are unchanged."""

from pathlib import Path
from typing import Any

import pyarrow
import pytest
from parquet_files import IMAGE, cell, write_parquet

from dataset_syned.annotations import say_no_change
from dataset_syned.benchmarks.spot_the_shift import SpotTheShift
from dataset_syned.pairs import DataError
from metric_idc import stated_units
from metric_idc.difference_units import true_units

CHANGE = pyarrow.struct([(name, pyarrow.string()) for name in ("type", "action", "location")])
COLUMNS = {"image_1": IMAGE, "image_2": IMAGE, "changes": pyarrow.list_(CHANGE)}


def change(thing: str, action: str, place: str | None = None) -> dict[str, Any]:
    return {"type": thing, "action": action, "location": place}


def row(number: int, *changes: dict[str, Any]) -> dict[str, Any]:
    return {"image_1": cell(number), "image_2": cell(number + 1), "changes": list(changes)}


ROWS = [
    row(1, change("stop sign", "removed", "at the corner"), change("blue fence", "added")),
    row(2),
    row(3, change("lane marking", "modified", "left")),
]


def write_tiny(root: Path, broken: bool) -> None:
    write_parquet(root / "data" / "test-0.parquet", ROWS + [row(4, change("x", "vanished"))] * broken, COLUMNS)


def test_changes_are_references_and_units(tmp_path: Path) -> None:
    write_tiny(tmp_path, broken=False)
    builder = SpotTheShift(root=tmp_path)
    first, same, last = builder.raw_pairs("test")
    assert first.captions == ["stop sign removed", "blue fence added"] and first.change_type == "multiple"
    assert first.provenance["units"] == [
        {"thing": "stop sign", "action": "remove", "place": "at the corner"},
        {"thing": "blue fence", "action": "add", "place": ""},
    ]
    for pair in (first, last):
        stated = [unit for caption in pair.captions for unit in stated_units(caption)]
        assert stated == list(true_units(pair.provenance["units"])), "scores compare these"
    assert (same.change_type, same.provenance) == ("none", {}) and say_no_change(same.captions)
    assert (last.change_type, last.captions, last.pair_id) == ("local", ["lane marking modified"], "test-0-2")


def test_ids_and_other_names_of_columns_are_read_if_there_are_any(tmp_path: Path) -> None:
    names = {"image_1": "before", "image_2": "after", "changes": "units"}
    renamed = {names[name]: value for name, value in ROWS[0].items()}
    columns = {names[name]: kind for name, kind in COLUMNS.items()} | {"id": str}
    write_parquet(tmp_path / "0000.parquet", [renamed | {"id": "rome-7"}], columns)
    (pair,) = SpotTheShift(root=tmp_path).raw_pairs("test")
    assert pair.pair_id == "rome-7" and pair.captions[0] == "stop sign removed"


def test_what_differs_is_named(tmp_path: Path) -> None:
    write_tiny(tmp_path, broken=True)
    with pytest.raises(DataError, match="row 3: action='vanished', use one of added, removed, modified"):
        list(SpotTheShift(root=tmp_path).raw_pairs("test"))
    write_parquet(
        tmp_path / "data" / "test-0.parquet", [{"image_1": cell(1), "old": "x"}], {"image_1": IMAGE, "old": str}
    )
    with pytest.raises(DataError, match="no column 'image_2' .or 'image2', 'after'., it has: image_1, old"):
        list(SpotTheShift(root=tmp_path).raw_pairs("test"))
