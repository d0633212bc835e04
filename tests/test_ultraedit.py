"""UltraEdit: rows are pairs with the captions of both pictures, if the file has them."""

from pathlib import Path
from typing import Any

import pytest
from parquet_files import IMAGE, cell, picture, write_parquet

from dataset_syned.benchmarks.ultraedit import UltraEdit
from dataset_syned.pairs import DataError, RawPair

IMAGES = {"source_image": IMAGE, "edited_image": IMAGE}
COLUMNS = IMAGES | {"edit_prompt": str, "source_caption": str, "target_caption": str}


def row(number: int, text: str = "add a moon") -> dict[str, Any]:
    captions = {"edit_prompt": text, "source_caption": "a lake", "target_caption": "a lake under the moon"}
    return captions | {"source_image": cell(number), "edited_image": cell(number + 1)}


def write_tiny(root: Path, broken: bool) -> None:
    write_parquet(root / "data" / "FreeForm-1.parquet", [row(1), row(2), row(3)] + [row(4, "")] * broken, COLUMNS)


def test_rows_are_pairs(tmp_path: Path) -> None:
    write_tiny(tmp_path, broken=False)
    builder = UltraEdit(root=tmp_path)
    assert builder.raw_splits() == ["train"] and builder.count_pairs("train") == 3
    images = ("FreeForm-1-0-before.png", picture(1)), ("FreeForm-1-0-after.png", picture(2))
    known = {"input": "a lake", "output": "a lake under the moon"}
    assert next(builder.raw_pairs("train")) == RawPair("FreeForm-1-0", *images, ["add a moon"], "", known)


def test_captions_may_be_missing_but_the_instruction_not(tmp_path: Path) -> None:
    path = tmp_path / "data" / "RegionBase-0.parquet"
    write_parquet(path, [row(1)], IMAGES | {"edit_prompt": str})
    (pair,) = UltraEdit(root=tmp_path).raw_pairs("train")
    assert (pair.captions, pair.provenance) == (["add a moon"], {})
    write_parquet(path, [row(1)], IMAGES | {"source_caption": str})
    with pytest.raises(DataError, match="no column 'edit_prompt', it has: source_image, edited_image, source_caption"):
        list(UltraEdit(root=tmp_path).raw_pairs("train"))
