"""Speed at full size against the plain loops, for `full_size.py --gpu`: BLIP-2 OPT-2.7B and Qwen3-VL-2B.

Of BLIP-2, the baseline is the original's recipe; of Qwen3-VL, the plain model of transformers with PEFT: captions
padded to 30 tokens, logits of every position, the adapter beside the weights. Goals: a training step of at most half
the baseline's time and 60 % of its memory, five times its captions per second.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import generation
import torch
import training_step
from full_size import full_size_config, make_checkpoint, qwen3_vl_config, toy_sentences
from original_recipe import BATCH, CAPTION_TOKENS, NAME, small_config, small_processor
from paired import Row, compare, ratio_row
from tiny_vlm_from_scratch import PIXELS, build_config, build_processor, build_tokenizer, image_ids
from training_step import RANK, Recipe
from transformers import AutoModelForImageTextToText

from captioner_idc.adapters import add_lora, merged
from captioner_idc.captioning import captions_about
from captioner_idc.encoded_pairs import EncodedPairs
from captioner_idc.loading import load

PLAIN = "plain transformers and PEFT"
SMALL_BATCH = 2  # pairs, where a CPU does the work


@dataclass(frozen=True)
class Place:
    """Where it is measured, and how large.

    Args:
        small: small shapes instead of the full ones, to see that everything runs.
    """

    device: str
    dtype: torch.dtype
    small: bool

    @property
    def batch(self) -> int:
        """Return the pairs of a batch."""
        return SMALL_BATCH if self.small else BATCH

    def recipe(self, plain: bool) -> Recipe:
        """Return how a training step is taken."""
        return Recipe(plain=plain, device=self.device, dtype=self.dtype, attention="sdpa")


def choose_place(small: bool) -> Place:
    """Return the GPU, or the CPU for small shapes where there is none.

    Raises: ValueError for full shapes without a GPU.
    """
    if torch.cuda.is_available():
        return Place("cuda", torch.bfloat16, small)
    if not small:
        raise ValueError("--gpu needs a CUDA GPU with 80 GB: add --small to run small shapes on the CPU")
    return Place("cpu", torch.float32, small)


def measure(small: bool) -> list[Row]:
    """Return the rows of both models."""
    place = choose_place(small)
    return [*blip2_rows(place), *qwen_rows(place)]


def blip2_rows(place: Place) -> list[Row]:
    """Return the rows of BLIP-2: training step, its memory, captions, and everything that is asked about a pair."""
    config = small_config() if place.small else full_size_config()
    options = {"config": config, "batch": place.batch}
    plain, ours = place.recipe(plain=True), place.recipe(plain=False)
    rows = [training_step.time_row("BLIP-2: training step", (NAME, plain), ours, 2.0, **options)]
    if place.device == "cuda":
        peaks = [training_step.peak_memory(recipe, **options) for recipe in (plain, ours)]
        rows.append(memory_row("BLIP-2: memory of a step", NAME, peaks))
    setting = generation.Setting(config, torch.device(place.device), place.dtype)
    models = generation.make_models(setting, small_processor())
    rows.append(generation.measure_captions(models, setting, place.batch, at_least=5.0))
    rows.append(generation.measure_evaluation(models, setting, SMALL_BATCH, at_least=2.0))
    rows += generation.measure_floors(models, setting, place.batch)
    return [row | {"what": row["what"] if "BLIP-2" in row["what"] else f"BLIP-2: {row['what']}"} for row in rows]


def qwen_rows(place: Place) -> list[Row]:
    """Return the rows of Qwen3-VL: training step, its memory, captions."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_qwen(Path(folder) / "qwen", place.small)
        options = {"dtype": place.dtype, "attn_implementation": "sdpa"}
        theirs = AutoModelForImageTextToText.from_pretrained(checkpoint, **options).to(place.device)
        settings = {"pixels": PIXELS["two_images"], "max_caption_length": CAPTION_TOKENS} if place.small else {}
        ours, processor = load(checkpoint, device=place.device, processor=settings, trainable=True, **options)
    models = [add_lora(model, RANK, 2 * RANK, 0.0, 0).train() for model in (theirs, ours)]
    inputs = training_step.training_inputs(processor, place.batch)
    both = (padded_captions(inputs, processor), inputs)
    recipes = (place.recipe(plain=True), place.recipe(plain=False))
    steps = [training_step.make_step(*each) for each in zip(recipes, models, both, strict=True)]
    rows = [training_step.steps_row("Qwen3-VL: training step", PLAIN, steps, recipes[1], 2.0)]
    if place.device == "cuda":
        peaks = [training_step.peaks_of(step, place.device) for step in steps]
        rows.append(memory_row("Qwen3-VL: memory of a step", PLAIN, peaks))
    return [*rows, qwen_captions(place, models, processor)]


def write_qwen(folder: Path, small: bool) -> str:
    """Write a Qwen3-VL with random weights; return the folder."""
    tokenizer = build_tokenizer(toy_sentences(2000))
    config = build_config(tokenizer) if small else qwen3_vl_config()
    for name, value in image_ids(tokenizer).items():
        setattr(config, name, value)
    text = config.get_text_config()
    text.pad_token_id, text.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    make_checkpoint(folder, config, processor=build_processor(tokenizer, config.vision_config.patch_size))
    return str(folder)


def padded_captions(inputs: dict[str, torch.Tensor], processor: Any) -> dict[str, torch.Tensor]:
    """Return inputs with every caption padded to CAPTION_TOKENS."""
    length = inputs["input_ids"].shape[1]
    missing = max(0, int((inputs["labels"][0] >= 0).nonzero()[0]) + CAPTION_TOKENS - length)
    fills = {"input_ids": processor.tokenizer.pad_token_id, "labels": -100}
    return {
        name: torch.nn.functional.pad(values, (0, missing), value=fills.get(name, 0))
        if values.ndim == 2 and values.shape[1] == length
        else values
        for name, values in inputs.items()
    }


def qwen_captions(place: Place, models: list[Any], processor: Any) -> Row:
    """Return the row of captions. Raises: ValueError if they are not the baseline's."""
    plain, ours = models[0].eval(), merged(models[1])
    setting = generation.Setting(device=torch.device(place.device), dtype=place.dtype)
    options = generation.decoding(setting) | {"pad_token_id": processor.tokenizer.pad_token_id}
    files = generation.draw_files(place.batch)

    def their_tokens() -> torch.Tensor:
        inputs = processor(*map(list, zip(*files, strict=True))).to(place.device)
        with torch.inference_mode():
            return plain.generate(**inputs, **options)[:, -setting.new_tokens :]

    def our_pairs() -> EncodedPairs:
        return EncodedPairs(ours, processor, [processor.load_pair(*pair, "a pair") for pair in files])

    same = (our_pairs().generate(**options) == their_tokens()).float().mean().item()
    if same < (1 if place.dtype == torch.float32 else 0.5):  # in 16 bits, near ties fall either way
        raise ValueError(f"only {same:.0%} of the tokens are those of {PLAIN}")
    what = f"Qwen3-VL: {place.batch} pairs of files to captions of {setting.new_tokens} tokens"
    run: Callable[[], Any] = lambda: captions_about(our_pairs(), **options)  # noqa: E731
    return compare(what, PLAIN, their_tokens, run, 5.0, clock=setting.clock)


def memory_row(what: str, baseline: str, peaks: list[list[float]]) -> Row:
    """Return the row of the peak memory of steps, theirs and ours."""
    return ratio_row(what, baseline, list(zip(*peaks, strict=True)), unit=training_step.MEMORY_UNIT, at_most=0.6)
