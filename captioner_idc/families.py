"""What differs between model families: how to load them, where LoRA goes, what their cards say. One dict literal.

A new family is one entry here (and a file of its own only if it needs more code than fits the entry), one recipe in
configs/ and one tiny model in tests/.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import AutoProcessor

from modeling_blip2idc import Blip2IdcForConditionalGeneration, Blip2IdcProcessor
from modeling_blip2idc.processing_blip2idc import settings_of_model

LoraPart = Literal["vision", "qformer", "language"]


@dataclass(frozen=True)
class Family:
    """A kind of captioner behind the common interface.

    Args:
        model_types: `config.model_type` of the models that belong to it.
        load_model: (folder or Hub id, dtype, revision) -> model. Raises: ValueError if weights are missing.
        load_processor: (folder or Hub id, revision, model, changes to the saved settings) -> processor.
        lora_targets: part of the model -> regular expression of the modules that LoRA adapts.
        saved_class: what PEFT's AutoPeftModel imports to load the base: `base_model_class` and `parent_library`.
        describe: model -> what a model card says, see `card_facts`.
    """

    model_types: tuple[str, ...]
    load_model: Callable[[str, torch.dtype, str | None], Any]
    load_processor: Callable[[str, str | None, Any, dict[str, Any]], Any]
    lora_targets: dict[LoraPart, str]
    saved_class: dict[str, str]
    describe: Callable[[Any], dict[str, Any]]


def _load_blip2(name: str, dtype: torch.dtype, revision: str | None) -> Blip2IdcForConditionalGeneration:
    model, report = Blip2IdcForConditionalGeneration.from_pretrained(
        name, dtype=dtype, revision=revision, output_loading_info=True
    )
    if report["missing_keys"]:  # they would be random
        raise ValueError(f"{name!r} lacks weights: {sorted(report['missing_keys'])[:3]} ...")
    return model


def _load_blip2_processor(
    name: str, revision: str | None, model: Blip2IdcForConditionalGeneration, changes: dict[str, Any]
) -> Blip2IdcProcessor:
    processor = AutoProcessor.from_pretrained(name, revision=revision)
    if not isinstance(processor, Blip2IdcProcessor):
        processor = Blip2IdcProcessor.from_blip2(processor, **settings_of_model(model.config))
    processor = processor.with_settings(**changes)
    if processor.decoder_only != model.config.use_decoder_only_language_model:
        raise ValueError(
            f"the processor in {name!r} has decoder_only={processor.decoder_only}, which does not fit the model's "
            f"{model.config.text_config.model_type!r} language model: create it with Blip2IdcProcessor.from_blip2."
        )
    model.must_interpolate(*processor.canvas)  # refuses a canvas that does not fit
    # BLIP-2 checkpoints older than the `<image>` token do not name its id, and T5's differs from OPT's.
    model.config.image_token_index = processor.image_token_id
    if processor.image_token_id >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(processor.image_token_id + 1)
    return processor


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
# A decoder-only language model repeats its input.
ONLY_NEW_TOKENS = 'tokens = tokens[:, inputs["input_ids"].shape[1] :]  # without the input, which this model repeats\n'


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
        "requirements": "transformers torch pillow",
        "merged_use": BLIP2_MERGED_USE,
        "adapter_use": BLIP2_ADAPTER_USE.format(new_tokens=ONLY_NEW_TOKENS if decoder_only else ""),
        "limits": limits,
    }


FAMILIES: dict[str, Family] = {
    "blip2": Family(
        model_types=("blip-2", "blip2idc"),
        load_model=_load_blip2,
        load_processor=_load_blip2_processor,
        # The modules of the paper's adapters (their adapter_config.json): the vision part's fused qkv, the Q-Former's
        # keys and values and the queries of its cross-attention, the language model's query, key and value (OPT's or
        # T5's names).
        lora_targets={
            "vision": r"vision_model\..*\.qkv",
            "qformer": r"qformer\..*(crossattention\.attention\.query|\.key|\.value)",
            "language": r"language_model\..*\.(q_proj|k_proj|v_proj|q|k|v)",
        },
        # PEFT would write our class, which AutoPeftModel cannot import elsewhere; the weights are plain BLIP-2's.
        saved_class={
            "base_model_class": "Blip2ForConditionalGeneration",
            "parent_library": "transformers.models.blip_2.modeling_blip_2",
        },
        describe=_describe_blip2,
    ),
}


def family_of_type(model_type: str, name: str | os.PathLike) -> Family:
    """Return the family of a `config.model_type`.

    Args:
        name: folder or Hub id of the model, for the error.

    Raises: ValueError that lists the known model types.
    """
    for family in FAMILIES.values():
        if model_type in family.model_types:
            return family
    known = ", ".join(known for family in FAMILIES.values() for known in family.model_types)
    raise ValueError(f"{str(name)!r} contains a model of type {model_type!r}: use one of type {known}.")


def family_of(model: Any) -> Family:
    """Return the family of a loaded model, with or without adapter."""
    return family_of_type(model.config.model_type, model.config.name_or_path)


def card_facts(model: Any) -> dict[str, Any]:
    """Return what a model card says about a captioner, ready for JSON.

    Keys: family, tags (of the Hub), method (a sentence), requirements (packages for pip), merged_use and adapter_use
    (Python with NAME_OR_PATH in place of the repository), limits (sentences).
    """
    family = family_of(model)
    name = next(name for name, entry in FAMILIES.items() if entry is family)
    return {"family": name, **family.describe(model)}
