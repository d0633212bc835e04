"""LEVIR-CDC: the form of LEVIR-CC in the folder of its archive."""

from pathlib import Path

import test_levir_cc

from dataset_syned.benchmarks.levir_family import LevirCdc


def write_tiny(root: Path, broken: bool) -> None:
    (root / "Levir_CDC_dataset").mkdir()
    test_levir_cc.write_tiny(root / "Levir_CDC_dataset", broken)


def test_pairs_are_read_from_the_folder_of_the_archive(tmp_path: Path) -> None:
    write_tiny(tmp_path, broken=False)
    (pair,) = LevirCdc(root=tmp_path).raw_pairs("test")
    images = tmp_path / "Levir_CDC_dataset" / "images" / "test"
    assert (pair.before, pair.after) == (images / "A" / "test_000004.png", images / "B" / "test_000004.png")
    assert (pair.captions, pair.change_type) == (test_levir_cc.SAME, "none")
