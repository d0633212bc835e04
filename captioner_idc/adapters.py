"""LoRA adapters: what they adapt, how they are made, trained, saved and loaded. The one place that knows PEFT.

    python -m captioner_idc.adapters OLD_DIR NEW_DIR --revision 59a1ef6c1e5117b3f65523d1c6066825bcf315e3

writes an adapter of the paper's time (PEFT 0.5, pickled) as safetensors that PEFT loads today.
"""

import argparse
import contextlib
import copy
import os
import pickle
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

from modeling_blip2idc import Blip2IdcForConditionalGeneration, Blip2IdcProcessor

LoraPart = Literal["vision", "qformer", "language"]
LoraVariant = Literal["lora", "rslora", "dora", "pissa"]

# The modules of the paper's adapters (their adapter_config.json): the vision part's fused qkv, the Q-Former's keys and
# values and the queries of its cross-attention, the language model's query, key and value (OPT's or T5's names).
LORA_TARGETS: dict[LoraPart, str] = {
    "vision": r"vision_model\..*\.qkv",
    "qformer": r"qformer\..*(crossattention\.attention\.query|\.key|\.value)",
    "language": r"language_model\..*\.(q_proj|k_proj|v_proj|q|k|v)",
}
LORA_VARIANTS: dict[LoraVariant, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    # By subspace iteration, drawn from the seed: a minute on two cores at full size, where exact SVDs would take 40.
    "pissa": {"init_lora_weights": "pissa_niter_16"},
}
# PEFT would write our class, which AutoPeftModel cannot import elsewhere; the weights are plain BLIP-2's.
PLAIN_BLIP2 = {
    "base_model_class": "Blip2ForConditionalGeneration",
    "parent_library": "transformers.models.blip_2.modeling_blip_2",
}
CONFIG_NAME, WEIGHTS_NAME, OLD_WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"


def add_lora(
    model: Blip2IdcForConditionalGeneration,
    rank: int,
    alpha: int,
    dropout: float,
    seed: int,
    parts: Sequence[LoraPart] = ("vision", "qformer", "language"),
    variant: LoraVariant = "lora",
) -> Any:
    """The model with a fresh LoRA adapter, a `PeftModel` in which only the adapter's weights can be trained.

    Args:
        seed: the same seed gives the same adapter on the same kind of device.
        variant: "pissa" also changes the base's weights: the adapter begins as their leading part, and the base keeps
            the rest. Its authors train without dropout. `save_adapter` writes a plain adapter of twice the rank.
    """
    from peft import LoraConfig, get_peft_model

    if variant not in LORA_VARIANTS:
        raise ValueError(f"LoRA variant {variant!r} is unknown: use one of {', '.join(LORA_VARIANTS)}.")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        bias="none",
        target_modules=_targets(parts),
        **LORA_VARIANTS[variant],
    )
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []), _without_peft_advice():
        torch.manual_seed(seed)
        model = get_peft_model(model, config)
    if variant == "pissa":
        model.pissa_start = adapter_weights(model)  # what `save_adapter` has to take off again
    return model


def _targets(parts: Sequence[LoraPart]) -> str:
    unknown = [part for part in parts if part not in LORA_TARGETS]
    if unknown or not parts:
        found = repr(unknown[0]) if unknown else "none"
        raise ValueError(f"LoRA parts are one or more of {', '.join(LORA_TARGETS)}; got {found}.")
    return "|".join(LORA_TARGETS[part] for part in parts)


def load_adapter(model: Blip2IdcForConditionalGeneration, adapter: str, revision: str | None = None) -> Any:
    """The model with a saved adapter, from a folder or the Hub."""
    return _load(model, adapter, revision)


