"""One training step of ours against the original's: CPU time, peak memory, and the same losses.

    python measurements/training_step.py
    python measurements/training_step.py --output rows.json

The baseline is a plain loop with plain BLIP-2 and PEFT: float32, captions padded to 30 tokens, logits of every
position, AdamW. Both have the same weights, adapters, canvases and captions; their losses are compared in each row.
`train.py` takes ours as `Recipe()` says it, in its default precision, bfloat16; on a CPU, attention is eager.
"""

import argparse
import gc
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import original_recipe
import torch
from original_recipe import padded, small_config, small_model, small_processor
from paired import REPEATS, Row, compare, ratio_row, run_measurement
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import Blip2Config, Blip2ForConditionalGeneration
from transformers.utils import logging

from captioner_idc.adapters import add_lora, checkpoint_activations, make_optimizer
from captioner_idc.families import FAMILIES
from dataset_syned.benchmarks.toy import ToyConfig, draw_row
from modeling_blip2idc import Blip2IdcConfig, Blip2IdcForConditionalGeneration

BATCH = 4  # pairs; the original's 16 would take four times as long
RANK = 8
RATE = 1e-4
PARTS = ("vision", "qformer", "language")
SAME = {torch.float32: 1e-4, torch.bfloat16: 0.05}  # largest difference of a loss from the baseline's
MEMORY_UNIT = "MB of memory for weights and step"

Step = Callable[[], float]


@dataclass(frozen=True)
class Recipe:
    """How a step is taken.

    Args:
        plain: the baseline's model, captions and optimizer.
        dtype: of the frozen weights, and of the arithmetic under autocast.
        kept: the vision encoder's features are there already; `parts` are then without vision.
        compiled: by torch.compile.
    """

    plain: bool = False
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    attention: str = "eager"
    parts: tuple[str, ...] = PARTS
    checkpointing: bool = False
    kept: bool = False
    compiled: bool = False


RECIPES = {
    "baseline": Recipe(plain=True, attention="sdpa"),  # the default of transformers
    "float32": Recipe(),
    "bfloat16": Recipe(dtype=torch.bfloat16),
    "bfloat16, activations computed twice": Recipe(dtype=torch.bfloat16, checkpointing=True),
}


def training_inputs(processor: Any, batch: int) -> dict[str, torch.Tensor]:
    """Return the inputs of `batch` drawn pairs, with labels, for our model."""
    rows = [draw_row(ToyConfig(), "train", index) for index in range(batch)]
    befores, afters = ([Image.open(io.BytesIO(row[side]["bytes"])) for row in rows] for side in ("before", "after"))
    return dict(processor(before=befores, after=afters, captions=[row["captions"][0] for row in rows]))


def plain_inputs(inputs: dict[str, torch.Tensor], processor: Any) -> dict[str, torch.Tensor]:
    """Return the same with captions padded as the original pads them."""
    given = int((inputs["labels"][0] >= 0).nonzero()[0])
    return {**inputs, **padded(inputs, given, processor.tokenizer.pad_token_id)}


def make_model(recipe: Recipe, config: Blip2Config) -> Any:
    """Return a BLIP-2 with random weights and LoRA, both the same for each recipe with the same parts.

    Args:
        config: of the sizes, e.g. `small_config()` or `full_size.full_size_config()`.
    """
    with torch.device(recipe.device):  # a GPU draws the weights of full size in seconds
        if recipe.plain:
            model = small_model(Blip2ForConditionalGeneration, config)
        else:
            sizes = {name: value for name, value in config.to_dict().items() if name != "model_type"}
            model = small_model(Blip2IdcForConditionalGeneration, Blip2IdcConfig.from_dict(sizes))
    model = model.to(recipe.device, recipe.dtype)
    model.set_attn_implementation(recipe.attention)
    if not recipe.plain:
        model = add_lora(model, RANK, 2 * RANK, 0.0, 0, recipe.parts)
    else:
        targets = "|".join(FAMILIES["blip2"].lora_targets[part] for part in recipe.parts)
        torch.manual_seed(0)
        settings = LoraConfig(r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules=targets)
        model = get_peft_model(model, settings)
    if recipe.checkpointing:
        checkpoint_activations(model)
    return model.train()


