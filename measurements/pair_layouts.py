"""Compare how a vision-language model should see a pair: as two images, on one canvas, or as two frames of a video.

    python measurements/pair_layouts.py --model Qwen/Qwen3-VL-2B-Instruct --benchmark spot_the_diff \\
        --prompt "What changed between the two images? Answer in one short sentence."
    python measurements/pair_layouts.py --model MODEL --benchmark BENCHMARK --pairs 16 --epochs 1        # a quick look

Every layout is scored without training (zero-shot) and after LoRA, one adapter per seed. All layouts get the same
number of image tokens per pair, as far as the family allows it: the pixels per image of each layout are chosen on test
pairs, so that a canvas has twice the pixels of one image, and each of two frames as many as both images together.
Images are not enlarged for that: if a layout cannot reach the number of the others, theirs is lowered.

Runs, predictions and logs are in --output_dir; the same command continues where it was stopped, and more --seeds may
be added. Table, numbers and plot go to --results.
"""

import argparse
import gc
import json
import platform
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from captioner_idc.captioning import caption
from captioner_idc.chat_models import image_token_id
from captioner_idc.chat_pairs import LAYOUTS, ChatPairProcessor, PairLayout
from captioner_idc.loading import load, load_image
from common_idc.atomic_files import write_json, write_text
from common_idc.commands import run_command
from common_idc.provenance import code_commit, library_versions
from common_idc.settings import Options
from dataset_syned import evenly_spaced, load_benchmark, undecoded
from metric_idc import read_predictions, read_result, segment_scores
from metric_idc.comparison import renew_table
from metric_idc.resampling import mean_over_seeds
from run_idc import paths

REPOSITORY = Path(__file__).resolve().parent.parent
SCORES = ("BLEU-4", "METEOR", "CIDEr")
NEW_TOKENS = 16  # of each sentence when time is measured, so that all layouts write as much
TRIES = 16  # numbers of pixels that are tried per layout
UNEQUAL = 1.1  # ratio of image tokens that deserves a warning
MARKS = ("<!-- pair layouts: generated -->", "<!-- pair layouts: end -->")

Pair = tuple[Any, Any]
View = dict[str, Any]  # of a layout: layout, pixels, image_tokens and seconds per pair


@dataclass(frozen=True)
class Cell:
    """One scored model: a layout, and the seed of its adapter; None for the model itself."""

    layout: PairLayout
    seed: int | None

    @property
    def name(self) -> str:
        return f"{self.layout}-{'zero-shot' if self.seed is None else f'lora-{self.seed}'}"


@dataclass(frozen=True)
class Data:
    """The pairs that are trained on and scored."""

    benchmark: str
    options: dict[str, Any]
    split: str

    @property
    def command(self) -> list[str]:
        """Return the options that train.py and evaluate.py share."""
        return ["--benchmark", self.benchmark, "--benchmark_options", json.dumps(self.options)]

    def rows(self, split: str | None = None) -> Any:
        """Return the rows of a split, by default the scored one; images are not decoded."""
        return undecoded(load_benchmark(self.benchmark, split or self.split, **self.options))


def image_tokens(model: Any, processor: ChatPairProcessor, pairs: list[Pair]) -> float:
    """Return the mean number of image tokens of a pair, counted in the model's real inputs."""
    token = image_token_id(model.config)
    return float(np.mean([int((processor(*pair)["input_ids"] == token).sum()) for pair in pairs]))


def closest_pixels(model: Any, processor: ChatPairProcessor, pairs: list[Pair], target: float) -> tuple[int, float]:
    """Return the setting of pixels whose image tokens per pair are closest to a number, and these tokens."""
    tried: dict[int, float] = {}
    pixels = processor.pixels
    while len(tried) < TRIES and pixels not in tried:
        try:
            tried[pixels] = image_tokens(model, processor.with_settings(pixels=pixels), pairs)
        except ValueError:  # a family whose images always have the same number
            break
        pixels = round(pixels * target / tried[pixels])
    return min(tried.items(), key=lambda each: abs(each[1] - target))


def equal_tokens(
    model: Any, processor: ChatPairProcessor, layouts: list[PairLayout], pairs: list[Pair]
) -> dict[PairLayout, tuple[int, float]]:
    """Return pixels per image and image tokens per pair of each layout, the latter as equal as possible.

    The first layout sets the number of tokens, by the setting of pixels that the processor has.
    """
    target = image_tokens(model, processor.with_settings(layout=layouts[0]), pairs)
    for _ in range(2):  # first what each layout can have, then what all can have
        chosen = {
            layout: closest_pixels(model, processor.with_settings(layout=layout), pairs, target) for layout in layouts
        }
        target = min(tokens for _, tokens in chosen.values())
    return chosen


