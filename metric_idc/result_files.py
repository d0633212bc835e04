"""The files of a results folder: predictions.jsonl, pairs.jsonl, metrics.json and the predictions of controls.

This package stands alone, so it has its own way to write a file completely or not at all.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .predictions import read_predictions, write_predictions
from .scoring import predictions_hash

PREDICTIONS, PAIRS, METRICS, REPORT = "predictions.jsonl", "pairs.jsonl", "metrics.json", "report.html"
CONTROLS = ("swapped", "identical")  # images exchanged; the before image twice


def control_predictions(control: str) -> str:
    """Return the file name of the predictions of a control."""
    return f"predictions_{control}.jsonl"


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write` with a temporary name next to `path`, then rename that file to `path`."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows of predictions."""
    write_whole(path, lambda file: write_predictions(rows, file))


def remove_results(folder: Path) -> None:
    """Remove all scores and control predictions, so that none of an earlier call is left next to new predictions."""
    for name in (METRICS, PAIRS, REPORT, *map(control_predictions, CONTROLS)):
        (folder / name).unlink(missing_ok=True)


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write pairs.jsonl and then metrics.json from what `score_rows` returned."""
    lines = "".join(json.dumps(pair) + "\n" for pair in result["pairs"])
    rest = {name: value for name, value in result.items() if name != "pairs"}
    text = json.dumps(rest, indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / PAIRS, lambda file: file.write_text(lines, encoding="ascii"))
    write_whole(folder / METRICS, lambda file: file.write_text(text, encoding="utf-8"))


def read_result(folder: Path) -> dict[str, Any]:
    """Return the content of metrics.json of a folder that contains the predictions too.

    Raises: FileNotFoundError if one is missing; ValueError for another file of that name.
    """
    for name in (METRICS, PREDICTIONS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name} is missing: `evaluate.py --output_dir {folder}` or `python -m metric_idc score FILE "
                f"--output_dir {folder}` writes it"
            )
    try:
        result = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        missing = {"scores", "controls", "signature"} - set(result)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / METRICS} does not contain scores ({error}): score the folder again") from error
    if missing:
        raise ValueError(f"{folder / METRICS} has no {', '.join(sorted(missing))}: score the folder again")
    return result


def read_scored_predictions(folder: Path, result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the predictions of a folder.

    Raises: ValueError if `result`, its metrics.json, was made from other predictions.
    """
    rows = read_predictions(folder / PREDICTIONS)
    if result["signature"].get("predictions_sha256", "") not in ("", predictions_hash(rows)):
        raise ValueError(f"{folder / METRICS} was made from other predictions than {PREDICTIONS}: score them again")
    return rows
