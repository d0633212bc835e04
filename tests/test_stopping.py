"""SIGTERM and Ctrl-C in a run: recorded as a request, immediate exit where allowed, default in forked processes."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator

import pytest

from run_idc.stopping import StopSignals

EXITS = {signal.SIGTERM: SystemExit, signal.SIGINT: KeyboardInterrupt}


@pytest.fixture(autouse=True)
def handlers_come_back() -> Iterator[None]:
    """Check that the handlers after a test are those before it."""
    before = {number: signal.getsignal(number) for number in EXITS}
    yield
    assert {number: signal.getsignal(number) for number in EXITS} == before


@pytest.mark.parametrize("number", EXITS)
def test_a_signal_is_a_request(number: int) -> None:
    with StopSignals() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested == number


def test_a_second_ctrl_c_ends_the_program() -> None:
    with pytest.raises(KeyboardInterrupt), StopSignals():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the block continued after the second Ctrl-C")


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("number", EXITS)
def test_it_exits_at_once_where_that_is_allowed(early: bool, number: int) -> None:
    with StopSignals() as stop:
        if early:
            os.kill(os.getpid(), number)
        with pytest.raises(EXITS[number]) as stopped, stop.exit_now_allowed():
            os.kill(os.getpid(), number)
            raise AssertionError("the block continued after the signal")
        assert number == signal.SIGINT or stopped.value.code == 143


def test_forked_processes_end_as_usual() -> None:
    """Send SIGTERM right after the fork: a pool whose workers lose it would wait for them forever."""
    context = multiprocessing.get_context("fork")
    with StopSignals() as stop:
        for _ in range(30):
            child = context.Process(target=time.sleep, args=(3600,))
            child.start()
            child.terminate()
            child.join(600)
            assert child.exitcode == -signal.SIGTERM
        assert not stop.requested


def test_processes_forked_after_the_block_keep_the_previous_handlers() -> None:
    with StopSignals():
        pass
    before = signal.getsignal(signal.SIGINT)
    child = os.fork()
    if child == 0:
        os._exit(signal.getsignal(signal.SIGINT) is before)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
