"""Measure whether synthetic pairs help where real ones are few: the paper's question, at a size that fits a CPU.

    python measurements/synthetic_pairs.py                                           # about an hour on two cores
    python measurements/synthetic_pairs.py --real 100 --seeds 1 --synthetic 300      # a quick look

Toy pairs stand for the real ones. The synthetic pairs are made by `synthesize` from toy scenes of another look, with
the wording of edit instructions. Per number of real pairs and per seed, which draws other real pairs, an adapter of
the tiny captioner is trained twice by the same recipe: from scratch, and from the adapter that the synthetic pairs
gave. All are scored on the toy benchmark's own test split. Table and plot go to docs/, the runs stay in runs/; the
same command continues where it was stopped.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

from metric_idc import read_predictions, segment_scores, stated_change_type
from metric_idc.comparison import renew_table
from metric_idc.resampling import mean_over_seeds

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG = "configs/toy.yaml"
ARMS = ("real only", "synthetic first")
SCORES = ("CIDEr", "right change type")
STEPS = 256  # of each training on real pairs, whatever their number; validation loss is flat by then
PRETRAINING_EPOCHS = 4
BATCH = 32
VALIDATION = 100
MARKS = ("<!-- synthetic pairs: generated -->", "<!-- synthetic pairs: end -->")


@dataclass(frozen=True)
class Cell:
    """One trained and scored adapter; `real` 0 with synthetic pairs is the adapter that these alone gave."""

    real: int
    seed: int
    synthetic: bool

    @property
    def name(self) -> str:
        return f"real{self.real}-{'synthetic' if self.synthetic else 'alone'}-{self.seed}"


def run(*arguments: str) -> None:
    """Run a command of this repository on one thread, because several run in parallel. Raises: RuntimeError."""
    environment, command = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}, [sys.executable, *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(arguments)}` ended with code {done.returncode}:\n{done.stderr[-2000:]}")


def make_synthetic(folder: Path, pairs: int) -> Path:
    """Make a data folder with about `pairs` synthetic training pairs, and a tenth for validation."""
    data = folder / "synthetic"
    data.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", pairs), ("validation", pairs // 10)):
        made = folder / f"synthesis-{split}"
        options = json.dumps({"look": "studio", "wording": "instruction", "seed": 7, split: count})
        settings = ["--split", split, "--output_dir", str(made), "--benchmark_options", options]
        run("-m", "dataset_syned", "synthesize", "--config", "configs/synthesis/toy.yaml", *settings)
        if not (data / split).exists():
            (data / split).symlink_to(Path("..") / made.name / "dataset")
    run("-m", "dataset_syned", "prepare", "folder", "--data_dir", str(data))
    return data


def train(cell: Cell, folder: Path, data: Path) -> None:
    options = ["--seed", str(cell.seed), "--best_by", "loss", "--validation_captions", "0", "--warmup_steps", "20"]
    if cell.real:
        epochs = round(STEPS / -(-cell.real // BATCH))
        drawn = {"train": cell.real, "validation": VALIDATION, "seed": cell.seed}
        options += ["--benchmark_options", json.dumps(drawn)]
        if cell.synthetic:
            options += ["--adapter", str(folder / Cell(0, cell.seed, True).name)]
    else:
        epochs = PRETRAINING_EPOCHS
        options += ["--benchmark", "folder", "--benchmark_options", json.dumps({"data_dir": str(data)})]
    options += ["--epochs", str(epochs), "--patience", str(epochs), "--output_dir", str(folder / cell.name)]
    run("train.py", "--config", CONFIG, "--resume", *options)


def finish(cell: Cell, folder: Path, data: Path) -> None:
    """Train and score a cell, unless that is done."""
    results = folder / cell.name / "eval" / "toy-test"
    if (results / "metrics.json").is_file():
        return
    model = ["--model", "captioner_idc/tiny_captioner"]
    if cell.real or cell.synthetic:
        train(cell, folder, data)
        model = ["--adapter", str(folder / cell.name)]
    run("evaluate.py", *model, "--benchmark", "toy", "--input_controls", "False", "--output_dir", str(results))


def finish_all(cells: list[Cell], folder: Path, data: Path, jobs: int) -> None:
    """Finish all cells; those that others start from come first."""
    with tqdm(total=len(cells), unit="run", desc="train and score") as bar, ThreadPoolExecutor(jobs) as pool:
        for stage in (True, False):
            for _ in pool.map(lambda cell: finish(cell, folder, data), [c for c in cells if (c.real == 0) == stage]):
                bar.update()


def scores_of(cells: list[Cell], folder: Path) -> dict[str, np.ndarray]:
    """Return each test pair's CIDEr and whether the sentence states its change type, [cells, pairs].

    Both, because CIDEr is high where the right thing is named with a wrong change.
    """
    files = [folder / cell.name / "eval" / "toy-test" / "predictions.jsonl" for cell in cells]
    rows = [read_predictions(file) for file in files]
    cider = [[one["CIDEr"] for one in segment_scores(each, ["CIDEr"])] for each in rows]
    change_types = [
        [float(stated_change_type(row["prediction"]) == row["change_type"]) for row in each] for each in rows
    ]
    return dict(zip(SCORES, (np.array(cider), np.array(change_types)), strict=True))


def summarize(real: list[int], seeds: list[int], folder: Path) -> list[dict]:
    """Return, per number of real pairs and score, both arms and their difference, seed by seed and pair by pair."""
    rows = []
    for count in real:
        alone, both = (scores_of([Cell(count, seed, arm) for seed in seeds], folder) for arm in (False, True))
        row = {
            score: {
                **dict(zip(ARMS, (mean_over_seeds(alone[score]), mean_over_seeds(both[score])), strict=True)),
                "gain": mean_over_seeds(both[score] - alone[score]),
            }
            for score in SCORES
        }
        rows.append({"real_pairs": count, **row})
    return rows


def told(one: dict, sign: str = "") -> str:
    low, high = one["interval"]
    return f"{one['mean']:{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]"


def table_of(rows: list[dict]) -> str:
    columns = [f"{score}: {column}" for score in SCORES for column in (*ARMS, "gain")]
    lines = [f"| real pairs | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        cells = [told(row[score][column], "+" * (column == "gain")) for score in SCORES for column in (*ARMS, "gain")]
        lines.append(f"| {row['real_pairs']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: list[dict], path: Path) -> None:
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    for axes, score in zip(figure.subplots(1, len(SCORES)), SCORES, strict=True):
        for arm, shift, color in zip(ARMS, (-0.04, 0.04), ("#c2571a", "#1f5fa8"), strict=True):
            draw_arm(axes, [row[score][arm] for row in rows], shift, arm, color)
        axes.set_xticks(range(len(rows)), [f"{row['real_pairs']:,}" for row in rows])
        axes.set_xlabel("real training pairs")
        axes.set_title(f"{score}, 1,000 test pairs", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)


def draw_arm(axes: Axes, estimates: list[dict], shift: float, label: str, color: str) -> None:
    """Draw means with their intervals, and each seed as a small dot."""
    places = np.arange(len(estimates)) + shift
    means = np.array([one["mean"] for one in estimates])
    reach = np.abs(np.array([one["interval"] for one in estimates]).T - means)
    axes.errorbar(places, means, yerr=reach, color=color, marker="o", capsize=3, label=label)
    for place, one in zip(places, estimates, strict=True):
        axes.scatter([place] * len(one["seeds"]), one["seeds"], s=9, color=color, alpha=0.4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--real", type=int, nargs="+", default=[100, 300, 1000], help="numbers of real pairs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="each draws other real pairs")
    parser.add_argument("--synthetic", type=int, default=3000, help="synthetic pairs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side, one thread each")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "runs" / "synthetic-pairs", help="of all runs")
    parser.add_argument("--page", type=Path, help="Markdown file in which the table between its marks is renewed")
    parser.add_argument("--results", type=Path, help="folder for results.json; default: the folder of the runs")
    parser.add_argument("--plot", type=Path, help="PNG; default: next to results.json")
    arguments = parser.parse_args()
    # by their number, since what is there is not made again
    folder, real = arguments.folder.resolve() / f"{arguments.synthetic}-synthetic", [0, *arguments.real]
    data = make_synthetic(folder, arguments.synthetic)
    cells = [Cell(count, seed, arm) for count in real for seed in arguments.seeds for arm in (False, True)]
    finish_all(cells, folder, data, arguments.jobs)
    rows = summarize(real, arguments.seeds, folder)
    table, results = table_of(rows), arguments.results or folder
    results.mkdir(parents=True, exist_ok=True)
    (results / "results.json").write_text(json.dumps(rows, indent=2) + "\n")
    draw(rows, arguments.plot or results / "synthetic_pairs.png")
    if arguments.page:
        renew_table(arguments.page, table, MARKS)
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
