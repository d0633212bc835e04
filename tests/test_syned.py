"""The syned builder: drawn Parquet files joined with text files in the released format and with the released ones."""

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard
from loopback_hub import LoopbackHub
from PIL import Image
from test_pushing import loaded

from dataset_syned.__main__ import main
from dataset_syned.benchmarks.syned import Syned
from dataset_syned.pairs import FEATURES, DataError

RELEASED = Path(__file__).resolve().parents[2] / "shared" / "data" / "syned"
needs_released = pytest.mark.skipif(
    not RELEASED.is_dir(), reason="needs Syned's released text files in ../shared/data/syned"
)
FILES = (
    "splits.json",
    "instructions_with_idx_train_split.txt",
    "instructions_with_idx_test_split.txt",
    "gt_augmented_test_clean.json",
)
SOURCE = "facebook/emu_edit_test_set_generations"
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TASKS = ("add", "global", "style")


def draw(path: Path, color: int = 0) -> bytes:
    Image.new("RGB", (8, 8), (color, 0, 0)).save(path, "PNG")
    return path.read_bytes()


def write_parquet(root: Path, part: str, ids: list[int]) -> None:
    """Write files with emu_edit's columns, the same two pictures in every row."""
    (root / "data").mkdir(exist_ok=True, parents=True)
    before, after = ({"bytes": draw(root / "drawn.png", color), "path": "0.png"} for color in (0, 200))
    table = pa.table(
        {
            "instruction": [f" text of {part} {idx}" for idx in ids],
            "image": pa.array([before] * len(ids), IMAGE),
            "task": [TASKS[idx % 3] for idx in ids],
            "split": ["test"] * len(ids),
            "idx": pa.array(ids, pa.int64()),
            "hash": [f"{part[0]}{idx}" for idx in ids],
            "input_caption": ["before"] * len(ids),
            "output_caption": ["after"] * len(ids),
            "edited_image": pa.array([after] * len(ids), IMAGE),
            "model": ["emu"] * len(ids),
        }
    )
    pq.write_table(table, root / "data" / f"{part}-00000-of-00001.parquet", row_group_size=100)


