"""A small BLIP-2 trained from random weights: its tokenizer, its configuration, and what a training step needs.

The captioner that ships is one (pretraining/), and so are the models of measurements/early_attention.py.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import Blip2ForConditionalGeneration, PreTrainedTokenizerFast

from modeling_blip2idc.processing_blip2idc import IGNORED, stack_rows

CONTEXT = 256  # tokens


@dataclass(frozen=True)
class Sizes:
    """How large a model is; `canvas` is height and width in pixels, twice as high as wide, before on top."""

    canvas: tuple[int, int]
    patch: int
    width: int
    heads: int
    queries: int
    vision_layers: int
    qformer_layers: int
    language_layers: int

    @property
    def rows(self) -> int:
        """Rows of patches of the canvas."""
        return self.canvas[0] // self.patch

    @property
    def columns(self) -> int:
        """Columns of patches of the canvas."""
        return self.canvas[1] // self.patch


def build_tokenizer(sentences: Iterable[str], pieces: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE, which can spell any text, of pieces that are frequent in the sentences."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=pieces,
        special_tokens=["<s>", "<pad>", "</s>", "<image>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
        model_max_length=CONTEXT,
    )


def configuration(sizes: Sizes, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return the arguments of a Blip2Config without dropout.

    Weights start with a deviation of 1 / sqrt(width): BLIP-2's 0.02 (and 1e-10 for the vision encoder, which expects a
    checkpoint) fits widths of about a thousand; here too little of the images would reach the language model.
    """
    width, deviation = sizes.width, 1 / math.sqrt(sizes.width)
    shared = {"hidden_size": width, "num_attention_heads": sizes.heads, "initializer_range": deviation}
    return {
        "vision_config": shared
        | {
            "intermediate_size": 4 * width,
            "num_hidden_layers": sizes.vision_layers,
            "image_size": sizes.canvas[0],  # a square table of positions, interpolated to the width of the canvas
            "patch_size": sizes.patch,
        },
        "qformer_config": shared
        | {
            "intermediate_size": 2 * width,
            "num_hidden_layers": sizes.qformer_layers,
            "cross_attention_frequency": 1,
            "encoder_hidden_size": width,
            "vocab_size": 4,
            "max_position_embeddings": 8,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        "text_config": shared
        | {
            "model_type": "opt",
            "word_embed_proj_dim": width,
            "ffn_dim": 4 * width,
            "num_hidden_layers": sizes.language_layers,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": CONTEXT,
            "init_std": deviation,
            "dropout": 0.0,
            "bos_token_id": tokenizer.bos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        "num_query_tokens": sizes.queries,
        "initializer_range": deviation,
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
    }


def from_random_weights(
    model_class: type[Blip2ForConditionalGeneration],
    sizes: Sizes,
    tokenizer: PreTrainedTokenizerFast,
    start_vision: Callable[[torch.nn.Module], None],
) -> Blip2ForConditionalGeneration:
    """Return a model whose weights are drawn from torch's current random state.

    Args:
        start_vision: changes the first weights of the vision encoder.
    """
    config = model_class.config_class(**configuration(sizes, tokenizer))
    # "eager": the backward pass of torch's fused attention takes ten times as long on a CPU at these sizes
    model = model_class._from_config(config, attn_implementation="eager")
    start_vision(model.vision_model)
    torch.nn.init.normal_(model.query_tokens, std=0.02)  # zeros would make all queries equal
    return model


def waves(positions: torch.Tensor, size: int, longest: float) -> torch.Tensor:
    """Return sines and cosines of positions [N] -> [N, size], with wavelengths from 4 to `longest`."""
    frequencies = 2 * math.pi / torch.logspace(math.log10(4), math.log10(longest), size // 2)
    angles = positions[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class PositionHeads(torch.nn.Module):
    """Classifiers that tell row and column of each patch of the canvas from the output of the vision encoder.

    Trained along with the captions: otherwise a vision encoder of this size forgets where its patches are, and the
    captioner learns no place.
    """

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.row, self.column = (torch.nn.Linear(sizes.width, count) for count in (sizes.rows, sizes.columns))

    def loss(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropies of rows and columns, summed; `hidden` is [B, 1 + patches, width]."""
        rows, columns = self.row.out_features, self.column.out_features
        patches = hidden[:, 1:].float().flatten(0, 1)  # without the class token
        row = torch.arange(rows, device=hidden.device).repeat_interleave(columns).repeat(len(hidden))
        column = torch.arange(columns, device=hidden.device).repeat(rows * len(hidden))
        return F.cross_entropy(self.row(patches), row) + F.cross_entropy(self.column(patches), column)


def prompt(model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return the tokens before every caption: the places of the queries, and BOS."""
    return [model.config.image_token_id] * model.config.num_query_tokens + [tokenizer.bos_token_id]


def token_inputs(
    tokenizer: PreTrainedTokenizerFast, sentences: list[str], prefix: list[int], limit: int = CONTEXT
) -> dict[str, torch.Tensor]:
    """Return prefix, sentence and EOS of each row, padded on the right, [B, T]; labels leave out prefix and padding.

    Args:
        limit: tokens of a sentence with its EOS; a longer one is cut, and has no EOS.
    """
    tokens = tokenizer(sentences, add_special_tokens=False)["input_ids"]
    rows = [(ids + [tokenizer.eos_token_id])[:limit] for ids in tokens]
    return {
        "input_ids": stack_rows([prefix + row for row in rows], tokenizer.pad_token_id, left=False),
        "attention_mask": stack_rows([[1] * (len(prefix) + len(row)) for row in rows], 0, left=False),
        "labels": stack_rows([[IGNORED] * len(prefix) + row for row in rows], IGNORED, left=False),
    }


def look(model: Blip2ForConditionalGeneration, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the outputs of the vision encoder, [B, 1 + patches, width], and of the Q-Former, [B, queries, width]."""
    patches = model.vision_model(pixel_values, interpolate_pos_encoding=True).last_hidden_state
    asking = model.query_tokens.expand(len(pixel_values), -1, -1)
    return patches, model.qformer(query_embeds=asking, encoder_hidden_states=patches).last_hidden_state


def speaking_loss(
    model: Blip2ForConditionalGeneration, queries: torch.Tensor, input_ids: torch.Tensor, **text: torch.Tensor
) -> torch.Tensor:
    """Return the mean loss over the tokens of the sentences: the model's own, with several sentences for one look.

    Args:
        queries: of the pairs, [B, queries, width].
        input_ids, text: what `token_inputs` returns for the same number of sentences about each pair, one pair after
            the other.
    """
    count = queries.shape[1]
    seen = model.language_projection(queries).repeat_interleave(len(input_ids) // len(queries), dim=0)
    words = model.get_input_embeddings()(input_ids[:, count:])
    return model.language_model(inputs_embeds=torch.cat([seen, words.to(seen.dtype)], dim=1), **text).loss


def optimizer_of(parameters: list[torch.nn.Parameter]) -> torch.optim.AdamW:
    """Return AdamW that decays matrices only; its learning rate is set at every step."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.02},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)


def learning_rate(step: int, steps: int, highest: float, warm_up: int) -> float:
    """Return the learning rate of a step: linear over `warm_up` steps, then down to a hundredth along a cosine."""
    if step < warm_up:
        return highest * (step + 1) / warm_up
    return highest * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / (steps - warm_up)))))
