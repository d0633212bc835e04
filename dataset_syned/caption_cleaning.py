"""Rules that clean LLM-written captions, one per line.

The rules are tuned on the 8,031 paraphrases released with Syned: half of them are in quotation marks, others refuse,
talk about the task, are cut off, or count their own words. No rule considers what a sentence means: a fluent
paraphrase of another edit passes.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

INSTRUCTION_STANDS_IN = "instruction_stands_in"

# What is removed from a line; the rest is kept. (name, pattern, replacement)
CHANGES: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("emoji", re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\ufe0f\u200d\u2642]+"), ""),
    ("blanks", re.compile(r"^\s+|\s+$|\s+(?=\s)|\s(?=[.,]$)"), ""),
    ("numbering", re.compile(r"^(?:\(?\d{1,2}[.)](?!\d)|[-*•–](?=\s))\s*"), ""),
    ("length_note", re.compile(r"\s*\(\s*\d*\s*(?:words?|characters?)\)(?=[.\"']*$)", re.I), ""),
    ("template_mark", re.compile(r"^INSTRUCTION\s*:\s*<INSTRUCT>\s*|\s*(?:<INSTRUCT>|\[INSTRUCT\]|\[|\])$"), ""),
    ("quotation_marks", re.compile(r'^"((?:[^"]|(?<=[\s(])"[^"]*")*)"\.?$|^“([^“”]*)”$'), r"\1\2"),
    ("quotation_marks", re.compile(r"^'((?:[^']|(?<=\w)'(?=\w))*)'$"), r"\1"),
    # Many released lines were cut at a comma and lack the closing mark; the rest mostly reads well.
    ("unclosed_quotation", re.compile(r'^["“](?=(?:[^"”]|(?<=[\s(])"[^"]*")*$)'), ""),
    ("leading_punctuation", re.compile(r"^[:;,]\s*"), ""),
    ("label", re.compile(r"^(?:(?:reword|modify|rephrase|rewrite) the instruction (?:to|as):)\s*", re.I), ""),
    ("label", re.compile(r"^(?:task|goal|objective|reward|transformation|variation \d+|option \d+)\s*:\s*", re.I), ""),
    (
        "politeness",
        re.compile(
            r"\s+please (?:proceed|complete|achieve|adjust accordingly|(?:output|provide) the modified image)\.?$",
            re.I,
        ),
        "",
    ),
)

REFUSAL = r"""\b(?:
    I\ (?:cannot|can['’]t|can\ not|won['’]t|will\ not|apologi[sz]e|must\ (?:inform|adhere)|suggest|hope|encourage)\b
  | I['’]m\ (?:just\ an\ AI|sorry|unable|not\ able) | I\ am\ (?:sorry|unable|not\ able|just\ an)
  | I\ would\ (?:like\ to|be\ happy) | I\ want\ to\ emphasi[sz]e
  | as\ an?\ (?:\w+\ )?(?:AI|language\ model|content\ creator)\b(?!-)
  | feel\ free\ to | if\ you\ have\ any\ other | it\ is\ (?:important|essential|crucial)\ to
  | remember,\ (?:it|as) | (?:harmful|unethical)\ or | harmful\ content
)"""
TASK_TALK = r"""
    ^(?:sure|certainly|of\ course|okay|note|please\ note)\b[\s!,:]
  | \bhere\ (?:are|is)\ (?:\w+\ ){0,3}(?:variation|alternative|paraphrase|rephrasing|version|option|example)s?\b
  | \bhere's\ (?:a|an|the|one|another)\b | \blet\ me\ know\b
  | \b(?:prompts?|diffusion\ model|language\ model|paraphras\w+)\b
  | \b(?:this|the|original|given|above|your|new)\ instructions?\b | \binstruction\ ''
  | \b(?:given|provided|original)\ (?:text|sentence|phrase|words?)\b | \b(?:the|a|this|from)\ (?:new\ )?sentences?$
  | \b(?:in|of|from)\ the\ sentence\b | \brephrase\ the\ (?:sentence|text)\b
  | \brearrange\ the\ words\ (?:in|to\ (?:form|read))\b
  | \b(?:the|this|given)\ (?:end\ of\ the\ )?(?:input|output)(?!\ (?:image|photo|picture))\b
  | \bplease\ provide\b | \bsame\ meaning\b
"""
ASKS_FOR_TEXT = r"""
    ^(?:write|draft|compose|create|generate|produce|craft|imagine)\b[^.'"]*\b
        (?:story|script|haiku|poem|dialogue|essay|passage|paragraph|response|reply)\b
  | ^(?:write|draft|compose)\b[^.'"]*\b(?:description|message|ad|scene|letter)\b | ^generate\b.*\bwarning\b
  | \bdescribe\ (?:the|a|an|this|how|in|what|your)\b | \bdescribe\ it\b
  | \b(?:can|could|would)\ you\ (?:describe|suggest|provide)\b | ^(?:how|what|why|who)\ (?:would|do|does|is|are)\b
  | \bwhat\ (?:do\ you\ see|details|clues|do\ you\ think)\b
"""
BRACKETED = r"^\{.*\}$ | \[[A-Z][^\]]*\]"

ENDED = re.compile(r"[.!?…][\"'”’)]*$")
# Not `on`, `in`, `by`, `at`, `like`: "put a hat on" is complete. A relative clause may end in the others too: "remove
# the nail it is hanging from".
DANGLING = r"""
    \b(?:a|an|the|and|or|but|nor|its|their|your|our|that|which|whose|than|very|such|towards?|during|per)$
  | (?<!ing)(?<!\bis)(?<!\bare)\ (?:of|with|for|from|into|onto|as|between)$ | (?<!ing)(?<!ed)\ to$
  | ,$ | \bsomeone's$ | \bways\ to$ | \bbeing$
"""
# Adjectives after which released lines are cut; after an article, a noun has to follow them.
ADJECTIVE = r"""(?:\w+(?:ful|ous|esque|less|ish)|[\w-]+-(?:inspired|style|like|abandoned)|bold|bright|bustling
  |colou?rful|cozy|crowded|deep|delicate|dense|deserted|dreamy|fierce|interconnected|living|lively|long|majestic|massive|pristine
  |radiant|serene|soft|sophisticated|stunning|tall|vibrant|vivid|warm|white|whimsical)"""
CUT_ADJECTIVE = rf"\b(?:a|an|of|with|into|by)\ {ADJECTIVE}$"
LONG_LIST = 480  # characters: longer lists stop at the model's token limit, mostly inside a word

# What removes a line. A talk rule is not applied if the edit instruction itself matches it.
REMOVALS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("empty", re.compile(r"^\W*$")),
    ("placeholder", re.compile(BRACKETED, re.X)),
    ("refusal", re.compile(REFUSAL, re.X | re.I)),
    ("task_talk", re.compile(TASK_TALK, re.X | re.I)),
    ("asks_for_text", re.compile(ASKS_FOR_TEXT, re.X | re.I)),
    ("cut_colon", re.compile(r":$")),
    ("cut_single_word", re.compile(r"^[\w'-]+$")),
    ("cut_dangling", re.compile(DANGLING, re.X | re.I)),
    ("cut_adjective", re.compile(CUT_ADJECTIVE, re.X | re.I)),
    ("cut_quotation", re.compile(r"""^[^"]*"(?:[^"]*"[^"]*")*[^"]*$|^[^']*(?:\w'\w[^']*)*[^s\W]'$""")),
    ("cut_bracket", re.compile(r"\([^)]*$")),
)
TALK = ("refusal", "task_talk", "asks_for_text")
CUT_AT_LIMIT, DUPLICATE, REPEATS_INSTRUCTION = "cut_at_limit", "duplicate", "repeats_instruction"
RULES = tuple(
    dict.fromkeys(
        [name for name, *_ in (*CHANGES, *REMOVALS)]
        + [CUT_AT_LIMIT, DUPLICATE, REPEATS_INSTRUCTION, INSTRUCTION_STANDS_IN]
    )
)


@dataclass(frozen=True)
class Cleaned:
    """The result of cleaning the lines of one pair.

    Args:
        kept: in the order of the lines; never empty, because the instruction replaces missing captions.
        changed: (original line, rule), once for each rule that removed something from it.
        removed: (original line, rule).
    """

    kept: list[str]
    changed: list[tuple[str, str]]
    removed: list[tuple[str, str]]
    instruction_stands_in: bool = False


def strip_line(line: str) -> tuple[str, list[str]]:
    """Return the line without what CHANGES remove, and the names of the rules that applied."""
    names: list[str] = []
    while True:  # one wrapping may hide another: a number before quotation marks
        before = line
        for name, pattern, replacement in CHANGES:
            after = pattern.sub(replacement, line)
            if after != line and name not in names:
                names.append(name)
            line = after
        if line == before:
            return line, names


def comparable(line: str) -> str:
    """Return a text that is equal for lines that differ only in case, blanks and punctuation."""
    return re.sub(r"[\W_]+", " ", line).strip().casefold() or line.strip()


def removal_rule(line: str, instruction: str) -> str | None:
    """Return the first rule that removes a stripped line."""
    for name, pattern in REMOVALS:
        if pattern.search(line) and not (name in TALK and pattern.search(instruction)):
            return name
    return None


def clean(lines: list[str], instruction: str) -> Cleaned:
    """Return the lines that can be captions; the edit instruction if there are none."""
    instruction = instruction.strip()
    kept: list[str] = []
    changed: list[tuple[str, str]] = []
    removed: list[tuple[str, str]] = []
    seen = {comparable(instruction): REPEATS_INSTRUCTION}
    at_limit = sum(map(len, lines)) >= LONG_LIST
    for number, line in enumerate(lines, start=1):
        text, names = strip_line(line)
        rule = removal_rule(text, instruction)
        if rule is None and at_limit and number == len(lines) and not (ENDED.search(text) or line.endswith('"')):
            rule = CUT_AT_LIMIT
        rule = rule or seen.get(comparable(text))
        if rule:
            removed.append((line, rule))
            continue
        seen[comparable(text)] = DUPLICATE
        kept.append(text)
        changed += [(line, name) for name in names]
    return Cleaned(kept or [instruction], changed, removed, not kept)


def report(results: Iterable[Cleaned]) -> dict[str, int]:
    """Return the number of lines per rule. A line may be changed by several rules and is removed by at most one."""
    counts: Counter[str] = Counter()
    for result in results:
        counts.update(rule for _, rule in (*result.changed, *result.removed))
        counts[INSTRUCTION_STANDS_IN] += result.instruction_stands_in
    return {rule: counts[rule] for rule in RULES}
