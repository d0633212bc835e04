"""The report of an evaluation: one HTML file with scores, controls, a chart per change type, and the pairs.

python -m run_idc.report runs/mine/eval/photo_edits-test

It reads predictions.jsonl, pairs.jsonl and metrics.json of the folder, computes nothing, and has no images;
evaluate.py calls `write_report` with images. They are inside the file, so that it can be sent.
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
from common_idc.commands import run_command

from .paths import METRICS, PAIRS, PREDICTIONS, REPORT

TEMPLATE = Path(__file__).with_name("report.html")
PICTURES_LIMIT = 40_000_000  # characters of all pictures: a browser opens this without effort
BYTES_PER_PIXEL = 0.18  # upper limit for a thumbnail: 24 KB of text for two of 224 x 224
LEAST_BYTES = 3000  # per thumbnail; if there are too many pairs for that, some have no pictures
QUALITIES = (75, 50, 25, 0)  # of WebP; at 0 even noise stays within the limit
MAIN = "CIDEr"  # the score that the chart and the list of pairs start with, if the pairs have it
GROUPS = ("change_detection", "change_probability", "judge", "unit_parser")  # of numbers that are not scores
FACTS = ("benchmark", "split", "predictions", "model", "revision", "adapter", "protocol", "pairs")

Row = dict[str, Any]


def write_report(folder: Path, images: Iterable[tuple[Image, Image]] | None = None, thumbnail: int = 224) -> Path:
    """Write FOLDER/report.html and return its path.

    Args:
        folder: with predictions.jsonl, pairs.jsonl and metrics.json.
        images: the RGB images before and after of each row of predictions.jsonl, in that order; one pair is in memory
            at a time.
        thumbnail: the longer side of the pictures in the file, in pixels.

    Raises: FileNotFoundError or ValueError if files are missing or do not fit together; ImportError without jinja2.
    """
    folder = Path(folder)
    if thumbnail < 1:
        raise ValueError(f"thumbnail must be at least 1 pixel, got {thumbnail}")
    rows, pairs, metrics = _read(folder)
    names = list(dict.fromkeys(name for pair in pairs for name in pair["scores"]))
    main = MAIN if MAIN in names else names[0]
    turns = _turns([pair["scores"].get(main, 0.0) for pair in pairs])
    pictures = {} if images is None else _thumbnails(images, turns, thumbnail)
    _render(
        folder / REPORT,
        title=_title(metrics["signature"], folder),
        facts={name: metrics["signature"][name] for name in FACTS if metrics["signature"].get(name) is not None},
        metrics=metrics,
        controls={name: control for name, control in metrics.get("controls", {}).items() if "scores" in control},
        numbers=_numbers(metrics),
        main=main,
        charts=_charts(metrics),
        reliability=metrics.get("change_probability", {}).get("reliability"),
        data=_script_json(_page_data(rows, pairs, pictures, names)),
        pairs=len(rows),
        pictures=pictures,
        has_images=images is not None,
    )
    return folder / REPORT


def _read(folder: Path) -> tuple[list[Row], list[Row], dict[str, Any]]:
    for name in (PREDICTIONS, PAIRS, METRICS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{str(folder / name)!r} is missing: evaluate.py or `python -m metric_idc score` writes it"
            )
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        scored = metrics["signature"]["pairs"], metrics["scores"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(folder / METRICS)!r} is not a file of scores ({error!r}): score it again") from error
    rows, pairs = _read_lines(folder / PREDICTIONS), _read_lines(folder / PAIRS)
    if scored[0] + _dropped(metrics) != len(rows):
        raise ValueError(
            f"{str(folder / METRICS)!r} has the scores of {scored[0]} pairs, {PREDICTIONS} has {len(rows)} pairs: "
            "score the predictions again"
        )
    if [row["pair_id"] for row in rows] != [pair["pair_id"] for pair in pairs]:
        raise ValueError(f"{str(folder / PAIRS)!r} has other pairs than {PREDICTIONS}: score the predictions again")
    return rows, pairs, metrics


def _read_lines(path: Path) -> list[Row]:
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    try:
        rows = [json.loads(line) for line in lines if line.strip()]
        return [row | {"pair_id": str(row["pair_id"])} for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} cannot be read ({error!r}): score the predictions again") from error


def _dropped(metrics: dict[str, Any]) -> int:
    return metrics["signature"].get("paper_protocol", {}).get("pairs_dropped", 0)


def _turns(scores: list[float]) -> list[int]:
    """Return the turn in which each pair gets space in the file: the worst, the best and a random one in rotation."""
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
    """Return both thumbnails in Base64, separated by a space, and the size of the first."""
    small = [image.copy() for image in pair]
    for image in small:
        image.thumbnail((side, side))
    return {"size": small[0].size, "text": " ".join(base64.b64encode(_webp(image, share)).decode() for image in small)}


def _webp(image: Image, share: int) -> bytes:
    """Return the best quality within the limit of bytes; tiny pictures, which are mostly header, may have 1 KB."""
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
    """Return the numbers other than scores that the file has: heading -> column -> name -> number."""
    groups = {name: {"": _only_numbers(metrics[name])} for name in GROUPS if name in metrics}
    groups |= {name: {"": control} for name, control in metrics.get("controls", {}).items() if "scores" not in control}
    return groups | {name: metrics[name] for name in ("captions",) if name in metrics}


def _only_numbers(group: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in group.items() if isinstance(value, int | float)}


def _charts(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return per score a bar per change type, the score of all pairs, and the value that fills the width."""
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
    rows: list[Row], pairs: list[Row], pictures: dict[int, dict[str, Any]], names: list[str]
) -> dict[str, Any]:
    """Return the data of the page's program: the pairs, without their pictures.

    Args:
        names: of the scores; those that do not apply to a pair are None.
    """
    data = [
        {
            "id": row["pair_id"],
            "change_type": row.get("change_type", ""),
            # None where the rules cannot recognize the pair's own change type
            "stated": pair["stated_change_type"],
            "prediction": row["prediction"],
            "references": row["references"],
            "scores": [pair["scores"].get(name) for name in names],
            "size": pictures[number]["size"] if number in pictures else None,
        }
        for number, (row, pair) in enumerate(zip(rows, pairs, strict=True))
    ]
    return {"scores": names, "pairs": data}


def _script_json(content: Any) -> str:
    """Return JSON in ASCII without characters that end a script element or start a comment in it."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _render(path: Path, **content: Any) -> None:
    """Fill the template; its text is written in pieces, so that it is never in memory as a whole."""
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise ImportError('the report needs jinja2. Fix: pip install "blip2idc[metrics]"') from error

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value: f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))

    def write(unfinished: Path) -> None:
        with unfinished.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(template.generate(**content))

    write_atomically(path, write)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m run_idc.report", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="a folder with predictions.jsonl, pairs.jsonl and metrics.json")
    folder = parser.parse_args(argv).folder
    return run_command(lambda: print(write_report(folder)), ValueError, OSError, ImportError)


if __name__ == "__main__":
    sys.exit(main())
