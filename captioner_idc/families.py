"""What differs between model families: how to load them, where LoRA goes, what their cards say. One dict literal.

A new family is one entry here (and a file of its own only if it needs more code than fits the entry), one recipe in
configs/ and one tiny model in tests/.
"""

import contextlib
import functools
import importlib.util
import logging as python_logging
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoProcessor, AutoTokenizer, BitsAndBytesConfig, Blip2Processor
from transformers.utils import (
    PROCESSOR_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    cached_file,
    logging,
)

from common_idc.strict_json import parse_json
from modeling_blip2idc import Blip2IdcConfig, Blip2IdcForConditionalGeneration, Blip2IdcProcessor
from modeling_blip2idc.processing_blip2idc import SETTINGS, settings_of_model

from .chat_models import (
    check_version,
    decode_greedily,
    image_token_id,
    load_images_only,
    model_class,
    plain_class,
    why_unusable,
)
from .chat_pairs import AnySize, ChatPairProcessor, FixedSize, Sizes, Tiles, guess_sizes, saved_settings
from .loading_errors import PICKLE_ADVICE, check_generation_settings, errors_in_one_line
from .plain_models import ONLY_NEW_TOKENS, save_plain_blip2, save_plain_chat
from .tokenizer_checks import check_tokenizer

LoraPart = Literal["vision", "qformer", "projector", "language", "embeddings"]
Quantization = Literal["4bit"]
Source = tuple[str, str | None]  # folder or Hub id, revision

logger = python_logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """Which weights to load, and how.

    Args:
        name, revision: folder or Hub id.
        allow_pickle: also read pickled weights.
        quantize: "4bit" keeps the matrices in 4 bits (NF4), for LoRA on a GPU with little memory.
    """

    name: str
    revision: str | None
    dtype: torch.dtype
    device: torch.device
    allow_pickle: bool = False
    quantize: Quantization | None = None


@dataclass(frozen=True)
class Family:
    """A kind of captioner behind the common interface.

    Args:
        model_types: `config.model_type` of the models that belong to it.
        load_model: weights -> model. Raises: OSError or ValueError in one line for weights that cannot be read, or do
            not fit the configuration.
        empty_model: (folder or Hub id) -> model without weights, for what only its configuration decides. Raises as
            `load_model` does.
        load_processor: (where the processor was saved, base, model, changes to the saved settings) -> processor.
            Raises: OSError or ValueError in one line for one that cannot be read, or does not fit the model.
        save_processor: (processor, folder) writes it beside a whole model.
        save_plain: (whole model, processor, folder) writes a plain model of transformers, see `plain_models`.
        lora_targets: part of the model -> regular expression of the modules that LoRA adapts.
        saved_class: model -> what PEFT's AutoPeftModel imports to load the base: `base_model_class`, `parent_library`.
        describe: model -> what a model card says, see `card_facts`.
        vision_encoder: the module whose output for a batch of images `model.encode_vision` returns and `forward` takes
            as `vision_features` instead of them, see `kept_features`; None: it takes nothing but images.
    """

    model_types: tuple[str, ...]
    load_model: Callable[[Weights], Any]
    empty_model: Callable[[Source], Any]
    load_processor: Callable[[Source, Source, Any, dict[str, Any]], Any]
    save_processor: Callable[[Any, Path], None]
    save_plain: Callable[[Any, Any, Path], None]
    lora_targets: dict[LoraPart, str]
    saved_class: Callable[[Any], dict[str, str]]
    describe: Callable[[Any], dict[str, Any]]
    vision_encoder: str | None = None


def _load_blip2(weights: Weights) -> Blip2IdcForConditionalGeneration:
    return _load_weights(Blip2IdcForConditionalGeneration, weights)


def _empty_blip2(source: Source) -> Blip2IdcForConditionalGeneration:
    name, revision = source
    with errors_in_one_line(name), torch.device("meta"):
        config = Blip2IdcConfig.from_pretrained(name, revision=revision)
        return Blip2IdcForConditionalGeneration(config)


