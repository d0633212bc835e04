"""LoRA adapters of any family: created, trained, saved, loaded and merged. The one place that knows PEFT."""

import contextlib
import copy
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from common_idc.atomic_files import atomic_files
from common_idc.redaction import folder_name

from .adapter_files import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    adapter_folder,
    check_patterns,
    check_ranks,
    read_config,
    read_shapes,
)
from .families import LoraPart, family_of

LoraVariant = Literal["lora", "rslora", "dora", "pissa"]

LORA_VARIANTS: dict[LoraVariant, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    # By subspace iteration from the seed: a minute on two cores at full size, where exact SVDs would take 40.
    "pissa": {"init_lora_weights": "pissa_niter_16"},
}


def add_lora(
    model: Any,
    rank: int,
    alpha: int,
    dropout: float,
    seed: int,
    parts: Sequence[LoraPart] | None = None,
    variant: LoraVariant = "lora",
) -> Any:
    """Return a `PeftModel`: the model with a new LoRA adapter, whose weights alone can be trained.

    Args:
        seed: the same seed gives the same adapter on the same kind of device.
        parts: parts of the model that get adapters, see the family's `lora_targets`; None: `default_parts`.
            "embeddings" are those of the words and the head, for captions with words that the base has never written.
            Where these share their weights (OPT), each gets an adapter of its own; `merge` separates them, PEFT's
            `merge_and_unload` does not.
        variant: "pissa" also changes the base's weights: the adapter starts as their leading part, and the base keeps
            the rest. Its authors train without dropout. `save_adapter` writes a plain adapter of twice the rank.

    Raises: ValueError for an unknown part or variant, a part without modules, or for "embeddings" with "pissa".
    """
    from peft import LoraConfig, get_peft_model

    parts = default_parts(model) if parts is None else parts
    if variant not in LORA_VARIANTS:
        raise ValueError(f"LoRA variant {variant!r} is unknown: use one of {', '.join(LORA_VARIANTS)}.")
    if variant == "pissa" and "embeddings" in parts:  # they may share the weights that PiSSA changes
        raise ValueError("LoRA variant 'pissa' cannot adapt the part 'embeddings': use another variant.")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        bias="none",
        target_modules=_targets(model, parts),
        **LORA_VARIANTS[variant],
    )
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []), _without_peft_advice():
        torch.manual_seed(seed)
        model = get_peft_model(model, config)
    if variant == "pissa":
        model.pissa_start = adapter_weights(model)  # what `save_adapter` has to take off again
    return model


def default_parts(model: Any) -> list[LoraPart]:
    """Return the parts that get adapters unless others are named: all that the model has but the embeddings."""
    return [part for part in adapted_modules(model) if part != "embeddings"]


def adapted_modules(model: Any) -> dict[LoraPart, list[str]]:
    """Return the modules of each part that LoRA can adapt; a part without modules is left out."""
    names = [name for name, _ in model.named_modules()]
    found = {part: _matching(pattern, names) for part, pattern in family_of(model).lora_targets.items()}
    return {part: modules for part, modules in found.items() if modules}


def _matching(pattern: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if re.fullmatch(pattern, name)]


def _targets(model: Any, parts: Sequence[LoraPart]) -> str:
    known = adapted_modules(model)
    unknown = [part for part in parts if part not in known]
    if unknown or not parts:
        found = repr(unknown[0]) if unknown else "none"
        raise ValueError(f"LoRA parts are one or more of {', '.join(known)}; got {found}.")
    return "|".join(family_of(model).lora_targets[part] for part in parts)


def parts_without_gradient(model: Any) -> list[LoraPart]:
    """Return the parts with adapters of which no weight has got a gradient.

    Args:
        model: a `PeftModel` after `backward`. In the first step, LoRA's A has none yet, because B is zero.
    """
    weights = _trained_weights(model)
    return [part for part, found in weights.items() if not any(_is_nonzero(weight.grad) for weight in found)]


def trained_parts(model: Any) -> list[LoraPart]:
    """Return the parts of a `PeftModel` whose adapters are trained."""
    return list(_trained_weights(model))


