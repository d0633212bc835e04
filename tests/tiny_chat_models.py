"""Random chat models of some ten thousand weights, one of each family, with tokenizer and chat template."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast

from captioner_idc.chat_models import NotLoaded, images_only

SENTENCES = (
    "What changed between the two images? Answer in one sentence.",
    "the small red cube has been removed",
    "the large blue sphere moved to the left",
    "there is no difference, nothing has changed",
    "user assistant system",
)
# How Qwen's and Llama 3's tokenizers cut texts: line breaks stay together, and "\n\n" is one token.
PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEXT = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 4096},
}
VISION = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"image_size": 32, "patch_size": 8},
}
TURN_END = "<|im_end|>"

Parts = tuple[Any, Any]  # configuration, processor of transformers


def tiny_chat_tokenizer(*special: str, named: dict[str, str] | None = None, bos: str | None = None) -> Any:
    """Return a byte-level BPE tokenizer that pads with its first token and ends turns with TURN_END."""
    tokenizer = Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex(PIECES), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    tokens = ["<|pad|>", "<|im_start|>", TURN_END, *special, *([bos] if bos else [])]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=tokens, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*SENTENCES, "so\n\n" * 9], trainer)
    options = {"pad_token": "<|pad|>", "eos_token": TURN_END, "bos_token": bos}
    options |= {"extra_special_tokens": named} if named else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options)


def chat_template(image: str, bos: str = "", thinking: bool = True) -> str:
    """Return a template like those of the real models.

    Args:
        thinking: whether the answer begins with a thought unless enable_thinking is false.
    """
    thought = "{% if enable_thinking is not defined or enable_thinking %}<think>\n{% endif %}" if thinking else ""
    return (
        bos + "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{% if m['role'] == 'assistant' %}{{ m['content'][0]['text'] }}<|im_end|>\n"
        "{% else %}{% for c in m['content'] %}{% if c['type'] == 'image' %}" + image + "{% else %}{{ c['text'] }}"
        "{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n" + thought + "{% endif %}"
    )


def _text(tokenizer: Any, **more: Any) -> dict[str, Any]:
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "eos", "bos")}
    return {**TEXT, "vocab_size": len(tokenizer), **ids, **more}


def _ids(tokenizer: Any, **names: str) -> dict[str, int]:
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def _qwen_tokens() -> tuple[Any, dict[str, int]]:
    tokenizer = tiny_chat_tokenizer("<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
    names = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    names |= {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    return tokenizer, _ids(tokenizer, **names)


def _qwen_processor(cls: type, tokenizer: Any, patch: int) -> Any:
    side = 2 * patch
    images = transformers.Qwen2VLImageProcessorPil(
        patch_size=patch, size={"shortest_edge": 4 * side * side, "longest_edge": 16 * side * side}
    )
    template = chat_template("<|vision_start|><|image_pad|><|vision_end|>")
    return images_only(cls)(images, tokenizer, NotLoaded(), chat_template=template)


def _rope(section: list[int], **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "mrope_section": section, "rope_theta": 10000.0, **more}}


def qwen2_5_vl() -> Parts:
    tokenizer, ids = _qwen_tokens()
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]}
    config = transformers.Qwen2_5_VLConfig(
        text_config=_text(tokenizer, **_rope([2, 1, 1])), vision_config=vision, **ids
    )
    return config, _qwen_processor(transformers.Qwen2_5_VLProcessor, tokenizer, 14)


def _qwen3_vision(**more: Any) -> dict[str, Any]:
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32}
    return {**vision, "patch_size": 16, "num_position_embeddings": 64, **more}


def qwen3_vl(**widths: int) -> Parts:
    """Return configuration and processor; `widths` are sizes of both transformers."""
    tokenizer, ids = _qwen_tokens()
    text = _text(tokenizer, **_rope([2, 1, 1], mrope_interleaved=True), **widths)
    vision = _qwen3_vision(deepstack_visual_indexes=[0], **widths)
    vision["out_hidden_size"] = text["hidden_size"]
    config = transformers.Qwen3VLConfig(text_config=text, vision_config=vision, **ids)
    return config, _qwen_processor(transformers.Qwen3VLProcessor, tokenizer, 16)


def qwen3_5() -> Parts:
    tokenizer, ids = _qwen_tokens()
    linear = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8}
    linear |= {"linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"]}
    rope = _rope([1, 1, 0], mrope_interleaved=True, partial_rotary_factor=0.5)
    config = transformers.Qwen3_5Config(
        text_config=_text(tokenizer, **linear, **rope), vision_config=_qwen3_vision(), **ids
    )
    return config, _qwen_processor(transformers.Qwen3VLProcessor, tokenizer, 16)


def glm46v() -> Parts:
    special = ("<|image|>", "<|video|>", "<|begin_of_image|>", "<|end_of_image|>")
    tokenizer = tiny_chat_tokenizer(*special, "<|begin_of_video|>", "<|end_of_video|>")
    names = {"image_token_id": "<|image|>", "video_token_id": "<|video|>"}
    names |= {"image_start_token_id": "<|begin_of_image|>", "image_end_token_id": "<|end_of_image|>"}
    names |= {"video_start_token_id": "<|begin_of_video|>", "video_end_token_id": "<|end_of_video|>"}
    text = {name: value for name, value in _text(tokenizer).items() if name != "head_dim"}
    text |= _rope([1, 1, 0], partial_rotary_factor=0.5)
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32}
    config = transformers.Glm46VConfig(
        text_config={"model_type": "glm4v_text", **text},
        vision_config={"model_type": "glm4v_vision", **vision, "image_size": 56, "patch_size": 14},
        **_ids(tokenizer, **names),
    )
    images = transformers.Glm46VImageProcessorPil(size={"shortest_edge": 2 * 56 * 56, "longest_edge": 2 * 112 * 112})
    template = chat_template("<|begin_of_image|><|image|><|end_of_image|>")
    cls = images_only(transformers.Glm46VProcessor)
    return config, cls(images, tokenizer, NotLoaded(), chat_template=template)


def _idefics(config_class: type, processor_class: type, image_class: type) -> Parts:
    rows = [f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)]
    tokenizer = tiny_chat_tokenizer(
        "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *rows
    )
    config = config_class(
        text_config=_text(tokenizer, model_type="llama"),
        vision_config=VISION,
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
        **_ids(tokenizer, image_token_id="<image>"),
    )
    images = image_class(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, do_image_splitting=True)
    cls = images_only(processor_class)
    arguments = [images, tokenizer] + [NotLoaded()] * (len(cls.get_attributes()) - 2)
    return config, cls(*arguments, image_seq_len=4, chat_template=chat_template("<image>", thinking=False))


def smolvlm() -> Parts:
    classes = (transformers.SmolVLMConfig, transformers.SmolVLMProcessor, transformers.SmolVLMImageProcessorPil)
    return _idefics(*classes)


def idefics3() -> Parts:
    classes = (transformers.Idefics3Config, transformers.Idefics3Processor, transformers.Idefics3ImageProcessorPil)
    return _idefics(*classes)


def llava_onevision() -> Parts:
    tokenizer = tiny_chat_tokenizer("<image>", "<video>")
    grid = [[32, 32], [32, 64], [64, 32]]
    config = transformers.LlavaOnevisionConfig(
        text_config=_text(tokenizer, model_type="qwen2"),
        vision_config={"model_type": "siglip_vision_model", **VISION, "vision_use_head": False},
        image_grid_pinpoints=grid,
        vision_feature_layer=-1,
        **_ids(tokenizer, image_token_id="<image>", video_token_id="<video>"),
    )
    images = transformers.LlavaOnevisionImageProcessorPil(size={"height": 32, "width": 32}, image_grid_pinpoints=grid)
    processor = images_only(transformers.LlavaOnevisionProcessor)(
        images,
        tokenizer,
        NotLoaded(),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=chat_template("<image>"),
    )
    return config, processor


def internvl() -> Parts:
    named = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    named |= {"video_token": "<video>"}
    tokenizer = tiny_chat_tokenizer(*named.values(), named=named)
    config = transformers.InternVLConfig(
        text_config=_text(tokenizer, model_type="qwen3"),
        vision_config={**VISION, "image_size": [32, 32], "patch_size": [8, 8]},
        image_seq_length=4,
        downsample_ratio=0.5,
        **_ids(tokenizer, image_token_id="<IMG_CONTEXT>"),
    )
    images = transformers.GotOcr2ImageProcessorPil(size={"height": 32, "width": 32}, crop_to_patches=True)
    processor = images_only(transformers.InternVLProcessor)(
        images, tokenizer, NotLoaded(), image_seq_length=4, chat_template=chat_template("<IMG_CONTEXT>")
    )
    return config, processor


def gemma3() -> Parts:
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = tiny_chat_tokenizer(*named.values(), named=named, bos="<bos>")
    names = {"image_token_index": "<image_soft_token>", "boi_token_index": "<start_of_image>"}
    config = transformers.Gemma3Config(
        text_config=_text(tokenizer, layer_types=["sliding_attention", "full_attention"], sliding_window=64),
        vision_config=VISION,
        mm_tokens_per_image=4,
        **_ids(tokenizer, **names, eoi_token_index="<end_of_image>"),
    )
    images = transformers.Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    template = chat_template("<start_of_image>", "{{ bos_token }}")
    return config, images_only(transformers.Gemma3Processor)(
        images, tokenizer, image_seq_length=4, chat_template=template
    )


def gemma4() -> Parts:
    named = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>"}
    named |= {"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}
    tokenizer = tiny_chat_tokenizer(*named.values(), "<|video|>", named=named, bos="<bos>")
    names = {"image_token_id": "<|image|>", "boi_token_id": "<|image>", "eoi_token_id": "<image|>"}
    names |= {"audio_token_id": "<|audio|>", "boa_token_id": "<|audio>", "eoa_token_index": "<audio|>"}
    text = _text(tokenizer, layer_types=["sliding_attention", "full_attention"], sliding_window=64)
    text |= {"hidden_size_per_layer_input": 0, "global_head_dim": 8}
    config = transformers.Gemma4Config(
        text_config=text,
        vision_config={
            **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2},
            **{"num_key_value_heads": 2, "head_dim": 16, "patch_size": 4, "pooling_kernel_size": 2},
            "position_embedding_size": 64,
        },
        **_ids(tokenizer, **names, video_token_id="<|video|>"),
    )
    images = transformers.Gemma4ImageProcessorPil(patch_size=4, pooling_kernel_size=2, max_soft_tokens=70)
    processor = images_only(transformers.Gemma4Processor)(
        NotLoaded(), images, tokenizer, NotLoaded(), chat_template=chat_template("<|image|>", "{{ bos_token }}")
    )
    return config, processor


CHAT_FAMILIES: dict[str, Callable[[], Parts]] = {
    build.__name__: build
    for build in (
        *(qwen2_5_vl, qwen3_vl, qwen3_5, glm46v, internvl),
        *(llava_onevision, smolvlm, idefics3, gemma3, gemma4),
    )
}


def qwen3_vl_moe() -> Parts:
    """Return a model whose type is not listed with an image processor."""
    tokenizer, ids = _qwen_tokens()
    experts = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
    text = _text(tokenizer, **_rope([2, 1, 1], mrope_interleaved=True), **experts)
    config = transformers.Qwen3VLMoeConfig(
        text_config=text, vision_config=_qwen3_vision(deepstack_visual_indexes=[0]), **ids
    )
    return config, _qwen_processor(transformers.Qwen3VLProcessor, tokenizer, 16)


def paligemma() -> Parts:
    """Return a model without chat template, whose processor wants the answer as its `suffix`."""
    tokenizer = tiny_chat_tokenizer("<image>")
    config = transformers.PaliGemmaConfig(
        text_config=_text(tokenizer, model_type="gemma"),
        vision_config={"model_type": "siglip_vision_model", **VISION, "vision_use_head": False},
        projection_dim=32,
        **_ids(tokenizer, image_token_id="<image>"),
    )
    images = transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    images.image_seq_length = 16
    return config, transformers.PaliGemmaProcessor(images, tokenizer)


def git() -> Parts:
    """Return a captioner of one image, which has neither chat template nor image tokens."""
    tokenizer = tiny_chat_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.GitConfig(vision_config=VISION, vocab_size=len(tokenizer), **sizes)
    images = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return config, transformers.GitProcessor(images, tokenizer)


OTHERS: dict[str, Callable[[], Parts]] = {build.__name__: build for build in (qwen3_vl_moe, paligemma, git)}


def tiny_chat_model(config: Any, seed: int = 0) -> Any:
    """Return a model with weights so large that the answer depends on the images."""
    model = AutoModelForImageTextToText.from_config(config).eval()
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in sorted(model.named_parameters()):
        if parameter.ndim > 1:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return model


def saved_on_first_use(parent: Path) -> Callable[[str], Path]:
    """Return a function that gives the folder of a family's tiny model, saved when it is first asked for."""

    def folder(family: str) -> Path:
        return parent / family if (parent / family).exists() else save_chat(parent / family, family)

    return folder


def save_chat(folder: Path, family: str, seed: int = 0, **widths: int) -> Path:
    """Save model, processor and a generation_config.json that asks for sampling, as on the Hub; return the folder."""
    config, processor = {**CHAT_FAMILIES, **OTHERS}[family](**widths)
    model = tiny_chat_model(config, seed)
    tokenizer = processor.tokenizer
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    model.generation_config.update(**ids, do_sample=True, temperature=1.5, top_k=20, top_p=0.9)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "video_preprocessor_config.json").write_text('{"video_processor_type": "of the base"}')
    return folder
