"""The small BLIP-2 of early_attention.py: its sizes, its first weights and its pixels."""

import math
from dataclasses import replace

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from captioner_idc.small_blip2 import Sizes, from_random_weights, waves
from modeling_blip2idc import Blip2IdcForConditionalGeneration

SIZES = Sizes(
    canvas=(192, 96),
    patch=16,
    width=128,
    heads=4,
    queries=12,
    vision_layers=4,
    qformer_layers=2,
    language_layers=2,
)
PIECES = 1000


def build_model(tokenizer: PreTrainedTokenizerFast, width: int = SIZES.width) -> Blip2IdcForConditionalGeneration:
    """Return a model with random weights, drawn from torch's current random state."""
    sizes = replace(SIZES, width=width)
    return from_random_weights(Blip2IdcForConditionalGeneration, sizes, tokenizer, start_from_neighbours)


@torch.no_grad()
def start_from_neighbours(vision: torch.nn.Module) -> None:
    """Start a vision encoder so that like attends to like (mimetic initialisation, Trockman and Kolter 2023).

    Positions are waves of row and column, and keys start equal to queries, so that a patch attends to its neighbours.
    Rows are counted over the whole canvas: no patch starts nearer to its counterpart in the other image.
    """
    width, rows = vision.config.hidden_size, SIZES.rows
    across = torch.arange(rows).repeat(rows) * SIZES.columns / rows  # the table is square, the canvas is not
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


def pixel_statistics(canvases: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of the values 0 to 255 of canvases."""
    return float(canvases.mean()), float(canvases.std())


def pixel_values(canvases: np.ndarray, statistics: tuple[float, float]) -> torch.Tensor:
    """Return canvases uint8 [B, height, width, 3] as the model takes them, [B, 3, height, width]."""
    mean, deviation = statistics
    return (torch.tensor(canvases).permute(0, 3, 1, 2).float() - mean) / deviation
