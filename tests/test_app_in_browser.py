"""The page in headless Chromium, as a visitor uses it: by mouse, by keyboard, on a phone, in the dark."""

import csv
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason='gradio is not installed: pip install -e ".[demo]"')
playwright = pytest.importorskip("playwright.sync_api", reason='playwright is not installed: pip install -e ".[dev]"')

from page_server import PageServer  # noqa: E402  it needs httpx, which comes with gradio

EXAMPLE = "Example: a cat, edited"
DESCRIBE = "Describe the change"
VISITORS = count(1)
PATIENCE = 120_000  # milliseconds that a step may take on a busy machine; a broken page has to fail in the end
CUT = "getComputedStyle(document.querySelector('.comparison .after'))"
# The contrast of each text that is visible with its background, by WCAG 2; of an image or a disabled field, none.
CONTRASTS = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const background = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = channels(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] > 0.5) return color;
    }
    return [255, 255, 255];
  };
  const texts = [...document.querySelectorAll("h1, h3, p, td, th, button, label, textarea, figcaption, a")]
    .filter((e) => e.checkVisibility() && (e.value || e.innerText).trim() && !e.closest("footer"));
  return texts.map((e) => {
    const [a, b] = [luminance(channels(getComputedStyle(e).color)), luminance(background(e))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), e.tagName + " " + (e.value || e.innerText)];
  });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on PATH: the page cannot be opened")
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *camera]
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=options)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    with PageServer(root, tmp_path_factory.mktemp("page")) as running:
        yield running


