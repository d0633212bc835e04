"""English to read: definitions and nouns of WordNet.

WordNet's files are those of Debian's package wordnet-base, in /usr/share/wordnet (its licence allows any use).
"""

import re
from pathlib import Path

FILES = ("data.noun", "data.adj", "data.verb", "data.adv")
PLAIN = re.compile(r"[A-Za-z][A-Za-z ,'-]*")
LEAST_WORDS = 4


def definitions(folder: Path) -> list[str]:
    """Return the definitions and example sentences of WordNet in plain letters, in lower case."""
    found = []
    for file in FILES:
        for line in (folder / file).read_text(encoding="latin-1").splitlines():
            if line.startswith("  ") or "|" not in line:  # the licence
                continue
            parts = (part.strip().strip('"') for part in line.split("|", 1)[1].split(";"))
            found += [part.lower() for part in parts if PLAIN.fullmatch(part) and len(part.split()) >= LEAST_WORDS]
    return found


def nouns(folder: Path, most_letters: int = 12) -> list[str]:
    """Return the common nouns of one word."""
    words = set()
    for line in (folder / "index.noun").read_text(encoding="latin-1").splitlines():
        word = line.split(" ", 1)[0]
        if re.fullmatch(rf"[a-z]{{3,{most_letters}}}", word):
            words.add(word)
    return sorted(words)
