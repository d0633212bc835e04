"""Chat models that answer questions about sentences: a folder of transformers, or a server of OpenAI's interface.

chat = connect_chat("http://127.0.0.1:8000")
chat.answers(["Which color is the sky?"])

Both are asked at temperature 0. The key of a server is read from the environment and sent to this server only.
"""

import hashlib
import http.client
import json
import os
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

API_KEY_ENV = "OPENAI_API_KEY"
MAX_TOKENS = 4096  # of an answer; models that think first need many
DELAYS = (2.0, 8.0)  # seconds before the second and the third attempt
TIMEOUT = 300.0  # seconds without a byte from the server
REPEATED = (408, 429, 500, 502, 503, 504)  # an overloaded server, or one that is just starting
OF_THE_QUESTION = (400, 413, 422, 500)  # other questions may get an answer
LONGEST_WAIT = 60.0  # seconds that a server may ask for before the next attempt
LARGEST_ANSWER = 2**22  # bytes


class ChatError(OSError):
    """A model that gives no answers at all; the message never contains the key."""


class NoAnswer(Exception):
    """A question without an answer; others may get one."""


class ChatFolder:
    """A chat model of transformers, loaded at the first question.

    Args:
        folder: with config.json, *.safetensors and a tokenizer with a chat template.

    Raises: FileNotFoundError without config.json or weights.
    """

    BATCH = 8

    def __init__(self, folder: str | Path) -> None:
        self.folder, self._loaded = Path(folder), None
        weights = sorted(self.folder.glob("*.safetensors"))
        if not (self.folder / "config.json").is_file() or not weights:
            raise FileNotFoundError(
                f"{str(folder)!r} has no config.json with *.safetensors next to it; give a folder with a saved chat "
                "model, or the address of a server that begins with http:// or https://"
            )
        self.weights = weights

    @cached_property
    def description(self) -> str:
        """The name of the folder and the SHA-256 of its weights, for signatures."""
        hashed = hashlib.sha256()
        for path in self.weights:
            with path.open("rb") as file:
                while block := file.read(2**24):
                    hashed.update(block)
        return f"{self.folder.resolve().name} with weights {hashed.hexdigest()[:16]}"

    def answers(self, prompts: list[str]) -> list[str | NoAnswer]:
        """Return for each prompt the most likely answer, or why there is none.

        Raises: ChatError if the model cannot be loaded.
        """
        tokenizer, model = self._load()
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,  # ignored by templates without thinking
            )
            for prompt in prompts
        ]
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**20
        lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        found: list[Any] = [NoAnswer(f"has {length} tokens, and the model reads {limit}") for length in lengths]
        fitting = [number for number, length in enumerate(lengths) if length < limit]
        for first in range(0, len(fitting), self.BATCH):
            batch = fitting[first : first + self.BATCH]
            room = min(MAX_TOKENS, limit - max(lengths[number] for number in batch))
            answers = _generate(tokenizer, model, [texts[number] for number in batch], room)
            for number, answer in zip(batch, answers, strict=True):
                found[number] = answer
        return found

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer

            on_gpu = torch.cuda.is_available()
            safe = {"trust_remote_code": False}
            try:
                tokenizer = AutoTokenizer.from_pretrained(self.folder, padding_side="left", **safe)
                model = AutoModelForCausalLM.from_pretrained(
                    self.folder, dtype="auto" if on_gpu else torch.float32, use_safetensors=True, **safe
                )
            except (OSError, ValueError) as error:
                raise ChatError(f"{str(self.folder)!r} cannot be loaded as a chat model: {error}") from error
            if not tokenizer.chat_template:
                raise ChatError(f"{str(self.folder)!r} has no chat template: give a model that was tuned for chats")
            if tokenizer.pad_token is None:
                tokenizer.pad_token = tokenizer.eos_token
            self._loaded = tokenizer, model.to("cuda" if on_gpu else "cpu").eval()
        return self._loaded


def _generate(tokenizer: Any, model: Any, texts: list[str], max_new_tokens: int) -> list[str]:
    """Return the greedy answers to a batch of chats that the template has written."""
    import torch

    inputs = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
    inputs = {name: inputs[name].to(model.device) for name in ("input_ids", "attention_mask")}
    greedy = {"do_sample": False, "num_beams": 1, "temperature": None, "top_p": None, "top_k": None}
    with torch.inference_mode():
        tokens = model.generate(**inputs, **greedy, max_new_tokens=max_new_tokens, pad_token_id=tokenizer.pad_token_id)
    new = tokens[:, inputs["input_ids"].shape[1] :]  # [batch, new tokens]
    return tokenizer.batch_decode(new, skip_special_tokens=True)


