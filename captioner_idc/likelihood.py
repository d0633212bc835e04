"""How likely a captioner finds sentences about pairs of images; for any family."""

from collections.abc import Sequence
from typing import Any

from .captioning import evaluation_mode, length_limit, printable
from .encoded_pairs import SENTENCES, EncodedPairs, Pair


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
        batch_size: pairs at a time, and sentences at a time.
        text: prompt instead of the one in the processor's settings.

    Raises: ValueError for another number of lists than of pairs.
    """
    if len(pairs) != len(sentences):
        raise ValueError(f"{len(pairs)} pairs, but {len(sentences)} lists of sentences: pass one list per pair.")
    found: list[list[float]] = []
    with evaluation_mode(model):
        for start in range(0, len(pairs), batch_size):
            chunk = slice(start, start + batch_size)
            about = EncodedPairs(model, processor, pairs[chunk], text)
            found += about.log_likelihoods(sentences[chunk], batch_size)
    return found


def likely_sentences(
    model: Any, processor: Any, pairs: Sequence[Pair], count: int, batch_size: int = 8, text: str | None = None
) -> list[list[tuple[str, float]]]:
    """Return at most `count` different sentences about each pair that beam search finds, with their log-likelihoods.

    The most likely comes first.

    Args:
        batch_size: pairs at a time.
        text: prompt instead of the one in the processor's settings.
    """
    found: list[list[tuple[str, float]]] = []
    with evaluation_mode(model):
        for start in range(0, len(pairs), batch_size):
            about = EncodedPairs(model, processor, pairs[start : start + batch_size], text)
            found += likely_about(about, count)[0]
    return found


def likely_about(
    about: EncodedPairs, count: int, others: Sequence[str] = ()
) -> tuple[list[list[tuple[str, float]]], list[list[float]]]:
    """Return what `likely_sentences` returns, and the log-likelihoods of other sentences about each pair.

    Args:
        about: pairs of a model in evaluation mode.
        others: the same about all pairs.
    """
    options = {**length_limit(about.model, about.processor, {}), "num_beams": count, "num_return_sequences": count}
    tokens = about.generate(do_sample=False, **options)
    sentences = [printable(each) for each in about.processor.batch_decode(tokens, skip_special_tokens=True)]
    groups = (sentences[first : first + count] for first in range(0, len(sentences), count))
    found = [list(dict.fromkeys(filter(None, group))) for group in groups]
    scores = about.log_likelihoods([[*group, *others] for group in found], SENTENCES)
    likely = [
        sorted(zip(group, values[: len(group)], strict=True), key=lambda sentence: -sentence[1])
        for group, values in zip(found, scores, strict=True)
    ]
    return likely, [values[len(group) :] for group, values in zip(found, scores, strict=True)]
