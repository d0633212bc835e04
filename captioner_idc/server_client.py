"""Pairs of images to sentences by a server of OpenAI's interface, such as vLLM: no model is loaded here.

server = connect("http://127.0.0.1:8000", processor=load_processor("served"))
caption_by_server(server, [("before.png", "after.png")])
"""

import base64
import http.client
import io
import json
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from PIL import Image

from common_idc.hub_access import DELAYS
from modeling_blip2idc.image_fusion import Cell, ImageError, load_image

from .captioning import Pair, printable
from .chat_pairs import PIXELS, PROMPT, fit, template_options

API_KEY_ENV = "OPENAI_API_KEY"
TIMEOUT = 300.0  # seconds without a byte from the server; a busy one answers late
REPEATED = (408, 429, 500, 502, 503, 504)  # an overloaded server, or one that is just starting
OF_THE_PAIR = (400, 413, 415, 422, 500)  # other pairs may get an answer
LONGEST_WAIT = 60.0  # seconds that a server may ask for before the next attempt
LARGEST_ANSWER = 2**22  # bytes


class ServerError(OSError):
    """A failed request; the message says to which address and why, without the key."""


class PairRefused(ServerError):
    """A failed request that says nothing about other pairs."""


class TwoImages:
    """The processor for a server of which nothing is known: two images of at most a million pixels, one question."""

    settings: dict[str, Any] = {
        "layout": "two_images",
        "prompt": PROMPT,
        "pixels": 4 * PIXELS,
        "max_caption_length": 128,
    }
    chat_template = None

    def load_pair(self, before: Any, after: Any, name: str) -> tuple[Cell, Cell]:
        """Return both images of a pair. Raises: ImageError that names pair and side of an unreadable image."""
        return self._load(before, f"before image of {name}"), self._load(after, f"after image of {name}")

    def _load(self, image: Any, name: str) -> Cell:
        if isinstance(image, Cell):
            return image
        try:
            picture = load_image(image)
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from error
        size = fit(picture.size, self.settings["pixels"])
        return Cell(picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC))

    def pictures(self, pair: tuple[Cell, Cell]) -> list[Image.Image]:
        """Return the pictures of a pair that `load_pair` has returned."""
        return [cell.picture for cell in pair]


@dataclass(frozen=True)
class Server:
    """A server and how it is asked; `connect` makes one.

    Args:
        url: up to "/v1".
        model: name of the model there.
        processor: prepares the images: that of a captioner, or `TwoImages`.
        api_key: sent to this server only, and never shown.
        timeout: seconds without a byte from the server.
    """

    url: str
    model: str
    processor: Any = field(default_factory=TwoImages)
    api_key: str | None = field(default=None, repr=False)
    timeout: float = TIMEOUT


def connect(
    url: str,
    model: str | None = None,
    processor: Any | None = None,
    api_key_env: str = API_KEY_ENV,
    timeout: float = TIMEOUT,
) -> Server:
    """Return a server that is ready to be asked.

    The key, if there is one, is read from the environment; a saved token for the Hugging Face Hub is never sent.

    Args:
        url: of the server, with or without "/v1".
        model: its name there; None for the first that the server lists.
        processor: as `load_processor` returns it; None for two images and a general question.
        api_key_env: name of the environment variable with the key.

    Raises: ValueError for an address or a key that cannot be used; ServerError if the server does not list its models.
    """
    server = Server(_base_of(url), model or "", processor or TwoImages(), _read_key(api_key_env), timeout)
    if model is not None:
        return server
    listed = _with_retries(server, "models", None)
    try:
        found = listed["data"][0]["id"]
    except (LookupError, TypeError):
        found = None
    if not isinstance(found, str):
        raise ServerError(f"{server.url}/models lists no model: name one with --model.")
    return Server(server.url, found, server.processor, server.api_key, timeout)


def _base_of(url: str) -> str:
    """Return the address of the interface, to which e.g. "/chat/completions" is added."""
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 0) >= 0
    except ValueError:  # e.g. a port that is no number
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{url!r} is not the address of a server: write e.g. http://127.0.0.1:8000/v1.")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            f"the address of the server {parts.hostname!r} must contain neither a password nor a query: put the key "
            "into an environment variable, see --api_key_env."
        )
    path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"


def _read_key(variable: str) -> str | None:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"the environment variable {variable} contains a character that no key has: correct it.")
    return key or None


def caption_by_server(
    server: Server, pairs: Iterable[Pair], batch_size: int = 8, text: str | None = None, **options: Any
) -> list[str]:
    """Return one sentence per (before, after), in order, as `captioning.caption` does for a model.

    Args:
        pairs: may be a generator; one batch is in memory at a time.
        batch_size: requests at the same time.
        text: prompt instead of the one in the processor's settings.
        options: `max_new_tokens`, instead of the length in the processor's settings.

    Raises: ServerError for the first pair without an answer; ImageError that names side and number of the pair;
        ValueError for another option.
    """
    answers = ask_server(server, pairs, batch_size, text, **options)
    for answer in answers:
        if isinstance(answer, PairRefused):
            raise answer
    return answers


