"""A run that is killed and started again ends as one that was not: losses, order of pairs, adapter.

The kills come at random moments of a training process that a fork server starts, so that none is spent on imports.
More of them: `pytest tests/test_resuming.py --kills 20`.
"""

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import train
from run_idc.checkpoints import latest_checkpoint, read_state, write_checkpoint

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
SERVER = multiprocessing.get_context("forkserver")


def train_one(arguments: list[str], rank: int, processes: int, port: int) -> None:
    """Run one process of a training, as a launcher would start it."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    if processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    raise SystemExit(train.main(arguments))


def start(arguments: list[str], processes: int = 1) -> list[Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    SERVER.set_forkserver_preload(["train"])
    started = [SERVER.Process(target=train_one, args=(arguments, rank, processes, port)) for rank in range(processes)]
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
    """Log without times, adapter, final state of the optimizer."""
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
def test_killed_and_resumed_is_equal_to_unbroken(
    tiny_captioner: Path, tmp_path: Path, kills: int, processes: int, batch: int, accumulate: int
) -> None:
    changes = {"batch_size": batch, "gradient_accumulation_steps": accumulate}
    if accumulate == 2:  # validation takes most of such a short run: without captions the kills come in epochs
        changes |= {"validation_captions": 0, "benchmark_options": {"train": 150, "validation": 6, "test": 12}}
    arguments, unbroken = command(tmp_path, tiny_captioner, "unbroken", **changes)
    begun = time.monotonic()
    assert wait(start(arguments, processes)) == [0] * processes
    takes = time.monotonic() - begun
    arguments, broken = command(tmp_path, tiny_captioner, "broken", **changes)
    random_moment, killed, seen = random.Random(f"{processes}-{accumulate}"), 0, []
    while killed < kills:
        started = start(arguments, processes)
        time.sleep(random_moment.uniform(0.2, 0.8) * takes)
        for process in started:
            process.kill()
        codes = wait(started)
        last = latest_checkpoint(broken)
        seen.append(last and last.name)
        if codes == [0] * processes:  # it was faster: begin again, so that all kills hit a run
            shutil.rmtree(broken)
            continue
        assert set(codes) <= {-signal.SIGKILL, 0}
        killed += 1
    print("killed after", seen)  # shown by pytest -s
    assert wait(start(arguments, processes)) == [0] * processes
    assert_same(unbroken, broken)


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_saves_and_ends_well(tiny_captioner: Path, tmp_path: Path, processes: int) -> None:
    arguments, unbroken = command(tmp_path, tiny_captioner, "unbroken", checkpoint_every=1000)
    assert wait(start(arguments, processes)) == [0] * processes
    arguments, broken = command(tmp_path, tiny_captioner, "broken", checkpoint_every=1000)
    started = start(arguments, processes)
    log = broken / "log.jsonl"
    while not log.exists() or len(log.read_text().splitlines()) < 4:
        time.sleep(0.05)
    for process in started:
        os.kill(process.pid, signal.SIGTERM)
    assert wait(started) == [0] * processes
    assert latest_checkpoint(broken) is not None, "it saved although no checkpoint was due"
    assert wait(start(arguments, processes)) == [0] * processes
    assert_same(unbroken, broken)


def test_two_processes_follow_one(tiny_captioner: Path, tmp_path: Path) -> None:
    """The same pairs per step, in other shares; no dropout, whose random numbers belong to a process."""
    for name, processes, changes in (
        ("one", 1, {"batch_size": 8}),
        ("shared", 2, {"batch_size": 4}),
        ("small", 1, {"batch_size": 1, "gradient_accumulation_steps": 8}),
        ("both", 2, {"batch_size": 2, "gradient_accumulation_steps": 2}),
    ):
        arguments, _ = command(tmp_path, tiny_captioner, name, lora_dropout=0.0, **changes)
        assert wait(start(arguments, processes)) == [0] * processes
    log, adapter, _ = outcome(tmp_path / "one")
    assert [row["step"] for row in log if "loss" in row] == list(range(1, 13))
    for name in ("shared", "small", "both"):
        other_log, other_adapter, _ = outcome(tmp_path / name)
        for row, other in zip(log, other_log, strict=True):
            assert row == pytest.approx(other, abs=2e-4), name
        assert all(torch.allclose(adapter[key], other_adapter[key], atol=2e-4) for key in adapter), name


def test_a_half_written_checkpoint_is_ignored_and_said(
    tiny_captioner: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments, run = command(tmp_path, tiny_captioner, "run")
    assert train.main(arguments) == 0
    half = run / "checkpoints" / ".step-00000999.0123.tmp"
    half.mkdir()
    (half / "adapter.safetensors").write_bytes(b"half")
    capsys.readouterr()
    assert train.main(arguments) == 0
    told = capsys.readouterr().out
    assert "ignored the incomplete checkpoint step-00000999" in told and "is finished: nothing to do" in told
    assert not half.exists()


def test_a_checkpoint_holds_the_adapter_and_no_base(tiny_captioner: Path, tmp_path: Path) -> None:
    arguments, run = command(tmp_path, tiny_captioner, "run", epochs=1)
    assert train.main(arguments) == 0
    folder = latest_checkpoint(run)
    assert sorted(file.name for file in folder.iterdir()) == [
        "adapter.safetensors",
        "optimizer.safetensors",
        "progress.json",
    ]
    assert all("lora_" in name for name in load_file(folder / "adapter.safetensors"))
    assert [path.name for path in (run / "checkpoints").iterdir()] == [folder.name], "older ones are removed"


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


def test_a_damaged_checkpoint_is_named(tiny_captioner: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments, run = command(tmp_path, tiny_captioner, "run", epochs=1)
    assert train.main(arguments) == 0
    progress = latest_checkpoint(run) / "progress.json"
    progress.write_text(progress.read_text().replace('"done": true', '"done": false'))
    (latest_checkpoint(run) / "adapter.safetensors").write_bytes(b"\x00" * 20)
    assert train.main(arguments) == 2
    assert "is damaged" in capsys.readouterr().err


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    """Within a limit on the size of files, which a write meets like a full disk: with an error in its middle."""
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