@dataclass(frozen=True)
class ChatServer:
    """A model of a server of OpenAI's interface; `connect_chat` returns one.

    Args:
        url: up to "/v1".
        model: name of the model there.
        api_key: sent to this server only, and never shown.
    """

    url: str
    model: str
    api_key: str | None = field(default=None, repr=False)

    @property
    def description(self) -> str:
        """The name of the model, for signatures."""
        return f"{self.model} of a server"

    def answers(self, prompts: list[str]) -> list[str | NoAnswer]:
        """Return for each prompt its answer, or why there is none; all are asked at the same time.

        Raises: ChatError for what concerns all questions, e.g. a server that cannot be reached.
        """
        found: list[Any] = [None] * len(prompts)

        def ask(number: int) -> None:
            try:
                found[number] = self._answer(prompts[number])
            except Exception as error:  # raised below, because nobody sees what a thread raises
                found[number] = error

        # Daemons, unlike the threads of a pool: after Ctrl-C, nothing waits for a server that hangs.
        threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for answer in found:
            if isinstance(answer, Exception) and not isinstance(answer, NoAnswer):
                raise answer
        return found

    def _answer(self, prompt: str) -> str:
        message = {"role": "user", "content": prompt}
        body = {"model": self.model, "messages": [message], "max_tokens": MAX_TOKENS, "temperature": 0}
        content = self.request("chat/completions", body)
        try:
            text = content["choices"][0]["message"]["content"]
        except (LookupError, TypeError):
            text = None
        if not isinstance(text, str):
            raise NoAnswer("the server answered without a text")
        return text

    def request(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the JSON content of an answer; a request that may succeed later is repeated after each of DELAYS.

        Raises: NoAnswer or ChatError.
        """
        for delay in (*DELAYS, None):
            try:
                return self._send(path, body)
            except _Failure as failure:
                if delay is None or not failure.is_temporary:
                    if failure.concerns_question:
                        raise NoAnswer(f"the server {failure}") from failure
                    raise ChatError(f"{self.url}/{path} {failure}") from failure
                time.sleep(delay if failure.wait is None else failure.wait)
        raise AssertionError("the last attempt returns or raises")

    def _send(self, path: str, body: dict[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json", "User-Agent": "metric_idc"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data, headers)
        try:
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT) as response:
                return json.loads(response.read(LARGEST_ANSWER))
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from error
        except TimeoutError as error:
            raise _Failure(f"did not answer within {TIMEOUT:g} seconds", True, concerns_question=True) from error
        except (OSError, http.client.HTTPException) as error:
            reason = _one_line(str(getattr(error, "reason", error))) or type(error).__name__
            raise _Failure(f"cannot be reached ({reason})", True) from error
        except ValueError as error:
            raise _Failure("did not answer with JSON", True, concerns_question=True) from error

    def _refusal(self, error: urllib.error.HTTPError) -> "_Failure":
        with error:
            try:
                text = error.read(LARGEST_ANSWER).decode(errors="replace")
            except (OSError, http.client.HTTPException):
                text = ""
        reason = _message_in(text) or str(error.reason)
        if self.api_key is not None:
            reason = reason.replace(self.api_key, "(key)")  # a server may quote it
        advice = {
            401: f"; set the key in {API_KEY_ENV}",
            404: "; check the address, and the name of the model",
        }
        asked = error.headers.get("Retry-After", "")
        wait = min(float(asked), LONGEST_WAIT) if asked.isdecimal() else None
        text = f"answered with status {error.code} ({_one_line(reason)}{advice.get(error.code, '')})"
        return _Failure(text, error.code in REPEATED, error.code in OF_THE_QUESTION, wait)


class _Failure(Exception):
    """One failed attempt."""

    def __init__(self, reason: str, is_temporary: bool, concerns_question: bool = False, wait: float | None = None):
        super().__init__(reason)
        self.is_temporary, self.concerns_question, self.wait = is_temporary, concerns_question, wait


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Lets a redirect be an error: another server must get neither key nor questions."""

    def redirect_request(self, *_: Any) -> None:
        return None


Chat = ChatFolder | ChatServer


def connect_chat(place: str | Path, model: str | None = None) -> Chat:
    """Return a chat model that is ready to be asked.

    Args:
        place: folder of a chat model, or the address of a server, with or without "/v1". Its key, if there is one, is
            in the environment variable OPENAI_API_KEY.
        model: its name at the server; None for the first that the server lists.

    Raises: ValueError for an address, a name or a key that cannot be used; FileNotFoundError for a folder without a
        model; ChatError if the server does not list its models.
    """
    if not str(place).startswith(("http://", "https://")):
        if model is not None:
            raise ValueError(f"{model!r} names a model of a server, but {str(place)!r} is a folder: give one of both")
        return ChatFolder(place)
    server = ChatServer(_base_of(str(place)), model or "", _read_key())
    if model is not None:
        return server
    try:
        found = server.request("models")["data"][0]["id"]
    except (LookupError, TypeError, NoAnswer):
        found = None
    if not isinstance(found, str):
        raise ChatError(f"{server.url}/models lists no model: name one")
    return ChatServer(server.url, found, server.api_key)


def _base_of(url: str) -> str:
    """Return the address of the interface, to which e.g. "/chat/completions" is added."""
    try:
        parts = urllib.parse.urlsplit(url)
        usable = bool(parts.hostname) and (parts.port or 0) >= 0
    except ValueError:  # e.g. a port that is not a number
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{url!r} is not the address of a server: write e.g. http://127.0.0.1:8000/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            f"the address of the server {parts.hostname!r} must contain neither a password nor a query: put the key "
            f"into the environment variable {API_KEY_ENV}"
        )
    path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"


def _read_key() -> str | None:
    key = os.environ.get(API_KEY_ENV, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"the environment variable {API_KEY_ENV} contains a character that no key has: correct it")
    return key or None


def _message_in(text: str) -> str:
    """Return the message of OpenAI's, vLLM's or FastAPI's JSON for errors; other texts as they are."""
    try:
        content = json.loads(text)
    except ValueError:
        return text
    if isinstance(content, dict):
        found = content.get("error", content)
        found = found.get("message") if isinstance(found, dict) else found
        return str(found or content.get("detail") or text)
    return text


def _one_line(text: str) -> str:
    return re.sub(r"[^\x20-\x7e\xa0-\U0010ffff]+", " ", text).strip()[:300].rstrip(".")
