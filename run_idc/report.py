"""A report that people look at: one HTML file with the scores, their controls, a chart per change_type, and the pairs.

    write_report(Path("runs/toy/eval/toy-test"), images=((row["before"], row["after"]) for row in rows))

It reads predictions.jsonl and metrics.json of the folder. Pictures travel inside the file, so that it can be sent.
"""

import base64
import io
import json
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL.Image import Image

from metric_idc.change_type import CHANGE_TYPES, stated_change_type
from metric_idc.predictions import read_predictions
from metric_idc.scoring import segment_scores

TEMPLATE = Path(__file__).with_name("report.html")
PICTURES_LIMIT = 40_000_000  # characters of all pictures: what a browser opens without effort
BYTES_PER_PIXEL = 0.18  # of a thumbnail, at most: 24 KB of text for two of 224 x 224
LEAST_BYTES = 3000  # of a thumbnail among many, before pairs go without
QUALITIES = (75, 50, 25, 0)  # of WebP; noise at 0 still keeps the limit
MAIN = "CIDEr"  # the score that the chart and the list of pairs start with
FACTS = ("benchmark", "split", "predictions", "model", "revision", "adapter", "protocol", "pairs")


def write_report(folder: Path, images: Iterable[tuple[Image, Image]] | None = None, thumbnail: int = 224) -> Path:
    """FOLDER/report.html, from the predictions.jsonl and metrics.json there.

    Args:
        images: before and after of each row of predictions.jsonl, in that order; one pair is held at a time.
        thumbnail: the longer side of the pictures in the file, in pixels.
    """
    folder = Path(folder)
    if thumbnail < 1:
        raise ValueError(f"thumbnail must be at least 1 pixel, got {thumbnail}")
    rows, metrics = _read(folder)
    scores = _pair_scores(rows, metrics)
    pictures = {} if images is None else _thumbnails(images, _turns([pair[MAIN] for pair in scores]), thumbnail)
    _render(
        folder / "report.html",
        title=_title(metrics["signature"], folder),
        facts={name: metrics["signature"][name] for name in FACTS if metrics["signature"].get(name) is not None},
        metrics=metrics,
        controls={name: control for name, control in metrics.get("controls", {}).items() if "scores" in control},
        numbers=_numbers(metrics),
        main=MAIN,
        charts=_charts(metrics),
        data=_script_json(_page_data(rows, scores, pictures)),
        pairs=len(rows),
        pictures=pictures,
        has_images=images is not None,
    )
    return folder / "report.html"


def _read(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    for name in ("predictions.jsonl", "metrics.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing: evaluate.py writes it; the report is made from it")
    rows = read_predictions(folder / "predictions.jsonl")
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        scored = metrics["signature"]["pairs"], metrics["scores"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder / 'metrics.json'} is no file of scores ({error!r}): score the folder again"
        ) from error
    if scored[0] + _dropped(metrics) != len(rows):
        raise ValueError(
            f"{folder / 'metrics.json'} scores {scored[0]} pairs, predictions.jsonl holds {len(rows)}: "
            "score the predictions again"
        )
    return rows, metrics


def _dropped(metrics: dict[str, Any]) -> int:
    return metrics["signature"].get("paper_protocol", {}).get("pairs_dropped", 0)


def _pair_scores(rows: list[dict[str, Any]], metrics: dict[str, Any]) -> list[dict[str, float]]:
    """Each pair's own scores: those in metrics.json, if of these very sentences, or the ones that take no JVM each."""
    segments = metrics.get("segments", [])
    if len(segments) == len(rows) and metrics["signature"].get("protocol") == "honest" and MAIN in segments[0]:
        return segments
    return segment_scores(rows, ["ROUGE-L", MAIN])


def _turns(scores: list[float]) -> list[int]:
    """Per pair its turn for a place in the file: the worst, the best and a random one in rotation."""
    worst = sorted(range(len(scores)), key=lambda pair: scores[pair])
    sample = random.Random(0).sample(worst, len(worst))
    order = dict.fromkeys(pair for three in zip(worst, worst[::-1], sample, strict=True) for pair in three)
    turns = [0] * len(scores)
    for turn, pair in enumerate(order):
        turns[pair] = turn
    return turns


