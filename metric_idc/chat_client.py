"""Chat models that answer questions about sentences: a folder of transformers, or a server of OpenAI's interface.

chat = connect_chat("http://127.0.0.1:8000")
chat.answers(["Which color is the sky?"])

Both are asked at temperature 0. The key of a server is read from the environment and sent to this server only. What
openai's client finds in its other environment variables (organization, project, headers) is sent too.
"""

import hashlib
import os
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

API_KEY_ENV = "OPENAI_API_KEY"
MAX_TOKENS = 4096  # of an answer; models that think first need many
RETRIES = 2  # of a request, after 0.5 and 1 seconds or, up to two minutes, as long as the server asks for
TIMEOUT = 300.0  # seconds without a byte from the server; a busy one answers late
CONNECT_TIMEOUT, LIST_TIMEOUT = 10.0, 30.0  # seconds until it accepts a connection, and lists its models
QUESTION_REFUSED = (400, 413, 422, 500)  # status of a request when others may get an answer
ADVICE = {401: f"; set the key in {API_KEY_ENV}", 404: "; check the address, and the name of the model"}
CHECK = "Answer with one word: which color is snow?"
NO_KEY = "no-key"  # a local server needs no key, and openai's client always sends one


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

    def __init__(self, folder: str | Path) -> None:
        self.folder, self._loaded = Path(folder), None
        weights = sorted(self.folder.glob("*.safetensors"))
        if not (self.folder / "config.json").is_file() or not weights:
            raise FileNotFoundError(
                f"{str(folder)!r} has no config.json with *.safetensors next to it; give a folder with a saved chat "
                "model, or the address of a server that begins with http:// or https://"
            )
        self.weights = weights

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    @cached_property
    def description(self) -> str:
        """The name of the folder and a SHA-256 of its weights, configuration and tokenizer, for signatures."""
        hashed = hashlib.sha256()
        others = [
            path for pattern in ("config.json", "tokenizer*", "chat_template*") for path in self.folder.glob(pattern)
        ]
        for path in [*self.weights, *sorted(path for path in others if path.is_file())]:
            with path.open("rb") as file:
                while block := file.read(2**24):
                    hashed.update(block)
        return f"{self.name} with files {hashed.hexdigest()[:16]}"

    def answers(self, prompts: list[str]) -> list[str | NoAnswer]:
        """Return for each prompt the greedy answer, or why there is none; all are computed at the same time.

        Raises: ChatError if the model cannot be loaded.
        """
        tokenizer, model = self._load()
        texts = [self._chat(tokenizer, prompt) for prompt in prompts]
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**20
        lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        fitting = [text for text, length in zip(texts, lengths, strict=True) if length < limit]
        room = min(MAX_TOKENS, limit - max((length for length in lengths if length < limit), default=0))
        answers = iter(_generate(tokenizer, model, fitting, room) if fitting else ())
        return [
            next(answers) if length < limit else NoAnswer(f"has {length} tokens, and the model reads {limit}")
            for length in lengths
        ]

    def check(self) -> None:
        """Try the chat template, without the weights. Raises: ChatError."""
        self._chat(self._load_tokenizer(), CHECK)

    def _chat(self, tokenizer: Any, prompt: str) -> str:
        """Return a prompt as the chat template writes it."""
        message = {"role": "user", "content": prompt}
        try:
            # templates without thinking ignore the last
            return tokenizer.apply_chat_template(
                [message], tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        except Exception as error:  # of whatever the template does
            raise ChatError(f"the chat template of {str(self.folder)!r} cannot be used: {error}") from error

    def _load_tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, padding_side="left", trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ChatError(f"{str(self.folder)!r} has no tokenizer that can be loaded: {error}") from error
        if not tokenizer.chat_template:
            raise ChatError(f"{str(self.folder)!r} has no chat template: give a model that was tuned for chats")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            import torch
            from safetensors import SafetensorError
            from transformers import AutoModelForCausalLM

            tokenizer, on_gpu = self._load_tokenizer(), torch.cuda.is_available()
            options = {
                "dtype": "auto" if on_gpu else torch.float32,
                "use_safetensors": True,
                "trust_remote_code": False,
            }
            try:
                model, loaded = AutoModelForCausalLM.from_pretrained(self.folder, output_loading_info=True, **options)
            except (OSError, ValueError, RuntimeError, SafetensorError) as error:
                reason = " ".join(str(error).split())[:300]
                raise ChatError(f"{str(self.folder)!r} cannot be loaded as a chat model: {reason}") from error
            if missing := sorted(loaded["missing_keys"]):
                raise ChatError(f"the weights in {str(self.folder)!r} lack {missing[0]!r} ({len(missing)} in all)")
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
        client: of the package openai, which repeats requests that may succeed later.
        name: of the model there.
    """

    client: Any = field(repr=False)
    name: str

    @property
    def description(self) -> str:
        """The name of the model, for signatures."""
        return f"{self.name} of a server"

    def answers(self, prompts: list[str]) -> list[str | NoAnswer | ChatError]:
        """Return for each prompt its answer, or why there is none; all are asked at the same time.

        ChatError: what concerns all questions, e.g. a server that cannot be reached.
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
            if isinstance(answer, Exception) and not isinstance(answer, NoAnswer | ChatError):
                raise answer
        return found

    def check(self) -> None:
        """Ask one question, so that a wrong name, key or option shows. Raises: ChatError."""
        try:
            self._answer(CHECK)
        except NoAnswer as reason:
            raise ChatError(f"{self._url} gives no answer: {reason}") from reason

    def first_model(self) -> str:
        """Return the name of the first model that the server lists. Raises: ChatError."""
        try:
            return self._request(lambda: self.client.models.list(timeout=LIST_TIMEOUT).data[0].id)
        except NoAnswer as reason:
            raise ChatError(f"{self._url} lists no model ({reason}): name one") from reason

    def _answer(self, prompt: str) -> str:
        message = {"role": "user", "content": prompt}
        asked = {"model": self.name, "messages": [message], "max_tokens": MAX_TOKENS, "temperature": 0}
        return self._request(lambda: self.client.chat.completions.create(**asked).choices[0].message.content)

    def _request(self, request: Callable[[], Any]) -> str:
        """Return the text that a request finds in the answer. Raises: NoAnswer or ChatError."""
        import openai

        try:
            text = request()
        except openai.APITimeoutError as error:
            if type(error.__cause__).__name__ == "ConnectTimeout":
                raise ChatError(f"{self._url} accepts no connection within {CONNECT_TIMEOUT:g} seconds") from error
            raise NoAnswer("the server did not answer in time") from error
        except openai.APIStatusError as error:
            status = error.status_code
            message = self._without_key(error.message.removeprefix(f"Error code: {status} - "))
            if status in QUESTION_REFUSED:
                raise NoAnswer(f"the server answered with status {status} ({message})") from error
            raise ChatError(
                f"{self._url} answered with status {status} ({message}){ADVICE.get(status, '')}"
            ) from error
        except (openai.APIConnectionError, UnicodeError) as error:  # the latter: no host can have this name
            reason = self._without_key(str(error.__cause__ or error))
            raise ChatError(f"{self._url} cannot be reached ({reason})") from error
        except (LookupError, AttributeError, TypeError, ValueError):  # not the JSON of this interface
            text = None
        if not isinstance(text, str):
            raise NoAnswer("the server answered without a text")
        return text

    @property
    def _url(self) -> str:
        return str(self.client.base_url).rstrip("/")

    def _without_key(self, message: str) -> str:
        """Return a message in one line; a server may quote the key."""
        return " ".join(message.replace(self.client.api_key, "(key)").split())[:300]


Chat = ChatFolder | ChatServer


def connect_chat(place: str | Path, model: str | None = None) -> Chat:
    """Return a chat model that is ready to be asked.

    Args:
        place: folder of a chat model, or the address of a server, with or without "/v1". Its key, if there is one, is
            in the environment variable OPENAI_API_KEY.
        model: its name at the server; None for the first that the server lists.

    Raises: ImportError without openai, for a server; ValueError for an address, a name or a key that cannot be used;
        FileNotFoundError for a folder without a model; ChatError if the server does not list its models.
    """
    if not is_address(place):
        if model is not None:
            raise ValueError(
                f"{model!r} names a model of a server, but {str(place)!r} is a folder: give one of the two"
            )
        return ChatFolder(place)
    client = _client(str(place))
    return ChatServer(client, model or ChatServer(client, "").first_model())


def is_address(place: str | Path) -> bool:
    """Return whether a place is the address of a server; all others are folders."""
    return str(place).startswith(("http://", "https://"))


def _client(address: str) -> Any:
    """Return openai's client of a server; redirects are errors, since no other server must get the questions."""
    try:
        import openai
    except ImportError as error:
        raise ImportError(f'{error}; a server is asked with openai: pip install "blip2idc[judge]"') from error
    return openai.OpenAI(
        base_url=_base_of(address),
        api_key=_read_key(),
        timeout=openai.Timeout(TIMEOUT, connect=CONNECT_TIMEOUT),
        max_retries=RETRIES,
        http_client=openai.DefaultHttpxClient(follow_redirects=False),
    )


def _base_of(address: str) -> str:
    """Return the address of the interface, to which e.g. "/chat/completions" is added."""
    try:
        parts = urllib.parse.urlsplit(address)
        usable = bool(parts.hostname) and (parts.port or 0) >= 0 and address.isprintable() and " " not in address
    except ValueError:  # e.g. a port that is not a number
        usable = False
    if not usable:
        raise ValueError(f"{address!r} is not the address of a server: write e.g. http://127.0.0.1:8000/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            f"the address of the server {parts.hostname!r} must contain neither a password nor a query: put the key "
            f"into the environment variable {API_KEY_ENV}"
        )
    return address if parts.path.strip("/") else f"{address.rstrip('/')}/v1"


def _read_key() -> str:
    key = os.environ.get(API_KEY_ENV, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"the environment variable {API_KEY_ENV} contains a character that no key has: correct it")
    return key or NO_KEY
