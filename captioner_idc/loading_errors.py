"""What is wrong with the files of a model or an adapter, in one line that names the file."""

import contextlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from common_idc.hub_access import without_token
from common_idc.strict_json import parse_json

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
# Those that transformers reads in the folder of a model; it silently ignores some of them when they are damaged.
JSON_FILES = (
    *("config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("adapter_config.json", "model.safetensors.index.json", "pytorch_model.bin.index.json"),
)
# Settings of generation_config.json that transformers uses without looking: their types and least values.
GENERATION_TYPES: dict[str, tuple[type | tuple[type, ...], float]] = {
    **dict.fromkeys(("max_new_tokens", "max_length", "num_beams", "num_return_sequences"), (int, 1)),
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), (int, -1)),  # -1 stands for none
    **{"temperature": ((int, float), 0), "top_p": ((int, float), 0), "top_k": (int, 0), "do_sample": (bool, 0)},
}
PICKLE_ADVICE = "allow it with --allow_pickle (in Python `allow_pickle=True`) if you trust its author"


@contextlib.contextmanager
def errors_in_one_line(name: str) -> Iterator[None]:
    """Raise whatever a library raises inside the block as one line that quotes `name`, a folder or Hub id.

    Raises: OSError for the library's OSError, ValueError for everything else.
    """
    try:
        yield
    except Exception as error:  # damaged files raise errors of a dozen types; those of tokenizers are Exception itself
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(_describe(name, error)) from error


def _describe(name: str, error: Exception) -> str:
    if isinstance(error, SafetensorError):
        for file in sorted(Path(name).glob("*.safetensors")):
            check_safetensors(file)
    if isinstance(error, pickle.UnpicklingError):  # torch advises to run the code in the file
        return f"{name!r} contains a pickle with more than tensors, which could run code: use other weights."
    if "trust_remote_code" in str(error):
        return (
            f"{name!r} needs code of its own, which is never run here: load it in a program of yours, with "
            "transformers' trust_remote_code=True, or choose another model."
        )
    reason = without_token(" ".join(str(error).split()))[:300] or type(error).__name__  # a server may quote the token
    return f"{name!r} cannot be loaded: {reason}"


def check_json_files(folder: str) -> None:
    """Raise ValueError for a damaged JSON file of a model, an adapter or a tokenizer.

    Args:
        folder: a Hub id passes, because the Hub's client checks what it downloads.
    """
    for name in JSON_FILES:
        file = Path(folder) / name
        if file.is_file():
            check_no_pointer(file)
            try:
                content = parse_json(file.read_bytes())
            except ValueError as error:
                raise ValueError(f"{str(file)!r} is cut off or damaged: {error}.") from error
            if not isinstance(content, dict):
                raise ValueError(f"{str(file)!r} contains a {type(content).__name__}, not a mapping of settings.")


def check_safetensors(file: Path) -> None:
    """Raise ValueError if a file of weights is a pointer of Git LFS, cut off or damaged."""
    check_no_pointer(file)
    try:
        with safe_open(file, framework="pt"):
            pass
    except SafetensorError as error:
        raise ValueError(f"{str(file)!r} is cut off or damaged ({error}): copy or download it again.") from error


def check_no_pointer(file: Path) -> None:
    """Raise ValueError if a file is the pointer of Git LFS to its content."""
    with file.open("rb") as opened:
        if opened.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ValueError(f"{str(file)!r} is a Git LFS pointer, not the file itself: run `git lfs pull` there.")


def check_name(name: str | os.PathLike, named_by: str | None = None) -> str:
    """Return a folder or Hub id as text, with ~ expanded.

    Args:
        named_by: the adapter_config.json that contains the name, for the error.

    Raises: OSError for a missing folder, which the Hub's client could take for the id of somebody's repository.
    """
    path = os.path.expanduser(name)
    looks_like_path = path.startswith((".", "/", "~")) or path.count("/") > 1 or path.endswith("/")
    if os.path.isdir(path) or not (looks_like_path or os.path.exists(path)):
        return path
    start = f"relative paths start at {os.getcwd()!r}"
    if named_by is None:
        raise OSError(f"the folder {path!r} does not exist ({start})")
    raise OSError(
        f"{named_by!r} names as base model the folder {path!r}, which does not exist ({start}): change the directory, "
        "correct base_model_name_or_path in that file, or pass both base and adapter."
    )


def check_generation_settings(settings: dict[str, Any], name: str) -> None:
    """Raise ValueError for a setting of generation_config.json that has another type or is too small.

    Args:
        settings: those that are not the default.
        name: folder or Hub id of the model.
    """
    for setting, (kind, least) in GENERATION_TYPES.items():
        value = settings.get(setting)
        values = value if isinstance(value, list) and setting == "eos_token_id" else [value]
        wrong = (
            isinstance(each, bool) != (kind is bool) or not isinstance(each, kind) or each < least for each in values
        )
        if value is not None and any(wrong):
            raise ValueError(f"the generation_config.json of {name!r} has {setting}={value!r}: correct or remove it.")