def make_step(recipe: Recipe, model: Any, inputs: dict[str, torch.Tensor], rate: float = RATE) -> Step:
    """Return a function that trains a model on inputs for one step and returns the loss."""
    inputs = {name: values.to(recipe.device) for name, values in inputs.items()}
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    autocast = torch.autocast(recipe.device, recipe.dtype, enabled=recipe.dtype != torch.float32)
    if recipe.kept:
        with torch.no_grad(), autocast:
            inputs["vision_features"] = model.get_base_model().encode_vision(inputs.pop("pixel_values"))
    optimizer = torch.optim.AdamW(trained, lr=rate) if recipe.plain else make_optimizer(model, rate, 0.01)
    run = torch.compile(model) if recipe.compiled else model

    def step() -> float:
        with autocast:
            loss = run(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()  # waits for a GPU

    return step


def new_step(recipe: Recipe, config: Blip2Config | None = None, batch: int = BATCH, rate: float = RATE) -> Step:
    """Return `make_step` of a new model and drawn pairs; by default the small model's."""
    processor = small_processor()
    inputs = training_inputs(processor, batch)
    inputs = plain_inputs(inputs, processor) if recipe.plain else inputs
    return make_step(recipe, make_model(recipe, config or small_config()), inputs, rate)


def time_row(
    what: str,
    baseline: tuple[str, Recipe],
    ours: Recipe,
    at_least: float | None,
    repeats: int = REPEATS,
    **options: Any,
) -> Row:
    """Return the row of the time of two recipes' steps.

    Args:
        options: of `new_step`.

    Raises: ValueError as `steps_row` does.
    """
    name, theirs = baseline
    steps = [new_step(recipe, **options) for recipe in (theirs, ours)]
    return steps_row(what, name, steps, ours, at_least, repeats)


def steps_row(
    what: str, baseline: str, steps: list[Step], ours: Recipe, at_least: float | None, repeats: int = REPEATS
) -> Row:
    """Return the row of the time of two steps, theirs and ours.

    Raises: ValueError if their losses differ by more than the precision of ours explains.
    """
    losses: list[list[float]] = [[], []]
    timed = [lambda number=number: losses[number].append(steps[number]()) for number in range(2)]
    clock = time.process_time if ours.device == "cpu" else time.perf_counter
    row = compare(what, baseline, *timed, at_least, repeats, clock)
    difference = max(abs(a - b) for a, b in zip(*losses, strict=True))
    if difference > SAME[ours.dtype]:
        raise ValueError(f"{what}: the losses differ by {difference:.3g} from those of {baseline}")
    return row


def peak_memory(recipe: Recipe, repeats: int = REPEATS, **options: Any) -> list[float]:
    """Return the peak memory of each of some steps, weights included, in MB.

    On a CPU it is that of this process (Linux only) less what it had before, so call it in a new process.

    Args:
        options: of `new_step`.
    """
    before = _resident("VmRSS")
    return peaks_of(new_step(recipe, **options), recipe.device, before, repeats)


def peaks_of(step: Step, device: str, before: float = 0.0, repeats: int = REPEATS) -> list[float]:
    """Return the peak memory of each of some steps in MB.

    Args:
        before: what this process had without the model, where `device` is a CPU.
    """
    step()  # the optimizer gets its state
    peaks = []
    for _ in range(repeats):
        gc.collect()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            step()
            peaks.append(torch.cuda.max_memory_allocated() / 1e6)
        else:
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
            step()
            peaks.append(_resident("VmHWM") - before)
    return peaks


def _resident(name: str) -> float:
    """Return a number of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(name))


def memory_row(what: str, theirs: str, ours: str, at_most: float) -> Row:
    """Return the row of the peak memory of two of RECIPES, each in a process of its own."""
    peaks = []
    # Freed memory goes back to the system at once, instead of being counted.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    for name in (theirs, ours):
        command = [sys.executable, __file__, "--memory", name]
        output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
        peaks.append(json.loads(output.splitlines()[-1]))
    return ratio_row(what, theirs, list(zip(*peaks, strict=True)), unit=MEMORY_UNIT, at_most=at_most)


def measure(arguments: argparse.Namespace) -> list[Row]:
    """Return the rows for this CPU."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    names = [name for name in RECIPES if name != "baseline"]
    baseline = (original_recipe.NAME, RECIPES["baseline"])
    bf16 = RECIPES["bfloat16"]
    without = replace(bf16, parts=("qformer", "language"))
    rows = [time_row(f"training step, {name}", baseline, RECIPES[name], at_least=1.5) for name in names[:2]]
    rows += [
        time_row("training step, activations computed once", (names[2], RECIPES[names[2]]), bf16, None),
        time_row("training step, vision without adapter", ("all parts adapted", bf16), without, None),
        time_row("training step, vision features kept", ("not kept", without), replace(without, kept=True), None),
    ]
    return rows + [memory_row(f"memory of a step, {name}", "baseline", name, at_most=0.6) for name in names]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--memory", choices=RECIPES, help="print the peak memory of this recipe's steps and end")
    name = parser.parse_known_args()[0].memory
    if name is None:
        return run_measurement(measure, parser)
    torch.set_num_threads(1)
    print(json.dumps(peak_memory(RECIPES[name])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
