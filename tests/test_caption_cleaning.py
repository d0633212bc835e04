"""Cleaning of generated captions: what each rule removes, what must stay, and the counts on Syned's lines."""

import json
from pathlib import Path

import pytest

from dataset_syned.caption_cleaning import INSTRUCTION_STANDS_IN, RULES, clean, report

SYNED = Path(__file__).resolve().parents[2] / "shared" / "data" / "syned"
INSTRUCTION = "Change the dog into a cat."
GOLDEN = {
    "emoji": 11,
    "blanks": 127,
    "numbering": 0,
    "length_note": 29,
    "template_mark": 11,
    "quotation_marks": 3189,
    "unclosed_quotation": 476,
    "leading_punctuation": 4,
    "label": 7,
    "politeness": 8,
    "empty": 3,
    "placeholder": 6,
    "refusal": 35,
    "task_talk": 117,
    "asks_for_text": 62,
    "cut_colon": 0,
    "cut_single_word": 2,
    "cut_dangling": 8,
    "cut_adjective": 27,
    "cut_quotation": 1,
    "cut_bracket": 0,
    "cut_at_limit": 18,
    "duplicate": 5,
    "repeats_instruction": 190,
    "instruction_stands_in": 40,
}


@pytest.mark.parametrize(
    ("line", "kept", "rules"),
    [
        ('"Turn the dog into a cat."', "Turn the dog into a cat.", ["quotation_marks"]),
        ("“Turn the dog into a cat.”", "Turn the dog into a cat.", ["quotation_marks"]),
        ("'Turn the dog's ears red'", "Turn the dog's ears red", ["quotation_marks"]),
        ('"Write "MEOW" on the cat"', 'Write "MEOW" on the cat', ["quotation_marks"]),
        ('"Turn the dog into a tabby', "Turn the dog into a tabby", ["unclosed_quotation"]),
        ('2. "Swap the dog for a cat."', "Swap the dog for a cat.", ["numbering", "quotation_marks"]),
        ("- Swap the dog for a cat.", "Swap the dog for a cat.", ["numbering"]),
        ("Swap the dog for a cat. ( characters)", "Swap the dog for a cat.", ["length_note"]),
        ('"Swap the dog. (12 words)"', "Swap the dog.", ["length_note", "quotation_marks"]),
        ("INSTRUCTION :  <INSTRUCT> Swap the dog.", "Swap the dog.", ["template_mark", "blanks"]),
        ('Reword the instruction to: "Swap the dog."', "Swap the dog.", ["label", "quotation_marks"]),
        ('": A cat it is."', "A cat it is.", ["quotation_marks", "leading_punctuation"]),
        ("Swap the dog. Please proceed.", "Swap the dog.", ["politeness"]),
        ("  Swap  the dog . ", "Swap the dog.", ["blanks"]),
        ("A cat, please! \U0001f3a8", "A cat, please!", ["emoji", "blanks"]),
    ],
)
def test_text_around_the_caption_is_removed(line: str, kept: str, rules: list[str]) -> None:
    result = clean([line], INSTRUCTION)
    assert (result.kept, result.removed) == ([kept], [])
    assert sorted(result.changed) == sorted((line, rule) for rule in rules)


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("", "empty"),
        ("4.", "empty"),
        ("{Dadaist variation}", "placeholder"),
        ("I cannot fulfill your request.", "refusal"),
        ("I apologize for any confusion.", "refusal"),
        ("As an AI language model, it is hard to say.", "refusal"),
        ("Instead, I suggest focusing on positive prompts.", "refusal"),
        ("Here are four variations of the user prompt:", "task_talk"),
        ("Sure! A cat instead of a dog.", "task_talk"),
        ("Note: the meaning is kept.", "task_talk"),
        ("Rephrase the instruction to omit the dog.", "task_talk"),
        ("Write a story about a cat.", "asks_for_text"),
        ("Imagine a cat. Describe the scene in detail.", "asks_for_text"),
        ("Turn the dog, such as:", "cut_colon"),
        ("Envision", "cut_single_word"),
        ("Move the dog to the left and", "cut_dangling"),
        ("Make the dog a box filled with", "cut_dangling"),
        ("Turn the dog into a cat,", "cut_dangling"),
        ("Turn the dog into a colorful", "cut_adjective"),
        ('Write the word "ME', "cut_quotation"),
        ("Turn the dog (the big", "cut_bracket"),
        ("change the DOG into a cat", "repeats_instruction"),
    ],
)
def test_lines_that_are_not_captions_are_replaced_by_the_instruction(line: str, rule: str) -> None:
    result = clean([line], f" {INSTRUCTION} ")
    assert result.removed == [(line, rule)]
    assert result.kept == [INSTRUCTION] and result.instruction_stands_in


