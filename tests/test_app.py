"""The page's server: what it answers, what it refuses, and what it leaves behind."""

import base64
import csv
import io
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image
from program_files import load_program

pytest.importorskip("gradio", reason='gradio is not installed: pip install -e ".[demo]"')

from page_server import PageServer, uploaded  # noqa: E402  it needs httpx, which comes with gradio

from captioner_idc.change_probability import explain, read_calibration, score_claims  # noqa: E402
from captioner_idc.loading import SHIPPED, load  # noqa: E402

MODEL = "the captioner that ships"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>owned = 1</script></svg>'


@pytest.fixture(scope="module")
def app(root: Path) -> ModuleType:
    return load_program(root / "app.py")


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    with PageServer(root, tmp_path_factory.mktemp("page")) as running:
        yield running


@pytest.fixture(scope="module")
def pair(root: Path) -> tuple[bytes, bytes]:
    return (root / "docs" / "before.jpg").read_bytes(), (root / "docs" / "after.jpg").read_bytes()


def bomb() -> bytes:
    """Return a PNG file of 100,000 x 100,000 pixels, all of them black, cut off after its first rows."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(10_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def animation(image: bytes) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.open(io.BytesIO(image)).convert("RGB"), Image.new("RGB", (64, 64), "red")]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], loop=0)
    return buffer.getvalue()


def describe(server: PageServer, before: Any, after: Any, visitor: str = "10.0.0.1", **changes: Any) -> tuple:
    values = {"name": MODEL, "adapter": "", "count": 3} | changes
    return server.call("describe", before, after, *values.values(), visitor=visitor)


def check_lives(server: PageServer, pair: tuple[bytes, bytes]) -> None:
    files = [server.upload("x.jpg", content, visitor="10.9.9.9") for content in pair]
    event, answer = describe(server, *files, visitor="10.9.9.9")
    assert event == "complete" and "orange circle" in answer[0], answer


def check_private(server: PageServer, answer: Any) -> None:
    """Check that an answer names no file of this machine and contains no traceback."""
    for secret in ("root:", str(server.root), str(server.folder), str(Path.home()), "Traceback", 'File "'):
        assert secret not in str(answer), answer


# -- what it answers


def test_the_page_answers_what_the_captioner_says(server: PageServer, root: Path, pair: tuple[bytes, bytes]) -> None:
    model, processor = load(SHIPPED)
    calibration = read_calibration(SHIPPED)
    files = [server.upload(name, content) for name, content in zip(("a.jpg", "b.jpg"), pair, strict=True)]
    for order in (1, -1):
        cells = processor.load_pair(*pair[::order], "the pair")
        expected = explain(model, processor, cells, calibration, count=3)
        event, (sentence, probability, sentences, *_, history) = describe(server, *files[::order])
        assert event == "complete" and sentence == expected.sentences[0][0]
        assert f"{expected.change_probability:.1%}" in probability
        found = re.findall(r"<td>(.*?)</td>", sentences)[::2]
        assert found == [text for text, _ in expected.sentences]
        assert sentence in history and ["a.jpg", "b.jpg"][::order] == re.findall(r"\w\.jpg", history)
        [score] = score_claims(model, processor, cells, ["the cat is gone"], calibration)
        event, (verdict, *_) = server.call("check_claim", *files[::order], MODEL, "", "the cat is gone")
        assert f"{score:+.2f}" in verdict and ("does not fit" in verdict) == (score <= 0)


def test_both_images_show_the_evidence(server: PageServer, pair: tuple[bytes, bytes]) -> None:
    files = [server.upload("x.jpg", content) for content in pair]
    event, [shown] = server.call("evidence", *files, MODEL, "", "the upper left is covered by an orange circle")
    images = [base64.b64decode(code) for code in re.findall(r"base64,([^\"]+)", shown)]
    assert event == "complete" and len(images) == 2
    for drawn, original in zip(images, pair, strict=True):
        assert Image.open(io.BytesIO(drawn)).size == Image.open(io.BytesIO(original)).size
        assert drawn != original
    event, [shown] = server.call("evidence", *files, MODEL, "", "nothing has changed")
    assert event == "complete" and "no part speaks for it" in shown


def test_an_animation_counts_with_its_first_frame(server: PageServer, pair: tuple[bytes, bytes]) -> None:
    files = [server.upload("x.gif", animation(content)) for content in pair]
    event, answer = describe(server, *files)
    assert event == "complete" and "circle" in answer[0]


# -- what it refuses


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.png", b"", r"The before image 'empty.png' is an empty file: choose another one."),
        ("text.png", b"I am a text", r"'text.png' is not an image .* convert it to PNG or JPEG"),
        ("drawing.svg", SVG, r"'drawing.svg' is not an image .* convert it to PNG or JPEG"),
        ("cut.jpg", None, r"'cut.jpg' cannot be read \(.*\); replace the file or save it again"),
        ("bomb.png", bomb(), r"An image has too many pixels: 64 million are allowed. Make it smaller."),
    ],
)
def test_a_file_that_is_no_image_gets_a_sentence(
    server: PageServer, pair: tuple[bytes, bytes], name: str, content: bytes | None, message: str
) -> None:
    content = pair[0][: len(pair[0]) // 2] if content is None else content
    file, other = server.upload(name, content), server.upload("x.jpg", pair[1])
    for function, values in (("describe", (MODEL, "", 3)), ("check_claim", (MODEL, "", "a cat")), ("compare", ())):
        event, answer = server.call(function, file, other, *values)
        assert event == "error" and re.search(message, answer["error"]), answer
        check_private(server, answer)
    check_lives(server, pair)


def test_a_file_of_50_mb_is_refused_before_it_is_stored(server: PageServer, pair: tuple[bytes, bytes]) -> None:
    stored = server.stored_files()
    response = server.post_files({"huge.png": bytes(50 * 2**20)})
    assert (response.status_code, response.text) == (413, "The file is too large: an image may have 20 MB.")
    response = server.post_files({"large.png": bytes(21 * 2**20)})
    assert response.status_code == 413 and "maximum allowed size" in response.text
    check_private(server, response.text)
    # Without a length, it could be of any size.
    response = server.client.post("/gradio_api/upload", content=iter([b"x"]))
    assert (response.status_code, response.text[:38]) == (411, "The request does not say its length: s")
    assert server.stored_files() == stored
    check_lives(server, pair)


@pytest.mark.parametrize("wanted", ["/etc/passwd", "setup.py", "../../etc/passwd", "http://127.0.0.1:1/x.png", ""])
def test_only_uploaded_files_are_read(server: PageServer, pair: tuple[bytes, bytes], wanted: str) -> None:
    own = server.upload("x.jpg", pair[0])
    wanted = str(server.root / wanted) if wanted == "setup.py" else wanted
    beside = str(Path(own["path"]).parent / ".." / ".." / ".." / ".." / wanted)
    for path in (wanted, beside):
        described = uploaded(path, "x.png")
        hidden = [{"deep": [described]}]  # where a text is expected
        for values in ((described, own, MODEL, "", 3), (own, own, MODEL, hidden, 3), (own, own, MODEL, "", hidden)):
            event, answer = server.call("describe", *values)
            assert event == "error" and "not one that you have uploaded" in answer["error"], answer
            check_private(server, answer)
    assert not server.connections.exists()


def test_no_file_of_the_machine_is_served(server: PageServer, pair: tuple[bytes, bytes]) -> None:
    for path in ("/etc/passwd", server.root / "setup.py", server.root / "docs" / "data.md", SHIPPED / "config.json"):
        response = server.client.get(f"/gradio_api/file={path}")
        assert response.status_code in (403, 404), path
        check_private(server, response.text.replace(str(path), ""))
    # An uploaded drawing cannot run its script in the page's name.
    response = server.client.get(f"/gradio_api/file={server.upload('x.svg', SVG)['path']}")
    assert response.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "The number of sentences must be from 1 to 10."),
        ({"count": 10**9}, "The number of sentences must be from 1 to 10."),
        ({"count": "many"}, "The number of sentences must be from 1 to 10."),
        ({"name": ""}, "No model is chosen"),
        ({"name": "no/such-model"}, "The model 'no/such-model' cannot be loaded"),
        ({"name": "/no/such/folder"}, "The model 'folder' cannot be loaded: the folder 'folder' does not exist"),
        ({"name": ["a", {"b": None}]}, "cannot be loaded"),
    ],
)
def test_a_wrong_choice_gets_a_sentence(
    server: PageServer, pair: tuple[bytes, bytes], changes: dict[str, Any], message: str
) -> None:
    files = [server.upload("x.jpg", content) for content in pair]
    event, answer = describe(server, *files, visitor="10.0.0.2", **changes)
    assert event == "error" and message in answer["error"], answer
    check_private(server, answer)


def test_a_missing_image_or_claim_gets_a_sentence(server: PageServer, pair: tuple[bytes, bytes]) -> None:
    own = server.upload("x.jpg", pair[0])
    for values, message in (
        ((None, own), "The before image is missing"),
        ((own, None), "The after image is missing"),
        (("x.jpg", own), "This request cannot be answered"),
        ((own, [own]), "This request cannot be answered"),
    ):
        event, answer = describe(server, *values, visitor="10.0.0.3")
        assert event == "error" and answer["error"].startswith(message), answer
        check_private(server, answer)
    for claim, message in (("  ", "The claim is missing"), ("x" * 201, "The claim has 201 characters, 200 are")):
        event, answer = server.call("check_claim", own, own, MODEL, "", claim, visitor="10.0.0.3")
        assert event == "error" and answer["error"].startswith(message), answer


def test_twenty_requests_at_once_are_answered(server: PageServer, pair: tuple[bytes, bytes]) -> None:
    files = [server.upload("x.jpg", content, visitor="10.0.0.4") for content in pair]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: describe(server, *files, visitor="10.0.0.4", count=1), range(20)))
    assert [event for event, _ in answers] == ["complete"] * 20
    assert len({answer[0] for _, answer in answers}) == 1


def test_nobody_skips_the_queue(server: PageServer) -> None:
    response = server.client.post("/gradio_api/run/describe", json={"data": [None] * 6})
    assert response.status_code == 404 and "join the queue" in response.text


def test_a_visitor_who_asks_too_often_has_to_wait(server: PageServer, pair: tuple[bytes, bytes], app: Any) -> None:
    file = server.upload("x.jpg", pair[0], visitor="10.0.0.5")
    answers = [describe(server, None, file, visitor="10.0.0.5")[1]["error"] for _ in range(app.MOST_REQUESTS)]
    assert re.fullmatch(r"Too many requests: 60 are allowed in 60 seconds. Wait \d+ seconds.", answers[-1])
    assert answers[0].startswith("The before image is missing")
    response = server.post_files({"x.jpg": pair[0]}, visitor="10.0.0.5")
    assert response.status_code == 429 and response.text.startswith("Too many requests")
    check_lives(server, pair)  # for another one


def test_the_window_of_the_rate_limit_slides(app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, now = app.RateLimit(2, 10), [0.0]
    monkeypatch.setattr(app.time, "monotonic", lambda: now[0])
    limit.check("a")
    now[0] = 6
    limit.check("a")
    with pytest.raises(app.VisitorError, match="Wait 4 seconds"):
        limit.check("a")
    limit.check("b")
    now[0] = 11
    limit.check("a")
    with pytest.raises(app.VisitorError, match="Wait 5 seconds"):
        limit.check("a")
    now[0] = 30
    limit.check("c")
    assert set(limit._times) == {"c"}, "visitors are forgotten"


# -- which models


def test_visitors_of_a_shared_page_can_choose_only_what_is_named(app: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(SHIPPED, folder)
    captioners = app.Captioners([str(SHIPPED), str(folder)], None, any_model=False)
    assert captioners.choices() == [MODEL, "mine"]
    assert captioners.get("mine") is captioners.get("mine")
    for name, adapter in ((str(folder), ""), ("gautierevn/blip2idc", ""), ("mine", "some/adapter"), ("", "")):
        with pytest.raises(app.VisitorError, match="is not offered here: choose one of the list"):
            captioners.get(name, adapter)
    with pytest.raises(app.VisitorError, match="have the same name: rename a folder"):
        app.Captioners([str(folder), str(folder)], None, any_model=False)


def test_only_the_person_at_the_machine_can_name_any_model(app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    shared = {host: app.is_shared(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "::", "example.org")}
    assert [host for host, value in shared.items() if value] == ["0.0.0.0", "::", "example.org"]
    monkeypatch.setenv("SPACE_ID", "user/space")
    assert app.is_shared("127.0.0.1") and app.is_shared("localhost")


def test_runs_of_this_folder_are_listed(app: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "adapter_config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    choices = app.Captioners([str(SHIPPED)], None, any_model=True).choices()
    assert choices == [MODEL, "runs/mine", *app.KNOWN]


def test_pickled_weights_are_not_read(app: ModuleType, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "pickled"
    shutil.copytree(SHIPPED, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(app.VisitorError, match="The model 'pickled' cannot be loaded") as raised:
        app.Captioners([str(SHIPPED)], None, any_model=True).get(str(folder))
    assert str(tmp_path) not in str(raised.value)


# -- what it shows and leaves behind


def test_the_history_is_a_table_and_a_csv_file(app: ModuleType) -> None:
    file = {"orig_name": "a, b.png"}
    history = app._longer([], file, file, "m", {"sentence": 'a "cat" <b>', "change_probability": 0.5})
    history = app._longer(history, file, {"orig_name": "=cmd|'x'!A0"}, "m", {"claim": "+1 cat", "claim_score": -2.5})
    shown = app.history_html(history)
    text = base64.b64decode(re.search(r'base64,([^"]+)', shown)[1]).decode()
    first, second = csv.DictReader(io.StringIO(text))
    assert (first["before"], first["sentence"], first["change_probability"]) == ("a, b.png", 'a "cat" <b>', "0.5")
    assert second["after"].startswith("'=") and second["claim"] == "'+1 cat" and second["claim_score"] == "-2.5"
    assert "<b>" not in shown and shown.index("+1 cat") < shown.index("&quot;cat&quot;"), "the newest comes first"
    for _ in range(200):
        history = app._longer(history, file, file, "m", {})
    assert len(history) == app.LONGEST_HISTORY


def test_the_page_connects_to_nothing_and_leaves_no_file(
    root: Path, tmp_path: Path, pair: tuple[bytes, bytes]
) -> None:
    with PageServer(root, tmp_path) as own:
        files = [own.upload("x.jpg", content) for content in pair]
        assert describe(own, *files)[0] == "complete"
        assert set(own.stored_files()) == {"x.jpg"}
        assert own.stop() == 128 + 15
    assert own.stored_files() == [] and not own.connections.exists()
    assert "Traceback" not in own.log.read_text()


def test_old_uploads_are_deleted_while_the_page_runs(app: ModuleType, tmp_path: Path, pair: Any) -> None:
    """Call what gradio calls once per minute: no test waits half an hour."""
    from gradio.route_utils import delete_files_created_by_app

    page = app.build(app.Captioners([str(SHIPPED)], None, any_model=False), app.RateLimit(9, 9))
    assert page.delete_cache == (60, app.KEPT)
    file = tmp_path / "x.jpg"
    file.write_bytes(pair[0])
    page.upload_file_set.add(str(file))
    delete_files_created_by_app(page, age=app.KEPT)
    assert file.exists()
    delete_files_created_by_app(page, age=-1)
    assert not file.exists()


def test_a_model_that_cannot_be_loaded_ends_the_program_in_one_line(root: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, root / "app.py", "--models", "./nothing"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: The model './nothing' cannot be loaded: the folder"), done.stderr