def _load_weights(cls: type, weights: Weights) -> Any:
    """Return a model whose weights are exactly those in its files.

    Args:
        cls: transformers' class, or one of its subclasses.
    """
    name, options = weights.name, {}
    if weights.quantize is not None:
        check_quantization(weights.device)
        options = {"quantization_config": _four_bits(weights.dtype), "device_map": {"": weights.device}}
    if not weights.allow_pickle:
        _check_not_only_pickles(name)
    try:
        with errors_in_one_line(name), _quiet_transformers():
            model, report = cls.from_pretrained(
                name,
                dtype=weights.dtype,
                revision=weights.revision,
                use_safetensors=None if weights.allow_pickle else True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # transformers' own error does not say which
                output_loading_info=True,
                **options,
            )
    except OSError as error:
        if "use_safetensors=True" in str(error):  # of a repository on the Hub
            raise OSError(f"{name!r} contains no safetensors weights; if it has pickles, {PICKLE_ADVICE}.") from error
        raise
    if report["missing_keys"]:  # they would be random
        raise ValueError(f"{name!r} lacks weights: {sorted(report['missing_keys'])[:3]} ...")
    if report["unexpected_keys"]:  # a config with fewer layers would load a part of the model
        unused = sorted(report["unexpected_keys"])[:3]
        raise ValueError(f"{name!r} contains weights that its config.json has no place for: {unused} ...")
    for weight, found, wanted in sorted(report["mismatched_keys"]):
        raise ValueError(
            f"{name!r} contains {weight!r} of shape {list(found)}, but its config.json says {list(wanted)}: the two "
            "files are not of the same model."
        )
    check_generation_settings(model.generation_config.to_diff_dict(), name)
    return model