@pytest.fixture
def visit(browser: Any, server: PageServer, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Return the page in a new browser window; check that it asked nobody else for anything, without an error."""
    options = {"viewport": {"width": 1280, "height": 900}} | getattr(request, "param", {})
    # Each test is another visitor, with a rate limit of its own: uvicorn believes a proxy on the same machine.
    address = f"10.0.1.{next(VISITORS)}"
    window = browser.new_context(extra_http_headers={"X-Forwarded-For": address}, **options)
    window.set_default_timeout(PATIENCE)
    page, foreign, errors = window.new_page(), [], []
    page.on("request", lambda sent: None if is_own(sent.url, server) else foreign.append(sent.url))
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(server.url)
    page.get_by_role("button", name=DESCRIBE).wait_for()
    yield page
    assert foreign == [] and errors == []
    window.close()


def is_own(url: str, server: PageServer) -> bool:
    return url.startswith((server.url, "data:", f"blob:{server.url}"))


def choose_example(page: Any, name: str = EXAMPLE) -> None:
    page.get_by_role("button", name=name).click()
    page.locator(".comparison .after").wait_for()


def sentence_of(page: Any) -> str:
    """Press the button; return the sentence once its evidence is there."""
    page.get_by_role("button", name=DESCRIBE).click()
    page.locator("#evidence p").wait_for()
    return page.locator("#sentence textarea").input_value()


def upload(page: Any, side: str, file: Path | str) -> None:
    page.locator(f"#{side} input[type=file]").set_input_files(file)


def test_two_uploads_become_a_sentence_with_evidence(visit: Any, root: Path) -> None:
    for side in ("before", "after"):
        upload(visit, side, root / "docs" / f"{side}.jpg")
        visit.locator(f"#{side} img").wait_for()
    visit.locator(".comparison .after").wait_for()
    assert "orange circle" in sentence_of(visit)
    assert "Something has changed: " in visit.locator("#probability").inner_text()
    assert float(visit.locator("meter").get_attribute("value")) > 0.9
    assert visit.locator("#sentences td").count() == 2 * 5
    widths = visit.locator("#evidence img").evaluate_all("(images) => images.map((image) => image.naturalWidth)")
    assert len(widths) == 2 and min(widths) > 100


def test_swapped_images_get_another_sentence(visit: Any) -> None:
    choose_example(visit)
    first = sentence_of(visit)
    sources = [visit.locator(f"#{side} img").get_attribute("src") for side in ("before", "after")]
    visit.get_by_role("button", name="Swap the images").click()
    visit.wait_for_function("() => document.querySelector('#sentence textarea').value === ''")
    swapped = [visit.locator(f"#{side} img").get_attribute("src") for side in ("after", "before")]
    assert [source.split("/")[-1] for source in sources] == [source.split("/")[-1] for source in swapped]
    visit.wait_for_function("() => document.querySelector('#evidence p') === null")
    assert sentence_of(visit) not in ("", first)


def test_examples(visit: Any) -> None:
    choose_example(visit, "Example: the same image")
    visit.get_by_role("button", name=DESCRIBE).click()
    visit.locator("#evidence p").wait_for()
    assert float(visit.locator("meter").get_attribute("value")) < 0.5
    assert visit.locator("#evidence").get_by_text("part").count() == 1, "no part speaks for the sentence"


def test_claims_are_checked_and_shown_as_they_were_written(visit: Any) -> None:
    choose_example(visit)
    for claim, verdict in (
        ("the upper left is covered by an orange circle", "fits this pair"),
        ("nothing has changed", "does not fit this pair"),
        ("{{7*7}} ${7*7} <img src=x onerror='document.title=1'> &amp;", "does not fit this pair"),
    ):
        visit.locator("#claim textarea").fill(claim)
        visit.locator("#claim textarea").press("Enter")
        visit.locator("#verdict p").filter(has_text=f"“{claim}” {verdict}").wait_for()
    assert visit.title() == "What changed?" and visit.locator("#verdict img").count() == 0


def test_slider_and_flicker(visit: Any) -> None:
    choose_example(visit)
    assert visit.evaluate(f"{CUT}.clipPath") == "inset(0px 0px 0px 50%)"
    slider = visit.locator(".comparison input[type=range]")
    slider.focus()
    slider.press("ArrowRight")
    assert visit.evaluate(f"{CUT}.clipPath") == "inset(0px 0px 0px 51%)"
    visit.locator(".comparison input[type=checkbox]").check()
    assert visit.evaluate(f"[{CUT}.clipPath, {CUT}.animationName, {CUT}.animationDuration]") == [
        "none",
        "flicker",
        "1s",
    ]


def test_the_history_can_be_downloaded(visit: Any, tmp_path: Path) -> None:
    choose_example(visit)
    sentence = sentence_of(visit)
    visit.get_by_role("button", name="History of this visit").click()
    with visit.expect_download() as started:
        visit.get_by_role("link", name="Download as CSV").click()
    assert started.value.suggested_filename == "captions.csv"
    started.value.save_as(tmp_path / "captions.csv")
    [row] = csv.DictReader((tmp_path / "captions.csv").open(encoding="utf-8"))
    assert (row["before"], row["after"], row["sentence"]) == ("before.jpg", "after.jpg", sentence)


def test_keyboard_only(visit: Any, root: Path) -> None:
    def tab_to(label: str) -> None:
        focused = "() => document.activeElement.getAttribute('aria-label') || document.activeElement.innerText"
        for _ in range(40):
            visit.keyboard.press("Tab")
            if visit.evaluate(focused) == label:
                return
        raise AssertionError(f"{label} cannot be reached")

    for side in ("before", "after"):
        with visit.expect_file_chooser() as opened:
            tab_to("Drop an image file here to upload")
            visit.keyboard.press("Enter")
        opened.value.set_files(root / "docs" / f"{side}.jpg")
        visit.locator(f"#{side} img").wait_for()
    visit.locator(".comparison .after").wait_for()
    tab_to(DESCRIBE)
    assert visit.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus is visible"
    visit.keyboard.press("Enter")
    visit.locator("#evidence p").wait_for()
    assert "orange circle" in visit.locator("#sentence textarea").input_value()
    tab_to("Swap the images")
    visit.keyboard.press("Space")
    visit.wait_for_function("() => document.querySelector('#sentence textarea').value === ''")


@pytest.mark.parametrize("visit", [{"viewport": {"width": 400, "height": 800}}], indirect=True)
def test_a_phone_shows_everything_without_sideways_scrolling(visit: Any) -> None:
    choose_example(visit)
    sentence_of(visit)
    visit.get_by_role("button", name="History of this visit").click()
    visit.locator("#history table").wait_for()
    assert visit.evaluate("document.documentElement.scrollWidth") <= 400
    for part in ("#before", "#after", "#sentence", "#comparison", "#evidence", "#claim"):
        box = visit.locator(part).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 400 and box["width"] > 300, part


@pytest.mark.parametrize("visit", [{"color_scheme": "dark"}, {"color_scheme": "light"}], indirect=True)
def test_texts_can_be_read_in_the_dark_and_in_the_light(visit: Any, request: pytest.FixtureRequest) -> None:
    choose_example(visit)
    sentence_of(visit)
    visit.get_by_role("button", name="History of this visit").click()
    visit.locator("#history table").wait_for()
    dark = request.node.callspec.params["visit"]["color_scheme"] == "dark"
    brightness = visit.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(brightness) < 60) == dark
    contrasts = visit.evaluate(CONTRASTS)
    assert len(contrasts) > 20 and [entry for entry in contrasts if entry[0] < 4.5] == []


def test_errors_are_shown_and_the_page_lives_on(visit: Any, tmp_path: Path, root: Path) -> None:
    (tmp_path / "text <b>.png").write_text("I am a text")
    (tmp_path / "huge.png").write_bytes(bytes(50 * 2**20))
    upload(visit, "after", root / "docs" / "after.jpg")
    upload(visit, "before", tmp_path / "text <b>.png")
    visit.get_by_text("is not an image that Pillow can read").first.wait_for()
    visit.locator("#before").get_by_role("button", name="Remove").or_(
        visit.locator("#before").get_by_role("button", name="Clear")
    ).first.click()
    upload(visit, "before", tmp_path / "huge.png")
    visit.get_by_text("exceed the maximum allowed size of 20").first.wait_for()
    upload(visit, "before", root / "docs" / "before.jpg")
    visit.locator(".comparison .after").wait_for()
    assert "orange circle" in sentence_of(visit)


def test_camera_and_clipboard(visit: Any, server: PageServer) -> None:
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server.url)
    visit.locator("#before").get_by_role("button", name="Capture from camera").click()
    visit.locator("#before").get_by_role("button", name="Click to Access Webcam").click()
    visit.wait_for_function("() => document.querySelector('#before video').readyState === 4")
    visit.locator("#before").get_by_role("button", name="capture photo").click()
    visit.locator("#before img").wait_for()
    visit.evaluate("""async () => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 99, height: 66 });
      canvas.getContext("2d").fillRect(9, 9, 30, 30);
      const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
      await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
    }""")
    visit.locator("#after").get_by_role("button", name="Paste from clipboard").click()
    visit.locator("#after img").wait_for()
    visit.locator(".comparison .after").wait_for()
    assert sentence_of(visit)
