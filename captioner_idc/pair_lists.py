"""Lists of pairs to caption, from CSV or JSON lines, and the predictions written for them.

Until every pair has its sentence, the sentences are kept next to the output in `.OUTPUT.partial`, so that an
interrupted command continues where it stopped: a first line with what they depend on, then one line per sentence.
"""

import csv
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common_idc.atomic_files import write_text
from common_idc.strict_json import parse_json
from modeling_blip2idc.image_fusion import ImageError

COLUMNS = ("pair_id", "before", "after")
FREE_SPACE = 2**16  # bytes that must fit on the disk of the output before anything is captioned


class PairListError(ValueError):
    """A mistake in a list of pairs, or an output that cannot be written; the message names file and line."""


def read_pairs(path: Path) -> list[dict[str, Any]]:
    """Return rows `line, pair_id, before, after` of a .csv or .jsonl file; `pair_id` is the row's number if absent.

    Raises: PairListError for a file that cannot be read, or a row without the path of an image.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl}
    if path.suffix.lower() not in readers:
        raise PairListError(f"{path}: pairs are read from .csv or .jsonl files; rename or convert this one.")
    try:
        lines = list(readers[path.suffix.lower()](path))
    except FileNotFoundError as error:
        raise PairListError(f"{path} does not exist; check the path of --pairs.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise PairListError(f"{path} cannot be read ({error}); save it as UTF-8 text.") from error
    except csv.Error as error:
        raise PairListError(f"{path} is not a CSV file ({error}); check its quotation marks.") from error
    if not lines:
        raise PairListError(f"{path} contains no pairs; write one per line, with before and after.")
    return [_pair_row(path, line, values, number) for number, (line, values) in enumerate(lines)]


def image_state(path: Path, row: dict[str, Any]) -> str:
    """Return a text that changes if a row of `read_pairs(path)` names other images, or if one of them is changed.

    Raises: PairListError that names the line of an image that does not exist.
    """
    state = [row[name] for name in COLUMNS]
    for side in ("before", "after"):
        try:
            file = _image_file(path, row[side]).stat()
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise PairListError(
                f"{path}, line {row['line']}: {side} image {row[side]!r} does not exist; paths are relative to the "
                f"folder of {path.name}."
            ) from error
        state += [file.st_size, file.st_mtime_ns]
    return json.dumps(state)


def load_pair(processor: Any, path: Path, row: dict[str, Any]) -> tuple[Any, Any]:
    """Return `processor.load_pair` of a row of `read_pairs(path)`.

    Raises: PairListError that names the line.
    """
    before, after = (_image_file(path, row[side]) for side in ("before", "after"))
    try:
        return processor.load_pair(before, after, f"pair {row['pair_id']!r}")
    except ImageError as error:
        raise PairListError(f"{path}, line {row['line']}: {error}") from error


def prediction_line(row: dict[str, Any], sentence: str, ascii_only: bool = False) -> str:
    """Return the line of JSON `pair_id, before, after, prediction` for a row of `read_pairs`."""
    line = {**{name: row[name] for name in COLUMNS}, "prediction": sentence}
    return json.dumps(line, ensure_ascii=ascii_only) + "\n"


def check_output(path: Path) -> None:
    """Raise PairListError if predictions could not be written to `path`, before any time is spent on them."""
    if path.exists() and not path.is_file():
        raise PairListError(f"--output {path} is not a regular file; leave --output out to print the sentences.")
    try:
        with tempfile.TemporaryFile(dir=path.parent) as file:  # without a name: nothing is left, even after a kill
            file.write(b" " * FREE_SPACE)
    except OSError as error:
        raise PairListError(f"--output {path} cannot be written ({error.strerror}); name another file.") from error


class PartialOutput:
    """The sentences of an output that is not complete yet, and the file next to it that keeps them."""

    def __init__(self, output: Path, settings: dict[str, Any]):
        """Read the sentences of an interrupted run.

        Args:
            settings: everything that the sentences depend on except the images, JSON-able.

        Raises: PairListError if there are sentences of other settings, which are never mixed.
        """
        self.output, self.path = output, output.with_name(f".{output.name}.partial")
        self.settings = json.loads(json.dumps(settings))
        try:
            first, *others = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        except FileNotFoundError:
            first, others = "", []
        except OSError as error:
            raise PairListError(f"'{self.path}' cannot be read ({error.strerror}); delete it.") from error
        entries = [entry for entry in map(_parsed, others) if {"state", "sentence"} <= entry.keys()]
        self.sentences = {entry["state"]: entry["sentence"] for entry in entries}  # of earlier runs
        if self.sentences:
            self._check_settings(_parsed(first))
        else:
            self.path.unlink(missing_ok=True)

    def _check_settings(self, found: dict[str, Any]) -> None:
        changed = [name for name, value in self.settings.items() if found.get(name) != value]
        if changed:
            raise PairListError(
                f"'{self.path}' contains sentences of an interrupted run with another {', '.join(changed)}; repeat "
                "that command, name another --output, or delete this file."
            )

    def add(self, rows: list[dict[str, Any]], sentences: list[str]) -> None:
        """Append the sentences of rows with a `state`, which `image_state` returned.

        Raises: PairListError if they cannot be written, e.g. because the disk is full.
        """
        new = {row["state"]: sentence for row, sentence in zip(rows, sentences, strict=True)}
        if not new:
            return
        # An empty line ends what a killed process was writing. A new file must not be that of another process.
        mode, start = ("a", "\n") if self.sentences else ("x", json.dumps(self.settings) + "\n")
        try:
            with self.path.open(mode, encoding="utf-8") as file:
                lines = (json.dumps({"state": state, "sentence": text}) + "\n" for state, text in new.items())
                file.write(start + "".join(lines))
        except OSError as error:
            raise _unwritten(self.path, error) from error
        self.sentences |= new

    def finish(self, text: str, complete: bool) -> None:
        """Write the output.

        Args:
            complete: whether each row has a sentence; if not, the sentences are kept for the next run too.

        Raises: PairListError if it cannot be written, e.g. because the disk is full.
        """
        try:
            write_text(self.output, text)
        except OSError as error:
            raise _unwritten(self.output, error) from error
        if complete:
            self.path.unlink(missing_ok=True)


def _unwritten(path: Path, error: OSError) -> PairListError:
    return PairListError(
        f"'{path}' cannot be written ({error.strerror}); correct this and run the same command again to continue."
    )


def _parsed(line: str) -> dict[str, Any]:
    """Return the object in a line of a partial output; {} for an empty, incomplete or corrupted line."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _image_file(path: Path, name: str) -> Path:
    return path.parent / os.path.expanduser(name)


