"""LEVIR-MCI: the form of LEVIR-CC, also where the archive was unpacked; masks are not read."""

from pathlib import Path

import test_levir_cc
from PIL import Image

from dataset_syned.benchmarks.levir_cc import LevirCc
from dataset_syned.benchmarks.levir_family import LevirMci


def write_tiny(root: Path, broken: bool) -> None:
    folder = root / "LEVIR-MCI-dataset"
    folder.mkdir()
    test_levir_cc.write_tiny(folder, broken)
    (folder / "images" / "train" / "label").mkdir()
    Image.new("L", (4, 4)).save(folder / "images" / "train" / "label" / "train_000001.png")


def test_the_pairs_are_those_of_levir_cc(tmp_path: Path) -> None:
    write_tiny(tmp_path, broken=False)
    builder, other = LevirMci(root=tmp_path), LevirCc(root=tmp_path / "LEVIR-MCI-dataset")
    assert builder.raw_splits() == ["train", "validation", "test"]
    for split in builder.raw_splits():
        assert list(builder.raw_pairs(split)) == list(other.raw_pairs(split))
    assert builder.EXPECTED == other.EXPECTED and "academic" in builder.LICENSE
