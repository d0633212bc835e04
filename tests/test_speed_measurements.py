"""Measurements of drawing, preparing and scoring: rows of the common form; baselines with the same results."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from program_files import load_program


@pytest.fixture
def program(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(root / "measurements")
    return lambda name: load_program(root / "measurements" / f"{name}.py", f"measured_{name}")


def rows_of(root: Path, output: Path, *command: str) -> list[dict[str, Any]]:
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, f"measurements/{command[0]}.py", "--output", str(output), *command[1:]],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(output.read_text())
    for row in rows:
        assert row["lowest"] <= row["ratio"] <= row["highest"] and row["repeats"] >= 5 and row["baseline"]
    return rows


def test_drawing_is_measured(root: Path, tmp_path: Path) -> None:
    [row] = rows_of(root, tmp_path / "rows.json", "drawing", "--pairs", "2")
    assert row["unit"] == "s of CPU time" and row["ratio"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("preparing", "--pairs", "4", "--many", "20"), ["s of CPU time", "s of CPU time", "MiB"]),
        (("scoring", "--pairs", "4", "--references", "1"), ["s of CPU time"] * 2),
    ],
)
def test_the_others_are_measured(root: Path, tmp_path: Path, command: tuple[str, ...], expected: list[str]) -> None:
    rows = rows_of(root, tmp_path / "rows.json", *command)
    assert [row["unit"] for row in rows] == expected


def test_the_baseline_prepares_the_same_rows(program: Callable[[str], ModuleType], tmp_path: Path) -> None:
    preparing = program("preparing")
    preparing.write_folder(tmp_path / "pairs", 3, (48, 32))
    ours = preparing.prepare_ours(tmp_path / "pairs", tmp_path / "ours")
    theirs = preparing.prepare_opened(tmp_path / "pairs", tmp_path / "theirs")
    preparing.check_rows(ours, theirs)
    with pytest.raises(RuntimeError, match="different rows"):
        preparing.check_rows(ours, theirs.select([0, 2, 1]))


def test_a_score_that_differs_from_the_baseline_is_an_error(program: Callable[[str], ModuleType]) -> None:
    scoring = program("scoring")
    scoring.check_scores({"CIDEr": 0.5}, {"CIDEr": 0.5 + 1e-12, "SPICE": 1.0})
    with pytest.raises(RuntimeError, match="CIDEr is 0.51, that of pycocoevalcap 0.5"):
        scoring.check_scores({"CIDEr": 0.5}, {"CIDEr": 0.51})
