"""A run that is killed and resumed has the losses, the order of pairs and the adapter of an uninterrupted run.

The kills come at random moments of a training process that a fork server starts, so that none is spent on imports.
For more kills: `pytest tests/test_resuming.py --kills 20`.
"""

import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file
from tiny_chat_models import save_chat

import train
from common_idc.folder_lock import folder_lock
from run_idc.checkpoints import checkpoints, latest_checkpoint, read_state, write_checkpoint

CONFIG = {
    "benchmark": "toy",
    "benchmark_options": {"train": 45, "validation": 6, "test": 12},
    "batch_size": 4,
    "epochs": 2,
    "learning_rate": 0.004,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 3,
    "lora_rank": 4,
    "lora_dropout": 0.1,
    "validation_captions": 4,
    "mixed_precision": "no",
    "attn_implementation": "eager",
    "log_every": 1,
    "checkpoint_every": 2,
}


@pytest.fixture(autouse=True)
def new_accelerator_state() -> None:
    """Reset Accelerate's state, which is one per process, before each test."""
    AcceleratorState._reset_state(reset_partial_state=True)


SERVER = multiprocessing.get_context("forkserver")


def train_rank(arguments: list[str], rank: int, processes: int, port: int, errors: Path | None) -> None:
    """Run one process of a training, as a launcher would start it; `errors` gets its standard error."""
    if errors:
        sys.stderr = errors.open("a", buffering=1)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    if processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    raise SystemExit(train.main(arguments))


