"""Files of predictions: our JSON lines, and the result and reference files of COCO and of clipscore."""

import json
import re
from pathlib import Path
from typing import Any

EXAMPLE = (
    '{"pair_id": "7", "prediction": "the car is gone", "references": ["a car has left"], "change_type": "remove"}'
)
LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # which JSON can spell and UTF-8 cannot encode


def read_predictions(path: str | Path) -> list[dict[str, Any]]:
    """Return rows `pair_id, prediction, references, change_type` and any further fields from JSON lines.

    `change_type` is "" if absent; lone surrogates become U+FFFD.

    Raises: ValueError that names the first line that is not such a row.
    """
    lines = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [_row(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]


def write_predictions(rows: list[dict[str, Any]], path: str | Path) -> None:
    """Write one JSON object per line, in ASCII, so that no line separator in a caption can break a line."""
    lines = [json.dumps({"change_type": "", **row}) + "\n" for row in rows]
    Path(path).write_text("".join(lines), encoding="ascii")


def read_coco(predictions_path: str | Path, references_path: str | Path) -> list[dict[str, Any]]:
    """Return rows from a file of results and a file of references, in the order of the results.

    Results: `[{"image_id", "caption"}]` or `{id: caption}`. References: `{"annotations": [{"image_id", "caption"}]}`
    or `{id: [caption]}`. Ids are compared as strings.

    Raises: ValueError for a file of another form, or ids that are in one file only.
    """
    predictions = _predictions(_load(predictions_path), predictions_path)
    references = _references(_load(references_path), references_path)
    _same_ids(predictions, references, f"{predictions_path} and {references_path}")
    return [
        {"pair_id": pair_id, "prediction": caption, "references": references[pair_id], "change_type": ""}
        for pair_id, caption in predictions.items()
    ]


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except ValueError as error:  # not UTF-8, or not JSON
        raise ValueError(f"{where}: not a line of JSON ({error}); expected e.g. {EXAMPLE}") from error
    missing = [
        name for name in ("pair_id", "prediction", "references") if not isinstance(row, dict) or name not in row
    ]
    if missing:
        raise ValueError(f"{where}: {', '.join(missing)} missing in {_short(row)}; expected e.g. {EXAMPLE}")
    references = row["references"]
    if not isinstance(references, list) or not all(isinstance(text, str) for text in references):
        raise ValueError(f"{where}: references is {_short(references)}; it must be a list of strings")
    for name in ("prediction", "change_type"):
        if not isinstance(row.get(name, ""), str):
            raise ValueError(f"{where}: {name} is {_short(row[name])}; it must be a string")
    if not isinstance(row["pair_id"], str | int) or isinstance(row["pair_id"], bool):
        raise ValueError(f"{where}: pair_id is {_short(row['pair_id'])}; it must be a string or a whole number")
    for name in ("pair_id", "change_type"):
        if LONE_SURROGATE.search(str(row.get(name, ""))):
            raise ValueError(f"{where}: {name} is {row[name]!a}, which is not valid Unicode")
    texts = {"prediction": _valid(row["prediction"]), "references": [_valid(text) for text in references]}
    return {"change_type": "", **row, "pair_id": str(row["pair_id"]), **texts}


def _valid(text: str) -> str:
    return LONE_SURROGATE.sub("\ufffd", text)


def _load(path: str | Path) -> Any:
    def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # json keeps the last of equal keys, which would silently drop a caption
        members = dict(pairs)
        if len(members) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} is repeated in one object")
        return members

    try:
        return json.loads(Path(path).read_bytes().decode("utf-8-sig"), object_pairs_hook=no_repeats)
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file to read captions from ({error})") from error


def _predictions(content: Any, path: str | Path) -> dict[str, str]:
    items = list(content.items()) if isinstance(content, dict) else _pairs(content, path)
    captions: dict[str, str] = {}
    for image_id, caption in items:
        if not isinstance(caption, str):
            raise ValueError(f"{path}: the caption of {image_id!r} is {_short(caption)}; it must be one string")
        if str(image_id) in captions:
            raise ValueError(f"{path}: {image_id!r} has two captions; give one result per id")
        captions[str(image_id)] = _valid(caption)
    return captions


def _references(content: Any, path: str | Path) -> dict[str, list[str]]:
    if not isinstance(content, dict):
        raise ValueError(f'{path}: expected {{"annotations": [...]}} or {{id: [captions]}}, got {_short(content)}')
    if "annotations" not in content:
        for image_id, captions in content.items():
            if not isinstance(captions, list):
                raise ValueError(f"{path}: the references of {image_id!r} are {_short(captions)}; give a list")
        return content
    references: dict[str, list[str]] = {}
    # `images` is not needed: it may name an id several times, and an id without annotation is not scored
    for image_id, caption in _pairs(content["annotations"], path):
        references.setdefault(str(image_id), []).append(caption)
    return references


def _pairs(entries: Any, path: str | Path) -> list[tuple[Any, Any]]:
    """Return id and caption of each entry."""
    if not isinstance(entries, list):
        raise ValueError(f'{path}: expected a list of {{"image_id": ..., "caption": ...}}, got {_short(entries)}')
    for entry in entries:
        if not isinstance(entry, dict) or "image_id" not in entry or "caption" not in entry:
            raise ValueError(f'{path}: expected {{"image_id": ..., "caption": ...}}, got {_short(entry)}')
    return [(entry["image_id"], entry["caption"]) for entry in entries]


def _same_ids(predictions: dict[str, str], references: dict[str, list[str]], where: str) -> None:
    without_reference = sorted(predictions.keys() - references.keys())
    without_prediction = sorted(references.keys() - predictions.keys())
    if without_reference or without_prediction:
        raise ValueError(
            f"{where} contain different ids: {len(without_reference)} have no reference "
            f"(e.g. {without_reference[:5]}), {len(without_prediction)} have no prediction "
            f"(e.g. {without_prediction[:5]}); every id needs both"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + "..."
