"""How far a training run is, its log, and the environment that it ran in."""

import json
import os
import platform
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from common_idc.provenance import code_commit, library_versions

from .paths import LOG


@dataclass
class Progress:
    """State of a run that is saved in its checkpoints, besides weights and optimizer."""

    pairs_per_step: int
    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best_score: float | None = None
    epochs_without_improvement: int = 0
    done: bool = False
    log_bytes: int = 0
    # hashes of what the run learns from, see `check_inputs_unchanged`
    inputs: dict[str, str] = field(default_factory=dict)
    # of the steps since the last line of the log
    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)

    def is_best(self, score: float) -> bool:
        """Record an epoch's score and return whether it is the best so far; higher is better."""
        best = self.best_score is None or score > self.best_score
        if best:
            self.best_score, self.epochs_without_improvement = score, 0
        else:
            self.epochs_without_improvement += 1
        return best

    def take_means(self) -> dict[str, float]:
        """Return mean loss and gradient norm of the steps since the last call."""
        means = {"loss": sum(self.losses) / len(self.losses), "grad_norm": sum(self.grad_norms) / len(self.grad_norms)}
        self.losses.clear()
        self.grad_norms.clear()
        return means


class WaitingTime:
    """The share of time that is spent inside `with` blocks, e.g. waiting for data."""

    def __init__(self) -> None:
        self._since, self._waited = time.monotonic(), 0.0

    def __enter__(self) -> None:
        self._entered = time.monotonic()

    def __exit__(self, *_: Any) -> None:
        self._waited += time.monotonic() - self._entered

    def take_share(self) -> float:
        """Return the share of the time since the last call, or since this object was made."""
        now = time.monotonic()
        share = self._waited / max(now - self._since, 1e-9)
        self._since, self._waited = now, 0.0
        return round(share, 4)


class Log:
    """log.jsonl and the trackers of Accelerate; only the main process writes.

    Args:
        accelerator: Accelerate's, with its trackers.
        progress: lines after `progress.log_bytes`, which a resumed run repeats, are cut off. A log that lost lines is
            continued.
    """

    def __init__(self, accelerator: Any, run: Path, progress: Progress):
        self.accelerator, self.path, self.progress = accelerator, run / LOG, progress
        self.started = time.monotonic() - progress.seconds
        if accelerator.is_main_process:
            progress.log_bytes = _cut_log(self.path, progress.log_bytes)

    def sync(self) -> None:
        """Wait until the lines are on the disk, so that a checkpoint never knows more lines than the log has."""
        if self.accelerator.is_main_process:
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def write(self, values: dict[str, Any]) -> None:
        """Append a line with step, seconds and values; numbers go to the trackers as well."""
        self.progress.seconds = round(time.monotonic() - self.started, 1)
        if not self.accelerator.is_main_process:
            return
        step = self.progress.step
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "seconds": self.progress.seconds, **values}) + "\n")
        self.progress.log_bytes = self.path.stat().st_size
        self.accelerator.log({k: v for k, v in values.items() if isinstance(v, (int, float))}, step=step)


def _cut_log(path: Path, size: int) -> int:
    """Cut a log to whole lines of at most `size` bytes, and return its size."""
    with path.open("a+b") as file:
        file.seek(0)
        kept = file.read(size)
        kept = kept[: kept.rfind(b"\n") + 1]
        file.truncate(len(kept))
    return len(kept)


def environment(accelerator: Any) -> dict[str, Any]:
    """Return versions, device, processes and commit of a run."""
    return {
        "python": platform.python_version(),
        **library_versions("torch", "transformers", "peft", "accelerate", "datasets"),
        "device": torch.cuda.get_device_name() if accelerator.device.type == "cuda" else accelerator.device.type,
        "processes": accelerator.num_processes,
        "distributed": accelerator.distributed_type.value,
        "commit": code_commit(),
    }


def peak_memory() -> float:
    """Return the peak memory of this process in GB: of the GPU if there is one."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)
