"""Dubai CC: a file per split, TIFF images of both years in two folders, no flag of a change."""

import json
from pathlib import Path

import pytest
from PIL import Image

from dataset_syned.benchmarks.levir_family import DubaiCc
from dataset_syned.pairs import DataError, read_row

SAME = ["nothing has changed", "No change.", "there is no difference", "no changes", "the scene remains the same"]
BUILT = ["an island appears", "a new island", "an island was built", "island", "houses on an island"]
TILES = {"Train": ("11x37.tif", BUILT), "Validation": ("11x38.tif", SAME), "Test": ("2x3.tif", BUILT)}


def write_tiny(root: Path, broken: bool) -> None:
    folder = root / DubaiCc.SUBFOLDER
    (folder / "description_jsontr_te_val").mkdir(parents=True)
    for split, (name, texts) in TILES.items():
        entry = {"filename": name, "sentences": [{"raw": text} for text in texts]}
        images = [{"filename": "1x1.tif"}] * (broken and split == "Train") + [entry]
        path = folder / "description_jsontr_te_val" / f"{split}_captions.json"
        path.write_text(json.dumps({"images": images}))
        for year, color in (("2000", "yellow"), ("2010", "gray")):
            image = folder / "imgs_tiles" / "RGB" / f"500_{year}" / name
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (50, 50), color).save(image)


def test_each_file_is_a_split_and_each_tile_a_pair(tmp_path: Path) -> None:
    write_tiny(tmp_path, broken=False)
    builder = DubaiCc(root=tmp_path)
    assert builder.raw_splits() == ["train", "validation", "test"]
    pairs = [next(builder.raw_pairs(split)) for split in builder.raw_splits()]
    assert [pair.pair_id for pair in pairs] == ["11x37", "11x38", "2x3"]
    assert [pair.change_type for pair in pairs] == ["", "none", ""]
    assert pairs[0].captions == BUILT and pairs[0].after.parent.name == "500_2010"
    assert read_row(pairs[0])["before"]["path"] == "11x37.tif"


def test_missing_annotations_and_fields_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="description_jsontr_te_val/Train_.*.json is missing in .*melgani"):
        DubaiCc(root=tmp_path).raw_splits()
    write_tiny(tmp_path, broken=True)
    with pytest.raises(DataError, match=r"Train_captions.json', images\[0\]: no field 'sentences'"):
        list(DubaiCc(root=tmp_path).raw_pairs("train"))
