"""Files that are there whole or not at all."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp"


def write_beside(path: Path, write: Callable[[Path], Any]) -> None:
    """Calls `write` with a temporary name, which then takes the place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY}")  # machines may share a folder
    try:
        write(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    write_beside(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))
