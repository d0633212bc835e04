"""The commands of dataset_syned end at Ctrl-C with one line, with all their processes."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dataset_syned import __main__ as commands

ARGUMENTS = {
    "list": [],
    "fetch": ["toy"],
    "prepare": ["toy"],
    "check": ["toy"],
    "export": ["toy", "folder"],
    "push": ["toy", "me/toy"],
    "synthesize": [],
}


def interrupt(_: object) -> int:
    raise KeyboardInterrupt


def fail_after_interrupt(_: object) -> int:
    """Raise what a pool of `multiprocess` raises if it is interrupted while it waits."""
    try:
        raise KeyboardInterrupt
    finally:
        raise TimeoutError


@pytest.mark.parametrize("interrupted", [interrupt, fail_after_interrupt])
@pytest.mark.parametrize("command", commands.COMMANDS)
def test_ctrl_c_is_one_line_that_says_how_to_continue(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, command: str, interrupted: object
) -> None:
    monkeypatch.setitem(commands.COMMANDS, command, (interrupted, ""))
    assert commands.main([command, *ARGUMENTS[command]]) == 130
    again = "run the same command again" + (" to continue" if command in ("fetch", "push", "synthesize") else "")
    assert capsys.readouterr() == ("", f"\ninterrupted: {again}\n")


# One of the two processes sends Ctrl-C to all, as a terminal does. (Those that a shell starts in the background ignore
# it, and so do those that they start.)
PREPARE = """
import os, signal, sys
from dataset_syned.__main__ import main
from dataset_syned.benchmarks import toy

signal.signal(signal.SIGINT, signal.default_int_handler)

def draw_row(*arguments, draw=toy.draw_row):
    if arguments[-1] % 500 == 10:
        try:
            os.close(os.open(sys.argv[1], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            os.killpg(0, signal.SIGINT)
    return draw(*arguments)

toy.draw_row = draw_row
sys.exit(main(["prepare", "toy", "--num_proc", "2"]))
"""


def test_ctrl_c_ends_all_processes_of_prepare(tmp_path: Path, root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, str(tmp_path / "sent")],
        cwd=root,
        env=os.environ | {"HF_HOME": str(tmp_path / "home")},
        start_new_session=True,
        capture_output=True,
        text=True,
    )
    assert (tmp_path / "sent").exists() and done.returncode == 130, done.stderr
    assert done.stderr.endswith("\ninterrupted: run the same command again\n") and "Traceback" not in done.stderr
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_wait_after_ctrl_c_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was ended with a lock keeps it for ever."""
    monkeypatch.setattr(commands, "PATIENCE", 0.01)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest may ignore it, see above
    lock = threading.Lock()
    lock.acquire()
    with pytest.raises(KeyboardInterrupt), commands.children_end_at_ctrl_c():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            lock.acquire()
            raise AssertionError("it was not interrupted again")
    assert signal.signal(signal.SIGINT, before) == signal.default_int_handler