def continue_adapter(model: Blip2IdcForConditionalGeneration, adapter: str, revision: str | None = None) -> Any:
    """`load_adapter` for training on: the adapter's weights, and only these, can be trained."""
    model = _load(model, adapter, revision, is_trainable=True)
    start = model.peft_config["default"].init_lora_weights
    if isinstance(start, str) and start.startswith(("pissa", "olora", "corda")):
        raise ValueError(
            f"the adapter {adapter!r} was saved with init_lora_weights={start!r}, over a base with changed weights: "
            "save it as plain LoRA first (PEFT's path_initial_model_for_weight_conversion)."
        )
    return model


def lora_settings(model: Any) -> dict[str, Any]:
    """Rank, alpha, dropout and variant of a model's adapter."""
    config = model.peft_config["default"]
    variant = "dora" if config.use_dora else "rslora" if config.use_rslora else "lora"
    return {"rank": config.r, "alpha": config.lora_alpha, "dropout": config.lora_dropout, "variant": variant}


def _load(model: Blip2IdcForConditionalGeneration, adapter: str, revision: str | None, **options: Any) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ImportError("adapters need the package peft: pip install peft.") from error
    with _without_peft_advice():
        # A warning of PEFT's only, but such a model would speak half adapted.
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            return PeftModel.from_pretrained(model, adapter, revision=revision, **options)
        except (RuntimeError, Warning) as error:  # weights of other shapes, or not all of them
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"the adapter {adapter!r} does not fit this model ({reason}).") from error


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


def make_optimizer(
    model: Any, learning_rate: float, weight_decay: float, lora_plus_ratio: float | None = None
) -> torch.optim.AdamW:
    """AdamW over the adapter's weights; with a ratio LoRA+, in which B (and DoRA's lengths) learn that much faster."""
    if lora_plus_ratio is None:
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(trainable, lr=learning_rate, weight_decay=weight_decay)
    from peft.optimizers import create_loraplus_optimizer

    if not 0 < lora_plus_ratio < float("inf"):
        raise ValueError(f"lora_plus_ratio={lora_plus_ratio}: use a number above 0, 16 for example.")
    return create_loraplus_optimizer(
        model,
        torch.optim.AdamW,
        lr=learning_rate,
        loraplus_lr_ratio=lora_plus_ratio,
        loraplus_weight_decay=weight_decay,  # AdamW's own name for it would be set to 0 in every group
    )


def adapter_weights(model: Any, state_dict: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """Copies on the CPU of all weights of the adapter and of nothing else, by their names in a saved adapter.

    Args:
        state_dict: the model's, gathered, where processes hold it in shares (FSDP, ZeRO-3).
    """
    from peft import get_peft_model_state_dict

    # False: the vocabulary is the base's; PEFT would look it up on the Hub each time to make sure
    weights = get_peft_model_state_dict(model, state_dict, save_embedding_layers=False)
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in weights.items()}


def save_adapter(
    model: Any,
    processor: Blip2IdcProcessor,
    folder: Path,
    base: str,
    revision: str | None,
    state_dict: dict[str, torch.Tensor] | None = None,
) -> None:
    """Adapter (safetensors) and processor, written beside `folder`'s files and renamed over them when whole.

    Args:
        model: a `PeftModel`.
        base, revision: the base model's Hub id or folder, as others will need it to load the adapter.
        state_dict: as in `adapter_weights`.
    """
    weights, config = adapter_weights(model, state_dict), copy.deepcopy(model.peft_config["default"])
    config.base_model_name_or_path, config.revision = base, revision
    if str(config.init_lora_weights).startswith("pissa"):
        weights = _as_plain_lora(weights, model.pissa_start)
        config.init_lora_weights, config.r, config.lora_alpha = True, 2 * config.r, 2 * config.lora_alpha
    with _whole_or_not(folder) as unfinished:
        _write_adapter(unfinished, weights, config)
        processor.save_pretrained(unfinished)