def _trained_weights(model: Any) -> dict[LoraPart, list[torch.nn.Parameter]]:
    weights: dict[LoraPart, list[torch.nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        module = name.removeprefix("base_model.model.").split(".lora_")[0]
        for part, pattern in family_of(model).lora_targets.items() if weight.requires_grad else ():
            if re.fullmatch(pattern, module):
                weights.setdefault(part, []).append(weight)
    return weights


def _is_nonzero(gradient: torch.Tensor | None) -> bool:
    if isinstance(gradient, DTensor):  # sharded over processes (FSDP)
        gradient = gradient.to_local()
    return gradient is not None and bool(gradient.any())


def load_adapter(
    model: Any, adapter: str, revision: str | None = None, trainable: bool = False, allow_pickle: bool = False
) -> Any:
    """Return the model with a saved LoRA adapter, from a folder or the Hub.

    Args:
        trainable: make the adapter's weights, and only these, trainable.
        allow_pickle: read weights that are pickled; only tensors are unpickled.

    Raises: ValueError if the adapter is damaged, does not fit the model, or cannot be trained on; OSError if it does
        not exist; ImportError without PEFT.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ImportError('adapters need the package peft: pip install "blip2idc[train]"') from error
    folder = adapter_folder(adapter, revision)
    config, shapes = read_config(folder), read_shapes(folder, allow_pickle)
    check_ranks(folder, config, shapes)
    check_patterns(folder, config, [name for name, _ in model.named_modules()])
    with _without_peft_advice():
        # Only a warning for PEFT, but only part of the adapter would be applied.
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            model = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
        except Exception as error:  # PEFT raises almost any type for weights or settings that it cannot use
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ValueError(f"the adapter {adapter!r} does not fit this model ({reason}).") from error
    _check_loaded(model, adapter, shapes)
    start = model.peft_config["default"].init_lora_weights
    if trainable and isinstance(start, str) and start.startswith(("pissa", "olora", "corda")):
        raise ValueError(
            f"the adapter {adapter!r} was saved with init_lora_weights={start!r}, for a base with changed weights: "
            "save it as plain LoRA first (PEFT's path_initial_model_for_weight_conversion)."
        )
    return model


def _check_loaded(model: Any, adapter: str, names: Iterable[str]) -> None:
    """Raise ValueError for weights in the file that no module has taken, and for weights that are not finite."""
    weights = adapter_weights(model)
    unused = sorted(set(names) - set(weights))
    if unused:
        raise ValueError(
            f"the adapter {adapter!r} contains weights of modules that its {CONFIG_NAME} does not target: "
            f"{unused[:3]} ..."
        )
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"the adapter {adapter!r} contains numbers that are not finite, in {name!r}.")


def lora_settings(model: Any) -> dict[str, Any]:
    """Return rank, alpha, dropout and variant of a model's adapter."""
    config = model.peft_config["default"]
    variant = "dora" if config.use_dora else "rslora" if config.use_rslora else "lora"
    return {"rank": config.r, "alpha": config.lora_alpha, "dropout": config.lora_dropout, "variant": variant}


def base_of(model: Any) -> tuple[str, str | None] | None:
    """Return name and revision of the base that a model's adapter was trained on; None for a model without adapter."""
    configs = getattr(model, "peft_config", None)
    return (configs["default"].base_model_name_or_path, configs["default"].revision) if configs else None


@contextlib.contextmanager
def _without_peft_advice() -> Iterator[None]:
    """Silence a warning about an attribute that transformers renamed; no user can act on it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def checkpoint_activations(model: Any) -> None:
    """Let training compute activations twice instead of keeping them."""
    # transformers renamed it, and will remove the older name in version 6
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})  # the reentrant kind gives no gradient behind frozen weights
    # Only the reentrant kind needs inputs with gradients, which would send chat models' backward passes through a
    # vision encoder without adapters.
    model.disable_input_require_grads()


def count_parameters(model: Any) -> tuple[int, int]:
    """Return the number of trainable parameters and of all."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)


def make_optimizer(
    model: Any, learning_rate: float, weight_decay: float, lora_plus_ratio: float | None = None
) -> torch.optim.AdamW:
    """Return AdamW over the adapter's weights.

    Args:
        lora_plus_ratio: learning rate of B (and of DoRA's magnitudes) over that of A, as in LoRA+ (arXiv 2402.12354).

    Raises: ValueError for an impossible ratio.
    """
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
        loraplus_lr_embedding=learning_rate,  # PEFT's own default is 1e-6
        loraplus_weight_decay=weight_decay,  # PEFT sets AdamW's own `weight_decay` to 0 in every group
    )


def adapter_weights(model: Any, state_dict: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """Return copies on the CPU of the adapter's weights, and of nothing else, by their names in a saved adapter.

    Args:
        state_dict: the model's, gathered, if it is sharded over processes (FSDP, ZeRO-3).
    """
    from peft import get_peft_model_state_dict

    # False: the vocabulary is the base's; PEFT would look it up on the Hub each time
    weights = get_peft_model_state_dict(model, state_dict, save_embedding_layers=False)
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in weights.items()}


def save_adapter(
    model: Any,
    processor: Any,
    folder: Path,
    base: str,
    revision: str | None,
    state_dict: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write adapter (safetensors) and processor into `folder`, over its own files of these names, all or none.

    Args:
        model: a `PeftModel`.
        base, revision: the base model's Hub id or folder, as others need it to load the adapter.
        state_dict: as in `adapter_weights`.
    """
    weights, config = adapter_weights(model, state_dict), copy.deepcopy(model.peft_config["default"])
    config.base_model_name_or_path, config.revision = base, revision
    if str(config.init_lora_weights).startswith("pissa"):
        weights = _as_plain_lora(weights, model.pissa_start)
        config.init_lora_weights, config.r, config.lora_alpha = True, 2 * config.r, 2 * config.lora_alpha
    with atomic_files(folder) as unfinished:
        write_adapter(unfinished, weights, config, family_of(model).saved_class(model.get_base_model()))
        processor.save_pretrained(unfinished)


def _as_plain_lora(weights: dict[str, torch.Tensor], start: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return PiSSA's adapter for the original base W: W - B0 A0 + B A = W + [B, -B0] [A; A0], of twice the rank.

    PEFT can do the same, but adds a second adapter and switches to eval mode.
    """
    plain = {}
    for name, tensor in weights.items():
        pair, dim = ((tensor, start[name]), 0) if ".lora_A." in name else ((tensor, -start[name]), 1)
        plain[name] = torch.cat(pair, dim)
    return plain


def write_adapter(folder: Path, weights: dict[str, torch.Tensor], config: Any, saved_class: dict[str, str]) -> None:
    """Write adapter_model.safetensors and adapter_config.json.

    A base that is a folder is named by a path that cannot be the id of somebody's repository on the Hub.

    Args:
        config: PEFT's; it is changed.
        saved_class: see `Family`.
    """
    config.inference_mode = True
    config.base_model_name_or_path = folder_name(config.base_model_name_or_path)
    if isinstance(config.target_modules, set):
        config.target_modules = sorted(config.target_modules)
    save_file(weights, folder / WEIGHTS_NAME, metadata={"format": "pt"})
    config.save_pretrained(str(folder), auto_mapping_dict=saved_class)


def merged(model: Any) -> Any:
    """Return a model for inference: its adapter, if it has one, is added to the weights, which saves its computation.

    `model` must not be used afterwards. A base in 4 bits keeps its adapter: adding it would round both.

    Raises: ValueError if the merged weights are not finite.
    """
    if base_of(model) is None or getattr(model.get_base_model(), "is_quantized", False):
        return model
    return merge(model).eval()


def merge(model: Any) -> Any:
    """Return the base model with the adapter added to its weights; `model` must not be used afterwards.

    Raises: ValueError if the merged weights are not finite.
    """
    _separate_shared_weights(model)
    return model.merge_and_unload(safe_merge=True)


def _separate_shared_weights(model: Any) -> None:
    """Give each adapted module weights of its own; PEFT would add the adapters of embeddings and head to both."""
    from peft.tuners.lora import LoraLayer

    users = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    for module in model.modules():
        if isinstance(module, LoraLayer) and users[id(module.get_base_layer().weight)] > 1:
            layer = module.get_base_layer()
            layer.weight = torch.nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
            model.config.get_text_config().tie_word_embeddings = False  # as it is saved and read again
