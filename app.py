"""A web page: two images in, one sentence out, with what speaks for it.

python app.py
python app.py --models gautierevn/blip2idc Qwen/Qwen3-VL-2B-Instruct
"""

import argparse
import ipaddress
import logging
import math
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from gradio_client.utils import is_file_obj, traverse
from PIL import EpsImagePlugin, Image
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

from app_html import (
    COLUMNS,
    CSS,
    claim_html,
    comparison_html,
    evidence_html,
    history_html,
    probability_html,
    sentences_html,
)
from captioner_idc.adapters import merged
from captioner_idc.change_probability import Calibration, explain, read_calibration, score_claims
from captioner_idc.evidence import find_evidence, overlay
from captioner_idc.loading import SHIPPED, ImageError, load, load_image
from common_idc.commands import TERMINATED, run_command
from common_idc.redaction import without_paths

LARGEST_FILE = 20 * 2**20  # bytes of an image
LARGEST_POST = 2 * LARGEST_FILE + 2**20  # bytes of a request: a file or two, and what is around them
MOST_PIXELS = 64_000_000  # of an image; decoded it has three bytes per pixel
MOST_SENTENCES = 10
LONGEST_CLAIM = 200  # characters
LONGEST_HISTORY = 100  # rows
LONGEST_NAME = 60  # characters of a file's name, or of a model's in a message
MOST_REQUESTS, PERIOD = 60, 60  # of a visitor, in so many seconds
LEAST_FREE = 2**30  # bytes of the disk that uploads leave
MOST_WAITING = 30  # requests of all visitors
KEPT = 30 * 60  # seconds that an uploaded file is kept, at most
SHOWN = 640  # pixels of the longer side, for images that are shown
SHIPPED_NAME = "the captioner that ships"
KNOWN = ("gautierevn/blip2idc", "Qwen/Qwen3-VL-2B-Instruct")
DOCS = Path(__file__).with_name("docs")
BEFORE, AFTER = DOCS / "before.jpg", DOCS / "after.jpg"
EXAMPLES = {"a cat, edited": (BEFORE, AFTER), "the edit undone": (AFTER, BEFORE), "the same image": (BEFORE, BEFORE)}
CLAIM = "the red car has been removed"
COLUMN = 280  # pixels; narrower columns are shown below each other

File = dict[str, Any] | None  # as gradio describes an uploaded file; None for an empty field
History = list[dict[str, Any]]  # rows with COLUMNS

INTRODUCTION = """# What changed between two images?
Choose two images and get one sentence, other possible sentences, and the parts of the images that speak for it.
Uploaded images are deleted after half an hour, and when the page closes down."""

logger = logging.getLogger(__name__)


class VisitorError(Exception):
    """A mistake that the visitor can correct; the message says how."""


class Captioner(NamedTuple):
    """A model that is ready to answer."""

    model: Any
    processor: Any
    calibration: Calibration


class Captioners:
    """The captioners that visitors may choose.

    Args:
        names: folders and Hub ids; the first is the default. Visitors see a folder's last component only.
        adapter: LoRA adapter for all of these.
        any_model: whether a visitor may also name a folder or Hub id: only for the person whose machine this is.
    """

    def __init__(self, names: list[str], adapter: str | None, any_model: bool):
        self.named = {SHIPPED_NAME if name == str(SHIPPED) else without_paths(name): name for name in names}
        if len(self.named) < len(names):
            raise VisitorError(f"two of the models {', '.join(map(repr, names))} have the same name: rename a folder.")
        self.any_model = any_model
        self._adapter = adapter
        self._loaded: dict[tuple[str, str | None], Captioner] = {}
        self._lock = threading.Lock()

    def choices(self) -> list[str]:
        """Return the names that the page lists."""
        if not self.any_model:
            return list(self.named)
        runs = [str(file.parent) for file in sorted(Path("runs").glob("*/adapter_config.json"))]
        return list(dict.fromkeys([*self.named, *runs, *KNOWN]))

    def get(self, name: str, adapter: str = "") -> Captioner:
        """Return a captioner, which is loaded at its first use.

        Args:
            adapter: LoRA adapter that the visitor names; "" for none.

        Raises: VisitorError if it cannot be loaded, or if visitors may not choose it.
        """
        name, adapter = str(name or "").strip(), str(adapter or "").strip()
        if not self.any_model and (adapter or name not in self.named):
            raise VisitorError(f"The model {name[:LONGEST_NAME]!r} is not offered here: choose one of the list.")
        key = (self.named.get(name, name), adapter or (self._adapter if name in self.named else None))
        with self._lock:
            if key not in self._loaded:
                if self.any_model:  # memory for one at a time; on a shared page the list is short
                    self._loaded.clear()
                self._loaded[key] = _load(*key)
            return self._loaded[key]