def write_edits(root: Path, entries: list[dict[str, Any]]) -> None:
    (root / "edits").mkdir(exist_ok=True)
    draw(root / "edits" / "a.png", 50)
    (root / "edits" / "metadata.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def write_raw(root: Path) -> Path:
    """Write parts that share idx 0 and 2; keys end in a blank, 2 has no reference, 0 starts with a blank."""
    write_parquet(root, "validation", [0, 180, 2, 7])
    write_parquet(root, "test", [2, 0, 102, 5])
    (root / FILES[0]).write_text(json.dumps({"train": [7, 0, 2], "validation": [180]}))
    (root / FILES[1]).write_text(
        "0 <INSTRUCT>  Make the sky night\n180 <INSTRUCT> Add a rainbow\n2 <INSTRUCT> Two. \n7 <INSTRUCT> Seven\n"
    )
    (root / FILES[2]).write_text(
        "0 <INSTRUCT> Aadd a goat\n102 <INSTRUCT> Add a jersey\n2 <INSTRUCT> Remove it\n5 <INSTRUCT> Add  a hat\n"
    )
    references = {
        "0 ": ['"Place a goat near the fence."', "Insert a goat ", "", "1. A goat, please"],
        "102 ": ["I cannot help with that.", "Here are four variations:"],
        "2 ": [],
        "5 ": ["Put a hat on", "add a hat.", "Turn it into a colorful"],
    }
    (root / FILES[3]).write_text(json.dumps(references))
    return root


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_raw(tmp_path / "syned")


def write_tiny(root: Path, broken: bool) -> None:
    write_raw(root)
    good = {"idx": 2, "file_name": "a.png", "provenance": {"seed": 3}}
    write_edits(root, [good, *[good | {"idx": "2"}] * broken])


def builder(root: Path, config: str = "syned") -> Syned:
    return Syned(config_name=config, root=root, cache_dir=str(root.parent / "cache"), dataset_name="syned")


def captions(root: Path, split: str, config: str = "syned") -> dict[str, list[str]]:
    return {pair.pair_id: pair.captions for pair in builder(root, config).raw_pairs(split)}


def test_splits_and_instructions(raw: Path) -> None:
    benchmark = builder(raw)
    assert benchmark.raw_splits() == ["train", "validation", "test"]
    assert [benchmark.count_pairs(split) for split in benchmark.raw_splits()] == [3, 1, 4]
    assert captions(raw, "train") == {
        "train-0": ["Make the sky night"],
        "train-2": ["Two."],
        "train-7": ["Seven"],
    }
    assert captions(raw, "validation") == {"validation-180": ["Add a rainbow"]}


def test_cleaned_references_end_with_the_instruction(raw: Path) -> None:
    assert captions(raw, "test") == {
        "test-2": ["Remove it"],
        "test-0": ["Place a goat near the fence.", "Insert a goat", "A goat, please", "Aadd a goat"],
        "test-102": ["Add a jersey"],
        "test-5": ["Put a hat on", "Add  a hat"],
    }


def test_raw_references_are_those_released(raw: Path) -> None:
    assert captions(raw, "test", "syned_raw") == {
        "test-2": ["Remove it"],
        "test-0": ['"Place a goat near the fence."', "Insert a goat ", "", "1. A goat, please", "Aadd a goat"],
        "test-102": ["I cannot help with that.", "Here are four variations:", "Add a jersey"],
        "test-5": ["Put a hat on", "add a hat.", "Turn it into a colorful", "Add  a hat"],
    }


def test_prepared_rows_with_further_edits(raw: Path) -> None:
    editor = {"model": "editor", "seed": 3}
    write_edits(
        raw,
        [
            {"idx": 2, "file_name": "a.png", "provenance": editor},
            {"idx": 0, "file_name": "a.png", "captions": ["Night falls"], "provenance": editor},
            {"idx": 2, "file_name": "a.png", "provenance": {"seed": 4}},
        ],
    )
    benchmark = builder(raw)
    benchmark.download_and_prepare()
    rows = benchmark.as_dataset(split="train")
    assert rows.features == FEATURES
    common = {"source": SOURCE, "input": "before", "output": "after"}
    base = {idx: {**common, "idx": idx, "hash": f"v{idx}", "task": TASKS[idx % 3]} for idx in (0, 2, 7)}
    assert list(
        zip(rows["pair_id"], rows["captions"], rows["change_type"], map(json.loads, rows["provenance"]), strict=True)
    ) == [
        ("train-0", ["Make the sky night"], "add", base[0]),
        ("train-0-1", ["Night falls"], "add", base[0] | editor),
        ("train-2", ["Two."], "style", base[2]),
        ("train-2-1", ["Two."], "style", base[2] | editor),
        ("train-2-2", ["Two."], "style", base[2] | {"seed": 4}),
        ("train-7", ["Seven"], "global", base[7]),
    ]
    assert rows[1]["after"].getpixel((0, 0))[0] == 50 and rows[1]["before"].getpixel((0, 0))[0] == 0
    assert benchmark.count_pairs("train") == 6 and benchmark.count_pairs("validation") == 1
    ids = [pair_id for split in benchmark.raw_splits() for pair_id in benchmark.as_dataset(split=split)["pair_id"]]
    assert len(set(ids)) == len(ids) == 11


def test_train_and_validation_do_not_need_the_test_files(raw: Path) -> None:
    (raw / FILES[2]).unlink()
    (raw / FILES[3]).unlink()
    assert builder(raw).raw_splits() == ["train", "validation"]


@pytest.mark.parametrize("name", [*FILES[1:], "data/test-00000-of-00001.parquet"])
def test_a_missing_file_is_named(raw: Path, name: str) -> None:
    (raw / name).unlink()
    with pytest.raises(DataError, match=f"syned: {name.split('-0')[0]}.* is missing in .*Put data/validation"):
        builder(raw).raw_splits()


def test_an_empty_folder_is_named_with_the_download(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="syned: splits.json is missing in .*Gevennou/Syned"):
        builder(tmp_path).raw_splits()


@pytest.mark.parametrize(
    ("name", "content", "split", "message"),
    [
        (FILES[1], "0 INSTRUCT Make\n", "train", r"line 1: '0 INSTRUCT Make' should be an idx, <INSTRUCT> and a text"),
        (FILES[1], "0 <INSTRUCT> A\n0 <INSTRUCT> B\n", "train", "line 2: duplicate idx 0"),
        (FILES[1], "0 <INSTRUCT> A\n", "train", "idx 2 of splits.json has no line in"),
        (
            FILES[2],
            "0 <INSTRUCT> A\n44 <INSTRUCT> B\n",
            "test",
            r"idx 44 of instructions_with_idx_test.* not in the Parq",
        ),
        (FILES[3], '{"0 ": ["A"]}', "test", "idx 2 of instructions_with_idx_test_split.txt is not in .*gt_augmented"),
        (FILES[3], '{"0 ": "A"}', "test", "the entry '0 ' should map an idx to a list of sentences"),
        (FILES[3], '{"zero": ["A"]}', "test", "the entry 'zero' should map"),
        (FILES[3], '{"2": ["A"], "2 ": ["B"]}', "test", "gt_augmented_test_clean.json': duplicate idx 2"),
        (FILES[3], '["A"]', "test", "should map an idx to a list"),
        (FILES[0], '{"training": []}', "train", "splits.json' should be"),
    ],
)
def test_wrong_text_files_are_quoted(raw: Path, name: str, content: str, split: str, message: str) -> None:
    (raw / name).write_text(content)
    with pytest.raises(DataError, match=message):
        list(builder(raw).raw_pairs(split))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"idx": 180, "file_name": "a.png", "provenance": {}}, "line 1: idx 180 is not a train pair"),
        ({"idx": "0", "file_name": "a.png", "provenance": {}}, "line 1: idx should be a number"),
        ({"idx": 0, "provenance": {}}, "line 1: no field 'file_name'"),
        ({"idx": 0, "file_name": "a.png"}, "line 1: no field 'provenance'"),
        (
            {"idx": 0, "file_name": "a.png", "captions": [""], "provenance": {}},
            "line 1: a caption of idx 0 has no text",
        ),
        ({"idx": 0, "file_name": "../../secret.png", "provenance": {}}, "line 1: the name .* leads out of the folder"),
    ],
)
def test_wrong_further_edits_are_quoted(raw: Path, entry: dict[str, Any], message: str) -> None:
    write_edits(raw, [entry])
    with pytest.raises(DataError, match=message):
        list(builder(raw).raw_pairs("train"))


