"""Resuming a training run: what must not have changed, and its newest checkpoint."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from .checkpoints import (
    gather_state,
    latest_checkpoint,
    read_progress,
    read_state,
    remove_unfinished,
    renew_progress,
    restore_state,
    write_checkpoint,
)
from .paths import TRAIN_CONFIG
from .progress import Progress


def check_settings_unchanged(folder: Path, settings: dict[str, Any], may_change: Iterable[str], resume: bool) -> None:
    """Refuse to overwrite a run or to resume it with different settings.

    Args:
        may_change: names of settings that the resulting adapter does not depend on.

    Raises: ValueError that names the first difference.
    """
    file = folder / TRAIN_CONFIG
    if not file.exists():
        return
    if not resume:
        raise ValueError(
            f"{str(folder)!r} already contains a run: pass --resume to continue it, "
            "name another output_dir, or remove it"
        )
    started = yaml.safe_load(file.read_text(encoding="utf-8"))
    for name in sorted(set(settings) - set(may_change)):
        if started.get(name) != settings[name]:
            raise _changed(folder, name, started.get(name), settings[name])


def check_processor_unchanged(folder: Path, settings: dict[str, Any]) -> None:
    """Raise ValueError if the run was started with other processor settings."""
    file = folder / TRAIN_CONFIG
    if not file.exists():
        return
    started = yaml.safe_load(file.read_text(encoding="utf-8"))["processor"]
    for name, value in settings.items():
        if started.get(name) != value:
            raise _changed(folder, f"processor {name}", started.get(name), value)


def _changed(folder: Path, name: str, started: Any, now: Any) -> ValueError:
    return ValueError(
        f"the run in {str(folder)!r} was started with {name}={started!r}, now it is {now!r}: resume it with the same "
        "config, or name another output_dir"
    )


def save_checkpoint(accelerator: Any, folder: Path, model: Any, optimizer: Any, progress: Progress) -> None:
    """Write a checkpoint, or only its progress if no step was taken since; all processes must call it together.

    Args:
        accelerator: Accelerate's.
        optimizer: torch's.
    """
    newest = latest_checkpoint(folder)
    accelerator.wait_for_everyone()  # all have looked before the main process changes the folder
    if newest is not None and int(newest.name.removeprefix("step-")) == progress.step:
        if accelerator.is_main_process:
            renew_progress(newest, dataclasses.asdict(progress))
        return
    state = gather_state(model, optimizer)
    if accelerator.is_main_process:
        write_checkpoint(folder, state, dataclasses.asdict(progress))


def restore_checkpoint(
    accelerator: Any, folder: Path, model: Any, optimizer: Any, pairs_per_step: int
) -> Progress | None:
    """Load weights and optimizer of the newest checkpoint and return its progress; None if there is no checkpoint.

    Raises: ValueError for another number of pairs per step, or a damaged checkpoint.
    """
    if accelerator.is_main_process:
        for name in remove_unfinished(folder):
            print(f"ignored the incomplete checkpoint {name}")
    newest = latest_checkpoint(folder)
    if newest is None:
        accelerator.print("no checkpoint yet: starting from the beginning")
        return None
    progress = Progress(**read_progress(newest))
    if progress.pairs_per_step != pairs_per_step:
        raise ValueError(
            f"the run was started with {progress.pairs_per_step} pairs per step, now there are {pairs_per_step}: keep "
            "batch_size x gradient_accumulation_steps x processes the same"
        )
    if not progress.done:
        restore_state(model, optimizer, read_state(newest))
    return progress
