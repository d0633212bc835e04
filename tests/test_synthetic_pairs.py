"""measurements/synthetic_pairs.py: its commands, its estimates, and the table in the documentation."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from program_files import load_program

from metric_idc.resampling import mean_over_seeds


@pytest.fixture(scope="module")
def experiment(root: Path) -> ModuleType:
    return load_program(root / "measurements" / "synthetic_pairs.py")


@pytest.fixture
def commands(experiment: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    given: list[tuple[str, ...]] = []
    monkeypatch.setattr(experiment, "run", lambda *arguments: given.append(arguments))
    return given


def option(command: tuple[str, ...], name: str) -> str:
    return command[command.index(name) + 1]


def test_both_arms_differ_only_in_the_adapter_they_start_from(
    experiment: ModuleType, commands: list[tuple[str, ...]], tmp_path: Path
) -> None:
    for synthetic in (False, True):
        experiment.finish(experiment.Cell(300, 2, synthetic), tmp_path, tmp_path / "data")
    alone, score, both, _ = commands
    start = ("--adapter", str(tmp_path / "real0-synthetic-2"))
    rest = [word for word in both if word not in start]
    assert both[both.index("--adapter") :][:2] == start and "--adapter" not in alone
    assert [word.replace("synthetic", "alone") for word in rest] == list(alone)
    assert json.loads(option(alone, "--benchmark_options")) == {"train": 300, "validation": 100, "seed": 2}
    assert int(option(alone, "--epochs")) == 26  # of 10 steps each
    assert option(score, "--benchmark") == "toy" and "--benchmark_options" not in score


def test_prerequisites_are_trained_first_and_nothing_twice(
    experiment: ModuleType, commands: list[tuple[str, ...]], tmp_path: Path
) -> None:
    cells = [experiment.Cell(real, 1, arm) for real in (100, 0) for arm in (True, False)]
    done = tmp_path / cells[0].name / "eval" / "toy-test"
    done.mkdir(parents=True)
    (done / "metrics.json").write_text("{}")
    experiment.finish_all(cells, tmp_path, tmp_path / "data", jobs=1)
    trained = [Path(option(command, "--output_dir")).name for command in commands if command[0] == "train.py"]
    assert trained == ["real0-synthetic-1", "real100-alone-1"]
    assert option(commands[0], "--benchmark_options") == json.dumps({"data_dir": str(tmp_path / "data")})


def test_a_failed_command_is_reported_with_its_error(experiment: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="(?s)`evaluate.py .*` ended with code 2.*--model or --adapter is missing"):
        experiment.run("evaluate.py", "--benchmark", "toy")


def test_intervals_are_over_seeds_and_pairs() -> None:
    pairs = np.random.default_rng(1).normal(size=400)
    among_pairs = mean_over_seeds(np.array([pairs, pairs, pairs]))
    both = mean_over_seeds(np.array([pairs - 1, pairs, pairs + 1]))
    width = {
        name: result["interval"][1] - result["interval"][0]
        for name, result in (("pairs", among_pairs), ("both", both))
    }
    assert width["pairs"] == pytest.approx(2 * 1.96 * pairs.std() / 20, rel=0.1) and width["both"] > 5 * width["pairs"]
    assert both["mean"] == pytest.approx(pairs.mean()) and both["interval"][0] < both["mean"] < both["interval"][1]
    assert both["seeds"] == pytest.approx([pairs.mean() - 1, pairs.mean(), pairs.mean() + 1])


def test_the_documentation_shows_the_measured_table(experiment: ModuleType, root: Path, tmp_path: Path) -> None:
    rows = json.loads((root / "docs" / "results" / "synthetic_pairs" / "results.json").read_text())
    start, end = experiment.MARKS
    documentation = (root / "docs" / "synthesis.md").read_text(encoding="utf-8")
    assert documentation.split(start)[1].split(end)[0].strip() == experiment.table_of(rows)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{start}\nold\n{end}\nafter\n")
    experiment.renew_table(page, "| new |", experiment.MARKS)
    assert page.read_text() == f"before\n{start}\n| new |\n{end}\nafter\n"
    experiment.draw(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000