@needs_released
def test_the_released_text_files_give_the_published_counts(tmp_path: Path) -> None:
    root = tmp_path / "syned"
    for part, count in (("validation", 3589), ("test", 2022)):
        write_parquet(root, part, list(range(count)))
    for name in FILES:
        shutil.copy(RELEASED / name, root / name)
    for config in ("syned", "syned_raw"):
        benchmark = builder(root, config)
        assert {split: benchmark.count_pairs(split) for split in benchmark.raw_splits()} == Syned.EXPECTED[config]
    released = json.loads((RELEASED / FILES[3]).read_text(encoding="utf-8"))
    test_raw, test_clean = captions(root, "test", "syned_raw"), captions(root, "test")
    assert {key: refs[:-1] for key, refs in test_raw.items()} == {f"test-{k.strip()}": v for k, v in released.items()}
    assert sum(map(len, test_raw.values())) == 8031 + 2022
    assert [key for key, refs in test_raw.items() if len(refs) == 1] == [f"test-{n}" for n in (1228, 1250, 1299, 2007)]
    assert len(test_clean) == 2022 and all(refs[-1] == test_raw[key][-1] for key, refs in test_clean.items())
    assert sum(map(len, test_clean.values())) == 7557 + 2022
    assert not [line for refs in test_clean.values() for line in refs if not line.strip()]
    assert captions(root, "train")["train-0"] == ["Make the sky night instead of day"]
    assert len(captions(root, "validation")) == 539


