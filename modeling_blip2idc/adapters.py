"""LoRA adapters: which modules they adapt, how they are made, saved and loaded. The one place that knows PEFT."""

import contextlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .modeling_blip2idc import Blip2IdcForConditionalGeneration
from .processing_blip2idc import Blip2IdcProcessor

# The modules of the paper's adapters (their adapter_config.json): the vision part's fused qkv, the Q-Former's keys and
# values and the queries of its cross-attention, the language model's query, key and value (OPT's or T5's names).
LORA_TARGETS = (
    r"vision_model\..*\.qkv"
    r"|qformer\..*(crossattention\.attention\.query|\.key|\.value)"
    r"|language_model\..*\.(q_proj|k_proj|v_proj|q|k|v)"
)


def add_lora(model: Blip2IdcForConditionalGeneration, rank: int, alpha: int, dropout: float, seed: int) -> Any:
    """The model with a fresh LoRA adapter, a `PeftModel` in which only the adapter's weights can be trained."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, bias="none", target_modules=LORA_TARGETS)
    with torch.random.fork_rng(), _without_peft_advice():
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def load_adapter(model: Blip2IdcForConditionalGeneration, adapter: str, revision: str | None = None) -> Any:
    """The model with a saved adapter, from a folder or the Hub."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ImportError("adapters need the package peft: pip install peft.") from error
    with _without_peft_advice():
        return PeftModel.from_pretrained(model, adapter, revision=revision)


def base_of(model: Any) -> tuple[str, str | None] | None:
    """Name and revision of the base that a model's adapter was trained on; None for a model without adapter."""
    configs = getattr(model, "peft_config", None)
    return (configs["default"].base_model_name_or_path, configs["default"].revision) if configs else None


@contextlib.contextmanager
def _without_peft_advice() -> Iterator[None]:
    """PEFT asks models for an attribute that transformers has renamed; its users can do nothing about the warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def count_parameters(model: Any) -> tuple[int, int]:
    """(trainable, all)"""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)


def save_adapter(model: Any, processor: Blip2IdcProcessor, folder: Path, base: str, revision: str | None) -> None:
    """Adapter (safetensors) and processor, written beside `folder`'s files and renamed over them when whole.

    Args:
        model: a `PeftModel`.
        base, revision: the base model's Hub id or folder, as others will need it to load the adapter.
    """
    config = model.peft_config["default"]
    config.base_model_name_or_path, config.revision = base, revision
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".adapter-", dir=folder))
    try:
        # False: the vocabulary is the base's; PEFT would look it up on the Hub at every save to make sure
        model.save_pretrained(unfinished, save_embedding_layers=False)
        _name_plain_blip2(unfinished / "adapter_config.json")
        processor.save_pretrained(unfinished)
        (unfinished / "README.md").unlink(missing_ok=True)  # PEFT's; the run's card is written by `publishing`
        for file in sorted(unfinished.iterdir()):
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _name_plain_blip2(config_file: Path) -> None:
    """PEFT writes our class, which AutoPeftModel cannot import elsewhere; the weights are plain BLIP-2's."""
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["auto_mapping"] = {
        "base_model_class": "Blip2ForConditionalGeneration",
        "parent_library": "transformers.models.blip_2.modeling_blip_2",
    }
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
