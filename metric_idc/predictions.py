"""Readers of predictions: our JSON lines, and the result and reference files of COCO and of clipscore.

Whatever scoring cannot use is refused here, with its place in the file. A lone surrogate in a caption (half of a
UTF-16 pair, which JSON can spell and UTF-8 cannot) is replaced by "?", as Java does.
"""

import json
from pathlib import Path
from typing import Any

from .unit_rules import UNITS_EXAMPLE, are_units

EXAMPLE = (
    '{"pair_id": "7", "prediction": "the car is gone", "references": ["a car has left"], "change_type": "remove"}'
)
FIELDS = ("pair_id", "prediction", "references", "change_type")

Row = dict[str, Any]


def read_predictions(path: str | Path) -> list[Row]:
    """Return the rows `pair_id, prediction, references, change_type` of a file of JSON lines.

    `change_type` may be missing and is "" then, and `units`, the true changes, may be missing too; further fields of a
    line are kept.

    Raises: ValueError with file and line for anything that cannot be scored; OSError if the file cannot be read.
    """
    lines = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    rows: dict[str, Row] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _row(line, f"{path}, line {number}")
        if row["pair_id"] in rows:
            raise ValueError(
                f"{path}, line {number}: duplicate pair_id {row['pair_id']!r}: each pair needs exactly one prediction"
            )
        rows[row["pair_id"]] = row
    return list(rows.values())


def as_json_lines(rows: list[Row]) -> str:
    """Return the lines that `read_predictions` reads."""
    return "".join(json.dumps({field: row.get(field, "") for field in FIELDS} | row) + "\n" for row in rows)


def read_coco(predictions_path: str | Path, references_path: str | Path) -> list[Row]:
    """Return rows made of a file of results and a file of references, in the order of the results.

    Results: `[{"image_id", "caption"}]` or `{id: caption}`. References: `{"annotations": [{"image_id", "caption"}]}`
    or `{id: [caption]}`. Ids are compared as strings.

    Raises: ValueError for anything that cannot be scored; OSError if a file cannot be read.
    """
    predictions = _predictions(_load(predictions_path), predictions_path)
    references = _references(_load(references_path), references_path)
    _check_same_ids(predictions, references, f"{predictions_path} and {references_path}")
    return [
        {"pair_id": pair_id, "prediction": caption, "references": references[pair_id], "change_type": ""}
        for pair_id, caption in predictions.items()
    ]


def _row(line: bytes, where: str) -> Row:
    try:
        row = json.loads(line.decode("utf-8"), object_pairs_hook=_unique_keys)
    except ValueError as error:  # not UTF-8, or not JSON
        raise ValueError(f"{where}: not a line of JSON ({error}); expected e.g. {EXAMPLE}") from error
    missing = [name for name in FIELDS[:3] if not isinstance(row, dict) or name not in row]
    if missing:
        raise ValueError(f"{where}: {', '.join(missing)} missing in {_short(row)}; expected e.g. {EXAMPLE}")
    for name in ("prediction", "change_type"):
        if not isinstance(row.get(name, ""), str):
            raise ValueError(f"{where}: {name} is {_short(row[name])}; it must be a string")
    if not are_units(row.get("units", [])):
        raise ValueError(f"{where}: units is {_short(row['units'])}; it must be e.g. {UNITS_EXAMPLE}")
    if not isinstance(row["pair_id"], str | int) or isinstance(row["pair_id"], bool):
        raise ValueError(f"{where}: pair_id is {_short(row['pair_id'])}; it must be a string or a whole number")
    for name in ("pair_id", "change_type"):  # replacing characters could make two ids equal
        if (text := str(row.get(name, ""))) != _without_surrogates(text):
            raise ValueError(f"{where}: {name} is {row[name]!a}; it must be valid Unicode, without lone surrogates")
    return row | {
        "pair_id": str(row["pair_id"]),
        "prediction": _without_surrogates(row["prediction"]),
        "references": _captions(row["references"], f"{where}: references"),
        "change_type": row.get("change_type", ""),
    }


def _captions(captions: Any, where: str) -> list[str]:
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        raise ValueError(f"{where} is {_short(captions)}; it must be a list of strings")
    if not captions:
        raise ValueError(f"{where} is empty; each pair needs at least one (pairs are never dropped)")
    return [_without_surrogates(text) for text in captions]


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _unique_keys(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of a JSON object; of equal keys json would silently keep the last."""
    names = [name for name, _ in members]
    if len(set(names)) < len(names):
        raise ValueError(f"duplicate key {next(name for name in names if names.count(name) > 1)!r} in one object")
    return dict(members)


def _load(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_bytes().decode("utf-8-sig"), object_pairs_hook=_unique_keys)
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file with captions ({error})") from error


def _predictions(content: Any, path: str | Path) -> dict[str, str]:
    items = list(content.items()) if isinstance(content, dict) else _ids_and_captions(content, path)
    captions: dict[str, str] = {}
    for image_id, caption in items:
        if not isinstance(caption, str):
            raise ValueError(f"{path}: the caption of {image_id!r} is {_short(caption)}; it must be one string")
        if str(image_id) in captions:
            raise ValueError(f"{path}: {image_id!r} has two captions; give one result per id")
        captions[str(image_id)] = _without_surrogates(caption)
    return captions


def _references(content: Any, path: str | Path) -> dict[str, list[str]]:
    if not isinstance(content, dict):
        raise ValueError(f'{path}: expected {{"annotations": [...]}} or {{id: [captions]}}, got {_short(content)}')
    references: dict[str, Any] = {}
    if "annotations" in content:
        # `images` is not needed: it may name an id several times, and an id without annotation has nothing to score
        for image_id, caption in _ids_and_captions(content["annotations"], path):
            references.setdefault(str(image_id), []).append(caption)
    else:
        references = content
    return {
        image_id: _captions(captions, f"{path}: the list of references of {image_id!r}")
        for image_id, captions in references.items()
    }


def _ids_and_captions(entries: Any, path: str | Path) -> list[tuple[Any, Any]]:
    if not isinstance(entries, list):
        raise ValueError(f'{path}: expected a list of {{"image_id": ..., "caption": ...}}, got {_short(entries)}')
    for entry in entries:
        if not isinstance(entry, dict) or "image_id" not in entry or "caption" not in entry:
            raise ValueError(f'{path}: expected {{"image_id": ..., "caption": ...}}, got {_short(entry)}')
    return [(entry["image_id"], entry["caption"]) for entry in entries]


def _check_same_ids(predictions: dict[str, str], references: dict[str, list[str]], where: str) -> None:
    without_reference = sorted(predictions.keys() - references.keys())
    without_prediction = sorted(references.keys() - predictions.keys())
    if without_reference or without_prediction:
        raise ValueError(
            f"{where} have different ids: {len(without_reference)} have no reference "
            f"(e.g. {without_reference[:5]}), {len(without_prediction)} have no prediction "
            f"(e.g. {without_prediction[:5]}); every id needs both"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + "..."