def possible_layouts(processor: ChatPairProcessor) -> list[PairLayout]:
    """Return the layouts that the family of this processor can have."""
    possible = []
    for layout in LAYOUTS:
        try:
            processor.with_settings(layout=layout)
        except ValueError:
            continue
        possible.append(layout)
    return possible


def seconds_per_pair(model: Any, processor: ChatPairProcessor, pairs: list[Pair], batch_size: int) -> float:
    """Return the time to caption a pair whose files are decoded, with sentences of NEW_TOKENS."""
    options = {"batch_size": batch_size, "min_new_tokens": NEW_TOKENS, "max_new_tokens": NEW_TOKENS}
    caption(model, processor, pairs[:batch_size], **options)  # the first batch also prepares memory and kernels
    started = time.perf_counter()
    caption(model, processor, pairs, **options)
    return (time.perf_counter() - started) / len(pairs)


def describe_machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def view_layouts(arguments: argparse.Namespace, data: Data) -> dict[str, Any]:
    """Return what each layout needs, measured with the model itself.

    Raises: ValueError for a model without layouts, or a layout that it cannot have.
    """
    # a model that takes one image only is refused unless the layout is a canvas
    first = {"layout": arguments.layouts[0]} if arguments.layouts else {}
    model, processor = load(arguments.model, revision=arguments.revision, processor={**arguments.processor, **first})
    if not isinstance(processor, ChatPairProcessor):
        raise ValueError(f"{arguments.model!r} is not a vision-language model: it sees pairs in one way only.")
    rows, views = evenly_spaced(data.rows(), arguments.measured), []
    pairs = [(load_image(row["before"]), load_image(row["after"])) for row in rows]
    chosen = equal_tokens(model, processor, arguments.layouts or possible_layouts(processor), pairs)
    for layout, (pixels, tokens) in chosen.items():
        own = processor.with_settings(layout=layout, pixels=pixels)
        seconds = seconds_per_pair(model, own, pairs, arguments.measured_batch)
        views.append({"layout": layout, "pixels": pixels, "image_tokens": tokens, "seconds": seconds})
    return {"machine": describe_machine(), "layouts": views}


def saved_views(arguments: argparse.Namespace, data: Data) -> dict[str, Any]:
    """Return what `view_layouts` returns, from the first time that this command ran.

    Raises: ValueError if it ran with other settings.
    """
    file = arguments.output_dir / "layouts.json"
    names = ("model", "revision", "benchmark", "benchmark_options", "split", "processor", "layouts", "epochs", "pairs")
    settings = {name: getattr(arguments, name) for name in (*names, "train", "evaluate", "zero_shot")}
    if file.is_file():
        content = json.loads(file.read_text(encoding="utf-8"))
        changed = [name for name, value in settings.items() if content["settings"].get(name) != value]
        if changed:
            raise ValueError(f"{str(file)!r} was made with another --{changed[0]}: name another --output_dir.")
        return content
    content = {"settings": settings, **view_layouts(arguments, data)}
    gc.collect()
    torch.cuda.empty_cache()  # for the programs that follow
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    write_json(file, content)
    return content


def warn_of_unequal_tokens(views: list[View]) -> None:
    """Say so if the family does not let all layouts have the same number of tokens."""
    tokens = [view["image_tokens"] for view in views]
    if max(tokens) > UNEQUAL * min(tokens):
        counts = ", ".join(f"{view['layout']} {view['image_tokens']:.1f}" for view in views)
        print(f"warning: the layouts do not have equally many image tokens per pair ({counts})", file=sys.stderr)


def chosen_data(arguments: argparse.Namespace) -> Data:
    """Return the benchmark, or with --pairs a folder of a few evenly spaced pairs of each split, written once."""
    whole = Data(arguments.benchmark, arguments.benchmark_options, arguments.split)
    if not arguments.pairs:
        return whole
    folder = arguments.output_dir / "pairs"
    for split, name in (("train", "train"), ("validation", "validation"), (arguments.split, "test")):
        write_pairs(evenly_spaced(whole.rows(split), arguments.pairs), folder / name)
    return Data("folder", {"data_dir": str(folder.resolve())}, "test")


def write_pairs(rows: Any, folder: Path) -> None:
    """Write rows as a split of the benchmark `folder`."""
    if (folder / "metadata.jsonl").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, row in enumerate(rows):
        names = {}
        for side in ("before", "after"):
            names[f"{side}_file_name"] = f"{number}-{side}{Path(row[side]['path']).suffix}"
            (folder / names[f"{side}_file_name"]).write_bytes(row[side]["bytes"])
        lines.append(json.dumps({**names, **{name: row[name] for name in ("pair_id", "captions", "change_type")}}))
    write_text(folder / "metadata.jsonl", "\n".join(lines) + "\n")


