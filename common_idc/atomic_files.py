"""Files and folders that exist whole or not at all: written under a temporary name, then renamed.

Temporary names end in `.tmp` and begin with a dot, so that nothing exports, pushes or lists them, and
`remove_leftovers` can clean up after a killed process.
"""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp"


def temporary_name(path: Path) -> Path:
    """Return an unused name next to `path`; unique, because several machines may share a folder."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY}")


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write` with a temporary name, then rename that file to `path`; create missing parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = temporary_name(path)
    try:
        write(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text; a lone surrogate, which UTF-8 cannot encode, is written as its escape."""
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8", errors="backslashreplace"))


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON and a final newline."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` when the block ends; after an error nothing is left.

    Raises: FileExistsError if `folder` exists and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{str(folder)!r} already exists and is not empty: name another folder, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = temporary_name(folder)
    unfinished.mkdir()
    try:
        yield unfinished
        if folder.exists():
            folder.rmdir()
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def atomic_files(folder: Path) -> Iterator[Path]:
    """Yield an empty folder whose files are renamed into `folder`, over its own, when the block ends without error."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = temporary_name(folder / "files")
    unfinished.mkdir()
    try:
        yield unfinished
        for file in sorted(unfinished.iterdir()):
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove the temporary files and folders that a killed process left directly in `folder`; return their paths."""
    leftovers = sorted(folder.glob(f".*{TEMPORARY}"))
    for path in leftovers:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return leftovers
