"""What the page's answers look like: HTML that contains its images and files, so that none are kept on the server.

Each value of a visitor or a model goes through `escaped`.
"""

import base64
import csv
import html
import io
import math
from typing import Any

from PIL import Image

COLUMNS = ("time", "before", "after", "model", "sentence", "change_probability", "claim", "claim_score")
CSS = """
.comparison > div { position: relative; display: grid; max-width: 640px; overflow: hidden; }
.comparison img { grid-area: 1 / 1; width: 100%; height: 100%; object-fit: contain; }
.comparison .after { clip-path: inset(0 0 0 var(--cut, 50%)); }
.comparison:has(:checked) .after { clip-path: none; animation: flicker 1s steps(1) infinite; }
@keyframes flicker { 50% { opacity: 0; } }
.comparison label { display: flex; gap: .6em; align-items: center; max-width: 640px; min-height: 2em; }
.comparison input { accent-color: var(--color-accent); }
.comparison input[type=range] { flex: 1; min-width: 0; }
.evidence > div { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: .6em; }
.evidence figure { margin: 0; }
.evidence img { width: 100%; }
.probability meter { width: 100%; height: 1.2em; }
.wide { overflow-x: auto; }
.wide table { border-collapse: collapse; width: 100%; }
.wide :is(table, tr, th, td) { border: none !important; }
.wide :is(th, td) { border-bottom: 1px solid var(--border-color-primary) !important; padding: .25em .5em; }
#history a { color: inherit; }
#sentence textarea { font-size: 1.4em; }
:focus-visible { outline: 2px solid var(--color-accent) !important; outline-offset: 1px; }
"""


def escaped(value: Any) -> str:
    """Return a value as text for HTML."""
    return html.escape(str(value))


def image_html(image: Image.Image, text: str, name: str = "") -> str:
    """Return an image element that contains its image: no file is needed."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    source = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class="{name}" alt="{escaped(text)}" src="data:image/jpeg;base64,{source}">'


def comparison_html(before: Image.Image, after: Image.Image) -> str:
    """Return two images on top of each other, with a slider and a switch that lets the upper one flicker."""
    # Once per second: more than three flashes per second can cause seizures (WCAG 2.3.1).
    images = image_html(before, "before") + image_html(after.resize(before.size), "after", "after")
    cut = "this.closest('.comparison').style.setProperty('--cut', this.value + '%')"
    return (
        f'<div class="comparison"><h3>Compare</h3><div>{images}</div>'
        f'<label>before <input type="range" aria-label="after image from here on" oninput="{cut}"> after</label>'
        '<label><input type="checkbox"> flicker, once per second</label></div>'
    )


def probability_html(probability: float, calibrated: bool) -> str:
    """Return the probability of a change as text and bar."""
    note = "" if calibrated else " (not calibrated for this model)"
    return (
        f'<div class="probability"><label>Something has changed: <b>{probability:.1%}</b>{note}'
        f'<meter min="0" max="1" value="{probability:.4f}"></meter></label></div>'
    )


def sentences_html(sentences: list[tuple[str, float]]) -> str:
    """Return a table of sentences with their likelihoods."""
    return table_html(
        ("sentence", "probability"), [(sentence, f"{math.exp(score):.2%}") for sentence, score in sentences]
    )


def evidence_html(images: list[Image.Image], sentence: str, strength: float) -> str:
    """Return both images with heat and box, and what they mean."""
    figures = "".join(
        f"<figure>{image_html(image, f'{side}, with the parts that speak for the sentence')}"
        f"<figcaption>{side}</figcaption></figure>"
        for image, side in zip(images, ("before", "after"), strict=True)
    )
    factor = math.exp(min(strength, 20))  # e^20 is half a billion
    times = f"{factor:,.0f}" if factor >= 10 else f"{factor:.1f}"
    text = (
        f"Without the difference inside the box, “{escaped(sentence)}” would be {times} times less likely."
        if strength > 0
        else "No single part of the images speaks for the sentence."
    )
    return f'<div class="evidence"><h3>What speaks for the sentence</h3><p>{text}</p><div>{figures}</div></div>'


def claim_html(claim: str, score: float) -> str:
    """Return the verdict on a claim."""
    verdict = "fits this pair" if score > 0 else "does not fit this pair"
    return f"<p>“{escaped(claim)}” <b>{verdict}</b> (score {score:+.2f}; above 0 it fits better than no change).</p>"


def history_html(history: list[dict[str, Any]]) -> str:
    """Return the history as a table, newest first, with a link that contains it as CSV: no file is needed."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS)
    writer.writeheader()
    # A spreadsheet would run a text that starts like a formula.
    writer.writerows(
        {
            key: f"'{value}" if isinstance(value, str) and value.startswith(tuple("=+-@")) else value
            for key, value in row.items()
        }
        for row in history
    )
    source = base64.b64encode(buffer.getvalue().encode()).decode()
    link = f'<a download="captions.csv" href="data:text/csv;charset=utf-8;base64,{source}">Download as CSV</a>'
    rows = [tuple(row.values()) for row in reversed(history)]
    return f"<p>{link}</p>{table_html(COLUMNS, rows)}" if history else ""


def table_html(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """Return a table; it scrolls by itself where it is too wide."""
    head = "".join(f"<th>{escaped(name.replace('_', ' '))}</th>" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{escaped(value)}</td>' for value in row)}</tr>" for row in rows)
    return f'<div class="wide" tabindex="0"><table><tr>{head}</tr>{body}</table></div>'
