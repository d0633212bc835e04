"""SIGTERM in a training run: clusters send it before they kill."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class SigtermHandler:
    """Context manager that turns SIGTERM into a request to stop, and restores the previous handler at its end.

    The loop looks at `requested` after each step, writes a checkpoint and returns.
    """

    def __init__(self) -> None:
        self.requested = self._exit_now = False

    def __enter__(self) -> "SigtermHandler":
        self._process = os.getpid()
        self._previous = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(self, *_: Any) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    def _receive(self, *_: Any) -> None:
        if os.getpid() != self._process:  # a forked process, e.g. a loader of images, ends as usual
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        self.requested = True
        if self._exit_now:
            raise SystemExit(0)

    @contextmanager
    def exit_now_allowed(self) -> Iterator[None]:
        """Exit at once on SIGTERM inside this block: a checkpoint already contains everything."""
        self._exit_now = True
        try:
            if self.requested:
                raise SystemExit(0)
            yield
        finally:
            self._exit_now = False
