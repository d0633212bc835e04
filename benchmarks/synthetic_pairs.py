"""Do synthetic pairs help where real ones are few? The question of the paper, at the size that runs on a CPU.

    python benchmarks/synthetic_pairs.py                                           # about an hour on two cores
    python benchmarks/synthetic_pairs.py --real 100 --seeds 1 --synthetic 300      # a quick look

Toy pairs stand for the real ones. The synthetic pairs are made by `synthesize` from toy scenes of another look, with
the wording of edit instructions. Per number of real pairs and per seed, which draws other real pairs, an adapter of
the tiny captioner is trained twice by the same recipe: from scratch, and from the adapter that the synthetic pairs
gave. All are scored on the toy benchmark's own test split. Table and plot go to docs/, the runs stay in runs/; the
same command goes on where it was stopped.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from metric_idc import read_predictions, segment_scores

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG = "configs/toy.yaml"
ARMS = ("real only", "synthetic first")
STEPS = 256  # of each training on real pairs, whatever their number; validation loss is flat by then
PRETRAINING_EPOCHS = 4
BATCH = 32
VALIDATION = 100
MARKS = ("<!-- synthetic pairs: generated -->", "<!-- synthetic pairs: end -->")
RESAMPLES = 2000


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
    """A command of this repository, on one thread, because several run side by side. Raises: RuntimeError."""
    environment, command = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}, [sys.executable, *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(arguments)}` ended with code {done.returncode}:\n{done.stderr[-2000:]}")


def make_synthetic(folder: Path, pairs: int) -> Path:
    """A data folder with `pairs` synthetic training pairs, or a few less or more, and a tenth for validation."""
    data = folder / "synthetic"
    data.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", pairs), ("validation", pairs // 10)):
        made = folder / f"synthesis-{split}"
        options = json.dumps({"look": "studio", "wording": "instruction", "seed": 7, split: count})
        settings = ["--split", split, "--output_dir", str(made), "--benchmark_options", options]
        run("-m", "dataset_syned", "synthesize", "--config", "configs/synthesis/toy.yaml", *settings)
        if not (data / split).exists():
            (data / split).symlink_to((made / "dataset").resolve())
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
    """Trains and scores a cell, unless that is done."""
    results = folder / cell.name / "eval" / "toy-test"
    if (results / "metrics.json").is_file():
        return
    model = ["--model", "checkpoints/tiny-blip2"]
    if cell.real or cell.synthetic:
        train(cell, folder, data)
        model = ["--adapter", str(folder / cell.name)]
    run("evaluate.py", *model, "--benchmark", "toy", "--input_controls", "False", "--output_dir", str(results))


def finish_all(cells: list[Cell], folder: Path, data: Path, jobs: int) -> None:
    """What others start from comes first."""
    with tqdm(total=len(cells), unit="run", desc="train and score") as bar, ThreadPoolExecutor(jobs) as pool:
        for stage in (True, False):
            for _ in pool.map(lambda cell: finish(cell, folder, data), [c for c in cells if (c.real == 0) == stage]):
                bar.update()


def cider_of(cells: list[Cell], folder: Path) -> np.ndarray:
    """CIDEr of each test pair, [cells, pairs]; its mean over pairs is the score."""
    files = [folder / cell.name / "eval" / "toy-test" / "predictions.jsonl" for cell in cells]
    return np.array([[one["CIDEr"] for one in segment_scores(read_predictions(file), ["CIDEr"])] for file in files])


def estimate(values: np.ndarray) -> dict[str, float | list[float]]:
    """Mean of [seeds, pairs], with the middle 95 % of a bootstrap over both."""
    random, (seeds, pairs) = np.random.default_rng(0), values.shape
    draws = [
        values[random.integers(seeds, size=seeds)][:, random.integers(pairs, size=pairs)].mean()
        for _ in range(RESAMPLES)
    ]
    return {
        "mean": float(values.mean()),
        "interval": [float(bound) for bound in np.percentile(draws, [2.5, 97.5])],
        "seeds": values.mean(axis=1).tolist(),
    }


def summarize(real: list[int], seeds: list[int], folder: Path) -> list[dict]:
    """Per number of real pairs both arms and their difference, seed by seed and pair by pair."""
    rows = []
    for count in real:
        alone, both = (cider_of([Cell(count, seed, arm) for seed in seeds], folder) for arm in (False, True))
        pairs = dict(zip(ARMS, (estimate(alone), estimate(both)), strict=True))
        rows.append({"real_pairs": count, **pairs, "gain": estimate(both - alone)})
    return rows


def told(one: dict, sign: str = "") -> str:
    low, high = one["interval"]
    return f"{one['mean']:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def table_of(rows: list[dict]) -> str:
    lines = [f"| real pairs | {ARMS[0]} | {ARMS[1]} | gain |", "|---|---|---|---|"]
    for row in rows:
        cells = (told(row[ARMS[0]]), told(row[ARMS[1]]), told(row["gain"], "+"))
        lines.append(f"| {row['real_pairs']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: list[dict], path: Path) -> None:
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for arm, shift, color in zip(ARMS, (-0.04, 0.04), ("#c2571a", "#1f5fa8"), strict=True):
        means = np.array([row[arm]["mean"] for row in rows])
        bounds = np.array([row[arm]["interval"] for row in rows])
        places = np.arange(len(rows)) + shift
        reach = np.abs(bounds.T - means)
        axes.errorbar(places, means, yerr=reach, color=color, marker="o", capsize=3, label=arm)
        for place, row in zip(places, rows, strict=True):
            axes.scatter([place] * len(row[arm]["seeds"]), row[arm]["seeds"], s=9, color=color, alpha=0.4)
    axes.set_xticks(range(len(rows)), [f"{row['real_pairs']:,}" for row in rows])
    axes.set_xlabel("real training pairs")
    axes.set_ylabel("CIDEr on 1,000 test pairs")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)


def renew(page: Path, table: str) -> None:
    text, (start, end) = page.read_text(encoding="utf-8"), MARKS
    pattern = re.escape(start) + ".*" + re.escape(end)
    page.write_text(re.sub(pattern, lambda _: f"{start}\n{table}\n{end}", text, flags=re.DOTALL), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--real", type=int, nargs="+", default=[100, 300, 1000], help="numbers of real pairs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="each draws other real pairs")
    parser.add_argument("--synthetic", type=int, default=3000, help="synthetic pairs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side, one thread each")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "runs" / "synthetic-pairs", help="of all runs")
    parser.add_argument("--page", type=Path, help="Markdown file in which the table between its marks is renewed")
    parser.add_argument("--results", type=Path, help="folder for results.json; default: the folder of the runs")
    parser.add_argument("--plot", type=Path, help="PNG; default: beside results.json")
    arguments = parser.parse_args()
    folder, real = arguments.folder.resolve(), [0, *arguments.real]
    data = make_synthetic(folder, arguments.synthetic)
    cells = [Cell(count, seed, arm) for count in real for seed in arguments.seeds for arm in (False, True)]
    finish_all(cells, folder, data, arguments.jobs)
    rows = summarize(real, arguments.seeds, folder)
    table, results = table_of(rows), arguments.results or folder
    results.mkdir(parents=True, exist_ok=True)
    (results / "results.json").write_text(json.dumps(rows, indent=2) + "\n")
    draw(rows, arguments.plot or results / "synthetic_pairs.png")
    if arguments.page:
        renew(arguments.page, table)
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
