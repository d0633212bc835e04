"""Redaction of texts that may leave this machine: its paths and the Hub token are removed."""

import os
import re
from pathlib import Path
from typing import Any

from .hub_access import without_token

EMBEDDED_PATH = re.compile(r"(?<![\w:/.~-])~?(?:/[^\s\"'/:,]+)+/([^\s\"'/:,]+)/?")


def is_local(name: str) -> bool:
    """Return whether a model's name is a folder of this machine and not a Hub id."""
    return os.path.isabs(name) or name.startswith((".", "~")) or os.path.isdir(name)


def folder_name(name: str | None) -> str | None:
    """Return a model's name, "./NAME" for a relative folder, which nobody can take for a Hub id."""
    if name and os.path.isdir(name) and not os.path.isabs(name) and not name.startswith((".", "~")):
        return f"./{name}"
    return name


def without_paths(value: Any) -> Any:
    """Return the same with every path of this machine cut to its last component, and without the token."""
    if isinstance(value, dict):
        return {key: without_paths(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_paths(entry) for entry in value]
    if not isinstance(value, str):
        return value
    if value.startswith(("./", "../", "~/")) or "/" in value and (os.path.isabs(value) or os.path.exists(value)):
        return Path(value).expanduser().resolve().name
    return EMBEDDED_PATH.sub(r"\1", without_token(value))
