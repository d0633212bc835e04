"""The chat templates of the real models, each in the tiny processor of its family.

TRL's package contains copies of them (trl/chat_templates).
"""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_chat_models import CHAT_FAMILIES
from tokenizers.processors import TemplateProcessing

from captioner_idc.chat_models import image_token_id
from captioner_idc.chat_pairs import ChatPairProcessor
from captioner_idc.families import FAMILIES

TRL = importlib.util.find_spec("trl")
pytestmark = pytest.mark.skipif(TRL is None, reason="TRL is not installed: it asks for Python 3.11")

USER, ANSWER, END = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "{}<|im_end|>"
QWEN2_5 = ("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + USER, ANSWER, END)
QWEN3_5 = (USER, ANSWER + "<think>\n\n</think>\n\n", END)
GEMMA4 = ("<bos><|turn>user\n", "<turn|>\n<|turn>model\n", "{}<turn|>")
IDEFICS = ("User:", "<end_of_utterance>\nAssistant:", " {}<end_of_utterance>")
# template -> family; the text before the first image, between question and answer, and of the labels
TEMPLATES: dict[str, tuple[str, tuple[str, str, str]]] = {
    "qwen2_5_vl": ("qwen2_5_vl", QWEN2_5),
    "qwen3_vl": ("qwen3_vl", (USER, ANSWER, END)),
    "qwen3_5_think": ("qwen3_5", QWEN3_5),
    "qwen3_5_nothink": ("qwen3_5", QWEN3_5),
    "qwen3_6": ("qwen3_5", QWEN3_5),
    "qwen3_8": ("qwen3_5", QWEN3_5),
    "gemma3": ("gemma3", ("<bos><start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n", "{}<end_of_turn>")),
    "gemma4_v2": ("gemma4", GEMMA4),  # in the order of their release
    "gemma4_v3": ("gemma4", GEMMA4),
    "gemma4": ("gemma4", GEMMA4),
    "gemma4_v4": ("gemma4", GEMMA4),
    "gemma4_v5": ("gemma4", GEMMA4),
    "smolvlm": ("smolvlm", ("<|im_start|>" + IDEFICS[0], *IDEFICS[1:])),
    "idefics3": ("idefics3", ("<|begin_of_text|>" + IDEFICS[0], *IDEFICS[1:])),
    "llava_next": ("llava_onevision", ("[INST] ", " [/INST]", " {}</s>")),  # a template of another kind
}
SPECIAL = ("<end_of_utterance>", "<start_of_turn>", "<end_of_turn>", "<|turn>", "<turn|>", "<|begin_of_text|>", "</s>")
THOUGHT = ("<think>", "</think>")  # Qwen's tokenizers decode them like words
QUESTION = "What changed?\n\nAnswer in one sentence."
CAPTIONS = (
    "the small red cube has been removed",
    "  a blank before and a line break after\n",
    '... and, (then) 3 balls: "gone"!',
    "\n\nfirst line\n\nsecond line\n third\n\n",
    "ein Würfel fehlt, 红球不见了 🎈",
    "\u00a0\u200bno character is visible before\u200b",
    "1",
    "",
)
ALL = pytest.mark.parametrize("template", TEMPLATES)
BASE = ("not saved", None)


def real_processor(template: str, **settings: Any) -> ChatPairProcessor:
    """Return the tiny processor of a template's family with this template and its special tokens."""
    family, (opening, _, _) = TEMPLATES[template]
    _, inner = CHAT_FAMILIES[family]()
    tokenizer = inner.tokenizer
    tokenizer.add_tokens(list(SPECIAL), special_tokens=True)
    tokenizer.add_tokens(list(THOUGHT))
    for bos in ("<bos>", "<|begin_of_text|>"):
        if opening.startswith(bos):  # Gemma's and Llama's tokenizers add it to every text
            tokenizer.bos_token = bos
            added = [(bos, tokenizer.bos_token_id)]
            tokenizer.backend_tokenizer.post_processor = TemplateProcessing(f"{bos} $A", special_tokens=added)
    file = Path(TRL.origin).parent / "chat_templates" / f"{template}.jinja"
    inner.chat_template = file.read_text(encoding="utf-8")
    sizes, two_frames = FAMILIES[family].load_processor.args
    return ChatPairProcessor(inner, BASE, sizes, two_frames, **{"prompt": QUESTION, **settings})


def pair(side: int = 64) -> tuple[Image.Image, Image.Image]:
    return Image.new("RGB", (side, side), "red"), Image.new("RGB", (side, side), "blue")


def pairs(count: int) -> list[tuple[Image.Image, ...]]:
    """Return all images before and all images after of pairs that differ in size."""
    return list(zip(*(pair(64 + 16 * i) for i in range(count)), strict=True))


@ALL
def test_labels_are_the_answer_and_its_end(template: str) -> None:
    processor, (_, _, label) = real_processor(template), TEMPLATES[template][1]
    inputs = processor(*pairs(len(CAPTIONS)), list(CAPTIONS))
    for caption, ids, row in zip(CAPTIONS, inputs["input_ids"], inputs["labels"], strict=True):
        assert processor.tokenizer.decode(row[row >= 0]) == label.format(caption.strip())
        places = (row >= 0).nonzero().flatten().tolist()
        assert places == list(range(places[0], places[-1] + 1)), "without a gap"
        assert ids[places].tolist() == row[places].tolist()
        assert row[places[-1]] == processor.end_token_id


@ALL
def test_training_asks_exactly_as_generation_does(template: str) -> None:
    processor, (opening, between, _) = real_processor(template), TEMPLATES[template][1]
    asked = processor(*pairs(len(CAPTIONS)))
    answered = processor(*pairs(len(CAPTIONS)), list(CAPTIONS))
    for row in range(len(CAPTIONS)):
        question = asked["input_ids"][row][asked["attention_mask"][row] == 1]
        first = (answered["labels"][row] >= 0).nonzero()[0, 0]
        assert answered["input_ids"][row, :first].tolist() == question.tolist()
        text = processor.tokenizer.decode(question)
        assert text.startswith(opening) and text.endswith(QUESTION + between)


@ALL
def test_thinking_is_off_in_both_renderings(template: str) -> None:
    processor = real_processor(template)
    both = processor(*pair())["input_ids"][0], processor(*pair(), CAPTIONS[0])["input_ids"][0]
    for text in map(processor.tokenizer.decode, both):
        assert text.count("<think>") == text.count("<think>\n\n</think>\n\n"), "only the empty thought"
        assert "reasoning" not in text.lower() and "<|channel>" not in text


@ALL
@pytest.mark.parametrize("layout", ["two_images", "vertical", "horizontal"])
def test_the_images_are_as_many_as_the_layout_has(template: str, layout: str) -> None:
    family, _ = TEMPLATES[template]
    processor = real_processor(template, layout=layout)
    config, tiny = CHAT_FAMILIES[family]()
    same = ChatPairProcessor(tiny, BASE, processor.sizes, layout=layout)
    counts = [
        (inputs["input_ids"] == image_token_id(config)).sum().item()
        for inputs in (processor(*pair()), processor(*pair(), CAPTIONS[0]), same(*pair()))
    ]
    assert counts[0] == counts[1] == counts[2] > 0
    text = processor.processor.apply_chat_template(processor._question(processor.load_pair(*pair(), ""), "?"))
    placeholder = processor.processor.boi_token if family == "gemma3" else processor.processor.image_token
    assert text.count(placeholder) == (2 if layout == "two_images" else 1)


@pytest.mark.parametrize("template", ["gemma3", "gemma4_v5", "idefics3"])
def test_the_text_begins_with_one_bos(template: str) -> None:
    processor = real_processor(template)
    for options in ({}, {"captions": CAPTIONS[0]}):
        ids = processor(*pair(), **options)["input_ids"][0].tolist()
        assert ids[0] == processor.tokenizer.bos_token_id and ids.count(ids[0]) == 1


@pytest.mark.parametrize("template", ["qwen3_5_think", "qwen3_6", "qwen3_8"])
def test_thinking_would_shift_the_labels(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Show that the checks above can fail: with a thought, the line breaks around it are other tokens."""
    processor = real_processor(template)
    monkeypatch.setattr("captioner_idc.chat_pairs.THINKING", "no switch of this name")
    with pytest.raises(ValueError, match="labels would be shifted"):
        processor(*pair(), CAPTIONS[0])
