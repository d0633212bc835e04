"""`blip2idc --server`: what a server of OpenAI's interface is sent; none of its answers ends a run or mixes it up."""

import dataclasses
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback_chat import MODEL, Fault, LoopbackChat, Question
from PIL import Image
from tiny_chat_models import save_chat
from tiny_models import save_tiny

from captioner_idc import bulk, server_client
from captioner_idc.__main__ import main
from captioner_idc.chat_pairs import PROMPT
from captioner_idc.exporting import export
from captioner_idc.loading import load_processor
from captioner_idc.server_client import ServerError, TwoImages, ask_server, caption_by_server, connect
from modeling_blip2idc import ImageError, fuse

KEY = "sk-0123456789"


def photograph(seed: int, size: tuple[int, int] = (90, 70)) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC)


def same(first: Image.Image, second: Image.Image) -> bool:
    return first.size == second.size and first.tobytes() == second.tobytes()


def name_first(question: Question) -> str:
    """Answer with the color of the first picture's corner, which names the pair."""
    return f"pair {question.pictures[0].getpixel((0, 0))[0]}"


def pair_of(body: dict[str, Any]) -> str:
    """Return what tells a request from those about other pairs."""
    return body["messages"][0]["content"][0]["image_url"]["url"]


def plain(number: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (number, 0, 0))


def numbered(count: int) -> list[tuple[Image.Image, Image.Image]]:
    return [(plain(number), plain(number + 1)) for number in range(count)]


def only(number: int, fault: Fault) -> Any:
    """Return a script in which the requests about one of `numbered` fail."""
    url = server_client._data_url(plain(number))
    return lambda body: fault if pair_of(body) == url else None


class FirstTimes:
    """A script in which the first requests about each pair fail."""

    def __init__(self, fault: Fault, times: int):
        self.fault, self.times, self.asked = fault, times, Counter()

    def __call__(self, body: dict[str, Any]) -> Fault | None:
        self.asked[pair_of(body)] += 1
        return self.fault if self.asked[pair_of(body)] <= self.times else None


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_client, "DELAYS", (0.01, 0.02))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def chat() -> Iterator[LoopbackChat]:
    with LoopbackChat(name_first) as server:
        yield server


# what is sent


def test_two_images_and_a_general_question_by_default(chat: LoopbackChat) -> None:
    small, large = photograph(0), photograph(1, (3000, 2000))
    assert caption_by_server(connect(chat.url), [(small, large)], max_new_tokens=7) == [
        f"pair {small.getpixel((0, 0))[0]}"
    ]
    [question] = chat.questions
    assert same(question.pictures[0], small) and question.pictures[1].size == (1254, 836)
    assert question.text == PROMPT and question.body["model"] == MODEL and question.body["max_tokens"] == 7
    assert "chat_template_kwargs" not in question.body


def test_a_blip2_gets_the_canvas_that_its_processor_makes(chat: LoopbackChat, tmp_path: Path) -> None:
    settings = {"layout": "horizontal", "blur": 1.5, "prompt": "Which?", "max_caption_length": 9}
    export(tmp_path / "plain", model=save_tiny(tmp_path / "model", **settings))
    server = connect(chat.url, processor=load_processor(tmp_path / "plain"))
    before, after = photograph(0), photograph(1)
    caption_by_server(server, [(before, after)])
    [question] = chat.questions
    [picture] = question.pictures
    assert same(picture, fuse(before, after, "horizontal", (32, 32), 1.5))
    assert question.text == "Which?" and question.body["max_tokens"] == 9
    caption_by_server(server, [(before, after)], text="")
    assert [part["type"] for part in chat.questions[1].body["messages"][0]["content"]] == ["image_url"]


@pytest.mark.parametrize("layout", ["two_images", "vertical"])
def test_a_chat_model_gets_what_its_processor_shows(chat: LoopbackChat, tmp_path: Path, layout: str) -> None:
    export(tmp_path / "plain", model=save_chat(tmp_path / "model", "qwen3_vl"))
    processor = load_processor(tmp_path / "plain").with_settings(layout=layout, prompt="Which?", pixels=64 * 64)
    before, after = photograph(0), photograph(1)
    caption_by_server(connect(chat.url, processor=processor), [(before, after)])
    [question] = chat.questions
    shown = processor._question(processor.load_pair(before, after, "the pair"), "Which?")[0]["content"]
    pictures = [part["image"] for part in shown if part["type"] == "image"]
    assert len(pictures) == len(question.pictures) == (2 if layout == "two_images" else 1)
    assert all(map(same, question.pictures, pictures)) and question.text == "Which?"
    assert question.body["chat_template_kwargs"] == {"enable_thinking": False}


