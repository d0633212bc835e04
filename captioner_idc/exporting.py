"""Merge an adapter into its base and write the whole model, for servers or for the Auto classes.

python -m captioner_idc.exporting --adapter runs/mine --output served       # plain weights, for vLLM
python -m captioner_idc.exporting --adapter runs/mine --output whole --format remote-code
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Literal

from common_idc.atomic_files import atomic_folder
from common_idc.commands import run_command

Format = Literal["plain", "remote-code"]
FORMATS: dict[Format, str] = {
    "plain": "a model of transformers without code of this project, for servers such as vLLM; its README.md says how "
    "to serve and ask it",
    "remote-code": "the whole model with its code, as the Auto classes and this project load it",
}
DTYPES = ("float32", "bfloat16")  # names in torch


def export(
    output: str | os.PathLike,
    model: str | os.PathLike | None = None,
    adapter: str | os.PathLike | None = None,
    output_format: Format = "plain",
    dtype: str = "float32",
    allow_pickle: bool = False,
) -> None:
    """Write a captioner to a new folder as one model with its processor, in safetensors.

    Args:
        output: new or empty; it exists whole or not at all.
        model: folder or Hub id of a whole model; None for the base that the adapter names.
        adapter: folder or Hub id of an adapter, which is merged into the model.
        output_format: a key of FORMATS.
        dtype: of the saved weights, one of DTYPES.
        allow_pickle: as in `load`.

    Raises: FileExistsError if `output` contains files; OSError or ValueError as `load` does; ValueError for a model
        that has no such format.
    """
    if model is None and adapter is None:
        raise ValueError("there is nothing to export: name a model (--model), an adapter (--adapter), or both.")
    # only here, because importing them takes seconds
    import torch

    from .adapters import base_of, merge
    from .families import family_of
    from .loading import load

    with atomic_folder(Path(os.path.abspath(output))) as folder:  # before the model, which takes minutes to load
        source = (adapter, None) if model is None else (model, adapter)
        loaded, processor = load(*source, device="cpu", dtype=getattr(torch, dtype), allow_pickle=allow_pickle)
        is_adapted = base_of(loaded) is not None
        if output_format == "remote-code" and not is_adapted:
            raise ValueError(f"{str(model or adapter)!r} is a whole model, not an adapter: there is nothing to merge.")
        whole = merge(loaded) if is_adapted else loaded
        save = family_of(whole).save_plain if output_format == "plain" else _save_with_code
        save(whole, processor, folder)


def _save_with_code(model: Any, processor: Any, folder: Path) -> None:
    from .families import family_of
    from .plain_models import SHARD_SIZE

    model.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    family_of(model).save_processor(processor, folder)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the arguments of the command."""
    formats = "; ".join(f"{name}: {meaning}" for name, meaning in FORMATS.items())
    parser = argparse.ArgumentParser(prog="python -m captioner_idc.exporting", description=__doc__.splitlines()[0])
    parser.add_argument("--model", metavar="DIR_OR_ID", help="whole model; default: the base that the adapter names")
    parser.add_argument("--adapter", metavar="DIR_OR_ID", help="LoRA adapter, which is merged into the model")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="new or empty folder")
    parser.add_argument("--format", choices=FORMATS, default="plain", help=f"{formats} (default: plain)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the saved weights (default: float32)")
    parser.add_argument("--allow_pickle", action="store_true", help="also read pickled weights, an old format")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    given = parse_arguments(argv)

    def command() -> None:
        export(given.output, given.model, given.adapter, given.format, given.dtype, given.allow_pickle)
        print(f"{given.output}: {given.format} model")

    return run_command(command, ValueError, OSError, ImportError)


if __name__ == "__main__":
    sys.exit(main())
