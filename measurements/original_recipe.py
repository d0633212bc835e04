"""The baseline of the speed measurements: the original's recipe (github.com/gautierevn/BLIP2IDC), written anew.

Both images are stacked at full size, before on top, and BLIP-2's own image processor squeezes the stack into its
square and normalises it; captions are padded to 30 tokens; BLIP-2 computes the logits of every position; the adapter
stays beside the weights that it adapts. As in the original, an image before of another size is first resized to the
image after's. What would change the result and not only the cost is left out: fp16, random blur, and the loss over the
padding. So baseline and ours do the same work, and the measurements check that their results agree.
"""

import io
from typing import Any

import torch
from full_size import make_processor
from PIL import Image
from transformers import Blip2Config, Blip2ForConditionalGeneration, GenerationConfig, OPTConfig

from modeling_blip2idc import Blip2IdcProcessor

BATCH = 16  # pairs, the original's default
CAPTION_TOKENS = 30
NAME = "the original's recipe"


def small_config() -> Blip2Config:
    """Return a BLIP-2 that one core can train: vision 384 x 12, Q-Former 256 x 6, OPT 512 x 8 with 50,272 words."""
    text = OPTConfig(
        hidden_size=512,
        word_embed_proj_dim=512,
        ffn_dim=2048,
        num_hidden_layers=8,
        num_attention_heads=8,
        vocab_size=50272,
        dropout=0.0,
        bos_token_id=2,
        pad_token_id=1,
        eos_token_id=2,
    )
    vision = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 6}
    qformer = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 4}
    qformer |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "encoder_hidden_size": 384}
    return Blip2Config(
        vision_config=vision, qformer_config=qformer, text_config=text, num_query_tokens=32, image_token_index=50265
    )


def small_model(cls: type = Blip2ForConditionalGeneration, config: Blip2Config | None = None) -> Any:
    """Return a model with random weights in evaluation mode; the same weights for any class of BLIP-2.

    Args:
        config: of the class; by default `small_config`.
    """
    torch.manual_seed(0)
    model = cls(config or small_config())
    model.generation_config = GenerationConfig(bos_token_id=2, pad_token_id=1, eos_token_id=2)
    return model.eval()


def small_processor() -> Blip2IdcProcessor:
    """Return our processor of `small_model`."""
    return Blip2IdcProcessor.from_blip2(make_processor(small_config()), decoder_only=True)


def pixel_values(processor: Any, pairs: list[tuple[bytes, bytes]]) -> torch.Tensor:
    """Return the canvases of pairs of image files as the original made them, [B, 3, 224, 224].

    Args:
        processor: one that has an `image_processor`.
    """
    values = [processor.image_processor(stacked(*pair), return_tensors="pt")["pixel_values"] for pair in pairs]
    return torch.cat(values)


def stacked(before: bytes, after: bytes) -> Image.Image:
    """Return the image before on top of the image after, at the size of the latter."""
    first, second = (Image.open(io.BytesIO(file)).convert("RGB") for file in (before, after))
    if first.size != second.size:
        first = first.resize(second.size, Image.Resampling.BICUBIC)
    stack = Image.new("RGB", (second.width, 2 * second.height))
    stack.paste(first, (0, 0))
    stack.paste(second, (0, second.height))
    return stack


def padded(inputs: dict[str, torch.Tensor], given: int, pad_id: int) -> dict[str, torch.Tensor]:
    """Return token inputs of a batch with every caption padded or cut to CAPTION_TOKENS.

    Args:
        inputs: `input_ids`, `attention_mask`, `labels`, [B, T], padded on the right.
        given: tokens of image and prompt before each caption.
    """
    length, fills = given + CAPTION_TOKENS, {"input_ids": pad_id, "attention_mask": 0, "labels": -100}
    missing = max(0, length - inputs["input_ids"].shape[1])
    return {
        name: torch.nn.functional.pad(inputs[name], (0, missing), value=fill)[:, :length]
        for name, fill in fills.items()
    }
