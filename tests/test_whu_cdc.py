"""WHU-CDC: the form of LEVIR-CC under another file name."""

from pathlib import Path

import pytest
import test_levir_cc

from dataset_syned.benchmarks.levir_family import WhuCdc
from dataset_syned.pairs import DataError


def write_tiny(root: Path, broken: bool) -> None:
    (root / "whu_CDC_dataset").mkdir()
    test_levir_cc.write_tiny(root / "whu_CDC_dataset", broken)
    (root / "whu_CDC_dataset" / "LevirCCcaptions.json").rename(root / "whu_CDC_dataset" / WhuCdc.ANNOTATIONS)


def test_pairs_are_read_from_its_own_file(tmp_path: Path) -> None:
    write_tiny(tmp_path, broken=False)
    pairs = list(WhuCdc(root=tmp_path).raw_pairs("train"))
    assert [(pair.pair_id, pair.change_type) for pair in pairs] == [
        ("train_000016", ""),
        ("train_000001", "none"),
        ("train_000007", ""),
    ]
    assert pairs[0].captions == test_levir_cc.BUILT


def test_the_missing_file_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="whuCCcaptions.json is missing in .*hygge10111/RS-CDC"):
        WhuCdc(root=tmp_path).raw_splits()
