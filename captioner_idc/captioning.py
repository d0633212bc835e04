"""Pairs of images to sentences, for any captioner.

model, processor = load("runs/mine")
caption(model, processor, [("before.png", "after.png")])
"""

import contextlib
import logging
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch

from .encoded_pairs import EncodedPairs, Pair

logger = logging.getLogger(__name__)


def caption(
    model: Any,
    processor: Any,
    pairs: Iterable[Pair],
    batch_size: int = 8,
    text: str | None = None,
    **generate_kwargs: Any,
) -> list[str]:
    """Return one sentence per (before, after), in order; greedy unless a keyword of `generate` says otherwise.

    A sentence is one line without control characters, which a terminal would obey.

    Args:
        pairs: may be a generator; one batch is in memory at a time, each image at the size that the network sees.
        batch_size: pairs at a time; fewer if the memory of the device is too small for so many.
        text: prompt instead of the one in the processor's settings.

    Raises: ImageError that names side and number of the pair; ValueError for an impossible batch_size.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    options = {**length_limit(model, processor, generate_kwargs), **generate_kwargs}
    # Loaded here, so that an error counts from the first pair and not from the batch's first.
    loaded = (
        processor.load_pair(before, after, f"pair {index} (counted from 0)")
        for index, (before, after) in enumerate(pairs)
    )
    sentences, limit = [], MemoryLimit()
    with evaluation_mode(model):
        while batch := list(islice(loaded, batch_size)):
            sentences += limit.split(
                lambda part: captions_about(EncodedPairs(model, processor, part, text), **options), batch
            )
    return sentences


def captions_about(about: EncodedPairs, **options: Any) -> list[str]:
    """Return one sentence about each pair of a model in evaluation mode.

    Args:
        options: keywords of transformers' `generate`.

    Raises: ValueError for options that give another number of sentences.
    """
    tokens = about.generate(**options)
    if len(tokens) != len(about):
        raise ValueError(f"{len(tokens)} sentences for {len(about)} pairs: use num_return_sequences=1.")
    return [printable(sentence) for sentence in about.processor.batch_decode(tokens, skip_special_tokens=True)]


class MemoryLimit:
    """How many pairs at a time fit into the memory of the device, found by halving when it is exhausted."""

    def __init__(self) -> None:
        self.most: int | None = None

    def split(self, compute: Callable[[Sequence[Any]], list[Any]], pairs: Sequence[Any]) -> list[Any]:
        """Return the results of all pairs, which `compute` returns for as many at a time as fit.

        Raises: torch.OutOfMemoryError if not even one does.
        """
        results: list[Any] = []
        while len(results) < len(pairs):
            size = min(self.most or len(pairs), len(pairs))
            try:
                results += compute(pairs[len(results) : len(results) + size])
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                self.most = size // 2
                logger.warning("no memory for %d pairs at a time: continuing with %d", size, self.most)
                torch.cuda.empty_cache()
        return results


def generate_tokens(model: Any, inputs: Any, **options: Any) -> torch.Tensor:
    """Return the new tokens only, [B, new].

    Args:
        inputs: what the model's processor returns for pairs without captions.
        options: keywords of transformers' `generate`.
    """
    with torch.inference_mode():
        return model.generate(**inputs.to(model.device), **options)


def describe_empty(empty: int, sentences: int) -> str:
    """Return how many of the sentences are empty, with a probable cause if it is most of them; "" if none is."""
    if not empty:
        return ""
    cause = ": the weights or the tokenizer of the model are probably damaged" if 2 * empty >= sentences else ""
    return f"{empty} of {sentences} sentences are empty{cause}"


def length_limit(model: Any, processor: Any, generate_kwargs: dict[str, Any]) -> dict[str, int]:
    """Return the limit of new tokens if nothing else sets one: transformers would stop after 20, in mid-sentence."""
    config = model.generation_config
    limited = config.max_new_tokens is not None or config.max_length not in (None, 20)
    if limited or {"max_new_tokens", "max_length", "generation_config"} & generate_kwargs.keys():
        return {}
    return {"max_new_tokens": processor.settings["max_caption_length"]}


def printable(sentence: str) -> str:
    """Return a sentence as one line without control characters."""
    kept = (each for each in sentence if each.isspace() or unicodedata.category(each) != "Cc")
    return " ".join("".join(kept).split())


@contextlib.contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Set a model to evaluation mode, and back at the end."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():  # one by one: a frozen part may have been in evaluation mode before
            module.training = training
