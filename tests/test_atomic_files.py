"""Files and folders exist whole or not at all, and what a killed process left is removed."""

from pathlib import Path

import pytest

from common_idc.atomic_files import (
    atomic_files,
    atomic_folder,
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
