"""Answers in JSON: checked, asked again if they cannot be used, and kept in a file so that none is asked for twice."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .chat_client import Chat, ChatError, NoAnswer

ATTEMPTS = 3
KEPT = "; the answers so far are kept: run the same command again"
LONGEST_REASON = 200  # characters; it may quote the answer
BATCH = 8  # questions asked at the same time; their answers are written together
AGAIN = "\n\nAn earlier answer could not be used: {reason}. Return only the JSON object, in exactly the form above."
PLACEHOLDER = re.compile(r"\{([a-z]+)\}")


@dataclass(frozen=True)
class Question:
    """A question with its check.

    Args:
        about: what it is about, e.g. pair and sentence; kept with the answer.
        prompt: its whole text.
        check: object that was answered -> what is kept of it; raises ValueError that says what is wrong.
    """

    about: dict[str, Any]
    prompt: str
    check: Callable[[Any], Any]


@dataclass
class ChatAnswers:
    """Answers of one model.

    Args:
        use: what the answers are for, in one word for the progress bar.
        file: of JSON lines, one per answer, which later runs read; None to keep nothing. Answers that cannot be used
            are not written: the next run asks again.
    """

    chat: Chat
    use: str
    file: Path | None = None
    retries: int = 0  # also those of answers that were read from the file
    failures: dict[str, str] = field(default_factory=dict)  # key -> why the answer cannot be used

    def __post_init__(self) -> None:
        self.model = self.chat.description
        self.known = _read(self.file) if self.file else {}
        # whether the model has ever said anything; if not, the cause is not a single question
        self.answered = any(line.get("model") == self.model for line in self.known.values())

    def ask(self, questions: list[Question]) -> list[Any]:
        """Return what `check` returns for the answer to each question; None for an answer that cannot be used.

        Raises: ChatError if the model gives no answers at all; the next run continues after the last kept answer.
        """
        keyed = {self._key(question): question for question in questions}
        found = {key: answer for key, question in keyed.items() if (answer := self._kept(key, question))}
        left = [(key, question) for key, question in keyed.items() if key not in found]
        with tqdm(total=len(left), unit="question", desc=f"{self.use} {self.chat.name}", disable=not left) as bar:
            for first in range(0, len(left), BATCH):
                batch = dict(left[first : first + BATCH])
                answers, error = self._ask_batch(batch)
                self._append(batch, answers)
                if error:
                    raise ChatError(f"{error}{KEPT if self.file else ''}") from error
                found |= answers
                bar.update(len(batch))
        self.retries += sum(attempts - 1 for _, attempts in found.values())
        return [found.get(self._key(question), (None, 0))[0] for question in questions]

    def reasons(self) -> list[str]:
        """Return why answers could not be used: at most ten different reasons."""
        return sorted(set(self.failures.values()))[:10]

    def _key(self, question: Question) -> str:
        text = json.dumps([self.model, question.about, question.prompt], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _kept(self, key: str, question: Question) -> tuple[Any, int] | None:
        """Return answer and attempts of the file, if there is an answer that can be used."""
        line = self.known.get(key, {})
        try:
            return (question.check(line["answer"]), int(line["attempts"]))
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError):  # a damaged line
            return None

    def _ask_batch(self, batch: dict[str, Question]) -> tuple[dict[str, tuple[Any, int]], ChatError | None]:
        """Return answer and attempts of each question whose answer can be used, and what ends all asking."""
        found: dict[str, tuple[Any, int]] = {}
        reasons = dict.fromkeys(batch, "")
        for attempt in range(1, ATTEMPTS + 1):
            prompts = [
                batch[key].prompt + (AGAIN.format(reason=reason) if reason else "") for key, reason in reasons.items()
            ]
            texts = dict(zip(reasons, self.chat.answers(prompts), strict=True)) if prompts else {}
            for key, text in texts.items():
                if isinstance(text, ChatError):
                    continue
                if isinstance(text, NoAnswer):  # the request was repeated already, where that could help
                    del reasons[key]
                    self._fail(key, str(text), attempt)
                    continue
                try:
                    found[key] = batch[key].check(json_object(text)), attempt
                    del reasons[key]
                except ValueError as error:
                    reasons[key] = str(error)[:LONGEST_REASON]
            if error := self._end(list(texts.values())):
                return found, error
        for key, reason in reasons.items():
            self._fail(key, reason, ATTEMPTS)
        return found, None

    def _end(self, texts: list[str | NoAnswer | ChatError]) -> ChatError | None:
        """Return what ends all asking, of the answers to a batch: an error, or a whole batch that was refused."""
        self.answered = self.answered or any(isinstance(text, str) for text in texts)
        if errors := [text for text in texts if isinstance(text, ChatError)]:
            return errors[0]
        if len(texts) == BATCH and not self.answered:
            return ChatError(f"none of the first {BATCH} questions got an answer: {texts[0]}")
        return None

    def _fail(self, key: str, reason: str, attempts: int) -> None:
        self.failures[key] = reason
        self.retries += attempts - 1

    def _append(self, batch: dict[str, Question], answers: dict[str, tuple[Any, int]]) -> None:
        """Append a line per answer; an unfinished line of a killed process is ended first."""
        if self.file is None or not answers:
            return
        lines = [
            {"key": key, "model": self.model, **batch[key].about, "answer": answer, "attempts": attempts}
            for key, (answer, attempts) in answers.items()
        ]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("ab+") as file:
            file.seek(max(0, file.seek(0, 2) - 1))
            ended = file.read(1) in (b"", b"\n")
            file.write((b"" if ended else b"\n") + "".join(json.dumps(line) + "\n" for line in lines).encode())


def fill(template: str, **values: str) -> str:
    """Return a prompt with each {name} replaced by its value; braces inside values stay as they are."""
    return PLACEHOLDER.sub(lambda found: values[found[1]], template)


def read_prompt(name: str) -> tuple[str, str]:
    """Return the text of a prompt file of this package and the first 16 digits of its SHA-256."""
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return text, hashlib.sha256(text.encode()).hexdigest()[:16]


def json_object(text: str) -> dict[str, Any]:
    """Return the JSON object of an answer that may have a thought, other words or a code fence around it.

    Raises: ValueError that says what is wrong.
    """
    text = text.rpartition("</think>")[2]
    first, last = text.find("{"), text.rfind("}")
    try:
        found = json.loads(text[first : last + 1]) if 0 <= first < last else None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError("it contains no JSON object")
    return found


def _read(file: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of a file by their keys; unfinished lines of killed processes are ignored."""
    known = {}
    for line in file.read_bytes().split(b"\n") if file.is_file() else ():
        try:
            content = json.loads(line)
            known[content["key"]] = content
        except (ValueError, LookupError, TypeError):
            continue
    return known
