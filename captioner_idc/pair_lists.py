"""Lists of pairs to caption, from CSV or JSON lines, and the predictions written for them."""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common_idc.atomic_files import write_text
from modeling_blip2idc.image_fusion import ImageError, load_image


class PairListError(ValueError):
    """A mistake in a list of pairs; the message names file and line."""


def read_pairs(path: Path) -> list[dict[str, Any]]:
    """Return rows `line, pair_id, before, after` of a .csv or .jsonl file; `pair_id` is the row's number if absent.

    Image paths are relative to the folder of the file.

    Raises: PairListError for a file that cannot be read, a row without images, or an image that does not exist.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl}
    if path.suffix.lower() not in readers:
        raise PairListError(f"{path}: pairs are read from .csv or .jsonl files; rename or convert this one.")
    try:
        lines = list(readers[path.suffix.lower()](path))
    except FileNotFoundError as error:
        raise PairListError(f"{path} does not exist; check the path of --pairs.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PairListError(f"{path} cannot be read ({error}); save it as UTF-8 text.") from error
    if not lines:
        raise PairListError(f"{path} contains no pairs; write one per line, with before and after.")
    return [_pair_row(path, line, values, number) for number, (line, values) in enumerate(lines)]


def load_pair(path: Path, row: dict[str, Any]) -> tuple[Any, Any]:
    """Return the two RGB images of a row of `read_pairs(path)`.

    Raises: PairListError that names the line.
    """
    try:
        return load_image(path.parent / row["before"]), load_image(path.parent / row["after"])
    except ImageError as error:
        raise PairListError(f"{path}, line {row['line']}: {error}") from error


def write_predictions(path: Path | None, rows: list[dict[str, Any]], sentences: list[str]) -> None:
    """Write JSON lines `pair_id, before, after, prediction` to a file, or to standard output for None."""
    lines = [
        {"pair_id": row["pair_id"], "before": row["before"], "after": row["after"], "prediction": sentence}
        for row, sentence in zip(rows, sentences, strict=True)
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    if path is None:
        sys.stdout.write(text)
    else:
        write_text(path, text)


def _read_csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:  # Excel starts its files with a byte order mark
        reader = csv.DictReader(file)
        missing = [name for name in ("before", "after") if name not in (reader.fieldnames or [])]
        if missing:
            raise PairListError(
                f"{path}, line 1: column {missing[0]!r} is missing, found {reader.fieldnames or []}; "
                "the first line must name the columns before and after."
            )
        for row in reader:
            yield reader.line_num, row


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise PairListError(f"{path}, line {number}: not JSON ({error.msg}); correct the line.") from error
            if not isinstance(row, dict):
                raise PairListError(f"{path}, line {number}: not an object; write {{'before': ..., 'after': ...}}.")
            yield number, row


def _pair_row(path: Path, line: int, values: dict[str, Any], number: int) -> dict[str, Any]:
    row = {"line": line, "pair_id": str(values.get("pair_id") or number)}
    for side in ("before", "after"):
        name = values.get(side)
        if not isinstance(name, str) or not name.strip():
            raise PairListError(f"{path}, line {line}: {side!r} is missing; give the path of an image.")
        if not (path.parent / name).is_file():
            raise PairListError(
                f"{path}, line {line}: {side} image {name!r} does not exist; paths are relative to the folder of "
                f"{path.name}."
            )
        row[side] = name
    return row
