"""CIDEr as everyone runs it: pycocoevalcap's clipped, length-penalised form, and the best constant caption under it.

The arithmetic is done here on arrays, because the constant-caption control needs the score of one sentence against
every reference of a training set. A test compares it with pycocoevalcap's, to 1e-9.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .ngrams import ORDER, NgramCounts, count_ngrams

SCORES = ("CIDEr",)
IMPLEMENTATION = (
    "CIDEr of pycocoevalcap (clipped, length penalty sigma 6, times 10), document frequency from the scored references"
)
SIGMA = 6.0
TIE = 1e-9  # scores nearer than this are equal: sums in another order differ by less


def segment_statistics(systems: list[list[str]], references: list[list[str]]) -> list[np.ndarray]:
    """Return per system [pairs] the CIDEr of each prediction, with the document frequencies of these references."""
    index = ReferenceIndex(references, [text for system in systems for text in system])
    return [index.segment_scores(system) for system in systems]


def reduce(total: np.ndarray, pairs: int) -> dict[str, float]:
    """Return the mean over pairs."""
    return {"CIDEr": float(total / pairs)}


def best_constant_caption(references: list[list[str]], texts: list[list[str]]) -> tuple[str, str]:
    """Return the reference with the highest CIDEr as the answer to every pair: its tokens, and the caption as written.

    Ties go to the first in alphabetical order.

    Args:
        references: tokenized; `texts` in the same shape: the captions they were made of.
    """
    best = ReferenceIndex(references).best_constant()
    both = zip(references, texts, strict=True)
    return best, min(text for pair in both for tokens, text in zip(*pair, strict=True) if tokens == best)


@dataclass(frozen=True)
class Vectors:
    """Tf-idf vectors of texts; an entry is one n-gram of one text."""

    counts: NgramCounts
    weights: np.ndarray  # [entries]
    cell: np.ndarray  # [entries] index into a flat [texts, ORDER]
    norms: np.ndarray  # [texts, ORDER]
    lengths: np.ndarray  # [texts] the length in the penalty is pycocoevalcap's: the number of bigrams


class ReferenceIndex:
    """Vectors of all references, and of other texts with the references' document frequencies."""

    def __init__(self, references: list[list[str]], others: Iterable[str] = ()) -> None:
        self.texts = [text for texts in references for text in texts]
        self.per_pair = np.array([len(texts) for texts in references])
        self.pair_of = np.repeat(np.arange(len(references)), self.per_pair)
        self.position_of = {text: row for row, text in enumerate(dict.fromkeys([*self.texts, *others]))}
        self.counts = count_ngrams(list(self.position_of))
        of_references = self._rows(self.texts)

        # log of how many pairs have the n-gram in any reference, out of all pairs
        ngrams = len(self.counts.orders)
        keys = np.sort(self.pair_of[of_references.text_of] * ngrams + of_references.ngrams)
        # a key that differs from its predecessor is another pair or n-gram; np.unique takes ten times as long
        seen = keys[np.diff(keys, prepend=-1) > 0] % max(1, ngrams)
        frequency = np.bincount(seen, minlength=ngrams)
        self.idf = np.log(float(len(references))) - np.log(np.maximum(1, frequency))
        self.references = self._vectors(of_references)
        self._row = np.zeros(ngrams)  # scratch: the weights of one sentence, spread over the n-grams

    def segment_scores(self, predictions: list[str]) -> np.ndarray:
        """Return [pairs] the score of each prediction against the references of its own pair."""
        theirs, ours = self.references, self._vectors(self._rows(predictions))
        keys = self.pair_of[theirs.counts.text_of] * len(self.idf) + theirs.counts.ngrams
        known = ours.counts.text_of * len(self.idf) + ours.counts.ngrams  # in order
        found = np.searchsorted(known, keys)
        found[found == len(known)] = 0
        weights = np.zeros(len(keys))
        if len(known):
            weights = np.where(known[found] == keys, ours.weights[found], 0)
        similarity = self._similarity(weights, ours.norms[self.pair_of], ours.lengths[self.pair_of])
        return 10 * np.bincount(self.pair_of, similarity, minlength=len(self.per_pair)) / self.per_pair

    def constant_score(self, sentence: str) -> float:
        """Return the corpus score of one of the texts as the answer to every pair."""
        vector = self._vectors(self._rows([sentence]))
        self._row[vector.counts.ngrams] = vector.weights
        similarity = self._similarity(self._row[self.references.counts.ngrams], vector.norms, vector.lengths)
        self._row[vector.counts.ngrams] = 0
        return float(10 * similarity @ self._shares())

    def best_constant(self) -> str:
        """Return the best constant answer, by exact best-first search.

        Every candidate gets an upper bound; then true scores are computed until no bound is higher.
        """
        bounds = self._upper_bounds()
        best, winners = -1.0, []
        for text in sorted(bounds, key=lambda text: (-bounds[text], text)):
            if bounds[text] < best - TIE:
                break
            score = self.constant_score(text)
            if score > best + TIE:
                best, winners = score, [text]
            elif score >= best - TIE:
                winners.append(text)
        return min(winners)

    def _rows(self, texts: list[str]) -> NgramCounts:
        return self.counts.rows(np.fromiter((self.position_of[text] for text in texts), int, len(texts)))

    def _vectors(self, counts: NgramCounts) -> Vectors:
        texts = len(counts.words)
        weights = counts.counts * self.idf[counts.ngrams]
        cell = counts.text_of * ORDER + counts.orders[counts.ngrams]
        norms = np.sqrt(np.bincount(cell, weights**2, minlength=texts * ORDER)).reshape(-1, ORDER)
        return Vectors(counts, weights, cell, norms, np.maximum(0, counts.words - 1))

    def _similarity(self, weights: np.ndarray, norms: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return [references] the similarity of predictions and references, the mean over n-gram orders.

        `weights` [entries of the references] are those of the predictions, 0 where the n-gram is missing.
        """
        theirs = self.references
        clipped = np.minimum(weights, theirs.weights) * theirs.weights
        dots = np.bincount(theirs.cell, clipped, minlength=theirs.norms.size).reshape(-1, ORDER)
        scale = norms * theirs.norms
        cosines = np.divide(dots, scale, out=np.zeros(dots.shape), where=scale != 0)  # [references, ORDER]
        return cosines.mean(axis=1) * self._penalty(lengths)

    def _penalty(self, lengths: np.ndarray | float) -> np.ndarray:
        return np.exp(-((lengths - self.references.lengths) ** 2) / (2 * SIGMA**2))

    def _shares(self) -> np.ndarray:
        """Return [references] the weight of each reference in the mean over pairs of means over references."""
        return np.repeat(1 / (self.per_pair * len(self.per_pair)), self.per_pair)

    def _upper_bounds(self) -> dict[str, float]:
        """Return per distinct reference its constant score without clipping, which can only lower a score.

        Without clipping the score is linear in the references, so that their weighted sum replaces them all; there is
        one sum per candidate length, because of the length penalty.
        """
        theirs = self.references
        ngrams, start = theirs.counts.ngrams, theirs.counts.start
        positions = {text: row for row, text in enumerate(self.texts)}
        norms = theirs.norms.ravel()[theirs.cell]
        unit = np.divide(theirs.weights, norms, out=np.zeros(norms.shape), where=norms != 0)
        reference_of = theirs.cell // ORDER
        bounds = {}
        for length in np.unique(theirs.lengths):
            share = 10 / ORDER * self._shares() * self._penalty(length)
            consensus = np.bincount(ngrams, unit * share[reference_of], minlength=len(self.idf))
            for text, row in positions.items():
                if theirs.lengths[row] == length:
                    entries = slice(start[row], start[row + 1])
                    bounds[text] = float(unit[entries] @ consensus[ngrams[entries]])
        return bounds
