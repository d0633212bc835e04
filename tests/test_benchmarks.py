"""The contract of every entry of BENCHMARKS, and the commands of `python -m dataset_syned`."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import datasets
import pytest
import test_birds_to_words
import test_clevr_change
import test_clevr_dc
import test_emu_edit
import test_folder
import test_image_editing_request
import test_instruct_pix2pix
import test_levir_cc
import test_magicbrush
import test_spot_the_diff
import test_syned
from PIL import Image

from dataset_syned import BENCHMARKS, FEATURES, benchmark_builder, load_benchmark, prepare
from dataset_syned.__main__ import COMMANDS, main
from dataset_syned.annotations import inside
from dataset_syned.pair_builder import fingerprint
from dataset_syned.pairs import CHANGE_TYPES, NO_CHANGE, BrokenEntry, DataError, RawPair, read_row


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_states_its_facts(name: str) -> None:
    builder = BENCHMARKS[name]
    assert builder.DESCRIPTION.endswith(".") and builder.VERSION and builder.DEFAULT_CONFIG_NAME
    configs = [config.name for config in builder.BUILDER_CONFIGS]
    assert configs[0] == builder.DEFAULT_CONFIG_NAME, "the default config comes first"
    assert all(config.version == builder.VERSION for config in builder.BUILDER_CONFIGS)
    assert set(builder.EXPECTED) <= set(configs)
    for counts in builder.EXPECTED.values():
        assert set(counts) <= {"train", "validation", "test"} and all(count > 0 for count in counts.values())
    assert name == "toy" or builder.BY_HAND
    assert name in ("folder", "toy") or (builder.LICENSE and builder.HOMEPAGE and builder.CITATION.startswith("@"))


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "toy"])
def test_every_benchmark_says_what_is_missing_and_where_to_get_it(name: str, tmp_path: Path) -> None:
    for config in BENCHMARKS[name].BUILDER_CONFIGS:
        builder = benchmark_builder(name, config=config.name, root=tmp_path / "nothing")
        assert builder.info.features == FEATURES
        with pytest.raises(DataError, match="missing") as error:
            builder.raw_splits()
        assert builder.BY_HAND in str(error.value) and "nothing" in str(error.value)


def write_folder(folder: Path, pairs: int = 3) -> Path:
    folder.mkdir(parents=True)
    lines = []
    for number in range(pairs):
        for side, color in (("before", "red"), ("after", "blue")):
            Image.new("RGB", (8, 8), color).save(folder / f"{side}-{number}.png")
        names = {f"{side}_file_name": f"{side}-{number}.png" for side in ("before", "after")}
        lines.append(json.dumps({**names, "pair_id": f"p{number}", "captions": [f"caption {number}"]}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def test_prepare_then_load_dataset_from_any_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    data = write_folder(tmp_path / "pairs")
    assert main(["prepare", "folder", "--data_dir", str(data)]) == 0
    assert 'folder: 3 train; ready for load_dataset("folder")' in capsys.readouterr().out
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for streaming in (False, True):
        rows = datasets.load_dataset("folder", split="train", streaming=streaming)
        assert [row["captions"] for row in rows] == [["caption 0"], ["caption 1"], ["caption 2"]]
    assert main(["list"]) == 0
    table = capsys.readouterr().out
    assert "folder" in table and "ready" in table and "3050/539/2022" in table


def test_the_default_config_stays_the_one_that_load_dataset_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = BENCHMARKS["toy"]

    class Two(toy):
        BUILDER_CONFIGS = [
            toy.BUILDER_CONFIG_CLASS(name="default", train=5, validation=1, test=1),
            toy.BUILDER_CONFIG_CLASS(name="tiny", train=2, validation=1, test=1),
        ]

    monkeypatch.setitem(BENCHMARKS, "twotoys", Two)
    prepare(benchmark_builder("twotoys"))
    prepare(benchmark_builder("twotoys", config="tiny"))
    assert datasets.load_dataset("twotoys", split="train").num_rows == 5
    assert datasets.load_dataset("twotoys", "tiny", split="train").num_rows == 2


def test_another_data_dir_is_another_data_set(tmp_path: Path) -> None:
    first, second = (write_folder(tmp_path / str(count), count) for count in (2, 4))
    assert len(load_benchmark("folder", "train", data_dir=str(first))) == 2
    assert len(load_benchmark("folder", "train", data_dir=str(second))) == 4


def edit_caption(data: Path) -> None:
    """Same size, another time."""
    path = data / "metadata.jsonl"
    path.write_text(path.read_text().replace("caption 1", "caption 7"))
    os.utime(path, (1, 1))


def edit_pixels(data: Path) -> None:
    Image.new("RGB", (9, 9), "white").save(data / "after-1.png")


def add_pair(data: Path) -> None:
    names = {"before_file_name": "before-0.png", "after_file_name": "after-1.png"}
    with (data / "metadata.jsonl").open("a") as file:
        file.write("\n" + json.dumps({**names, "captions": ["one more"]}))


@pytest.mark.parametrize("edit", [edit_caption, edit_pixels, add_pair])
def test_edited_raw_files_are_prepared_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, edit: Callable[[Path], None]
) -> None:
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    data, command = write_folder(tmp_path / "data" / "folder"), ["prepare", "folder"]
    assert main(command) == 0 and "nothing to do" not in capsys.readouterr().out
    first = load_benchmark("folder", "train")
    before = [(row["captions"], row["after"].size) for row in first]
    assert main(command) == 0 and "nothing to do: prepared on 20" in capsys.readouterr().out
    edit(data)
    second = load_benchmark("folder", "train")
    after = [(row["captions"], row["after"].size) for row in second]
    assert after != before == [(row["captions"], row["after"].size) for row in first], "open rows stay as they were"
    assert [row["captions"] for row in datasets.load_dataset("folder", split="train", cache_dir="cache")] == [
        captions for captions, _ in after
    ]
    assert main(command) == 0 and "nothing to do" in capsys.readouterr().out
    assert len(list((tmp_path / "cache").rglob("*.arrow"))) == 1, "nothing old is left"


def test_raw_files_of_other_splits_are_prepared_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    data = write_folder(tmp_path / "data" / "folder")
    rows = load_benchmark("folder", "train")
    for split in ("train", "validation"):
        shutil.copytree(data, tmp_path / "both" / split)
    assert main(["prepare", "folder", "--data_dir", str(tmp_path / "both")]) == 0
    prepared = datasets.load_dataset("folder")
    assert list(prepared) == ["train", "validation"]
    assert prepared["validation"]["captions"] == rows["captions"]
    assert main(["prepare", "folder"]) == 0 and list(datasets.load_dataset("folder")) == ["train"]


def test_without_raw_files_or_with_broken_ones_what_was_prepared_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    data = write_folder(tmp_path / "data" / "folder")
    assert main(["prepare", "folder"]) == 0
    (data / "after-0.png").unlink()
    with pytest.raises(DataError, match="pair 'p0': .* have changed since they were .* move that folder away"):
        load_benchmark("folder", "train")
    data.rename(tmp_path / "away")
    assert load_benchmark("folder", "train")["pair_id"][:] == ["p0", "p1", "p2"]
    assert main(["prepare", "folder"]) == 0 and "no raw files to compare" in capsys.readouterr().out


def test_what_was_left_out_is_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (write_folder(tmp_path / "data" / "folder") / "after-0.png").unlink()
    for _ in range(2):
        assert main(["prepare", "folder", "--on-error", "skip"]) == 0
        assert "1 pairs were left out" in capsys.readouterr().out
    assert load_benchmark("folder", "train")["pair_id"][:] == ["p1", "p2"]


def test_links_in_a_data_folder_may_lead_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    (tmp_path / "nowhere").symlink_to(tmp_path / "no such file")
    first = fingerprint(tmp_path)
    (tmp_path / "a" / "new.png").touch()
    assert first != fingerprint(tmp_path) == fingerprint(tmp_path)


@pytest.mark.parametrize("fault", ["missing", "cut", "no text"])
def test_a_broken_pair_stops_with_its_name_or_is_skipped_and_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, fault: str
) -> None:
    data = write_folder(tmp_path / f"pairs-{fault}")
    if fault == "missing":
        (data / "after-1.png").unlink()
    elif fault == "cut":
        (data / "after-1.png").write_bytes((data / "after-1.png").read_bytes()[:50])
    else:
        (data / "metadata.jsonl").write_text((data / "metadata.jsonl").read_text().replace("caption 1", " "))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    assert main(["prepare", "folder", "--data_dir", str(data)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: pair 'p1'"), line
    assert not list((tmp_path / "cache").rglob("*.arrow")), "nothing half is left"
    assert main(["prepare", "folder", "--data_dir", str(data), "--on-error", "skip"]) == 0
    told = capsys.readouterr().out
    assert "2 train" in told and "1 pairs were left out" in told
    listed = [json.loads(line) for line in (tmp_path / "folder-skipped.jsonl").read_text().splitlines()]
    assert [(entry["split"], entry["pair_id"]) for entry in listed] == [("train", "p1")]


FIRST = {"before_file_name": "before-0.png", "after_file_name": "after-0.png", "pair_id": "p0", "captions": ["a"]}
BROKEN_LINES = {
    "cut": '{"before_file_name": "before-0.png", "captions"',
    "no object": "[1]",
    "field missing": json.dumps({name: value for name, value in FIRST.items() if name != "after_file_name"}),
    "field of another type": json.dumps(FIRST | {"pair_id": "new", "captions": 5}),
    "id for a second time": json.dumps(FIRST),
    "no Unicode": json.dumps(FIRST | {"pair_id": "new", "captions": ["\ud800"]}),
    "nested too deep": "[" * 100_000,
    "path out of the folder": json.dumps(FIRST | {"pair_id": "new", "before_file_name": "../../etc/passwd"}),
}


@pytest.mark.parametrize("num_proc", ["1", "2"])
def test_broken_annotations_stop_with_their_line_or_are_skipped_and_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, num_proc: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("dataset_syned.pair_builder.SHARD_PAIRS", 2)  # 11 entries in 6 shards
    data = write_folder(tmp_path / "pairs")
    command = ["prepare", "folder", "--data_dir", str(data), "--num_proc", num_proc]
    whole = (data / "metadata.jsonl").read_text()
    for line in BROKEN_LINES.values():
        (data / "metadata.jsonl").write_text(f"{whole}\n{line}\n")
        assert main(command) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert message.startswith("error: ") and ("metadata.jsonl', line 4: " in message or "pair 'p0'" in message)
    good = whole.splitlines()
    (data / "metadata.jsonl").write_text("\n".join([*good[:2], *BROKEN_LINES.values(), *good[2:]]))
    assert main([*command, "--on-error", "skip"]) == 0
    told = capsys.readouterr().out
    assert "3 train" in told and "8 pairs were left out" in told
    assert datasets.load_dataset("folder", split="train", cache_dir=str(tmp_path / "cache"))["pair_id"][:] == [
        "p0",
        "p1",
        "p2",
    ]
    listed = [json.loads(line) for line in (tmp_path / "folder-skipped.jsonl").read_text().splitlines()]
    assert len(listed) == 8 and all(entry["split"] == "train" for entry in listed)
    for number in (3, 4, 5, 6, 8, 9, 10):
        assert sum(f"line {number}: " in entry["reason"] for entry in listed) == 1
    assert [entry["reason"] for entry in listed if entry["pair_id"] == "p0"] == [
        "pair 'p0' is in split 'train' twice, perhaps in files of two releases"
    ]


@pytest.mark.parametrize(
    ("lines", "more", "message"),
    [
        (
            "no JSON\nagain none\n",
            ["--on-error", "skip"],
            "has no pair: all were left out, see .*folder-skipped.jsonl",
        ),
        ("\n", [], "error: folder: split 'train' has no pair$"),
    ],
)
def test_annotations_that_give_no_pair_stop_although_broken_ones_are_skipped(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    lines: str,
    more: list,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = write_folder(tmp_path / "noise")
    (data / "metadata.jsonl").write_text(lines)
    assert main(["prepare", "folder", "--data_dir", str(data), *more]) == 2
    assert re.search(message, capsys.readouterr().err.strip())
    assert not list((tmp_path / "cache").rglob("*.arrow")), "nothing half is left"


# benchmark -> writes a few raw files of it into a folder, with their images
RAW_FILES: dict[str, Callable[[Path], object]] = {
    "syned": test_syned.write_raw,
    "emu_edit": test_emu_edit.write_raw,
    "clevr_change": test_clevr_change.write_tree,
    "clevr_dc": lambda root: test_clevr_dc.write_tree(root, test_clevr_dc.AUTHORS, test_clevr_dc.SPLITS),
    "spot_the_diff": lambda root: test_spot_the_diff.write_tree(root, train=test_spot_the_diff.ROWS),
    "image_editing_request": lambda root: test_image_editing_request.write_tree(
        root, train=test_image_editing_request.ITEMS
    ),
    "levir_cc": test_levir_cc.write_tree,
    "birds_to_words": lambda root: test_birds_to_words.write_tree(root, test_birds_to_words.ROWS),
    "instruct_pix2pix": lambda root: test_instruct_pix2pix.write_folder(
        root, "0000014", ["3"], test_instruct_pix2pix.LION
    ),
    "magicbrush": lambda root: test_magicbrush.write_shard(root / "data" / "train-0.parquet", test_magicbrush.TURNS),
    "folder": lambda root: write_folder(root / "train"),
    "toy": lambda root: None,  # drawn
}
SMALL = {"toy": {"train": 3, "validation": 2, "test": 2}}


def test_every_benchmark_has_raw_files_here() -> None:
    assert set(RAW_FILES) == set(BENCHMARKS), "add a few raw files of a new benchmark to RAW_FILES"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_gives_the_one_row(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Schema, ids, change types, captions and order, in all its configs; what is prepared equals what is listed."""
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    RAW_FILES[name](tmp_path / "raw")
    for config in BENCHMARKS[name].BUILDER_CONFIGS:
        log = tmp_path / f"{config.name}.jsonl"
        builder = benchmark_builder(
            name, config=config.name, root=tmp_path / "raw", skip_log=log, **SMALL.get(name, {})
        )
        splits = prepare(builder)
        assert list(splits) == [split for split in ("train", "validation", "test") if split in splits]
        skipped = [json.loads(line)["pair_id"] for line in log.read_text().splitlines()] if log.exists() else []
        for split, rows in splits.items():
            assert rows.features == FEATURES and len(rows) > 0
            assert len(set(rows["pair_id"])) == len(rows)
            assert set(rows["change_type"]) <= {"", *CHANGE_TYPES}
            assert all(captions for captions in rows["captions"])
            pairs = [entry for entry in builder.unique_entries(split) if isinstance(entry, RawPair)]
            listed = [pair.pair_id for pair in pairs if pair.pair_id not in skipped]
            assert [row for row in rows["pair_id"] if row in listed] == rows["pair_id"][:]
            assert rows[0]["before"].size and rows[0]["after"].size
            provenance = [json.loads(text) for text in rows["provenance"] if text]
            assert all(isinstance(made, dict) for made in provenance)


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "toy"])
def test_in_every_benchmark_a_broken_image_stops_with_its_pair(name: str, tmp_path: Path) -> None:
    RAW_FILES[name](tmp_path)
    builder = benchmark_builder(name, root=tmp_path)
    pair = next(
        entry for split in builder.raw_splits() for entry in builder.entries(split) if isinstance(entry, RawPair)
    )
    broken = replace(pair, after=("broken.png", b"broken"))
    with pytest.raises(DataError, match=f"pair '{re.escape(pair.pair_id)}': image 'broken.png' cannot be read"):
        read_row(broken)


