"""Rules that read the changes in an English sentence: which thing, and what happened to it.

A sentence is split into clauses. The first of ACTIONS that fits a clause is its action; the first of OBJECTS finds the
noun phrase of what changed. Descriptions ("a red cube has appeared on the left") and requests ("add a red cube") have
the same units. Places, numbers and new colors are not read.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from .change_type import COLOR, SCENE, plain_sentence, stated_change_type
from .noun_phrases import PART, PICTURE, PREPOSITIONS, things_of

NAME = "rules for English 2"  # in the signature; another number when the rules read sentences differently


class Unit(NamedTuple):
    """A change: a thing, in singular and without article, and an action, a name in ACTIONS, "recolor" or "change"."""

    thing: str
    action: str


UNITS_EXAMPLE = '[{"thing": "red car", "action": "remove"}], [] for an unchanged pair'


def are_units(value: object) -> bool:
    """Return whether a value is a list of the form of UNITS_EXAMPLE; further fields of a unit do not matter."""
    return isinstance(value, list) and all(
        isinstance(unit, dict) and all(isinstance(unit.get(name), str) for name in Unit._fields) for unit in value
    )


UP = (
    r"(?:rais\w+|increas\w+|more|higher|strong\w*|strengthen\w*|boost\w*|enhanc\w*|intens\w+|up|greater|improv\w*|"
    r"better|deep\w*|rich\w*)"
)
DOWN = r"(?:lower\w*|reduc\w+|decreas\w+|less|weak\w*|pale\w*|down|fad\w+|dull\w*|drop\w*|flat|minimi\w+|soft\w*)"
VIVID = r"(?:saturat\w+|vivid\w*|vibran\w+|colou?rful\w*)"
GRAY = r"(?:black-and-white|gr[ae]y ?scale|monochrome|sepia)"
BEFORE = rf"(?:before|first|left|l|old|original|earlier|previous|1st) {SCENE}|{SCENE} (?:1|one|on the left)\b"
AFTER = rf"(?:after|second|right|r|new|later|2nd) {SCENE}|{SCENE} (?:2|two|on the right)\b"
TINT = rf"(?:tint\w*|colou?r cast|colou?r filter|(?<![\w-]){COLOR} (?:hue|tone|cast|filter))"
GONE = r"(?:gone|missing|removed|deleted|taken|lost|no longer|get rid|without|instead of|correct)"
TAKEN_OUT = r"^(?:remove|erase|delete|take|get rid|eliminate|reduce|clear|clean|correct)\b"
PUT = (
    r"add\w*|enter|insert\w*|include|paste\w*|attach\w*|incorporate|introduce|install|place|position|plant|draw|"
    r"write|wrote|put|give|hang|have|bring"
)
TAKE = r"remove\w*|delete\w*|erase\w*|eliminate\w*|clear|dispose of|take|took|get rid of|cut|crop out|discard|omit"
ALTER = r"change|alter|modify|turn|transform|convert|make|update|edit|adjust|adapt|morph"
SWAP = r"replace|swap|substitute|exchange|interchange|switch|trade"
OTHER_VERBS = (
    r"move|shift|relocate|reposition|rotate|flip|mirror|crop|zoom|blur|sharpen|brighten|darken|lighten|enlarge|shrink|"
    r"resize|raise|increase|lower|decrease|reduce|enhance|improve|boost|strengthen|weaken|tint|colou?ri[sz]e|paint|"
    r"recolou?r|colou?r|dye|cover|hide|copy|duplicate|pixelate|denoise|clean|correct|fix|tilt|lean|stand|show|"
    r"keep|lay|bring|get|set|use|apply|desaturate|saturate|straighten|extend|stretch|focus|fill|smooth|distort|"
    r"warp|expand|"
    r"select|generate|create|design|produce|imagine|illustrate|depict|render|craft|develop|envision|visuali[sz]e|"
    r"compose|construct|build|represent|portray|enclose|"
    r"confine|fasten|provide|retract|lift|age|slant|tattoo|rearrange|recreate|rename|whiten|posterize"
)
VERBS = rf"(?:{PUT}|{TAKE}|{ALTER}|{SWAP}|{OTHER_VERBS})"
PREPOSITION = rf"(?:{'|'.join(sorted(PREPOSITIONS))})"
UNKNOWN_VERB = rf"(?!(?:{PREPOSITION}|all|only|now|there)\b)[a-z]+"  # before an article: a request
# before a comparative that says what happened; in "there is a darker car", it says which car
BECOMES = (
    rf"(?:\b(?:is|are|was|were|be|been|bec[oa]mes?|looks?|got|gets|appears?)(?: (?!an?\b|the\b)\w+)?|^(?:{ALTER}|get|"
    rf"give)\b.*)(?<!no)"
)

# What can only be the whole picture or a thing as a whole comes first, then properties, then coming and going.
ACTIONS = [
    ("flip", r"\b(?:flip|mirror)\w*.*\b(?:vertical|upside|top)|\bupside.?down\b|\btop-and-bottom\b"),
    (
        "mirror",
        r"^mirror\b|\bmirrored\b|\b(?:in a|its) mirror\b|\bmirror image|\bleft-and-right\b|\breversed\b|"
        r"\bflip",
    ),
    (
        "tilt left",
        r"\b(?:tilt|lean|slant)\w*\b.*(?:counter|anti|\bleft)|\b(?:slightly|a little|a bit)\b.*(?:counter|anti|"
        r"\bleft)",
    ),
    (
        "tilt right",
        r"\b(?:tilt|lean|slant)\w*\b.*\b(?:clockwise|right)|"
        r"\b(?:rotat|turn)\w*\b.*\b(?:slightly|a little|a bit)\b.*\b(?:clockwise|right)",
    ),
    ("rotate", r"\b180\b|\b(?:turn|rotat)\w*\b.*\bby half\b|\bhalf a turn\b|\bon its head\b"),
    ("rotate left", r"\b(?:rotat|turn)\w*\b.*(?:\bto the left|counter|anti)|\bits left side\b"),
    ("rotate right", r"\b(?:rotat|turn)\w*\b.*\b(?:to the right|clockwise)|\bits right side\b"),
    ("rotate", r"\brotat|\bstraighten|\btilt"),
    ("duplicate", r"\bcop(?:y|ies|ied)\b|\bduplicat|\bsecond time\b|\bclone"),
    (
        "remove noise",
        rf"\bdenois|{TAKEN_OUT}.*\b(?:noise|grain)\b|\b(?:noise|grain)\b.*\b{GONE}|\b{GONE}.*\b(?:grain|noi)",
    ),
    ("remove noise", r"\bgrainy (?:\w+ )?has become clean"),
    ("add noise", r"\bnois[ey]|\bgrainy?\b"),
    ("pixelate", r"\bpixel|\blarge squares\b|\bmosaic"),
    (
        "sharpen",
        rf"\bsharp(?!ness)|\b(?:in|into) focus\b|\b{GONE}.*\bblur|\bblur\b.*\b{GONE}|{TAKEN_OUT}.*\bblur|\bdeblur",
    ),
    ("blur", r"\bblur|\bout of focus\b|\bsharpness\b"),
    ("remove tint", rf"\b{GONE}\b.*\b{TINT}|\b{TINT}.*\b{GONE}|{TAKEN_OUT}.*\b{TINT}"),
    ("tint", rf"\b{TINT}|\b(?:everything|whole {SCENE}) looks? {COLOR}"),
    ("colorize", rf"\bcolou?ri[sz]e|\bno longer {GRAY}|\b(?:gained|are) colou?rs\b|\bcolou?rs back\b"),
    ("colorize", rf"\b(?:{GRAY}|gr[ae]y) {SCENE}\b.*\bcolou?r|\bcolou?rs in the gr[ae]y"),
    (
        "black and white",
        rf"\b{GRAY}|\ball colou?rs out\b|\blost its colou?rs\b|^the colou?rs are (?:gone|missing)\b|\bdesaturat",
    ),
    ("black and white", r"^everything is gr[ae]y\b"),
    ("lower contrast", rf"\b{DOWN}\b.*\bcontrast|\bcontrast\b.*\b{DOWN}\b"),
    ("raise contrast", r"\bcontrast|\blight-and-dark\b"),
    ("lower saturation", rf"\b{DOWN}\b.*\b(?:{VIVID}|colou?rs?\b)|\b(?:colou?rs?|saturation)\b.*\b{DOWN}\b"),
    (
        "raise saturation",
        rf"\bmore (?:\w+ )?{VIVID}|\b{VIVID}$|\bsaturat(?:ion|e)\b|\bcolou?rs\b.*\b{UP}\b|\b{UP}\b.*\bcolou?rs\b|"
        rf"\bcolou?rs\b.*\b(?:pop|bolder)\b",
    ),
    (
        "darken",
        rf"\bdarken|\bdim(?:s|med|mer)?\b|{BECOMES} darker\b|\b{DOWN}\b.*\b(?:bright\w*|exposure)|"
        rf"\bbrightness\b.*\b{DOWN}\b",
    ),
    ("brighten", rf"\bbright(?:en|ness)|\blighten(?:s|ed)?\b(?! bolt)|{BECOMES} (?:bright|light)er\b|\bexposure\b"),
    ("crop", r"\bcrop(?! out)|\bzoom|\bcut off\b|\bonly a part of\b|\ba part of the scene\b"),
    (
        "enlarge",
        rf"\benlarge|{BECOMES} (?:bigger|larger|taller|wider|longer)\b|\bgrew\b",
    ),
    ("shrink", rf"\bshr[iu]nk|{BECOMES} (?:smaller|thinner|shorter)\b"),
    ("cover", r"^(?:cover|hide)\b|\b(?:is|are) (?:covered|hidden)\b|\b(?:hides|covers)\b"),
    ("cover", r"\bover (?:the |a )?(?:upper|lower|top|bottom|left|right|middle|corner)\b"),
    ("style", r"(?<!-)\bstyles?\b|\b(?:oil |water ?colou?r )painting$|\bcartoon\w*$|\bartistic\b"),
    (
        "material",
        r"\b(?:turned|became|become|changed to|made of|is now)\b(?: \w+){0,2} (?:matte|shiny|metal\w*|rubber)$",
    ),
    (
        "recolor",
        rf"^(?:(?:re)?paint(?! (?:the |a )?(?:text|word|letter))\w*|dye|(?:re)?colou?r)\b(?! (?:over|in)\b)|"
        rf"\b(?:colou?rs?|hue|shade)\b.*\b(?:in)?to {COLOR}",
    ),
    (
        "recolor",
        r"\b(?:another|different|new) colou?rs?\b|\bcolou?rs? of\b|\ball colou?rs\b|^(?:change|"
        r"alter) (?:the )?colou?rs?\b",
    ),
    ("recolor", rf"^(?:{ALTER}|set)\b.*\bcolou?rs?\b.* (?:in)?to\b"),
    ("recolor", rf"\b(?:{ALTER})\b.* {COLOR}(?: (?:one|colou?r|hue|shade|tone)s?)?(?: scheme)?$"),
    ("remove", rf"^(?:someone )?(?:{TAKE})\b(?!.*\b(?:add|replace)\b)"),
    (
        "replace",
        rf"\b(?:{SWAP})(?:d|s|ped|ed)?\b(?!.* (?:places|positions)\b)|\bin place of\b|\bthe place of\b|"
        rf"\binstead of (?!\d|{PREPOSITION}\b)",
    ),
    ("replace", r"\bresembl|\blooks? like\b|\bmimic|\bappear as\b"),
    ("replace", rf"^(?:someone )?(?:{ALTER})\b.* (?:in)?to\b(?! (?:the |a )?(?:left|right|different|another|match))"),
    ("replace", rf"\b(?:turned|changed) (?:in)?to (?!{COLOR})|\bbec[ao]me (?:an?|some|two|three|four|five|six|\w+s$)"),
    ("replace", r"^(?:shift|transition)\b.* to an? "),
    ("move", r"\b(?:location|position)s?\b.*\bchanged\b"),
    ("move", r"^(?:someone )?(?:moved?|shift|relocate|reposition)\b|\b(?:closer|further|farther)\b|\bmoved\b"),
    ("add", rf"^(?:someone )?(?:{PUT})\b"),
    (
        "remove",
        r"\b(?:less|fewer)\b|\bthere (?:is|are|s) (?:now )?(?:no|not|know|none)\b|\bno more\b|^(?:no|none) \w+|"
        r"\babsence of\b|^missing\b",
    ),
    ("add", r"\bcan (?:now )?be (?:seen|read)\b|\bwritten\b"),
    ("add", rf"\bnot\b.*\b(?:before|previously|earlier|{BEFORE})"),
    ("remove", rf"\bnot\b.*\b(?:{AFTER})|\b(?:{BEFORE}).*\b(?:but|and|where|while)\b.*\bnot\b"),
    (
        "add",
        rf"\b(?:{AFTER}).*\b(?:but|and|where|while)\b.*\bnot\b|\b(?:{BEFORE}) (?:is|does|has)? ?(?:missing|not|no)\b",
    ),
    ("remove", rf"\b(?:{AFTER}).*\b(?:missing|not)\b|\bonly in (?:the )?(?:{BEFORE})"),
    ("remove", r"\bnot (?:in|at|on|visible|here|there|present|seen|driving)\b|\bleaving\b"),
    (
        "remove",
        r"\bno longer\b(?!.*\bsame\b)|\blost\b|\b(?:leaves?|exited|(?<!the )(?<!far )left)(?: the (?!left|"
        r"right)\w+.*)?$",
    ),
]
STATED = {"color": "recolor", "add": "add", "remove": "remove", "move": "move"}
# Where no other rule fits; these words alone do not begin a clause.
WEAK = [
    ("change", rf"^(?:{VERBS})\b|^{UNKNOWN_VERB} (?:the|an?|this|these|his|her|its|their)\b"),
    ("add", rf"^(?:the )?(?:{AFTER})"),
    ("remove", rf"\b(?:{BEFORE})"),
    (
        "add",
        rf"\b(?:{AFTER})|\b(?:now|new|more|another|extra|additional|present|visible|seen|entering|coming|comes)\b",
    ),
    ("change", r"\b(?:chang|differen)\w*|(?<!\bthe )(?<!\ban )(?<!\ba )\b(?:modified|altered|updated|renovated)\b"),
    ("add", r""),  # a noun phrase alone: "two people in the parking lot"
]
EXISTS = r"\bthere (?:also )?(?:is|are|s|was|were|appears? to be|seems? to be|has been|have been)\b"
HAS = r"(?:has|have|had|shows?|contains?|is missing|are missing|missing|includes?)"
COUNT = r"(?:an?|the|no|one|two|three|four|five|six|\d+|more|less|fewer|some|another|any|all|additional|extra)"
OBJECTS = [
    r"\b(?:instead|in place|the place) of (?!an? \w+ (?:tint|cast)\b)(.+)",
    r"\bcop(?:y|ies) of (.+)",
    r"\b(?:is|are|was|were) (?:covered|hidden) (?:by|with|behind) (.+)",
    r"^(?:cover|hide)\b.*? (?:with|behind|by) (.+)",
    r"\b(?:colou?rs?|brightness|contrast|saturation|exposure|hue|shade|tone|tint|noise|grain|blur|size|location|"
    r"position|place) (?:of|in|on|from|to) ((?:the|this|that|his|her|a|an|all) "
    r"(?!left\b|right\b|top\b|bottom\b|middle\b|corner\b).+)",
    r"\b(?:colou?rs?|brightness|size|shape) of ((?!left\b|right\b).+)",
    r"^missing (.+)",
    r"\babsence of (.+)",
    rf"{EXISTS}(?: not| no longer| now| also| only)* (.+)",
    rf"\b(?:{SCENE}(?: on the (?:left|right))?|it)(?: now| is| also| does not)* {HAS} (?={COUNT}\b)(.+)",
    rf"^(?:(?:someone|they) (?:{VERBS})(?:s|e?d)?|(?:{VERBS}))(?: (?:out|away|off|in|into|up|down|back|on|over|"
    rf"of))* (?:only )?(.+)",
    rf"^{UNKNOWN_VERB} ((?:the|an?|this|these|his|her|its|their) .+)",
    rf"^(?!(?:{VERBS})\b)(.+)",
]
_ACTIONS = [(action, re.compile(pattern)) for action, pattern in ACTIONS]
_WEAK = [(action, re.compile(pattern)) for action, pattern in WEAK]
_OBJECTS = [re.compile(pattern) for pattern in OBJECTS]
_EXISTS, _REQUEST = re.compile(EXISTS), re.compile(rf"{VERBS}\b")

LEADS = re.compile(
    rf"^(?:(?:now|also|then|and|but|so|please|just|(?:i|you|we) (?:can |now )?see|it (?:looks like|appears|"
    rf"seems)(?: that)?|"
    r"(?:(?:i|we) )?(?:need|want|would like)(?: you)? to|(?:can|could|would) you|you are going to|\w+ly|"
    rf"(?:the )?(?:only )?(?:difference|change)s? (?:is|are)(?: that)?|(?:in|on) (?:the )?(?:{BEFORE}|{AFTER}))[ ,]+)+"
)
OPPOSITES = re.compile(
    r"\b(black|left|top|light) (?:and|&) (white|right|bottom|dark)\b(?! (?:side|corner|hand|edge|part)s?)"
)
RUN_ON = re.compile(
    r"(?<!\bto)(?<!\band)(?<!\bthe)(?<!\bthen)(?<!\bplease)(?<!ly) (?=(?:remove|replace|delete|add|insert|increase|"
    r"decrease) )"
)
DENIAL = re.compile(r"^nothing\b.*\bchanged$")
REFERRING = {"it", "they", "them", "he", "she", "copy", "one", ""}  # to the thing of the clause before
JOINED = re.compile(r"(,? (?:and|but|while|whereas|then)(?: then| also)? | ?[.;!?:]+ |, )")
CONTINUING = re.compile(
    r"^(?:as|not|with|without|to|from|in|on|at|by|of|for|where|which|who|that|so)\b|^\w+ed(?: by .*)?$|n[o']t$"
)


@lru_cache(maxsize=2**16)
def stated_units(sentence: str) -> tuple[Unit, ...]:
    """Return the changes that a sentence states, each once; () if it denies a change or is empty."""
    units: list[Unit] = []
    for clause in clauses(sentence):
        action = _action(clause)
        previous = units[-1].thing if units else PICTURE
        for thing in _things(clause, action):
            thing = previous if thing in REFERRING else thing
            units.append(Unit(thing, "style" if (thing, action) == (PICTURE, "replace") else action))
    return tuple(dict.fromkeys(units))


def clauses(sentence: str) -> list[str]:
    """Return the parts of a sentence that state a change each, in lower case and without quotations."""
    text = re.sub(r"(?<=[a-z]) +([A-Z][a-z]+)(?= )", _new_request, sentence.strip().strip('"'))
    text = text.replace("\u201c", '"').replace("\u201d", '"').replace("\n", ". ")
    text = re.sub(r"\"[^\"]*\"?|(?<!\w)'[^']+'(?!\w)", " text ", text)
    text = re.sub(r"\b(texts?|words?|letters?|phrase|name|logo|sign) text\b", r"\1", " ".join(text.split()))
    text = RUN_ON.sub(". ", text.lower().replace("theres ", "there is ").replace("n t ", "n't "))
    text = re.sub(r"\b(?:upper|lower|top|bottom) (?:left|right)\b", "corner", text)
    text = OPPOSITES.sub(r"\1-and-\2", text)
    parts = JOINED.split(text)  # with the words that join them
    parts = _merge(parts, lambda before, after: not CONTINUING.search(after))
    parts = _merge(parts, lambda before, after: _states(before) and _states(after))
    plain = [plain_sentence(part) for part in parts[::2]]
    return [part for part in plain if part and _change_type(part) != "none" and not DENIAL.search(part)]


def _merge(parts: list[str], are_apart: Callable[[str, str], bool]) -> list[str]:
    """Return parts and their separators in turn, where those that belong together are one part."""
    merged = parts[:1]
    for separator, part in zip(parts[1::2], parts[2::2], strict=True):
        if are_apart(merged[-1], part):
            merged += [separator, part]
        else:
            merged[-1] += separator + part
    return merged


def _new_request(match: re.Match) -> str:
    """Return a capitalized verb after a full stop, which captions such as "Crop it Add a hat" do without."""
    return f"{'.' if re.fullmatch(VERBS, match[1].lower()) else ''} {match[1]}"


def _states(part: str) -> bool:
    """Return whether a part of a sentence has a change of its own, or denies one."""
    plain = plain_sentence(part)
    return bool(_strong_action(plain) or _EXISTS.search(plain) or _change_type(plain) or _REQUEST.match(plain))


_change_type = lru_cache(maxsize=2**16)(stated_change_type)


@lru_cache(maxsize=2**16)
def _strong_action(clause: str) -> str:
    """Return the action of the first of ACTIONS that fits, or ""."""
    return next((action for action, pattern in _ACTIONS if pattern.search(clause)), "")


def _action(clause: str) -> str:
    found = _strong_action(clause) or STATED.get(_change_type(clause), "")
    return found or next(action for action, pattern in _WEAK if pattern.search(clause))


def _things(clause: str, action: str) -> list[str]:
    """Return the things of the first of OBJECTS that has any; the picture if none has."""
    clause = LEADS.sub("", clause)
    for pattern in _OBJECTS:
        match = pattern.search(clause)
        things = things_of(match[1]) if match else []
        if things:
            if action == "crop":  # to a part of the picture
                return [PICTURE if thing == PART else thing for thing in things]
            if action in ("blur", "pixelate"):  # "something on the left was blurred"
                return [PART if thing in ("something", "what") else thing for thing in things]
            return things
    return [PICTURE if action == "crop" else ""]  # "zoom in"
