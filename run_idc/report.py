"""A report in one HTML file: scores with their controls, a chart per change type, and the pairs with their images.

    python -m run_idc.report runs/toy/eval/toy-test          # without images; evaluate.py writes it with them

It is made from predictions.jsonl, pairs.jsonl and metrics.json of the folder, and computes nothing. The images are
part of the file, so that it can be sent.
"""

import argparse
import base64
import io
import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL.Image import Image

from common_idc.atomic_files import write_atomically

from .paths import METRICS, PAIRS, PREDICTIONS, REPORT

TEMPLATE = Path(__file__).with_name("report.html")
PICTURES_LIMIT = 40_000_000  # characters of all pictures: what a browser opens without effort
BYTES_PER_PIXEL = 0.18  # at most, of a thumbnail: 24 KB of text for two of 224 x 224
LEAST_BYTES = 3000  # of a thumbnail among many, before pairs go without
QUALITIES = (75, 50, 25, 0)  # of WebP; noise at 0 still keeps the limit
MAIN = "CIDEr"  # the score that the chart and the list of pairs start with, if it was computed
FACTS = ("benchmark", "split", "predictions", "model", "revision", "adapter", "protocol", "pairs")


def write_report(folder: Path, images: Iterable[tuple[Image, Image]] | None = None, thumbnail: int = 224) -> Path:
    """Write FOLDER/report.html and return its path.

    Args:
        images: before and after (RGB) of each row of predictions.jsonl, in order; one pair is in memory at a time.
        thumbnail: the longer side of the pictures in the file, in pixels.

    Raises: FileNotFoundError or ValueError for a folder without matching predictions and scores.
    """
    folder = Path(folder)
    if thumbnail < 1:
        raise ValueError(f"thumbnail must be at least 1 pixel, got {thumbnail}")
    rows, pairs, metrics = _read(folder)
    scores = [pair["scores"] for pair in pairs]
    main = MAIN if MAIN in scores[0] else next(iter(scores[0]))
    pictures = {} if images is None else _thumbnails(images, _turns([pair[main] for pair in scores]), thumbnail)
    _render(
        folder / REPORT,
        title=_title(metrics["signature"], folder),
        facts={name: metrics["signature"][name] for name in FACTS if metrics["signature"].get(name) is not None},
        metrics=metrics,
        controls={name: control for name, control in metrics.get("controls", {}).items() if "scores" in control},
        numbers=_numbers(metrics),
        main=main,
        charts=_charts(metrics),
        data=_script_json(_page_data(rows, pairs, pictures)),
        pairs=len(rows),
        pictures=pictures,
        has_images=images is not None,
    )
    return folder / REPORT


