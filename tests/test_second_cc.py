"""SECOND-CC: the form of LEVIR-CC with the photographs in rgb/ of each split; semantic maps are not read."""

import json
from pathlib import Path

import test_levir_cc
from PIL import Image

from dataset_syned.benchmarks.levir_family import SecondCc


def write_tiny(root: Path, broken: bool) -> None:
    entries = [test_levir_cc.ENTRIES[1] | {"sentences": 5}] * broken + test_levir_cc.ENTRIES
    (root / SecondCc.ANNOTATIONS).write_text(json.dumps({"images": entries}))
    for entry in test_levir_cc.ENTRIES:
        for kind, color in (("rgb", "white"), ("sem", "red")):
            for side in "AB":
                path = root / entry["split"] / kind / side / entry["filename"]
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (4, 4), color if side == "A" else "black").save(path)


def test_the_images_are_those_in_rgb(tmp_path: Path) -> None:
    write_tiny(tmp_path, broken=False)
    builder = SecondCc(root=tmp_path)
    assert builder.raw_splits() == ["train", "validation", "test"]
    (pair,) = builder.raw_pairs("validation")
    folder = tmp_path / "val" / "rgb"
    assert (pair.before, pair.after) == (folder / "A" / "val_000002.png", folder / "B" / "val_000002.png")
    assert (pair.captions, pair.change_type) == (["nothing to see here"], "none")
