"""The contract of every entry of BENCHMARKS, and the commands of `python -m dataset_syned`."""

import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import benchmark_contract
import datasets
import pytest
import test_folder
from PIL import Image

import metric_idc.change_type
from dataset_syned import BENCHMARKS, benchmark_builder, load_benchmark, prepare, rows_fingerprint
from dataset_syned.__main__ import COMMANDS, EXPORT_FORMATS, main
from dataset_syned.annotations import inside
from dataset_syned.benchmarks import clevr_change, toy
from dataset_syned.pair_builder import PairBuilder, fingerprint
from dataset_syned.pairs import CHANGE_TYPES, FEATURES, NO_CHANGE, DataError, RawPair
from dataset_syned.preparing import prepared_from


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_its_metadata(name: str) -> None:
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


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_yields_rows_of_the_schema_in_its_order(name: str, tmp_path: Path) -> None:
    benchmark_contract.check_rows(name, tmp_path)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_prepared_once(name: str, tmp_path: Path) -> None:
    benchmark_contract.check_prepared_once(name, tmp_path)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_images_of_every_benchmark_can_be_stored_smaller(name: str, tmp_path: Path) -> None:
    benchmark_contract.check_max_side(name, tmp_path)


READ_FROM_FILES = [name for name in BENCHMARKS if name != "toy"]
READ_FROM_ANNOTATIONS = [name for name in READ_FROM_FILES if name != "photo_edits"]  # whose pair_id is the row number


@pytest.mark.parametrize("name", READ_FROM_FILES)
def test_a_broken_entry_of_a_benchmark_loses_no_other(name: str, tmp_path: Path) -> None:
    benchmark_contract.check_broken_entry(name, tmp_path)


