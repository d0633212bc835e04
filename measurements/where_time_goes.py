"""Where the time of a training step and of a batch of captions goes, before and after: a picture and its numbers.

    python measurements/where_time_goes.py --plot docs/where_time_goes.png --results seconds.json

Before is the original's recipe, after is ours, both of the small BLIP-2 of the speed measurements on one core. A bar
is one run under torch's profiler: the forward passes of the parts of the model, backward, the optimizer, and what is
left (Python, and whatever torch does between these).
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import generation
import torch
import training_step
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from original_recipe import BATCH, pixel_values, small_config, small_processor
from torch.profiler import ProfilerActivity, profile, record_function
from training_step import Recipe

from common_idc.atomic_files import write_json
from common_idc.commands import run_command

IMAGES, REST = "images to tensors", "the rest"
PARTS = {  # name -> path of the module in BLIP-2
    "vision encoder": "vision_model",
    "Q-Former": "qformer",
    "language model": "language_model.model.decoder",
    "output layer": "language_model.lm_head",
}
BACKWARD, OPTIMIZER = "backward", "optimizer"

Times = dict[str, float]


@contextlib.contextmanager
def named_parts(model: Any) -> Iterator[None]:
    """Make the profiler see the forward passes of PARTS by their names."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    open_ranges: list[Any] = []

    def enter(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            open_ranges.append(record_function(name))
            open_ranges[-1].__enter__()

        return hook

    def leave(*_: Any) -> None:
        open_ranges.pop().__exit__(None, None, None)

    handles = []
    for name, path in PARTS.items():
        module = model.get_submodule(path)
        handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def times_of(model: Any, run: Callable[[], Any]) -> Times:
    """Return the seconds of CPU time of the parts of a run, after one run that is not measured."""
    run()
    with named_parts(model), profile(activities=[ProfilerActivity.CPU]) as profiler:
        started = time.process_time()
        run()
        total = time.process_time() - started
    found = dict.fromkeys([IMAGES, *PARTS, BACKWARD, OPTIMIZER], 0.0)
    for event in profiler.key_averages():
        if event.key in found:
            found[event.key] += event.cpu_time_total / 1e6
        elif event.key.startswith("autograd::engine::evaluate_function"):
            found[BACKWARD] += event.cpu_time_total / 1e6
        elif event.key.startswith("Optimizer.step"):
            found[OPTIMIZER] += event.cpu_time_total / 1e6
    return {**found, REST: max(0.0, total - sum(found.values()))}


def training_times(recipe: Recipe, batch: int) -> Times:
    """Return the times of a training step, its images included."""
    processor = small_processor()
    files = generation.draw_files(batch)
    inputs = training_step.training_inputs(processor, batch)
    model = training_step.make_model(recipe, small_config())
    given = training_step.plain_inputs(inputs, processor) if recipe.plain else inputs
    step = training_step.make_step(recipe, model, given)

    def run() -> None:
        with record_function(IMAGES):
            load(processor, files, recipe.plain)
        step()

    return times_of(model, run)


def load(processor: Any, files: list[generation.Files], plain: bool) -> torch.Tensor:
    """Return the canvases of pairs of files."""
    if plain:
        return pixel_values(processor, files)
    return processor(*map(list, zip(*files, strict=True)))["pixel_values"]


def generation_times(batch: int) -> tuple[Times, Times]:
    """Return the times of a batch of captions, from files to tokens: the original's and ours."""
    setting = generation.Setting()
    processor, files = small_processor(), generation.draw_files(batch)
    models = generation.make_models(setting, processor)

    def theirs() -> None:
        with record_function(IMAGES):
            pixels = load(processor, files, plain=True)
        generation.original_tokens(models, setting, pixels)

    def ours() -> None:
        with record_function(IMAGES):
            pairs = generation.load_pairs(models, files)
        generation.captions_about(generation.encoded(models, setting, pairs), **generation.decoding(setting))

    return times_of(models.plain, theirs), times_of(models.merged, ours)


def measure(batch: int) -> dict[str, Times]:
    """Return the times of each bar."""
    before, after = generation_times(batch)
    return {
        "training step, the original's recipe": training_times(training_step.RECIPES["baseline"], batch),
        "training step, float32": training_times(training_step.RECIPES["float32"], batch),
        "training step, bfloat16": training_times(training_step.RECIPES["bfloat16"], batch),
        "captions, the original's recipe": before,
        "captions, ours": after,
    }


def draw(bars: dict[str, Times], batch: int, file: Path) -> None:
    """Draw a horizontal bar per run, its parts one after the other."""
    colors = dict(zip([IMAGES, *PARTS, BACKWARD, OPTIMIZER, REST], colormaps["tab10"].colors, strict=False))
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes, longest = figure.subplots(), max(sum(times.values()) for times in bars.values())
    for name, times in reversed(bars.items()):
        start = 0.0
        for part, seconds in times.items():
            axes.barh(name, seconds, left=start, color=colors[part], edgecolor="white", linewidth=0.5)
            start += seconds
        axes.text(start, name, f" {start:.1f} s", va="center")
    axes.set(xlabel=f"seconds of CPU time for {batch} pairs", xlim=(0, 1.08 * longest))
    axes.spines[["top", "right"]].set_visible(False)
    handles = [Patch(color=color, label=part) for part, color in colors.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(file, dpi=110)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=BATCH, help="pairs (default: %(default)s)")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", required=True)
    parser.add_argument("--results", type=Path, metavar="FILE.json", help="write the seconds here")
    arguments = parser.parse_args(argv)

    def command() -> None:
        torch.set_num_threads(1)
        bars = measure(arguments.batch_size)
        draw(bars, arguments.batch_size, arguments.plot)
        for name, times in bars.items():
            print(f"{name}: " + ", ".join(f"{part} {seconds:.2f} s" for part, seconds in times.items() if seconds))
        if arguments.results:
            write_json(arguments.results, {"pairs": arguments.batch_size, "seconds": bars})

    return run_command(command, ValueError, OSError)


if __name__ == "__main__":
    sys.exit(main())
