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

QWEN3_VISION = {"intermediate_size": 4096, "num_heads": 16, "patch_size": 16, "num_position_embeddings": 2304}
SIGLIP = {
    **{"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16},
    **{"patch_size": 14},
}


def mrope(section: list[int], **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "mrope_section": section, "rope_theta": 1e6, **more}}


def qwen2_5_vl_7b() -> Any:
    return transformers.Qwen2_5_VLConfig(
        text_config={
            **{"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
            **{"num_key_value_heads": 4, "vocab_size": 152064, **mrope([16, 24, 24])},
        },
        vision_config={
            **{"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584},
            **{"patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]},
        },
        tie_word_embeddings=False,
    )


def qwen3_vl(text: dict[str, int], vision: dict[str, Any], tied: bool) -> Any:
    heads = {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936}
    return transformers.Qwen3VLConfig(
        text_config={**heads, **text, **mrope([24, 20, 20], mrope_interleaved=True), "tie_word_embeddings": tied},
        vision_config={**QWEN3_VISION, **vision},
        tie_word_embeddings=tied,
    )


def qwen3_vl_2b() -> Any:
    text = {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16}
    vision = {"depth": 24, "hidden_size": 1024, "out_hidden_size": 2048, "deepstack_visual_indexes": [5, 11, 17]}
    return qwen3_vl(text, vision, tied=True)


def qwen3_vl_8b() -> Any:
    text = {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32}
    vision = {"depth": 27, "hidden_size": 1152, "out_hidden_size": 4096, "deepstack_visual_indexes": [8, 16, 24]}
    return qwen3_vl(text, {**vision, "intermediate_size": 4304}, tied=False)


def internvl3_5_2b() -> Any:
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
    return transformers.SmolVLMConfig(
        text_config={
            **{"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24},
            **{"num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 49280},
        },
        vision_config={**SIGLIP, "image_size": 384},
        scale_factor=3,
    )


def gemma3_4b() -> Any:
    return transformers.Gemma3Config(
        text_config={
            **{"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "num_attention_heads": 8},
            **{"num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208},
        },
        vision_config={**SIGLIP, "image_size": 896, "vision_use_head": False},
        mm_tokens_per_image=256,
    )


# configuration, published parameters in billions, modules of each part
FULL_SIZE: dict[str, tuple[Any, float, dict[str, int]]] = {
    "Qwen2.5-VL-7B": (qwen2_5_vl_7b, 8.29, {"vision": 32, "projector": 2, "language": 3 * 28}),
    "Qwen3-VL-2B": (qwen3_vl_2b, 2.13, {"vision": 24, "projector": 2 * (1 + 3), "language": 3 * 28}),
    "Qwen3-VL-8B": (qwen3_vl_8b, 8.77, {"vision": 27, "projector": 2 * (1 + 3), "language": 3 * 36}),
    "InternVL3.5-2B": (internvl3_5_2b, 2.35, {"vision": 3 * 24, "projector": 2, "language": 3 * 28}),
    "SmolVLM2-2.2B": (smolvlm2_2_2b, 2.25, {"vision": 3 * 27, "projector": 1, "language": 3 * 24}),
    "Gemma-3-4B": (gemma3_4b, 4.30, {"vision": 3 * 27, "language": 3 * 34}),
}


@pytest.mark.parametrize("name", FULL_SIZE)
def test_targets_are_as_many_as_the_layers_give(name: str) -> None:
    make, billions, modules = FULL_SIZE[name]
    config = make()
    with torch.device("meta"):
        model = model_class(config)(config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters / 1e9 == pytest.approx(billions, abs=0.006), "not the published shape"
    assert {part: len(found) for part, found in adapted_modules(model).items()} == modules
    assert default_parts(model) == list(modules)
    adapted = add_lora(model, rank=2, alpha=4, dropout=0.0, seed=0)
    trained = {re.sub(r"\.lora_[AB]\..*", "", key) for key, w in adapted.named_parameters() if w.requires_grad}
    assert len(trained) == sum(modules.values())
    assert all(w.requires_grad == ("lora_" in key) for key, w in adapted.named_parameters())
