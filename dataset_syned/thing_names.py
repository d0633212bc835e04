"""Names of things as noun phrases: "A Sumatran tiger." is "sumatran tiger", said as "a sumatran tiger"."""

import re
from dataclasses import dataclass

NUMBERS = ("two", "three", "four", "five", "six", "some", "several", "many")
ARTICLES = ("a", "an", "the", "one", "our", "my", "your", "his", "her", "another")
MASS = {"bread", "broccoli", "cheese", "confetti", "corn", "garlic", "ginger", "grass", "hair", "knitting", "water"}
# A name ends before these words: "A hoverfly resembles a honeybee drone" is "hoverfly".
ENDINGS = (
    "that which who is are was were means mean resembles lets let for to at with by from in on used worn playing "
    "dancing singing has have can must should making covered hatched inside until saw also about if when"
).split()
ADDRESSING = {"you", "your", "we", "it", "i", "it's", "don't", "say", "eat", "remember"}  # such lines name nothing
NO_NAMES = {"image", "img", "dsc", "dscn", "pict", "picture", "photo", "scan", "untitled", "file", "cutout", "copy"}
WORD = re.compile(r"[a-z][a-z0-9'-]*")
MOST_WORDS = 4
COMPOUNDS = {
    "sea lion",
    "guinea fowl",
    "drum kit",
    "post box",
    "roll call",
    "grave marker",
    "hair dryer",
    "teddy bear",
}


@dataclass(frozen=True)
class ThingName:
    """A name without article; `plural` and `mass` nouns have "some" in place of "a".

    Args:
        number: the word that a plural has in place of "some", e.g. "two".
    """

    text: str
    plural: bool = False
    mass: bool = False
    number: str = "some"

    @property
    def indefinite(self) -> str:
        if self.text == SOMETHING.text:
            return self.text
        return f"{self.number if self.plural or self.mass else article(self.text)} {self.text}"

    @property
    def definite(self) -> str:
        if self.text == SOMETHING.text:
            return self.text
        number = f"{self.number} " if self.plural and self.number in NUMBERS[:5] else ""
        return f"the {number}{self.text}"

    @property
    def head(self) -> "ThingName":
        """Return the name without its adjectives: "tiger"; that of "bunch of grapes" stays whole."""
        words = self.text.split()
        if "of" in words:
            return self
        kept = 2 if " ".join(words[-2:]) in COMPOUNDS else 1
        return ThingName(" ".join(words[-kept:]), self.plural, self.mass, self.number)


SOMETHING = ThingName("something")


def article(text: str) -> str:
    """Return "a" or "an"."""
    if re.match(r"(uni|use|eu|one|uk\b|u-|ewe)", text):
        return "a"
    if re.match(r"(hour|honest|heir)", text) or re.match(r"[fhlmnrsx]\b", text):
        return "an"
    return "an" if text[:1] in "aeiou" else "a"


def name_of(description: str, file_stem: str) -> ThingName:
    """Return the name in the first line of a description, else in a file's name, else SOMETHING."""
    return described_name(description) or name_of_words(words_of_file(file_stem)) or SOMETHING


def described_name(description: str) -> ThingName | None:
    """Return the name in a line such as "A Sumatran tiger.", or None if it is a sentence or not in English."""
    line = re.sub(r"[\"“”‘]|\(.*?\)", "", description.strip()).replace("’", "'").lower()
    line = re.sub(r"\bbaby of an? ", "baby ", line)
    line = re.sub(r"(^|\s)'|'(?=[\s.,!?]|$)", r"\1", line)
    first, *rest = re.split(r", ", re.split(r"[.!?;:]|—| - ", line)[0].strip())
    words = first.split()
    if rest and len(words) < 3 and len(rest[-1].split()) <= 2:  # "a ripe, red tomato"
        words += rest[-1].split()
    named = words[:1] and (words[0] in ARTICLES or words[0] in NUMBERS)
    if set(line.split()) & ADDRESSING and not named or not named and len(words) > 3:
        return None
    end = next((i for i, word in enumerate(words) if i and word in ENDINGS), len(words))
    return name_of_words(words[:end])


def words_of_file(stem: str) -> list[str]:
    """Return the words of a file's name without its numbers: "red_apple-2" has "red" and "apple"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", stem)
    words = re.split(r"[\s_.,-]+", re.sub(r"\d+", " ", spaced).lower())
    return [word for word in words if word]


def name_of_words(words: list[str]) -> ThingName | None:
    """Return the name that words are, or None if they are too many, not English letters, or name nothing."""
    number = ""
    if words[:3] == ["a", "couple", "of"]:
        words, number = words[3:], "two"
    if words and words[0] in NUMBERS:
        number = words[0]
    named = bool(words) and words[0] in ARTICLES
    if words and (named or words[0] in NUMBERS):
        words = words[1:]
    if not 1 <= len(words) <= MOST_WORDS or not all(WORD.fullmatch(word) for word in words):
        return None
    if sum(map(len, words)) < 2 or words[-1] in ENDINGS or set(words) & NO_NAMES:
        return None
    last, text = words[-1], " ".join(words)
    if last in MASS and not named:
        return ThingName(text, mass=True)
    plural = bool(number) or not named and bool(re.search(r"[^suix']s$", last))
    return ThingName(text, plural=plural, number=number or "some")
