"""Load a captioner by its folder or Hub id: model, adapter and processor, ready to caption or to train."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from transformers import AutoConfig
from transformers.utils import find_adapter_config_file

from modeling_blip2idc.image_fusion import ImageError, load_image  # for programs, which import captioners from here

from .adapters import load_adapter
from .families import family_of_type

__all__ = ["SHIPPED", "ImageError", "load", "load_image"]

SHIPPED = Path(__file__).with_name("tiny_captioner")  # the captioner that comes with the package and works offline


def load(
    model: str | os.PathLike,
    adapter: str | os.PathLike | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    adapter_revision: str | None = None,
    processor: dict[str, Any] | None = None,
    attn_implementation: str | None = None,
    trainable: bool = False,
) -> tuple[Any, Any]:
    """Return (model, processor) from folders or Hub ids.

    The processor that was saved with the adapter wins over the base's: it says what the network saw in training.

    Args:
        model: a captioner of any family, or an adapter, which names its base itself.
        adapter: a LoRA adapter; the returned model is then a `PeftModel`.
        dtype: default: bfloat16 on a GPU, float32 elsewhere.
        revision, adapter_revision: of `model` and of `adapter` on the Hub.
        processor: changes to the saved `processor.settings`.
        attn_implementation: transformers' name of an attention implementation, e.g. "sdpa" or "eager".
        trainable: make the weights of the adapter, and only these, trainable.

    Raises: OSError for a missing folder or repository; ValueError for an unknown family, missing weights, an adapter
        or a processor that does not fit.
    """
    _check_folder(str(model))
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    base, adapter = str(model), None if adapter is None else str(adapter)
    config_file = find_adapter_config_file(base, revision=revision)
    if config_file is not None:
        if adapter is None:
            adapter, adapter_revision = base, revision
        base, revision = _base_of_adapter(config_file)
    family, loaded = _load_base(base, dtype, revision, config_file)
    saved_with_adapter = adapter is not None and _contains_processor(adapter, adapter_revision)
    source = (adapter, adapter_revision) if saved_with_adapter else (base, revision)
    made = family.load_processor(*source, loaded, processor or {})
    if attn_implementation is not None:
        loaded.set_attn_implementation(attn_implementation)
    if adapter is not None:
        loaded = load_adapter(loaded, adapter, adapter_revision, trainable=trainable)
    return loaded.to(device).eval(), made


def _check_folder(model: str) -> None:
    """Raise OSError for a missing folder, which the Hub's client would take for a repository id."""
    looks_like_path = model.startswith((".", "/", "~")) or model.count("/") > 1 or model.endswith("/")
    if looks_like_path and not os.path.isdir(model):
        raise OSError(f"the folder {model!r} does not exist (relative paths start at {os.getcwd()!r})")


def _load_base(base: str, dtype: torch.dtype, revision: str | None, adapter_config: str | None) -> tuple[Any, Any]:
    """Return family and model.

    Args:
        adapter_config: the adapter_config.json that names this base, for the error; None if the user named it.
    """
    try:
        family = family_of_type(AutoConfig.from_pretrained(base, revision=revision).model_type, base)
        return family, family.load_model(base, dtype, revision)
    except OSError as error:
        if adapter_config is None:
            raise
        raise OSError(
            f"{adapter_config!r} names the base model {base!r}, which is neither a folder (relative paths start at "
            f"{os.getcwd()!r}) nor an available Hub model: change the directory, or pass both base and adapter."
        ) from error


def _contains_processor(folder: str, revision: str | None) -> bool:
    if os.path.isdir(folder):
        return os.path.isfile(os.path.join(folder, "processor_config.json"))
    try:
        hf_hub_download(folder, "processor_config.json", revision=revision)
    except EntryNotFoundError:
        return False
    return True


def _base_of_adapter(config_file: str) -> tuple[str, str | None]:
    config = json.loads(Path(config_file).read_text(encoding="utf-8"))
    base = config.get("base_model_name_or_path")
    if not base:
        raise ValueError(f"{config_file!r} names no base model: pass the base as model and this as adapter.")
    return base, config.get("revision")