def run(log: Path, *arguments: str) -> None:
    """Run a command of this repository with its output in a file. Raises: RuntimeError with the end of that file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        program, *options = arguments
        command = [sys.executable, str(REPOSITORY / program), *options]
        done = subprocess.run(command, stdout=file, stderr=file)
    if done.returncode:
        end = log.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise RuntimeError(f"`{shlex.join(arguments)}` ended with code {done.returncode}, see {str(log)!r}: {end}")


def results_of(cell: Cell, arguments: argparse.Namespace) -> Path:
    return arguments.output_dir / cell.name / paths.EVALUATIONS / arguments.split


def finish(cell: Cell, view: View, data: Data, arguments: argparse.Namespace) -> None:
    """Train and score a cell, unless that is done."""
    results, folder = results_of(cell, arguments), arguments.output_dir / cell.name
    if (results / paths.METRICS).is_file():
        return
    log = folder.with_name(f"{cell.name}.log")
    model = ["--model", arguments.model, *(["--revision", arguments.revision] if arguments.revision else [])]
    changes = {**arguments.processor, "layout": cell.layout, "pixels": view["pixels"]}
    model += ["--processor", json.dumps(changes)]
    if cell.seed is not None:
        options = ["--seed", str(cell.seed), "--epochs", str(arguments.epochs), *shlex.split(arguments.train)]
        run(log, "train.py", *model, *data.command, *options, "--resume", "--output_dir", str(folder))
        model = ["--adapter", str(folder)]
    else:
        model += shlex.split(arguments.zero_shot)
    options = ["--split", data.split, "--input_controls", "False", *shlex.split(arguments.evaluate)]
    run(log, "evaluate.py", *model, *data.command, *options, "--output_dir", str(results))


def pair_ciders(folders: list[Path]) -> np.ndarray:
    """Return the CIDEr of each test pair, [seeds, pairs]."""
    rows = [read_predictions(folder / paths.PREDICTIONS) for folder in folders]
    return np.array([[score["CIDEr"] for score in segment_scores(each, ["CIDEr"])] for each in rows])


def mean_of(results: list[dict[str, Any]], name: str) -> float | None:
    """Return a score's mean over the seeds, None if it is not available."""
    values = [result["scores"].get(name, result.get(name)) for result in results]
    return None if None in values else float(np.mean(values))


