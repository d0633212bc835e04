"""The report: its behaviour in a browser, the escaping of hostile captions, and its size."""

import base64
import io
import json
import random
import re
import shutil
import subprocess
import weakref
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image

from metric_idc import (
    cider,
    read_predictions,
    score_rows,
    stated_change_type,
    tokenize,
    write_predictions,
    write_results,
)
from run_idc import report
from run_idc.report import write_report

CHANGE_TYPES = ("add", "remove", "move", "none")
OBJECTS = ("red cube", "blue ball", "green cone", "small dog", "tall man", "parked car", "wooden chair")
PHRASES = {
    "add": "a {} has appeared",
    "remove": "the {} is gone",
    "move": "the {} has moved to the left",
    "none": "nothing has changed around the {}",
}
HOSTILE = (
    "<script>owned = 1</script>",
    '</script><img src=x onerror="owned = 1"><script>owned = 1</script>',
    "<!-- <script> \"double\" 'single' &lt;b&gt; &amp;",
    "line\u2028and paragraph\u2029separators \\u003c {{ 7 * 7 }} {% raw %}",
    "${owned = 1} `tick` <svg onload=owned=1> ünï 中文 \U0001f600",
)
# Runs in the page after its own script and returns what a user would see.
WATCH = """
const seen = () => ({
  ids: [...document.querySelectorAll("#list article")].map((card) => card.dataset.pair),
  current: [...document.querySelectorAll("#list [aria-current]")].map((card) => card.dataset.pair),
  sentences: [...document.querySelectorAll("#list .prediction")].map((p) => p.textContent),
  references: [...document.querySelectorAll("#list .references")].map((list) =>
    [...list.children].map((item) => item.textContent)),
  about: [...document.querySelectorAll("#list .about")].map((p) => p.innerText),
  count: document.querySelector("#count").textContent,
  drawn: [...document.querySelectorAll("#list img")].filter((image) => image.naturalWidth).length,
  charts: [...document.querySelectorAll(".chart")].filter((c) => c.checkVisibility()).map((c) => c.dataset.score),
  stacks: [...document.querySelectorAll("#list .stack")].map((stack) =>
    getComputedStyle(stack).gridTemplateColumns.split(" ").length),
  cut: [...document.querySelectorAll("#list img.after")].map((image) => getComputedStyle(image).clipPath),
  flicker: [...document.querySelectorAll("#list img.after")].map((image) => getComputedStyle(image).animationName),
  address: location.hash, owned: typeof owned !== "undefined",
  beyond: [...document.querySelectorAll("main table, main pre, main svg, main figure, main form > *")].filter((e) => {
    const margin = document.querySelector("main").getBoundingClientRect().right + 1;
    const over = e.getBoundingClientRect().right > margin || e.matches("pre") && e.scrollWidth > e.clientWidth;
    return over && !e.closest(".wide");
  }).map((e) => e.innerText),
  foreign: document.querySelectorAll("#list script, #list svg, #list b, h1 *, header script").length,
});
"""


