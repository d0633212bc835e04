"""The files of a results folder: predictions, scores per pair, all scores. Each is written whole or not at all.

The names are those of run_idc/paths.py, which this package, standing alone, cannot import; a test compares them.
"""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any

from .predictions import as_json_lines

PREDICTIONS, PAIRS, METRICS, REPORT = "predictions.jsonl", "pairs.jsonl", "metrics.json", "report.html"
CHAT_ANSWERS = "chat_answers.jsonl"  # what judges and parsers answered; lines are appended
# The input controls: predictions for exchanged images, and for the image before given twice.
CONTROLS = ("swapped", "identical")

Row = dict[str, Any]


def control_predictions(control: str) -> str:
    """Return the file name of the predictions of a control, one of CONTROLS."""
    return f"predictions_{control}.jsonl"


def write_predictions(rows: list[Row], path: str | Path) -> None:
    """Write one JSON object per line, in ASCII: no line separator in a caption can then break a line.

    `change_type` may be missing in a row; further fields of a row are written too.
    """
    write_text(Path(path), as_json_lines(rows))


def write_results(folder: Path, result: dict[str, Any]) -> None:
    """Write the result of `score_rows`: its "pairs" to pairs.jsonl, the rest to metrics.json."""
    write_text(folder / PAIRS, "".join(json.dumps(pair) + "\n" for pair in result["pairs"]))
    scores = {name: value for name, value in result.items() if name != "pairs"}
    write_text(folder / METRICS, json.dumps(scores, indent=2, ensure_ascii=False) + "\n")


def remove_results(folder: Path) -> None:
    """Remove what an earlier evaluation wrote, so that it is never taken for a result of other predictions."""
    for name in (METRICS, PAIRS, REPORT, *map(control_predictions, CONTROLS)):
        (folder / name).unlink(missing_ok=True)


def read_result(folder: Path) -> dict[str, Any]:
    """Read metrics.json of a folder that contains the predictions too.

    Raises: FileNotFoundError if one of the two is missing; ValueError if metrics.json is not a file of scores.
    """
    for name in (METRICS, PREDICTIONS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{str(folder / name)!r} is missing: evaluate.py or `python -m metric_idc score` with "
                f"--output_dir {folder} writes it"
            )
    path = folder / METRICS
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        missing = {"scores", "controls", "signature"} - set(result)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is not a file of scores ({error}): score the folder again") from error
    if missing:
        raise ValueError(f"{str(path)!r} has no {', '.join(sorted(missing))}: score the folder again")
    return result


def read_pair_scores(folder: Path) -> dict[str, dict[str, float]]:
    """Return the scores of each pair of a folder, by its pair_id.

    Raises: ValueError if pairs.jsonl has another form; OSError if it cannot be read.
    """
    path = folder / PAIRS
    try:
        pairs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {str(pair["pair_id"]): pair["scores"] for pair in pairs}
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{str(path)!r} has no scores of pairs ({error}): score the folder again") from error


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; remove what killed processes left of it.

    Raises: OSError with the name of the file, e.g. if the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{escape(path.name)}.*.tmp"):
        with suppress(OSError, ImportError), _locked(leftover):  # which fails while another process is writing it
            leftover.unlink()
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with ExitStack() as stack:
            with suppress(OSError, ImportError):  # without locks nobody takes the file for a leftover either
                stack.enter_context(_locked(unfinished))
            unfinished.write_text(text, encoding="utf-8", newline="\n")
            os.replace(unfinished, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None  # the same error
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Create a file if it is missing and lock it until the block ends.

    Raises: OSError if another process has locked it, or if the file system has no locks; ImportError on Windows.
    """
    import fcntl

    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
