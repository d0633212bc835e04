"""A small BLIP-2 with random weights, and how it learns and speaks, for experiments that train from scratch."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from modeling_blip2idc import Blip2IdcConfig, Blip2IdcForConditionalGeneration

CELL, PATCH = 128, 16
CANVAS = (2 * CELL, CELL)  # height, width: before on top
PATCHES = CANVAS[0] // PATCH * (CANVAS[1] // PATCH)
WIDTH, HEADS, QUERIES = 128, 4, 12
VISION_LAYERS, QFORMER_LAYERS, LANGUAGE_LAYERS = 4, 2, 2
PIECES = 1000
IGNORED = -100  # the label that cross-entropy skips


def build_tokenizer(sentences: list[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE with the pieces of the sentences."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES,
        special_tokens=["<s>", "<pad>", "</s>", "<image>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )


def build_model(tokenizer: PreTrainedTokenizerFast, width: int = WIDTH) -> Blip2IdcForConditionalGeneration:
    """Return a model with random weights, drawn from torch's current random state."""
    config = Blip2IdcConfig(**model_settings(tokenizer, width))
    # "eager": the backward pass of torch's fused attention takes ten times as long on a CPU at these sizes
    model = Blip2IdcForConditionalGeneration._from_config(config, attn_implementation="eager")
    start_from_neighbours(model.vision_model)
    torch.nn.init.normal_(model.query_tokens, std=0.02)  # zeros would make all queries equal
    return model


def model_settings(tokenizer: PreTrainedTokenizerFast, width: int) -> dict[str, object]:
    """Return the arguments of the configuration."""
    # BLIP-2's 0.02 (and 1e-10 for the vision encoder, which expects a checkpoint) fits widths of about a thousand; at
    # this width too little of the images would reach the language model.
    deviation = 1 / math.sqrt(width)
    shared = {"hidden_size": width, "num_attention_heads": HEADS, "initializer_range": deviation}
    return {
        "vision_config": shared
        | {
            "intermediate_size": 4 * width,
            "num_hidden_layers": VISION_LAYERS,
            "image_size": CANVAS[0],  # a square table of positions, interpolated to the width of the canvas
            "patch_size": PATCH,
        },
        "qformer_config": shared
        | {
            "intermediate_size": 2 * width,
            "num_hidden_layers": QFORMER_LAYERS,
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
            "num_hidden_layers": LANGUAGE_LAYERS,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 256,
            "init_std": deviation,
            "dropout": 0.0,
            "bos_token_id": tokenizer.bos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        "num_query_tokens": QUERIES,
        "initializer_range": deviation,
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
    }


def waves(positions: torch.Tensor, size: int, longest: float) -> torch.Tensor:
    """Return sines and cosines of positions [N] -> [N, size], with wavelengths from 4 to `longest`."""
    frequencies = 2 * math.pi / torch.logspace(math.log10(4), math.log10(longest), size // 2)
    angles = positions[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


@torch.no_grad()
def start_from_neighbours(vision: torch.nn.Module) -> None:
    """Start a vision encoder so that like attends to like (mimetic initialisation, Trockman and Kolter 2023).

    Positions are waves of row and column, and keys start equal to queries, so that a patch attends to its neighbours.
    Rows are counted over the whole canvas: no patch starts nearer to its counterpart in the other image.
    """
    width, rows = vision.config.hidden_size, CANVAS[0] // PATCH
    across = torch.arange(rows).repeat(rows) * CANVAS[1] / CANVAS[0]  # the table is square, the canvas is not
    down = torch.arange(rows).repeat_interleave(rows).float()
    size = 3 * width // 8
    table = vision.embeddings.position_embedding  # [1, 1 + rows * rows, width]; the first is the class token's
    table.zero_()
    table[0, 1:, : 2 * size] = torch.cat([waves(down, size, 2 * rows), waves(across, size, 2 * rows)], dim=1)
    torch.nn.init.normal_(vision.embeddings.patch_embedding.weight, std=0.02)  # not to drown the positions
    for layer in vision.encoder.layers:
        queries, keys, values = layer.self_attn.qkv.weight.chunk(3)
        torch.nn.init.normal_(queries, std=1.4 / math.sqrt(width))
        keys.copy_(queries)
        torch.nn.init.xavier_uniform_(values)
        torch.nn.init.xavier_uniform_(layer.self_attn.projection.weight)


class PositionHeads(torch.nn.Module):
    """Classifiers that tell row and column of each patch of the canvas from the output of the vision encoder.

    Trained along with the captions: otherwise a vision encoder of this size forgets where its patches are, and the
    captioner learns no place.
    """

    def __init__(self, width: int = WIDTH):
        super().__init__()
        self.row, self.column = (torch.nn.Linear(width, size // PATCH) for size in CANVAS)

    def loss(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropies of rows and columns, summed; `hidden` is [B, 1 + patches, width]."""
        rows, columns = self.row.out_features, self.column.out_features
        patches = hidden[:, 1:].flatten(0, 1)  # without the class token
        row = torch.arange(rows).repeat_interleave(columns).repeat(len(hidden))
        column = torch.arange(columns).repeat(rows * len(hidden))
        return F.cross_entropy(self.row(patches), row) + F.cross_entropy(self.column(patches), column)


def pixel_statistics(canvases: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of the values 0 to 255 of canvases."""
    return float(canvases.mean()), float(canvases.std())


def pixel_values(canvases: np.ndarray, statistics: tuple[float, float]) -> torch.Tensor:
    """Return canvases uint8 [B, height, width, 3] as the model takes them, [B, 3, height, width]."""
    mean, deviation = statistics
    return (torch.tensor(canvases).permute(0, 3, 1, 2).float() - mean) / deviation


def prompt(model: Blip2IdcForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return the tokens before every caption: the places of the queries, and BOS."""
    return [model.config.image_token_id] * model.config.num_query_tokens + [tokenizer.bos_token_id]


def token_inputs(
    tokenizer: PreTrainedTokenizerFast, captions: list[str], prefix: list[int]
) -> dict[str, torch.Tensor]:
    """Return prefix, caption and EOS of each row, padded on the right, [B, T]; labels leave out both."""
    rows = [ids + [tokenizer.eos_token_id] for ids in tokenizer(captions, add_special_tokens=False)["input_ids"]]
    gaps = [max(map(len, rows)) - len(row) for row in rows]

    def stacked(fill: int, before: list[int]) -> torch.Tensor:
        return torch.tensor([before + row + [fill] * gap for row, gap in zip(rows, gaps, strict=True)])

    ids, labels = stacked(tokenizer.pad_token_id, prefix), stacked(IGNORED, [IGNORED] * len(prefix))
    mask = torch.tensor([[1] * (ids.shape[1] - gap) + [0] * gap for gap in gaps])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
