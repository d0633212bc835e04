"""The emu_edit builder on generated Parquet files with the authors' columns."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dataset_syned.benchmarks import emu_edit
from dataset_syned.benchmarks.emu_edit import EmuEdit
from dataset_syned.pairs import FEATURES, DataError, RawPair

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SCHEMA = pa.schema(
    [
        ("instruction", pa.string()),
        ("image", IMAGE),
        ("task", pa.string()),
        ("split", pa.string()),
        ("idx", pa.int64()),
        ("hash", pa.string()),
        ("input_caption", pa.string()),
        ("output_caption", pa.string()),
        ("edited_image", IMAGE),
        ("model", pa.string()),
    ]
)


def png(color: int, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (color % 256, 10, 10)).save(buffer, format)
    return buffer.getvalue()


def row(idx: int, instruction: str, task: str = "add", **other: Any) -> dict[str, Any]:
    return {
        "instruction": instruction,
        "image": {"bytes": png(idx), "path": None},
        "task": task,
        "split": "test",  # as on the Hub: the column may disagree with the file
        "idx": idx,
        "hash": f"h{idx}",
        "input_caption": "before",
        "output_caption": "after",
        "edited_image": {"bytes": png(idx + 100, "JPEG"), "path": "same.png"},
        "model": "emu",
        **other,
    }


def write_parquet(root: Path, name: str, rows: list[dict[str, Any]], group: int = 2) -> None:
    (root / "data").mkdir(exist_ok=True, parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), root / "data" / name, row_group_size=group)


def write_tiny(root: Path, broken: bool) -> None:
    wrong = row(5, "without an image") | {"image": None}
    rows = [row(1, "B"), row(2, "D", "style"), row(3, "E", "a task of tomorrow"), *[wrong] * broken]
    write_parquet(root, "validation-00000-of-00001.parquet", rows)
    write_parquet(root, "test-00000-of-00001.parquet", [row(4, "Other four "), row(0, "Zero")])
    (root / "splits.json").write_text(json.dumps({"train": [1, 3, *[5] * broken], "validation": [2]}))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Write two shards of `validation` and one of `test` with overlapping idx; one instruction starts with a blank."""
    root = tmp_path / "emu_edit"
    write_parquet(root, "validation-00000-of-00002.parquet", [row(4, " Make the sky night"), row(1, "B"), row(7, "C")])
    write_parquet(root, "validation-00001-of-00002.parquet", [row(2, "D", "style"), row(9, "E")])
    write_parquet(root, "test-00000-of-00001.parquet", [row(4, "Other four "), row(0, "Zero")])
    return root


def make_builder(root: Path, cache: Path) -> EmuEdit:
    return EmuEdit(root=root, cache_dir=str(cache), dataset_name="emu_edit")


def summarize(pairs: list[RawPair]) -> list[tuple[str, list[str], str]]:
    return [(pair.pair_id, pair.captions, pair.change_type) for pair in pairs]


def test_without_splits_all_is_validation(raw: Path, tmp_path: Path) -> None:
    builder = make_builder(raw, tmp_path)
    assert builder.raw_splits() == ["validation", "test"]
    assert summarize(builder.raw_pairs("validation")) == [
        ("validation-4", ["Make the sky night"], "add"),
        ("validation-1", ["B"], "add"),
        ("validation-7", ["C"], "add"),
        ("validation-2", ["D"], "style"),
        ("validation-9", ["E"], "add"),
    ]
    assert summarize(builder.raw_pairs("test")) == [("test-4", ["Other four"], "add"), ("test-0", ["Zero"], "add")]


def test_splits_cut_the_validation_part(raw: Path, tmp_path: Path) -> None:
    (raw / "splits.json").write_text(json.dumps({"train": [9, 4, 1], "validation": [2, 7]}))
    builder = make_builder(raw, tmp_path)
    assert builder.raw_splits() == ["train", "validation", "test"]
    assert [pair.pair_id for pair in builder.raw_pairs("train")] == ["train-4", "train-1", "train-9"]
    assert [pair.pair_id for pair in builder.raw_pairs("validation")] == ["validation-7", "validation-2"]
    assert [builder.count_pairs(split) for split in builder.raw_splits()] == [3, 2, 2]


