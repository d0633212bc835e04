"""An OpenAI-compatible server on this machine, for tests: it checks requests, decodes pictures and can misbehave.

It refuses what vLLM would refuse: a request without a model's name, another model, pictures that are no data URLs.
"""

import base64
import io
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

MODEL = "served-model"
KNOWN = {"model", "messages", "max_tokens", "temperature", "chat_template_kwargs"}
PREFIX = "data:image/png;base64,"


@dataclass
class Fault:
    """An answer instead of the right one.

    Args:
        status, body: of the answer; 0 closes the connection without one.
        seconds: before the answer.
        headers: of the answer.
    """

    status: int = 503
    body: bytes = b'{"error": {"message": "overloaded"}}'
    seconds: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Question:
    """A request that the server has understood."""

    pictures: list[Image.Image]
    text: str
    body: dict[str, Any]
    headers: Message


class LoopbackChat:
    """The server, as a context manager.

    Args:
        answer: question -> sentence.
        fault: body of a request -> what happens instead of an answer, or None.
    """

    def __init__(
        self,
        answer: Callable[[Question], Any] = lambda question: "the red ball is gone",
        fault: Callable[[dict[str, Any]], Fault | None] = lambda body: None,
    ):
        self.answer, self.fault = answer, fault
        self.questions: list[Question] = []
        self.attempts: list[str] = []
        self.headers: list[Message] = []
        self.lock, self.running, self.most_running = threading.Lock(), 0, 0

    def __enter__(self) -> "LoopbackChat":
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads, self.server.chat = True, self
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    @property
    def chat(self) -> LoopbackChat:
        return self.server.chat

    def do_GET(self) -> None:
        self.chat.headers.append(self.headers)
        if self.path == "/v1/models":
            return self.reply(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        self.reply(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        with self.chat.lock:
            self.chat.attempts.append(self.path)
            self.chat.headers.append(self.headers)
            self.chat.running += 1
            self.chat.most_running = max(self.chat.most_running, self.chat.running)
        try:
            self.answer(json.loads(sent))
        except (ConnectionError, TimeoutError):  # the client did not wait
            pass
        finally:
            with self.chat.lock:
                self.chat.running -= 1

    def answer(self, body: dict[str, Any]) -> None:
        if self.path != "/v1/chat/completions":
            return self.reply(404, {"detail": "Not Found"})
        fault = self.chat.fault(body)
        if fault is not None:
            time.sleep(fault.seconds)
        if fault is not None and fault.status == 0:
            return self.connection.close()
        if fault is not None and fault.status != 200:
            return self.send(fault.status, fault.body, fault.headers)
        if fault is not None and fault.body:
            return self.send(200, fault.body, fault.headers)
        if body.get("model") != MODEL:
            return self.reply(404, {"error": {"message": f"The model `{body.get('model')}` does not exist."}})
        try:
            question = Question(*understood(body), body, self.headers)
        except (KeyError, ValueError, TypeError) as error:
            return self.reply(400, {"error": {"message": f"{type(error).__name__}: {error}"}})
        sentence = self.chat.answer(question)
        self.chat.questions.append(question)
        message = {"role": "assistant", "content": sentence}
        self.reply(200, {"object": "chat.completion", "choices": [{"index": 0, "message": message}]})

    def reply(self, status: int, content: dict[str, Any]) -> None:
        self.send(status, json.dumps(content).encode(), {})

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def understood(body: dict[str, Any]) -> tuple[list[Image.Image], str]:
    """Return the pictures and the text of a request. Raises: KeyError, ValueError or TypeError."""
    unknown = set(body) - KNOWN
    if unknown:
        raise ValueError(f"unknown {sorted(unknown)}")
    if type(body["max_tokens"]) is not int or body["max_tokens"] < 1 or body["temperature"] != 0:
        raise ValueError("max_tokens is a number from 1, and temperature 0")
    [message] = body["messages"]
    if message["role"] != "user":
        raise ValueError("the only turn is the user's")
    if isinstance(message["content"], str):  # a question without pictures
        return [], message["content"]
    pictures, texts = [], []
    for part in message["content"]:
        if part["type"] == "text":
            texts.append(part["text"])
            continue
        url = part["image_url"]["url"]
        if texts or not url.startswith(PREFIX):
            raise ValueError("pictures come before the text, as PNG files")
        picture = Image.open(io.BytesIO(base64.b64decode(url.removeprefix(PREFIX), validate=True)))
        picture.load()
        pictures.append(picture)
    if not pictures or len(texts) > 1:
        raise ValueError("a question has pictures and at most one text")
    return pictures, "".join(texts)
