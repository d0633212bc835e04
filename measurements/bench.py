"""Speed as ratios against named baselines: run all measurements, and write the tables of docs and README.

    python measurements/bench.py                       # all, in less than 15 minutes (make bench)
    python measurements/bench.py --only input_path     # one; the rows of the others stay as they are

Each measurement is a program of its own on one core, run alone: close other programs first. Rows, machine and versions
go to docs/results/speed/speed.json; if a measurement fails, its earlier rows stay.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from paired import Row, is_met

from common_idc.atomic_files import write_json
from common_idc.commands import run_command
from common_idc.provenance import code_commit, library_versions
from metric_idc.comparison import renew_table

ROOT = Path(__file__).resolve().parents[1]
MEASUREMENTS = {
    "input_path": "Image files to tensors",
    "training_step": "Training step",
    "generation": "Generation and evaluation",
    "scoring": "Scoring",
    "preparing": "Preparing data",
    "drawing": "Drawing toy pairs",
}
# Rows of the README's table, by how they begin; those that have goals.
HEADLINES = (
    *("pair to pixel values, JPEG of quality 75, 1024 px", "pair to pixel values, PNG, 1024 px"),
    *("training step, float32", "training step, bfloat16", "captions, input controls and probability of a change"),
)
RESULTS = ROOT / "docs" / "results" / "speed" / "speed.json"
MARKS = ("<!-- speed: generated -->", "<!-- speed: end -->")
ONE_CORE = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

Results = dict[str, dict[str, Any]]


def machine() -> dict[str, Any]:
    """Return processor, cores, versions and commit."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    versions = library_versions("torch", "transformers", "peft", "datasets", "pillow", "numpy")
    return {
        **{"processor": cpu, "cores": os.cpu_count(), "python": platform.python_version()},
        **{"versions": versions, "commit": code_commit()},
    }


def measure(name: str) -> dict[str, Any] | None:
    """Run a measurement and return its rows with machine and minutes; None if it failed, which is said."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "rows.json"
        command = [sys.executable, str(ROOT / "measurements" / f"{name}.py"), "--output", str(output)]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **ONE_CORE})
        if done.returncode or not output.is_file():
            print(f"{name} failed with code {done.returncode}: its earlier rows stay", file=sys.stderr)
            return None
        rows = json.loads(output.read_text(encoding="utf-8"))
    return {**machine(), "minutes": round((time.monotonic() - started) / 60, 1), "rows": rows}


def cells(row: Row) -> list[str]:
    """Return the cells of a table for a row: what, ratio with spread, goal, medians, baseline."""
    ratio = f"{row['ratio']:.2f} [{row['lowest']:.2f}, {row['highest']:.2f}]"
    goal = "" if row["goal"] is None else f"{row['goal_kind']} {row['goal']:g}{'' if is_met(row) else ' (missed)'}"
    medians = f"{row['baseline_median']:.3g} / {row['ours_median']:.3g} {row['unit']}"
    return [row["what"], ratio, goal, medians, row["baseline"]]


def table(results: Results) -> str:
    """Return the Markdown table of all measurements, each with its machine."""
    lines = []
    for name, title in MEASUREMENTS.items():
        if name in results:
            lines += ["", f"**{title}** (`measurements/{name}.py`)", ""]
            lines += ["| | ratio [lowest, highest] | goal | baseline / ours | baseline |", "|---|---|---|---|---|"]
            lines += [f"| {' | '.join(cells(row))} |" for row in results[name]["rows"]]
    lines += ["", *dict.fromkeys(described_machine(found) for found in results.values())]
    return "\n".join(lines).strip()


def short_table(results: Results) -> str:
    """Return the table of the README, of HEADLINES."""
    rows = [row for name in MEASUREMENTS if name in results for row in results[name]["rows"]]
    chosen = [row for row in rows if row["what"].startswith(HEADLINES) and row["goal"] is not None]
    lines = [f"| {' | '.join(cells(row)[:3])} |" for row in chosen]
    return "\n".join(["| | ratio [lowest, highest] | goal |", "|---|---|---|", *lines])


def described_machine(found: dict[str, Any]) -> str:
    """Return machine and versions of a measurement as a sentence."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return f"{found['processor']}, one of {found['cores']} cores, Python {found['python']}, {versions}."


def run(arguments: argparse.Namespace) -> None:
    """Run the measurements and write their rows and tables. Raises: RuntimeError if one has failed."""
    results: Results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    failed = []
    for name in arguments.only:
        found = measure(name)
        if found is None:
            failed.append(name)
            continue
        results[name] = found
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        write_json(RESULTS, results)
    renew_table(ROOT / "docs" / "speed.md", table(results), MARKS)
    renew_table(ROOT / "README.md", short_table(results), MARKS)
    if failed:
        raise RuntimeError(f"failed: {', '.join(failed)}; correct what is named above and run them with --only")


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=list(MEASUREMENTS), default=list(MEASUREMENTS), help="default: all"
    )
    arguments = parser.parse_args(argv)
    return run_command(lambda: run(arguments), ValueError, OSError, RuntimeError)


if __name__ == "__main__":
    sys.exit(main())
