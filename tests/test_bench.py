"""measurements/paired.py and bench.py: ratios of paired repeats, and the tables made of them."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from program_files import load_program


@pytest.fixture(scope="module")
def paired(root: Path) -> ModuleType:
    return load_program(root / "measurements" / "paired.py", "paired")


@pytest.fixture
def bench(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the program, working on a copy of the repository's places that it reads and writes."""
    monkeypatch.setitem(sys.modules, "paired", load_program(root / "measurements" / "paired.py", "paired"))
    program = load_program(root / "measurements" / "bench.py", "bench")
    monkeypatch.setattr(program, "ROOT", tmp_path)
    monkeypatch.setattr(program, "HEADLINES", ("scoring of", "drawing of"))
    monkeypatch.setattr(program, "RESULTS", tmp_path / "docs" / "results" / "speed" / "speed.json")
    (tmp_path / "docs").mkdir()
    for page in (tmp_path / "README.md", tmp_path / "docs" / "speed.md"):
        page.write_text("above\n" + "\n".join(program.MARKS) + "\nbelow\n")
    (tmp_path / "measurements").mkdir()
    for name in program.MEASUREMENTS:
        write_measurement(tmp_path, name, ratio=2.0)
    return program


def write_measurement(root: Path, name: str, ratio: float) -> None:
    """Write a program that writes one row, as a measurement does."""
    row = {
        **{"what": f"{name} of a pair", "baseline": "slow", "unit": "s", "baseline_median": 3.0, "ours_median": 1.5},
        **{"ratio": ratio, "lowest": 1.9, "highest": 2.1, "repeats": 5, "goal": 3.0, "goal_kind": "at least"},
    }
    code = f"import sys\nfrom pathlib import Path\nPath(sys.argv[2]).write_text({json.dumps([row])!r})\n"
    (root / "measurements" / f"{name}.py").write_text(code)


def test_a_ratio_is_the_median_of_the_pairs(paired: ModuleType) -> None:
    row = paired.ratio_row("x", "slow", [(6.0, 2.0), (4.0, 2.0), (10.0, 2.0)], at_least=3.0)
    assert (row["ratio"], row["lowest"], row["highest"], row["repeats"]) == (3.0, 2.0, 5.0, 3)
    assert (row["baseline_median"], row["ours_median"]) == (6.0, 2.0) and paired.is_met(row)
    assert paired.described(row) == ("x: 3 [2, 5] (baseline: slow, 6 against 2 s of CPU time), goal at least 3")
    share = paired.ratio_row("x", "slow", [(10.0, 5.0), (10.0, 7.0)], at_most=0.5)
    assert share["ratio"] == pytest.approx(0.6) and not paired.is_met(share)
    assert paired.is_met(paired.ratio_row("x", "slow", [(1.0, 1.0)])) is None


def test_both_are_run_in_turn_after_one_run_unmeasured(paired: ModuleType) -> None:
    calls: list[str] = []
    times = iter(range(100))
    row = paired.compare(
        "x", "slow", lambda: calls.append("theirs"), lambda: calls.append("ours"), repeats=3, clock=lambda: next(times)
    )
    assert calls == ["theirs", "ours"] * 4 and row["ratio"] == 1.0 and row["repeats"] == 3


def test_all_measurements_get_into_the_tables(bench: ModuleType, tmp_path: Path) -> None:
    assert bench.main([]) == 0
    results = json.loads(bench.RESULTS.read_text())
    assert list(results) == list(bench.MEASUREMENTS)
    assert all(found["versions"]["torch"] and found["processor"] for found in results.values())
    page, readme = (tmp_path / "docs" / "speed.md").read_text(), (tmp_path / "README.md").read_text()
    for name in bench.MEASUREMENTS:
        row = f"| {name} of a pair | 2.00 [1.90, 2.10] | at least 3 (missed) |"
        assert f"{row} 3 / 1.5 s | slow |" in page
        assert (row in readme) == (name in ("scoring", "drawing"))
    assert readme.startswith("above\n") and readme.endswith("\nbelow\n")


def test_earlier_rows_stay_beside_a_new_one_and_when_a_measurement_fails(
    bench: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert bench.main([]) == 0
    write_measurement(tmp_path, "scoring", ratio=4.0)
    (tmp_path / "measurements" / "drawing.py").write_text("import sys\nsys.exit(3)\n")
    assert bench.main(["--only", "scoring", "drawing"]) == 2
    assert "drawing failed with code 3" in capfd.readouterr().err
    ratios = {name: found["rows"][0]["ratio"] for name, found in json.loads(bench.RESULTS.read_text()).items()}
    assert ratios == dict.fromkeys(bench.MEASUREMENTS, 2.0) | {"scoring": 4.0}
    assert "| scoring of a pair | 4.00 [1.90, 2.10] | at least 3 |" in (tmp_path / "README.md").read_text()


def test_every_measurement_is_a_program(root: Path, bench: ModuleType) -> None:
    assert all((root / "measurements" / f"{name}.py").is_file() for name in bench.MEASUREMENTS)


def test_the_tables_are_those_of_the_results(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "paired", load_program(root / "measurements" / "paired.py", "paired"))
    bench = load_program(root / "measurements" / "bench.py", "bench")
    results = json.loads(bench.RESULTS.read_text(encoding="utf-8"))
    assert list(results) == list(bench.MEASUREMENTS)
    assert bench.short_table(results).count("\n") == 1 + len(bench.HEADLINES)
    for page, made in (("docs/speed.md", bench.table(results)), ("README.md", bench.short_table(results))):
        start, end = bench.MARKS
        assert f"{start}\n{made}\n{end}" in (root / page).read_text(encoding="utf-8"), page
