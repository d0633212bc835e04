"""Sentences of photo_edits, read back: which changes they state, of which thing, and where."""

import random
from typing import get_args

import pytest

from dataset_syned.photo_edit import Change
from dataset_syned.photo_scenes import PAINTS, PLACES
from dataset_syned.photo_statements import CHANGE_TYPES, Statement, statements
from dataset_syned.photo_wordings import SENTENCES, Style, words_for
from dataset_syned.thing_names import ThingName

OF_PLACES = ("{at}", "{target}", "{the_spot}")
PLACE_NAMES = [place for row in PLACES for place in row]


@pytest.mark.parametrize("style", get_args(Style))
def test_every_sentence_is_read_as_it_was_written(style: Style) -> None:
    assert set(SENTENCES[style]) == set(CHANGE_TYPES)
    rng = random.Random(1)
    for action, templates in SENTENCES[style].items():
        for template in templates:
            place, source = rng.sample(PLACE_NAMES, 2)
            thing = ThingName("circle" if action == "cover" else "tiger")
            change = Change("", action, thing, place, ThingName("fern"), source, rng.choice([*PAINTS]))
            sentence = template.format(**words_for(rng, change))
            [stated] = statements(sentence, style)
            assert (stated.action, stated.change_type) == (action, CHANGE_TYPES[action]), sentence
            assert stated.place == (place if any(name in template for name in OF_PLACES) else ""), sentence


def test_fields_of_a_statement() -> None:
    assert statements("The two red apples on the left turned into a fern.") == [
        Statement("replace", thing="two red apples", place="left", other="fern")
    ]
    assert statements("something has been added in the upper right") == [Statement("add", place="upper right")]
    assert statements("someone painted the old mug in the middle blue") == [
        Statement("recolor", thing="old mug", place="middle", color="blue")
    ]


def test_two_changes_in_one_sentence() -> None:
    sentence = "the black and white cow at the top is gone and the picture is now black and white"
    assert [stated.change_type for stated in statements(sentence)] == ["remove", "black-and-white"]


def test_other_sentences_state_nothing() -> None:
    for sentence in ("", "a tiger", "the dog is happy", "a tiger has been added in the", "nothing and nothing"):
        assert statements(sentence) == []
