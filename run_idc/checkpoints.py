"""Checkpoints of a training run: trained weights, their optimizer and the progress, never the base model.

    RUN/checkpoints/step-00000120/{adapter.safetensors, optimizer.safetensors, progress.json}

A checkpoint is written under a temporary name and renamed when it is complete; then all but the last KEPT are removed.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from common_idc.atomic_files import atomic_folder, remove_leftovers, write_text

from .paths import CHECKPOINTS, OPTIMIZER, PROGRESS, TRAINED_WEIGHTS

KEPT = 2  # the newest may be damaged by a fault of the disk

# Trained parameters only, whole on every process, by their names: the same file for one process, DDP and FSDP2.
STATE = {"full_state_dict": True, "ignore_frozen_params": True}


class DamagedCheckpoint(ValueError):
    """A checkpoint with a missing or unreadable file; the message names it."""


def gather_state(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return weights and optimizer state; all processes must call it together."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

    values, state = get_state_dict(model, optimizer, options=StateDictOptions(**STATE))
    weights = {name: values[name] for group in state["param_groups"] for name in group["params"]}  # without buffers
    return {"adapter": weights, "optimizer": state}


def restore_state(model: Any, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load what `gather_state` returned into model and optimizer.

    Raises: ValueError if the checkpoint's weights are not those that the model trains.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

    expected = {name: weight.shape for name, weight in gather_state(model, optimizer)["adapter"].items()}
    found = {name: weight.shape for name, weight in state["adapter"].items()}
    if expected != found:
        differences = sorted(dict(expected.items() ^ found.items()))
        raise ValueError(
            f"the checkpoint does not match this run's trainable weights (first difference: {differences[0]!r})"
        )
    options = StateDictOptions(**STATE, strict=False)  # the base model's weights are not in it
    set_state_dict(
        model, optimizer, model_state_dict=state["adapter"], optim_state_dict=state["optimizer"], options=options
    )


def write_checkpoint(run: Path, state: dict[str, Any], progress: dict[str, Any]) -> Path:
    """Write a checkpoint named after progress["step"] and remove all but the last KEPT; return its folder.

    Raises: OSError if it cannot be written completely; the previous one is then kept.
    """
    folder = run / CHECKPOINTS / f"step-{progress['step']:08}"
    moments = {
        f"{name}/{moment}": tensor
        for name, tensors in state["optimizer"]["state"].items()
        for moment, tensor in tensors.items()
    }
    groups = {"param_groups": json.dumps(state["optimizer"]["param_groups"])}
    try:
        with atomic_folder(folder) as unfinished:
            save_file(state["adapter"], unfinished / TRAINED_WEIGHTS)
            save_file(moments, unfinished / OPTIMIZER, metadata=groups)
            (unfinished / PROGRESS).write_text(json.dumps(progress), encoding="utf-8")
            for file in unfinished.iterdir():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())  # a rename may reach the disk before the content
    except (SafetensorError, OSError) as error:
        raise OSError(f"checkpoint {str(folder)!r} could not be written, {_describe_kept(run)}: {error}") from error
    for other in checkpoints(run)[:-KEPT]:
        shutil.rmtree(other)
    return folder


def renew_progress(folder: Path, progress: dict[str, Any]) -> None:
    """Replace the progress of a checkpoint after something other than a training step, e.g. a validation."""
    write_text(folder / PROGRESS, json.dumps(progress))


def checkpoints(run: Path) -> list[Path]:
    """Return the folders of a run's checkpoints, the oldest first."""
    return sorted(folder for folder in (run / CHECKPOINTS).glob("step-*") if folder.name[5:].isdigit())


def _describe_kept(run: Path) -> str:
    last = latest_checkpoint(run)
    return "nothing is saved yet" if last is None else f"the run can be resumed from {last.name}"


def latest_checkpoint(run: Path) -> Path | None:
    """Return the folder of the newest checkpoint, or None."""
    return max(checkpoints(run), default=None)  # by name, whose numbers have leading zeros


def remove_unfinished(run: Path) -> list[str]:
    """Remove checkpoints that a killed process left incomplete; return their names."""
    return [path.name.split(".")[1] for path in remove_leftovers(run / CHECKPOINTS)]


def read_progress(folder: Path) -> dict[str, Any]:
    """Return the progress of a checkpoint.

    Raises: DamagedCheckpoint if the file is missing or damaged.
    """
    with _damage_named(folder):
        progress = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        if not isinstance(progress, dict):
            raise ValueError(f"{PROGRESS} contains no mapping")
        return progress


def read_state(folder: Path) -> dict[str, Any]:
    """Return the state for `restore_state`.

    Raises: DamagedCheckpoint if a file of the checkpoint is missing or damaged.
    """
    with _damage_named(folder), safe_open(folder / OPTIMIZER, framework="pt") as file:
        optimizer = {"state": {}, "param_groups": json.loads(file.metadata()["param_groups"])}
        for key in file.keys():
            name, moment = key.rsplit("/", 1)
            optimizer["state"].setdefault(name, {})[moment] = file.get_tensor(key)
        return {"adapter": load_file(folder / TRAINED_WEIGHTS), "optimizer": optimizer}


@contextlib.contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DamagedCheckpoint(
            f"checkpoint {str(folder)!r} is damaged ({error}): remove the run folder and start the run again"
        ) from error
