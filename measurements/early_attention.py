"""Measure whether attention across both images from the first layer helps: the paper's first claim, on a CPU.

    python measurements/early_attention.py --data_dir photographs --bf16           # about five hours on one core
    python measurements/early_attention.py --data_dir photographs --bf16 --shares  # unchanged pairs in training

The same small BLIP-2 is trained from random weights with three ways of attention (see two_streams.py). The arms of a
seed have the same weights at the start, the same number of parameters, and the same batches and sentences in the same
order. All learn where each patch is, beside the captions (see PositionHeads).

A small captioner ignores images that are hard to compare for a long time. So a run on photo_edits continues the run on
toy of the same arm and seed, and every run starts with easier pairs (--warm_up): toy scenes of one thing, photographs
with exactly one change and without distractors. With photographs alone, 1,500 to 2,000 steps ended on the plateau
where all pairs are called unchanged, also with the change type before each sentence, and with a second auxiliary loss
on the mean color and contrast of each patch.

With --shares, joint attention alone is trained with other shares of unchanged pairs, and without distractors; the
test pairs stay the same.

Tables, curves and plot are written at the end. The same command continues where it was stopped. Two commands with
different --seeds may share the work on two cores, after the pairs have been drawn; run the whole command afterwards.
"""

import argparse
import itertools
import json
import random
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from canvas_pairs import CanvasPairs, canvas_pairs
from early_attention_results import (
    BENCHMARKS,
    PAGE_MARKS,
    SHARE_MARKS,
    arms_table,
    compare_arms,
    compare_shares,
    draw_curves,
    right_change_types,
    shares_table,
)
from small_captioner import PIECES, SIZES, build_model, pixel_statistics, pixel_values
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast
from two_streams import ARMS, keep_apart

from captioner_idc.small_blip2 import (
    PositionHeads,
    build_tokenizer,
    learning_rate,
    look,
    optimizer_of,
    prompt,
    speaking_loss,
    token_inputs,
)
from common_idc.atomic_files import write_atomically, write_json
from common_idc.commands import run_command
from common_idc.provenance import library_versions
from dataset_syned.epoch_order import PairOrder
from metric_idc import read_predictions, write_predictions
from metric_idc.comparison import renew_table

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE_TEMPLATE = Path(__file__).with_name("early_attention_page.md")
SHARES = ((0.0, True), (0.1, True), (0.3, True), (0.3, False))  # unchanged pairs in training, distractors
STARTS_FROM = {"photo_edits": "toy"}  # benchmark -> that whose trained model a run continues
# Benchmark -> options of the pairs that training starts with.
WARM_UP: dict[str, dict[str, Any]] = {
    "toy": {"difficulty": "single"},
    "photo_edits": {"unchanged": 0.0, "two_changes": 0.0, "distractors": False},
}
TRAINED = ("model", "positions", "optimizer")  # parts of Training that a state contains
STATE, RESULT, PREDICTIONS = "state.pt", "run.json", "predictions.jsonl"
# About each pair at each step; of photographs several, because one change of these has many wordings.
SENTENCES = {"toy": 1, "photo_edits": 4}
SPEAKING = 100  # pairs at a time
NORMALIZED = 500  # canvases whose pixels give mean and standard deviation
LONGEST = 40  # tokens of a generated sentence


@dataclass(frozen=True)
class Settings:
    """What all runs of the experiment have in common."""

    steps: int  # on toy
    photo_steps: int
    batch: int
    learning_rate: float
    warm_up: int  # first steps, on easier pairs
    check_every: int
    train: int
    validation: int
    checked: int  # validation pairs about which a sentence is generated at each check
    test: int
    size: int  # longest side of a photograph in pixels; its cell of the canvas has 96
    bf16: bool
    data_dir: str | None


@dataclass(frozen=True)
class Cell:
    """One model that is trained and tested."""

    benchmark: str
    arm: str
    seed: int
    unchanged: float = 0.3  # as in the benchmark's default, of the training pairs
    distractors: bool = True

    @property
    def training_set(self) -> str:
        return f"train-{self.unchanged:.0%}-{'distractors' if self.distractors else 'plain'}".replace("%", "")

    @property
    def name(self) -> str:
        return f"{self.benchmark}/{self.training_set}/{self.arm}-{self.seed}"

    @property
    def start(self) -> "Cell | None":
        """The run that this one continues, or None for random weights."""
        earlier = STARTS_FROM.get(self.benchmark)
        return earlier and Cell(earlier, self.arm, self.seed)


