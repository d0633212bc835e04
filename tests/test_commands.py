"""Output and exit code of a program when its command succeeds or fails."""

import subprocess
import sys
from pathlib import Path

import pytest

from common_idc.commands import run_command


def fail_with(error: Exception) -> None:
    raise error


def test_an_expected_error_is_one_line_and_code_2(capsys: pytest.CaptureFixture) -> None:
    assert run_command(lambda: fail_with(ValueError("x=0:\n  use 1")), OSError, ValueError) == 2
    assert capsys.readouterr() == ("", "error: x=0: use 1\n")


def test_success_is_code_0_and_an_unexpected_error_keeps_its_traceback(capsys: pytest.CaptureFixture) -> None:
    assert run_command(lambda: None, ValueError) == 0
    assert run_command(lambda: 7, ValueError) == 7
    with pytest.raises(KeyError):
        run_command(lambda: fail_with(KeyError("x")), ValueError)
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_says_how_to_continue(capsys: pytest.CaptureFixture) -> None:
    assert run_command(lambda: fail_with(KeyboardInterrupt()), ValueError, interrupted="use --resume") == 130
    assert capsys.readouterr().err.strip() == "interrupted: use --resume"


# 200 KB, more than a pipe holds, so that the program writes after its reader has ended
TALKATIVE = """
import contextlib, sys
from common_idc.commands import lasting_output, run_command
def talk():
    for number in range(20000):
        print(f"line {number:4}", flush=True)
        print("progress", file=sys.stderr, flush=True)
    open(sys.argv[1], "w").write("finished")
with lasting_output() if sys.argv[2] == "lasting" else contextlib.nullcontext():
    sys.exit(run_command(talk, OSError))
"""


@pytest.mark.parametrize(("kind", "code", "finished"), [("lasting", 0, True), ("ordinary", 141, False)])
def test_a_reader_that_ends_stops_only_programs_that_may_be_repeated(
    root: Path, tmp_path: Path, kind: str, code: int, finished: bool
) -> None:
    command = [sys.executable, "-c", TALKATIVE, str(tmp_path / "result"), kind]
    program = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert program.stdout.readline() == b"line    0\n"
    program.stdout.close()
    if kind == "lasting":
        program.stderr.close()
    elif b"Traceback" in program.stderr.read():
        raise AssertionError("a traceback about the closed pipe")
    assert program.wait() == code
    assert (tmp_path / "result").exists() == finished
