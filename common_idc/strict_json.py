"""JSON as people write it by hand: a key that is given twice is an error, because the last one would silently win."""

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Return the content of a JSON text.

    Raises: ValueError for text that is not JSON, nested too deeply, or has an object with a repeated key.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_repeated_keys)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {repeated!r} is given {keys.count(repeated)} times")
    return content