def example_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows of which half are predicted correctly, the others with a random object and change type."""
    random_ = random.Random(seed)
    rows = []
    for number in range(count):
        change_type, noun = random_.choice(CHANGE_TYPES), random_.choice(OBJECTS)
        right = PHRASES[change_type].format(noun)
        wrong = PHRASES[random_.choice(CHANGE_TYPES)].format(random_.choice(OBJECTS))
        answer = right if random_.random() < 0.5 else wrong
        rows.append(
            {
                "pair_id": f"p{number}",
                "prediction": answer,
                "references": [right, f"{right} now"],
                "change_type": change_type,
            }
        )
    return rows


def example_images(count: int) -> Iterator[tuple[Image.Image, Image.Image]]:
    for number in range(count):
        yield Image.new("RGB", (60, 40), (200, number % 256, 0)), Image.new("RGB", (60, 40), (0, number % 256, 200))


def results_in(
    folder: Path, rows: list[dict[str, Any]], signature: dict[str, str] | None = None, **options: Any
) -> Path:
    """Write what evaluate.py writes, scored with these options of `score_rows`."""
    write_predictions(rows, folder / "predictions.jsonl")
    result = score_rows(rows, **{"metrics": ["BLEU", "CIDEr"]} | options)
    result["signature"] |= {"benchmark": "toy", "split": "test", "model": "some/model", **(signature or {})}
    write_results(folder, result)
    return folder


def scores_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the CIDEr of each pair, by pair id."""
    texts = iter(tokenize([text for row in rows for text in (row["prediction"], *row["references"])]))
    own = [[next(texts) for _ in (row["prediction"], *row["references"])] for row in rows]
    answers, references = [of_row[0] for of_row in own], [of_row[1:] for of_row in own]
    values = cider.segment_statistics([answers], references)[0]
    return {row["pair_id"]: value for row, value in zip(rows, values, strict=True)}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return example_rows(57)


@pytest.fixture(scope="module")
def page(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = results_in(tmp_path_factory.mktemp("report"), rows)
    return write_report(folder, example_images(len(rows)))


class Elements(HTMLParser):
    """Start tags with their attributes, and the text of script elements."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and self.scripts[-1][1] == "":
            self.scripts[-1] = self.scripts[-1][0], data


def page_data(page: Path) -> dict[str, Any]:
    (text,) = (text for attributes, text in Elements(page).scripts if attributes.get("id") == "data")
    return json.loads(text)


def thumbnails(page: Path) -> dict[int, tuple[Image.Image, ...]]:
    """Return the decoded images (before, after) by row number."""
    blocks = {a["id"]: text for a, text in Elements(page).scripts if a.get("type") == "text/plain"}
    return {
        int(name.removeprefix("i")): tuple(Image.open(io.BytesIO(base64.b64decode(code))) for code in text.split(" "))
        for name, text in blocks.items()
    }


# -- in a browser


def browse(page: Path, folder: Path, fragment: str = "", steps: str = "", width: int = 1280) -> list[dict[str, Any]]:
    """Return what the page shows at this address and after each step; the steps are JavaScript with `await look()`."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on PATH: the report's script cannot be run")
    driver = f"""<script>{WATCH}
      addEventListener("load", async () => {{
        const looks = [], wait = (ms) => new Promise((done) => setTimeout(done, ms));
        const look = async () => {{ await wait(50); looks.push(seen()); }};
        const set = (id, value) => {{
          document.getElementById(id).value = value;
          document.getElementById(id).dispatchEvent(new Event("input", {{ bubbles: true }}));
        }};
        const press = (key, on = document.body) =>
          on.dispatchEvent(new KeyboardEvent("keydown", {{ key, bubbles: true, cancelable: true }}));
        try {{ await look(); {steps} }} catch (error) {{ looks.push({{ error: String(error) }}); }}
        const result = document.createElement("pre");
        result.id = "looks";
        result.textContent = JSON.stringify(looks);
        document.body.replaceChildren(result);  // a dump fails at a lone surrogate, which JSON spells out
      }});</script>"""
    copy = folder / "driven.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", driver + "</body>"), encoding="utf-8")
    command = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--virtual-time-budget=20000",
        "--dump-dom",
    ]
    command += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900", f"{copy.as_uri()}{fragment}"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    found = re.search(r'<pre id="looks">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    looks = json.loads(unescape(found.group(1)))
    assert not [look for look in looks if "error" in look], looks
    return looks


def sorted_ids(rows: list[dict[str, Any]], reverse: bool = False) -> list[str]:
    scores = scores_of(rows)
    return sorted(scores, key=scores.get, reverse=reverse)


