"""Paraphrases that mean something else, although sentence embeddings hardly notice, are not kept."""

import pytest

from dataset_syned.synthesis.meaning import meanings, new_words, quotations, rule_against
from metric_idc import stated_units

SAME = [
    ("Change the color of the plate to white.", "Change the plate to white."),
    ("Get rid of the two cars", "Remove both cars from the picture."),
    ("Get rid of the rocking chair behind the young boy.", "Remove the rocking chair behind the young boy."),
    ("Add a clown standing in the background.", "Place a clown in the background"),
    ("Add the word 'room' to the left of the mirror.", 'Add "room" to the left of the mirror.'),
    ("Make the cup gray", "Change the color of the cup to grey"),
    ("Add a hat above the sign", "Add a hat to the top of the sign"),
    ("Change this into a Monet painting.", "Turn this into a Monet painting."),
    ("write the words 'Go'", 'write the word "Go"'),
    ("Remove all the grass.", "Take away all the grass from the picture."),
]
OTHER = [
    ("add a dog to the tree", "remove the dog from the tree", "other_change"),
    ("add a dog to the tree", "add a cat to the tree", "other_change"),
    ("Change the background to a mosque", "Change the image to a mosque", "other_change"),
    ("add a car left of the hydrant", "add a car right of the hydrant", "other_words"),
    ("Add the word 'pizza' below the phone number.", 'Add the word "pizza" above the phone number.', "other_words"),
    ("rotate the picture clockwise", "rotate the picture counterclockwise", "other_change"),
    ("flip the picture horizontally", "flip the picture", "other_words"),
    ("make the sky red", "make the sky purple", "other_words"),
    ("remove the three dogs", "remove the four dogs", "other_words"),
    ("replace all of the pillows with bears", "replace one of the pillows with bears", "other_words"),
    ("turn on the light", "turn off the light", "other_words"),
    ("turn the light on.", "turn the light off.", "other_words"),
    ("zoom in on the dog", "zoom out on the dog", "other_words"),
    ("reduce the size of the cup", "increase the size of the cup", "other_words"),
    ("add a hat to his head", "add a hat to her head", "other_words"),
    ("Remove the salt shaker.", "Remove salt shakers.", "other_words"),
    ("Remove the toothpicks from the sandwiches", "Remove the toothpicks from the sandwich", "other_words"),
    ("Change the color of the table to aqua.", "Change the color of the table to a new color.", "other_words"),
    ("Add the phrase 'Nite Nite' to the wall", 'Add the phrase "Nite Night" to the wall', "other_text"),
    ("Add the word 'hydrant' to the hydrant", 'Add the word "Hydra" to the hydrant', "other_text"),
    ("replace the cat with a dog", "replace the cat with a horse", "new_word"),
    ("add a dog next to the tree", "add a dog next to the house", "new_word"),
    ("Remove the cat from the suitcase", "Remove the cat from the suitcase into a hat", "new_word"),
]


@pytest.mark.parametrize(("instruction", "paraphrase"), SAME)
def test_other_words_for_the_same_are_kept(instruction: str, paraphrase: str) -> None:
    assert rule_against(instruction, paraphrase, stated_units) == ""


@pytest.mark.parametrize(("instruction", "paraphrase", "rule"), OTHER)
def test_what_means_something_else_is_named(instruction: str, paraphrase: str, rule: str) -> None:
    assert rule_against(instruction, paraphrase, stated_units) == rule
    assert rule_against(instruction, instruction.capitalize(), stated_units) == ""


def test_without_a_parser_words_are_compared() -> None:
    assert rule_against("add a dog on the left", "remove the dog on the left", None) == ""
    assert rule_against("add a dog on the left", "add a dog on the right", None) == "other_words"


def test_words_of_one_meaning_stand_in_for_each_other() -> None:
    assert meanings("the UPPER leftmost cars") == meanings("two left cars at the top") - {"2"} == {"top", "left"}
    assert meanings("turn it counter-clockwise") == {"counterclockwise"}
    assert meanings("a bright brightly lit") == {"bright"} and not meanings("copyright of blackberry")


def test_new_words_ignore_endings_common_words_and_the_case() -> None:
    assert not new_words("Add carrots to the food", "Put a carrot in the picture of the Foods")
    assert new_words("Add a dog's bowl", "Add a dog bowl and spoons") == {"spoons"}


def test_quotations_have_any_marks_but_no_apostrophes() -> None:
    assert quotations("Add 'Pay here!' and \u201cSky\u201d to the dog's bowl, the cats' too") == {"pay here", "sky"}
