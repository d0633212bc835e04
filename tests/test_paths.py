"""File names of a run folder: which folders belong to a run, and which evaluations it has."""

from pathlib import Path

from captioner_idc.change_probability import FILE
from run_idc.paths import CALIBRATION, EVALUATIONS, METRICS, TRAIN_CONFIG, control_predictions, evaluations, run_of


def test_an_evaluation_belongs_to_a_run_only_where_train_has_written_one(tmp_path: Path) -> None:
    evaluation = tmp_path / EVALUATIONS / "toy-test"
    evaluation.mkdir(parents=True)
    assert run_of(evaluation) is None
    (tmp_path / TRAIN_CONFIG).touch()
    assert run_of(evaluation) == tmp_path.resolve()
    elsewhere = tmp_path / "other" / "toy-test"
    elsewhere.mkdir(parents=True)
    assert run_of(elsewhere) is None


def test_evaluations_are_sorted_and_only_those_with_metrics(tmp_path: Path) -> None:
    for name in ("b", "a", "unfinished"):
        (tmp_path / EVALUATIONS / name).mkdir(parents=True)
    for name in ("b", "a"):
        (tmp_path / EVALUATIONS / name / METRICS).touch()
    assert [file.parent.name for file in evaluations(tmp_path)] == ["a", "b"]


def test_predictions_of_a_control_are_named_after_it() -> None:
    assert control_predictions("swapped") == "predictions_swapped.jsonl"


def test_the_calibration_has_the_same_name_in_a_run_and_next_to_other_weights() -> None:
    assert CALIBRATION == FILE
