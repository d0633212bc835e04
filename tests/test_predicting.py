"""Predictions of evaluate.py: the same file from any number of processes, and after any interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common_idc.folder_lock import folder_lock

OPTIONS = {"train": 8, "validation": 4, "test": 30}
NAMES = ("predictions.jsonl", "predictions_swapped.jsonl", "predictions_identical.jsonl")


def command(model: Path, folder: Path, *more: str, processes: int = 1) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    program = [sys.executable, *(launcher if processes > 1 else []), "evaluate.py"]
    arguments = ["--model", str(model), "--benchmark", "toy", "--benchmark_options", json.dumps(OPTIONS)]
    return [*program, *arguments, "--batch_size", "4", "--output_dir", str(folder), *more]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def evaluate(root: Path, *arguments: str, **options: int) -> subprocess.CompletedProcess:
    line = command(*arguments, **options)
    done = subprocess.run(line, cwd=root, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def single(root: Path, tiny_captioner: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("single")
    evaluate(root, tiny_captioner, folder)
    return folder


def test_a_finished_evaluation_leaves_no_hidden_files(single: Path) -> None:
    assert sorted(path.name for path in single.iterdir() if path.name.startswith(".")) == []
    assert len((single / NAMES[0]).read_text().splitlines()) == OPTIONS["test"]


def test_two_processes_write_the_file_of_one(root: Path, tiny_captioner: Path, single: Path, tmp_path: Path) -> None:
    done = evaluate(root, tiny_captioner, tmp_path, processes=2)
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == (single / name).read_bytes(), name
    assert done.stdout.count("constant caption") == 1, "only one process prints the scores"


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_evaluation_continues(
    root: Path, tiny_captioner: Path, single: Path, tmp_path: Path, processes: int
) -> None:
    line = command(tiny_captioner, tmp_path, processes=processes)
    with subprocess.Popen(line, cwd=root, env=environment(), stderr=subprocess.DEVNULL) as run:
        while not any(len(path.read_text().splitlines()) > 2 for path in tmp_path.glob(".partial-*.jsonl")):
            assert run.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        workers = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        for process in (run.pid, *map(int, workers)):  # the workers survive a killed launcher
            os.kill(process, signal.SIGKILL)
    assert not (tmp_path / NAMES[0]).exists()
    last = max(tmp_path.glob(".partial-*.jsonl"), key=lambda path: path.stat().st_size)
    last.write_text(last.read_text() + '{"batch": 7, "senten')  # as a kill in the middle of a write would leave it
    done = evaluate(root, tiny_captioner, tmp_path, processes=processes)
    assert "continuing after" in done.stderr
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == (single / name).read_bytes(), name


def test_a_second_evaluation_in_a_folder_is_refused(root: Path, tiny_captioner: Path, tmp_path: Path) -> None:
    line = command(tiny_captioner, tmp_path / "out", "--no_input_controls")
    with folder_lock(tmp_path / "out"):
        done = subprocess.run(line, cwd=root, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2 and not (tmp_path / "out" / NAMES[0]).exists()
    assert done.stderr.splitlines()[-1].startswith("error: another process is writing into")


def test_predictions_of_other_settings_are_not_used(root: Path, tiny_captioner: Path, tmp_path: Path) -> None:
    partial = (
        '{"benchmark": "toy", "decoding": {"num_beams": 9}}\n{"batch": 0, "results": [{"own": ["wrong", null]}]}\n'
    )
    (tmp_path / ".partial-predictions-0.jsonl").write_text(partial)
    (tmp_path / ".partial-predictions-1.jsonl").write_text(partial)
    done = evaluate(root, tiny_captioner, tmp_path, "--no_input_controls")
    assert "continuing" not in done.stderr and "wrong" not in (tmp_path / NAMES[0]).read_text()
    assert not (tmp_path / NAMES[1]).exists()


def test_decoding_reaches_the_model_and_the_signature(root: Path, tiny_captioner: Path, tmp_path: Path) -> None:
    sampled = ("--do_sample", "--temperature", "3.0", "--no_input_controls")
    evaluate(root, tiny_captioner, tmp_path / "a", *sampled)
    evaluate(root, tiny_captioner, tmp_path / "b", *sampled, processes=2)
    evaluate(root, tiny_captioner, tmp_path / "c", *sampled, "--seed", "1")
    first, second, third = ((tmp_path / name / NAMES[0]).read_bytes() for name in "abc")
    assert first == second, "random numbers depend on the batch, not on the process"
    assert first != third
    decoding = json.loads((tmp_path / "a" / "metrics.json").read_text())["signature"]["decoding"]
    assert (decoding["do_sample"], decoding["temperature"]) == (True, 3.0)


def test_captions_of_at_most_one_word_are_predictions(root: Path, tiny_captioner: Path, tmp_path: Path) -> None:
    evaluate(root, tiny_captioner, tmp_path, "--max_new_tokens", "1", "--num_beams", "2", "--no_input_controls")
    lines = [json.loads(line) for line in (tmp_path / NAMES[0]).read_text().splitlines()]
    assert len(lines) == OPTIONS["test"] and all(len(line["prediction"].split()) <= 1 for line in lines)