def _load(name: str, adapter: str | None) -> Captioner:
    if not name:
        raise VisitorError("No model is chosen: choose one of the list, or name a folder or Hub id.")
    try:
        model, processor = load(name, adapter)
        return Captioner(merged(model), processor, read_calibration(Path(adapter or name)))
    except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
        named = f"{name!r}" + (f" with the adapter {adapter!r}" if adapter else "")
        reason = " ".join(str(error).split())[:300]
        raise VisitorError(without_paths(f"The model {named} cannot be loaded: {reason}")) from error


class RateLimit:
    """A sliding window over the requests of each visitor."""

    def __init__(self, count: int, seconds: float):
        self.count, self.seconds = count, seconds
        self._times: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def check(self, visitor: str) -> None:
        """Count a request of a visitor.

        Raises: VisitorError if there were too many.
        """
        now = time.monotonic()
        with self._lock:
            oldest = now - self.seconds
            self._times = {each: times for each, times in self._times.items() if times[-1] > oldest}
            times = self._times.setdefault(visitor, deque())
            while times and times[0] <= oldest:
                times.popleft()
            if len(times) >= self.count:
                wait = math.ceil(times[0] - oldest)
                raise VisitorError(
                    f"Too many requests: {self.count} are allowed in {self.seconds:g} seconds. Wait {wait} seconds."
                )
            times.append(now)


class UploadGate:
    """ASGI middleware that limits the number and the size of what visitors send, before anything is stored."""

    def __init__(self, app: Any, limit: RateLimit):
        self.app, self.limit = app, limit

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        answer = self._refusal(scope) if scope["type"] == "http" and scope["method"] == "POST" else None
        await (answer or self.app)(scope, receive, send)

    def _refusal(self, scope: Any) -> PlainTextResponse | None:
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            return PlainTextResponse("The request does not say its length: send Content-Length.", 411)
        if int(length) > LARGEST_POST:
            return PlainTextResponse(f"The file is too large: an image may have {LARGEST_FILE >> 20} MB.", 413)
        try:
            if scope["path"].endswith("/upload"):
                self.limit.check(scope["client"][0])
                if shutil.disk_usage(os.environ["GRADIO_TEMP_DIR"]).free < LEAST_FREE:
                    return PlainTextResponse("There is no space for more images: try again in half an hour.", 503)
        except VisitorError as error:
            return PlainTextResponse(str(error), 429)
        return None


class Page(gr.Blocks):
    """Blocks that take only files which were uploaded to them, and whose errors are sentences without paths."""

    async def process_api(self, block_fn: Any, inputs: list[Any], *args: Any, **options: Any) -> dict[str, Any]:
        """Process a request as gradio does."""
        try:
            traverse(inputs, _check_uploaded, is_file_obj)
            return await super().process_api(block_fn, inputs, *args, **options)
        except gr.Error:
            raise
        except (VisitorError, ImageError) as error:
            raise gr.Error(_sentence(error), print_exception=False) from error
        except Exception as error:
            logger.exception("a request failed")
            raise gr.Error(
                "This request cannot be answered: check what you have entered, or try other images.",
                print_exception=False,
            ) from error


def _check_uploaded(file: dict[str, Any]) -> None:
    """Raise VisitorError for a path or address that a visitor wrote, which gradio could read or download."""
    if not Path(file["path"]).resolve().is_relative_to(Path(os.environ["GRADIO_TEMP_DIR"]).resolve()):
        raise VisitorError("A file is not one that you have uploaded here: choose images with the fields of the page.")