@pytest.mark.parametrize("name", READ_FROM_ANNOTATIONS)
def test_every_benchmark_reports_a_duplicate_and_a_broken_image(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark_contract.check_duplicate_and_broken_image(name, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", READ_FROM_FILES)
def test_every_benchmark_reports_what_is_missing_and_where_to_get_it(name: str, tmp_path: Path) -> None:
    benchmark_contract.check_missing_files(name, tmp_path)


def test_a_benchmark_without_tiny_raw_files_fails_with_what_to_add(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="add tests/test_streets.py with a function write_tiny"):
        benchmark_contract.write_tiny("streets", tmp_path / "raw")


CHECKS = (
    benchmark_contract.check_rows,
    benchmark_contract.check_prepared_once,
    benchmark_contract.check_max_side,
    benchmark_contract.check_broken_entry,
    benchmark_contract.check_missing_files,
)


def test_the_documented_benchmark_fulfils_the_contract(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The class and the test module are used verbatim as in docs/add_a_benchmark.md."""
    text = (root / "docs" / "add_a_benchmark.md").read_text(encoding="utf-8")
    source, tiny = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for name, code in (("dataset_syned.benchmarks.street_pairs", source), ("test_street_pairs", tiny)):
        file = tmp_path / f"{name}.py"
        file.write_text(code)
        spec = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
    street_pairs = sys.modules["dataset_syned.benchmarks.street_pairs"].StreetPairs
    assert f'`"street_pairs": {street_pairs.__name__},`' in text
    monkeypatch.setitem(BENCHMARKS, "street_pairs", street_pairs)
    test_every_benchmark_has_its_metadata("street_pairs")
    for check in CHECKS:
        check("street_pairs", tmp_path / check.__name__)
    benchmark_contract.check_duplicate_and_broken_image("street_pairs", tmp_path / "duplicate", monkeypatch)


# A program that runs dataset_syned without one package.
WITHOUT_PACKAGE = """
import runpy, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
blocked, sys.argv = sys.argv[1], ["dataset_syned", *sys.argv[2:]]
sys.meta_path.insert(0, Blocker())
runpy.run_module("dataset_syned", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("package", "command", "message"),
    [
        (
            "datasets",
            ["list"],
            "error: No module named 'datasets'; install what this needs: pip install \"blip2idc[data]\"\n",
        ),
        (
            "pyarrow",
            ["prepare", "emu_edit"],
            "error: No module named 'pyarrow'; install what this needs: pip install \"blip2idc[data]\"\n",
        ),
        ("datasets", ["--help"], ""),
    ],
)
def test_a_missing_package_is_reported_in_one_line_where_it_is_needed(
    root: Path, package: str, command: list[str], message: str
) -> None:
    run = [sys.executable, "-W", "ignore", "-c", WITHOUT_PACKAGE, package, *command]
    done = subprocess.run(run, cwd=root, capture_output=True, text=True)
    assert (done.stderr, done.returncode) == (message, 2 if message else 0)


def test_list_does_not_import_torch(root: Path) -> None:
    code = "import sys; from dataset_syned.__main__ import main; main(['list']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "syned_raw" in done.stdout


def test_change_types_outside_the_table_are_refused() -> None:
    with pytest.raises(DataError, match="pair 'p': unknown change type 'unchanged', use one of: none, add, "):
        RawPair("p", Path("a"), Path("b"), ["nothing changed"], "unchanged")
    assert CHANGE_TYPES[NO_CHANGE] and all(CHANGE_TYPES.values())
    assert set(toy.CHANGE_TYPES) | set(clevr_change.TYPES.values()) <= set(CHANGE_TYPES)
    assert set(metric_idc.change_type.CHANGE_TYPES) <= set(CHANGE_TYPES), "the table contains what the rules recognize"


def test_new_columns_need_a_new_version() -> None:
    """Prepared rows are found by their version, so rows with other columns must have another one."""
    columns = ["pair_id", "before", "after", "captions", "change_type", "provenance"]
    assert (list(FEATURES), PairBuilder.VERSION) == (columns, "2.0.0")


# Each field of a benchmark's config, and a value that changes the rows.
OTHER_OPTIONS = {
    "toy": {
        **{"train": 5, "validation": 3, "test": 2, "seed": 1, "look": "studio", "wording": "instruction"},
        **{"difficulty": "hard", "width": 160, "height": 80},
    },
    "photo_edits": {
        **{"train": 5, "validation": 1, "test": 2, "seed": 1, "size": 80, "wording": "request", "unchanged": 1.0},
        **{"two_changes": 1.0, "distractors": False, "cut_outs": "cut_outs/kitchen"},
    },
}
COMMON_FIELDS = {"name", "version", "data_dir", "data_files", "description", "max_side"}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_option_of_every_benchmark_changes_its_rows(name: str, tmp_path: Path) -> None:
    fields = set(BENCHMARKS[name].BUILDER_CONFIG_CLASS.__dataclass_fields__) - COMMON_FIELDS
    assert fields == set(OTHER_OPTIONS.get(name, {})), "name a value that changes the rows for each option"
    options = {field: BENCHMARKS[name].BUILDER_CONFIGS[0].__dict__[field] for field in fields}
    options |= benchmark_contract.tiny_options(name)
    benchmark_contract.write_tiny(name, tmp_path / "raw")

    def rows(**changes: object) -> object:
        """Return the rows without provenance, which may repeat an option that has no effect."""
        splits = benchmark_contract.raw_rows(benchmark_builder(name, root=tmp_path / "raw", **(options | changes)))
        return {split: [row | {"provenance": ""} for row in part] for split, part in splits.items()}

    for field, value in OTHER_OPTIONS.get(name, {}).items():
        assert rows(**{field: value}) != rows(), field


@pytest.mark.parametrize("name", READ_FROM_FILES)
def test_data_dir_of_every_benchmark_is_the_folder_that_is_read(name: str, tmp_path: Path) -> None:
    benchmark_contract.write_tiny(name, tmp_path / "raw")
    builder = benchmark_builder(name, data_dir=str(tmp_path / "raw"))
    assert list(builder.raw_pairs(builder.raw_splits()[-1]))


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if len(BENCHMARKS[name].BUILDER_CONFIGS) > 1])
def test_configs_of_a_benchmark_differ_in_their_rows(name: str, tmp_path: Path) -> None:
    benchmark_contract.write_tiny(name, tmp_path / "raw")
    builders = [
        benchmark_contract.make(name, tmp_path / "raw", tmp_path / "cache", config.name)
        for config in BENCHMARKS[name].BUILDER_CONFIGS
    ]
    captions = [[pair.captions for pair in builder.raw_pairs("test")] for builder in builders]
    assert all(first != second for first, second in itertools.combinations(captions, 2))


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
    data = write_folder(tmp_path / "data" / "folder")
    assert main(["prepare", "folder", "--data_dir", str(data)]) == 0
    assert f'3 train; ready for load_dataset("folder", data_dir="{data}")' in capsys.readouterr().out
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for streaming in (False, True):
        rows = datasets.load_dataset("folder", data_dir=str(data), split="train", streaming=streaming)
        assert [row["captions"] for row in rows] == [["caption 0"], ["caption 1"], ["caption 2"]]
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 0
    table = capsys.readouterr().out
    assert "folder" in table and "ready" in table and "3050/539/2022" in table


def test_load_dataset_still_finds_the_default_config_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = BENCHMARKS["toy"]

    class TwoConfigs(toy):
        BUILDER_CONFIGS = [
            toy.BUILDER_CONFIG_CLASS(name="default", train=5, validation=1, test=1),
            toy.BUILDER_CONFIG_CLASS(name="tiny", train=2, validation=1, test=1),
        ]

    monkeypatch.setitem(BENCHMARKS, "twotoys", TwoConfigs)
    prepare(benchmark_builder("twotoys"))
    prepare(benchmark_builder("twotoys", config="tiny"))
    assert datasets.load_dataset("twotoys", split="train").num_rows == 5
    assert datasets.load_dataset("twotoys", "tiny", split="train").num_rows == 2


def test_each_data_dir_is_its_own_data_set(tmp_path: Path) -> None:
    first, second = (write_folder(tmp_path / str(count), count) for count in (2, 4))
    assert len(load_benchmark("folder", "train", data_dir=str(first))) == 2
    assert len(load_benchmark("folder", "train", data_dir=str(second))) == 4


def test_own_pairs_of_two_folders_never_share_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folders = [write_folder(tmp_path / name / "data" / "folder", pairs) for name, pairs in (("a", 1), ("home", 2))]
    assert main(["prepare", "folder", "--data_dir", str(folders[0])]) == 0
    assert main(["prepare", "folder", "--data_dir=~/data/folder"]) == 0, "as no shell expands it"
    for pairs, folder in enumerate(folders, start=1):
        assert len(datasets.load_dataset("folder", data_dir=str(folder), split="train")) == pairs
        monkeypatch.chdir(folder.parents[1])
        caplog.clear()
        with caplog.at_level("INFO", "dataset_syned"):
            for options in ({}, {"data_dir": "data/folder"}, {"data_dir": folder}):
                assert len(load_benchmark("folder", "train", **options)) == pairs
        assert caplog.messages == [f"folder: rows prepared from {str(folder)!r}"] * 3
        assert prepared_from(benchmark_builder("folder"))["folder"] == str(folder)
    assert len(list((tmp_path / "cache").rglob("*.arrow"))) == 2


def test_a_data_dir_replaced_by_one_with_equal_names_sizes_and_times_is_prepared_anew(tmp_path: Path) -> None:
    hashes = set()
    for text in ("caption 1", "another 1"):
        data = write_folder(tmp_path / "mine")
        (data / "metadata.jsonl").write_text((data / "metadata.jsonl").read_text().replace("caption 1", text))
        for file in data.iterdir():
            os.utime(file, (1, 1))
        rows = load_benchmark("folder", "train", data_dir=str(data))
        assert rows["captions"][1] == [text]
        hashes.add(rows_fingerprint(rows))
        data.rename(tmp_path / text)
    assert len(hashes) == 2


def test_the_fingerprint_of_rows_is_that_of_their_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "pairs")
    hashes = {}
    for cache, shards in (("one", 500), ("two", 1)):
        monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", str(tmp_path / cache))
        monkeypatch.setattr("dataset_syned.pair_builder.SHARD_PAIRS", shards)
        shutil.copytree(tmp_path / "pairs", tmp_path / f"pairs-{cache}")
        rows = load_benchmark("folder", "train", num_proc=2, data_dir=str(tmp_path / f"pairs-{cache}"))
        hashes[cache] = rows_fingerprint(rows)
    pairs = [rows.select([0]), rows.select([1, 2])]
    assert hashes["one"] == hashes["two"] == rows_fingerprint(datasets.concatenate_datasets(pairs))
    renamed = rows.map(lambda row: {"captions": [text.upper() for text in row["captions"]]})
    other_id = rows.map(lambda row: {"pair_id": f"{row['pair_id']}x"})
    other_image = rows.map(lambda row: {"after": row["before"]})
    others = [rows.select([1, 0, 2]), rows.select([0, 1]), renamed, other_id, other_image]
    assert len({hashes["one"], *map(rows_fingerprint, others)}) == 6


