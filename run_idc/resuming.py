"""Resuming a training run: what must not have changed, and its newest checkpoint."""

import dataclasses
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common_idc.settings import parse_yaml

from .checkpoints import (
    DamagedCheckpoint,
    checkpoints,
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
    started = read_config(file)
    for name in sorted(set(settings) - set(may_change)):
        if started.get(name) != settings[name]:
            raise _changed(folder, name, started.get(name), settings[name])


def read_config(file: Path) -> dict[str, Any]:
    """Return the content of train_config.yaml. Raises: ValueError if it is damaged."""
    try:
        config = parse_yaml(file.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it contains no `key: value` lines")
    except (OSError, ValueError) as error:
        raise ValueError(f"{str(file)!r} is damaged ({error}): restore it, or start the run again") from error
    return config


def check_processor_unchanged(folder: Path, settings: dict[str, Any]) -> None:
    """Raise ValueError if the run was started with other processor settings."""
    file = folder / TRAIN_CONFIG
    if not file.exists():
        return
    started = read_config(file).get("processor") or {}
    for name, value in settings.items():
        if started.get(name) != value:
            raise _changed(folder, f"processor {name}", started.get(name), value)


def check_inputs_unchanged(folder: Path, started: dict[str, str], now: dict[str, str]) -> None:
    """Raise ValueError if the run was started with other data or another tokenizer.

    Args:
        started, now: name of an input, e.g. "toy, split train" -> hash of its content.
    """
    for name, content in now.items():
        if name in started and started[name] != content:
            raise ValueError(
                f"the run in {str(folder)!r} was started with other content of {name}: restore it, or name another "
                "output_dir"
            )


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
    accelerator: Any, folder: Path, model: Any, optimizer: Any, pairs_per_step: int, inputs: dict[str, str]
) -> Progress | None:
    """Load weights and optimizer of the newest good checkpoint and return its progress; None without a checkpoint.

    Args:
        inputs: see `check_inputs_unchanged`.

    Raises: ValueError for other inputs or another number of pairs per step, or if all checkpoints are damaged.
    """
    if accelerator.is_main_process:
        for name in remove_unfinished(folder):
            print(f"ignored the incomplete checkpoint {name}")
    found = _read_newest(accelerator, folder)
    if found is None:
        accelerator.print("no checkpoint yet: starting from the beginning")
        return None
    progress, state = found
    if progress.pairs_per_step != pairs_per_step:
        raise ValueError(
            f"the run was started with {progress.pairs_per_step} pairs per step, now there are {pairs_per_step}: keep "
            "batch_size x gradient_accumulation_steps x processes the same"
        )
    check_inputs_unchanged(folder, progress.inputs, inputs)
    if not progress.done:
        restore_state(model, optimizer, state)
    return progress


def _read_newest(accelerator: Any, folder: Path) -> tuple[Progress, dict[str, Any] | None] | None:
    """Return progress and state of the newest checkpoint that is not damaged, and remove the damaged ones after it."""
    damaged: list[Path] = []
    found, problem = None, None
    for path in reversed(checkpoints(folder)):
        try:
            progress = _parse_progress(path, read_progress(path))
            found = progress, None if progress.done else read_state(path)
            break
        except DamagedCheckpoint as error:
            problem = problem or error
            damaged.append(path)
    if problem is not None and found is None:
        raise problem
    accelerator.wait_for_everyone()  # all have read before the main process removes anything
    if accelerator.is_main_process:
        for path in damaged:
            print(f"the checkpoint {path.name} is damaged and removed: continuing from an earlier one")
            shutil.rmtree(path)
    return found


def _parse_progress(path: Path, content: dict[str, Any]) -> Progress:
    try:
        return Progress(**content)
    except TypeError as error:  # a key that is missing, or one of another version
        raise DamagedCheckpoint(f"checkpoint {str(path)!r} cannot be used ({error}): start the run again") from error