def _sentence(error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Image.DecompressionBombError):
            return f"An image has too many pixels: {MOST_PIXELS // 10**6} million are allowed. Make it smaller."
        cause = cause.__cause__
    return f"{str(error)[:1].upper()}{str(error)[1:]}"


class Answers:
    """Answers to the requests of the page; images come as gradio describes uploaded files."""

    def __init__(self, captioners: Captioners, limit: RateLimit):
        self.captioners, self.limit = captioners, limit

    def compare(self, before: File, after: File, request: gr.Request) -> list[str]:
        """Return both images for slider and flicker, and empty answers, because the old ones are about others."""
        self.limit.check(request.client.host)
        shown = comparison_html(*_shown_pair(before, after)) if before and after else ""
        return [shown, *[""] * 5]

    def describe(
        self, before: File, after: File, name: str, adapter: str, count: float, history: History, request: gr.Request
    ) -> tuple[str, str, str, History, str]:
        """Return the best sentence, the probability of a change, the likely sentences, and the history."""
        if not isinstance(count, (int, float)) or not 1 <= count <= MOST_SENTENCES:
            raise VisitorError(f"The number of sentences must be from 1 to {MOST_SENTENCES}.")
        captioner, pair = self._load(before, after, name, adapter, request)
        answer = explain(*captioner[:2], pair, captioner.calibration, count=int(count))
        if not answer.sentences:
            raise VisitorError("The model has no sentence for this pair: choose another model.")
        sentence, probability = answer.sentences[0][0], answer.change_probability
        row = {"sentence": sentence, "change_probability": round(probability, 4)}
        history = _longer(history, before, after, name, row)
        shown = probability_html(probability, calibrated=captioner.calibration.pairs > 0)
        return sentence, shown, sentences_html(answer.sentences), history, history_html(history)

    def find(self, before: File, after: File, name: str, adapter: str, sentence: str, request: gr.Request) -> str:
        """Return both images with the parts that speak for a sentence."""
        text = _one_line(sentence, "sentence")
        captioner, pair = self._load(before, after, name, adapter, request)
        if captioner.calibration.says_unchanged(text):
            return "<p>The sentence says that nothing has changed, so no part speaks for it.</p>"
        found = find_evidence(*captioner[:2], pair, text)
        images = [overlay(image, found) for image in _shown_pair(before, after)]
        return evidence_html(images, text, found.strength)

    def judge(
        self, before: File, after: File, name: str, adapter: str, claim: str, history: History, request: gr.Request
    ) -> tuple[str, History, str]:
        """Return whether a claim fits a pair, and the history."""
        text = _one_line(claim, "claim")
        captioner, pair = self._load(before, after, name, adapter, request)
        [score] = score_claims(*captioner[:2], pair, [text], captioner.calibration)
        history = _longer(history, before, after, name, {"claim": text, "claim_score": round(score, 3)})
        return claim_html(text, score), history, history_html(history)

    def _load(self, before: File, after: File, name: str, adapter: str, request: gr.Request) -> tuple[Captioner, Any]:
        self.limit.check(request.client.host)
        pictures = _picture(before, "before"), _picture(after, "after")  # before the model, which may take longer
        captioner = self.captioners.get(name, adapter)
        return captioner, captioner.processor.load_pair(*pictures, "the pair")


def _picture(file: File, side: str) -> dict[str, Any]:
    """Return an uploaded file as `load_image` takes it: its content, under its visitor's name."""
    if not file:
        raise VisitorError(f"The {side} image is missing: choose, paste or photograph one.")
    try:
        content = Path(file["path"]).read_bytes()
    except OSError as error:
        raise VisitorError(f"The {side} image {_name(file)!r} is not kept here any more: choose it again.") from error
    if not content:
        raise VisitorError(f"The {side} image {_name(file)!r} is an empty file: choose another one.")
    return {"path": _name(file), "bytes": content}