def start(arguments: list[str], processes: int = 1, errors: Path | None = None) -> list[Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    SERVER.set_forkserver_preload(["train"])
    started = [
        SERVER.Process(target=train_rank, args=(arguments, rank, processes, port, errors)) for rank in range(processes)
    ]
    for process in started:
        process.start()
    return started


def wait(started: list[Any]) -> list[int]:
    for process in started:
        process.join()
    return [process.exitcode for process in started]


def command(tmp_path: Path, model: Path, name: str, **changes: Any) -> tuple[list[str], Path]:
    file = tmp_path / f"{name}.yaml"
    file.write_text(yaml.safe_dump({**CONFIG, "model": str(model), "output_dir": str(tmp_path / name), **changes}))
    return ["--config", str(file), "--resume"], tmp_path / name


def outcome(run: Path) -> tuple[list[Any], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the log without times, the saved adapter, and the adapter of the last checkpoint."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    names = ("step", "epoch", "loss", "grad_norm", "learning_rate", "validation_loss", "validation_CIDEr")
    log = [{name: row[name] for name in names if name in row} for row in rows]
    return log, load_file(run / "adapter_model.safetensors"), read_state(latest_checkpoint(run))["adapter"]


def assert_same(first: Path, second: Path) -> None:
    (log, adapter, last), (other_log, other_adapter, other_last) = outcome(first), outcome(second)
    assert len(log) == len(other_log)
    for row, other in zip(log, other_log, strict=True):
        assert row == pytest.approx(other, abs=1e-6)
    for weights, others in ((adapter, other_adapter), (last, other_last)):
        assert weights.keys() == others.keys()
        assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.fixture(scope="module")
def kills(request: pytest.FixtureRequest) -> int:
    return request.config.getoption("--kills")


@pytest.mark.parametrize(("processes", "batch", "accumulate"), [(1, 4, 1), (1, 2, 2), (2, 2, 1), (2, 2, 2)])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(
    tiny_captioner: Path, tmp_path: Path, kills: int, processes: int, batch: int, accumulate: int
) -> None:
    changes = {"batch_size": batch, "gradient_accumulation_steps": accumulate}
    if accumulate == 2:  # validation takes most of such a short run: without captions the kills come in epochs
        changes |= {"validation_captions": 0, "benchmark_options": {"train": 150, "validation": 6, "test": 12}}
    arguments, unbroken = command(tmp_path, tiny_captioner, "unbroken", **changes)
    begin = time.monotonic()
    assert wait(start(arguments, processes)) == [0] * processes
    duration = time.monotonic() - begin
    arguments, broken = command(tmp_path, tiny_captioner, "broken", **changes)
    rng, killed, seen = random.Random(f"{processes}-{accumulate}"), 0, []
    while killed < kills:
        started = start(arguments, processes)
        time.sleep(rng.uniform(0.2, 0.8) * duration)
        for process in started:
            process.kill()
        codes = wait(started)
        last = latest_checkpoint(broken)
        seen.append(last and last.name)
        if codes == [0] * processes:  # it finished before the kill: start again, so that each kill hits a run
            shutil.rmtree(broken)
            continue
        assert set(codes) <= {-signal.SIGKILL, 0}
        killed += 1
    print("killed after", seen)  # shown by pytest -s
    assert wait(start(arguments, processes)) == [0] * processes
    assert_same(unbroken, broken)


@pytest.mark.parametrize(("processes", "number"), [(1, signal.SIGTERM), (2, signal.SIGTERM), (1, signal.SIGINT)])
def test_a_signal_saves_a_checkpoint_and_the_exit_code_names_it(
    tiny_captioner: Path, tmp_path: Path, processes: int, number: int
) -> None:
    arguments, unbroken = command(tmp_path, tiny_captioner, "unbroken", checkpoint_every=1000)
    assert wait(start(arguments, processes)) == [0] * processes
    arguments, broken = command(tmp_path, tiny_captioner, "broken", checkpoint_every=1000)
    started = start(arguments, processes)
    log = broken / "log.jsonl"
    while not log.exists() or len(log.read_text().splitlines()) < 4:
        time.sleep(0.05)
    for process in started:
        os.kill(process.pid, number)
    assert wait(started) == [128 + number] * processes
    assert latest_checkpoint(broken) is not None, "a checkpoint is saved even where none is due"
    assert wait(start(arguments, processes)) == [0] * processes
    assert_same(unbroken, broken)


def test_two_processes_train_as_one(tiny_captioner: Path, tmp_path: Path) -> None:
    """Split the same pairs per step differently, without dropout, whose random numbers depend on the process."""
    for name, processes, changes in (
        ("one", 1, {"batch_size": 8}),
        ("shared", 2, {"batch_size": 4}),
        ("small", 1, {"batch_size": 1, "gradient_accumulation_steps": 8}),
        ("both", 2, {"batch_size": 2, "gradient_accumulation_steps": 2}),
    ):
        # a low rate, because each step multiplies what rounding makes different
        changes |= {"lora_dropout": 0.0, "learning_rate": 0.001}
        arguments, _ = command(tmp_path, tiny_captioner, name, **changes)
        assert wait(start(arguments, processes)) == [0] * processes
    log, adapter, _ = outcome(tmp_path / "one")
    assert [row["step"] for row in log if "loss" in row] == list(range(1, 13))
    for name in ("shared", "small", "both"):
        other_log, other_adapter, _ = outcome(tmp_path / name)
        for row, other in zip(log, other_log, strict=True):
            assert row == pytest.approx(other, rel=1e-4, abs=2e-4), name  # sums of float32 in another order
        assert all(torch.allclose(adapter[key], other_adapter[key], atol=2e-4) for key in adapter), name


def test_a_run_with_kept_vision_features_is_the_same(tiny_captioner: Path, tmp_path: Path) -> None:
    """By one process or two; and another run finds the features that the first has kept."""
    kept = {"lora_parts": ["qformer", "language"], "learning_rate": 0.001, "lora_dropout": 0.0}
    features = {"keep_vision_features": str(tmp_path / "features")}
    for name, processes, changes in (
        ("without", 1, {"batch_size": 8}),
        ("kept", 1, {"batch_size": 8, **features}),
        ("shared", 2, {"batch_size": 4, "keep_vision_features": str(tmp_path / "others")}),
        ("again", 1, {"batch_size": 8, **features}),
    ):
        arguments, _ = command(tmp_path, tiny_captioner, name, **kept, **changes)
        files = sorted((tmp_path / "features").rglob("*.safetensors"))
        if name == "again":
            written = [file.stat().st_mtime_ns for file in files]
        assert wait(start(arguments, processes)) == [0] * processes
    assert len(files) == 2 and written == [file.stat().st_mtime_ns for file in files]  # training and validation
    assert len(list((tmp_path / "others").rglob("*.safetensors"))) == 2
    log, adapter, _ = outcome(tmp_path / "without")
    for name in ("kept", "shared", "again"):
        other_log, other_adapter, _ = outcome(tmp_path / name)
        for row, other in zip(log, other_log, strict=True):
            assert row == pytest.approx(other, rel=1e-4, abs=2e-4), name
        assert all(torch.allclose(adapter[key], other_adapter[key], atol=2e-4) for key in adapter), name


@pytest.mark.parametrize("family", ["qwen3_vl", "idefics3"])
def test_two_processes_train_a_chat_model_as_one(family: str, tmp_path: Path) -> None:
    model = save_chat(tmp_path / "model", family)
    for name, processes, batch in (("one", 1, 8), ("shared", 2, 4)):
        arguments, _ = command(
            tmp_path, model, name, lora_dropout=0.0, batch_size=batch, validation_captions=0, epochs=1
        )
        assert wait(start(arguments, processes)) == [0] * processes
    (log, adapter, _), (other_log, other_adapter, _) = outcome(tmp_path / "one"), outcome(tmp_path / "shared")
    losses, others = ([row["loss"] for row in rows if "loss" in row] for rows in (log, other_log))
    assert len(losses) == 6 and losses == pytest.approx(others, abs=1e-3)
    assert all(torch.allclose(adapter[key], other_adapter[key], atol=1e-3) for key in adapter)


def test_a_half_written_checkpoint_is_ignored_and_reported(
    tiny_captioner: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments, run = command(tmp_path, tiny_captioner, "run")
    assert train.main(arguments) == 0
    half = run / "checkpoints" / ".step-00000999.0123.tmp"
    half.mkdir()
    (half / "adapter.safetensors").write_bytes(b"half")
    capsys.readouterr()
    assert train.main(arguments) == 0
    output = capsys.readouterr().out
    assert "ignored the incomplete checkpoint step-00000999" in output and "is finished: nothing to do" in output
    assert not half.exists()


def test_a_checkpoint_contains_the_adapter_without_the_base_model(tiny_captioner: Path, tmp_path: Path) -> None:
    arguments, run = command(tmp_path, tiny_captioner, "run", epochs=1)
    assert train.main(arguments) == 0
    folder = latest_checkpoint(run)
    assert sorted(file.name for file in folder.iterdir()) == [
        "adapter.safetensors",
        "optimizer.safetensors",
        "progress.json",
    ]
    assert all("lora_" in name for name in load_file(folder / "adapter.safetensors"))
    kept = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert kept == ["step-00000010", "step-00000012"] and folder.name == kept[-1], "older ones are removed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"learning_rate": 0.1},
            "was started with learning_rate=0.004, now it is 0.1: resume it with the same config",
        ),
        ({"seed": 1}, "was started with seed=42, now it is 1"),
    ],
)
def test_another_config_is_refused(
    tiny_captioner: Path, tmp_path: Path, capsys: pytest.CaptureFixture, changes: dict[str, Any], message: str
) -> None:
    arguments, _ = command(tmp_path, tiny_captioner, "run", epochs=1)
    assert train.main(arguments) == 0
    arguments, _ = command(tmp_path, tiny_captioner, "run", **{"epochs": 1, **changes})
    assert train.main(arguments) == 2
    assert message in capsys.readouterr().err