def test_an_unknown_change_type_is_refused(tmp_path: Path) -> None:
    """So that a benchmark which names its unchanged pairs otherwise cannot slip through."""
    image = ("a.png", b"")
    with pytest.raises(DataError, match="pair 'p': unknown change_type 'unchanged': use one of none, add, remove"):
        RawPair("p", image, image, ["the same"], "unchanged")
    data = write_folder(tmp_path / "pairs")
    lines = (data / "metadata.jsonl").read_text().replace('"pair_id": "p1"', '"pair_id": "p1", "change_type": "new"')
    (data / "metadata.jsonl").write_text(lines)
    with pytest.raises(DataError, match="line 2: pair 'p1': unknown change_type 'new'"):
        list(benchmark_builder("folder", root=data).raw_pairs("train"))
    assert NO_CHANGE in CHANGE_TYPES and all(CHANGE_TYPES.values())


def test_the_documented_example_is_a_benchmark(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/add_a_benchmark.md: its class, on raw files as its docstring shows them, through the same contract."""
    page = (root / "docs" / "add_a_benchmark.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    module = ModuleType("dataset_syned.benchmarks.shop_windows")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(code.replace("from ..", "from dataset_syned."), vars(module))
    monkeypatch.setitem(BENCHMARKS, "shop_windows", module.ShopWindows)

    def write(raw: Path) -> None:
        raw.mkdir()
        Image.new("RGB", (8, 8), "red").save(raw / "7_monday.jpg")
        Image.new("RGB", (8, 8), "blue").save(raw / "7_friday.jpg")
        line = {"id": 7, "text": "the red coat is gone", "type": "remove"}
        (raw / "train.jsonl").write_text(json.dumps(line) + "\n")

    monkeypatch.setitem(RAW_FILES, "shop_windows", write)
    test_every_benchmark_states_its_facts("shop_windows")
    test_every_benchmark_says_what_is_missing_and_where_to_get_it("shop_windows", tmp_path)
    test_every_benchmark_gives_the_one_row("shop_windows", tmp_path, monkeypatch)


MISSING = """
import runpy, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "datasets":
            raise ModuleNotFoundError(f"No module named {name!r}", name="datasets")
sys.meta_path.insert(0, Blocker())
sys.argv = ["dataset_syned", "list"]
runpy.run_module("dataset_syned", run_name="__main__")
"""


def test_the_missing_package_is_one_line_that_names_the_extra(root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", MISSING], cwd=root, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == 'error: the data sets need the package datasets: pip install "blip2idc[data]"\n'


def write_spot(root: Path, broken: bool) -> None:
    test_spot_the_diff.write_tree(root, train=test_spot_the_diff.ROWS + [{"img_id": "9", "sentences": 5}] * broken)


def write_requests(root: Path, broken: bool) -> None:
    test_image_editing_request.write_tree(root, train=[{"uid": "x"}] * broken + test_image_editing_request.ITEMS)


def write_levir(root: Path, broken: bool) -> None:
    test_levir_cc.write_tree(root, [{"split": "none"}] * broken + test_levir_cc.ENTRIES)


def write_levir_sentences(root: Path, broken: bool) -> None:
    wrong = test_levir_cc.ENTRIES[1] | {"filename": "x.png", "sentences": 5}
    test_levir_cc.write_tree(root, test_levir_cc.ENTRIES + [wrong] * broken)


def write_birds(root: Path, broken: bool) -> None:
    test_birds_to_words.write_tree(root, [["too", "few"]] * broken + test_birds_to_words.ROWS)


def write_clevr_dc(root: Path, broken: bool) -> None:
    splits = test_clevr_dc.SPLITS | {"train": [10, *[9999] * broken, 2]}
    test_clevr_dc.write_tree(root, test_clevr_dc.AUTHORS, splits)


def write_instructions(root: Path, broken: bool) -> None:
    test_instruct_pix2pix.write_folder(root, "0000014", ["3"], test_instruct_pix2pix.LION)
    if broken:
        test_instruct_pix2pix.write_folder(root, "0000015", ["4"], {"input": "no edit"})


def write_turns(root: Path, broken: bool) -> None:
    wrong = test_magicbrush.turn("500", 1, 50) | {"instruction": None}
    test_magicbrush.write_shard(root / "data" / "train-0.parquet", [wrong] * broken + test_magicbrush.TURNS)


def write_siblings(root: Path, broken: bool) -> None:
    root.mkdir()
    (root / "captions.json").write_text(json.dumps({"1.png": ["a dog"], **({"2.png": 5} if broken else {})}))


def write_table(root: Path, broken: bool) -> None:
    header, good = ["before_file_name", "after_file_name", "captions"], ["1.png", "2.png", "a dog"]
    test_folder.write_csv(root / "metadata.csv", [header, good, *[["1.png", "", "a cat"]] * broken])


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("spot_the_diff", write_spot),
        ("image_editing_request", write_requests),
        ("levir_cc", write_levir),
        ("levir_cc", write_levir_sentences),
        ("birds_to_words", write_birds),
        ("clevr_dc", write_clevr_dc),
        ("instruct_pix2pix", write_instructions),
        ("magicbrush", write_turns),
        ("folder", write_siblings),
        ("folder", write_table),
    ],
)
def test_in_every_benchmark_a_broken_entry_costs_no_other(
    tmp_path: Path, name: str, write: Callable[[Path, bool], None]
) -> None:
    def entries(root: Path, broken: bool) -> list[RawPair | BrokenEntry]:
        write(root, broken)
        builder = benchmark_builder(name, root=root)
        found = [entry for split in builder.raw_splits() for entry in builder.unique_entries(split)]
        assert len(found) == sum(map(builder.count_pairs, builder.raw_splits())), "shards hold all entries"
        return found

    whole, broken = entries(tmp_path / "whole", False), entries(tmp_path / "broken", True)
    assert [entry.pair_id for entry in whole] == [pair.pair_id for pair in broken if isinstance(pair, RawPair)]
    assert len(broken) - len(whole) == 1


def test_check_and_export_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = write_folder(tmp_path / "pairs")
    report = tmp_path / "report.json"
    whole = (data / "metadata.jsonl").read_text()
    (data / "metadata.jsonl").write_text("\n".join([whole, *BROKEN_LINES.values()]))
    assert main(["check", "folder", "--data_dir", str(data), "--report", str(report)]) == 1
    found = json.loads(report.read_text())
    assert found["counts"] == {"annotation": 7, "duplicate": 1} and found["found"] == {"train": 4}
    assert "line 11: the name '../../etc/passwd' leads out of the folder" in found["problems"][-1]["detail"]
    (data / "metadata.jsonl").write_text(whole)
    assert main(["check", "folder", "--data_dir", str(data), "--report", str(report)]) == 0
    assert json.loads(report.read_text())["found"] == {"train": 3}
    (data / "before-2.png").unlink()
    assert main(["check", "folder", "--data_dir", str(data), "--report", str(report)]) == 1
    assert json.loads(report.read_text())["counts"] == {"missing": 1}
    assert "missing: 1" in capsys.readouterr().out
    data = write_folder(tmp_path / "whole")
    for form in ("parquet", "coco", "clevr"):
        command = ["export", "folder", str(tmp_path / form), "--format", form, "--data_dir", str(data)]
        assert main(command) == 0
    assert (tmp_path / "parquet" / "README.md").exists() and (tmp_path / "coco" / "train.json").exists()
    assert main(["export", "folder", str(tmp_path / "coco"), "--data_dir", str(data)]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_a_reader_that_goes_early_is_no_error(root: Path) -> None:
    command = [sys.executable, "-m", "dataset_syned", "list"]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 141


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0 and COMMANDS[command][1][:20] in capsys.readouterr().out


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", ".."])
def test_names_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="leads out of the folder"):
        inside(Path("data"), name)
    assert inside(Path("data"), "a/../b.png") == Path("data/a/../b.png")
