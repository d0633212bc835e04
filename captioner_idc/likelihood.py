"""How likely a captioner finds sentences about pairs of images; for any family."""

from collections.abc import Sequence
from typing import Any

import torch

from modeling_blip2idc.modeling_blip2idc import labelled_targets

from .captioning import Pair, evaluation_mode, generate_tokens, length_limit, printable


def log_likelihoods(
    model: Any,
    processor: Any,
    pairs: Sequence[Pair],
    sentences: Sequence[Sequence[str]],
    batch_size: int = 32,
    text: str | None = None,
) -> list[list[float]]:
    """Return the natural logarithm of the probability of each sentence, with its end, about each pair.

    Args:
        pairs: (before, after), loaded by `processor.load_pair` or anything that it takes.
        sentences: about each pair, any number.
        batch_size: sentences at a time.
        text: prompt instead of the one in the processor's settings.

    Raises: ValueError for another number of lists than of pairs.
    """
    if len(pairs) != len(sentences):
        raise ValueError(f"{len(pairs)} pairs, but {len(sentences)} lists of sentences: pass one list per pair.")
    flat = [(pair, sentence) for pair, about in zip(pairs, sentences, strict=True) for sentence in about]
    found: list[float] = []
    with evaluation_mode(model):
        for start in range(0, len(flat), batch_size):
            found += _sums(model, processor, flat[start : start + batch_size], text)
    left = iter(found)
    return [[next(left) for _ in about] for about in sentences]


@torch.inference_mode()
def _sums(model: Any, processor: Any, batch: list[tuple[Pair, str]], text: str | None) -> list[float]:
    befores, afters = zip(*(pair for pair, _ in batch), strict=True)
    inputs = processor(before=befores, after=afters, captions=[sentence for _, sentence in batch], text=text)
    inputs = inputs.to(model.device)
    logits, labels = model(**inputs).logits.float(), inputs["labels"]
    # A decoder returns the logits of labelled positions only, an encoder-decoder those of all labels.
    encoder_decoder = processor.settings.get("decoder_only") is False
    targets = labels if encoder_decoder else labelled_targets(labels)[0]
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")  # 0 where ignored
    return (-losses.sum(dim=1)).tolist()


def likely_sentences(
    model: Any, processor: Any, pairs: Sequence[Pair], count: int, batch_size: int = 8, text: str | None = None
) -> list[list[tuple[str, float]]]:
    """Return at most `count` different sentences about each pair that beam search finds, with their log-likelihoods.

    The most likely comes first.

    Args:
        batch_size: pairs at a time.
        text: prompt instead of the one in the processor's settings.
    """
    options = {**length_limit(model, processor, {}), "num_beams": count, "num_return_sequences": count}
    found: list[list[str]] = []
    with evaluation_mode(model):
        for start in range(0, len(pairs), batch_size):
            befores, afters = zip(*pairs[start : start + batch_size], strict=True)
            inputs = processor(before=befores, after=afters, text=text)
            tokens = generate_tokens(model, inputs, do_sample=False, **options)
            sentences = [printable(each) for each in processor.batch_decode(tokens, skip_special_tokens=True)]
            about = (sentences[first : first + count] for first in range(0, len(sentences), count))
            found += [list(dict.fromkeys(filter(None, each))) for each in about]
    scores = log_likelihoods(model, processor, pairs, found, batch_size * count, text)
    scored = (zip(*each, strict=True) for each in zip(found, scores, strict=True))
    return [sorted(each, key=lambda sentence: -sentence[1]) for each in scored]
