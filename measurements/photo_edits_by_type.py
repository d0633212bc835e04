"""Read what the sentences of an evaluation on photo_edits state, and count what is right, by change type.

    python evaluate.py --model captioner_idc/tiny_captioner --benchmark photo_edits --output_dir runs/photo_edits-test
    python measurements/photo_edits_by_type.py runs/photo_edits-test

A sentence is read by the benchmark's own sentences (dataset_syned/photo_statements.py); one in other words states
nothing. Right are: the change types of the pair, no more and no fewer; the place of a local change; the thing of an
addition, removal or replacement by its name, by the last word of it or by one of its categories ("bird", "animal").
The table is printed, and written as by_type.json next to the predictions.
"""

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common_idc.atomic_files import write_json
from common_idc.commands import run_command
from dataset_syned import load_benchmark
from dataset_syned.cut_outs import categories_of
from dataset_syned.pairs import NO_CHANGE
from dataset_syned.photo_statements import Statement, statements
from dataset_syned.thing_names import ThingName
from metric_idc import read_predictions, read_result
from metric_idc.resampling import mean_over_seeds

THINGS = ("add", "remove", "replace")
COUNTED = ("right type", "right action", "right place", "right thing", "said unchanged")


@dataclass(frozen=True)
class Truth:
    """What was drawn: statements that would be right, and by what names each thing may be called."""

    change_types: list[str]
    units: list[dict[str, str]]
    names: set[str]


def truth_of(provenance: dict[str, Any]) -> Truth:
    """Return the truth of a pair by its provenance."""
    units, types = provenance["units"], [change["change_type"] for change in provenance["changes"]]
    names: set[str] = set()
    if units and types[0] in THINGS:
        categories = [category.text for category in categories_of(provenance["cut_outs"][0])]
        names = {units[0]["thing"], ThingName(units[0]["thing"]).head.text, *categories}
    return Truth(types or [NO_CHANGE], units, names)


def count_right(truth: Truth, stated: list[Statement]) -> dict[str, bool]:
    """Return what of a sentence is right; what the pair does not have is left out."""
    types = sorted(statement.change_type for statement in stated)
    actions = [statement.action for statement in stated]
    counted = {
        "right type": types == sorted(truth.change_types),
        "right action": actions == ([unit["action"] for unit in truth.units] or [NO_CHANGE]),
        "said unchanged": actions == [NO_CHANGE],
    }
    first = stated[0] if stated else None
    if truth.units and truth.units[0]["place"]:
        counted["right place"] = bool(first) and first.place == truth.units[0]["place"]
    if truth.names:
        counted["right thing"] = bool(first) and bool({first.thing, ThingName(first.thing).head.text} & truth.names)
    return counted


def chance(truths: list[Truth]) -> float | None:
    """Return the share of things that the best single name would get right; None if there are none."""
    named = [truth.names for truth in truths if truth.names]
    if not named:
        return None
    return Counter(name for names in named for name in names).most_common(1)[0][1] / len(named)


def share_with_interval(values: list[bool]) -> dict[str, Any]:
    """Return mean, bounds of a bootstrap over the pairs, and their number."""
    found = mean_over_seeds(np.array([values], dtype=float))  # of one model
    return {"share": found["mean"], "interval": found["interval"], "pairs": len(values)}


def summary(counted: list[dict[str, bool]]) -> dict[str, dict[str, Any]]:
    """Return the shares of several pairs."""
    values = {name: [pair[name] for pair in counted if name in pair] for name in COUNTED}
    return {name: share_with_interval(found) for name, found in values.items() if found}


def measure(folder: Path, data_dir: Path | None = None) -> dict[str, Any]:
    """Return all shares of an evaluation.

    Args:
        data_dir: the photographs, if they are not scikit-image's; the evaluation records no path.

    Raises: ValueError if it is not an evaluation on photo_edits, or not on these photographs.
    """
    signature = read_result(folder)["signature"]
    if signature.get("benchmark") != "photo_edits":
        raise ValueError(f"{str(folder)!r} is an evaluation on {signature.get('benchmark')!r}, not on photo_edits")
    options = signature["benchmark_options"] | ({"data_dir": str(data_dir)} if data_dir else {})
    rows = load_benchmark("photo_edits", signature["split"], **options)
    truths = [truth_of(json.loads(text)) for text in rows["provenance"]]
    predictions = read_predictions(folder / "predictions.jsonl")
    if [row["pair_id"] for row in predictions] != list(rows["pair_id"]):
        raise ValueError(f"{str(folder)!r} has predictions for other pairs than the benchmark has now")
    counted = [
        count_right(truth, statements(row["prediction"])) for truth, row in zip(truths, predictions, strict=True)
    ]
    groups: dict[str, list[dict[str, bool]]] = {}
    for row, pair in zip(predictions, counted, strict=True):
        groups.setdefault(row["change_type"], []).append(pair)
    changed = [pair for name, pairs in groups.items() for pair in pairs if name != NO_CHANGE]
    return {
        "all": summary(counted),
        "changed": summary(changed),
        "thing by chance": chance(truths),
        "by change type": {name: summary(pairs) for name, pairs in sorted(groups.items())},
    }


def table(result: dict[str, Any]) -> str:
    """Return the shares as a Markdown table."""
    rows = {"all": result["all"], "changed": result["changed"], **result["by change type"]}
    lines = [f"| | pairs | {' | '.join(COUNTED)} |", f"|---|{'---|' * (len(COUNTED) + 1)}"]
    for name, shares in rows.items():
        cells = [f"{shares[column]['share']:.1%}" if column in shares else "" for column in COUNTED]
        lines.append(f"| {name} | {shares['right type']['pairs']} | {' | '.join(cells)} |")
    if result["thing by chance"] is not None:
        lines += ["", f"The best single name would be the right thing in {result['thing by chance']:.1%}."]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="that evaluate.py has written")
    parser.add_argument("--data_dir", type=Path, help="photographs of the evaluation; default: scikit-image's")
    arguments = parser.parse_args(argv)

    def command() -> None:
        result = measure(arguments.folder, arguments.data_dir)
        write_json(arguments.folder / "by_type.json", result)
        print(table(result))

    return run_command(command, ValueError, OSError)


if __name__ == "__main__":
    sys.exit(main())
