"""Draw docs/page.jpg: the web page with its first example, as Chromium shows it.

python app.py --port 7860 & python docs/draw_page.py http://127.0.0.1:7860
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

WIDTH, HEIGHT = 1080, 1700  # pixels of the window
CLAIM = "the upper left is covered by an orange circle"


def screenshot(address: str) -> Image.Image:
    """Return what the page shows after a visitor has used it."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(address)
        page.get_by_role("button", name="Example: a cat, edited").click()
        page.locator(".comparison .after").wait_for()
        page.get_by_role("button", name="Describe the change").click()
        page.locator("#evidence p").wait_for()
        page.locator("#claim textarea").fill(CLAIM)
        page.locator("#claim textarea").press("Enter")
        page.locator("#verdict p").wait_for()
        page.locator(".comparison input[type=range]").fill("25")
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        page.wait_for_timeout(1000)  # for the fading of borders
        content = page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": _end(page)})
        browser.close()
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    return picture.resize((picture.width * 3 // 4, picture.height * 3 // 4), Image.Resampling.LANCZOS)


def _end(page: Page) -> float:
    """Return where the accordions begin, which are closed."""
    return page.get_by_role("button", name="Model").bounding_box()["y"] - 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", help="of the running page")
    picture = screenshot(parser.parse_args().address)
    picture.save(Path(__file__).with_name("page.jpg"), quality=80, optimize=True)


if __name__ == "__main__":
    main()
