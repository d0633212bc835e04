"""ImgEdit: rows and turns with one image before and one after are pairs, whatever the nesting of names."""

from pathlib import Path
from typing import Any

import pyarrow
import pytest
from parquet_files import write_parquet
from PIL import Image

from dataset_syned.benchmarks.imgedit import ImgEdit
from dataset_syned.pairs import DataError

TEXTS = pyarrow.list_(pyarrow.string())
NESTED = pyarrow.list_(TEXTS)
ROW = {"input_images": NESTED, "output_images": NESTED, "prompt": str}
TURN = pyarrow.struct([("input_images", TEXTS), ("output_images", TEXTS), ("prompt", pyarrow.string())])


def row(number: int, text: str = "remove the dog", *others: str) -> dict[str, Any]:
    before, after = (f"results_remove_part0/{number}/{side}.png" for side in ("original", "result"))
    return {"input_images": [[before, *others]], "output_images": [[after]], "prompt": text}


def turn(number: int, text: str) -> dict[str, Any]:
    return {
        "input_images": [f"results_memory/{number}.png"],
        "output_images": [f"results_memory/{number + 1}.png"],
        "prompt": text,
    }


def write_tiny(root: Path, broken: bool) -> None:
    names = [f"Singleturn/results_remove_part0/{n}/{side}.png" for n in (1, 2) for side in ("original", "result")]
    for name in [*names, *(f"Multiturn/results_memory/{number}.png" for number in (1, 2, 3))]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(root / name)
    rows = [row(1), row(7, "with a reference", "reference.png"), row(2)] + [row(3, " ")] * broken
    write_parquet(root / "Parquet" / "remove_part0.parquet", rows, ROW)
    turns = [{"data": [turn(1, "add a hat"), turn(2, "make it red")]}]
    write_parquet(root / "Parquet" / "content_memory_part2.parquet", turns, {"data": pyarrow.list_(TURN)})


def test_rows_and_turns_with_two_images_are_pairs(tmp_path: Path) -> None:
    write_tiny(tmp_path, broken=False)
    builder = ImgEdit(root=tmp_path)
    assert builder.raw_splits() == ["train"] and builder.count_pairs("train") == 4
    pairs = list(builder.raw_pairs("train"))
    assert [(pair.pair_id, pair.captions, pair.change_type) for pair in pairs] == [
        ("content_memory_part2-0-1", ["add a hat"], ""),
        ("content_memory_part2-0-2", ["make it red"], ""),
        ("remove_part0-0", ["remove the dog"], "remove"),
        ("remove_part0-2", ["remove the dog"], "remove"),
    ]
    assert pairs[0].after == pairs[1].before == tmp_path / "Multiturn" / "results_memory" / "2.png"
    assert pairs[3].before == tmp_path / "Singleturn" / "results_remove_part0" / "2" / "original.png"


def test_what_differs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "Parquet" / "add_part0.parquet"
    write_parquet(path, [{"inputs": "x", "prompt": "y"}], {"inputs": str, "prompt": str})
    with pytest.raises(DataError, match="add_part0.parquet' has no column 'input_images', it has: inputs, prompt"):
        list(ImgEdit(root=tmp_path).raw_pairs("train"))
    write_parquet(
        path, [{"data": [{"before": "x"}]}], {"data": pyarrow.list_(pyarrow.struct([("before", pyarrow.string())]))}
    )
    with pytest.raises(DataError, match="row 0, turn 1: no field 'input_images'"):
        list(ImgEdit(root=tmp_path).raw_pairs("train"))
    write_parquet(path, [row(1, "")], ROW)
    with pytest.raises(DataError, match="row 0: no text in 'prompt'"):
        list(ImgEdit(root=tmp_path).raw_pairs("train"))
