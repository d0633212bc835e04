"""Rules for the change type that an English sentence states: add, remove, color, move, none, or "".

They fit descriptions ("a red cube has appeared") and instructions ("add a red cube"). The first rule that fits
decides, so that a sentence about several changes has one change type.
"""

import re

CHANGE_TYPES = ("add", "remove", "color", "move", "none")

COLOR = (
    r"(?:(?:dark|light|bright|pale|deep)(?:er)?[ -])?(?:red|green|blue|yellow|orange|purple|violet|pink|magenta|cyan|"
    r"turquoise|teal|brown|tan|beige|black|white|gr[ae]y|silver|gold|golden|maroon)"
)
PLACE = r"(?:place|position|location|spot|side)s?"
SCENE = r"(?:image|picture|photo|scene|frame|view|sight|shot)s?"
WHOLE = rf"(?:everything|all|it|them|things|(?:the |this |that )?(?:whole |entire )?{SCENE})"

# "everything else is the same" says nothing about the change that the rest of the sentence describes
ASIDES = re.compile(r"\b(?:(?:everything|all|nothing|anything) else|the rest|the others|no other)\b[^,.;]*")

RULES = [
    # No change first, because such sentences contain the words of the changes they deny. But "no longer" is a change,
    # "not in the same place" is a move, and "no change except ..." states one.
    ("move", rf"\b(?:not|no longer) (?:\w+ ){{0,2}}the same {PLACE}\b"),
    (
        "none",
        r"\b(?:no|not (?:any|a|have any|see any|find any)|without (?:any|a)?|zero) ?(?:\w+ ){0,2}"
        r"(?:changes?|differences?|modifications?|alterations?|edits?)\b"
        r"(?! (?:\w+ )?(?:except|but|apart|other|besides))",
    ),
    (
        "none",
        r"\bnothing (?:(?:has|have|had|is|was|seems?|appears?|really|at all|to|be|been) )*"
        r"(?:chang\w+|differen\w+|happen\w*|mov\w+|modified|altered|edited|new|added|removed|appeared|disappeared)\b"
        r"(?! (?:\w+ )?(?:except|but|apart|other|besides))",
    ),
    ("none", r"\b(?:do|does|did|has|have|had|was|were|is|are) not (?:been |be )?(?:chang(?:e|ed)|differ|altered)\b"),
    ("none", r"\b(?:chang(?:e|ing)|do|edit|modify|alter|touch) (?:absolutely )?nothing\b"),
    ("none", r"\bnot (?:chang(?:e|ing)|edit|modify|alter|touch|do) (?:a thing|anything|it|the \w+)\s*$"),
    (
        "none",
        r"(?<!not )(?<!never )(?<!no longer )\b(?:identical|unchanged|unaltered|unmodified|untouched)\b"
        r"(?!.*\b(?:but|except|apart from|however)\b)",
    ),
    (
        "none",
        r"(?<!not )\b(?:is|are|remain(?:s|ed)?|stay(?:s|ed)?|(?:seem|appear|look)s?(?: to be)?|kept|keep\b.*) "
        r"(?:(?!not |never |hardly )\w+ )?(?:(?:exactly|just|pretty much|still) )?"
        r"the same(?=$|[,;.]| as\b| in\b| and\b| before\b)",
    ),
    (
        "none",
        rf"^(?:exactly )?(?:the )?same(?: {SCENE})?$|\bsame as before\b|^(?:the |both )?(?:\w+ )?{SCENE} match\b",
    ),
    (
        "none",
        r"\b(?:is|are|remain(?:s|ed)?|stay(?:s|ed)?|leave|left|keep|kept)(?: \w+){0,4}? (?:exactly |just )?"
        r"as (?:(?:it|they) (?:is|are|was|were)|is|before)(?: before.*| now)?$",
    ),
    ("none", rf"\b(?:leave|keep) {WHOLE} (?:alone|be)\b"),
    ("none", rf"\b(?:show|depict|contain)s? (?:\w+ )?the same {SCENE}$"),
    # The first word of an instruction is its change type, whatever follows ("add the missing dog").
    ("move", r"^(?:please )?(?:put|place|set|add)\b.*\b(?:elsewhere|somewhere else)\b"),
    ("color", r"^(?:please )?add (?:(?:some|more|a|the) )*colou?rs?\b"),
    ("add", r"^(?:please )?(?:add|insert|include|introduce|draw)\b"),
    ("remove", r"^(?:please )?(?:remove|delete|erase|eliminate|get rid of)\b"),
    ("move", rf"^(?:please )?(?:move|shift|relocate|reposition)\b(?!.*\bout of (?:the )?{SCENE})"),
    ("color", r"^(?:please )?(?:re)?(?:paint|colou?r|tint|dye)\b"),
    # Places before disappearing: "taken away and put somewhere else" is a move.
    ("move", rf"\b(?:elsewhere|somewhere else)\b|\b(?:different|another|new|other) {PLACE}\b"),
    ("move", rf"\bchang\w+ (?:\w+ ){{0,2}}{PLACE}\b|\b{PLACE} (?:\w+ ){{0,6}}?(?:changed|different|changes)\b"),
    ("move", rf"\b(?:swap\w*|switch\w*|exchang\w*|trad\w*) (?:\w+ )?{PLACE}\b"),
    # Colors before "no longer" and "missing", which may refer to the color itself.
    ("color", rf"\b(?:is|are|was|were) no longer {COLOR}\b|\bfrom {COLOR} (?:in)?to {COLOR}\b"),
    ("color", r"\b(?:chang|switch|alter)\w* (?:\w+ ){0,6}?colou?rs?\b|\b(?:different|new|another) colou?rs?\b"),
    ("color", r"\bcolou?rs? (?:\w+ ){0,6}?(?:chang\w+|different|switched|altered)\b|\brecolou?r\w*|\brepaint\w*"),
    ("color", r"\b(?:painted|dyed|tinted)\b|\b(?:was|been|were) colou?red\b"),
    ("color", rf"\b(?:turn(?:s|ed)?|bec[oa]mes?|go(?:es)?|went) (?:\w+ly |all |a |in ?to (?:a )?|to )*{COLOR}\b"),
    ("color", rf"\b(?:chang|turn|switch)\w* (?:\w+ )*?(?:in)?to (?:be )?(?:an? )?{COLOR}\b"),
    ("color", rf"\b(?:made|is now|are now|now is|now are) {COLOR}\b|\b(?:is|are) {COLOR} (?:now|instead)\b"),
    ("color", rf"\b(?:make|makes|made|turn|turns|turned|change|changed) (?:\w+ )+?(?:an? )?{COLOR}(?: ones?)?\W*$"),
    ("color", rf"\b{COLOR} (?:\w+ )?(?:instead of|rather than) (?:an? )?{COLOR}\b"),
    ("remove", r"\b(?:gone|missing|vanish\w*|disappear\w*|remov(?:e|es|ed|ing|al)|delet\w+|eras(?:e|es|ed|ing))\b"),
    ("remove", r"\b(?:take|takes|took|taken)\b.*\b(?:away|out|off)\b|\bwent away\b|\bget rid of\b"),
    ("remove", rf"\bno longer\b|\b(?:left|exited|out of) the (?:{SCENE}|parking lot|lot)\b|\bha(?:s|ve) left\b"),
    ("remove", r"\bnot (?:\w+ ){0,3}?(?:any ?more|any longer|now)\b|\bthere (?:is|are) (?:now )?(?:no|fewer|less)\b"),
    ("remove", rf"\bnot (?:\w+ ){{0,4}}(?:after|right|second|new) {SCENE}\b"),
    ("move", r"\b(?:moved?|moves|shift(?:s|ed)?|relocated?|repositioned|displaced|slid)\b"),
    ("add", r"\b(?:add(?:s|ed|ing|ition|itional)?|insert(?:s|ed)?|introduced?|new(?:ly)?|extra)\b"),
    ("add", r"\bappear(?:s|ed)?\b(?! (?:to|as|like|more|less))|\b(?:show|shows|showed|shown|turned|popped|pops) up\b"),
    ("add", r"\bnow (?:be )?(?:seen|visible|present|there|here|in)\b|\bseen now\b|\bthere (?:is|are) now\b"),
    ("add", r"\bnow there (?:is|are)\b|\bthere (?:is|are) (?:an? )?(?:another|more)\b|\bnow (?:has|have|contains?)\b"),
    (
        "add",
        r"\b(?:puts?|place[ds]?|paste[ds]?|insert|brings? in|brought in) (?:an?|some|another|more|one|two|three)\b",
    ),
    ("add", r"\b(?:arrived|entered|joined|came in(?:to)?)\b|\bnot (?:\w+ ){0,3}?(?:before|earlier|previously)\b"),
    ("add", rf"\bnot (?:\w+ ){{0,4}}(?:before|left|first|old) {SCENE}\b"),
]
_COMPILED = [(change_type, re.compile(pattern)) for change_type, pattern in RULES]


def stated_change_type(sentence: str) -> str:
    """Return the change type that the sentence states, one of CHANGE_TYPES, or "" if no rule fits."""
    text = plain_sentence(sentence)
    return next((change_type for change_type, rule in _COMPILED if rule.search(text)), "")


def plain_sentence(sentence: str) -> str:
    """Return the sentence in lower case, without contractions, asides, repeated spaces and final punctuation."""
    text = sentence.lower().replace("\u2019", "'")
    text = re.sub(r"\bcan ?not\b|\bca ?n't\b|\bwo ?n't\b", "not", text)
    text = re.sub(r" ?n't\b", " not", text)
    text = re.sub(r"\b(there|it|he|she|that) ?'s\b", r"\1 is", text)
    return " ".join(ASIDES.sub(" ", text).split()).strip(" .!,;")
