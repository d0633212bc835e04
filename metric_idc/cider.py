"""CIDEr as everyone runs it: pycocoevalcap's clipped, length-penalised form, and the best constant caption under it.

The n-gram counts are pycocoevalcap's; the tf-idf arithmetic is done here on arrays, because the constant-caption
control needs the score of one sentence against every reference of a training set. A test holds both to 1e-9.
"""

import numpy as np

SCORES = ("CIDEr",)
IMPLEMENTATION = (
    "CIDEr of pycocoevalcap (clipped, length penalty sigma 6, times 10), document frequency from the scored references"
)
ORDER = 4
SIGMA = 6.0
TIE = 1e-9  # scores nearer than this are equal: sums in another order differ by less


def segment_statistics(systems: list[list[str]], references: list[list[str]]) -> list[np.ndarray]:
    """Per system [pairs]: the CIDEr of each prediction, with the document frequencies of these references."""
    index = ReferenceIndex(references)
    return [index.segment_scores(system) for system in systems]


def reduce(statistics: np.ndarray) -> dict[str, float]:
    """The mean over pairs."""
    return {"CIDEr": float(statistics.mean())}


def best_constant_caption(references: list[list[str]]) -> str:
    """The reference that has the highest CIDEr as the answer to every pair; ties go to the first by text."""
    return ReferenceIndex(references).best_constant()


class ReferenceIndex:
    """The tf-idf vectors of all references as flat arrays; an entry is one n-gram of one reference."""

    def __init__(self, references: list[list[str]]) -> None:
        self.texts = [text for texts in references for text in texts]
        self.per_pair = np.array([len(texts) for texts in references])
        self.first = np.concatenate([[0], np.cumsum(self.per_pair)])  # pair -> its first reference
        pair_of = np.repeat(np.arange(len(references)), self.per_pair)
        self.vocabulary: dict[tuple[str, ...], int] = {}
        cooked = self._cook()
        sizes = np.array([len(ids) for ids, _ in cooked])
        self.start = np.concatenate([[0], np.cumsum(sizes)])  # reference -> its first entry
        self.ids = np.concatenate([ids for ids, _ in cooked])
        counts = np.concatenate([values for _, values in cooked])
        reference_of = np.repeat(np.arange(len(self.texts)), sizes)

        # log of how many pairs have the n-gram in any reference, out of all pairs
        self.log_pairs = np.log(float(len(references)))
        seen = np.unique(pair_of[reference_of] * len(self.vocabulary) + self.ids) % max(1, len(self.vocabulary))
        self.idf = self.log_pairs - np.log(np.bincount(seen, minlength=len(self.vocabulary)))
        orders = np.fromiter((len(ngram) - 1 for ngram in self.vocabulary), int, len(self.vocabulary))

        self.weights = counts * self.idf[self.ids]
        self.cell = reference_of * ORDER + orders[self.ids]  # entry -> place in a flat [references, ORDER]
        squares = np.bincount(self.cell, self.weights**2, minlength=len(self.texts) * ORDER)
        self.norms = np.sqrt(squares).reshape(-1, ORDER)
        # the length in the penalty is pycocoevalcap's: the number of bigrams
        bigrams = np.bincount(self.cell, counts, minlength=len(self.texts) * ORDER)
        self.lengths = bigrams.reshape(-1, ORDER)[:, 1]
        self._row = np.zeros(len(self.vocabulary))  # scratch: the weights of one sentence, spread over the vocabulary

    def segment_scores(self, predictions: list[str]) -> np.ndarray:
        """[pairs]: each prediction against the references of its own pair."""
        scores = np.zeros(len(self.per_pair))
        for pair, prediction in enumerate(predictions):
            similarity = self._similarity(prediction, self.first[pair], self.first[pair + 1])
            scores[pair] = 10 * similarity.sum() / self.per_pair[pair]
        return scores

    def constant_score(self, sentence: str) -> float:
        """The corpus score of one sentence given as the answer to every pair."""
        similarity = self._similarity(sentence, 0, len(self.texts))
        return float(10 * similarity @ self._shares())

    def best_constant(self) -> str:
        """Exact best-first search: an upper bound for every candidate, then true scores until no bound is higher."""
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

    def _cook(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per reference its n-gram ids and counts; equal texts are counted once."""
        from pycocoevalcap.cider.cider_scorer import precook

        number = self.vocabulary
        cooked: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for text in self.texts:
            if text not in cooked:
                counts = precook(text, ORDER)
                ids = np.array([number.setdefault(ngram, len(number)) for ngram in counts], dtype=int)
                cooked[text] = ids, np.array(list(counts.values()), dtype=float)
        return [cooked[text] for text in self.texts]

    def _vector(self, sentence: str) -> tuple[list[int], list[float], np.ndarray, float]:
        """Ids and weights of the n-grams that some reference has; norms and length over all n-grams."""
        from pycocoevalcap.cider.cider_scorer import precook

        ids, weights, squares, length = [], [], np.zeros(ORDER), 0.0
        for ngram, count in precook(sentence, ORDER).items():
            number = self.vocabulary.get(ngram)
            weight = count * (self.log_pairs if number is None else self.idf[number])
            squares[len(ngram) - 1] += weight**2
            length += count if len(ngram) == 2 else 0
            if number is not None:
                ids.append(number)
                weights.append(weight)
        return ids, weights, np.sqrt(squares), length

    def _similarity(self, sentence: str, first: int, last: int) -> np.ndarray:
        """[last - first]: the sentence against each of these references, mean over n-gram orders."""
        ids, weights, norms, length = self._vector(sentence)
        entries = slice(self.start[first], self.start[last])
        theirs = self.weights[entries]
        self._row[ids] = weights
        clipped = np.minimum(self._row[self.ids[entries]], theirs) * theirs
        self._row[ids] = 0
        cells = self.cell[entries] - first * ORDER
        dots = np.bincount(cells, clipped, minlength=(last - first) * ORDER).reshape(-1, ORDER)
        scale = norms * self.norms[first:last]
        cosines = np.divide(dots, scale, out=np.zeros(dots.shape), where=scale != 0)  # [references, ORDER]
        return cosines.mean(axis=1) * self._penalty(length)[first:last]

    def _penalty(self, length: float) -> np.ndarray:
        return np.exp(-((length - self.lengths) ** 2) / (2 * SIGMA**2))

    def _shares(self) -> np.ndarray:
        """[references]: what each reference counts in the mean over pairs of means over references."""
        return np.repeat(1 / (self.per_pair * len(self.per_pair)), self.per_pair)

    def _upper_bounds(self) -> dict[str, float]:
        """Per distinct reference its constant score without the clipping, which can only lower it.

        Without clipping the score is linear in the references, so that their weighted sum, one per candidate length
        because of the length penalty, stands for all of them.
        """
        number = {text: place for place, text in enumerate(self.texts)}
        norms = self.norms.ravel()[self.cell]
        unit = np.divide(self.weights, norms, out=np.zeros(self.weights.shape), where=norms != 0)
        reference_of = self.cell // ORDER
        bounds = {}
        for length in np.unique(self.lengths):
            share = 10 / ORDER * self._shares() * self._penalty(length)
            consensus = np.bincount(self.ids, unit * share[reference_of], minlength=len(self.vocabulary))
            for text, place in number.items():
                if self.lengths[place] == length:
                    entries = slice(self.start[place], self.start[place + 1])
                    bounds[text] = float(unit[entries] @ consensus[self.ids[entries]])
        return bounds