def stop_in_the_middle(arguments: list[str], monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Train some steps and stop as after Ctrl-C."""
    with monkeypatch.context() as patch:
        train_step = train.train_step

        def counted(run: train.Run, share: Any) -> Any:
            if run.progress.step == steps:
                os.kill(os.getpid(), signal.SIGINT)
            return train_step(run, share)

        patch.setattr(train, "train_step", counted)
        assert train.main(arguments) == 130


SHORT = {"validation_captions": 0, "epochs": 1}


@pytest.fixture(scope="module")
def short_runs(tiny_captioner: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return an uninterrupted run of one epoch, and one that was stopped after step 7."""
    folder = tmp_path_factory.mktemp("short")
    arguments, unbroken = command(folder, tiny_captioner, "unbroken", **SHORT)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert train.main(arguments) == 0
    arguments, stopped = command(folder, tiny_captioner, "stopped", **SHORT)
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.MonkeyPatch.context() as patch:
        stop_in_the_middle(arguments, patch, steps=7)
    assert [path.name for path in checkpoints(stopped)] == ["step-00000006", "step-00000007"]
    return unbroken, stopped


DAMAGES = {
    "weights": ("adapter.safetensors", lambda file: file.write_bytes(b"\x00" * 20)),
    "cut weights": ("adapter.safetensors", lambda file: file.write_bytes(file.read_bytes()[:-9])),
    "no optimizer": ("optimizer.safetensors", lambda file: file.unlink()),
    "progress": ("progress.json", lambda file: file.write_text("{")),
    "unknown key": (
        "progress.json",
        lambda file: file.write_text(json.dumps({"x": 1} | json.loads(file.read_text()))),
    ),
    "list": ("progress.json", lambda file: file.write_text("[]")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(
    tiny_captioner: Path, short_runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture, damage: str
) -> None:
    unbroken, stopped = short_runs
    arguments, run = command(tmp_path, tiny_captioner, "run", **SHORT)
    shutil.copytree(stopped, run)
    name, spoil = DAMAGES[damage]
    spoil(latest_checkpoint(run) / name)
    capsys.readouterr()
    assert train.main(arguments) == 0
    output = capsys.readouterr().out
    assert "step-00000007 is damaged" in output and "continuing after step 6" in output
    assert_same(unbroken, run)


def test_without_a_good_checkpoint_one_line_says_what_to_do(
    tiny_captioner: Path, short_runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments, run = command(tmp_path, tiny_captioner, "run", **SHORT)
    shutil.copytree(short_runs[1], run)
    for path in checkpoints(run):
        (path / "adapter.safetensors").write_bytes(b"")
    assert train.main(arguments) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "step-00000007' is damaged" in line and "remove the run folder and start the run again" in line


@pytest.mark.parametrize("lost", ["one line", "half a line", "file"])
def test_a_log_that_lost_lines_is_continued(
    tiny_captioner: Path, short_runs: tuple[Path, Path], tmp_path: Path, lost: str
) -> None:
    arguments, run = command(tmp_path, tiny_captioner, "run", **SHORT)
    shutil.copytree(short_runs[1], run)
    log = run / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    rest = {"one line": lines[:-1], "half a line": [*lines[:-1], lines[-1][:9]], "file": []}[lost]
    log.write_text("".join(rest))
    if lost == "file":
        log.unlink()
    assert train.main(arguments) == 0
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    whole = len([line for line in rest if line.endswith("\n")])
    assert [row["step"] for row in rows[whole:] if "loss" in row] == list(range(8, 13))


@pytest.mark.parametrize("content", ["", "- a", "seed: [", "seed: 1\nseed: 2"])
def test_a_damaged_config_is_one_line(
    tiny_captioner: Path, tmp_path: Path, capsys: pytest.CaptureFixture, content: str
) -> None:
    arguments, run = command(tmp_path, tiny_captioner, "run", epochs=1)
    run.mkdir()
    (run / "train_config.yaml").write_text(content)
    assert train.main(arguments) == 2
    assert re.search("error: '.*train_config.yaml' is damaged", capsys.readouterr().err.splitlines()[-1])


def write_pairs(folder: Path, color: int, caption: str = "nothing has changed") -> None:
    """Write a data set of one's own: six pairs of drawn images to train, two to validate."""
    for split, count in (("train", 6), ("validation", 2)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        lines = []
        for number in range(count):
            for side in ("before", "after"):
                Image.new("RGB", (16, 16), (9 * number, color, 5)).save(folder / split / f"{number}{side}.png")
            names = {f"{side}_file_name": f"{number}{side}.png" for side in ("before", "after")}
            lines.append(json.dumps({**names, "captions": [caption]}))
        (folder / split / "metadata.jsonl").write_text("\n".join(lines))


@pytest.mark.parametrize("changed", ["images", "captions"])
def test_a_run_is_not_resumed_on_other_data(
    tiny_captioner: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    write_pairs(tmp_path / "pairs", color=10)
    data = {"benchmark": "folder", "benchmark_options": {"data_dir": str(tmp_path / "pairs")}, "batch_size": 2}
    arguments, run = command(tmp_path, tiny_captioner, "run", validation_captions=0, **data)
    stop_in_the_middle(arguments, monkeypatch, steps=2)
    write_pairs(tmp_path / "pairs", **({"color": 11} if changed == "images" else {"color": 10, "caption": "a dog"}))
    assert train.main(arguments) == 2
    assert "was started with other content of folder, split train: restore it" in capsys.readouterr().err
    write_pairs(tmp_path / "pairs", color=10)
    assert train.main(arguments) == 0
    start = json.loads((run / "log.jsonl").read_text().splitlines()[0])
    assert set(start["inputs"]) == {"folder, split train", "folder, split validation", "tokenizer and processor"}
    assert start["data"]["options"] == data["benchmark_options"], "two sets are told apart by their folder"


def test_a_second_training_in_a_folder_is_refused(
    tiny_captioner: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments, run = command(tmp_path, tiny_captioner, "run", epochs=1)
    with folder_lock(run):
        assert train.main(arguments) == 2
        assert "another process is writing into" in capsys.readouterr().err and not (run / "log.jsonl").exists()
    assert train.main(arguments) == 0 and not (run / ".lock").exists()


def test_processes_of_one_launch_share_one_run(tiny_captioner: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """A launcher other than Accelerate's sets no ACCELERATE_USE_CPU."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "")
    arguments, run = command(tmp_path, tiny_captioner, "run", epochs=1, validation_captions=0)
    assert wait(start(arguments, processes=2)) == [0, 0]
    environment = json.loads((run / "log.jsonl").read_text().splitlines()[0])["environment"]
    assert environment["processes"] == 2


def test_a_killed_process_is_named_by_the_other_one(tiny_captioner: Path, tmp_path: Path) -> None:
    arguments, run = command(tmp_path, tiny_captioner, "run", epochs=50, validation_captions=0)
    first, second = start(arguments, processes=2, errors=tmp_path / "errors")
    log = run / "log.jsonl"
    while not log.exists() or len(log.read_text().splitlines()) < 3:
        time.sleep(0.05)
    second.kill()
    assert wait([first, second]) == [2, -signal.SIGKILL]
    error = (tmp_path / "errors").read_text()
    assert "error: another process of this run ended" in error and "--resume" in error and "Traceback" not in error


@pytest.mark.parametrize("kind", ["broken image", "killed"])
def test_errors_of_loader_processes_are_one_line(
    tiny_captioner: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    arguments, _ = command(tmp_path, tiny_captioner, "run", num_workers=1, validation_captions=0)
    parent, collate = os.getpid(), train.Collate.__call__

    def spoiled(self: train.Collate, examples: list[dict[str, Any]]) -> Any:
        if os.getpid() != parent:  # the main process itself loads a few pairs before the first step
            if kind == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            examples[0]["before"] = {"path": "some.png", "bytes": b"no image"}
        return collate(self, examples)

    monkeypatch.setattr(train.Collate, "__call__", spoiled)
    assert train.main(arguments) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    if kind == "killed":
        assert line.startswith("error: a process that loads images ended") and "--resume" in line
    else:
        assert re.match("error: before image of pair '.*': 'some.png' is not an image that Pillow can read", line)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    """Limit the size of files, so that a write fails in its middle, as on a full disk."""
    state = {"adapter": {"a": torch.ones(300)}, "optimizer": {"state": {}, "param_groups": []}}
    write_checkpoint(tmp_path, state, {"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="step-00000002' could not be written, .* resumed from step-00000001"):
            write_checkpoint(tmp_path, state, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    assert torch.equal(read_state(latest_checkpoint(tmp_path))["adapter"]["a"], state["adapter"]["a"])
