"""Whether a paraphrase means the same as its instruction, by the words that sentence embeddings hardly notice.

"left" that turned into "right", another color, another number, another text, or a thing that nobody asked for: the
embeddings of such sentences are nearly equal. The changes that both state are compared by a parser that the program
passes on, because parsers of changes are not a matter of data; what such a parser does not read is compared here.
"""

import re
from collections.abc import Callable, Collection
from typing import Any

VERSION = 1  # in the settings of a run; another number when the rules keep other paraphrases
Parser = Callable[[str], Collection[Any]]  # sentence -> the changes that it states, e.g. things and actions
OTHER_CHANGE, OTHER_WORDS, NEW_WORD, OTHER_TEXT = "other_change", "other_words", "new_word", "other_text"

_COLORS = (
    "red green blue yellow orange purple violet pink magenta cyan aqua turquoise teal brown tan beige black white "
    "maroon crimson scarlet navy indigo lavender olive lime"
)
_NUMBERS = "three four five six seven eight nine ten".split()
# Words that both sentences must have or lack; those of one entry may stand in for each other.
MEANINGS: dict[str, str] = {
    "left": r"left(?:most|wards?)?",
    "right": r"right(?:most|wards?)?",
    "top": r"top(?:most)?|upper(?:most)?|up(?:wards?)?|above",
    "bottom": r"bottom(?:most)?|lower(?:most)?|down(?:wards?)?|below|beneath|under(?:neath)?",
    "front": r"front|foreground",
    "behind": r"behind|back|background",
    "inside": r"inside|within",
    "outside": r"outside",
    "middle": r"middle|cent(?:er|re)",
    "clockwise": r"(?<!counter)(?<!counter-)(?<!anti)(?<!anti-)clockwise",
    "counterclockwise": r"(?:counter|anti)-?clockwise",
    "horizontal": r"horizontal(?:ly)?",
    "vertical": r"vertical(?:ly)?|upside[ -]down",
    "near": r"near(?:er|est)?|clos(?:er|est)|next to|beside",
    "far": r"farther|farthest|further|furthest",
    "turn on": r"(?:turn|switch)\w* on|(?:turn|switch)\w* (?:[\w'-]+ ){1,4}on(?=[.!]?$)",
    "turn off": r"(?:turn|switch)\w* (?:[\w'-]+ ){0,4}off",
    "zoom in": r"zoom\w* in",
    "zoom out": r"zoom\w* out",
    "more": r"more|increas\w+|enhanc\w+|boost\w*|rais\w+",
    "less": r"less|lessen|fewer|decreas\w+|reduc\w+",
    "he": r"he|him|his",
    "she": r"she|hers?",
    "bigger": r"(?:bigg|larg|tall|long|wid)(?:er|est)|enlarged?",
    "smaller": r"(?:small|short|narrow)(?:er|est)|shrink|shrunk",
    **{color: color for color in _COLORS.split()},
    "gray": r"gr[ae]y",
    "gold": r"gold(?:en)?",
    "silver": r"silver",
    "dark": r"dark(?:er|en)?",
    "bright": r"bright(?:er|en)?",
    "all": r"all|every|each|entire|whole",
    "other": r"other|another",
    "2": r"two|both|2",
    **{str(number): rf"{word}|{number}" for number, word in enumerate(_NUMBERS, 3)},
    "not": r"not|no|without|never",
}
_MEANINGS = {name: re.compile(rf"\b(?:{words})\b") for name, words in MEANINGS.items()}
# Words that name no thing: a paraphrase may use them although the instruction does not.
COMMON = set(
    "a an the this that these those it its they them their there his her some any one ones of in on at to from into "
    "onto off out over with for by as and or so is are be been being was were has have had do does now please just "
    "also only which who where while when you your me my i can could should would will make let us "
    "add place put insert include set position draw write paste attach give bring introduce install hang lay "
    "remove delete erase eliminate take away get rid cut clear discard drop "
    "change alter modify turn transform convert adjust update edit switch swap replace exchange substitute instead "
    "become look looks looking like appear appears seem show shows display depict feature render recreate redo use "
    "apply move shift relocate reposition rotate flip mirror crop zoom blur sharpen lighten increase decrease reduce "
    "raise enhance improve boost paint repaint recolor colorize dye color colors colour colours colored shade "
    "hue tone tint image images picture pictures photo photos photograph scene frame view style styled art artwork "
    "piece painting drawing version effect word words text phrase letters sign label side edge surface area part "
    "spot place more new".split()
)
_QUOTED = re.compile(
    "[\"\u201c\u201d]([^\"\u201c\u201d]+)[\"\u201c\u201d]|(?<!\\w)['\u2018]([^'\u2019]+)['\u2019](?!\\w)"
)


def meanings(sentence: str) -> set[str]:
    """Return the names of MEANINGS whose words a sentence contains."""
    return {name for name, words in _MEANINGS.items() if words.search(sentence.lower())}


def new_words(instruction: str, paraphrase: str) -> set[str]:
    """Return the words of a paraphrase that its instruction lacks, but for COMMON and the words of MEANINGS.

    Endings hardly matter: words are equal if their first five letters are, or all but an s at the end.
    """
    known = {word[:5] for word in _words(instruction)} | {word.rstrip("s") for word in _words(instruction)}
    return {
        word
        for word in _words(paraphrase)
        if word not in COMMON and word[:5] not in known and word.rstrip("s") not in known and not meanings(word)
    }


def other_number(instruction: str, paraphrase: str) -> bool:
    """Return whether a word of a paraphrase is the plural of one of the instruction, or the singular of a plural."""
    known, said = (set(_words(sentence)) - COMMON for sentence in (instruction, paraphrase))
    return any(
        known & {f"{word}s", f"{word}es", word.removesuffix("s"), word.removesuffix("es")} for word in said - known
    )


def quotations(sentence: str) -> set[str]:
    """Return the texts in quotation marks, in lower case without punctuation at the end."""
    return {(double or single).lower().strip(" .,!?") for double, single in _QUOTED.findall(sentence)}


def rule_against(instruction: str, paraphrase: str, parser: Parser | None) -> str:
    """Return why a paraphrase means something else, or "" if nothing speaks against it.

    OTHER_CHANGE: the parser, if there is one, reads other changes; OTHER_WORDS: a word of MEANINGS is missing or new,
    or a word has another number; OTHER_TEXT: it lacks a quotation; NEW_WORD: it names something that the instruction
    does not.
    """
    if parser and set(parser(instruction)) != set(parser(paraphrase)):
        return OTHER_CHANGE
    if meanings(instruction) != meanings(paraphrase) or other_number(instruction, paraphrase):
        return OTHER_WORDS
    said = quotations(paraphrase) or paraphrase.lower()
    if any(text not in said for text in quotations(instruction)):
        return OTHER_TEXT
    return NEW_WORD if new_words(instruction, paraphrase) else ""


def _words(sentence: str) -> list[str]:
    words = re.findall(r"[a-z0-9][\w'-]*", sentence.lower())
    return [word.rstrip("'-").removesuffix("'s") for word in words]