def test_prepared_rows(raw: Path, tmp_path: Path) -> None:
    builder = make_builder(raw, tmp_path / "cache")
    builder.download_and_prepare()
    rows = builder.as_dataset(split="test")
    assert rows.features == FEATURES
    first = next(iter(rows.with_format("arrow")))
    cells = {name: first[name][0].as_py() for name in FEATURES}
    assert cells == {
        "pair_id": "test-4",
        "before": {"path": "test-4-before.png", "bytes": png(4)},
        "after": {"path": "test-4-after.jpg", "bytes": png(104, "JPEG")},
        "captions": ["Other four"],
        "change_type": "add",
        "provenance": json.dumps(
            {
                "hash": "h4",
                "idx": 4,
                "input": "before",
                "output": "after",
                "source": "facebook/emu_edit_test_set_generations",
                "task": "add",
            }
        ),
    }


def test_counting_reads_no_image(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (raw / "splits.json").write_text(json.dumps({"train": [4], "validation": [2]}))
    requested: list[list[str]] = []
    original = emu_edit.ParquetFile.iter_batches

    def watched(self: Any, *args: Any, columns: list[str], **kwargs: Any) -> Any:
        requested.append(columns)
        return original(self, *args, columns=columns, **kwargs)

    monkeypatch.setattr(emu_edit.ParquetFile, "iter_batches", watched)
    builder = make_builder(raw, tmp_path)
    assert builder.count_pairs("train") == 1 and requested and all(columns == ["idx"] for columns in requested)
    requested.clear()
    list(builder.raw_pairs("train"))
    assert sum("image" in columns for columns in requested) == 1, "only the row group that contains idx 4"


def test_the_error_for_missing_files_says_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"emu_edit: data/validation-\*.parquet is missing in .*huggingface.co"):
        make_builder(tmp_path, tmp_path).raw_splits()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"train": [1], "val": [2]}', "splits.json' should be .*validation"),
        ('{"train": ["1"], "validation": [2]}', "splits.json' should be .*lists of idx"),
        ("[1]", "splits.json' should be"),
        ('{"train": [1, 2], "validation": [2]}', "idx 2 is in train and in validation"),
        ('{"train": [1, 33], "validation": [2]}', r"idx 33 of splits.json \(1 in all\) is not in the Parquet files"),
        ('{"train": [1', "splits.json' cannot be read as JSON"),
    ],
)
def test_wrong_splits_are_quoted(raw: Path, tmp_path: Path, content: str, message: str) -> None:
    (raw / "splits.json").write_text(content)
    with pytest.raises(DataError, match=message):
        make_builder(raw, tmp_path).count_pairs("train")


def test_a_second_set_of_shards_is_an_error(raw: Path, tmp_path: Path) -> None:
    write_parquet(raw, "test-00000-of-00002.parquet", [row(0, "Zero")])
    with pytest.raises(DataError, match="duplicate idx 0 in .*: old revisions"):
        make_builder(raw, tmp_path).count_pairs("test")


def test_a_missing_column_and_a_broken_file_are_named(raw: Path, tmp_path: Path) -> None:
    path = raw / "data" / "test-00000-of-00001.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["edited_image"]), path)
    with pytest.raises(DataError, match="test-00000-of-00001.parquet' has no column 'edited_image'"):
        list(make_builder(raw, tmp_path).raw_pairs("test"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="test-00000-of-00001.parquet' cannot be read as Parquet"):
        make_builder(raw, tmp_path).count_pairs("test")


def test_an_image_without_content_can_be_skipped(raw: Path, tmp_path: Path) -> None:
    broken = row(5, "No image", edited_image={"bytes": None, "path": "elsewhere.png"})
    write_parquet(raw, "test-00000-of-00001.parquet", [broken, row(6, "Fine")])
    log = tmp_path / "skipped.jsonl"
    builder = EmuEdit(root=raw, cache_dir=str(tmp_path / "cache"), dataset_name="emu_edit", skip_log=log)
    builder.download_and_prepare()
    assert builder.as_dataset(split="test")["pair_id"] == ["test-6"]
    assert "pair 'test-5': image 'test-5-after' cannot be read" in log.read_text()