def _read_csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:  # Excel starts its files with a byte order mark
        reader = csv.DictReader(file, strict=True)  # a quotation mark that is never closed would swallow lines
        names = reader.fieldnames or []
        missing = [name for name in ("before", "after") if name not in names]
        if missing:
            raise PairListError(
                f"{path}, line 1: column {missing[0]!r} is missing, found {list(names)}; "
                "the first line must name the columns before and after."
            )
        repeated = [name for name in COLUMNS if list(names).count(name) > 1]
        if repeated:
            raise PairListError(f"{path}, line 1: column {repeated[0]!r} is given more than once; rename the others.")
        for row in reader:
            yield reader.line_num, row


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = parse_json(line.strip())
            except ValueError as error:
                raise PairListError(f"{path}, line {number}: not valid JSON ({error}); correct the line.") from error
            if not isinstance(row, dict):
                raise PairListError(f"{path}, line {number}: not an object; write {{'before': ..., 'after': ...}}.")
            yield number, row


def _pair_row(path: Path, line: int, values: dict[str, Any], number: int) -> dict[str, Any]:
    pair_id = values.get("pair_id")
    row = {"line": line, "pair_id": str(number if pair_id in (None, "") else pair_id)}
    for side in ("before", "after"):
        name = values.get(side)
        if not isinstance(name, str) or not name.strip():
            raise PairListError(f"{path}, line {line}: {side!r} is missing; give the path of an image.")
        row[side] = name
    return row
