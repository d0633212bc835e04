"""Difference units as a chat model reads them, in place of the rules; its prompt is units_prompt.txt.

A sentence for which the model gives no usable answer is read by the rules, and counted.
"""

import json
from collections.abc import Iterable
from typing import Any

from .chat_answers import ChatAnswers, Question, fill, read_prompt
from .difference_units import Units, true_units
from .unit_rules import ACTIONS, UNITS_EXAMPLE, WEAK, are_units, stated_units

PROMPT = "units_prompt.txt"
KNOWN_ACTIONS = frozenset(action for action, _ in [*ACTIONS, *WEAK])


class ChatUnits:
    """A parser: sentence -> units.

    Args:
        answers: of the chat model.
    """

    def __init__(self, answers: ChatAnswers) -> None:
        self.answers, self.read_units = answers, {}
        self.prompt, sha256 = read_prompt(PROMPT)
        self.name = f"{answers.model} at temperature 0, prompt with SHA-256 {sha256}"

    def __call__(self, sentence: str) -> Units:
        """Return the units of a sentence; to ask about many at the same time, call `read` first."""
        if sentence not in self.read_units:
            self.read([sentence])
        units = self.read_units[sentence]
        return stated_units(sentence) if units is None else units

    def read(self, sentences: Iterable[str]) -> None:
        """Ask for the units of all sentences that are not known yet."""
        new = [sentence for sentence in dict.fromkeys(sentences) if sentence not in self.read_units]
        for sentence, answer in zip(new, self.answers.ask([self._question(text) for text in new]), strict=True):
            self.read_units[sentence] = None if answer is None else true_units(answer["units"])

    def facts(self) -> dict[str, Any]:
        """Return how many sentences the model and the rules read, and how often the model was asked again."""
        by_rules = sum(units is None for units in self.read_units.values())
        return {
            "sentences": len(self.read_units) - by_rules,
            "read_by_rules": by_rules,
            "reasons": self.answers.reasons(),
            "retries": self.answers.retries,
        }

    def _question(self, sentence: str) -> Question:
        prompt = fill(self.prompt, sentence=json.dumps(sentence, ensure_ascii=False))
        return Question({"sentence": sentence}, prompt, checked_units)


def checked_units(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the units of an answer. Raises: ValueError for another form or an unknown action."""
    units = answer.get("units")
    if not are_units(units) or not all(unit["thing"].strip() for unit in units):
        raise ValueError(f'"units" must be a list such as {UNITS_EXAMPLE}')
    unknown = [unit["action"] for unit in units if unit["action"] not in KNOWN_ACTIONS]
    if unknown:
        raise ValueError(f"{json.dumps(unknown[0])} is not one of the actions")
    return {"units": [{"thing": unit["thing"].strip(), "action": unit["action"]} for unit in units]}