def test_load_dataset_finds_syned_by_its_name(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for config in ("syned_raw", "syned", "syned_raw"):
        assert main(["prepare", "syned", "--config", config, "--data_dir", str(raw)]) == 0
    assert "test paraphrases by cleaning rule: " in capsys.readouterr().out
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for streaming in (False, True):
        rows = datasets.load_dataset("syned", split="test", streaming=streaming)
        assert {row["pair_id"]: row["captions"] for row in rows} == captions(raw, "test")
    released = datasets.load_dataset("syned", "syned_raw", split="test")
    assert dict(zip(released["pair_id"], released["captions"], strict=True)) == captions(raw, "test", "syned_raw")


def write_part(root: Path, train: list[int], validation: list[int], test: list[int]) -> None:
    """Write a few pairs of the released text files, with drawn images."""
    write_parquet(root, "validation", sorted({*train, *validation}))
    write_parquet(root, "test", test)
    (root / FILES[0]).write_text(json.dumps({"train": train, "validation": validation}))
    for name, ids in ((FILES[1], [*train, *validation]), (FILES[2], test)):
        lines = (RELEASED / name).read_text(encoding="utf-8").split("\n")
        kept = [line for line in lines if line.strip() and int(line.split("<INSTRUCT>")[0]) in ids]
        (root / name).write_text("\n".join(kept), encoding="utf-8")
    references = json.loads((RELEASED / FILES[3]).read_text(encoding="utf-8"))
    kept = {key: lines for key, lines in references.items() if int(key) in test}
    (root / FILES[3]).write_text(json.dumps(kept), encoding="utf-8")


@needs_released
def test_both_configs_through_the_hub(tmp_path: Path, root: Path) -> None:
    raw = tmp_path / "raw"
    write_part(raw, train=[0, 4, 9], validation=[1], test=[0, 102, 1228, 5])
    with LoopbackHub() as hub:
        for config in ("syned_raw", "syned", "syned"):  # a second push duplicates nothing
            command = ["push", "syned", "tester/syned", "--config", config, "--data_dir", str(raw)]
            done = hub.run(f"from dataset_syned.__main__ import main; raise SystemExit(main({command}))", tmp_path)
            assert done.returncode == 0, done.stderr
        rows = loaded(hub, tmp_path / "theirs", root, ("tester/syned",), ("tester/syned", "syned_raw"))
        files = hub.files("tester/syned", "dataset")
    for given, config in zip(rows, ("syned", "syned", "syned_raw", "syned_raw"), strict=True):
        for split in ("train", "validation", "test"):
            assert {row[0]: row[1] for row in given[split]} == captions(raw, split, config)
    assert rows[0]["test"] != rows[2]["test"], "the configs differ"
    card = DatasetCard(files["README.md"].decode())
    assert {entry["config_name"]: entry.get("default", False) for entry in card.data.configs} == {
        "syned": True,
        "syned_raw": False,
    }
    assert card.data.license == "cc-by-nc-4.0" and "evennou2025blip2idc" in card.text
    for config in ("syned", "syned_raw"):
        for split, count in (("train", 3), ("validation", 1), ("test", 4)):
            assert f"| {config} | {split} | {count} |" in card.text
    assert len([name for name in files if name.endswith(".parquet")]) == 6
