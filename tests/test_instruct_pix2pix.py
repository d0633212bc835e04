"""InstructPix2Pix: one pair per seed, the authors' split by position, and both spellings of their metadata."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from dataset_syned.benchmarks.instruct_pix2pix import InstructPix2Pix
from dataset_syned.pairs import DataError, RawPair

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "instruct-pix2pix"
LION = {"input": "a jungle leopard", "edit": "make it a lion", "output": "a jungle lion", "url": "http://x"}


def write_folder(root: Path, name: str, seeds: list[str], prompt: Any, metadata: list[Any] | None = None) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    for seed in seeds:
        for side, color in ((0, "white"), (1, "black")):
            Image.new("RGB", (4, 4), color).save(folder / f"{seed}_{side}.jpg")
    (folder / "prompt.json").write_text(json.dumps(prompt))
    if metadata is not None:
        (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metadata))
    return folder


def write_seeds(root: Path, seeds: Any) -> None:
    (root / "seeds.json").write_text(json.dumps(seeds))


def write_tiny(root: Path, broken: bool) -> None:
    names = [f"{number:07d}" for number in range(20)]
    for name in names:
        write_folder(root, name, ["1", "2", "3"], LION, [{"seed": "1", "sim_0": 0.3}])
    (root / names[0] / "3_0.jpg").unlink()
    write_seeds(root, [[name, ["1", "2", *["3"] * (broken and name == names[0])]] for name in names])


def build(root: Path) -> InstructPix2Pix:
    return InstructPix2Pix(root=root, cache_dir=str(root / "cache"))


def pair(folder: Path, seed: str, edit: str, provenance: dict[str, Any] | None = None) -> RawPair:
    images = folder / f"{seed}_0.jpg", folder / f"{seed}_1.jpg"
    return RawPair(f"{folder.name}-{seed}", *images, [edit], provenance=provenance or {})


def test_folders_without_seeds_file_are_all_train(tmp_path: Path) -> None:
    released = [{"seed": 12, "scale": 7.5, "sim_0": 0.3, "sim_direction": 0.4, "sim_image": 0.8}]
    current = [{"seed": 5, "p2p_threshold": 0.2, "cfg_scale": 7.5, "clip_sim_0": 0.3, "clip_sim_dir": 0.4}]
    third = write_folder(tmp_path, "0000132", ["5"], {"caption": "a cat", "edit": "make it blue"}, current)
    first = write_folder(tmp_path, "0000014", ["3", "12"], LION, released)
    second = write_folder(tmp_path, "0000020", ["8"], {"edit": " Make it look like a painting\n"})
    write_folder(tmp_path, "0000021", [], {"edit": "no picture passed the filter"})
    builder = build(tmp_path)
    assert builder.raw_splits() == ["train"] and builder.count_pairs("train") == 4
    prompts = {"input": "a jungle leopard", "output": "a jungle lion"}
    similarities = {"sim_0": 0.3, "sim_direction": 0.4, "scale": 7.5}
    assert list(builder.raw_pairs("train")) == [
        pair(first, "12", "make it a lion", {**prompts, **similarities, "seed": 12, "sim_image": 0.8}),
        pair(first, "3", "make it a lion", prompts),
        pair(second, "8", "Make it look like a painting"),
        pair(third, "5", "make it blue", {"input": "a cat", **similarities, "seed": 5, "p2p_threshold": 0.2}),
    ]


def test_splits_are_cut_by_position_in_the_seeds_file(tmp_path: Path) -> None:
    names = [f"{number:07d}" for number in range(20)]
    write_seeds(tmp_path, [[name, ["1", "2"]] for name in names])
    for name in names:
        write_folder(tmp_path, name, ["1", "2", "3"], {"edit": f"edit {name}"})  # seed 3 did not pass the filter
    builder = build(tmp_path)
    ids = {split: [found.pair_id for found in builder.raw_pairs(split)] for split in builder.raw_splits()}
    assert list(ids) == ["train", "validation", "test"]
    assert ids["train"] == [f"{name}-{seed}" for name in names[:18] for seed in (1, 2)]
    assert ids["validation"] == ["0000018-1", "0000018-2"] and ids["test"] == ["0000019-1", "0000019-2"]
    assert [builder.count_pairs(split) for split in ids] == [36, 2, 2]


def test_the_folder_of_the_authors_script_is_found(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "clip-filtered-dataset", "0000014", ["3"], LION)
    write_seeds(folder.parent, [["0000014", [3]]])  # of one folder, floor(0.9) = 0 are for train
    builder = build(tmp_path)
    assert builder.raw_splits() == ["test"]
    assert [found.before for found in builder.raw_pairs("test")] == [folder / "3_0.jpg"]


def test_prepared_rows(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "0000014", ["3"], LION, [{"seed": 3, "sim_0": 0.5}])
    builder = build(tmp_path)
    builder.download_and_prepare()
    rows = builder.as_dataset("train").cast_column("before", datasets.Image(decode=False))
    (row,) = rows.cast_column("after", datasets.Image(decode=False)).to_list()
    assert json.loads(row.pop("provenance")) == {
        "input": "a jungle leopard",
        "output": "a jungle lion",
        "seed": 3,
        "sim_0": 0.5,
    }
    assert row == {
        "pair_id": "0000014-3",
        "before": {"path": "3_0.jpg", "bytes": (folder / "3_0.jpg").read_bytes()},
        "after": {"path": "3_1.jpg", "bytes": (folder / "3_1.jpg").read_bytes()},
        "captions": ["make it a lion"],
        "change_type": "",
    }


def test_a_listed_but_missing_folder_can_be_skipped(tmp_path: Path) -> None:
    write_folder(tmp_path, "0000014", ["3"], LION)
    write_seeds(tmp_path, [["0000014", ["3"]], ["0000015", ["1", "2"]]])
    log = tmp_path / "skipped.jsonl"
    builder = InstructPix2Pix(root=tmp_path, cache_dir=str(tmp_path / "cache"), skip_log=log)
    builder.download_and_prepare()
    assert {split: rows["pair_id"][:] for split, rows in builder.as_dataset().items()} == {"train": ["0000014-3"]}
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["pair_id"] for line in lines] == ["0000015-1", "0000015-2"]
    assert "1_0.jpg' is missing" in lines[0]["reason"]


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ([["../../etc", ["1"]]], "the name '../../etc' leads out of the folder"),
        ([["0000014", ["../../../etc/passwd"]]], "the name '../../../etc/passwd_0.jpg' leads out of the folder"),
        ({"0000014": ["1"]}, r"seeds.json': not a list of \[folder, \[seed, ..\]\]"),
        ([["0000014"]], r"seeds.json': not a list of \[folder, \[seed, ..\]\]"),
        ([[14, ["1"]]], "a folder name that is not a text"),
        ([["0000014", ["3", "3"]]], "duplicate pair_id '0000014-3' in split 'test'"),
    ],
)
def test_a_broken_seeds_file_is_named(tmp_path: Path, seeds: Any, message: str) -> None:
    write_folder(tmp_path, "0000014", ["3"], LION)
    write_seeds(tmp_path, seeds)
    with pytest.raises(DataError, match=message):
        list(build(tmp_path).raw_pairs("test"))


@pytest.mark.parametrize(
    ("prompt", "metadata", "message"),
    [
        ({"input": "a leopard"}, None, "0000014/prompt.json' has no text in field 'edit'"),
        (["make it a lion"], None, "0000014/prompt.json' has no text in field 'edit'"),
        ({"edit": "  "}, None, "pair '0000014-3': the field 'edit' of its prompt.json has no text"),
        (LION, [{"seed": 3}, {"sim_0": 0.1}], "0000014/metadata.jsonl', line 2: not a JSON object with 'seed'"),
        (LION, [[3]], "0000014/metadata.jsonl', line 1: not a JSON object with 'seed'"),
    ],
)
def test_a_broken_folder_is_named(tmp_path: Path, prompt: Any, metadata: Any, message: str) -> None:
    write_folder(tmp_path, "0000014", ["3"], prompt, metadata)
    with pytest.raises(DataError, match=message):
        list(build(tmp_path).raw_pairs("train"))


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="seeds.json, or a folder .* is missing in .*berkeley.edu"):
        build(tmp_path).raw_splits()
    folder = write_folder(tmp_path, "0000014", ["3"], LION)
    (folder / "metadata.jsonl").write_text('{"seed": 3}\n{"seed": \n')
    with pytest.raises(DataError, match="metadata.jsonl', line 2: not a JSON object"):
        list(build(tmp_path).raw_pairs("train"))
    write_seeds(tmp_path, [["0000014", ["3"]]])
    (folder / "prompt.json").unlink()
    with pytest.raises(DataError, match="0000014/prompt.json' is missing"):
        list(build(tmp_path).raw_pairs("test"))


def test_the_real_folders_give_the_expected_rows(tmp_path: Path) -> None:
    if not REAL.is_dir():
        pytest.skip(f"the two folders of InstructPix2Pix are not in {REAL}")
    builder = InstructPix2Pix(root=REAL, cache_dir=str(tmp_path))
    builder.download_and_prepare()
    rows = list(builder.as_dataset("train"))
    assert [row["pair_id"] for row in rows] == [
        "0000014-10483310",
        "0000014-2359342130",
        "0000014-3388447030",
        "0000014-975835724",
        "0000132-127380018",
        "0000132-1818564940",
    ]
    assert {(row["captions"][0], row["before"].size, row["after"].size) for row in rows} == {
        ("make it a lion", (512, 512), (512, 512)),
        ("Make it look like a painting", (512, 512), (512, 512)),
    }
    facts = json.loads(rows[1]["provenance"])
    assert facts["seed"] == 2359342130 and facts["sim_direction"] == 0.4593396782875061 and "input" in facts
    assert [row["provenance"] for row in rows[4:]] == ["", ""]
