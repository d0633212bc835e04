"""Ends of a training run from outside: SIGTERM, which clusters send before they kill, Ctrl-C, killed processes."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from common_idc.commands import TERMINATED

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# in the messages of torch's two back-ends for processes
SIGNS_OF_A_LOST_PROCESS = ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL")


class StopSignals:
    """Context manager that turns SIGTERM and Ctrl-C into a request to stop, and restores the handlers at its end.

    The loop looks at `requested`, the signal's number or 0, after each step, writes a checkpoint and returns. A second
    Ctrl-C ends the run at once.
    """

    active: "StopSignals | None" = None  # the one whose handlers are installed in this process
    hooked = False  # hooks on forks cannot be removed again

    def __init__(self) -> None:
        self.requested, self._exit_now = 0, False

    def __enter__(self) -> "StopSignals":
        self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}
        StopSignals.active = self
        if not StopSignals.hooked:
            os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_restore_defaults)
            StopSignals.hooked = True
        return self

    def __exit__(self, *_: Any) -> None:
        StopSignals.active = None
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: Any) -> None:
        repeated = number == self.requested == signal.SIGINT
        self.requested = number
        if self._exit_now or repeated:
            self.exit()

    def exit(self) -> None:
        """Raise what ends a program with the exit code of the requested signal: 130 or 143."""
        raise KeyboardInterrupt if self.requested == signal.SIGINT else SystemExit(TERMINATED)

    @contextmanager
    def exit_now_allowed(self) -> Iterator[None]:
        """Exit at once on a signal inside this block: a checkpoint already contains everything."""
        self._exit_now = True
        try:
            if self.requested:
                self.exit()
            yield
        finally:
            self._exit_now = False


@contextmanager
def process_errors_in_one_line() -> Iterator[None]:
    """Raise errors of other processes as one line: of loaders of images, or because a process was killed.

    Raises: ValueError for an error in a loader; OSError for a killed process.
    """
    try:
        yield
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        if lines and " in DataLoader worker process " in lines[0]:  # torch adds the traceback to the message
            raise ValueError(lines[-1].partition(": ")[2] or lines[-1]) from error
        if "DataLoader worker" in str(error):
            raise OSError(
                f"a process that loads images ended ({lines[0]}): continue with --resume, with fewer num_workers if "
                "memory was short"
            ) from error
        if isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS_OF_A_LOST_PROCESS):
            raise OSError(
                "another process of this run ended; its own message, if it was not killed, says why. Continue with "
                "--resume"
            ) from error
        raise


def _block() -> None:
    """Hold signals back while a process is forked: Python drops those that arrive before the child runs."""
    if StopSignals.active:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _unblock() -> None:
    if StopSignals.active:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _restore_defaults() -> None:
    """Let a forked process, e.g. a loader of images, end on SIGTERM and leave Ctrl-C to its parent."""
    if StopSignals.active:
        StopSignals.active = None
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