@pytest.mark.parametrize(
    "line",
    [
        "Remove the board the man is standing on",
        "Take the umbrella out",
        "Put a hat on",
        "Detach the nail the scissors are attached to",
        "Fold the table up",
        "Replace the dog's collar with one of the boys' caps",
        "U.S. flag in the background",
        "Update the scene to resemble Blade Runner (1982)",
        "Add the word 'cat' below the logo",
        'Write "DELETE?" on the screen',
        "1980s cartoon style",
        "Make the plate a pristine white",
        "Create a scene where the cat sits on the dog",
        "A vivid, AI-generated dreamscape as AI-generated art",
    ],
)
def test_good_lines_stay_as_they_are(line: str) -> None:
    result = clean([line], INSTRUCTION)
    assert (result.kept, result.changed, result.removed) == ([line], [], [])


def test_equal_lines_are_kept_once_whatever_their_case_and_punctuation() -> None:
    lines = ["A cat.", '"a CAT"', "A bigger cat"]
    result = clean(lines, INSTRUCTION)
    assert result.kept == ["A cat.", "A bigger cat"]
    assert result.removed == [('"a CAT"', "duplicate")]
    assert result.changed == [], "a removed line is counted once, under the rule that removed it"


def test_words_of_the_instruction_do_not_count_as_task_talk() -> None:
    assert clean(["Put the prompt in red"], "Change the prompt to red").kept == ["Put the prompt in red"]


def test_only_the_last_line_of_a_long_list_is_considered_cut() -> None:
    full = [f"Turn dog number {number} into a cat{' that is very long' * 8}." for number in range(4)]
    last = "Turn the dog into a cat that was once told"
    assert clean([*full, last], INSTRUCTION).removed == [(last, "cut_at_limit")]
    assert clean([last, *full], INSTRUCTION).removed == []
    assert clean([full[0], last], INSTRUCTION).removed == []


def test_no_lines_give_the_instruction() -> None:
    assert clean([], INSTRUCTION).kept == [INSTRUCTION]


def test_report_names_every_rule() -> None:
    counts = report([clean(['"A cat."', "a cat", "I cannot help."], INSTRUCTION), clean([], INSTRUCTION)])
    assert tuple(counts) == RULES
    assert {rule: count for rule, count in counts.items() if count} == {
        "quotation_marks": 1,
        "duplicate": 1,
        "refusal": 1,
        INSTRUCTION_STANDS_IN: 1,
    }


@pytest.mark.skipif(not SYNED.is_dir(), reason=f"the released text files of Syned are not in {SYNED}")
def test_counts_on_the_released_lines() -> None:
    """The golden counts come from these rules themselves, so that a changed rule shows all its effects."""
    lines = json.loads((SYNED / "gt_augmented_test_clean.json").read_text(encoding="utf-8"))
    text = (SYNED / "instructions_with_idx_test_split.txt").read_text(encoding="utf-8")
    instructions = dict(map(str.strip, line.split("<INSTRUCT>")) for line in text.splitlines())
    results = [clean(lines[key], instructions[key.strip()]) for key in lines]
    assert sum(map(len, lines.values())) == 8031
    kept = sum(len(result.kept) for result in results if not result.instruction_stands_in)
    assert kept + sum(len(result.removed) for result in results) == 8031
    assert GOLDEN == report(results)