def test_two_frames_cannot_be_sent(chat: LoopbackChat, tmp_path: Path) -> None:
    save_chat(tmp_path / "model", "qwen3_vl")
    processor = load_processor(tmp_path / "model").with_settings(layout="two_frames")
    with pytest.raises(ValueError, match="'two_frames' has no pictures"):
        caption_by_server(connect(chat.url, processor=processor), numbered(1))
    assert not chat.attempts


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_the_address_may_be_written_in_several_ways(chat: LoopbackChat, suffix: str) -> None:
    address = chat.url.removesuffix("/v1") + suffix
    assert caption_by_server(connect(address), numbered(1)) == ["pair 0"]
    assert chat.attempts == ["/v1/chat/completions"]


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "file:///etc/passwd", "http://", "http://a:b/", "http://a b"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is not the address of a server"):
        connect(address, MODEL)


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    for address in (f"http://me:{KEY}@127.0.0.1/v1", f"http://127.0.0.1/v1?key={KEY}"):
        with pytest.raises(ValueError, match="neither a password nor a query") as caught:
            connect(address, MODEL)
        assert KEY not in str(caught.value)


# the key


def test_only_the_key_for_servers_is_sent(chat: LoopbackChat, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the token for the Hub, which its own client for such servers would send."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    caption_by_server(connect(chat.url), numbered(1))
    assert not any("hf_secret" in value for headers in chat.headers for value in headers.values())
    assert not any("Authorization" in headers for headers in chat.headers)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    monkeypatch.setenv("MY_KEY", KEY)
    for options, key in (({}, "sk-other"), ({"api_key_env": "MY_KEY"}, KEY)):
        chat.headers.clear()
        server = connect(chat.url, **options)
        caption_by_server(server, numbered(1))
        assert {headers["Authorization"] for headers in chat.headers} == {f"Bearer {key}"}
        assert key not in repr(server)


def test_no_message_shows_the_key(
    chat: LoopbackChat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    chat.fault = lambda body: Fault(401, json.dumps({"error": {"message": f"Incorrect key: {KEY}"}}).encode())
    assert main([*files(tmp_path), "--server", chat.url]) == 2
    error = capsys.readouterr().err
    assert KEY not in error and error.count("\n") == 1
    wanted = f"error: {chat.url}/chat/completions answered with status 401 (Incorrect key: (key); set the key in"
    assert error.startswith(wanted)


def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nX-Other: 1")
    with pytest.raises(ValueError, match="OPENAI_API_KEY contains a character") as caught:
        connect("http://127.0.0.1:1", MODEL)
    assert KEY not in str(caught.value)


def test_a_redirect_is_not_followed(chat: LoopbackChat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with LoopbackChat() as other:
        for status in (301, 302, 303, 307, 308):
            chat.fault = lambda body, status=status: Fault(
                status, headers={"Location": f"{other.url}/chat/completions"}
            )
            with pytest.raises(ServerError, match=f"status {status}"):
                caption_by_server(connect(chat.url), numbered(1))
        assert not other.headers


# several requests, and failing ones


def test_requests_run_at_the_same_time_and_keep_their_order(chat: LoopbackChat) -> None:
    all_four = threading.Barrier(4, None, 60.0)

    def answer(question: Question) -> str:
        all_four.wait()  # for ever, if they came one after the other
        return name_first(question)

    chat.answer = answer
    found = caption_by_server(connect(chat.url), iter(numbered(8)), batch_size=4)
    assert found == [f"pair {number}" for number in range(8)] and chat.most_running == 4
    chat.answer, chat.fault = name_first, only(0, Fault(200, b"", seconds=0.3))
    found = caption_by_server(connect(chat.url), numbered(4), batch_size=4)
    assert found == [f"pair {number}" for number in range(4)], "the slow one comes first"
    assert name_first(chat.questions[-1]) == "pair 0"
    assert caption_by_server(connect(chat.url), [], batch_size=4) == []


def test_images_are_loaded_batch_by_batch(chat: LoopbackChat) -> None:
    waiting = []

    def pairs() -> Iterator[tuple[Image.Image, Image.Image]]:
        for number, pair in enumerate(numbered(6)):
            waiting.append(number - len(chat.questions))
            yield pair

    caption_by_server(connect(chat.url), pairs(), batch_size=2)
    assert max(waiting) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_temporary_errors_are_repeated(chat: LoopbackChat, status: int) -> None:
    chat.fault = FirstTimes(Fault(status), times=2)
    assert caption_by_server(connect(chat.url), numbered(3)) == ["pair 0", "pair 1", "pair 2"]
    assert len(chat.attempts) == 9


def test_a_broken_connection_is_repeated(chat: LoopbackChat) -> None:
    chat.fault = FirstTimes(Fault(0), times=1)
    assert caption_by_server(connect(chat.url), numbered(2)) == ["pair 0", "pair 1"]


def test_a_server_says_when_to_ask_again(chat: LoopbackChat, monkeypatch: pytest.MonkeyPatch) -> None:
    server, waits = connect(chat.url), []
    for asked in ("0", "3600", "soon"):
        chat.fault = FirstTimes(Fault(429, headers={"Retry-After": asked}), times=1)
        server_client._with_retries(server, "chat/completions", request(server, 1), waits.append)
    assert waits == [0.0, server_client.LONGEST_WAIT, 0.01]


def request(server: server_client.Server, number: int) -> dict[str, Any]:
    pair = server.processor.load_pair(*numbered(number + 1)[number], "the pair")
    return server_client.request_body(server, pair, "?", 5)


@pytest.mark.parametrize("status, attempts", [(400, 1), (413, 1), (422, 1), (500, 3)])
def test_a_refused_pair_leaves_the_others_their_sentences(chat: LoopbackChat, status: int, attempts: int) -> None:
    chat.fault = only(1, Fault(status, json.dumps({"detail": "too\x1b[31m\nlarge."}).encode()))
    first, second, third = ask_server(connect(chat.url), numbered(3), batch_size=2)
    assert (first, third) == ("pair 0", "pair 2") and len(chat.attempts) == 2 + attempts
    assert str(second) == f"{chat.url}/chat/completions answered with status {status} (too[31m large)."
    with pytest.raises(ServerError, match=f"status {status}"):
        caption_by_server(connect(chat.url), numbered(3))


@pytest.mark.parametrize(
    "body, reason",
    [
        (b"<html>", "did not answer with JSON"),
        (b'{"choices": []}', "an answer without a sentence"),
        (b'{"choices": [{"message": {"content": null}}]}', "an answer without a sentence"),
        (b"[1]", "an answer without a sentence"),
        (b"\xff\xfe", "did not answer with JSON"),
    ],
)
def test_garbage_is_an_error_of_its_pair(chat: LoopbackChat, body: bytes, reason: str) -> None:
    chat.fault = only(1, Fault(200, body))
    first, second, third = ask_server(connect(chat.url), numbered(3))
    assert (first, third) == ("pair 0", "pair 2") and reason in str(second)


def test_a_slow_answer_is_an_error_of_its_pair(chat: LoopbackChat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_client, "DELAYS", ())
    chat.fault = only(1, Fault(200, b"", seconds=60.0))
    server = connect(chat.url, None, None, "OPENAI_API_KEY", 3.0)
    first, second, third = ask_server(server, numbered(3))
    assert (first, third) == ("pair 0", "pair 2")
    assert str(second) == f"{chat.url}/chat/completions did not answer within 3 seconds."


@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
def test_what_concerns_all_pairs_ends_the_run(chat: LoopbackChat, status: int) -> None:
    chat.fault = lambda body: Fault(status)
    with pytest.raises(ServerError, match=f"status {status}"):
        ask_server(connect(chat.url), numbered(50), batch_size=2)
    assert len(chat.attempts) <= 6


def test_a_server_that_has_ended_is_named() -> None:
    with LoopbackChat() as chat:
        server = connect(chat.url)
    with pytest.raises(
        ServerError, match=r"^http://127.0.0.1:\d+/v1/chat/completions cannot be reached \(.*refused\)\.$"
    ):
        caption_by_server(server, numbered(1))
    with pytest.raises(ServerError, match="/v1/models cannot be reached"):
        connect(server.url)


def test_a_server_without_models_needs_a_name(chat: LoopbackChat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_client, "_send", lambda *_: {"data": []})
    with pytest.raises(ServerError, match="lists no model: name one with --model"):
        connect(chat.url)


def test_sentences_are_cleaned_like_local_ones(chat: LoopbackChat) -> None:
    chat.answer = lambda question: " the \x1b[31mred\x07 ball\n\nis gone \n"
    assert caption_by_server(connect(chat.url), numbered(1)) == ["the [31mred ball is gone"]


def test_arguments_are_checked(chat: LoopbackChat) -> None:
    server = connect(chat.url)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        caption_by_server(server, numbered(1), batch_size=0)
    with pytest.raises(ValueError, match="no option 'num_beams'"):
        caption_by_server(server, numbered(1), num_beams=2)
    with pytest.raises(ImageError, match=r"after image of pair 1 \(counted from 0\): 'missing.png' does not exist"):
        caption_by_server(server, [*numbered(1), (plain(0), "missing.png")])
    assert dataclasses.replace(server).processor.settings == TwoImages.settings


# the command


def files(folder: Path) -> list[str]:
    for number, name in enumerate(("before.png", "after.png")):
        plain(number).save(folder / name)
    return [str(folder / name) for name in ("before.png", "after.png")]


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bulk, "SHARD", 2)
    for number in range(6):
        plain(number).save(tmp_path / f"{number}.png")
    lines = [f"{number}.png,{number + 1}.png" for number in range(5)]
    (tmp_path / "pairs.csv").write_text("\n".join(["before,after", *lines]) + "\n")
    return tmp_path / "pairs.csv"


def list_command(chat: LoopbackChat, pairs: Path) -> tuple[Path, list[str]]:
    """Return an output, and the arguments that write the sentences of a list into it."""
    out = pairs.with_name("out.jsonl")
    return out, ["--pairs", str(pairs), "--server", chat.url, "--output", str(out), "--batch_size", "2"]


def predictions(file: Path) -> list[str | None]:
    return [json.loads(line)["prediction"] for line in file.read_text().splitlines()]


def test_the_command_prints_the_sentence(chat: LoopbackChat, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*files(tmp_path), "--server", chat.url, "--text", "Which?", "--max_new_tokens", "5"]) == 0
    assert capsys.readouterr() == ("pair 0\n", "")
    assert chat.questions[0].text == "Which?" and chat.questions[0].body["max_tokens"] == 5
    assert main([*files(tmp_path), "--server", chat.url, "--model", "other"]) == 2
    assert "(The model `other` does not exist; check the address, and --model)" in capsys.readouterr().err


def test_the_command_prepares_images_as_an_exported_folder_says(
    chat: LoopbackChat, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    export(tmp_path / "plain", model=save_tiny(tmp_path / "model", layout="horizontal"))
    before, after = files(tmp_path)
    assert main([before, after, "--server", chat.url, "--processor", str(tmp_path / "plain")]) == 0
    assert same(chat.questions[0].pictures[0], fuse(before, after, "horizontal", (32, 32)))
    (tmp_path / "plain" / "model.safetensors").unlink()
    assert main([before, after, "--server", chat.url, "--processor", str(tmp_path / "plain")]) == 0
    assert main([before, after, "--server", chat.url, "--processor", str(tmp_path / "no")]) == 2
    assert "the folder" in capsys.readouterr().err


def test_the_command_continues_a_list_and_records_what_is_refused(
    chat: LoopbackChat, pairs: Path, capsys: pytest.CaptureFixture
) -> None:
    out, command = list_command(chat, pairs)
    chat.fault = only(3, Fault(400))
    assert main(command) == 1
    assert predictions(out) == ["pair 0", "pair 1", "pair 2", None, "pair 4"]
    error = capsys.readouterr().err
    assert f"skipped: {pairs}, line 5: {chat.url}/chat/completions answered with status 400 (overloaded)." in error
    chat.fault, before = lambda body: None, len(chat.questions)
    assert main(command) == 0
    assert predictions(out) == [f"pair {number}" for number in range(5)]
    assert len(chat.questions) - before == 2, "only the shard of the refused pair is asked again"


def test_the_command_keeps_sentences_when_the_server_ends(
    chat: LoopbackChat, pairs: Path, capsys: pytest.CaptureFixture
) -> None:
    out, command = list_command(chat, pairs)
    chat.fault = only(2, Fault(503))
    assert main(command) == 2
    assert not out.exists() and "status 503" in capsys.readouterr().err
    chat.fault, before = lambda body: None, len(chat.questions)
    assert main([*command, "--text", "Which?"]) == 2
    assert "another prompt" in capsys.readouterr().err
    assert main(command) == 0
    assert "continuing after 2 of 5 pairs" in capsys.readouterr().err
    assert predictions(out) == [f"pair {number}" for number in range(5)] and len(chat.questions) - before == 3


@pytest.mark.slow
def test_ctrl_c_does_not_wait_for_a_server_that_hangs(root: Path, chat: LoopbackChat, tmp_path: Path) -> None:
    ended = threading.Event()
    chat.fault = lambda body: ended.wait(server_client.TIMEOUT) and None
    command = [sys.executable, "-m", "captioner_idc", *files(tmp_path), "--server", chat.url]
    process = subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True)
    while not chat.attempts and process.poll() is None:
        time.sleep(0.05)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    ended.set()
    assert process.returncode == 130 and "interrupted" in error
    assert time.monotonic() - start < server_client.TIMEOUT / 2


@pytest.mark.parametrize(
    "options", [["--num_beams", "2"], ["--adapter", "a"], ["--device", "cpu"], ["--allow_pickle"]]
)
def test_options_of_local_models_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, options: list[str]
) -> None:
    assert main([*files(tmp_path), "--server", "http://127.0.0.1:1", *options]) == 2
    assert f"{options[0]} does not go with --server" in capsys.readouterr().err
    assert main([*files(tmp_path), "--processor", "served"]) == 2
    assert "--processor goes with --server" in capsys.readouterr().err
