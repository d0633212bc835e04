"""The two files of a LoRA adapter, adapter_config.json and its weights, checked before PEFT reads them."""

import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors import safe_open

from common_idc.strict_json import parse_json

from .loading_errors import (
    PICKLE_ADVICE,
    check_json_files,
    check_name,
    check_no_pointer,
    check_safetensors,
    errors_in_one_line,
)

CONFIG_NAME, WEIGHTS_NAME, PICKLE_NAME = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PATTERN_SECONDS = 10.0  # an ordinary pattern needs milliseconds
MATCH = """\
import json, re, sys
patterns, names = json.load(sys.stdin)
for number, pattern in enumerate(patterns):
    print(number, flush=True)
    [*map(re.compile(pattern).fullmatch, names)]
"""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive_int(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_dict_of(check: Callable[[Any], bool], value: Any) -> bool:
    return isinstance(value, dict) and all(map(check, value.values()))


# Fields of adapter_config.json: check, what they must be. Absent or null means PEFT's default.
FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "base_model_name_or_path": (lambda value: isinstance(value, str), "a folder or Hub id"),
    "revision": (lambda value: isinstance(value, str), "a text"),
    "r": (_is_positive_int, "a whole number from 1"),
    "lora_alpha": (_is_number, "a finite number"),
    "lora_dropout": (lambda value: _is_number(value) and 0 <= value < 1, "a number from 0 to below 1"),
    "target_modules": (lambda value: isinstance(value, str) or _is_texts(value), "a pattern or a list of names"),
    "exclude_modules": (lambda value: isinstance(value, str) or _is_texts(value), "a pattern or a list of names"),
    "modules_to_save": (_is_texts, "a list of names"),
    "layers_pattern": (lambda value: isinstance(value, str) or _is_texts(value), "a name or a list of names"),
    "rank_pattern": (lambda value: _is_dict_of(_is_positive_int, value), "a mapping of names to whole numbers"),
    "alpha_pattern": (lambda value: _is_dict_of(_is_number, value), "a mapping of names to numbers"),
    # PEFT would import the module that `megatron_core` names
    "megatron_config": (lambda value: False, "null: Megatron is not supported"),
}


def adapter_folder(adapter: str | os.PathLike, revision: str | None = None) -> Path:
    """Return the folder of an adapter, after downloading configuration and weights if it is one of the Hub.

    Raises: OSError for a missing folder or repository.
    """
    name = check_name(adapter)
    if os.path.isdir(name):
        return Path(name)
    with errors_in_one_line(name):
        folder = Path(hf_hub_download(name, CONFIG_NAME, revision=revision)).parent
        for file in (WEIGHTS_NAME, PICKLE_NAME):
            with contextlib.suppress(EntryNotFoundError):
                hf_hub_download(name, file, revision=revision)
                break
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of adapter_config.json.

    Raises: ValueError if it is not that of a LoRA adapter; OSError if it does not exist.
    """
    file = folder / CONFIG_NAME
    if not file.is_file():
        raise OSError(f"the adapter {str(folder)!r} contains no {CONFIG_NAME}")
    check_json_files(str(folder))
    config = parse_json(file.read_bytes())
    if config.get("peft_type") != "LORA":
        raise ValueError(f"{str(file)!r} has peft_type {config.get('peft_type')!r}: only LORA adapters are supported.")
    for name, (check, wanted) in FIELDS.items():
        value = config.get(name)
        if value is not None and not check(value):
            raise ValueError(f"{str(file)!r} has {name} {value!r}, which must be {wanted}.")
    return config


def read_shapes(folder: Path, allow_pickle: bool = False) -> dict[str, list[int]]:
    """Return name and shape of the weights of an adapter.

    Raises: ValueError for a damaged file, or a pickle that is not allowed; OSError if there is no file of weights.
    """
    file, pickled = folder / WEIGHTS_NAME, folder / PICKLE_NAME
    if file.is_file():
        check_safetensors(file)
        with safe_open(file, framework="pt") as weights:
            return {name: weights.get_slice(name).get_shape() for name in weights.keys()}
    if not pickled.is_file():
        raise OSError(f"the adapter {str(folder)!r} contains no {WEIGHTS_NAME}")
    if not allow_pickle:
        raise ValueError(
            f"{str(pickled)!r} is a pickle, which can run code: convert it with `python -m "
            f"captioner_idc.old_adapters`, or {PICKLE_ADVICE}."
        )
    return {name: list(tensor.shape) for name, tensor in read_pickle(pickled).items()}


def read_pickle(file: Path) -> dict[str, torch.Tensor]:
    """Return pickled weights; only tensors are unpickled.

    Raises: ValueError for a file that contains anything else, or is damaged.
    """
    check_no_pointer(file)
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise almost any type; torch's message advises to run their code
        raise ValueError(f"{str(file)!r} is damaged or contains more than tensors: download it again.") from error
    if not isinstance(weights, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in weights.values()):
        raise ValueError(f"{str(file)!r} contains something else than named tensors: it is not an adapter.")
    return weights


def check_ranks(folder: Path, config: dict[str, Any], shapes: dict[str, list[int]]) -> None:
    """Raise ValueError if the configuration asks for a larger rank than the weights have; PEFT would allocate it."""
    names = (".lora_A", ".lora_embedding_A")
    found = max((shape[0] for name, shape in shapes.items() if shape and any(n in name for n in names)), default=0)
    asked = max([config.get("r") or 8, *(config.get("rank_pattern") or {}).values()])
    if asked > found:
        raise ValueError(
            f"the adapter {str(folder)!r} contains LoRA weights of rank {found}, but its {CONFIG_NAME} says {asked}."
        )


def check_patterns(folder: Path, config: dict[str, Any], names: Iterable[str]) -> None:
    """Raise ValueError for a pattern that is not a regular expression, or takes too long for the names of modules.

    Some patterns, (a+)+b for example, backtrack for years; only another process can be stopped then.
    """
    patterns = [config[name] for name in ("target_modules", "exclude_modules") if isinstance(config.get(name), str)]
    patterns += [f"(.*\\.)?({key})$" for name in ("rank_pattern", "alpha_pattern") for key in config.get(name) or {}]
    layers = config.get("layers_pattern") or []
    patterns += [rf".*\.{layer}\.(\d+)\." for layer in ([layers] if isinstance(layers, str) else layers)]
    if not patterns:
        return
    command, problem = [sys.executable, "-I", "-S", "-c", MATCH], "which is not a regular expression"
    given = json.dumps([patterns, list(names)]).encode()
    try:
        matched = subprocess.run(command, input=given, capture_output=True, timeout=PATTERN_SECONDS)
        if matched.returncode == 0:
            return
        tried = matched.stdout
    except subprocess.TimeoutExpired as error:
        tried, problem = error.stdout or b"0", f"which cannot be matched within {PATTERN_SECONDS:g} seconds"
    pattern = patterns[len(tried.split()) - 1]
    raise ValueError(f"{str(folder / CONFIG_NAME)!r} contains the pattern {pattern[:200]!r}, {problem}.")