def _as_plain_lora(weights: dict[str, torch.Tensor], start: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """PiSSA's adapter for the untouched base W: W - B0 A0 + B A = W + [B, -B0] [A; A0], a LoRA of twice the rank.

    PEFT can do the same, but on the way it hangs a second adapter into the model and ends training mode.
    """
    plain = {}
    for name, tensor in weights.items():
        pair, dim = ((tensor, start[name]), 0) if ".lora_A." in name else ((tensor, -start[name]), 1)
        plain[name] = torch.cat(pair, dim)
    return plain


def _write_adapter(folder: Path, weights: dict[str, torch.Tensor], config: Any) -> None:
    config.inference_mode = True
    if isinstance(config.target_modules, set):
        config.target_modules = sorted(config.target_modules)
    save_file(weights, folder / WEIGHTS_NAME, metadata={"format": "pt"})
    config.save_pretrained(str(folder), auto_mapping_dict=PLAIN_BLIP2)


@contextlib.contextmanager
def _whole_or_not(folder: Path) -> Iterator[Path]:
    """A place to write files that come to `folder` when all are there."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".adapter-", dir=folder))
    try:
        yield unfinished
        for file in sorted(unfinished.iterdir()):
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def merge(model: Any) -> Blip2IdcForConditionalGeneration:
    """The base model with the adapter added to its weights; `model` is used up. Raises: ValueError for NaNs."""
    return model.merge_and_unload(safe_merge=True)


def convert(old: Path, new: Path, base: str | None = None, revision: str | None = None) -> dict[str, torch.Tensor]:
    """Write the pickled adapter in `old` to `new` as safetensors; returns its weights.

    Args:
        base, revision: of the base model; the old config's unless given.
    """
    from peft import PeftConfig

    for name in (CONFIG_NAME, OLD_WEIGHTS_NAME):
        if not (old / name).is_file():
            raise ValueError(f"{str(old)!r} holds no {name}: give the folder of an adapter in the old format.")
    if new.exists() and (not new.is_dir() or any(new.iterdir())):
        raise ValueError(f"{str(new)!r} is there already: name a new or an empty folder.")
    config = PeftConfig.from_pretrained(str(old))
    config.base_model_name_or_path = base or config.base_model_name_or_path
    config.revision = revision or config.revision
    weights = _read_old_weights(old / OLD_WEIGHTS_NAME, config)
    with _whole_or_not(new) as unfinished:
        _write_adapter(unfinished, weights, config)
    return weights


def _read_old_weights(file: Path, config: Any) -> dict[str, torch.Tensor]:
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{str(file)!r} holds something else than tensors, or is damaged: get it anew.") from error
    plain = config.peft_type == "LORA" and isinstance(weights, dict) and len(weights) > 0
    if not plain or not all(_is_lora(name, tensor, config.r) for name, tensor in weights.items()):
        raise ValueError(f"{str(file)!r} is no plain LoRA adapter of the rank in its {CONFIG_NAME}.")
    # copies: safetensors refuses tensors that share memory
    return {name: tensor.clone().contiguous() for name, tensor in weights.items()}


def _is_lora(name: str, tensor: Any, rank: int) -> bool:
    dim = {"lora_A": 0, "lora_B": 1}.get(name.split(".")[-2] if "." in name else "")
    return dim is not None and isinstance(tensor, torch.Tensor) and tensor.ndim == 2 and tensor.shape[dim] == rank


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m captioner_idc.adapters",
        description="Write a pickled LoRA adapter (PEFT 0.5) as safetensors.",
    )
    parser.add_argument("old", type=Path, metavar="OLD_DIR", help=f"holds {CONFIG_NAME} and {OLD_WEIGHTS_NAME}")
    parser.add_argument("new", type=Path, metavar="NEW_DIR", help="is made; may be there when empty")
    parser.add_argument("--base", metavar="ID", help="base model; default: the old config's")
    parser.add_argument("--revision", metavar="R", help="its revision on the Hub; default: the old config's, or none")
    arguments = parser.parse_args(argv)
    try:
        weights = convert(arguments.old, arguments.new, arguments.base, arguments.revision)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    numbers = sum(tensor.numel() for tensor in weights.values())
    sys.stdout.write(f"{arguments.new}: {len(weights)} tensors, {numbers:,} weights\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
