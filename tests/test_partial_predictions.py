"""Predictions of an interrupted evaluation: complete lines of the same configuration are kept, others never used."""

import json
from pathlib import Path
from typing import Any

import pytest

from run_idc.partial_predictions import PartialPredictions, remove_partial_predictions

SETTINGS = {"model": "a", "processor": {"canvas": (448, 224)}}


def begun(folder: Path, process: int = 0, settings: dict[str, Any] = SETTINGS, name: str = "x") -> PartialPredictions:
    partial = PartialPredictions(folder, name, process, settings)
    partial.begin()
    return partial


def test_all_processes_read_what_each_has_added(tmp_path: Path) -> None:
    first, second = begun(tmp_path, 0), begun(tmp_path, 1)
    first.add(0, ["a \u2028 b", ""])
    second.add(1, ["\u00e9"])
    assert first.read() == second.read() == {0: ["a \u2028 b", ""], 1: ["\u00e9"]}
    assert PartialPredictions(tmp_path, "x", 5, SETTINGS).read() == first.read(), "by any process"
    assert PartialPredictions(tmp_path, "y", 0, SETTINGS).read() == {}, "of other columns"


def test_complete_lines_are_kept_and_an_incomplete_one_is_discarded(tmp_path: Path) -> None:
    partial = begun(tmp_path)
    partial.add(0, ["a"])
    with partial.path.open("a") as file:
        file.write('{"batch": 1, "senten')
    assert partial.read() == {0: ["a"]}
    again = begun(tmp_path)
    again.add(2, ["c"])
    assert again.read() == {0: ["a"], 2: ["c"]}


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"model": "b"}) + '\n{"batch": 0, "sentences": ["wrong"]}\n',
        json.dumps(SETTINGS) + '\n{"batch": 0, "senten\n{"batch": 1, "sentences": ["wrong"]}\n',
        "",
        "\n",
    ],
)
def test_files_of_other_configurations_and_corrupted_ones_are_not_used(tmp_path: Path, content: str) -> None:
    partial = PartialPredictions(tmp_path, "x", 0, SETTINGS)
    partial.path.write_text(content)
    assert partial.read() == {}
    partial.begin()
    partial.add(3, ["d"])
    assert partial.read() == {3: ["d"]}


def test_only_partial_predictions_are_removed(tmp_path: Path) -> None:
    begun(tmp_path, 0), begun(tmp_path, 1, name="y")
    (tmp_path / "predictions.jsonl").write_text("")
    remove_partial_predictions(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.jsonl"]