def test_the_first_page_shows_the_worst_pairs_with_their_pictures(
    page: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    (look,) = browse(page, tmp_path)
    assert look["ids"] == sorted_ids(rows)[:20]
    assert look["drawn"] == 40 and look["charts"] == ["CIDEr"] and set(look["stacks"]) == {2}
    by_id = {row["pair_id"]: row for row in rows}
    assert look["sentences"] == [by_id[pair]["prediction"] for pair in look["ids"]]
    assert look["references"] == [by_id[pair]["references"] for pair in look["ids"]]
    scores = scores_of(rows)
    assert all(f"{scores[pair]:.3f}" in about for pair, about in zip(look["ids"], look["about"], strict=True))
    assert look["count"] == f"1–20 of 57 pairs, mean CIDEr {np.mean(list(scores.values())):.3f}"


def test_the_address_determines_the_view(page: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    (look,) = browse(page, tmp_path, "#sort=best&change_type=add&view=slider&chart=BLEU-4")
    added = {row["pair_id"] for row in rows if row["change_type"] == "add"}
    assert look["ids"] == [pair for pair in sorted_ids(rows, reverse=True) if pair in added][:20] and look["ids"]
    assert set(look["stacks"]) == {1} and set(look["cut"]) == {"inset(0px 0px 0px 50%)"}
    assert look["charts"] == ["BLEU-4"]


def test_a_pair_has_its_own_link(page: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    position = 45
    (look,) = browse(page, tmp_path, f"#pair={sorted_ids(rows)[position]}")
    assert look["current"] == [sorted_ids(rows)[position]] and look["ids"] == sorted_ids(rows)[40:]
    (look,) = browse(page, tmp_path, "#pair=nobody&sort=upwards&page=zwei")
    assert look["ids"] == sorted_ids(rows)[:20] and look["count"].endswith("there is no pair nobody")


def test_filters_by_change_type_score_words_and_stated_change_type(
    page: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    steps = """
      set("change_type", "move"); await look();
      set("change_type", ""); set("min", "0.5"); set("max", "4"); await look();
      set("min", ""); set("max", ""); set("q", "Moved  DOG"); await look();
      set("q", ""); set("stated", "incorrect"); await look();
      set("q", "p7"); set("stated", ""); set("sort", "id"); await look();
      set("q", "no such words"); await look();
      document.querySelector("[type=reset]").click(); await look();
    """
    looks = browse(page, tmp_path, steps=steps)[1:]
    scores, order = scores_of(rows), sorted_ids(rows)
    by_id = {row["pair_id"]: row for row in rows}

    def words(pair: str) -> str:
        return " ".join([by_id[pair]["prediction"], *by_id[pair]["references"]])

    wrong = {pair for pair, row in by_id.items() if stated_change_type(row["prediction"]) != row["change_type"]}
    assert looks[0]["ids"] == [pair for pair in order if by_id[pair]["change_type"] == "move"][:20]
    assert looks[1]["ids"] == [pair for pair in order if 0.5 <= scores[pair] <= 4][:20]
    assert looks[2]["ids"] == [pair for pair in order if "moved" in words(pair) and "dog" in words(pair)][:20]
    assert looks[3]["ids"] == [pair for pair in order if pair in wrong][:20]
    assert all("stated:" in about for about in looks[3]["about"])
    assert looks[4]["ids"] == ["p7"]
    assert (looks[5]["ids"], looks[5]["count"]) == ([], "no pair matches (57 in total)")
    assert looks[6]["ids"] == order[:20]
    assert 0 < len(wrong) < len(rows) and 0 < len(looks[2]["ids"]) < 20


def test_keys_pages_slider_and_flicker(page: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    steps = """
      press("ArrowRight"); await look();
      for (let i = 0; i < 20; i++) press("ArrowRight");
      await look();
      press("ArrowLeft"); await look();
      press("f"); await look();
      press("s");
      const range = document.querySelector("#list input[type=range]");
      range.value = 80; range.dispatchEvent(new Event("input")); await look();
      press("ArrowRight", range); await look();
      document.getElementById("next").click(); await look();
      location.hash = "#change_type=add"; await look();
      history.back(); await look();
    """
    start, first, over, back, flicker, slider, same, page_2, link, again = browse(page, tmp_path, steps=steps)
    order = sorted_ids(rows)
    assert start["current"] == [] and first["current"] == [order[0]]
    assert over["current"] == [order[20]] and over["ids"] == order[20:40]
    assert back["current"] == [order[19]] and back["ids"] == order[:20]
    assert set(flicker["flicker"]) == {"flicker"} and set(flicker["stacks"]) == {1}
    assert slider["cut"][0] == "inset(0px 0px 0px 80%)" and set(slider["cut"][1:]) == {"inset(0px 0px 0px 50%)"}
    assert same["current"] == slider["current"] and same["cut"] == slider["cut"], (
        "arrow keys in a field do not change the pair"
    )
    assert page_2["ids"] == order[20:40] and page_2["current"] == []
    assert {row["change_type"] for row in rows if row["pair_id"] in link["ids"]} == {"add"}
    assert again["ids"] == page_2["ids"] and again["address"] == page_2["address"]


@pytest.mark.parametrize("width", [1280, 500])
def test_nothing_extends_beyond_the_margin(width: int, tmp_path: Path) -> None:
    """Show everything that a report can contain: four blocks of numbers, both tables, a long line in the signature."""
    rows = example_rows(40)
    rows[0]["references"].append("another one")
    folder = results_in(tmp_path / "run", rows, same_image_twice=["nothing has changed"] * 40)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["controls"]["identical_images"] = {"pairs": 40, "said_unchanged": 0.5}
    metrics["controls"]["swapped_images"] = {"pairs": 20, "sentence_differs": 0.5}
    metrics["signature"]["adapter"] = "a/long/path/" * 20
    (folder / "metrics.json").write_text(json.dumps(metrics))
    steps = 'for (const part of document.querySelectorAll("details")) part.open = true; await look();'
    closed, opened = browse(write_report(folder, example_images(40)), tmp_path, steps=steps, width=width)
    assert closed["beyond"] == [] and opened["beyond"] == []


def test_captions_are_text_in_the_browser(hostile: Path, tmp_path: Path) -> None:
    rows = {row["pair_id"]: row for row in read_predictions(hostile.with_name("predictions.jsonl"))}
    (look,) = browse(hostile, tmp_path, "#" + urlencode({"sort": "id", "pair": HOSTILE[1]}))
    assert sorted(look["ids"]) == sorted(rows) and look["current"] == [HOSTILE[1]]
    assert not look["owned"] and look["foreign"] == 0
    assert look["sentences"] == [rows[pair]["prediction"] for pair in look["ids"]]
    assert look["references"] == [rows[pair]["references"] for pair in look["ids"]]
    (look,) = browse(hostile, tmp_path, "#" + urlencode({"change_type": HOSTILE[0], "q": HOSTILE[0]}))
    assert look["ids"] == [HOSTILE[0]] and not look["owned"] and look["foreign"] == 0


# -- the file


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run whose captions, references, ids, change types and names all try to inject code."""
    rows = [
        {"pair_id": text, "prediction": text, "references": [text, "a ? b"], "change_type": text} for text in HOSTILE
    ]
    folder = results_in(tmp_path_factory.mktemp("hostile"), rows, {"benchmark": HOSTILE[1], "model": HOSTILE[0]})
    return write_report(folder, example_images(len(rows)))


def test_captions_are_escaped_in_the_file(hostile: Path) -> None:
    elements = Elements(hostile)
    script_types = [attributes.get("type", "program") for attributes, _ in elements.scripts]
    assert script_types == ["application/json", "program"] + ["text/plain"] * len(HOSTILE)
    assert [pair["prediction"] for pair in page_data(hostile)["pairs"]] == list(HOSTILE)
    (data,) = (text for attributes, text in elements.scripts if attributes.get("id") == "data")
    assert data.isascii() and not set("<>&") & set(data)
    assert not [a for _, a in elements.tags if any(name.startswith("on") for name in a)]


def test_nothing_comes_from_the_network(page: Path) -> None:
    elements = Elements(page)
    addresses = [a[name] for _, a in elements.tags for name in ("src", "href", "action", "srcset") if name in a]
    assert addresses and all(address.startswith(("#", "data:")) for address in addresses)
    (policy,) = (a["content"] for _, a in elements.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "url(" not in page.read_text(encoding="utf-8")


def test_before_and_after_are_the_thumbnails_of_their_row(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    def large() -> Iterator[tuple[Image.Image, Image.Image]]:
        for number, pair in enumerate(example_images(len(rows))):
            yield tuple(image.resize((300, 200 + number)) for image in pair)

    page = write_report(results_in(tmp_path, rows), large(), thumbnail=100)
    pictures = thumbnails(page)
    assert list(pictures) == list(range(len(rows)))
    for number, (before, after) in pictures.items():
        assert before.size == after.size == (100, round((200 + number) / 3))
        assert list(before.size) == page_data(page)["pairs"][number]["size"]
        # WebP stores color at half resolution and in video range, so values are only close
        assert np.abs(np.asarray(before)[5, 5].astype(int) - (200, number, 0)).max() < 8
        assert np.abs(np.asarray(after)[5, 5].astype(int) - (0, number, 200)).max() < 8


def test_images_of_every_shape(tmp_path: Path) -> None:
    folder = results_in(tmp_path, example_rows(3))
    images = [(Image.new("RGB", size), Image.new("RGB", size[::-1])) for size in ((1, 1), (900, 3), (224, 224))]
    pictures = thumbnails(write_report(folder, images))
    assert [before.size for before, _ in pictures.values()] == [(1, 1), (224, 1), (224, 224)]


def test_noise_stays_within_25_kb_a_pair(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 2, 400, 400, 3), dtype=np.uint8)
    folder = results_in(tmp_path, example_rows(12))
    empty = write_report(folder).stat().st_size
    full = write_report(folder, ((Image.fromarray(a), Image.fromarray(b)) for a, b in noise)).stat().st_size
    assert 12 * 500 < full - empty <= 12 * 25_000


def photo(seed: int) -> Image.Image:
    """Return smooth areas with some grain, as a camera sees them."""
    random_ = np.random.default_rng(seed)
    areas = Image.fromarray(random_.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((320, 240))
    grain = random_.normal(0, 12, (240, 320, 1))
    return Image.fromarray((np.asarray(areas) + grain).clip(0, 255).astype(np.uint8))


def test_many_photos_are_compressed_more_before_any_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = example_rows(30)
    folder = results_in(tmp_path, rows)

    def sizes() -> list[int]:
        page = write_report(folder, ((photo(number), photo(number + 1)) for number in range(30)))
        assert len(thumbnails(page)) == 30
        blocks = [text for a, text in Elements(page).scripts if a.get("type") == "text/plain"]
        return [len(base64.b64decode(code)) for text in blocks for code in text.split(" ")]

    assert min(sizes()) > 3500, "without the limit they are larger"
    monkeypatch.setattr(report, "PICTURES_LIMIT", 2 * 30 * 3500 * 4 // 3)
    assert 1000 < min(sizes()) and max(sizes()) <= 3500


def test_of_too_many_pictures_the_worst_the_best_and_a_sample_are_kept(
    rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = results_in(tmp_path, rows)
    whole = write_report(folder, example_images(len(rows)))
    assert 'id="pictures"' not in whole.read_text(encoding="utf-8")
    sizes = [len(text) for a, text in Elements(whole).scripts if a.get("type") == "text/plain"]
    monkeypatch.setattr(report, "PICTURES_LIMIT", sum(sizes) // 2)
    page = write_report(folder, example_images(len(rows)))
    kept = thumbnails(page)
    assert len(rows) // 3 < len(kept) < 2 * len(rows) // 3
    assert sum(len(t) for a, t in Elements(page).scripts if a.get("type") == "text/plain") <= sum(sizes) // 2
    order = [int(pair.removeprefix("p")) for pair in sorted_ids(rows)]
    few = len(kept) // 3
    assert {*order[:few], *order[-few:]} <= set(kept), "the worst and the best"
    assert set(kept) - {*order[: 2 * few], *order[-2 * few :]}, "and a sample of the others"
    text = page.read_text(encoding="utf-8")
    assert f'<p id="pictures">{len(kept)} of the {len(rows)} pairs have their images' in text
    shown = {number for number, pair in enumerate(page_data(page)["pairs"]) if pair["size"]}
    assert shown == set(kept) and len(page_data(page)["pairs"]) == len(rows)
    again = write_report(folder, example_images(len(rows)))
    assert again.read_text(encoding="utf-8") == text, "the choice is deterministic"


def test_at_most_two_pairs_of_images_are_in_memory(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    alive, most = [], 0

    def images() -> Iterator[tuple[Image.Image, Image.Image]]:
        nonlocal most
        for _ in rows:
            pair = Image.new("RGB", (60, 40)), Image.new("RGB", (60, 40))
            alive.extend(weakref.ref(image) for image in pair)
            most = max(most, sum(reference() is not None for reference in alive))
            yield pair
            del pair

    write_report(results_in(tmp_path, rows), images())
    assert 2 <= most <= 4, "the current pair and the next"


def plain_text(page: Path) -> str:
    """Return the text of the page without the list of pairs."""
    text = page.read_text(encoding="utf-8").split("</style>")[1].split("<template")[0]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split())


def test_summary_has_scores_intervals_controls_and_the_chart_of_change_types(page: Path) -> None:
    metrics = json.loads(page.with_name("metrics.json").read_text())
    text, plain = page.read_text(encoding="utf-8"), plain_text(page)
    low, high = metrics["intervals"]["CIDEr"]
    control = metrics["controls"]["constant_caption"]
    assert f"CIDEr {metrics['scores']['CIDEr']:.3f} {low:.3f} – {high:.3f} {control['scores']['CIDEr']:.3f}" in plain
    assert f"“{control['caption']}” as the answer to every pair" in plain
    assert f"{100 * metrics['change_type_accuracy']:.1f} % of {metrics['change_type_pairs']}" in plain
    assert '"tokenizer": "PTBTokenizer' in plain and "protocol standard" in plain and "model some/model" in plain
    (chart,) = re.findall(r'<svg class="chart" data-score="CIDEr".*?</svg>', text, re.DOTALL)
    lengths = dict(re.findall(r'href="#change_type=(\w+)">.*?<rect y="\d+" width="([\d.]+)%"', chart, re.DOTALL))
    values = {change_type: group["scores"]["CIDEr"] for change_type, group in metrics["per_change_type"].items()}
    assert {change_type: float(length) for change_type, length in lengths.items()} == pytest.approx(
        {change_type: 100 * value / max(values.values()) for change_type, value in values.items()}, abs=0.01
    )
    for change_type, group in metrics["per_change_type"].items():
        assert f"{change_type} {group['pairs']} pairs {values[change_type]:.3f}" in plain


def test_everything_that_scoring_reports_is_shown(tmp_path: Path) -> None:
    rows = example_rows(40)
    rows[0]["references"].append("another one")
    twice = ["nothing has changed"] * 39 + ["the dog is gone"]
    folder = results_in(tmp_path, rows, same_image_twice=twice, metrics=["BLEU", "ROUGE-L", "CIDEr"])
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["controls"]["identical_images"] = {"pairs": 40, "said_unchanged": 0.987654}
    metrics["per_change_type"]["add"]["intervals"] = {"CIDEr": [0.5, 99.0]}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    page = write_report(folder)
    text = plain_text(page)
    twice, change, words = metrics["controls"]["same_image_twice"], metrics["change_detection"], metrics["captions"]
    low, high = metrics["intervals"]["ROUGE-L"]
    assert f"ROUGE-L {metrics['scores']['ROUGE-L']:.3f} {low:.3f} – {high:.3f}" in text
    assert f" {twice['scores']['ROUGE-L']:.3f} CIDEr" in text and "97.5 % of them deny a change" in text
    assert f"precision {change['precision']:.3f}" in text and "said unchanged 0.988" in text
    lengths = words["predictions"]["mean_tokens"], words["references"]["mean_tokens"]
    assert "mean tokens {:.3f} {:.3f}".format(*lengths) in text
    group = metrics["per_references"]["3"]["scores"]
    assert f"3 1 {group['BLEU-1']:.3f}" in text and "Scores per number of references" in text
    widths = re.findall(r'width="([\d.]+)%"', page.read_text(encoding="utf-8"))
    assert 'class="interval"' in page.read_text(encoding="utf-8") and max(map(float, widths)) <= 100


def test_probabilities_of_a_change_are_drawn(tmp_path: Path) -> None:
    rows = example_rows(20)
    assert 'class="reliability"' not in write_report(results_in(tmp_path, rows)).read_text(encoding="utf-8")
    for index, row in enumerate(rows):
        row["change_probability"] = 0.05 if index < 4 else 0.95
    folder = results_in(tmp_path, rows)
    scores = json.loads((folder / "metrics.json").read_text())["change_probability"]
    page = write_report(folder)
    assert f"expected calibration error {scores['expected_calibration_error']:.3f}" in plain_text(page)
    circles = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', page.read_text(encoding="utf-8"))
    assert [float(x) for x, _ in circles] == [12.5, 237.5] and "4 pairs: probability 0.050" in plain_text(page)


def test_what_the_paper_protocol_did_is_reported_and_no_pair_is_hidden(tmp_path: Path) -> None:
    rows = example_rows(23)
    for row in rows[:2]:
        row |= {"prediction": "there is no change", "references": ["there is no change", "no change was made"]}
    folder = results_in(tmp_path, rows, protocol="paper", paper_batch_size=10)
    page = write_report(folder)
    protocol = json.loads((folder / "metrics.json").read_text())["signature"]["paper_protocol"]
    assert protocol["pairs_dropped"] == 3 and protocol["predictions_replaced_by_references"] > 0
    sentence = (
        f"dropped 3 pairs and replaced {protocol['predictions_replaced_by_references']} predictions by references"
    )
    assert sentence in plain_text(page)
    shown = page_data(page)["pairs"]
    assert [pair["prediction"] for pair in shown] == [row["prediction"] for row in rows]


def test_scores_and_stated_types_of_pairs_are_those_of_the_file(tmp_path: Path) -> None:
    """The report shows the values of the file and computes none."""
    folder = results_in(tmp_path, example_rows(30))
    lines = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line |= {"scores": {"CIDEr": 29 - number, "BLEU-1": number}, "stated_change_type": "sung"}
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = write_report(folder)
    data = page_data(page)
    assert data["scores"] == ["CIDEr", "BLEU-1"] and {pair["stated"] for pair in data["pairs"]} == {"sung"}
    (look,) = browse(page, tmp_path)
    assert look["ids"] == [f"p{number}" for number in range(29, 9, -1)]
    (look,) = browse(page, tmp_path, "#score=BLEU-1&max=4")
    assert look["ids"] == ["p0", "p1", "p2", "p3", "p4"] and look["count"].endswith("mean BLEU-1 2.000")


def test_scores_that_do_not_apply_to_a_pair_are_left_out(tmp_path: Path) -> None:
    """F1 of difference units applies to changed pairs only, TNR to unchanged ones."""
    rows = example_rows(12)
    page = write_report(results_in(tmp_path, rows, metrics=["CIDEr", "DifferenceUnits"]))
    data = page_data(page)
    f1, tnr = data["scores"].index("Unit-F1"), data["scores"].index("Unit-TNR")
    for pair in data["pairs"]:
        unchanged = pair["change_type"] == "none"
        assert (pair["scores"][f1] is None, pair["scores"][tnr] is None) == (unchanged, not unchanged)
    changed = {row["pair_id"] for row in rows if row["change_type"] != "none"}
    (look,) = browse(page, tmp_path, "#score=Unit-F1")
    assert set(look["ids"]) == changed and len(changed) < len(rows)
    (look,) = browse(page, tmp_path)
    assert set(look["ids"]) == {row["pair_id"] for row in rows}, "CIDEr applies to all"
    shown = dict(zip(look["ids"], look["about"], strict=True))
    assert all(("Unit-F1" in about) == (pair in changed) for pair, about in shown.items())
    assert "No change: \u201cnothing has changed\u201d as the answer to every pair" in plain_text(page)


def test_without_cider_the_first_score_sorts_the_pairs(tmp_path: Path) -> None:
    rows = example_rows(9)
    page = write_report(results_in(tmp_path, rows, metrics=["ROUGE-L"]), example_images(9))
    (look,) = browse(page, tmp_path)
    scores = {pair["id"]: pair["scores"][0] for pair in page_data(page)["pairs"]}
    assert look["ids"] == sorted(scores, key=scores.get) and "mean ROUGE-L" in look["count"]


def test_scores_and_a_signature_are_enough(tmp_path: Path) -> None:
    rows = [row | {"change_type": ""} for row in example_rows(3)]
    folder = results_in(tmp_path, rows)
    metrics = json.loads((folder / "metrics.json").read_text())
    least = {"scores": metrics["scores"], "signature": {"pairs": 3}}
    (folder / "metrics.json").write_text(json.dumps(least))
    page = write_report(folder)
    assert "<svg" not in page.read_text(encoding="utf-8").split("<template")[0]
    (look,) = browse(page, tmp_path)
    assert look["ids"] == sorted_ids(rows) and look["drawn"] == 0


def test_the_command_writes_a_report_without_images(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = results_in(tmp_path / "toy", example_rows(4))
    assert report.main([str(folder)]) == 0 and (folder / "report.html").is_file()
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert report.main([str(tmp_path)]) == 2
    assert "predictions.jsonl' is missing: evaluate.py or `python -m metric_idc score`" in capsys.readouterr().err


def test_inconsistent_files_are_refused_and_the_old_report_is_kept(tmp_path: Path) -> None:
    folder = results_in(tmp_path / "toy", example_rows(4))
    page = write_report(folder, example_images(4))
    before = page.read_bytes()
    with pytest.raises(ValueError, match="images has 3 pairs, predictions.jsonl 4"):
        write_report(folder, example_images(3))
    with pytest.raises(ValueError, match="more than the 4 pairs"):
        write_report(folder, example_images(5))
    with pytest.raises(ValueError, match="thumbnail must be at least 1 pixel, got 0"):
        write_report(folder, thumbnail=0)
    write_predictions(example_rows(3), folder / "predictions.jsonl")
    with pytest.raises(ValueError, match="has the scores of 4 pairs, predictions.jsonl has 3"):
        write_report(folder)
    write_predictions(
        [row | {"pair_id": f"q{row['pair_id']}"} for row in example_rows(4)], folder / "predictions.jsonl"
    )
    with pytest.raises(ValueError, match="pairs.jsonl' has other pairs than predictions.jsonl"):
        write_report(folder)
    for broken in ("{", "[]", '{"scores": {}}', '{"scores": 1, "signature": {"pairs": 3}}'):
        (folder / "metrics.json").write_text(broken)
        with pytest.raises(ValueError, match="metrics.json' is not a file of scores"):
            write_report(folder)
    assert page.read_bytes() == before and not list(folder.glob(".*.tmp"))
    (folder / "metrics.json").unlink()
    with pytest.raises(FileNotFoundError, match="metrics.json' is missing: evaluate.py or"):
        write_report(folder)