def check_quantization(device: torch.device) -> None:
    """Raise ValueError unless weights can be kept in 4 bits here."""
    if device.type != "cuda":
        raise ValueError(f"quantize='4bit' needs a CUDA GPU, this is {device.type!r}: leave it out.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError("quantize='4bit' needs the package bitsandbytes: pip install bitsandbytes")


def _four_bits(dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return QLoRA's own settings (arXiv 2305.14314)."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence transformers' table of weights that do not fit, which the errors describe in one line."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _check_not_only_pickles(folder: str) -> None:
    safe, pickled = ((SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME), (WEIGHTS_NAME, WEIGHTS_INDEX_NAME))
    if any(os.path.isfile(os.path.join(folder, file)) for file in safe):
        return
    for file in pickled:
        if os.path.isfile(os.path.join(folder, file)):
            raise ValueError(f"{os.path.join(folder, file)!r} is a pickle, which can run code: {PICKLE_ADVICE}.")


def _load_blip2_processor(
    saved: Source, base: Source, model: Blip2IdcForConditionalGeneration, changes: dict[str, Any]
) -> Blip2IdcProcessor:
    name, revision = saved
    with errors_in_one_line(name):
        processor = AutoProcessor.from_pretrained(name, revision=revision, trust_remote_code=False)
        if not isinstance(processor, Blip2Processor):
            raise ValueError(f"it contains a {type(processor).__name__}, not a Blip2Processor.")
        if not isinstance(processor, Blip2IdcProcessor):
            settings = {**settings_of_model(model.config), **_settings_in_plain(name, revision)}
            processor = Blip2IdcProcessor.from_blip2(processor, **settings)
    _check_blip2_tokenizer(processor.tokenizer, name, model)
    processor = processor.with_settings(**changes)
    _check_blip2_settings(processor, name, model)
    # BLIP-2 checkpoints older than the `<image>` token do not name its id, and T5's differs from OPT's.
    model.config.image_token_index = processor.image_token_id
    if processor.image_token_id >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(processor.image_token_id + 1)
    return processor


def _settings_in_plain(name: str, revision: str | None) -> dict[str, Any]:
    """Return our settings in the file of a plain processor, which has them if `save_plain_blip2` wrote it."""
    file = cached_file(name, PROCESSOR_NAME, revision=revision, _raise_exceptions_for_missing_entries=False)
    content = {} if file is None else parse_json(Path(file).read_bytes())
    return {setting: content[setting] for setting in SETTINGS if content.get(setting) is not None}


def _check_blip2_tokenizer(tokenizer: Any, name: str, model: Blip2IdcForConditionalGeneration) -> None:
    text, image = model.config.text_config, model.config.image_token_index
    rows = model.get_input_embeddings().num_embeddings
    special = {
        # T5 begins without one
        "bos": text.bos_token_id if model.config.use_decoder_only_language_model else None,
        "eos": model.end_token_ids(),
        "pad": [text.pad_token_id, tokenizer.eos_token_id],  # some tokenizers pad with EOS; padding is masked
        "image": image if image < rows else None,  # the default of checkpoints that do not name it is OPT's
    }
    check_tokenizer(tokenizer, name, rows, special)


def _check_blip2_settings(processor: Blip2IdcProcessor, name: str, model: Blip2IdcForConditionalGeneration) -> None:
    for setting, wanted in settings_of_model(model.config).items():
        found = processor.settings[setting]
        if setting != "canvas" and found != wanted:
            raise ValueError(
                f"the processor in {name!r} has {setting}={found}, which does not fit the model's {wanted}: create it "
                "with Blip2IdcProcessor.from_blip2."
            )
    with errors_in_one_line(name), np.errstate(all="ignore"):
        model.must_interpolate(*processor.canvas)  # refuses a canvas that does not fit
        inputs = processor(before=Image.new("RGB", (2, 2)), after=Image.new("RGB", (2, 2)))
        if not torch.isfinite(inputs["pixel_values"]).all():
            raise ValueError("the image processor makes pixels that are not finite: check image_mean and image_std.")
        model.check_length(inputs["input_ids"].shape[1], processor.max_caption_length)


BLIP2_MERGED_USE = """\
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("NAME_OR_PATH", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("NAME_OR_PATH", trust_remote_code=True)
inputs = processor(before="before.png", after="after.png")
tokens = model.generate(**inputs, max_new_tokens=processor.settings["max_caption_length"])
print(processor.batch_decode(tokens, skip_special_tokens=True)[0].strip())"""
BLIP2_ADAPTER_USE = """\
from peft import AutoPeftModel
from transformers import AutoProcessor

model = AutoPeftModel.from_pretrained("NAME_OR_PATH").eval()
processor = AutoProcessor.from_pretrained("NAME_OR_PATH", trust_remote_code=True)
inputs = processor(before="before.png", after="after.png")
ends = [processor.tokenizer.eos_token_id, model.config.text_config.eos_token_id]
limit = processor.settings["max_caption_length"]
tokens = model.generate(**inputs, max_new_tokens=limit, eos_token_id=ends, interpolate_pos_encoding=True)
{new_tokens}print(processor.batch_decode(tokens, skip_special_tokens=True)[0].strip())"""


def _describe_blip2(model: Any) -> dict[str, Any]:
    language = model.config.text_config.model_type
    decoder_only = model.config.use_decoder_only_language_model
    limits = [
        "BLIP-2 models learn from captions and texts of the web, stereotypes about people included.",
        "Each image is resized to half of the canvas: small changes disappear.",
    ]
    if language == "opt":
        limits.append("Meta released the language model OPT under a licence for non-commercial research.")
    return {
        "tags": ["blip-2"],
        "method": "Both images lie on one canvas, so that every attention layer of BLIP-2 sees both: the method of "
        "BLIP2IDC (WACV 2025).",
        "code": "Its code is in this repository, a few short files, hence `trust_remote_code`.",
        "requirements": "transformers torch pillow",
        "merged_use": BLIP2_MERGED_USE,
        "adapter_use": BLIP2_ADAPTER_USE.format(new_tokens=ONLY_NEW_TOKENS if decoder_only else ""),
        "limits": limits,
    }


# PEFT would write our class, which AutoPeftModel cannot import elsewhere; the weights are plain BLIP-2's.
BLIP2_CLASS = {
    "base_model_class": "Blip2ForConditionalGeneration",
    "parent_library": "transformers.models.blip_2.modeling_blip_2",
}

# The queries, keys and values of both transformers, as in the paper's adapters, under the names of all families.
# Gemma's image encoder has a head that nothing uses: adapters in it would get no gradient.
QKV = r"(?!.*\.head\.).*\.(q_proj|k_proj|v_proj|qkv|in_proj_qkv)"
CHAT_TARGETS: dict[LoraPart, str] = {
    "vision": rf"model\.(visual|vision_tower|vision_model|vision_encoder)\.{QKV}",
    "projector": r"model\.(visual\.(merger|deepstack_merger_list)|multi_modal_projector|connector|embed_vision)\."
    r"(.*\.)?(proj|(gate|up|down)_proj|linear|linear_1|linear_2|linear_fc1|linear_fc2|mlp\.[02]|embedding_projection)",
    "language": rf"model\.(language_model|text_model)\.{QKV}",
}
NO_CHANGES: dict[LoraPart, str | None] = {}
CHAT_USE = """\
from captioner_idc.captioning import caption
from captioner_idc.loading import load

model, processor = load("NAME_OR_PATH")
print(caption(model, processor, [("before.png", "after.png")])[0])"""


def _load_chat(weights: Weights) -> Any:
    model = _load_weights(model_class(_chat_config((weights.name, weights.revision))), weights)
    decode_greedily(model)
    return model


def _chat_config(source: Source) -> Any:
    name, revision = source
    with errors_in_one_line(name):
        check_version()
        return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)


def _empty_chat(source: Source) -> Any:
    config = _chat_config(source)
    with errors_in_one_line(source[0]), torch.device("meta"):
        return model_class(config)(config)


def _load_chat_processor(
    sizes: Sizes | None, two_frames: bool, saved: Source, base: Source, model: Any, changes: dict[str, Any]
) -> ChatPairProcessor:
    name, revision = saved
    with errors_in_one_line(name):
        file = cached_file(name, PROCESSOR_NAME, revision=revision, _raise_exceptions_for_missing_entries=False)
        settings = None if file is None else saved_settings(Path(file))
        own = None if settings is None else AutoTokenizer.from_pretrained(name, revision=revision)
    with errors_in_one_line(base[0]):
        inner = load_images_only(model.config.model_type, *base, own)
        if not inner.chat_template:
            raise ValueError("it has no chat template: choose a model that is trained to answer questions.")
    ends = model.generation_config.eos_token_id
    check_tokenizer(inner.tokenizer, name, model.get_input_embeddings().num_embeddings, {"eos": ends})
    sizes = guess_sizes(inner.image_processor) if sizes is None else sizes
    with errors_in_one_line(name):
        processor = ChatPairProcessor(inner, base, sizes, two_frames, **(settings or {}))
    processor = processor.with_settings(**changes)
    _check_chat_settings(processor, name, model)
    ends = {ends} if isinstance(ends, int) else {*(ends or ())}
    model.generation_config.eos_token_id = sorted({*ends, processor.end_token_id})
    return processor


def _check_chat_settings(processor: ChatPairProcessor, name: str, model: Any) -> None:
    """Raise ValueError for a model that cannot see two images, or not as many pixels."""
    side = math.isqrt(processor.pixels)
    picture = Image.new("RGB", (side, side))
    with errors_in_one_line(name):
        image = image_token_id(model.config)
        if not processor.sees_both_images():
            processor.with_settings(layout="vertical")(picture, picture)  # raises if the reason is another
            raise ValueError(
                "it takes one image only: put both on one canvas with the setting layout, e.g. --processor "
                """'{"layout": "vertical"}'."""
            )
        inputs = processor(before=picture, after=picture)
        tokens = inputs["input_ids"]
        if not (tokens == image).any():
            raise ValueError(f"its processor makes no image tokens (id {image}): it is another model's.")
        if not torch.isfinite(inputs["pixel_values"]).all():
            raise ValueError("the image processor makes pixels that are not finite: check image_mean and image_std.")
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if positions is not None and tokens.shape[1] + processor.max_caption_length > positions:
            raise ValueError(
                f"{tokens.shape[1]} tokens of images and prompt and {processor.max_caption_length} of caption are "
                f"more than the {positions} positions of the language model: lower pixels, or shorten the prompt."
            )


def _describe_chat(model: Any) -> dict[str, Any]:
    return {
        "tags": ["vision-language-model", model.config.model_type],
        "method": "The two images are one question to a vision-language model, adapted with LoRA.",
        "code": "Its code is the package of the BLIP2IDC project; the weights are plain ones for transformers.",
        "requirements": "'blip2idc[chat]'",
        "merged_use": CHAT_USE,
        "adapter_use": CHAT_USE,
        "limits": [
            "The base model learned from images and texts of the web, stereotypes about people included.",
            "Each image is reduced to a number of pixels (a setting): small changes disappear.",
        ],
    }


def _chat(
    *model_types: str,
    sizes: Sizes | None = None,
    two_frames: bool = False,
    targets: dict[LoraPart, str | None] = NO_CHANGES,
) -> Family:
    """Return the family of chat models that differ from others in this.

    Args:
        sizes: how they turn pixels into tokens; None: guess by the image processor.
        two_frames: whether a patch has two moments in time, of which a pair can be one each.
        targets: LoRA's targets of some parts, instead of CHAT_TARGETS; None for a part without linear layers.
    """
    return Family(
        model_types=model_types,
        load_model=_load_chat,
        empty_model=_empty_chat,
        load_processor=functools.partial(_load_chat_processor, sizes, two_frames),
        save_processor=lambda processor, folder: processor.save_whole(folder),
        save_plain=save_plain_chat,
        lora_targets={part: target for part, target in {**CHAT_TARGETS, **targets}.items() if target},
        saved_class=plain_class,
        describe=_describe_chat,
    )


FAMILIES: dict[str, Family] = {
    "blip2": Family(
        model_types=("blip-2", "blip2idc"),
        load_model=_load_blip2,
        empty_model=_empty_blip2,
        load_processor=_load_blip2_processor,
        save_processor=lambda processor, folder: processor.save_pretrained(folder),
        save_plain=save_plain_blip2,
        # The modules of the paper's adapters (their adapter_config.json): the vision part's fused qkv, the Q-Former's
        # keys and values and the queries of its cross-attention, the language model's query, key and value (OPT's or
        # T5's names).
        lora_targets={
            "vision": r"vision_model\..*\.qkv",
            "qformer": r"qformer\..*(crossattention\.attention\.query|\.key|\.value)",
            "language": r"language_model\..*\.(q_proj|k_proj|v_proj|q|k|v)",
            # not T5's encoder.embed_tokens, which BLIP-2 goes past
            "embeddings": r"language_model\.((model\.)?decoder\.embed_tokens|shared|lm_head)",
        },
        saved_class=lambda model: BLIP2_CLASS,
        describe=_describe_blip2,
        vision_encoder="vision_model",
    ),
    "qwen2_5_vl": _chat("qwen2_5_vl", sizes=AnySize(), two_frames=True),
    "qwen3_vl": _chat("qwen3_vl", sizes=AnySize(), two_frames=True),
    "qwen3_5": _chat("qwen3_5", sizes=AnySize(), two_frames=True),
    "glm46v": _chat("glm46v", sizes=AnySize(frames=2)),  # its limits count the two frames that an image becomes
    "internvl": _chat("internvl", sizes=FixedSize()),
    "llava_onevision": _chat("llava_onevision", sizes=FixedSize()),
    "smolvlm": _chat("smolvlm", sizes=Tiles()),
    "idefics3": _chat("idefics3", sizes=Tiles()),
    "gemma3": _chat("gemma3", sizes=FixedSize(), targets={"projector": None}),  # a bare matrix
    "gemma4": _chat(
        "gemma4",
        # as many patches as make its number of tokens, whatever the shape of the image
        sizes=FixedSize(lambda images: images.max_soft_tokens * (images.patch_size * images.pooling_kernel_size) ** 2),
        targets={"vision": CHAT_TARGETS["vision"] + r"\.linear"},  # inside modules that clip values
    ),
}


@functools.cache
def _untested_family(model_type: str) -> Family:
    """Return the general entry for a type of chat model that has none of its own, and say so once."""
    logger.warning("models of type %r are not tested here: trying it like other chat models", model_type)
    return _chat(model_type)


def family_of_type(model_type: str, name: str | os.PathLike) -> Family:
    """Return the family of a `config.model_type`.

    Args:
        name: folder or Hub id of the model, for the error.

    Raises: ValueError that says why it cannot be used, and lists the known model types.
    """
    for family in FAMILIES.values():
        if model_type in family.model_types:
            return family
    reason = why_unusable(model_type)
    if reason is None:
        return _untested_family(model_type)
    known = ", ".join(known for family in FAMILIES.values() for known in family.model_types)
    raise ValueError(
        f"{str(name)!r} contains a model of type {model_type!r}, which cannot be used ({reason}): use one of type "
        f"{known}."
    )


def family_of(model: Any) -> Family:
    """Return the family of a loaded model, with or without adapter."""
    return family_of_type(model.config.model_type, model.config.name_or_path)


def card_facts(model: Any) -> dict[str, Any]:
    """Return what a model card says about a captioner, ready for JSON.

    Keys: family, tags (of the Hub), method and code (a sentence on the method and on where the processor's code is),
    requirements (packages for pip), merged_use and adapter_use (Python with NAME_OR_PATH in place of the repository),
    limits (sentences).
    """
    family = family_of(model)
    name = next((name for name, entry in FAMILIES.items() if entry is family), model.config.model_type)
    return {"family": name, **family.describe(model)}
