"""The part of METEOR's paraphrase table that a set of sentences can use.

The jar takes about six seconds of a core to read its five million paraphrases, in each JVM. It uses one only where all
words of both phrases stand in the texts, so a table without the others gives the same alignments. The table is
sorted by its first phrase, which makes the part quick to find.
"""

import gzip
from bisect import bisect_left
from pathlib import Path

import numpy as np

from .java import jar

TABLE = ("meteor", "data", "paraphrase-en.gz")
SORTED_TABLE_BYTES = 61_813_011  # the table known to be sorted; any other is used whole


def needed_paraphrases(words: set[str], folder: Path) -> Path:
    """A table in the folder with what texts of these words can use, entries in their order."""
    table = jar(*TABLE)
    if table.stat().st_size != SORTED_TABLE_BYTES:
        return table
    known = {word.encode("utf-8", "replace") for word in words}
    data = gzip.decompress(table.read_bytes())
    line_ends = _line_ends(np.frombuffer(data, np.uint8))
    part = folder / "paraphrases.gz"
    with gzip.open(part, "wb", compresslevel=1) as file:
        for word in sorted(known):
            file.writelines(_entries_from(word, known, data, line_ends))
    return part


def _line_ends(data: np.ndarray) -> np.ndarray:
    """Where the line ends are; piece by piece, because pieces that fit the cache take a quarter of the time."""
    size = 2**20
    pieces = range(0, len(data), size)
    return np.concatenate([first + np.flatnonzero(data[first : first + size] == ord("\n")) for first in pieces])


def _entries_from(word: bytes, words: set[bytes], data: bytes, line_ends: np.ndarray) -> list[bytes]:
    """The entries whose first phrase begins with the word and which have no word but these.

    An entry is three lines: probability, phrase, paraphrase.
    """
    entries = range(len(line_ends) // 3)

    def phrase(entry: int) -> bytes:
        return data[line_ends[3 * entry] + 1 : line_ends[3 * entry + 1]]

    first = bisect_left(entries, word, key=phrase)
    last = bisect_left(entries, word + b"!", lo=first, key=phrase)  # "!" follows the blank, which ends the word
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
