"""A locked folder refuses a second process, and a killed process leaves no lock."""

import errno
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common_idc.folder_lock import folder_lock

# A process that locks a folder and forks a child that lives longer; the child says when it is ready, because only the
# hooks that run in it after the fork close its copy of the locked file.
HOLDER = """
import os, signal, sys
from pathlib import Path
from common_idc.folder_lock import folder_lock
with folder_lock(Path(sys.argv[1])):
    if not os.fork():
        print(os.getpid(), flush=True)
        signal.pause()
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path, root: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
    )
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(OSError, match=r"another process is writing into '.*run': wait for its end, or name"):
            with folder_lock(tmp_path / "run"):
                raise AssertionError("the block was entered")
        with folder_lock(tmp_path / "run", tmp_path / "run" / ".other"):
            pass
        holder.kill()
        holder.wait()
        with folder_lock(tmp_path / "run"):  # although a forked child, e.g. a loader of images, is still there
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        holder.communicate()


def test_the_lock_ends_with_its_block(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="within"), folder_lock(tmp_path):
        raise ValueError("within")
    with folder_lock(tmp_path):
        pass


def test_nothing_of_the_lock_is_left(tmp_path: Path) -> None:
    with folder_lock(tmp_path / "new" / "run"):
        pass
    assert not (tmp_path / "new" / "run").exists()
    with folder_lock(tmp_path / "run"):
        (tmp_path / "run" / "result").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["result"]


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_named_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", refuse)
    entered = False
    with caplog.at_level(logging.WARNING), folder_lock(tmp_path):
        entered = True
    assert entered and f"the file system of {str(tmp_path)!r} has no locks" in caplog.text


def test_an_error_of_the_block_or_of_the_folder_is_not_taken_for_a_missing_lock(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="within"), folder_lock(tmp_path):
        raise OSError(errno.ENOLCK, "within")
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError), folder_lock(tmp_path / "file"):
        raise AssertionError("the block was entered")
