"""Files and folders that exist whole or not at all: written under a temporary name, then renamed.

Temporary names end in `.tmp` and begin with a dot, so that nothing exports, pushes or lists them. Whoever writes a
file or folder again removes what a killed process left of it, but nothing that a living process is writing: that is
locked.
"""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any

from .folder_lock import LOCK, folder_lock

TEMPORARY = ".tmp"


def temporary_name(path: Path) -> Path:
    """Return an unused name next to `path`; unique, because several machines may share a folder."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY}")


def write_atomically(path: Path, write: Callable[[Path], Any], among_many: bool = False) -> None:
    """Call `write` with a temporary name, then rename that file to `path`; create missing parent folders.

    Args:
        among_many: leave what killed processes left of this file to `remove_leftovers`, called once. Looking for it
            lists the folder: for each of n files there, that would be n * n names.

    Raises: whatever `write` raises; OSError with the name of `path`, e.g. if the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in [] if among_many else path.parent.glob(f".{escape(path.name)}.{'[0-9a-f]' * 32}{TEMPORARY}"):
        _remove_leftover(leftover)
    with _temporary_file(path) as unfinished:
        try:
            with named_errors(path, unfinished):
                unfinished.touch()
                mode = unfinished.stat().st_mode
                write(unfinished)
                unfinished.chmod(mode)  # as in _apply_umask
                os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)


@contextmanager
def _temporary_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name of `path`, locked until the block ends where there are locks."""
    with ExitStack() as stack:
        while True:
            unfinished = temporary_name(path)
            try:
                stack.enter_context(_lock(unfinished))
            except BlockingIOError:  # another process has just taken it for a leftover
                continue
            except (OSError, ImportError):  # without locks no process takes it for a leftover
                pass
            break
        yield unfinished


@contextmanager
def named_errors(path: Path, unfinished: Path | None = None) -> Iterator[None]:
    """Add the name of a file to errors of the system that have none, e.g. that the disk is full.

    Args:
        unfinished: the temporary name of `path`, which errors may have instead.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(unfinished)):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None  # the same error


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Create a file if it is missing and lock it until the block ends.

    Raises: OSError if another process has locked it, or if the file system has no locks; ImportError on Windows.
    """
    import fcntl

    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.fstat(file.fileno()).st_nlink:
            raise BlockingIOError(f"{str(path)!r} was removed meanwhile")
        yield


def _remove_leftover(path: Path) -> bool:
    """Remove a temporary file or folder whose process has been killed; return whether it was removed."""
    with suppress(OSError, ImportError):
        if path.is_dir():
            with folder_lock(path):
                shutil.rmtree(path)
        else:
            with _lock(path):
                path.unlink()
        return True
    return False


def write_text(path: Path, text: str, among_many: bool = False) -> None:
    """Write UTF-8 text; a lone surrogate, which UTF-8 cannot encode, is written as its escape.

    Args:
        among_many: as for `write_atomically`.
    """
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8", errors="backslashreplace"), among_many)


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON and a final newline."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` when the block ends; after an error nothing is left.

    Raises: FileExistsError if `folder` exists and is not empty; OSError if another process is writing it.
    """
    with workplace(folder, folder) as unfinished:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(
                f"{str(folder)!r} already exists and is not empty: name another folder, or remove it"
            )
        yield unfinished
        _apply_umask(unfinished)
        if folder.exists():
            folder.rmdir()
        os.replace(unfinished, folder)


@contextmanager
def atomic_files(folder: Path) -> Iterator[Path]:
    """Yield an empty folder whose files are renamed into `folder`, over its own, when the block ends without error.

    Raises: OSError if another process is in such a block.
    """
    with workplace(folder / "files", folder) as unfinished:
        yield unfinished
        _apply_umask(unfinished)
        for file in sorted(unfinished.iterdir()):
            os.replace(file, folder / file.name)


@contextmanager
def workplace(path: Path, folder: Path) -> Iterator[Path]:
    """Yield an empty folder for what is going to be `path`, inside a locked one next to it, removed afterwards.

    Args:
        folder: what the message names if another process has locked it.
    """
    place = path.with_name(f".{path.name}{TEMPORARY}")
    with folder_lock(folder, place / LOCK):
        try:
            unfinished = place / path.name
            if unfinished.exists():  # left by a killed process
                shutil.rmtree(unfinished)
            unfinished.mkdir()
            yield unfinished
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _apply_umask(folder: Path) -> None:
    """Give files the mode that the umask has given to their folder; safetensors lets nobody but the owner read its."""
    mode = folder.stat().st_mode & 0o666
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(file.stat().st_mode | mode)


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove the temporary files and folders that a killed process left directly in `folder`; return their paths."""
    return [path for path in sorted(folder.glob(f".*{TEMPORARY}")) if _remove_leftover(path)]
