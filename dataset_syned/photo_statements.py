"""Read a sentence in the wording of photo_edits back: which changes it states, of which thing, and where."""

import re
from dataclasses import dataclass
from functools import cache

from .photo_part_changes import SHEETS
from .photo_scenes import PLACES
from .photo_wordings import PICTURES, SENTENCES, Style
from .thing_names import NUMBERS

COLORS = "|".join(SHEETS)
PLACE = "|".join(sorted((place for row in PLACES for place in row), key=len, reverse=True))
NOUN = r"[a-z0-9' -]+?"
INDEFINITE = rf"(?:an?|{'|'.join(NUMBERS)}) "
# What stands in place of each brace of a sentence; the groups are the fields of a Statement.
FIELDS = {
    "a": rf"(?:{INDEFINITE}(?P<thing>{NOUN})|(?P<unnamed>something))",
    "the": rf"the (?P<thing>{NOUN})",
    "other": rf"(?:{INDEFINITE})?(?P<other>{NOUN})",
    "thing": r"(?P<thing>rectangle|circle)",
    "has": "(?:has|have)",
    "is": "(?:is|are)",
    "other_is": "(?:is|are)",
    "other_has": "(?:has|have)",
    "was": "(?:was|were)",
    "at": rf"(?:in|at|on) the (?P<place>{PLACE})",
    "target": rf"the (?P<place>{PLACE})",
    "the_spot": rf"the (?P<place>{PLACE})",
    "source": rf"the (?P<source>{PLACE})",
    "start": rf"(?:in|at|on) the (?P<source>{PLACE})",
    "c": rf"(?P<color>{COLORS})",
    "C": rf"an? (?P<color>{COLORS})",
    "picture": f"(?:{'|'.join(dict.fromkeys(PICTURES))})",
}
CHANGE_TYPES = {
    **{name: name for name in ("add", "remove", "replace", "move", "tint", "blur", "crop", "cover", "duplicate")},
    **{name: name for name in ("pixelate", "none")},
    **{"recolor": "color", "shift colors": "color", "brighten": "brightness", "darken": "brightness"},
    **{f"{way} {what}": what for way in ("raise", "lower") for what in ("contrast", "saturation")},
    **{"black and white": "black-and-white", "colorize": "black-and-white", "remove tint": "tint", "sharpen": "blur"},
    **{f"{name} part": name for name in ("blur", "pixelate", "duplicate")},
    **{"add noise": "noise", "remove noise": "noise", "mirror": "flip", "flip upside down": "flip"},
    **{name: "rotate" for name in ("rotate left", "rotate right", "rotate by half", "tilt left", "tilt right")},
    **{"add text": "text", "remove text": "text"},
}


@dataclass(frozen=True)
class Statement:
    """A change that a sentence states; fields that it does not mention are empty."""

    action: str
    thing: str = ""
    place: str = ""
    source: str = ""
    other: str = ""
    color: str = ""

    @property
    def change_type(self) -> str:
        return CHANGE_TYPES[self.action]


@cache
def patterns(style: Style) -> list[tuple[str, re.Pattern]]:
    """Return action and pattern of each sentence; those with the most words of their own come first."""
    found = []
    for action, templates in SENTENCES[style].items():
        for template in templates:
            literal, *rest = re.split(r"(\{\w+\})", template)
            parts = [re.escape(literal), *(FIELDS[p[1:-1]] if p[:1] == "{" else re.escape(p) for p in rest)]
            own = len(re.sub(r"\{\w+\}", "", template)) + 9 * ("{c}" in template)  # a colour is no thing
            found.append((own, action, re.compile("".join(parts))))
    return [(action, pattern) for _, action, pattern in sorted(found, key=lambda entry: -entry[0])]


def statement(sentence: str, style: Style) -> Statement | None:
    """Return the one change that a sentence states, or None if it is in no wording of photo_edits."""
    for action, pattern in patterns(style):
        match = pattern.fullmatch(sentence)
        if match:
            fields = {name: value for name, value in match.groupdict().items() if value and name != "unnamed"}
            return Statement(action, **fields)
    return None


def statements(sentence: str, style: Style = "description") -> list[Statement]:
    """Return the changes that a sentence states; [] if it is in no wording of photo_edits."""
    sentence = " ".join(sentence.lower().split()).rstrip(".")
    for match in re.finditer(" and ", sentence):
        both = statement(sentence[: match.start()], style), statement(sentence[match.end() :], style)
        if all(both):
            return list(both)
    whole = statement(sentence, style)
    return [whole] if whole else []
