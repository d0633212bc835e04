"""Scores of the runs of early_attention.py, differences between them, tables, and the plot of the curves."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dataset_syned.pairs import NO_CHANGE
from dataset_syned.photo_statements import statements
from metric_idc import best_constant_caption, segment_scores, stated_change_type
from metric_idc.resampling import mean_over_seeds

Row = dict[str, Any]
Changes = list[tuple[str, str]]  # change type and place, "" where a sentence names none

PAGE_MARKS = ("<!-- early attention: generated -->", "<!-- early attention: end -->")
SHARE_MARKS = ("<!-- unchanged pairs: generated -->", "<!-- unchanged pairs: end -->")
SCORES = ("CIDEr", "right change type", "right place", "unchanged recognized", "change missed")
COLORS = {"joint": "#1f5fa8", "vision_apart": "#c2571a", "streams_apart": "#3d8a4a"}
CURVES = {"validation_loss": "validation loss", "right_change_type": "right change type, validation pairs"}
CONSTANT_FROM = 2000  # training pairs whose captions may be the constant caption


def toy_changes(sentence: str) -> Changes:
    return [(stated_change_type(sentence), "")]


def photo_changes(sentence: str) -> Changes:
    return sorted((statement.change_type, statement.place) for statement in statements(sentence))


# Benchmark -> the changes that a sentence in its wording states.
BENCHMARKS: dict[str, Callable[[str], Changes]] = {"toy": toy_changes, "photo_edits": photo_changes}


def change_types(changes: Changes) -> list[str]:
    return [change_type for change_type, _ in changes]


def right_change_types(benchmark: str, sentences: list[str], references: list[str]) -> np.ndarray:
    """Return 1 for each sentence that states exactly the change types of its reference, else 0."""
    read = BENCHMARKS[benchmark]
    pairs = zip(sentences, references, strict=True)
    return np.array([float(change_types(read(said)) == change_types(read(true))) for said, true in pairs])


def score_pairs(benchmark: str, rows: list[Row]) -> dict[str, np.ndarray]:
    """Return the SCORES of each pair, [pairs]; nan where one does not apply, e.g. a place where everything changed."""
    read = BENCHMARKS[benchmark]
    scores = np.full((len(SCORES), len(rows)), np.nan)
    scores[0] = [score["CIDEr"] for score in segment_scores(rows, ["CIDEr"])]
    sentences, references = [row["prediction"] for row in rows], [row["references"][0] for row in rows]
    scores[1] = right_change_types(benchmark, sentences, references)
    for index, texts in enumerate(zip(sentences, references, strict=True)):
        said, true = map(read, texts)
        if len(true) == 1 and true[0][1]:
            scores[2, index] = [place for _, place in said] == [true[0][1]]
        denied = change_types(said) == [NO_CHANGE]
        scores[3 if change_types(true) == [NO_CHANGE] else 4, index] = denied
    return dict(zip(SCORES, scores, strict=True))


def score_runs(benchmark: str, runs: list[list[Row]]) -> dict[str, np.ndarray]:
    """Return the SCORES of runs with several seeds, [seeds, pairs]."""
    scored = [score_pairs(benchmark, rows) for rows in runs]
    return {name: np.array([scores[name] for scores in scored]) for name in SCORES}


def estimates(scores: dict[str, np.ndarray]) -> dict[str, dict]:
    """Return means and intervals of the scores that apply to any pair."""
    kept = {name: values[:, ~np.isnan(values[0])] for name, values in scores.items()}
    return {name: mean_over_seeds(values) for name, values in kept.items() if values.size}


def per_change_type(scores: dict[str, np.ndarray], rows: list[Row]) -> dict[str, float]:
    """Return the mean share of right change types, by the change type of the pairs."""
    types = np.array([row["change_type"] for row in rows])
    return {name: float(scores["right change type"][:, types == name].mean()) for name in sorted(set(types))}


def compare_arms(
    benchmark: str, runs: dict[str, tuple[list[list[Row]], list[dict]]], captions: list[list[str]]
) -> dict[str, Any]:
    """Return the scores of all arms, their differences pair by pair and seed by seed, and the learning curves.

    Args:
        runs: predictions and results of each seed, by arm.
        captions: of the training pairs, one of which is the best constant caption.
    """
    scores = {arm: score_runs(benchmark, predictions) for arm, (predictions, _) in runs.items()}
    rows = next(iter(runs.values()))[0][0]
    constant = best_constant_caption(captions[:CONSTANT_FROM])
    fixed = score_runs(benchmark, [[{**row, "prediction": constant} for row in rows]])
    differences = {
        f"{first} minus {second}": {name: scores[first][name] - scores[second][name] for name in SCORES}
        for first, second in itertools.combinations(runs, 2)
    }
    return {
        "pairs": len(rows),
        "steps": next(iter(runs.values()))[1][0]["curve"][-1]["step"],
        "parameters": {arm: results[0]["parameters"] for arm, (_, results) in runs.items()},
        "seconds_per_step": {arm: mean_seconds(results) for arm, (_, results) in runs.items()},
        "scores": {arm: estimates(values) for arm, values in scores.items()},
        "differences": {name: estimates(values) for name, values in differences.items()},
        "constant_caption": {"caption": constant, "scores": estimates(fixed)},
        "per_change_type": {arm: per_change_type(values, rows) for arm, values in scores.items()},
        "pairs_per_change_type": count_change_types(rows),
        "curves": {arm: [result["curve"] for result in results] for arm, (_, results) in runs.items()},
    }


def mean_seconds(results: list[dict]) -> float:
    return float(np.mean([result["seconds_per_step"] for result in results]))


def count_change_types(rows: list[Row]) -> dict[str, int]:
    types = [row["change_type"] for row in rows]
    return {name: types.count(name) for name in sorted(set(types))}


def compare_shares(shares: tuple[tuple[float, bool], ...], runs: list[list[list[Row]]]) -> list[dict[str, Any]]:
    """Return the scores for each share of unchanged training pairs."""
    return [
        {"unchanged": unchanged, "distractors": distractors, "scores": estimates(score_runs("photo_edits", one))}
        for (unchanged, distractors), one in zip(shares, runs, strict=True)
    ]


def cells(scores: dict[str, dict], sign: str = "") -> list[str]:
    """Return the scores as cells of a table, "" for one that does not apply."""
    return [format_estimate(scores[name], sign) if name in scores else "" for name in SCORES]


def format_estimate(estimate: dict, sign: str = "") -> str:
    low, high = estimate["interval"]
    return f"{estimate['mean']:{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(name: str) -> str:
    return name.replace("_", " ")


def arms_table(results: dict[str, Any]) -> str:
    """Return the tables of all benchmarks in Markdown."""
    return "\n\n".join(
        f"{benchmark}, {found['pairs']:,} test pairs, {found['steps']:,} steps of "
        f"{results['settings']['batch']} pairs, {len(next(iter(found['curves'].values())))} seeds:\n\n"
        f"{scores_table(found)}\n\nRight change type by change type:\n\n{change_types_table(found)}"
        for benchmark, found in results["benchmarks"].items()
    )


def scores_table(found: dict[str, Any]) -> str:
    rows = [[plain(arm), *cells(scores)] for arm, scores in found["scores"].items()]
    rows += [[plain(name), *cells(scores, "+")] for name, scores in found["differences"].items()]
    constant = found["constant_caption"]
    rows.append([f'always "{constant["caption"]}"', *cells(constant["scores"])])
    return markdown(["attention", *SCORES], rows)


def change_types_table(found: dict[str, Any]) -> str:
    shares = found["per_change_type"]
    rows = [
        [name, f"{count:,}", *(f"{shares[arm][name]:.2f}" for arm in shares)]
        for name, count in found["pairs_per_change_type"].items()
    ]
    return markdown(["change type", "pairs", *map(plain, shares)], rows)


def shares_table(results: dict[str, Any]) -> str:
    """Return the table of shares of unchanged training pairs in Markdown."""
    rows = [
        [f"{row['unchanged']:.0%}", "yes" if row["distractors"] else "no", *cells(row["scores"])]
        for row in results["shares"]
    ]
    return markdown(["unchanged in training", "distractors in training", *SCORES], rows)


def draw_curves(found: dict[str, Any], path: Any) -> None:
    """Draw the learning curves: means over seeds, and their spread from lowest to highest."""
    figure = Figure(figsize=(4.8 * len(CURVES), 3.2 * len(found)), layout="constrained")
    grid = figure.subplots(len(found), len(CURVES), squeeze=False)
    for line, (benchmark, result) in zip(grid, found.items(), strict=True):
        for axes, (name, title) in zip(line, CURVES.items(), strict=True):
            for arm, curves in result["curves"].items():
                draw_arm(axes, curves, name, arm)
            axes.set_title(f"{benchmark}: {title}", fontsize=10)
            axes.set_xlabel("step")
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", alpha=0.3)
    grid[0, -1].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def draw_arm(axes: Axes, curves: list[list[dict]], name: str, arm: str) -> None:
    steps = [point["step"] for point in curves[0]]
    values = np.array([[point[name] for point in curve] for curve in curves])  # [seeds, points]
    axes.plot(steps, values.mean(axis=0), color=COLORS[arm], label=plain(arm))
    axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=COLORS[arm], alpha=0.15, linewidth=0)
