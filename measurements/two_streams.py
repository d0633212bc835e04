"""Attention that keeps the two images of a canvas apart, for a BLIP-2 that otherwise stays as it is.

    joint          every layer sees both images: BLIP2IDC
    vision_apart   the vision encoder sees each image alone; the queries of the Q-Former see both
    streams_apart  half of the queries see the image before, half the image after, and the halves do not see each
                   other: only the language model sees both

Where the encoder sees each image alone, the class token sees only itself: patches and queries of both images may look
at it, but no image reaches it. All arms have the same parameters. The canvas is vertical, before on top, so that the
first half of the patches is the image before.
"""

from typing import Any

import torch
from transformers import Blip2ForConditionalGeneration
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.blip_2.modeling_blip_2 import eager_attention_forward

ARMS = ("joint", "vision_apart", "streams_apart")
WITHIN_IMAGES = "within_images"
CLASS, BEFORE, AFTER = 0, 1, 2


def keep_apart(model: Blip2ForConditionalGeneration, arm: str, patches: int) -> None:
    """Make a model attend as an arm of the experiment does.

    Args:
        patches: of the whole canvas.

    Raises: ValueError for an unknown arm, or patches or queries that cannot be halved.
    """
    queries = model.config.num_query_tokens
    if arm not in ARMS:
        raise ValueError(f"arm must be one of {', '.join(ARMS)}, got {arm!r}.")
    if patches % 2 or queries % 2:
        raise ValueError(f"patches and queries must be even, got {patches} and {queries}.")
    if arm == "joint":
        return
    streams = torch.tensor([CLASS] + [BEFORE] * (patches // 2) + [AFTER] * (patches // 2))
    separate_vision(model.vision_model, blocked(streams[:, None] != streams[None, :], streams[None, :] != CLASS))
    if arm == "streams_apart":
        halves = torch.tensor([BEFORE] * (queries // 2) + [AFTER] * (queries // 2))
        among_queries = blocked(halves[:, None] != halves[None, :])
        to_patches = blocked(halves[:, None] != streams[None, :], streams[None, :] != CLASS)
        separate_queries(model.qformer, among_queries, to_patches)


def blocked(*conditions: torch.Tensor) -> torch.Tensor:
    """Return what is added to attention scores, [1, 1, from, to]: minus infinity where all conditions hold."""
    everywhere = torch.stack(torch.broadcast_tensors(*conditions)).all(dim=0)
    return torch.zeros(everywhere.shape).masked_fill(everywhere, -torch.inf)[None, None]


def separate_vision(vision: torch.nn.Module, mask: torch.Tensor) -> None:
    """Add a mask to the attention scores of every layer of a vision encoder, whose layers accept none."""
    ALL_ATTENTION_FUNCTIONS.register(WITHIN_IMAGES, attend_within_images)
    vision.config._attn_implementation = WITHIN_IMAGES
    for layer in vision.encoder.layers:
        layer.self_attn.register_buffer("within_images", mask, persistent=False)


def attend_within_images(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend as BLIP-2 does, with the mask of the module."""
    options["attention_mask"] = module.within_images.to(query.dtype)
    return eager_attention_forward(module, query, key, value, **options)


def separate_queries(qformer: torch.nn.Module, among_queries: torch.Tensor, to_patches: torch.Tensor) -> None:
    """Give masks to a Q-Former: among its queries, and from queries to patches."""

    def with_masks(_: torch.nn.Module, arguments: tuple, options: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        return arguments, {**options, "attention_mask": among_queries, "encoder_attention_mask": to_patches}

    qformer.register_forward_pre_hook(with_masks, with_kwargs=True)
