"""How sure a captioner is that anything changed, its best sentences, and how well a claim fits a pair.

    calibration = read_calibration("runs/mine")
    answer = explain(model, processor, ("before.png", "after.png"), calibration)
    answer.change_probability, answer.sentences

The probability compares the likelihood of the sentences that say no change with that of the best other sentence. Its
temperature is fitted on validation pairs and saved next to the weights.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import cached_file

from common_idc.atomic_files import write_json

from .captioning import MemoryLimit, evaluation_mode
from .encoded_pairs import EncodedPairs, Pair
from .likelihood import likely_about

FILE = "change_probability.json"
# Of a captioner that was not calibrated; one that was has those of its training data.
UNCHANGED = ("nothing has changed", "no change was made", "there is no difference", "the two images are the same")
BEAMS = 5
MOST_SENTENCES = 10  # that say no change
LEAST_PROBABILITY = 1e-6  # below it, a claim would be judged by this number alone
TEMPERATURES = np.geomspace(0.05, 50, 400)


@dataclass(frozen=True)
class Calibration:
    """What turns likelihoods into a probability.

    Args:
        unchanged: the sentences that say no change.
        temperature: by which the difference of log-likelihoods is divided.
        pairs: validation pairs that the temperature was fitted on; 0 if it was not.
    """

    unchanged: tuple[str, ...] = UNCHANGED
    temperature: float = 1.0
    pairs: int = 0

    def probability(self, difference: float) -> float:
        """Return the probability of a change."""
        return 1 / (1 + math.exp(-max(-500.0, min(500.0, difference / self.temperature))))

    def says_unchanged(self, sentence: str) -> bool:
        """Return whether a sentence is one of those that say no change."""
        return plain(sentence) in {plain(text) for text in self.unchanged}


@dataclass(frozen=True)
class Answer:
    """What a captioner says about a pair.

    Args:
        change_probability: that anything changed, 0 to 1.
        sentences: the best, with their log-likelihoods; the most likely comes first.
    """

    change_probability: float
    sentences: list[tuple[str, float]]


def plain(sentence: str) -> str:
    return " ".join(sentence.lower().split()).rstrip(".")


def explain(
    model: Any,
    processor: Any,
    pair: Pair,
    calibration: Calibration,
    count: int = BEAMS,
    text: str | None = None,
) -> Answer:
    """Return the probability of a change and the best sentences about a pair.

    Args:
        count: beams of the search, and most sentences.
        text: prompt instead of the one in the processor's settings.
    """
    [answer] = explain_pairs(model, processor, [pair], calibration, count, text=text)
    return answer


def explain_pairs(
    model: Any,
    processor: Any,
    pairs: Sequence[Pair],
    calibration: Calibration,
    count: int = BEAMS,
    batch_size: int = 8,
    text: str | None = None,
) -> list[Answer]:
    """Return what `explain` returns, for several pairs; `batch_size` of them at a time."""
    answers, limit = [], MemoryLimit()

    def answer(part: Sequence[Pair]) -> list[Answer]:
        compared = compare_about(EncodedPairs(model, processor, part, text), calibration, count)
        return [Answer(calibration.probability(value), sentences) for sentences, value in compared]

    with evaluation_mode(model):
        for start in range(0, len(pairs), batch_size):
            answers += limit.split(answer, pairs[start : start + batch_size])
    return answers


def compare_about(
    about: EncodedPairs, calibration: Calibration, count: int = BEAMS
) -> list[tuple[list[tuple[str, float]], float]]:
    """Return the best sentences about each pair with their log-likelihoods, and the `difference`.

    Args:
        about: pairs of a model in evaluation mode.
        count: beams of the search, and most sentences.
    """
    likely, unchanged = likely_about(about, count, calibration.unchanged)
    return [(each, difference(each, scores, calibration)) for each, scores in zip(likely, unchanged, strict=True)]


def difference(sentences: list[tuple[str, float]], unchanged: Sequence[float], calibration: Calibration) -> float:
    """Return the log-likelihood of the best sentence about a change minus that of no change.

    If the beam search found only sentences that say no change, a change is at most as likely as the last of these.
    """
    changed = [score for sentence, score in sentences if not calibration.says_unchanged(sentence)]
    best = changed[0] if changed else min((score for _, score in sentences), default=-math.inf)
    return best - float(np.logaddexp.reduce(unchanged))


def score_claims(
    model: Any,
    processor: Any,
    pair: Pair,
    claims: Sequence[str],
    calibration: Calibration,
    text: str | None = None,
) -> list[float]:
    """Return how well each claim fits a pair; higher is better, and a claim above 0 fits better than no pair at all.

    The likelihood alone would reward common words. So a claim that something changed gets the logarithm of how much
    more likely it is than about the image before given twice, plus the logarithm of the probability of a change; a
    claim that nothing changed gets the logarithm of the probability of no change.
    """
    with evaluation_mode(model):
        about = EncodedPairs(model, processor, [pair], text)
        [(_, value)] = compare_about(about, calibration)
        [shown] = about.log_likelihoods([claims])
        [twice] = EncodedPairs(model, processor, [(pair[0], pair[0])], text).log_likelihoods([claims])
    probability = calibration.probability(value)
    changed, unchanged = max(probability, LEAST_PROBABILITY), max(1 - probability, LEAST_PROBABILITY)
    return [
        math.log(unchanged) if calibration.says_unchanged(claim) else math.log(changed) + here - there
        for claim, here, there in zip(claims, shown, twice, strict=True)
    ]


def score_claim(
    model: Any, processor: Any, before: Any, after: Any, claim: str, calibration: Calibration, text: str | None = None
) -> float:
    """Return how well a claim fits a pair, see `score_claims`."""
    [score] = score_claims(model, processor, (before, after), [claim], calibration, text)
    return score


def unchanged_sentences(captions: Iterable[str]) -> tuple[str, ...]:
    """Return the most frequent captions of unchanged pairs; the default sentences if there is none."""
    frequent = Counter(captions).most_common(MOST_SENTENCES)
    return tuple(caption for caption, _ in frequent) or UNCHANGED


def fit_temperature(differences: np.ndarray, changed: np.ndarray) -> float:
    """Return the temperature under which the labels are most likely (Guo et al. 2017), with Platt's targets.

    Args:
        differences: of the pairs, [N].
        changed: whether anything changed, [N] bool.

    Raises: ValueError if all pairs are changed, or none is.
    """
    if len(set(changed.tolist())) < 2:
        raise ValueError("to calibrate the probability of a change, changed and unchanged pairs are needed.")
    logits = differences[None, :] / TEMPERATURES[:, None]
    # Platt's targets (1999): otherwise separable pairs would make every probability 0 or 1
    positive, negative = changed.sum(), (~changed).sum()
    targets = np.where(changed, (positive + 1) / (positive + 2), 1 / (negative + 2))
    losses = (np.logaddexp(0, logits) - targets * logits).mean(axis=1)
    return float(TEMPERATURES[losses.argmin()])


def fit_calibration(differences: Sequence[float], changed: Sequence[bool], unchanged: tuple[str, ...]) -> Calibration:
    """Return a calibration with the temperature that fits validation pairs.

    Args:
        differences: what `compare_about` found for them.
        changed: whether anything changed, of each pair.
        unchanged: the sentences that say no change.

    Raises: ValueError if all pairs are changed, or none is.
    """
    return Calibration(unchanged, fit_temperature(np.array(differences), np.array(changed)), len(differences))


def write_calibration(calibration: Calibration, folder: Path) -> None:
    """Write a calibration next to the weights it was fitted for."""
    write_json(folder / FILE, asdict(calibration))


def read_calibration(name: str | os.PathLike, revision: str | None = None) -> Calibration:
    """Return the calibration saved with a model or an adapter, or the default where there is none.

    Args:
        name, revision: folder or Hub id.

    Raises: ValueError for a damaged file.
    """
    options = {"revision": revision, "_raise_exceptions_for_missing_entries": False}
    file = cached_file(os.fspath(name), FILE, _raise_exceptions_for_connection_errors=False, **options)
    if file is None:
        return Calibration()
    try:
        saved = json.loads(Path(file).read_text(encoding="utf-8"))
        return Calibration(tuple(saved["unchanged"]), float(saved["temperature"]), int(saved["pairs"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file!r} is damaged ({error!r}): calibrate the captioner again.") from error
