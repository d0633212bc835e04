"""The contract of every entry of BENCHMARKS, and the commands of `python -m dataset_syned`."""

import json
from pathlib import Path

import datasets
import pytest
from PIL import Image

from dataset_syned import BENCHMARKS, FEATURES, benchmark_builder, load_benchmark, prepare
from dataset_syned.__main__ import COMMANDS, main
from dataset_syned.pair_builder import DataError, inside


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


def test_check_and_export_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = write_folder(tmp_path / "pairs")
    report = tmp_path / "report.json"
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
