"""SIGTERM in a run: requested, obeyed where allowed, as usual in forked processes, and forgotten at the end."""

import multiprocessing
import os
import signal
import time

import pytest

from run_idc.stopping import SigtermHandler


def test_the_signal_is_a_request_and_the_previous_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with SigtermHandler() as sigterm:
        assert not sigterm.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert sigterm.requested
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("early", [True, False])
def test_it_exits_at_once_where_that_is_allowed(early: bool) -> None:
    with SigtermHandler() as sigterm:
        if early:
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit) as stopped, sigterm.exit_now_allowed():
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("it went on")
        assert stopped.value.code == 0


def test_forked_processes_end_as_usual() -> None:
    """Otherwise a pool that sends SIGTERM to its workers would wait forever."""
    with SigtermHandler():
        context = multiprocessing.get_context("fork")
        ready = context.Event()  # a signal that arrives while a process is being forked is lost
        child = context.Process(target=lambda: (ready.set(), time.sleep(3600)))
        child.start()
        try:
            assert ready.wait(600)
            child.terminate()
            child.join(600)
            assert child.exitcode == -signal.SIGTERM
        finally:
            child.kill()
