"""Conversations of trainers: both forms of an answer, two images, and errors that name a field that differs."""

import json
from pathlib import Path
from typing import Any

import pytest

from dataset_syned.conversations import answer, image_names, read_conversations, sentences
from dataset_syned.pairs import BrokenEntry, DataError

SHARE_GPT = {
    "messages": [{"role": "user", "content": "what changed?"}, {"role": "assistant", "content": " a car left "}]
}
LLAVA = {"conversations": [{"from": "human", "value": "what changed?"}, {"from": "gpt", "value": "a car left"}]}


@pytest.mark.parametrize("entry", [SHARE_GPT, LLAVA])
def test_the_answer_is_the_last_turn(entry: dict[str, Any]) -> None:
    assert answer(entry) == "a car left"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dialogue": [], "id": 7}, "no field 'messages' .or 'conversations'., it has: dialogue, id"),
        ({"messages": []}, "no field 'role' .or 'from'., it has: none"),
        ({"messages": SHARE_GPT["messages"][:1]}, "ends with .*'user'.*, not with an answer"),
        ({"conversations": [{"from": "gpt", "text": "x"}]}, "no field 'content' .or 'value'., it has: from, text"),
        ({"conversations": [{"from": "gpt", "value": " "}]}, "no text in 'answer'"),
        ({"conversations": "x"}, "no field 'role'"),
    ],
)
def test_another_form_of_conversation_is_named(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        answer(entry)


def test_an_entry_has_two_images() -> None:
    assert (
        image_names({"image": ["a.png", "b.png"]}) == image_names({"images": ["a.png", "b.png"]}) == ("a.png", "b.png")
    )
    for images in (["a.png"], "ab", [1, 2], ["a", "b", "c"]):
        with pytest.raises(DataError, match="expected the names of two"):
            image_names({"images": images})
    with pytest.raises(DataError, match="no field 'images' .or 'image'., it has: before"):
        image_names({"before": "a.png"})


def test_sentences_end_with_a_full_stop() -> None:
    assert sentences("One left. Another came.") == ["One left.", "Another came."]
    assert sentences("no stop") == ["no stop."]


def test_lists_and_lines_are_read_and_broken_entries_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([LLAVA, 5, LLAVA]))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, [LLAVA, 5, LLAVA])))
    for name, place in (("a.json", "item 1"), ("a.jsonl", "line 2")):
        first, broken, last = read_conversations(tmp_path / name, answer)
        assert first == last == "a car left"
        assert isinstance(broken, BrokenEntry) and f"{name}', {place}: not a JSON object" in str(broken.error)
