"""What a program prints and returns when its command fails."""

import pytest

from common_idc.commands import run_command


def failing(error: Exception) -> None:
    raise error


def test_an_expected_error_is_one_line_and_code_2(capsys: pytest.CaptureFixture) -> None:
    assert run_command(lambda: failing(ValueError("x=0:\n  use 1")), OSError, ValueError) == 2
    assert capsys.readouterr() == ("", "error: x=0: use 1\n")


def test_success_is_code_0_and_an_unexpected_error_keeps_its_traceback(capsys: pytest.CaptureFixture) -> None:
    assert run_command(lambda: 7, ValueError) == 0
    with pytest.raises(KeyError):
        run_command(lambda: failing(KeyError("x")), ValueError)
    assert capsys.readouterr() == ("", "")