def _name(file: dict[str, Any]) -> str:
    return Path(file.get("orig_name") or "image").name[-LONGEST_NAME:]


def _shown_pair(before: File, after: File) -> list[Image.Image]:
    """Return both images at the size at which they are shown."""
    images = [load_image(_picture(file, side), SHOWN) for file, side in ((before, "before"), (after, "after"))]
    for image in images:
        image.thumbnail((SHOWN, SHOWN))
    return images


def _one_line(text: str, what: str) -> str:
    text = " ".join(str(text or "").split())
    if not text:
        raise VisitorError(f"The {what} is missing: write one, e.g. {CLAIM!r}.")
    if len(text) > LONGEST_CLAIM:
        raise VisitorError(f"The {what} has {len(text)} characters, {LONGEST_CLAIM} are allowed: make it shorter.")
    return text


def _longer(history: History, before: dict, after: dict, name: str, found: dict[str, Any]) -> History:
    """Return a history with one more row."""
    row = {"time": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()), "before": _name(before), "after": _name(after)}
    return [*history[1 - LONGEST_HISTORY :], dict.fromkeys(COLUMNS, "") | row | {"model": name} | found]


class Fields:
    """The fields of the page, from top to bottom."""

    def __init__(self, captioners: Captioners):
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            self.images = [_image_field(label) for label in ("Before", "After")]
        with gr.Row():
            self.start = gr.Button("Describe the change", variant="primary")
            self.swap = gr.Button("Swap the images")
        with gr.Row():  # no gr.Examples: its rows cannot be reached by keyboard
            self.examples = [gr.Button(f"Example: {name}", size="sm") for name in EXAMPLES]
        self.sentence = gr.Textbox(label="What changed", interactive=False, buttons=["copy"], elem_id="sentence")
        self.probability = gr.HTML(elem_id="probability")
        with gr.Row():
            with gr.Column(min_width=COLUMN):
                self.comparison = gr.HTML(elem_id="comparison")
            with gr.Column(min_width=COLUMN):
                self.evidence = gr.HTML(elem_id="evidence")
        with gr.Row():
            with gr.Column(min_width=COLUMN):
                gr.Markdown("### Most likely sentences")
                self.count = gr.Slider(1, MOST_SENTENCES, 5, step=1, label="How many")
                self.sentences = gr.HTML(elem_id="sentences")
            with gr.Column(min_width=COLUMN):
                gr.Markdown("### Check a claim")
                self.claim = gr.Textbox(label="Claim", placeholder=f"e.g. {CLAIM}", elem_id="claim")
                self.check = gr.Button("Check the claim")
                self.verdict = gr.HTML(elem_id="verdict")
        choices, free = captioners.choices(), captioners.any_model
        with gr.Accordion("Model", open=False):
            label = "Folder or Hub id" if free else "Name"
            self.name = gr.Dropdown(choices, value=choices[0], allow_custom_value=free, interactive=True, label=label)
            self.adapter = gr.Textbox(label="LoRA adapter: a folder or Hub id", visible=free)
        with gr.Accordion("History of this visit", open=False):
            self.history, self.table = gr.State([]), gr.HTML(elem_id="history")

    def connect(self, answers: Answers) -> None:
        """Connect fields and answers.

        Inputs come as they are, so that images are decoded by `load_image` only. The model answers one request at a
        time.
        """
        options: dict[str, Any] = {"preprocess": False, "concurrency_id": "model", "concurrency_limit": 1}
        chosen, history = [*self.images, self.name, self.adapter], [self.history, self.table]
        found = [self.sentence, self.probability, self.sentences]
        described = self.start.click(
            answers.describe, [*chosen, self.count, self.history], found + history, api_name="describe", **options
        )
        finding = described.success(
            answers.find, [*chosen, self.sentence], self.evidence, api_name="evidence", **options
        )
        gr.on(
            [self.check.click, self.claim.submit],
            answers.judge,
            [*chosen, self.claim, self.history],
            [self.verdict, *history],
            api_name="check_claim",
            **options,
        )
        gr.on(
            [image.change for image in self.images],
            answers.compare,
            self.images,
            [self.comparison, *found, self.evidence, self.verdict],
            api_name="compare",
            preprocess=False,
            cancels=[described, finding],  # they are about other images
            trigger_mode="always_last",
            show_progress="hidden",
        )
        self.swap.click(None, self.images, self.images, js="(before, after) => [after, before]")
        for button, pair in zip(self.examples, EXAMPLES.values(), strict=True):
            button.click(partial(list, pair), None, self.images, api_visibility="private")


