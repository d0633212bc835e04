"""How every program ends: exit code 0, or one line on standard error that says what is wrong, and another code."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

FAILED = 2
# as a shell reports a program that a signal ended
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
UNREAD = 128 + signal.SIGPIPE


class CommandError(Exception):
    """A mistake that the user can correct; `run_command` prints it as one line."""


def run_command(
    command: Callable[[], int | None], *errors: type[Exception], interrupted: str = "run the same command again"
) -> int:
    """Call `command` and return the exit code of its program.

    The code is the one that `command` returns, 0 for None; FAILED after CommandError or one of `errors`; INTERRUPTED
    after Ctrl-C.

    Args:
        errors: others that a user can act on; all the rest pass, because their traceback is needed.
        interrupted: what to do after Ctrl-C, printed after "interrupted: ".
    """
    try:
        code = command()
    except BrokenPipeError:  # of `program | head`: there is nobody to tell
        discard_output(sys.stdout)
        return UNREAD
    except (CommandError, *errors) as error:
        from .hub_access import without_token  # imported only here, because it takes a while

        print(f"error: {' '.join(without_token(str(error)).split())}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"\ninterrupted: {interrupted}", file=sys.stderr)
        return INTERRUPTED
    return code or 0


def discard_output(stream: TextIO) -> None:
    """Let everything that is written to a stream from now on disappear, also what Python writes at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class LastingStream:
    """A text stream that discards its output after its reader has ended."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text and return its length."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            discard_output(self._stream)
            return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            discard_output(self._stream)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Let hours of work go on when the reader of their messages ends, e.g. `head`, or a `tee` that is killed."""
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(LastingStream, streams)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = streams