def ask_server(
    server: Server, pairs: Iterable[Pair], batch_size: int = 8, text: str | None = None, **options: Any
) -> list[str | PairRefused]:
    """Return for each pair its sentence, or why the server gives none for this pair.

    Raises: as `caption_by_server`, but ServerError only for what concerns all pairs, e.g. a server that has ended.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    unknown = sorted(set(options) - {"max_new_tokens"})
    if unknown:
        raise ValueError(f"a server has no option {unknown[0]!r}: use max_new_tokens only.")
    limit = options.get("max_new_tokens") or server.processor.settings["max_caption_length"]
    prompt = server.processor.settings["prompt"] if text is None else text
    loaded = (
        server.processor.load_pair(before, after, f"pair {index} (counted from 0)")
        for index, (before, after) in enumerate(pairs)
    )
    answers: list[str | PairRefused] = []
    while batch := list(islice(loaded, batch_size)):
        answers += _ask_at_once(server, batch, prompt, limit)
    return answers


def _ask_at_once(server: Server, pairs: list[tuple[Cell, Cell]], prompt: str, limit: int) -> list[str | PairRefused]:
    """Return the answers to as many requests at the same time. Raises: as `ask_server`."""
    answers: list[Any] = [None] * len(pairs)
    stop = threading.Event()

    def ask(index: int) -> None:
        try:
            answers[index] = _answer(server, request_body(server, pairs[index], prompt, limit), stop)
        except PairRefused as error:
            answers[index] = error
        except Exception as error:  # raised below, because nobody sees what a thread raises
            answers[index] = error
            stop.set()

    # Daemons, unlike the threads of a pool: after Ctrl-C, nothing waits for a server that hangs.
    threads = [threading.Thread(target=ask, args=(index,), daemon=True) for index in range(len(pairs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer in answers:
        if isinstance(answer, Exception) and not isinstance(answer, PairRefused):
            raise answer
    return answers


def request_body(server: Server, pair: tuple[Cell, Cell], prompt: str, max_tokens: int) -> dict[str, Any]:
    """Return the request about a pair that the server's processor has loaded; greedy, like local captions."""
    content = [
        {"type": "image_url", "image_url": {"url": _data_url(picture)}} for picture in server.processor.pictures(pair)
    ]
    if prompt:
        content.append({"type": "text", "text": prompt})
    body = {
        "model": server.model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": max_tokens,
        "temperature": 0,
    }
    template = template_options(server.processor.chat_template)
    return {**body, "chat_template_kwargs": template} if template else body


def _data_url(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")  # without loss, so that the server sees what a local model would
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _answer(server: Server, body: dict[str, Any], stop: threading.Event) -> str:
    """Return the sentence that the server answers. Raises: ServerError."""
    content = _with_retries(server, "chat/completions", body, stop.wait)
    try:
        sentence = content["choices"][0]["message"]["content"]
    except (LookupError, TypeError):
        sentence = None
    if not isinstance(sentence, str):
        raise PairRefused(f"{server.url}/chat/completions gave an answer without a sentence.")
    return printable(sentence)


def _with_retries(
    server: Server, path: str, body: dict[str, Any] | None, wait: Callable[[float], Any] = time.sleep
) -> Any:
    """Return the content of an answer; repeat the request after each of DELAYS if the error may be temporary.

    Args:
        wait: returns after so many seconds, or true at once if there is no need for another attempt.

    Raises: PairRefused or ServerError.
    """
    for delay in (*DELAYS, None):
        try:
            return _send(server, path, body)
        except _Failure as failure:
            seconds = delay if failure.wait is None else failure.wait
            if delay is None or not failure.is_temporary or wait(seconds):
                kind = PairRefused if failure.concerns_pair else ServerError
                raise kind(f"{server.url}/{path} {failure}") from failure
    raise AssertionError("the last attempt returns or raises")


class _Failure(Exception):
    """One failed attempt."""

    def __init__(self, reason: str, is_temporary: bool, concerns_pair: bool = False, wait: float | None = None):
        super().__init__(reason)
        self.is_temporary, self.concerns_pair, self.wait = is_temporary, concerns_pair, wait


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Lets a redirect be an error: another server must get neither key nor images."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _send(server: Server, path: str, body: dict[str, Any] | None) -> Any:
    """Return the content of the answer to one request, GET without a body. Raises: _Failure."""
    headers = {"Content-Type": "application/json", "User-Agent": "blip2idc"}
    if server.api_key is not None:
        headers["Authorization"] = f"Bearer {server.api_key}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{server.url}/{path}", data, headers)
    try:
        opener = urllib.request.build_opener(_NoRedirects)
        with opener.open(request, timeout=server.timeout) as response:
            received = response.read(LARGEST_ANSWER)
    except urllib.error.HTTPError as error:
        raise _refusal(error, server.api_key) from error
    except urllib.error.URLError as error:
        raise _unreachable(error.reason) from error
    except TimeoutError as error:
        raise _Failure(f"did not answer within {server.timeout:g} seconds.", True, concerns_pair=True) from error
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(error) from error
    try:
        return json.loads(received)
    except ValueError as error:
        raise _Failure("did not answer with JSON.", True, concerns_pair=True) from error


def _unreachable(reason: Any) -> _Failure:
    return _Failure(f"cannot be reached ({_one_line(str(reason)) or type(reason).__name__}).", True)


def _refusal(error: urllib.error.HTTPError, key: str | None) -> _Failure:
    with error:
        try:
            text = error.read(LARGEST_ANSWER).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            text = ""
    reason = _one_line(_message_in(text) or str(error.reason))
    if key is not None:
        reason = reason.replace(key, "(key)")  # a server may quote it
    advice = {
        401: f"; set the key in {API_KEY_ENV} or the variable of --api_key_env",
        404: "; check the address, and --model",
    }.get(error.code, "")
    asked = error.headers.get("Retry-After", "")
    wait = min(float(asked), LONGEST_WAIT) if asked.isdecimal() else None
    text = f"answered with status {error.code} ({reason}{advice})."
    return _Failure(text, error.code in REPEATED, error.code in OF_THE_PAIR, wait)


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
    return printable(text)[:300].rstrip(".")
