"""Load a captioner by its folder or Hub id: model, adapter and processor, ready to caption or to train."""

import contextlib
import hashlib
import json
import logging
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import _CACHED_NO_EXIST, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import PROCESSOR_NAME, find_adapter_config_file

from common_idc.hub_access import cache_if_unreachable
from modeling_blip2idc.image_fusion import ImageError, load_image  # for programs, which import captioners from here

from .adapter_files import adapter_folder, read_config, read_shapes
from .adapters import base_of, load_adapter
from .families import Family, Quantization, Weights, family_of_type
from .loading_errors import check_json_files, check_name, errors_in_one_line
from .tokenizer_checks import vocabulary

__all__ = [
    "SHIPPED",
    "ImageError",
    "load",
    "load_image",
    "load_processor",
    "processor_fingerprint",
    "slow_in_bfloat16",
    "with_examples",
]

SHIPPED = Path(__file__).with_name("tiny_captioner")  # the captioner that comes with the package and works offline
PIXEL_SETTINGS = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")  # the canvas is a setting

logger = logging.getLogger(__name__)


def load(
    model: str | os.PathLike,
    adapter: str | os.PathLike | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    adapter_revision: str | None = None,
    processor: dict[str, Any] | None = None,
    examples: Sequence[str] = (),
    attn_implementation: str | None = None,
    trainable: bool = False,
    allow_pickle: bool = False,
    quantize: Quantization | None = None,
) -> tuple[Any, Any]:
    """Return (model, processor) from folders or Hub ids.

    The processor that was saved with the adapter wins over the base's: it says what the network saw in training.

    Args:
        model: a captioner of any family, or an adapter, which names its base itself.
        adapter: a LoRA adapter; the returned model is then a `PeftModel`.
        dtype: default: bfloat16 on a GPU, float32 elsewhere.
        revision, adapter_revision: of `model` and of `adapter` on the Hub.
        processor: changes to the saved `processor.settings`.
        examples: sentences that the prompt shows as examples, for a model that has not been trained on such.
        attn_implementation: transformers' name of an attention implementation, e.g. "sdpa" or "eager".
        trainable: make the weights of the adapter, and only these, trainable.
        allow_pickle: also read weights that are pickled, which is an old format; only tensors are unpickled.
        quantize: "4bit" keeps the base's matrices in 4 bits, on a GPU and with the package bitsandbytes.

    Raises: OSError for a missing folder or repository, ValueError for an unknown family, or for files that are damaged
        or do not fit together; both are one line. ImportError for an adapter without PEFT.
    """
    base, adapter = check_name(model), None if adapter is None else check_name(adapter)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    with _access_to(base, adapter):
        config_file = _adapter_config(base, revision)
        if config_file is not None:
            if adapter is None:
                adapter, adapter_revision = base, revision
            base, revision = _base_of_adapter(config_file)
        if adapter is not None:  # before the base, which takes longer
            folder = adapter_folder(adapter, adapter_revision)
            read_config(folder)
            read_shapes(folder, allow_pickle)
    with _access_to(base, adapter):
        family = _family(base, revision, config_file)
        loaded = family.load_model(Weights(base, revision, dtype, device, allow_pickle, quantize))
        saved_with_adapter = adapter is not None and _contains_processor(adapter, adapter_revision)
        source = (adapter, adapter_revision) if saved_with_adapter else (base, revision)
        changes = dict(processor or {})
        made = family.load_processor(source, (base, revision), loaded, changes)
        if examples:  # loaded again, because the length of the prompt is checked there
            changes["prompt"] = with_examples(made.settings["prompt"], examples)
            made = family.load_processor(source, (base, revision), loaded, changes)
        if saved_with_adapter:
            _check_vocabulary(made.tokenizer, adapter, base, revision)
        if attn_implementation is not None:
            loaded.set_attn_implementation(attn_implementation)
        if quantize is None:  # else it is there already
            loaded = loaded.to(device)
        _check_finite(loaded, base)
        if adapter is not None:
            loaded = load_adapter(loaded, adapter, adapter_revision, trainable, allow_pickle)
            _warn_of_other_base(adapter, base_of(loaded), (base, revision))
    return (loaded.to(device) if quantize is None else loaded).eval(), made


def load_processor(model: str | os.PathLike) -> Any:
    """Return the processor that `load(model)` would return, without reading weights.

    Raises: as `load` does.
    """
    name = base = check_name(model)
    revision = None
    with _access_to(name):
        config_file = _adapter_config(name, None)
        if config_file is not None:
            base, revision = _base_of_adapter(config_file)
    with _access_to(name, base):
        family = _family(base, revision, config_file)
        has_own = config_file is not None and _contains_processor(name, None)
        source = (name, None) if has_own else (base, revision)
        return family.load_processor(source, (base, revision), family.empty_model((base, revision)), {})


def slow_in_bfloat16(device: torch.device) -> bool:
    """Return whether arithmetic in bfloat16 is slower than in float32: on an x86 CPU without instructions for it.

    With AVX-512 but without those instructions, a training step took 2.3 times as long as in float32.
    """
    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    return not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def with_examples(prompt: str, sentences: Sequence[str]) -> str:
    """Return a prompt that shows these sentences, which are about other images."""
    listed = "\n".join(f"- {sentence}" for sentence in sentences)
    return f"{prompt}\n\nSentences about other pairs of images, as examples of style and length:\n{listed}".strip()


