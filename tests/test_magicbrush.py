"""MagicBrush: each turn of a session is a pair, old and new columns give the same rows, and memory stays small."""

import io
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from dataset_syned.benchmarks.magicbrush import MagicBrush
from dataset_syned.pairs import DataError, RawPair
from dataset_syned.parquet_pairs import read_rows

IMAGE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
NEW = {"before": "source_img", "after": "target_img"}
OLD = {"before": "input_img", "after": "output_img"}


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def image(number: int) -> dict[str, Any]:
    return {"bytes": picture(number), "path": f"/someone/{number}.png"}


def turn(img_id: str, index: int, number: int, text: str = "add a dog") -> dict[str, Any]:
    """Return the turn from picture `number` to the next one."""
    return {
        "img_id": img_id,
        "turn_index": index,
        "before": image(number),
        "after": image(number + 1),
        "instruction": text,
    }


def write_shard(path: Path, rows: list[dict[str, Any]], columns: dict[str, str] = NEW, group: int = 2) -> Path:
    """Write a shard; new revisions have the column mask_img, old ones do not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = [("img_id", pyarrow.string()), ("turn_index", pyarrow.int32()), (columns["before"], IMAGE)]
    schema += [("mask_img", IMAGE)] if columns is NEW else []
    schema += [(columns["after"], IMAGE), ("instruction", pyarrow.string())]
    named = [{columns.get(name, name): value for name, value in row.items()} for row in rows]
    parquet.write_table(pyarrow.Table.from_pylist(named, pyarrow.schema(schema)), path, row_group_size=group)
    return path


def pair(row: dict[str, Any], number: int) -> RawPair:
    images = (f"{number}.png", picture(number)), (f"{number + 1}.png", picture(number + 1))
    return RawPair(f"{row['img_id']}-{row['turn_index']}", *images, [row["instruction"].strip()])


TURNS = [turn("327", 1, 10), turn("327", 2, 11, " make it bark "), turn("99", 1, 20), turn("0012", 1, 30)]


def build(root: Path) -> MagicBrush:
    return MagicBrush(root=root, cache_dir=str(root / "cache"))


def write_sessions(root: Path, sessions: Any) -> None:
    (root / "test" / "images" / "139306").mkdir(parents=True)
    for number, name in enumerate(("139306-input.png", "139306-output1.png", "139306-output2.png")):
        (root / "test" / "images" / "139306" / name).write_bytes(picture(number))
    (root / "test" / "edit_sessions.json").write_text(json.dumps(sessions))


SESSION = [
    {
        "input": "139306-input.png",
        "mask": "139306-mask1.png",
        "output": "139306-output1.png",
        "instruction": "add a hat",
    },
    {
        "input": "139306-output1.png",
        "mask": "139306-mask2.png",
        "output": "139306-output2.png",
        "instruction": "make it red",
    },
]


def write_tiny(root: Path, broken: bool) -> None:
    wrong = turn("500", 1, 50) | {"instruction": None}
    write_shard(root / "data" / "train-00000-of-00001.parquet", [wrong] * broken + TURNS)
    write_shard(root / "data" / "dev-00000-of-00001.parquet", [turn("5", 1, 40)])
    write_sessions(root, {"139306": SESSION})


@pytest.mark.parametrize("columns", [NEW, OLD], ids=["new columns", "old columns"])
def test_each_turn_of_each_shard_is_a_pair(tmp_path: Path, columns: dict[str, str]) -> None:
    write_shard(tmp_path / "data" / "train-00001-of-00002.parquet", TURNS[3:], columns)
    write_shard(tmp_path / "data" / "train-00000-of-00002.parquet", TURNS[:3], columns)
    write_shard(tmp_path / "data" / "dev-00000-of-00001.parquet", [turn("5", 1, 40)], columns)
    builder = build(tmp_path)
    assert builder.raw_splits() == ["train", "validation"]
    expected = [pair(row, number) for row, number in zip(TURNS, (10, 11, 20, 30), strict=True)]
    assert list(builder.raw_pairs("train")) == expected
    assert [found.pair_id for found in expected] == ["327-1", "327-2", "99-1", "0012-1"]
    assert list(builder.raw_pairs("validation")) == [pair(turn("5", 1, 40), 40)]
    assert [builder.count_pairs(split) for split in ("train", "validation")] == [4, 1]


def test_validation_shards_may_be_named_validation_or_dev(tmp_path: Path) -> None:
    write_shard(tmp_path / "data" / "validation-00000-of-00001.parquet", TURNS)
    assert build(tmp_path).raw_splits() == ["validation"] and build(tmp_path).count_pairs("validation") == 4
    write_shard(tmp_path / "data" / "dev-00000-of-00001.parquet", TURNS[:1])  # the same split once more
    assert build(tmp_path).count_pairs("validation") == 1


def test_test_turns_are_read_from_the_test_folder(tmp_path: Path) -> None:
    write_sessions(tmp_path, {"139306": SESSION})
    builder, images = build(tmp_path), tmp_path / "test" / "images" / "139306"
    assert builder.raw_splits() == ["test"]
    first, middle, last = (images / f"139306-{name}.png" for name in ("input", "output1", "output2"))
    assert list(builder.raw_pairs("test")) == [
        RawPair("139306-1", first, middle, ["add a hat"]),
        RawPair("139306-2", middle, last, ["make it red"]),
    ]
    assert builder.count_pairs("test") == 2


def test_prepared_rows_contain_file_names_without_folders(tmp_path: Path) -> None:
    write_shard(tmp_path / "data" / "train-00000-of-00001.parquet", TURNS[:1])
    write_sessions(tmp_path, {"139306": SESSION[:1]})
    builder = build(tmp_path)
    builder.download_and_prepare()
    for split, names, numbers, text in (
        ("train", ("10.png", "11.png"), (10, 11), "add a dog"),
        ("test", ("139306-input.png", "139306-output1.png"), (0, 1), "add a hat"),
    ):
        rows = builder.as_dataset(split).cast_column("before", datasets.Image(decode=False))
        (row,) = rows.cast_column("after", datasets.Image(decode=False)).to_list()
        assert [row["before"], row["after"]] == [
            {"path": name, "bytes": picture(number)} for name, number in zip(names, numbers, strict=True)
        ]
        assert (row["captions"], row["change_type"], row["provenance"]) == ([text], "", "")


def test_memory_is_that_of_a_few_rows(tmp_path: Path) -> None:
    large = {"bytes": bytes(range(256)) * 1024, "path": "large.png"}  # 256 KiB
    rows = [turn("1", index, 1) | {"before": large, "after": large} for index in range(160)]
    path = write_shard(tmp_path / "train-0.parquet", rows, group=20)
    before = pyarrow.total_allocated_bytes()
    allocated = [pyarrow.total_allocated_bytes() - before for _ in read_rows(path, MagicBrush.COLUMNS)]
    assert len(allocated) == 160 and max(allocated) < 80 * len(large["bytes"])  # of 320 images


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instruction": " "}, "row 0: no text in 'instruction'"),
        ({"instruction": None}, "row 0: no text in 'instruction'"),
        ({"before": None}, "row 0: no image bytes in 'source_img'"),
        ({"after": {"bytes": None, "path": "x.png"}}, "row 0: no image bytes in 'target_img'"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_shard(tmp_path / "data" / "train-0.parquet", [TURNS[0] | change])
    with pytest.raises(DataError, match=message):
        list(build(tmp_path).raw_pairs("train"))


def test_a_duplicate_turn_is_named(tmp_path: Path) -> None:
    for name in ("train-00000-of-00001.parquet", "train-00000-of-00002.parquet"):  # two releases in one folder
        write_shard(tmp_path / "data" / name, TURNS)
    with pytest.raises(DataError, match="duplicate pair_id '327-1' in split 'train'"):
        list(build(tmp_path).raw_pairs("train"))


@pytest.mark.parametrize(
    ("sessions", "message"),
    [
        ({"139306": [SESSION[0] | {"output": "../../../../etc/passwd"}]}, "'../../../../etc/passwd' leads out"),
        ({"../../..": SESSION}, "the name '../../..' leads out"),
        ({"139306": [SESSION[0], {"input": "a.png", "output": "b.png"}]}, "pair '139306-2': .* field 'instruction'"),
        ({"139306": [SESSION[0] | {"instruction": ""}]}, "pair '139306-1': no text in 'instruction'"),
        ({"139306": [SESSION[0] | {"input": 7}]}, "pair '139306-1': a field has a wrong type"),
        ({"139306": SESSION[0]}, "image '139306': .*is not a list of turns"),
        ([SESSION], "edit_sessions.json' is not an object"),
    ],
)
def test_a_broken_session_is_named(tmp_path: Path, sessions: Any, message: str) -> None:
    write_sessions(tmp_path, sessions)
    with pytest.raises(DataError, match=message):
        list(build(tmp_path).raw_pairs("test"))


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data/train-.*.parquet is missing in .*osunlp/MagicBrush"):
        build(tmp_path).raw_splits()
    columns = {"before": "source", "after": "target_img"}
    write_shard(tmp_path / "data" / "train-0.parquet", TURNS, columns)
    with pytest.raises(
        DataError, match="train-0.parquet' has no column 'source_img' .or 'input_img'., it has: img_id, .*source"
    ):
        list(build(tmp_path).raw_pairs("train"))
    path = write_shard(tmp_path / "data" / "train-0.parquet", TURNS)
    path.write_bytes(path.read_bytes()[:-20])
    for read in (build(tmp_path).count_pairs, lambda split: list(build(tmp_path).raw_pairs(split))):
        with pytest.raises(DataError, match="train-0.parquet' cannot be read as Parquet"):
            read("train")
