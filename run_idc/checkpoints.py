"""Checkpoints of a training run: what is trained, its optimizer and the progress, never the base model.

    RUN/checkpoints/step-00000120/{adapter.safetensors, optimizer.safetensors, progress.json}

Written beside and renamed, so that a folder of this name is whole; the one before is removed afterwards.
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

# Trained parameters only, whole on every process, by their names: the same file for one process, DDP and FSDP2.
STATE = {"full_state_dict": True, "ignore_frozen_params": True}
UNFINISHED = ".unfinished-"


def gather_state(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Weights and optimizer state; all processes must call it together."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

    values, state = get_state_dict(model, optimizer, options=StateDictOptions(**STATE))
    weights = {name: values[name] for group in state["param_groups"] for name in group["params"]}  # without buffers
    return {"adapter": weights, "optimizer": state}


def restore_state(model: Any, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """The reverse of `gather_state`.

    Raises: ValueError if the checkpoint's weights are not those that the model trains.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

    expected = {name: weight.shape for name, weight in gather_state(model, optimizer)["adapter"].items()}
    found = {name: weight.shape for name, weight in state["adapter"].items()}
    if expected != found:
        odd = sorted(dict(expected.items() ^ found.items()))
        raise ValueError(f"the checkpoint holds other weights than this run trains, {odd[0]!r} for one")
    options = StateDictOptions(**STATE, strict=False)  # the base model's weights are not in it
    set_state_dict(
        model, optimizer, model_state_dict=state["adapter"], optim_state_dict=state["optimizer"], options=options
    )


def write_checkpoint(run: Path, state: dict[str, Any], progress: dict[str, Any]) -> Path:
    """A checkpoint named after progress["step"]; older ones are removed when it is there.

    Raises: OSError if it cannot be written whole; the one before is then left.
    """
    folder = run / "checkpoints" / f"step-{progress['step']:08}"
    unfinished = folder.with_name(UNFINISHED + folder.name)
    shutil.rmtree(unfinished, ignore_errors=True)
    moments = {
        f"{name}/{moment}": tensor
        for name, tensors in state["optimizer"]["state"].items()
        for moment, tensor in tensors.items()
    }
    groups = {"param_groups": json.dumps(state["optimizer"]["param_groups"])}
    try:
        unfinished.mkdir(parents=True)
        save_file(state["adapter"], unfinished / "adapter.safetensors")
        save_file(moments, unfinished / "optimizer.safetensors", metadata=groups)
        (unfinished / "progress.json").write_text(json.dumps(progress), encoding="utf-8")
        for file in unfinished.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())  # a rename may reach the disk before the content
        os.replace(unfinished, folder)
    except (SafetensorError, OSError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise OSError(f"checkpoint {str(folder)!r} could not be written, {_kept(run)}: {error}") from error
    for other in _checkpoints(run)[:-1]:
        shutil.rmtree(other)
    return folder


def renew_progress(folder: Path, progress: dict[str, Any]) -> None:
    """What has become known since the checkpoint was written without another training step."""
    unfinished = folder / "progress.json.tmp"
    unfinished.write_text(json.dumps(progress), encoding="utf-8")
    os.replace(unfinished, folder / "progress.json")


def _checkpoints(run: Path) -> list[Path]:
    return sorted(folder for folder in (run / "checkpoints").glob("step-*") if folder.name[5:].isdigit())


def _kept(run: Path) -> str:
    last = latest_checkpoint(run)
    return "nothing is saved yet" if last is None else f"the run can be resumed from {last.name}"


def latest_checkpoint(run: Path) -> Path | None:
    return max(_checkpoints(run), default=None)  # by name, whose numbers have leading zeros


def remove_unfinished(run: Path) -> list[str]:
    """Clears away what a killed process left half-written; returns the names of these checkpoints."""
    leftovers = sorted((run / "checkpoints").glob(UNFINISHED + "*"))
    for folder in leftovers:
        shutil.rmtree(folder)
    return [folder.name.removeprefix(UNFINISHED) for folder in leftovers]


def read_progress(folder: Path) -> dict[str, Any]:
    with _named_damage(folder):
        return json.loads((folder / "progress.json").read_text(encoding="utf-8"))


def read_state(folder: Path) -> dict[str, Any]:
    """For `restore_state`.

    Raises: ValueError if a file of the checkpoint is missing or damaged.
    """
    with _named_damage(folder), safe_open(folder / "optimizer.safetensors", framework="pt") as file:
        optimizer = {"state": {}, "param_groups": json.loads(file.metadata()["param_groups"])}
        for key in file.keys():
            name, moment = key.rsplit("/", 1)
            optimizer["state"].setdefault(name, {})[moment] = file.get_tensor(key)
        return {"adapter": load_file(folder / "adapter.safetensors"), "optimizer": optimizer}


@contextlib.contextmanager
def _named_damage(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ValueError(
            f"checkpoint {str(folder)!r} is damaged ({error}): remove the run folder and start the run again"
        ) from error
