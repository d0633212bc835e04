"""Noun phrases of difference captions, by rules: "the two red cars on the left" is the thing "red car"."""

import re

from .change_type import COLOR

PICTURE, PART = "picture", "part"  # things that are the whole picture, or an unnamed part of it
# Properties of a picture; without "of the car" behind them, they are those of the whole picture.
PICTURE_NOUNS = set(
    "image picture photo photograph pic scene frame shot view everything all color colour tint cast contrast "
    "brightness saturation exposure noise grain blur sharpness hue tone filter edge focus pixel shade grayscale "
    "mirror scheme effect black-and-white left-and-right top-and-bottom light-and-dark".split()
)
PLACES = set(
    "upper lower left right top bottom center centre middle corner side part piece area region back front end "
    "section half portion rightmost leftmost".split()
)
TEXTS = set("text word lettering letter caption writing phrase".split())
DETERMINERS = set("a an the this that these those his her its their your my our".split())
# Words that say nothing about which thing it is.
DROPPED = set(
    "some any several many few both all other another more less fewer extra additional new newly second third first "
    "last different one two three four five six seven eight nine ten single now also just still same entire whole "
    "current existing each every most much very no not none only longer please already remaining s t me him overall "
    "natural intense faded higher lower".split()
)
QUANTITIES = set("group pair couple bunch number set row lot crowd line cluster".split())
PREPOSITIONS = set(
    "in on at to from near next behind beside with without that which who whom where when while by of into onto over "
    "under above below beneath between across inside outside along through toward towards against around for as than "
    "within adjacent closer".split()
)
# A noun phrase ends before these words, too.
ENDS = PREPOSITIONS | set(
    "has have had is are was were be been being will can could does do did there here so if because it appear appears "
    "appeared disappear disappears disappeared vanish vanished move moves moved turn turns turned become becomes "
    "became change changes changed leave leaves look looks show shows showed cover covers hide hides lie lies shifted "
    "went goes go lose lost gain gained consist consists differ differs stand stands stood sit sits walk walks drive "
    "drives come comes came arrive arrives arrived walked drove parks enter enters entered exit exits exited replaced "
    "taken took removed added modified altered updated repainted renovated missing gone visible present swapped "
    "instead away out off up down exist exists seem seems stayed remain remains joined made got gets parked located "
    "seen again anymore until about like wearing holding you not lean leans clockwise counterclockwise upside "
    "horizontally vertically "
    "positioned situated placed should would must needs compared called named inspired".split()
)
ING_NOUNS = set(
    "building painting ceiling clothing wing ring king thing string wedding writing lettering parking railing "
    "something anything lightning awning frosting icing marking crossing earring siding lighting opening stuffing "
    "covering topping duckling dumpling shading drawing watering fencing pudding swing evening morning bearing "
    "viking".split()
)
LY_NOUNS = set("fly butterfly family jelly belly lily".split())
# Adjectives that end a request: "make the sky bright".
PREDICATES = set(
    "brighter darker lighter bright dark sharp sharper blurry blurred grainy noisy colorful colourful pixelated "
    "bigger smaller larger wider longer vivid vibrant saturated stronger weaker paler clearer transparent clean red "
    "different visible sad happy cloudy blank shorter cooler warmer greener bluer".split()
)
IRREGULAR = {
    **{"people": "person", "persons": "person", "men": "man", "women": "woman", "children": "child", "teeth": "tooth"},
    **{"feet": "foot", "geese": "goose", "mice": "mouse", "leaves": "leaf", "wolves": "wolf", "knives": "knife"},
    **{"shelves": "shelf", "buses": "bus", "colour": "color", "colours": "color", "grey": "gray"},
    **{"potatoes": "potato", "tomatoes": "tomato", "heroes": "hero", "mangoes": "mango"},
    **{word: word for word in ("glasses", "clothes", "jeans", "pants", "scissors", "gas", "lens", "canvas")},
}
_COLOR = re.compile(COLOR)


def singular(word: str) -> str:
    """Return the singular of a noun, by rules, in American spelling."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("ches", "shes", "xes", "sses")) else word[:-1]


def things_of(text: str) -> list[str]:
    """Return the things that a text starts with: several if they are listed with "and" or commas.

    Each is its words in singular, without articles, numbers, places and what follows the noun.
    """
    found: list[str] = []
    words: list[str] = []
    after_article = singular_article = False  # "a tall, old tree" is one thing, "cars, people" are two
    tokens = re.findall(r"[a-z0-9][\w'-]*|[,.;:]", text)
    for token, following in zip(tokens, [*tokens, ""][1:], strict=True):
        word = singular(re.sub(r"'s?$", "", token))
        if token in ".;:" and words:
            break
        if token in ".;:" or _is_adverb(token) and not words:
            continue
        if token in (",", "and", "or"):
            adjectives = token == "," and singular_article and following not in DETERMINERS | {"and"}
            if words and not adjectives and not all(_COLOR.fullmatch(word) for word in words):
                found.append(_thing(words))
                words = []
        elif token == "of" and words and words[-1] in QUANTITIES:
            words = []
        elif words and _is_end(token, following):
            break
        elif not words and token == "of":  # "one of the men"
            continue
        elif not words and token in ENDS and (token in PREPOSITIONS or not after_article and not token.endswith("ed")):
            break
        elif token in DETERMINERS:
            if words:
                break
        elif token not in DROPPED and not token.isdigit():
            words.append(word)
        singular_article = token in ("a", "an") or singular_article and token not in DETERMINERS
        after_article = token in DETERMINERS or after_article and token in DROPPED
    found.append(_thing(words))
    found = [thing for thing in found if thing]
    return found[:1] + [thing for thing in found[1:] if thing != PART]


def _is_end(token: str, following: str) -> bool:
    """Return whether a word after a noun does not belong to its phrase."""
    if token == "left":  # "the man left", but "the left car"
        return not following or following in ENDS or following in DETERMINERS
    if token == "can":  # "a dog can be seen", but "a red gas can"
        return following in ("be", "now", "also")
    continued = token.endswith("ing") and singular(token) not in ING_NOUNS
    return token in ENDS or continued or _is_adverb(token)


def _is_adverb(token: str) -> bool:
    return token.endswith("ly") and token not in LY_NOUNS and token not in DROPPED


def _thing(words: list[str]) -> str:
    """Return the thing that the words of a noun phrase name, "" if there are none."""
    while len(words) > 1 and (words[-1] in PREDICATES or _COLOR.fullmatch(words[-1])):
        words = words[:-1]  # "make the car red"
    named = [word for word in words if word not in PLACES]
    if not named or words[-1] in PLACES and all(word in PREDICATES or _COLOR.fullmatch(word) for word in named):
        return PART if words else ""
    whole = named[-1] in PICTURE_NOUNS
    named = [word for word in named if word not in PICTURE_NOUNS]
    if whole:  # "the blurred picture", "a red tint"
        named = [word for word in named if not (word in PREDICATES or word.endswith("ed") or _COLOR.fullmatch(word))]
    return " ".join(dict.fromkeys("text" if word in TEXTS else word for word in named)) or PICTURE