def _thumbnails(images: Iterable[tuple[Image, Image]], turns: list[int], side: int) -> dict[int, dict[str, Any]]:
    """Row number -> thumbnails of that pair; of more than fit, those whose turn comes first."""
    kept: dict[int, dict[str, Any]] = {}
    by_turn = {turn: row for row, turn in enumerate(turns)}
    size, cutoff, count = 0, len(turns), 0
    share = max(LEAST_BYTES, PICTURES_LIMIT * 3 // 4 // (2 * len(turns)))  # Base64 makes 4 characters of 3 bytes
    for count, pair in enumerate(images, start=1):
        if count > len(turns):
            raise ValueError(f"images holds more than the {len(turns)} pairs of predictions.jsonl")
        if turns[count - 1] >= cutoff:
            continue
        kept[count - 1] = _encode_pair(pair, side, share)
        size += len(kept[count - 1]["text"])
        while size > PICTURES_LIMIT:
            cutoff -= 1
            if by_turn[cutoff] in kept:
                size -= len(kept.pop(by_turn[cutoff])["text"])
    if count < len(turns):
        raise ValueError(f"images holds {count} pairs, predictions.jsonl {len(turns)}: give every row its images")
    return kept


def _encode_pair(pair: tuple[Image, Image], side: int, share: int) -> dict[str, Any]:
    """Both thumbnails in Base64, separated by a blank, and the size of the first."""
    small = [image.convert("RGB") for image in pair]
    for image in small:
        image.thumbnail((side, side))
    return {"size": small[0].size, "text": " ".join(base64.b64encode(_webp(image, share)).decode() for image in small)}


def _webp(image: Image, share: int) -> bytes:
    """The best quality within the limit of bytes; a picture of a few pixels is all header and has 1 KB."""
    limit = max(1000, min(share, BYTES_PER_PIXEL * image.width * image.height))
    for quality in QUALITIES:
        file = io.BytesIO()
        image.save(file, "WEBP", quality=quality, method=2)  # half the time of the default for 3 % more bytes
        if file.tell() <= limit:
            break
    return file.getvalue()


def _title(signature: dict[str, Any], folder: Path) -> str:
    if signature.get("benchmark"):
        return f"{signature['benchmark']}, {signature.get('split', '')}".removesuffix(", ")
    return signature.get("predictions") or folder.resolve().name


def _numbers(metrics: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Heading -> column -> name -> number: what is told beside the scores, as far as the file has it."""
    groups = {name: {"": metrics[name]} for name in ("change_detection",) if name in metrics}
    groups |= {name: {"": control} for name, control in metrics.get("controls", {}).items() if "scores" not in control}
    return groups | {name: metrics[name] for name in ("captions",) if name in metrics}


def _charts(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Per score its bars, a change_type each: lengths in percent of the longest, or of the highest end of an interval."""
    charts = {}
    for score, overall in metrics["scores"].items():
        bars = [
            {
                "change_type": change_type,
                "pairs": group.get("pairs"),
                "value": group["scores"][score],
                "interval": group.get("intervals", {}).get(score),
            }
            for change_type, group in metrics.get("per_change_type", {}).items()
            if score in group["scores"]
        ]
        scale = max([overall, 1e-9, *(b["value"] for b in bars), *(b["interval"][1] for b in bars if b["interval"])])
        if bars:
            charts[score] = {"bars": bars, "overall": overall, "scale": scale}
    return charts


def _page_data(
    rows: list[dict[str, Any]], scores: list[dict[str, float]], pictures: dict[int, dict[str, Any]]
) -> dict[str, Any]:
    """What the page's program works on: the pairs, without their pictures."""
    pairs = [
        {
            "id": row["pair_id"],
            "change_type": row["change_type"],
            # only change_types that the rules know can be told right or wrong
            "told": stated_change_type(row["prediction"]) if row["change_type"] in CHANGE_TYPES else None,
            "prediction": row["prediction"],
            "references": row["references"],
            "scores": list(own.values()),
            "size": pictures[number]["size"] if number in pictures else None,
        }
        for number, (row, own) in enumerate(zip(rows, scores, strict=True))
    ]
    return {"scores": list(scores[0]), "pairs": pairs}


def _script_json(content: Any) -> str:
    """JSON in ASCII without any character that ends a script element or starts a comment in it."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _render(path: Path, **content: Any) -> None:
    """The template's text goes out in pieces, so that it never stands in memory as a whole."""
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise ImportError('the report needs jinja2. Fix: pip install "blip2idc[metrics]"') from error

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value: f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    unfinished = path.with_name(path.name + ".tmp")
    # "replace": a lone surrogate in a caption has no UTF-8 form
    with unfinished.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
        file.writelines(template.generate(**content))
    os.replace(unfinished, path)
