"""Random BLIP-2 models of a few thousand weights, with tokenizer and processor, built in code without a network."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from tiny_chat_models import CHAT_FAMILIES, save_chat
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    OPTConfig,
    PreTrainedTokenizerFast,
    T5Config,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from modeling_blip2idc import Blip2IdcConfig, Blip2IdcForConditionalGeneration, Blip2IdcProcessor

Kind = Literal["opt", "t5"]

IMAGE_SIZE, PATCH_SIZE, QUERY_TOKENS = 32, 8, 4
SENTENCES = (
    "the red ball was added to the left of the cube",
    "a small blue cylinder has been removed",
    "the large green cube moved to the right",
    "nothing has changed in the scene",
    "Question: what changed between the images? Answer:",
)


def tiny_tokenizer(kind: Kind = "opt", pad_is_eos: bool = False) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer, which can encode any text; ids: 0 BOS, 1 padding, 2 EOS, 3 `<image>`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=["<s>", "<pad>", "</s>", "<image>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    # OPT's tokenizer begins every text with BOS, T5's ends it with EOS.
    template = "<s> $A" if kind == "opt" else "$A </s>"
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 0), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>" if pad_is_eos else "<pad>",
    )


def tiny_config(kind: Kind = "opt") -> Blip2Config:
    """Return a plain BLIP-2 config of hidden size 32."""
    vocabulary = len(tiny_tokenizer())
    common = {"vocab_size": vocabulary, "pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0}
    if kind == "opt":
        text_config = OPTConfig(
            hidden_size=32,
            word_embed_proj_dim=32,
            ffn_dim=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=256,
            dropout=0.0,
            **common,
        )
    else:
        text_config = T5Config(
            d_model=32,
            d_kv=16,
            d_ff=64,
            num_layers=2,
            num_heads=2,
            decoder_start_token_id=1,
            dropout_rate=0.0,
            **common,
        )
    return Blip2Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
        },
        qformer_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "vocab_size": 10,
        },
        text_config=text_config,
        num_query_tokens=QUERY_TOKENS,
        image_token_index=3,
    )


def tiny_plain_blip2(kind: Kind = "opt", seed: int = 0) -> Blip2ForConditionalGeneration:
    """Return a plain BLIP-2 model, in evaluation mode."""
    return _draw_larger_weights(Blip2ForConditionalGeneration(tiny_config(kind)), seed)


def tiny_model(kind: Kind = "opt", seed: int = 0) -> Blip2IdcForConditionalGeneration:
    """Return our model with the weights of `tiny_plain_blip2(kind, seed)`, in evaluation mode."""
    values = {name: value for name, value in tiny_config(kind).to_dict().items() if name != "model_type"}
    return _draw_larger_weights(Blip2IdcForConditionalGeneration(Blip2IdcConfig(**values)), seed)


def tiny_processor(kind: Kind = "opt", pad_is_eos: bool = False, **settings: Any) -> Blip2IdcProcessor:
    """Return our processor for either tiny model; the canvas is the vision model's size unless given."""
    settings = {"canvas": (IMAGE_SIZE, IMAGE_SIZE), **settings}
    return Blip2IdcProcessor.from_blip2(tiny_plain_processor(kind, pad_is_eos), **settings)


def tiny_plain_processor(kind: Kind = "opt", pad_is_eos: bool = False) -> Blip2Processor:
    """Return a plain BLIP-2 processor."""
    image_processor = BlipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    return Blip2Processor(image_processor, tiny_tokenizer(kind, pad_is_eos), num_query_tokens=QUERY_TOKENS)


def save_plain_blip2(folder: Path, kind: Kind = "opt", seed: int = 0) -> Path:
    """Save a plain BLIP-2 model and processor, as in a checkpoint on the Hub; return the folder."""
    tiny_plain_blip2(kind, seed).save_pretrained(folder)
    tiny_plain_processor(kind).save_pretrained(folder)
    return folder


def save_tiny(folder: Path, kind: Kind = "opt", seed: int = 0, **settings: Any) -> Path:
    """Save our own model and processor; return the folder."""
    tiny_model(kind, seed).save_pretrained(folder)
    tiny_processor(kind, **settings).save_pretrained(folder)
    return folder


def _draw_larger_weights(model: Blip2ForConditionalGeneration, seed: int) -> Blip2ForConditionalGeneration:
    """Draw larger weights: with BLIP-2's own initialization the caption would hardly depend on the images."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        if parameter.ndim > 1 or name == "query_tokens":
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


# family or family-variant -> function that saves a tiny captioner of it in a folder
TINY_CAPTIONERS: dict[str, Callable[[Path], Path]] = {
    "blip2-opt": lambda folder: save_tiny(folder, "opt"),
    "blip2-t5": lambda folder: save_tiny(folder, "t5"),
    **{family: partial(save_chat, family=family) for family in CHAT_FAMILIES},
}
