"""The part of METEOR's paraphrase table that a set of sentences can use.

Each JVM needs about six seconds to read the five million paraphrases. A paraphrase is used only if the texts contain
all words of both phrases, so a table without the others gives the same alignments. The table is sorted by its first
phrase, so that the part is found quickly.
"""

import gzip
from bisect import bisect_left
from pathlib import Path

import numpy as np

from .java import jar

TABLE = ("meteor", "data", "paraphrase-en.gz")
SORTED_TABLE_BYTES = 61_813_011  # this table is sorted; any other is used whole


def needed_paraphrases(words: set[str], folder: Path) -> Path:
    """Write the entries that texts of these words can use to a table in `folder`, in their order; return its path."""
    table = jar(*TABLE)
    if table.stat().st_size != SORTED_TABLE_BYTES:
        return table
    known = {word.encode() for word in words}
    data = gzip.decompress(table.read_bytes())
    line_ends = _line_ends(np.frombuffer(data, np.uint8))
    part = folder / "paraphrases.gz"
    with gzip.open(part, "wb", compresslevel=1) as file:
        for word in sorted(known):
            file.writelines(_entries_from(word, known, data, line_ends))
    return part


def _line_ends(data: np.ndarray) -> np.ndarray:
    """Return the positions of line ends; in pieces that fit the cache, which takes a quarter of the time."""
    size = 2**20
    pieces = range(0, len(data), size)
    return np.concatenate([first + np.flatnonzero(data[first : first + size] == ord("\n")) for first in pieces])


def _entries_from(word: bytes, words: set[bytes], data: bytes, line_ends: np.ndarray) -> list[bytes]:
    """Return the entries whose first phrase begins with `word` and whose words are all in `words`.

    An entry is three lines: probability, phrase, paraphrase.
    """
    entries = range(len(line_ends) // 3)

    def phrase(entry: int) -> bytes:
        return data[line_ends[3 * entry] + 1 : line_ends[3 * entry + 1]]

    first = bisect_left(entries, word, key=phrase)
    last = bisect_left(entries, word + b"!", lo=first, key=phrase)  # "!" follows the space, which ends the word
    start = line_ends[3 * first - 1] + 1 if first else 0
    # split at "\n" alone, as line_ends was made
    lines = iter(data[start : line_ends[3 * last - 1]].split(b"\n") if first < last else [])
    kept, previous, usable = [], b"", False
    for probability, phrase_words, paraphrase in zip(lines, lines, lines, strict=True):
        if phrase_words != previous:
            previous, usable = phrase_words, words.issuperset(phrase_words.split())
        if usable and words.issuperset(paraphrase.split()):
            kept.append(b"%b\n%b\n%b\n" % (probability, phrase_words, paraphrase))
    return kept
