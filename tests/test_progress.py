"""State of a run: the best epoch, the means of the log, and lines that a resumed run writes again."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from run_idc import progress
from run_idc.paths import LOG
from run_idc.progress import Log, Progress, WaitingTime


def test_epochs_without_improvement_count_from_the_best_and_a_tie_is_no_improvement() -> None:
    state = Progress(pairs_per_step=1)
    assert [state.is_best(score) for score in (-3.0, -2.0, -2.0, -4.0)] == [True, True, False, False]
    assert (state.best_score, state.epochs_without_improvement) == (-2.0, 2)
    assert state.is_best(-1.0)
    assert state.epochs_without_improvement == 0


def test_means_are_of_the_steps_since_the_last_call() -> None:
    state = Progress(pairs_per_step=1, losses=[1.0, 3.0], grad_norms=[0.5, 1.5])
    assert state.take_means() == {"loss": 2.0, "grad_norm": 1.0}
    state.losses, state.grad_norms = [*state.losses, 7.0], [*state.grad_norms, 4.0]
    assert state.take_means() == {"loss": 7.0, "grad_norm": 4.0}


def test_the_share_of_time_in_the_blocks_is_since_the_last_call(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    waiting = WaitingTime()

    def pass_seconds(inside: float, outside: float) -> None:
        with waiting:
            now[0] += inside
        now[0] += outside

    pass_seconds(1.0, 2.0)
    pass_seconds(0.0, 1.0)
    assert waiting.take_share() == 0.25
    pass_seconds(0.5, 0.5)
    assert waiting.take_share() == 0.5
    assert waiting.take_share() == 0.0, "no time has passed"


def accelerator(tracked: list[dict], is_main_process: bool = True) -> SimpleNamespace:
    """Return a stand-in with the attributes of an Accelerator that Log uses."""
    return SimpleNamespace(is_main_process=is_main_process, log=lambda values, step: tracked.append(values))


def test_lines_after_the_checkpoint_are_cut_off_and_only_numbers_are_tracked(tmp_path: Path) -> None:
    tracked: list[dict] = []
    state = Progress(pairs_per_step=1)
    log = Log(accelerator(tracked), tmp_path, state)
    log.write({"loss": 1.0, "note": "text"})
    kept = state.log_bytes
    log.write({"loss": 2.0})
    assert tracked == [{"loss": 1.0}, {"loss": 2.0}]
    Log(accelerator(tracked), tmp_path, Progress(pairs_per_step=1, log_bytes=kept)).write({"loss": 3.0})
    assert [json.loads(line)["loss"] for line in (tmp_path / LOG).read_text().splitlines()] == [1.0, 3.0]


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    tracked: list[dict] = []
    Log(accelerator(tracked, is_main_process=False), tmp_path, Progress(pairs_per_step=1)).write({"loss": 1.0})
    assert not tracked and not (tmp_path / LOG).exists()