def _read(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """Return predictions, scores per pair and metrics, which must belong together."""
    for name in (PREDICTIONS, PAIRS, METRICS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing: score the folder with `python -m metric_idc score`")
    rows, pairs = (_read_lines(folder / name) for name in (PREDICTIONS, PAIRS))
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        scored = metrics["signature"]["pairs"], metrics["scores"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / METRICS} does not contain scores ({error!r}): score the folder again") from error
    if scored[0] + _dropped(metrics) != len(rows):
        raise ValueError(
            f"{folder / METRICS} scores {scored[0]} pairs, {PREDICTIONS} has {len(rows)}: score the predictions again"
        )
    if [row["pair_id"] for row in rows] != [pair["pair_id"] for pair in pairs]:
        raise ValueError(f"{folder / PAIRS} has other pairs than {PREDICTIONS}: score the predictions again")
    return rows, pairs, metrics


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def _dropped(metrics: dict[str, Any]) -> int:
    return metrics["signature"].get("paper_protocol", {}).get("pairs_dropped", 0)


def _turns(scores: list[float]) -> list[int]:
    """Return the turn of each pair for a place in the file: the worst, the best and a random one in rotation."""
    worst = sorted(range(len(scores)), key=lambda pair: scores[pair])
    sample = random.Random(0).sample(worst, len(worst))
    order = dict.fromkeys(pair for three in zip(worst, worst[::-1], sample, strict=True) for pair in three)
    turns = [0] * len(scores)
    for turn, pair in enumerate(order):
        turns[pair] = turn
    return turns


def _thumbnails(images: Iterable[tuple[Image, Image]], turns: list[int], side: int) -> dict[int, dict[str, Any]]:
    """Return thumbnails by row number; if not all fit, those whose turn comes first."""
    kept: dict[int, dict[str, Any]] = {}
    by_turn = {turn: row for row, turn in enumerate(turns)}
    size, cutoff, count = 0, len(turns), 0
    share = max(LEAST_BYTES, PICTURES_LIMIT * 3 // 4 // (2 * len(turns)))  # Base64 makes 4 characters of 3 bytes
    for count, pair in enumerate(images, start=1):
        if count > len(turns):
            raise ValueError(f"images has more than the {len(turns)} pairs of {PREDICTIONS}")
        if turns[count - 1] >= cutoff:
            continue
        kept[count - 1] = _encode_pair(pair, side, share)
        size += len(kept[count - 1]["text"])
        while size > PICTURES_LIMIT:
            cutoff -= 1
            if by_turn[cutoff] in kept:
                size -= len(kept.pop(by_turn[cutoff])["text"])
    if count < len(turns):
        raise ValueError(f"images has {count} pairs, {PREDICTIONS} {len(turns)}: give every row its images")
    return kept


def _encode_pair(pair: tuple[Image, Image], side: int, share: int) -> dict[str, Any]:
    """Return both thumbnails in Base64, separated by a blank, and the size of the first."""
    small = [image.copy() for image in pair]
    for image in small:
        image.thumbnail((side, side))
    return {"size": small[0].size, "text": " ".join(base64.b64encode(_webp(image, share)).decode() for image in small)}


def _webp(image: Image, share: int) -> bytes:
    """Return WebP of the best quality within the limit of bytes; a tiny picture is mostly header and gets 1 KB."""
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
    """Return heading -> column -> name -> number: the statistics next to the scores, if the file has them."""
    groups = {name: {"": metrics[name]} for name in ("change_detection",) if name in metrics}
    groups |= {name: {"": control} for name, control in metrics.get("controls", {}).items() if "scores" not in control}
    return groups | {name: metrics[name] for name in ("captions",) if name in metrics}


def _charts(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the bars of each score, one per change type, and the scale: the highest value or end of an interval."""
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
    rows: list[dict[str, Any]], pairs: list[dict[str, Any]], pictures: dict[int, dict[str, Any]]
) -> dict[str, Any]:
    """Return what the page's program works on: the pairs, without their pictures."""
    shown = [
        {
            "id": row["pair_id"],
            "change_type": row["change_type"],
            "told": pair["stated_change_type"],
            "prediction": row["prediction"],
            "references": row["references"],
            "scores": list(pair["scores"].values()),
            "size": pictures[number]["size"] if number in pictures else None,
        }
        for number, (row, pair) in enumerate(zip(rows, pairs, strict=True))
    ]
    return {"scores": list(pairs[0]["scores"]), "pairs": shown}


def _script_json(content: Any) -> str:
    """Return JSON in ASCII without characters that could end a script element or start a comment in it."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _render(path: Path, **content: Any) -> None:
    """Write the filled template in pieces, so that it is never in memory as a whole."""
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise ImportError('the report needs jinja2: pip install "blip2idc[metrics]"') from error

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value: f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))

    def write(file: Path) -> None:
        with file.open("w", encoding="utf-8", newline="\n") as opened:
            opened.writelines(template.generate(**content))

    write_atomically(path, write)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m run_idc.report", description="Write report.html, without images, for a results folder."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="with predictions, pairs.jsonl and metrics.json")
    try:
        print(write_report(parser.parse_args(argv).folder))
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
