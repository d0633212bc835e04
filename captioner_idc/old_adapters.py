"""Adapters of the paper's time (PEFT 0.5, pickled) as safetensors that today's PEFT loads.

python -m captioner_idc.old_adapters OLD_DIR NEW_DIR --revision 59a1ef6c1e5117b3f65523d1c6066825bcf315e3
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from common_idc.atomic_files import atomic_folder
from common_idc.commands import run_command

from .adapter_files import CONFIG_NAME, PICKLE_NAME, read_config, read_pickle
from .adapters import write_adapter
from .families import BLIP2_CLASS


def convert(old: Path, new: Path, base: str | None = None, revision: str | None = None) -> dict[str, torch.Tensor]:
    """Write the pickled adapter in `old` to `new` as safetensors and return its weights; only tensors are unpickled.

    Args:
        new: new or empty folder.
        base, revision: of the base model; default: the old config's.

    Raises: ValueError for a folder that is not such an adapter; FileExistsError if `new` contains files.
    """
    from peft import PeftConfig

    for name in (CONFIG_NAME, PICKLE_NAME):
        if not (old / name).is_file():
            raise ValueError(f"{str(old)!r} contains no {name}: give the folder of an adapter in the old format.")
    read_config(old)
    config = PeftConfig.from_pretrained(str(old))
    config.base_model_name_or_path = base or config.base_model_name_or_path
    config.revision = revision or config.revision
    weights = _read_old_weights(old / PICKLE_NAME, config)
    with atomic_folder(new) as unfinished:
        write_adapter(unfinished, weights, config, BLIP2_CLASS)
    return weights


def _read_old_weights(file: Path, config: Any) -> dict[str, torch.Tensor]:
    weights = read_pickle(file)
    if not weights or not all(_is_lora(name, tensor, config.r) for name, tensor in weights.items()):
        raise ValueError(f"{str(file)!r} is not a plain LoRA adapter of the rank in its {CONFIG_NAME}.")
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{str(file)!r} contains numbers that are not finite, in {name!r}.")
    # copies: safetensors refuses tensors that share memory
    return {name: tensor.clone().contiguous() for name, tensor in weights.items()}


def _is_lora(name: str, tensor: torch.Tensor, rank: int) -> bool:
    dim = {"lora_A": 0, "lora_B": 1}.get(name.split(".")[-2] if "." in name else "")
    return dim is not None and tensor.ndim == 2 and tensor.shape[dim] == rank


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m captioner_idc.old_adapters",
        description="Write a pickled LoRA adapter (PEFT 0.5) as safetensors.",
    )
    parser.add_argument("old", type=Path, metavar="OLD_DIR", help=f"contains {CONFIG_NAME} and {PICKLE_NAME}")
    parser.add_argument("new", type=Path, metavar="NEW_DIR", help="new or empty folder")
    parser.add_argument("--base", metavar="ID", help="base model; default: the old config's")
    parser.add_argument("--revision", metavar="R", help="its revision on the Hub; default: the old config's, or none")
    arguments = parser.parse_args(argv)

    def command() -> None:
        weights = convert(arguments.old, arguments.new, arguments.base, arguments.revision)
        numbers = sum(tensor.numel() for tensor in weights.values())
        print(f"{arguments.new}: {len(weights)} tensors, {numbers:,} weights")

    return run_command(command, ValueError, OSError, ImportError)


if __name__ == "__main__":
    sys.exit(main())
