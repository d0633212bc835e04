"""Atomic writes: files and folders are complete or absent, and leftovers of killed processes are removed."""

import errno
import fcntl
import os
from pathlib import Path

import pytest
from kill_points import after_kills
from safetensors.torch import save_file

from common_idc.atomic_files import (
    TEMPORARY,
    atomic_files,
    atomic_folder,
    named_errors,
    remove_leftovers,
    temporary_name,
    write_atomically,
    write_text,
)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "new_folder" / "file.txt"
    write_text(file, "old")

    def fail(unfinished: Path) -> None:
        unfinished.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(file, fail)
    assert file.read_text() == "old"
    assert list(file.parent.iterdir()) == [file]


def test_a_lone_surrogate_is_written_as_its_escape(tmp_path: Path) -> None:
    write_text(tmp_path / "file.txt", "a \ud83d")
    assert (tmp_path / "file.txt").read_text() == "a \\ud83d"


def test_a_folder_appears_at_the_end_or_never(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "folder") as unfinished:
        (unfinished / "file").touch()
        assert not (tmp_path / "folder").exists()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["file"]
    with pytest.raises(ValueError, match="half"), atomic_folder(tmp_path / "other"):
        raise ValueError("half")
    with pytest.raises(FileExistsError, match="not empty"), atomic_folder(tmp_path / "folder"):
        raise AssertionError("the block was entered")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_files_replace_those_of_the_folder_only_after_the_block(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(ValueError, match="half"), atomic_files(tmp_path) as unfinished:
        (unfinished / "a").write_text("half")
        raise ValueError("half")
    assert (tmp_path / "a").read_text() == "old"
    with atomic_files(tmp_path) as unfinished:
        (unfinished / "a").write_text("new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "new")]


def test_leftovers_are_removed_and_the_rest_stays(tmp_path: Path) -> None:
    (tmp_path / "file.txt").touch()
    (tmp_path / ".hidden").touch()
    temporary_name(tmp_path / "file.txt").touch()
    temporary_name(tmp_path / "folder").mkdir()
    assert len(remove_leftovers(tmp_path)) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "file.txt"]


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_files_have_the_mode_of_the_umask(mask: int, tmp_path: Path) -> None:
    """Whoever writes them: safetensors' own are readable by their owner alone."""
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "a.safetensors", lambda file: save_file({}, file))
        with atomic_folder(tmp_path / "folder") as unfinished:
            save_file({}, unfinished / "b.safetensors")
            (unfinished / "inner").mkdir()
            save_file({}, unfinished / "inner" / "c.safetensors")
        with atomic_files(tmp_path) as unfinished:
            save_file({}, unfinished / "d.safetensors")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*.safetensors")}
    assert modes == {f"{name}.safetensors": 0o666 & ~mask for name in "abcd"}


def test_a_write_removes_what_killed_processes_left_of_its_file_only(tmp_path: Path) -> None:
    left, living, other = (temporary_name(tmp_path / name) for name in ("[a].txt", "[a].txt", "b.txt"))
    own = tmp_path / ".[a].txt.mine.tmp"  # not one of our names
    for path in (left, living, other, own):
        path.touch()
    with living.open("ab") as file:  # as its process does while it writes
        fcntl.flock(file, fcntl.LOCK_EX)
        write_text(tmp_path / "[a].txt", "new")
        assert {path.name for path in tmp_path.iterdir()} == {"[a].txt", living.name, other.name, own.name}
        assert living in tmp_path.iterdir() and remove_leftovers(tmp_path) == sorted([other, own])
    write_text(tmp_path / "[a].txt", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["[a].txt"]


def test_a_file_is_locked_while_it_is_written(tmp_path: Path) -> None:
    def write(unfinished: Path) -> None:
        assert remove_leftovers(tmp_path) == [] and unfinished.exists()
        write_text(tmp_path / "file.txt", "another process's")
        unfinished.write_text("ours")

    write_atomically(tmp_path / "file.txt", write)
    assert (tmp_path / "file.txt").read_text() == "ours" and len(list(tmp_path.iterdir())) == 1


def test_a_folder_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "folder") as unfinished:
        (unfinished / "file").touch()
        with pytest.raises(OSError, match="another process is writing into '.*/folder'"):
            with atomic_folder(tmp_path / "folder"):
                raise AssertionError("the block was entered")
        assert remove_leftovers(tmp_path) == [] and (unfinished / "file").exists()
    with (
        atomic_files(tmp_path / "folder"),
        pytest.raises(OSError, match="another process is writing into '.*/folder'"),
    ):
        with atomic_files(tmp_path / "folder"):
            raise AssertionError("the block was entered")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["file"]


def test_no_file_of_a_killed_process_gets_into_the_next_folder(tmp_path: Path) -> None:
    workplace = tmp_path / f".folder{TEMPORARY}"
    for _ in range(2):
        (workplace / "folder" / "sub").mkdir(parents=True)
        (workplace / "folder" / "sub" / "old").touch()
        if (tmp_path / "folder").exists():
            with pytest.raises(FileExistsError), atomic_folder(tmp_path / "folder"):
                raise AssertionError("the block was entered")
        else:
            with atomic_folder(tmp_path / "folder") as unfinished:
                (unfinished / "new").touch()
        assert not workplace.exists()
    assert [path.name for path in (tmp_path / "folder").rglob("*")] == ["new"]


def test_errors_of_the_system_name_the_file(tmp_path: Path) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(*arguments)

    full = (errno.ENOSPC, "as a library words it")
    with pytest.raises(OSError, match=r"^\[Errno 28\] No space left on device: '.*/file.txt'$"):
        write_atomically(tmp_path / "file.txt", lambda _: fail(*full))
    with pytest.raises(OSError, match=r": '.*/file.txt'$"):
        write_atomically(tmp_path / "file.txt", lambda unfinished: fail(*full, str(unfinished)))
    for others in ((*full, "other.txt"), ("a sentence",)):
        with pytest.raises(OSError, match="other.txt'$|^a sentence$"), named_errors(tmp_path / "file.txt"):
            fail(*others)
    assert not list(tmp_path.iterdir())


COMMAND = """
from common_idc.atomic_files import atomic_files, atomic_folder, write_json

def command(folder):
    write_json(folder / "sub" / "a.json", [1])
    try:
        with atomic_folder(folder / "whole") as unfinished:
            write_json(unfinished / "b.json", [2])
    except FileExistsError:
        pass
    with atomic_files(folder / "whole") as unfinished:
        (unfinished / "c.txt").write_text("3")
        (unfinished / "d.txt").write_text("4")
"""


def test_after_a_kill_at_any_file_operation_nothing_is_left_or_missing(tmp_path: Path) -> None:
    *killed, unbroken = after_kills(COMMAND, tmp_path)
    assert sorted(unbroken) == ["sub", "sub/a.json", "whole", "whole/b.json", "whole/c.txt", "whole/d.txt"]
    assert len(killed) > 25 and all(listing == unbroken for listing in killed)