def edit_caption(data: Path) -> None:
    """Change a caption and the modification time of the file, but not its size."""
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
    loaded = datasets.load_dataset("folder", data_dir=str(data), split="train", cache_dir="cache")
    assert loaded["captions"][:] == [captions for captions, _ in after]
    assert main(command) == 0 and "nothing to do" in capsys.readouterr().out
    assert len(list((tmp_path / "cache").rglob("*.arrow"))) == 1, "no old file is left"


def test_raw_files_of_other_splits_are_prepared_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    data = write_folder(tmp_path / "data" / "folder")
    rows = load_benchmark("folder", "train")
    for split in ("train", "validation"):
        shutil.copytree(data, tmp_path / "both" / split)
    for folder, splits in ((tmp_path / "both", ["train", "validation"]), (data, ["train"])):
        shutil.rmtree(tmp_path / "pairs", ignore_errors=True)
        shutil.copytree(folder, tmp_path / "pairs")
        assert main(["prepare", "folder", "--data_dir", "pairs"]) == 0
        prepared = datasets.load_dataset("folder", data_dir=str(tmp_path / "pairs"))
        assert list(prepared) == splits and prepared[splits[-1]]["captions"] == rows["captions"]


def test_prepared_rows_remain_when_raw_files_are_broken_or_missing(
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


def test_skipped_pairs_are_reported_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (write_folder(tmp_path / "data" / "folder") / "after-0.png").unlink()
    for _ in range(2):
        assert main(["prepare", "folder", "--on-error", "skip"]) == 0
        assert "1 pairs were left out" in capsys.readouterr().out
    assert load_benchmark("folder", "train")["pair_id"][:] == ["p1", "p2"]


def test_links_in_a_data_folder_may_be_circular(tmp_path: Path) -> None:
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
    assert not list((tmp_path / "cache").rglob("*.arrow")), "no unfinished file is left"
    assert main(["prepare", "folder", "--data_dir", str(data), "--on-error", "skip"]) == 0
    printed = capsys.readouterr().out
    assert "2 train" in printed and "1 pairs were left out" in printed
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
        assert message.startswith("error: ") and ("metadata.jsonl', line 4: " in message or "pair_id 'p0'" in message)
    good = whole.splitlines()
    (data / "metadata.jsonl").write_text("\n".join([*good[:2], *BROKEN_LINES.values(), *good[2:]]))
    assert main([*command, "--on-error", "skip"]) == 0
    printed = capsys.readouterr().out
    assert "3 train" in printed and "8 pairs were left out" in printed
    assert load_benchmark("folder", "train", data_dir=str(data))["pair_id"][:] == ["p0", "p1", "p2"]
    listed = [json.loads(line) for line in (tmp_path / "folder-skipped.jsonl").read_text().splitlines()]
    assert len(listed) == 8 and all(entry["split"] == "train" for entry in listed)
    for number in (3, 4, 5, 6, 8, 9, 10):
        assert sum(f"line {number}: " in entry["reason"] for entry in listed) == 1
    assert [entry["reason"] for entry in listed if entry["pair_id"] == "p0"] == [
        "duplicate pair_id 'p0' in split 'train', perhaps from files of two releases"
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
def test_a_split_without_pairs_is_an_error_even_if_broken_entries_are_skipped(
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
    assert not list((tmp_path / "cache").rglob("*.arrow")), "no unfinished file is left"


def test_a_broken_entry_loses_no_other_in_the_other_layouts_of_folder(tmp_path: Path) -> None:
    """The tiny raw files of `folder` do not have these layouts."""
    header, good = ["before_file_name", "after_file_name", "captions"], ["1.png", "2.png", "a dog"]
    test_folder.write_csv(tmp_path / "table" / "metadata.csv", [header, good, ["1.png", "", "a cat"]])
    (tmp_path / "siblings").mkdir()
    (tmp_path / "siblings" / "captions.json").write_text(json.dumps({"1.png": ["a dog"], "2.png": 5}))
    for name in ("table", "siblings"):
        entries = list(benchmark_builder("folder", root=tmp_path / name).unique_entries("train"))
        assert [entry.captions for entry in entries if isinstance(entry, RawPair)] == [["a dog"]] and len(entries) == 2


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
    for form in EXPORT_FORMATS:
        command = ["export", "folder", str(tmp_path / form), "--format", form, "--data_dir", str(data)]
        assert main(command) == 0
    assert (tmp_path / "parquet" / "README.md").exists() and (tmp_path / "coco" / "train.json").exists()
    assert main(["export", "folder", str(tmp_path / "coco"), "--data_dir", str(data)]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_a_closed_output_pipe_prints_no_error(root: Path) -> None:
    command = [sys.executable, "-m", "dataset_syned", "list"]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 141


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_text(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert (
        stopped.value.code == 0 and ("--output_dir" if command == "synthesize" else COMMANDS[command][1][:20]) in text
    )


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", ".."])
def test_names_that_lead_out_of_the_folder_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="leads out of the folder"):
        inside(Path("data"), name)
    assert inside(Path("data"), "a/../b.png") == Path("data/a/../b.png")
