"""How every program ends: with code 0, or with code 2 after one line on standard error that says what is wrong."""

import sys
from collections.abc import Callable
from typing import Any


def run_command(command: Callable[[], Any], *errors: type[Exception]) -> int:
    """Call `command` and return the exit code of its program: 0, or 2 after one of `errors`, printed as one line.

    Args:
        errors: those that a user can act on; others pass, because their traceback is needed.
    """
    try:
        command()
    except errors as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0
