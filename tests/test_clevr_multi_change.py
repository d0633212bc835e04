"""CLEVR-Multi-Change: the whole text is the reference, its sentences are listed in provenance."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataset_syned.benchmarks.clevr_multi_change import ClevrMultiChange
from dataset_syned.pairs import DataError, RawPair

SENTENCES = ["A small red metal cube appeared.", "The large gray rubber sphere is gone."]


def line(number: int, text: str = " ".join(SENTENCES)) -> dict[str, Any]:
    stem = f"images/CLEVR_new_{number:06d}"
    turns = [("user", "<image> first"), ("assistant", "go on"), ("user", "<image> second"), ("assistant", text)]
    messages = [{"role": role, "content": content} for role, content in turns]
    return {"messages": messages, "images": [f"{stem}.png", f"{stem}_after.png"]}


def write_lines(root: Path, split: str, lines: list[Any]) -> Path:
    (root / "images").mkdir(exist_ok=True)
    for number in (3, 5, 7):
        for end, color in (("", "white"), ("_after", "black")):
            Image.new("RGB", (8, 8), color).save(root / "images" / f"CLEVR_new_{number:06d}{end}.png")
    (root / f"clevr_multichange_{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return root


def write_tiny(root: Path, broken: bool) -> None:
    write_lines(root, "train", [line(3) | {"images": ["a.png"]}] * broken + [line(7), line(3), line(5)])
    write_lines(root, "test", [line(3)])


def test_lines_are_pairs(tmp_path: Path) -> None:
    write_tiny(tmp_path, broken=False)
    builder, images = ClevrMultiChange(root=tmp_path), tmp_path / "images"
    assert builder.raw_splits() == ["train", "validation", "test"]
    before, after = images / "CLEVR_new_000003.png", images / "CLEVR_new_000003_after.png"
    (pair,) = builder.raw_pairs("test")
    known = {"sentences": SENTENCES}
    assert pair == RawPair("CLEVR_new_000003", before, after, [" ".join(SENTENCES)], "multiple", known)


def test_validation_is_the_end_of_the_train_file(tmp_path: Path) -> None:
    write_lines(tmp_path, "train", [line(number) for number in range(250)])
    builder = ClevrMultiChange(root=tmp_path)
    assert builder.raw_splits() == ["train", "validation"]
    train, validation = ([pair.pair_id[-3:] for pair in builder.raw_pairs(split)] for split in ("train", "validation"))
    assert (train[-1], len(train), validation) == ("246", 247, ["247", "248", "249"])
    assert [builder.count_pairs(split) for split in ("train", "validation")] == [247, 3]


def test_what_differs_is_named(tmp_path: Path) -> None:
    without = {"conversation": [], "images": ["a", "b"]}
    write_lines(tmp_path, "test", [without])
    with pytest.raises(DataError, match="test.jsonl', line 1: no field 'messages' .or 'conversations'., it has: conv"):
        list(ClevrMultiChange(root=tmp_path).raw_pairs("test"))