class Pairs:
    """The canvases of all splits, drawn when they are first needed."""

    def __init__(self, folder: Path, settings: Settings):
        self.folder, self.settings = folder / "pairs", settings

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of all runs, whatever their training pairs."""
        default = [self.training(Cell(benchmark, "joint", 0)) for benchmark in BENCHMARKS]
        return build_tokenizer((text for part in default for row in part.rows for text in row["captions"]), PIECES)

    def split(self, benchmark: str, split: str) -> CanvasPairs:
        """Return the validation or test pairs, which are the same for all runs."""
        return self.drawn(split, benchmark, split)

    def training(self, cell: Cell) -> CanvasPairs:
        """Return the training pairs of a run."""
        photographs = cell.benchmark == "photo_edits"
        shares = {"unchanged": cell.unchanged, "distractors": cell.distractors} if photographs else {}
        return self.drawn(cell.training_set, cell.benchmark, "train", **shares)

    def warm_up(self, benchmark: str) -> CanvasPairs:
        """Return the pairs that training starts with."""
        return self.drawn("train-warm-up", benchmark, "train", **WARM_UP[benchmark])

    def drawn(self, name: str, benchmark: str, split: str, **options: Any) -> CanvasPairs:
        """Return pairs of one split; of the others, which the benchmark draws along, one each."""
        settings = self.settings
        options |= {part: getattr(settings, part) if part == split else 1 for part in ("train", "validation", "test")}
        if benchmark == "photo_edits":
            options |= {"size": settings.size, **({"data_dir": settings.data_dir} if settings.data_dir else {})}
        return canvas_pairs(self.folder / benchmark / name, SIZES.canvas, benchmark, split, options)


class Training:
    """A model and all that its next step needs; a step depends on seed and step number alone."""

    def __init__(self, cell: Cell, settings: Settings, pairs: Pairs, folder: Path):
        self.cell, self.settings, self.state_file = cell, settings, folder / STATE
        self.steps = settings.photo_steps if cell.benchmark == "photo_edits" else settings.steps
        self.warm_up = pairs.warm_up(cell.benchmark)
        self.train, self.validation = pairs.training(cell), pairs.split(cell.benchmark, "validation")
        self.tokenizer = pairs.tokenizer
        # The same for all runs of a benchmark, whatever their training pairs.
        default = pairs.training(Cell(cell.benchmark, "joint", 0))
        self.statistics = pixel_statistics(default.canvases[:NORMALIZED])
        torch.manual_seed(cell.seed)
        self.model = build_model(self.tokenizer).eval()  # no layer has dropout
        keep_apart(self.model, cell.arm, SIZES.rows * SIZES.columns)
        self.positions = PositionHeads(SIZES)
        self.prompt = prompt(self.model, self.tokenizer)
        self.parameters = [*self.model.parameters(), *self.positions.parameters()]
        self.optimizer = optimizer_of(self.parameters)
        self.order = PairOrder([len(self.train)], [1.0], cell.seed, settings.batch)
        self.step, self.seconds, self.losses, self.curve = 0, 0.0, [], []

    def start_from(self, state_file: Path) -> None:
        """Take the weights of another run."""
        state = torch.load(state_file, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.positions.load_state_dict(state["positions"])

    def resume(self) -> None:
        """Continue from the last state, if there is one."""
        if self.state_file.is_file():
            state = torch.load(self.state_file, weights_only=True)
            for name in TRAINED:
                getattr(self, name).load_state_dict(state[name])
            self.step, self.seconds, self.curve = state["step"], state["seconds"], state["curve"]

    def save(self) -> None:
        state = {name: getattr(self, name).state_dict() for name in TRAINED}
        state |= {"step": self.step, "seconds": self.seconds, "curve": self.curve}
        write_atomically(self.state_file, lambda file: torch.save(state, file))

    def batch(self) -> tuple[np.ndarray, list[str]]:
        """Return the canvases of this step, and SENTENCES captions of each, one pair after the other."""
        pairs = self.warm_up if self.step < self.settings.warm_up else self.train
        epoch, step = divmod(self.step, self.order.steps)
        self.order.epoch = epoch
        chosen = self.order.items()[step * self.settings.batch : (step + 1) * self.settings.batch]
        rng = random.Random(f"{self.cell.seed}/{self.step}")
        each = SENTENCES[self.cell.benchmark]
        return pairs.canvases[chosen], [c for index in chosen for c in rng.sample(pairs.rows[index]["captions"], each)]

    def losses_of(self, canvases: np.ndarray, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean loss over the tokens of the captions, and that over the positions of the patches."""
        with self.autocast():
            inputs = token_inputs(self.tokenizer, captions, self.prompt)
            patches, queries = look(self.model, pixel_values(canvases, self.statistics))
            return speaking_loss(self.model, queries, **inputs), self.positions.loss(patches)

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bf16)

    def take_step(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.steps, self.settings.learning_rate, max(1, self.steps // 10))
        loss, position_loss = self.losses_of(*self.batch())
        (loss + position_loss).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.losses.append(loss.item())
        self.step += 1

    def run(self) -> None:
        """Take the remaining steps; check and save every `check_every` steps."""
        with tqdm(total=self.steps, initial=self.step, unit="step", desc=self.cell.name) as bar:
            while self.step < self.steps:
                started = time.monotonic()
                self.take_step()
                self.seconds += time.monotonic() - started
                bar.update()
                if self.step % self.settings.check_every == 0 or self.step == self.steps:
                    self.curve.append(self.check())
                    self.save()

    def check(self) -> dict[str, float]:
        """Return a point of the learning curve."""
        rows = self.validation.rows[: self.settings.checked]
        said = self.describe(self.validation, len(rows))
        right = right_change_types(self.cell.benchmark, said, [row["captions"][0] for row in rows])
        training_loss, self.losses = float(np.mean(self.losses)), []
        return {
            "step": self.step,
            "training_loss": training_loss,
            "validation_loss": self.validation_loss(),
            "right_change_type": float(np.mean(right)),
        }

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Return the mean over batches of the loss on the first caption of each pair."""
        captions = [row["captions"][0] for row in self.validation.rows]
        starts = range(0, len(captions), SPEAKING)
        canvases = self.validation.canvases
        losses = [
            self.losses_of(canvases[at : at + SPEAKING], captions[at : at + SPEAKING])[0].item() for at in starts
        ]
        return float(np.mean(losses))

    @torch.no_grad()
    def describe(self, pairs: CanvasPairs, count: int) -> list[str]:
        """Return greedy sentences about the first pairs."""
        sentences = []
        for start in range(0, count, SPEAKING):
            canvases = pairs.canvases[start : min(start + SPEAKING, count)]
            ids = torch.tensor([self.prompt] * len(canvases))
            with self.autocast():
                tokens = self.model.generate(
                    pixel_values(canvases, self.statistics), ids, max_new_tokens=LONGEST, do_sample=False
                )
            sentences += self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(sentence.split()) for sentence in sentences]


def finish(cell: Cell, settings: Settings, pairs: Pairs, folder: Path) -> None:
    """Train and test a model, unless that is done, and before it the one that it continues."""
    place = folder / "runs" / cell.name
    if (place / RESULT).is_file():
        return
    training = Training(cell, settings, pairs, place)
    if cell.start:
        finish(cell.start, settings, pairs, folder)
        training.start_from(folder / "runs" / cell.start.name / STATE)
    training.resume()
    training.run()
    test = pairs.split(cell.benchmark, "test")
    sentences = training.describe(test, len(test))
    rows = [prediction_row(row, said) for row, said in zip(test.rows, sentences, strict=True)]
    write_predictions(rows, place / PREDICTIONS)
    result = {
        "parameters": sum(p.numel() for p in training.model.parameters()),
        "seconds_per_step": training.seconds / training.steps,
        "versions": library_versions("torch", "transformers"),
        "curve": training.curve,
    }
    write_json(place / RESULT, result)
    if cell.benchmark not in STARTS_FROM.values():
        training.state_file.unlink()


def prediction_row(row: dict[str, Any], said: str) -> dict[str, Any]:
    """Return a line of the file of predictions."""
    facts = {"references": row["captions"], "change_type": row["change_type"]}
    return {"pair_id": row["pair_id"], "prediction": said, **facts}


def read_runs(cells: list[Cell], folder: Path) -> tuple[list[list[dict]], list[dict]]:
    """Return the predictions and the results of finished runs."""
    places = [folder / "runs" / cell.name for cell in cells]
    results = [json.loads((place / RESULT).read_text(encoding="utf-8")) for place in places]
    return [read_predictions(place / PREDICTIONS) for place in places], results


def check_settings(settings: Settings, folder: Path) -> None:
    """Write the settings into the folder of the runs. Raises: ValueError if it contains runs with others."""
    file, wanted = folder / "settings.json", {**asdict(settings), "easier_pairs": WARM_UP, "sentences": SENTENCES}
    earlier = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else wanted
    for name, value in wanted.items():
        if earlier.get(name) != value:
            raise ValueError(
                f"{str(folder)!r} contains runs with {name}={earlier.get(name)!r}, not {value!r}: "
                "use the same options, or another --folder."
            )
    write_json(file, wanted)


def report_arms(arguments: argparse.Namespace, settings: Settings, pairs: Pairs) -> str:
    """Train and test every arm; write and return the table."""
    found: dict[str, dict] = {}
    for benchmark in arguments.benchmarks:
        runs = {arm: [Cell(benchmark, arm, seed) for seed in arguments.seeds] for arm in arguments.arms}
        for cell in sorted(itertools.chain(*runs.values()), key=lambda cell: cell.seed):
            finish(cell, settings, pairs, arguments.folder)
        read = {arm: read_runs(cells, arguments.folder) for arm, cells in runs.items()}
        captions = [row["captions"] for row in pairs.training(Cell(benchmark, "joint", 0)).rows]
        found[benchmark] = compare_arms(benchmark, read, captions)
    results = {"settings": public_settings(settings), "benchmarks": found}
    write_json(arguments.results / "arms.json", results)
    draw_curves(found, arguments.plot or arguments.results / "early_attention.png")
    return arms_table(results)


def report_shares(arguments: argparse.Namespace, settings: Settings, pairs: Pairs) -> str:
    """Train and test with all SHARES of unchanged pairs; write and return the table."""
    runs = [[Cell("photo_edits", "joint", seed, *share) for seed in arguments.seeds] for share in SHARES]
    for cell in itertools.chain(*runs):
        finish(cell, settings, pairs, arguments.folder)
    predictions = [read_runs(cells, arguments.folder)[0] for cells in runs]
    results = {"settings": public_settings(settings), "shares": compare_shares(SHARES, predictions)}
    write_json(arguments.results / "shares.json", results)
    return shares_table(results)


def public_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings without the folder of this machine."""
    return {name: value for name, value in asdict(settings).items() if name != "data_dir"}


def renew_page(page: Path, table: str, marks: tuple[str, str]) -> None:
    """Replace the table between its marks; a page that does not exist is made from its template."""
    if not page.exists():
        page.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PAGE_TEMPLATE, page)
    renew_table(page, table, marks)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data_dir", type=Path, help="photographs, with cut-outs in its folder cut_outs; default: scikit-image's")
    add("--benchmarks", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    add("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="each has other initial weights and another order")
    add("--shares", action="store_true", help="compare shares of unchanged training pairs instead of arms")
    add("--steps", type=int, default=2000, help="optimizer steps of each run on toy (default: %(default)s)")
    add("--photo_steps", type=int, default=4000, help="steps of each run on photo_edits (default: %(default)s)")
    add("--batch", type=int, default=32, help="pairs per step (default: %(default)s)")
    add("--learning_rate", type=float, default=1.5e-3, help="highest learning rate (default: %(default)s)")
    add("--warm_up", type=int, default=500, help="first steps, on easier pairs (default: %(default)s)")
    add("--check_every", type=int, default=250, help="steps between points of the curves (default: %(default)s)")
    add("--train", type=int, default=20_000, help="training pairs of each benchmark (default: %(default)s)")
    add("--validation", type=int, default=300, help="validation pairs, for the curves (default: %(default)s)")
    add("--test", type=int, default=1000, help="test pairs, for the tables (default: %(default)s)")
    add("--bf16", action="store_true", help="bf16 autocast: twice as fast on processors that have it")
    add("--threads", type=int, default=1, help="threads of torch (default: %(default)s)")
    add("--folder", type=Path, default=REPOSITORY / "runs" / "early-attention", help="of drawn pairs and runs")
    add("--results", type=Path, help="folder for arms.json and shares.json; default: --folder")
    add("--plot", type=Path, help="PNG with the learning curves; default: in --results")
    add("--page", type=Path, help="Markdown file whose tables are renewed; made if it does not exist")
    arguments = parser.parse_args(argv)
    for name in ("steps", "photo_steps", "batch", "check_every", "train", "validation", "test", "threads"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(arguments, name)}")
    arguments.results = arguments.results or arguments.folder
    return arguments


def settings_of(arguments: argparse.Namespace) -> Settings:
    shared = ("steps", "photo_steps", "batch", "learning_rate", "warm_up", "check_every", "bf16")
    shared += ("train", "validation", "test")
    folder = arguments.data_dir and str(arguments.data_dir.expanduser().resolve())
    checked = min(200, arguments.validation)
    return Settings(**{name: getattr(arguments, name) for name in shared}, size=128, checked=checked, data_dir=folder)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    torch.set_num_threads(arguments.threads)

    def command() -> None:
        settings = settings_of(arguments)
        check_settings(settings, arguments.folder)
        report, marks = (report_shares, SHARE_MARKS) if arguments.shares else (report_arms, PAGE_MARKS)
        table = report(arguments, settings, Pairs(arguments.folder, settings))
        if arguments.page:
            renew_page(arguments.page, table, marks)
        print(table)

    return run_command(command, ValueError, OSError, interrupted="repeat the command to continue")


if __name__ == "__main__":
    sys.exit(main())
