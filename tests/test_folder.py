"""The folder benchmark: both layouts give the same rows, and errors name the broken entry."""

import csv
import json
import tracemalloc
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from dataset_syned.benchmarks.folder import Folder
from dataset_syned.pairs import DataError, RawPair, check_captions

ENTRIES = [
    {"before_file_name": "b/2.png", "after_file_name": "a/2.png", "captions": ["the car left", "no car, any more"]},
    {"before_file_name": "b/2.png", "after_file_name": "a/1.png", "captions": ["a dog"], "change_type": "add"},
]


def draw(path: Path, color: str = "white") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), color).save(path)


def write_lines(folder: Path, entries: list[Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return folder


def write_csv(path: Path, rows: list[list[str]], encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows(rows)
    return path.parent


def write_tiny(root: Path, broken: bool) -> None:
    for split in ("train", "validation", "test"):
        wrong = [ENTRIES[0] | {"captions": 5}] * (broken and split == "train")
        write_lines(root / split, [*wrong, *({**entry, "pair_id": f"p{i}"} for i, entry in enumerate(ENTRIES))])
        for name in ("b/2.png", "a/2.png", "a/1.png"):
            draw(root / split / name)


def build(root: Path) -> Folder:
    return Folder(root=root, cache_dir=str(root / "cache"))


def train(root: Path) -> list[RawPair]:
    builder = build(root)
    assert builder.raw_splits() == ["train"]
    return list(builder.raw_pairs("train"))


def test_json_lines_in_the_folder_itself_are_train(tmp_path: Path) -> None:
    write_lines(tmp_path, ENTRIES)
    before, after = tmp_path / "b", tmp_path / "a"
    assert train(tmp_path) == [
        RawPair("train-000001", before / "2.png", after / "2.png", ["the car left", "no car, any more"]),
        RawPair("train-000002", before / "2.png", after / "1.png", ["a dog"], "add"),
    ]


def test_a_change_type_outside_the_table_is_kept_in_provenance_and_reported(tmp_path: Path) -> None:
    own = {"pair_id": "own", "change_type": "haircut", "provenance": {"by": "me"}}
    write_lines(tmp_path, [ENTRIES[1], ENTRIES[1] | own])
    listed, kept = train(tmp_path)
    assert (listed.change_type, listed.provenance) == ("add", {})
    assert (kept.change_type, kept.provenance) == ("", {"by": "me", "change_type": "haircut"})
    (note,) = build(tmp_path).notes()
    assert note.startswith("unknown change types, kept in provenance only: 'haircut' 1; ") and "none, add, " in note
    write_lines(tmp_path, ENTRIES)
    assert build(tmp_path).notes() == []


def test_each_subfolder_is_a_split(tmp_path: Path) -> None:
    write_lines(tmp_path / "test", [ENTRIES[0] | {"pair_id": 7}])
    write_lines(tmp_path / "train", ENTRIES)
    (tmp_path / "validation" / "before").mkdir(parents=True)
    (tmp_path / "validation" / "captions.json").write_text('{"x.png": ["a cat"]}')
    builder = build(tmp_path)
    assert builder.raw_splits() == ["train", "validation", "test"]
    assert [pair.pair_id for pair in builder.raw_pairs("train")] == ["train-000001", "train-000002"]
    assert [pair.pair_id for pair in builder.raw_pairs("validation")] == ["x.png"]
    (pair,) = builder.raw_pairs("test")
    assert (pair.pair_id, pair.before) == ("7", tmp_path / "test" / "b" / "2.png")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])  # spreadsheets write a byte-order mark
def test_csv_has_one_caption_per_row_or_a_list(tmp_path: Path, encoding: str) -> None:
    header = ["before_file_name", "after_file_name", "captions", "change_type"]
    rows = [
        ["b/2.png", "a/2.png", "the car left", ""],
        ["b/2.png", "a/1.png", '["a dog", "ein Hündchen"]', "add"],
        ["b/2.png", "a/2.png", "no car, any more", ""],
    ]
    write_csv(tmp_path / "metadata.csv", [header, *rows], encoding)
    before, after = tmp_path / "b", tmp_path / "a"
    assert train(tmp_path) == [
        RawPair("train-000002", before / "2.png", after / "2.png", ["the car left", "no car, any more"]),
        RawPair("train-000003", before / "2.png", after / "1.png", ["a dog", "ein Hündchen"], "add"),
    ]


def test_csv_rows_of_one_pair_id_are_one_pair(tmp_path: Path) -> None:
    header = ["pair_id", "before_file_name", "after_file_name", "captions"]
    rows = [["x", "1.png", "2.png", "one"], ["y", "1.png", "2.png", "two"], ["x", "1.png", "2.png", "three"]]
    write_csv(tmp_path / "metadata.csv", [header, *rows])
    assert [(pair.pair_id, pair.captions) for pair in train(tmp_path)] == [("x", ["one", "three"]), ("y", ["two"])]
    write_csv(tmp_path / "metadata.csv", [header, *rows, ["x", "1.png", "3.png", "four"]])
    with pytest.raises(DataError, match="line 5: the same pair as in .*line 2, but after_file_name is '3.png' and "):
        train(tmp_path)


@pytest.mark.parametrize("layout", ["metadata.csv", "captions.csv"])
def test_csv_columns_that_are_not_read_may_differ_within_a_pair(tmp_path: Path, layout: str) -> None:
    """pandas writes an unnamed column, its index, and annotators add columns of their own."""
    names = {"metadata.csv": ["before_file_name", "after_file_name"], "captions.csv": ["file_name"]}[layout]
    header = ["", *names, "captions", "annotator"]
    rows = [[str(number), *(["1.png"] * len(names)), f"text {number}", f"person {number}"] for number in range(2)]
    write_csv(tmp_path / layout, [header, *rows])
    assert [pair.captions for pair in train(tmp_path)] == [["text 0", "text 1"]]
    write_csv(tmp_path / layout, [[*header, "captions"], *([*row, "x"] for row in rows)])
    with pytest.raises(DataError, match=f"{layout}', line 1: the column 'captions' is given 2 times"):
        train(tmp_path)


def test_images_may_be_anywhere_in_the_data_folder(tmp_path: Path) -> None:
    """Names are absolute, or relative to the folder of the split."""
    image = tmp_path / "images" / "1.png"
    draw(image)
    names = {"before_file_name": "../images/1.png", "after_file_name": str(image)}
    write_lines(tmp_path / "train", [ENTRIES[1] | names])
    (pair,) = build(tmp_path).raw_pairs("train")
    assert pair.before.resolve() == pair.after == image
    write_lines(tmp_path / "train", [{**ENTRIES[1], "before_file_name": "../../1.png"}])
    with pytest.raises(DataError, match="the name 'train/../../1.png' leads out of the folder"):
        list(build(tmp_path).raw_pairs("train"))


@pytest.mark.parametrize("form", ["json", "csv"])
def test_sibling_folders_of_equal_names(tmp_path: Path, form: str) -> None:
    for side in ("before", "after"):
        for name in ("1.png", "sub/2.png", "uncaptioned.png"):
            draw(tmp_path / side / name)
    captions = {"sub/2.png": ["the car left", "it left"], "1.png": ["a dog"]}
    if form == "json":
        (tmp_path / "captions.json").write_text(json.dumps(captions))
    else:
        rows = [["sub/2.png", "the car left"], ["1.png", '["a dog"]'], ["sub/2.png", "it left"]]
        write_csv(tmp_path / "captions.csv", [["file_name", "captions"], *rows])
    assert train(tmp_path) == [
        RawPair(name, tmp_path / "before" / name, tmp_path / "after" / name, texts) for name, texts in captions.items()
    ]


def test_prepared_rows_are_the_same_in_both_layouts(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for root in (first, second):
        draw(root / "before" / "1.png", "red")
        draw(root / "after" / "1.png", "blue")
    (first / "captions.json").write_text('{"1.png": ["it is blue now"]}')
    names = {"before_file_name": "before/1.png", "after_file_name": "after/1.png"}
    write_lines(second, [names | {"pair_id": "1.png", "captions": ["it is blue now"]}])
    tables = []
    for root in (first, second):
        builder = build(root)
        builder.download_and_prepare()
        rows = builder.as_dataset("train").cast_column("before", datasets.Image(decode=False))
        tables.append(rows.cast_column("after", datasets.Image(decode=False)).to_list())
    expected = {"pair_id": "1.png", "captions": ["it is blue now"], "change_type": "", "provenance": ""}
    for side in ("before", "after"):
        expected[side] = {"path": "1.png", "bytes": (first / side / "1.png").read_bytes()}
    assert tables[0] == tables[1] == [expected]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        write_lines(tmp_path, [])
        with (tmp_path / "metadata.jsonl").open("a") as file:
            for _ in range(count):
                file.write(json.dumps(ENTRIES[0]) + "\n")
        builder = build(tmp_path)
        tracemalloc.start()
        assert sum(1 for _ in builder.raw_pairs("train")) == count
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(10)  # warm-up: imports and caches are loaded once
    assert peak(1000) < peak(100) + 100_000  # the ids seen; the entries themselves take 300 bytes and more each


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"before_file_name": "../../etc/passwd"}, "the name '../../etc/passwd' leads out of the folder"),
        ({"after_file_name": "/etc/passwd"}, "the name '/etc/passwd' leads out of the folder"),
        ({"before_file_name": None}, "metadata.jsonl', line 2: no text in field 'before_file_name'"),
        ({"after_file_name": 5}, "metadata.jsonl', line 2: no text in field 'after_file_name'"),
        ({"captions": None}, "line 2: captions of pair 'train-000002' are not a list of texts"),
        ({"captions": "a text"}, "line 2: captions of pair 'train-000002' are not a list of texts"),
        ({"captions": ["a text", 5]}, "line 2: captions of pair 'train-000002' are not a list of texts"),
        ({"captions": []}, "pair 'train-000002' has no caption"),
        ({"captions": ["a text", " "], "pair_id": "mine"}, "pair 'mine' has no caption, or one without text"),
        ({"change_type": ["add"]}, r"line 2: change_type=\['add'\] is not a text"),
        ({"pair_id": "first"}, "duplicate pair_id 'first' in split 'train'"),
    ],
)
def test_a_broken_entry_is_named(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    write_lines(tmp_path, [ENTRIES[0] | {"pair_id": "first"}, ENTRIES[1] | entry])
    with pytest.raises(DataError, match=message):
        list(map(check_captions, train(tmp_path)))


@pytest.mark.parametrize("line", ['{"captions": ["a dog"', "a dog", "[1]", "\udcff"])
def test_a_line_that_is_not_a_json_object_is_named(tmp_path: Path, line: str) -> None:
    lines = [json.dumps(ENTRIES[0]), "", line]  # blank lines are counted but are not entries
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape")
    with pytest.raises(DataError, match="metadata.jsonl', line 3: not (valid|a) JSON"):
        train(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("before_file_name,captions\n", "metadata.csv', line 1: no column 'after_file_name'"),
        ("", "metadata.csv', line 1: no column 'before_file_name'"),
        ("{header}1.png,2.png,no car, any more\n", "line 2: more cells than the header has: put captions .* quotes"),
        ("{header}1.png,2.png\n", "pair 'train-000002' has no caption, or one without text"),
        ("{header}1.png,,a dog\n", "line 2: no text in field 'after_file_name'"),
        ('{header}1.png,2.png,"[""a dog"""\n', r"line 2: captions begin with '\[' but are not a JSON list"),
        ("{header}1.png,2.png,[]\n", "pair 'train-000002' has no caption"),
        ('{header}1.png,2.png,"a dog\n', "metadata.csv', line 2: not CSV"),
        ("{header}1.png,../2.png,a dog\n", "the name '../2.png' leads out of the folder"),
    ],
)
def test_a_broken_csv_row_is_named(tmp_path: Path, text: str, message: str) -> None:
    header = "before_file_name,after_file_name,captions\n"
    (tmp_path / "metadata.csv").write_text(text.replace("{header}", header))
    with pytest.raises(DataError, match=message):
        list(map(check_captions, train(tmp_path)))


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ('{"../../etc/passwd": ["a dog"]}', "the name '../../etc/passwd' leads out"),
        ('{"1.png": []}', "pair '1.png' has no caption"),
        ('{"1.png": "a dog"}', "captions of pair '1.png' are not a list of texts"),
        ('[["1.png", "a dog"]]', "captions.json' contains a list, expected a JSON object"),
        ('{"1.png": ', "captions.json' cannot be read as JSON"),
    ],
)
def test_broken_captions_are_named(tmp_path: Path, captions: str, message: str) -> None:
    (tmp_path / "captions.json").write_text(captions)
    with pytest.raises(DataError, match=message):
        list(map(check_captions, train(tmp_path)))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a file of annotations .*metadata.jsonl.* is missing in .*before_file_name"):
        build(tmp_path).raw_splits()
    write_lines(tmp_path / "train", ENTRIES)
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match="a file of annotations in test/ .* is missing"):
        build(tmp_path).raw_splits()
    (tmp_path / "test").rmdir()
    with pytest.raises(DataError) as error:
        build(tmp_path).download_and_prepare()
    assert "pair 'train-000001': image" in str(error.value)
    assert "2.png' is missing" in str(error.value)
