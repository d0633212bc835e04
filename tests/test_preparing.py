"""prepare: what it refuses, and what is left when it is killed or the disk is full."""

import io
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from dataset_syned import benchmark_builder, load_benchmark, rows_fingerprint, undecoded
from dataset_syned.__main__ import main
from dataset_syned.checking import check
from dataset_syned.pair_builder import ParentWatch
from modeling_blip2idc.image_fusion import load_image


def write_pairs(folder: Path, count: int, size: int = 8) -> Path:
    """Write pairs of pictures of noise, which does not compress."""
    folder.mkdir()
    random = np.random.default_rng(0)
    with (folder / "metadata.jsonl").open("w") as file:
        for number in range(count):
            names = [f"{side}-{number}.png" for side in ("before", "after")]
            for name in names:
                Image.fromarray(random.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(folder / name)
            fields = dict(zip(("before_file_name", "after_file_name"), names, strict=True))
            file.write(json.dumps({**fields, "pair_id": f"p{number}", "captions": [f"caption {number}"]}) + "\n")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def encoded(picture: Image.Image, form: str = "TIFF", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def grey(value: float, mode: str) -> bytes:
    return encoded(Image.new(mode, (8, 8), value))


REFUSED = {
    "negative float": (grey(-1.5, "F"), "values from -1.5 to -1.5 are not grey levels"),
    "not a number": (grey(float("nan"), "F"), "values from nan to nan are not grey levels"),
    "infinite": (grey(float("inf"), "F"), "are not grey levels"),
    "large float": (grey(65_536, "F"), "values from 65536 to 65536 are not grey levels"),
    "negative integer": (grey(-1, "I"), "values from -1 to -1 are not grey levels"),
    "large integer": (grey(65_536, "I"), "values from 65536 to 65536 are not grey levels"),
    "cut": (encoded(Image.effect_noise((64, 64), 99), "PNG")[:1000], "cannot be read"),
}


@pytest.mark.parametrize(("fault", "num_proc"), [*((fault, 1) for fault in REFUSED), ("cut", 2)])
def test_an_image_that_training_refuses_is_refused_with_its_file_and_pair(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    fault: str,
    num_proc: int,
) -> None:
    monkeypatch.setattr("dataset_syned.pair_builder.SHARD_PAIRS", 2)
    data, (content, reason) = write_pairs(tmp_path / "pairs", 4), REFUSED[fault]
    (data / "after-2.png").write_bytes(content)
    assert main(["prepare", "folder", "--data_dir", str(data), "--num_proc", str(num_proc)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith(f"error: pair 'p2': image '{data}/after-2.png' ") and reason in line
    (problem,) = check(benchmark_builder("folder", data_dir=data)).problems
    assert (problem.rule, problem.pair_id) == ("unreadable", "p2")
    assert f"image '{data}/after-2.png' " in problem.detail and reason in problem.detail


TAKEN = {
    "white in 32-bit integers": grey(65_535, "I"),
    "white in floats": grey(65_535, "F"),
    "white in 16 bits": grey(65_535, "I;16"),
    # which Pillow reads and `datasets` does not, so that its decoding of rows is no measure
    "damaged EXIF": encoded(Image.new("RGB", (8, 8), "white"), "PNG", exif=b"Exif\0\0MM\0\xff"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_an_image_that_training_takes_is_prepared_as_it_is(cache: Path, tmp_path: Path, name: str) -> None:
    data = write_pairs(tmp_path / "pairs", 1)
    (data / "after-0.png").write_bytes(TAKEN[name])
    (row,) = undecoded(load_benchmark("folder", "train", data_dir=data))
    assert row["after"] == {"path": "after-0.png", "bytes": TAKEN[name]}
    assert load_image(row["after"]).getpixel((0, 0)) == (255, 255, 255)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse to write files beyond a size, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("num_proc", ["1", "2"])
def test_a_full_disk_is_one_line_with_the_folder_and_leaves_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, num_proc: str
) -> None:
    monkeypatch.setattr("dataset_syned.pair_builder.SHARD_PAIRS", 4)
    data = write_pairs(tmp_path / "pairs", 8, size=64)  # 100 kB
    command = ["prepare", "folder", "--data_dir", str(data), "--num_proc", num_proc]
    with largest_file(20_000):
        assert main(command) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith(f"error: folder: the rows cannot be written into '{cache}/folder/") and "Errno" in line
    assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert main(command) == 0 and "8 train" in capsys.readouterr().out
    monkeypatch.setattr("dataset_syned.pair_builder.write_json", no_space)
    (data / "metadata.jsonl").write_text((data / "metadata.jsonl").read_text().replace("caption 0", "other 0"))
    assert main(command) == 2, "a full disk at the very end"
    error = capsys.readouterr().err
    assert f"cannot be written into '{cache}/folder/" in error
    assert "have changed" not in error, "which is not the reason"
    builder = benchmark_builder("folder", data_dir=data)
    assert builder.as_dataset("train")["captions"][0] == ["caption 0"], "what was prepared remains"


def no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


# A worker kills the process that prepares, and goes on writing.
KILLED = """
import os, signal, sys
from dataset_syned import pair_builder
from dataset_syned.__main__ import main

parent, read_row = os.getpid(), pair_builder.read_row

def kill_parent(pair):
    if pair.pair_id == "p3":
        os.kill(parent, signal.SIGKILL)
    return read_row(pair)

pair_builder.SHARD_PAIRS, pair_builder.read_row = 2, kill_parent
main(sys.argv[1:])
"""


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix().replace(folder.name, "CACHE") for path in folder.rglob("*"))


def test_nothing_is_left_of_a_killed_preparation_after_the_next(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_pairs(tmp_path / "pairs", 8)
    command = [sys.executable, "-c", KILLED, "prepare", "folder", "--data_dir", str(data), "--num_proc", "2"]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "killed"), "PYTHONPATH": str(root)}
    assert subprocess.run(command, env=environment, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "killed").rglob("*.incomplete/*.arrow"))) == 2, "killed in the middle"
    rows = []
    for name in ("killed", "whole"):
        monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", str(tmp_path / name))
        rows.append(rows_fingerprint(load_benchmark("folder", "train", data_dir=data)))
    assert rows[0] == rows[1]
    files = [[line for line in listing(tmp_path / name) if not line.startswith("_")] for name in ("killed", "whole")]
    assert files[0] == files[1]


def test_a_killed_preparation_with_other_options_does_not_hide_the_benchmark(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = write_pairs(tmp_path / "first", 2), write_pairs(tmp_path / "second", 8)
    cache = tmp_path / "cache"
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", str(cache))
    load_benchmark("folder", "train", data_dir=first)
    command = [sys.executable, "-c", KILLED, "prepare", "folder", "--data_dir", str(second), "--num_proc", "2"]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(cache), "PYTHONPATH": str(root)}
    assert subprocess.run(command, env=environment, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL
    (left,) = (cache / "folder").glob("*/*/*.incomplete")
    with FileLock(f"{str(left).removesuffix('.incomplete')}_builder.lock"):  # as while another process prepares it
        load_benchmark("folder", "train", data_dir=first)
    assert left.is_dir()
    load_benchmark("folder", "train", data_dir=first)
    assert not left.exists()


def test_all_processes_of_a_preparation_watch_whether_it_lives(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataset_syned.pair_builder.SHARD_PAIRS", 2)
    (tmp_path / "watched").mkdir()

    def note(watch: ParentWatch) -> None:
        (tmp_path / "watched" / str(os.getpid())).write_text(f"{watch.parent} {os.getppid()}")

    monkeypatch.setattr(ParentWatch, "start", note)
    load_benchmark("folder", "train", num_proc=2, data_dir=write_pairs(tmp_path / "pairs", 4))
    notes = [file.read_text() for file in (tmp_path / "watched").iterdir()]
    assert notes == [f"{os.getpid()} {os.getpid()}"] * 3, "two workers, and the queue of their results"


def test_a_process_ends_when_its_parent_has_gone_and_writes_nothing_more(root: Path, tmp_path: Path) -> None:
    code = f"""
from dataset_syned.pair_builder import ParentWatch

file = open({str(tmp_path / "rows")!r}, "w")
file.write("in a buffer")
ParentWatch(parent=-1).run()
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 1
    assert (tmp_path / "rows").read_text() == ""


def test_a_cache_that_load_dataset_cannot_search_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "a[1]")
    data = write_pairs(tmp_path / "pairs[2]", 2)
    assert main(["prepare", "folder", "--data_dir", str(data)]) == 0
    printed = capsys.readouterr().out
    assert "2 train; load_dataset cannot find them, because" in printed and "ready" not in printed
    with pytest.raises(ConnectionError):  # it looks on the Hub, and then in the cache
        datasets.load_dataset("folder", data_dir=str(data))
    assert len(load_benchmark("folder", "train", data_dir=data)) == 2
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "a")
    assert main(["prepare", "folder", "--data_dir", str(data)]) == 0 and "ready" in capsys.readouterr().out
    assert len(datasets.load_dataset("folder", data_dir=str(data), split="train")) == 2