def _image_field(label: str) -> gr.Image:
    """Return a field for an image; a phone uses the camera on its back, and left stays left."""
    camera = gr.WebcamOptions(mirror=False, constraints={"video": {"facingMode": "environment"}})
    shape: dict[str, Any] = {"height": 300, "min_width": COLUMN, "elem_id": label.lower()}
    return gr.Image(label=label, alt_text=f"{label} image", webcam_options=camera, buttons=[], **shape)


def build(captioners: Captioners, limit: RateLimit) -> Page:
    """Return the page."""
    with Page(title="What changed?", analytics_enabled=False, delete_cache=(60, KEPT)) as page:
        Fields(captioners).connect(Answers(captioners, limit))
    return page.queue(max_size=MOST_WAITING, api_open=False)  # nobody skips the queue


def theme() -> gr.themes.Base:
    """Return colors with enough contrast, and fonts that need no download."""
    return gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=["system-ui", "sans-serif"], font_mono=["monospace"]
    ).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
    )


def is_shared(host: str) -> bool:
    """Return whether others than the person at this machine can open the page."""
    if host == "localhost":
        return "SPACE_ID" in os.environ
    try:
        return "SPACE_ID" in os.environ or not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="app.py",
        description="Open a web page that says in one sentence what changed between two images.",
        epilog="If other machines can open the page, visitors can choose only among the models named here.",
    )
    parser.add_argument(
        "--models", nargs="+", default=[str(SHIPPED)], metavar="DIR_OR_ID", help="default: the captioner that ships"
    )
    parser.add_argument("--adapter", metavar="DIR_OR_ID", help="LoRA adapter for these models")
    host = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")  # set on a Hugging Face Space
    parser.add_argument("--host", default=host, help="address to listen at; 0.0.0.0 lets other machines in")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    return parser.parse_args(argv)


def serve(arguments: argparse.Namespace) -> None:
    """Serve the page until the program is interrupted; no file of a visitor is left afterwards."""
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # Pillow raises at twice this number
    EpsImagePlugin.gs_binary = False  # EPS files are programs
    if "SPACE_ID" in os.environ:
        os.environ.setdefault("FORWARDED_ALLOW_IPS", "*")  # the address of a visitor, not of the Space's proxy
    limit = RateLimit(MOST_REQUESTS, PERIOD)
    with tempfile.TemporaryDirectory(prefix="blip2idc-page-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        captioners = Captioners(arguments.models, arguments.adapter, any_model=not is_shared(arguments.host))
        captioners.get(next(iter(captioners.named)))  # an error ends the program before the page opens
        page = build(captioners, limit)
        _, address, _ = page.launch(
            server_name=arguments.host,
            server_port=arguments.port,
            share=False,
            footer_links=["api"],
            run_history=False,
            enable_monitoring=False,
            mcp_server=False,
            ssr_mode=False,
            pwa=False,
            max_file_size=LARGEST_FILE,
            allowed_paths=[str(BEFORE), str(AFTER)],
            app_kwargs={"middleware": [Middleware(UploadGate, limit)]},
            theme=theme(),
            css=CSS,
            quiet=True,
            prevent_thread_lock=True,
        )
        try:
            print(f"open {address} (Ctrl-C ends it)", flush=True)
            page.block_thread()
        finally:
            page.close(verbose=False)  # before the folder is removed, which a request could create again


def main(argv: list[str] | None = None) -> int:
    """Run the program; return its exit code."""
    arguments = parse_arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that the folder of uploads is removed
    return run_command(lambda: serve(arguments), VisitorError, OSError, interrupted="run it again")


if __name__ == "__main__":
    sys.exit(main())