def processor_fingerprint(processor: Any) -> str:
    """Return the SHA-256 of everything in a processor that decides what the network sees, tokenizer included.

    It stays the same when the processor is saved and loaded.
    """
    tokenizer = json.loads(processor.tokenizer.backend_tokenizer.to_str())
    for state in ("padding", "truncation"):  # of the last call
        tokenizer.pop(state)
    special = {name: str(token) for name, token in processor.tokenizer.special_tokens_map.items()}
    pixels = {name: getattr(processor.image_processor, name) for name in PIXEL_SETTINGS}
    content = [processor.settings, pixels, tokenizer, special]
    if processor.chat_template:
        content += [processor.chat_template, json.loads(processor.image_processor.to_json_string())]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def weights_sha256(module: torch.nn.Module) -> str:
    """Return the SHA-256 of all weights: a folder may have the name of another one, or other weights than before."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).cpu().numpy())
    return digest.hexdigest()


@contextlib.contextmanager
def _access_to(*names: str | None) -> Iterator[None]:
    """Ask whether the Hub can be reached, if a name is not a folder."""
    on_hub = any(name is not None and not os.path.isdir(name) for name in names)
    with cache_if_unreachable() if on_hub else contextlib.nullcontext():
        yield


def _adapter_config(name: str, revision: str | None) -> str | None:
    """Return the adapter_config.json of a folder or Hub repository; None if it contains none."""
    with errors_in_one_line(name):
        return find_adapter_config_file(name, revision=revision)


def _base_of_adapter(config_file: str) -> tuple[str, str | None]:
    config = read_config(Path(config_file).parent)
    base = config.get("base_model_name_or_path")
    if not base:
        raise ValueError(f"{config_file!r} names no base model: pass the base as model and this as adapter.")
    return check_name(base, config_file), config.get("revision")


def _family(base: str, revision: str | None, adapter_config: str | None) -> Family:
    """Return the family of a base.

    Args:
        adapter_config: the adapter_config.json that names this base, for the error; None if the user named it.
    """
    if _adapter_config(base, revision) is not None:  # transformers would load the base that this one names
        raise ValueError(f"{base!r} is an adapter itself: an adapter needs a whole model as its base.")
    check_json_files(base)
    try:
        with errors_in_one_line(base):
            config = AutoConfig.from_pretrained(base, revision=revision, trust_remote_code=False)
    except OSError as error:
        if adapter_config is None:
            raise
        raise OSError(
            f"{adapter_config!r} names the base model {base!r}, which is neither a folder (relative paths start at "
            f"{os.getcwd()!r}) nor an available Hub model: change the directory, or pass both base and adapter."
        ) from error
    return family_of_type(config.model_type, base)


def _check_finite(model: Any, name: str) -> None:
    """Raise ValueError for weights that are not finite: every caption would be empty."""
    for weight, values in model.named_parameters():
        # the sum needs no memory, but may overflow
        if not torch.isfinite(values.sum()) and not torch.isfinite(values).all():
            raise ValueError(f"{name!r} contains numbers that are not finite, in {weight!r}.")


def _contains_processor(name: str, revision: str | None) -> bool:
    if os.path.isdir(name):
        check_json_files(name)
        return os.path.isfile(os.path.join(name, PROCESSOR_NAME))
    try:
        hf_hub_download(name, PROCESSOR_NAME, revision=revision)
    except EntryNotFoundError:
        in_cache = try_to_load_from_cache(name, PROCESSOR_NAME, revision=revision)
        if constants.HF_HUB_OFFLINE and in_cache is not _CACHED_NO_EXIST:
            logger.warning("the cache has no %s of %r: using the processor of its base", PROCESSOR_NAME, name)
        return False
    return True


def _check_vocabulary(tokenizer: Any, adapter: str, base: str, revision: str | None) -> None:
    """Raise ValueError if the tokenizer saved with an adapter has another vocabulary than its base's own."""
    try:
        with errors_in_one_line(base):
            own = vocabulary(AutoTokenizer.from_pretrained(base, revision=revision, trust_remote_code=False))
    except (OSError, ValueError):  # a base without tokenizer
        return
    if own and own != vocabulary(tokenizer):
        raise ValueError(
            f"the tokenizer saved with the adapter {adapter!r} has another vocabulary than that of its base {base!r}: "
            "one of the two has been exchanged since the training."
        )


def _warn_of_other_base(adapter: str, named: tuple[str | None, str | None], base: tuple[str, str | None]) -> None:
    """Warn if an adapter names another base than the one that it is used with."""
    (name, revision), (used, used_revision) = named, base
    if name is None:
        return
    if os.path.isdir(name) or os.path.isdir(used):
        same = os.path.realpath(os.path.expanduser(name)) == os.path.realpath(used)
    else:
        same = name == used and revision in (None, used_revision)
    if not same:
        at = [f" at revision {r}" if r else "" for r in (revision, used_revision)]
        logger.warning("the adapter %r was trained on %r%s, but is used with %r%s", adapter, name, at[0], used, at[1])
