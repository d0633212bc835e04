"""N-gram counts of many sentences at once, as flat arrays, for BLEU and CIDEr."""

from dataclasses import dataclass

import numpy as np

ORDER = 4


@dataclass(frozen=True)
class NgramCounts:
    """The n-grams of each text with their counts; the entries of a text are consecutive, ordered by n-gram."""

    start: np.ndarray  # [texts + 1] a text's first entry
    ngrams: np.ndarray  # [entries]
    counts: np.ndarray  # [entries]
    orders: np.ndarray  # [n-grams] length of the n-gram, less one
    words: np.ndarray  # [texts] length of the text

    @property
    def text_of(self) -> np.ndarray:
        """Return [entries] the text that each entry belongs to."""
        return np.repeat(np.arange(len(self.words)), np.diff(self.start))

    def rows(self, texts: np.ndarray) -> "NgramCounts":
        """Return the counts of these texts, in this order; the n-grams keep their numbers."""
        sizes = np.diff(self.start)[texts]
        start = np.concatenate([[0], np.cumsum(sizes)])
        entries = np.arange(start[-1]) + np.repeat(self.start[:-1][texts] - start[:-1], sizes)
        return NgramCounts(start, self.ngrams[entries], self.counts[entries], self.orders, self.words[texts])


def count_ngrams(texts: list[str]) -> NgramCounts:
    """Count the n-grams of length 1 to 4 of space-separated words; repeated texts are counted once and copied."""
    number = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    counts = _count([text.split() for text in number])
    return counts.rows(np.fromiter((number[text] for text in texts), int, len(texts)))


def _count(texts: list[list[str]]) -> NgramCounts:
    vocabulary: dict[str, int] = {}
    words = np.array([vocabulary.setdefault(word, len(vocabulary)) for text in texts for word in text], dtype=int)
    lengths = np.array([len(text) for text in texts], dtype=int)
    text_of = np.repeat(np.arange(len(texts)), lengths)
    left = lengths.sum() and np.repeat(np.cumsum(lengths), lengths) - np.arange(len(words))  # words to the text's end

    found, orders = [], []  # per order [entries, (text, n-gram, count)] and the n-grams' order
    ngram_at = words.copy()  # word position -> the n-gram that begins there
    for order in range(ORDER):
        positions = np.flatnonzero(left > order) if len(words) else words
        if order:
            keys = ngram_at[positions] * len(vocabulary) + words[positions + order]
            _, ngram_at[positions] = np.unique(keys, return_inverse=True)
        distinct = int(ngram_at[positions].max(initial=-1)) + 1
        keys, counts = np.unique(text_of[positions] * max(1, distinct) + ngram_at[positions], return_counts=True)
        text, ngram = np.divmod(keys, max(1, distinct))
        found.append(np.stack([text, ngram + len(orders), counts], axis=1))
        orders += [order] * distinct
    entries = np.concatenate(found)
    entries = entries[np.argsort(entries[:, 0], kind="stable")]  # by text, then as found: by n-gram
    start = np.searchsorted(entries[:, 0], np.arange(len(texts) + 1))
    return NgramCounts(start, entries[:, 1], entries[:, 2].astype(float), np.array(orders, dtype=int), lengths)
