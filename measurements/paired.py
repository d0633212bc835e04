"""Ratios against a named baseline: both are timed in turn, several times, in one process and on one core.

A row of a measurement says what was measured, the medians of both, the median of the ratios of each repeat with the
lowest and the highest, and the goal. `python measurements/bench.py` collects the rows of all measurements.
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

REPEATS = 5

Row = dict[str, Any]


def ratio_row(
    what: str,
    baseline: str,
    pairs: list[tuple[float, float]],
    unit: str = "s of CPU time",
    at_least: float | None = None,
    at_most: float | None = None,
) -> Row:
    """Return the row of repeated pairs of (baseline, ours).

    With the goal `at_least`, the ratio says how many times less ours needs (baseline / ours, a speed-up); with
    `at_most`, which share of the baseline it needs (ours / baseline).

    Args:
        what: e.g. "pair to tensors, JPEG of 1024 px".
        unit: of the two medians.
    """
    ratios = [ours / theirs if at_most is not None else theirs / ours for theirs, ours in pairs]
    goal = at_most if at_most is not None else at_least
    return {
        "what": what,
        "baseline": baseline,
        "unit": unit,
        "baseline_median": statistics.median(theirs for theirs, _ in pairs),
        "ours_median": statistics.median(ours for _, ours in pairs),
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "repeats": len(pairs),
        "goal": goal,
        "goal_kind": None if goal is None else "at most" if at_most is not None else "at least",
    }


def compare(
    what: str,
    baseline: str,
    theirs: Callable[[], Any],
    ours: Callable[[], Any],
    at_least: float | None = None,
    repeats: int = REPEATS,
    clock: Callable[[], float] = time.process_time,
) -> Row:
    """Run both once unmeasured and then in turn, and return the row of their times.

    Args:
        clock: seconds; by default the CPU time of this process, which other programs on the machine disturb least.
    """
    theirs(), ours()
    pairs = []
    for _ in tqdm(range(repeats), desc=what, leave=False):
        pairs.append((_timed(theirs, clock), _timed(ours, clock)))
    return ratio_row(what, baseline, pairs, at_least=at_least)


def _timed(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    gc.collect()
    started = clock()
    run()
    return clock() - started


def is_met(row: Row) -> bool | None:
    """Return whether a row meets its goal; None if it has none."""
    if row["goal"] is None:
        return None
    return row["ratio"] <= row["goal"] if row["goal_kind"] == "at most" else row["ratio"] >= row["goal"]


def described(row: Row) -> str:
    """Return a row as a line for people."""
    goal = f", goal {row['goal_kind']} {row['goal']:g}" if row["goal"] is not None else ""
    return (
        f"{row['what']}: {row['ratio']:.3g} [{row['lowest']:.3g}, {row['highest']:.3g}] (baseline: {row['baseline']}, "
        f"{row['baseline_median']:.4g} against {row['ours_median']:.4g} {row['unit']}){goal}"
    )


def run_measurement(measure: Callable[[argparse.Namespace], list[Row]], parser: argparse.ArgumentParser) -> int:
    """Run a measurement program: print its rows, and write them where --output says.

    Args:
        parser: of the measurement's own options.
    """
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write the rows here as well")
    arguments = parser.parse_args()
    rows = measure(arguments)
    for row in rows:
        print(described(row))
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0