def summarize(views: list[View], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row per layout and way of use: what the layout needs, and its scores."""
    rows = []
    for use, seeds in (("zero-shot", [None]), ("LoRA", arguments.seeds)):
        first = None
        for view in views:
            folders = [results_of(Cell(view["layout"], seed), arguments) for seed in seeds]
            results, ciders = [read_result(folder) for folder in folders], pair_ciders(folders)
            first = ciders if first is None else first
            scores = {name: mean_of(results, name) for name in (*SCORES, "change_type_accuracy")}
            rows.append({**view, "use": use, "scores": scores, "CIDEr": mean_over_seeds(ciders)})
            if first is not ciders:
                rows[-1]["gain"] = mean_over_seeds(ciders - first)
    return rows


def format_estimate(value: dict[str, Any], sign: str = "") -> str:
    low, high = value["interval"]
    return f"{value['mean']:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def format_score(value: float | None, style: str = ".3f") -> str:
    return "" if value is None else f"{value:{style}}"


def table_of(summary: dict[str, Any]) -> str:
    """Return the Markdown table of a summary."""
    rows = summary["rows"]
    columns = ["layout", "use", "image tokens per pair", "seconds per pair", "BLEU-4", "METEOR", "CIDEr [95 %]"]
    columns += [f"minus {rows[0]['layout']} [95 %]", "change type accuracy"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in rows:
        scores = row["scores"]
        cells = [row["layout"], row["use"], f"{row['image_tokens']:.1f}", f"{row['seconds']:.3f}"]
        cells += [format_score(scores[name]) for name in ("BLEU-4", "METEOR")] + [format_estimate(row["CIDEr"])]
        cells += [format_estimate(row["gain"], "+") if "gain" in row else ""]
        lines.append(f"| {' | '.join([*cells, format_score(scores['change_type_accuracy'], '.1%')])} |")
    scores = summary["constant_caption"]["scores"]
    constant = [format_score(scores.get(name)) for name in SCORES]
    lines.append(f"| constant caption | | | | {' | '.join(constant)} | | |")
    return "\n".join(lines)


def draw(summary: dict[str, Any], path: Path) -> None:
    """Draw the CIDEr of all layouts, zero-shot and adapted, and of the constant caption."""
    axes = (figure := Figure(figsize=(6.4, 3.6), layout="constrained")).subplots()
    for use, shift, color in (("zero-shot", -0.06, "#c2571a"), ("LoRA", 0.06, "#1f5fa8")):
        rows = [row for row in summary["rows"] if row["use"] == use]
        means = np.array([row["CIDEr"]["mean"] for row in rows])
        reach = np.abs(np.array([row["CIDEr"]["interval"] for row in rows]).T - means)
        places = np.arange(len(rows)) + shift
        axes.errorbar(places, means, yerr=reach, color=color, marker="o", linestyle="", capsize=3, label=use)
        axes.set_xticks(range(len(rows)), [f"{row['layout']}\n{row['image_tokens']:.0f} tokens" for row in rows])
    constant = summary["constant_caption"]["scores"]["CIDEr"]
    axes.axhline(constant, color="grey", linestyle=":", label="constant caption")
    axes.set_ylabel("CIDEr")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def write_summary(views: dict[str, Any], arguments: argparse.Namespace) -> str:
    """Write results.json and the plot; return the table."""
    rows = summarize(views["layouts"], arguments)
    any_result = read_result(results_of(Cell(rows[0]["layout"], None), arguments))
    summary = {
        **{"settings": views["settings"], "seeds": arguments.seeds, "machine": views["machine"]},
        **{"versions": library_versions("torch", "transformers", "peft"), "commit": code_commit()},
        **{"constant_caption": any_result["controls"]["constant_caption"], "rows": rows},
    }
    results = arguments.results or arguments.output_dir
    results.mkdir(parents=True, exist_ok=True)
    write_json(results / "results.json", summary)
    draw(summary, results / "pair_layouts.png")
    table = table_of(summary)
    write_text(results / "table.md", table + "\n")
    return table


def compare_layouts(arguments: argparse.Namespace) -> None:
    """Measure, train and score whatever is missing, and print the table."""
    data = chosen_data(arguments)
    views = saved_views(arguments, data)
    warn_of_unequal_tokens(views["layouts"])
    cells = [(Cell(view["layout"], seed), view) for seed in (None, *arguments.seeds) for view in views["layouts"]]
    for cell, view in (bar := tqdm(cells, unit="run")):
        bar.set_description(cell.name)
        finish(cell, view, data, arguments)
    table = write_summary(views, arguments)
    if arguments.page:
        renew_table(arguments.page, table, MARKS)
    print(f"seconds per pair: on {views['machine']}, sentences of {NEW_TOKENS} tokens\n\n{table}")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", required=True, help="folder or Hub id of a vision-language model")
    add("--revision", help="revision of the model on the Hub")
    add("--benchmark", required=True, help="a name that `python -m dataset_syned list` shows")
    add("--benchmark_options", type=Options, default=Options(), help="JSON, e.g. '{\"seed\": 1}'")
    add("--split", default="test", help="split to score (default: %(default)s)")
    add("--prompt", help="the question; zero-shot scores depend on it: ask for a sentence in the benchmark's style")
    add(
        "--processor",
        type=Options,
        default=Options(),
        help="JSON: other processor settings of all layouts, e.g. '{\"pixels\": 262144}', pixels per image at most",
    )
    add(
        "--layouts",
        nargs="+",
        choices=LAYOUTS,
        default=[],
        help="default: all; a model of one image has canvases only",
    )
    add("--seeds", type=int, nargs="+", default=[1], help="an adapter per layout and seed (default: %(default)s)")
    add("--epochs", type=int, default=3, help="of each training, at most (default: %(default)s)")
    add("--train", default="", metavar="OPTIONS", help='for train.py, e.g. "--learning_rate 2e-4 --batch_size 8"')
    add("--evaluate", default="", metavar="OPTIONS", help='for evaluate.py, e.g. "--batch_size 16"')
    add("--zero_shot", default="", metavar="OPTIONS", help='for evaluate.py without adapter, e.g. "--examples 5"')
    add("--pairs", type=int, help="take only so many pairs of each split: a quick look")
    add("--measured", type=int, default=32, help="pairs on which tokens and time are measured (default: %(default)s)")
    add("--measured_batch", type=int, default=8, help="pairs per batch when time is measured (default: %(default)s)")
    add("--output_dir", type=Path, default=REPOSITORY / "runs" / "pair-layouts", help="of all runs")
    add("--results", type=Path, help="folder of results.json, table.md and the plot; default: --output_dir")
    add("--page", type=Path, help="Markdown file in which the table between its marks is renewed")
    return parser


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the checked arguments. Raises: ValueError for a setting that each layout has its own value of."""
    arguments = build_parser().parse_args(argv)
    if "layout" in arguments.processor:
        raise ValueError("--processor sets the layout: name layouts with --layouts.")
    if arguments.prompt is not None:
        arguments.processor = Options({**arguments.processor, "prompt": arguments.prompt})
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    errors = (ValueError, OSError, RuntimeError, ImportError)
    return run_command(lambda: compare_layouts(parse_arguments(argv)), *errors)


if __name__ == "__main__":
    sys.exit(main())
