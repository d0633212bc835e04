"""LoRA's targets at full size: the published configurations on the meta device, without weights.

The numbers of modules follow from the layer counts alone: queries, keys and values of each layer.
"""

import re
from typing import Any

import pytest
import torch
import transformers

from captioner_idc.adapters import adapted_modules, add_lora, default_parts
from captioner_idc.chat_models import model_class

SIGLIP = {
    **{"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16},
    **{"patch_size": 14},
}


def mrope(section: list[int], theta: float, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "mrope_section": section, "rope_theta": theta, **more}}


def qwen2_5_vl_7b() -> Any:
    # config.json as printed in kohya-ss/musubi-tuner, src/musubi_tuner/qwen_image/qwen_image_utils.py
    return transformers.Qwen2_5_VLConfig(
        text_config={
            **{"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
            **{"num_key_value_heads": 4, "vocab_size": 152064, **mrope([16, 24, 24], 1e6)},
        },
        vision_config={
            **{"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584},
            **{"patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]},
        },
        tie_word_embeddings=False,
    )


def qwen3_vl(text: dict[str, int], vision: dict[str, Any], tied: bool) -> Any:
    heads = {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936}
    patches = {"num_heads": 16, "patch_size": 16, "num_position_embeddings": 2304}
    rope = mrope([24, 20, 20], 5e6, mrope_interleaved=True)
    return transformers.Qwen3VLConfig(
        text_config={**heads, **text, **rope, "tie_word_embeddings": tied},
        vision_config={**patches, **vision, "out_hidden_size": text["hidden_size"]},
        tie_word_embeddings=tied,
    )


SMALL_VISION = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "deepstack_visual_indexes": [5, 11, 17]}


def qwen3_vl_2b() -> Any:
    # config.json as logged in xorbitsai/inference, issue 4592 (of the embedding model, which has the same shape)
    text = {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16}
    return qwen3_vl(text, SMALL_VISION, tied=True)


def qwen3_vl_4b() -> Any:
    # a tied head, because the two files of weights have 8,875,719,344 bytes: 2 for each weight
    text = {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32}
    return qwen3_vl(text, SMALL_VISION, tied=True)


def qwen3_vl_8b() -> Any:
    # the vision part is the default of transformers' Qwen3VLVisionConfig
    text = {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32}
    vision = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "deepstack_visual_indexes": [8, 16, 24]}
    return qwen3_vl(text, vision, tied=False)


def internvl3_5_2b() -> Any:
    # InternViT-300M and Qwen3-1.7B; 2.3B in OpenGVLab's table of models, which a tied head would make 2.0B
    return transformers.InternVLConfig(
        text_config={
            **{"model_type": "qwen3", "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28},
            **{"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936},
            "tie_word_embeddings": False,
        },
        vision_config={
            **{"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
            **{"image_size": [448, 448], "patch_size": [14, 14]},
        },
        tie_word_embeddings=False,
    )


def smolvlm2_2_2b() -> Any:
    # SmolLM2-1.7B and SigLIP-SO400M (arXiv 2504.05299), 81 tokens per tile: (384 / 14 / 3) ** 2
    return transformers.SmolVLMConfig(
        text_config={
            **{"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24},
            **{"num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 49280},
        },
        vision_config={**SIGLIP, "image_size": 384},
        scale_factor=3,
    )


def smolvlm2_500m() -> Any:
    # SmolLM2-360M and SigLIP-B/16 (arXiv 2504.05299), 64 tokens per tile: (512 / 16 / 4) ** 2
    return transformers.SmolVLMConfig(
        text_config={
            **{"model_type": "llama", "hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32},
            **{"num_attention_heads": 15, "num_key_value_heads": 5, "head_dim": 64, "vocab_size": 49280},
        },
        vision_config={
            **{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
            **{"patch_size": 16, "image_size": 512},
        },
        scale_factor=4,
    )


def gemma3_4b() -> Any:
    # config.json as printed at https://entron.github.io/posts/Try-Gemma3-using-Hugging-Face-Part-1
    return transformers.Gemma3Config(
        text_config={
            **{"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "num_attention_heads": 8},
            **{"num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208},
        },
        vision_config={**SIGLIP, "image_size": 896, "vision_use_head": False},
        mm_tokens_per_image=256,
    )


# configuration, billions of parameters by the size of the published weights, modules of each part
FULL_SIZE: dict[str, tuple[Any, float, dict[str, int]]] = {
    "Qwen2.5-VL-7B": (qwen2_5_vl_7b, 8.29, {"vision": 32, "projector": 2, "language": 3 * 28}),
    "Qwen3-VL-2B": (qwen3_vl_2b, 2.13, {"vision": 24, "projector": 2 * (1 + 3), "language": 3 * 28}),
    "Qwen3-VL-4B": (qwen3_vl_4b, 4.44, {"vision": 24, "projector": 2 * (1 + 3), "language": 3 * 36}),
    "Qwen3-VL-8B": (qwen3_vl_8b, 8.77, {"vision": 27, "projector": 2 * (1 + 3), "language": 3 * 36}),
    "InternVL3.5-2B": (internvl3_5_2b, 2.35, {"vision": 3 * 24, "projector": 2, "language": 3 * 28}),
    "SmolVLM2-2.2B": (smolvlm2_2_2b, 2.25, {"vision": 3 * 27, "projector": 1, "language": 3 * 24}),
    "SmolVLM2-500M": (smolvlm2_500m, 0.507, {"vision": 3 * 12, "projector": 1, "language": 3 * 32}),
    "Gemma-3-4B": (gemma3_4b, 4.30, {"vision": 3 * 27, "language": 3 * 34}),
}


@pytest.mark.parametrize("name", FULL_SIZE)
def test_targets_are_as_many_as_the_layers_give(name: str) -> None:
    make, billions, modules = FULL_SIZE[name]
    config = make()
    with torch.device("meta"):
        model = model_class(config)(config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters / 1e9 == pytest.approx(billions, rel=0.003), "not the published shape"
    assert {part: len(found) for part, found in adapted_modules(model).items()} == modules
    assert default_parts(model) == list(modules)
    adapted = add_lora(model, rank=2, alpha=4, dropout=0.0, seed=0)
    trained = {re.sub(r"\.lora_[AB]\..*", "", key) for key, w in adapted.named_parameters() if w.requires_grad}
    assert len(trained) == sum(modules.values())
    assert all(w.requires_grad == ("lora_" in key) for key, w in adapted.named_parameters())
