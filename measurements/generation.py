"""Captions, likely sentences and the probability of a change: against the original's loop and against single passes.

    python measurements/generation.py
    python measurements/generation.py --output generation.json

1. From two JPEG files to tokens, in batches of 16. The baseline is the original's recipe: the pair stacked at full
   size, the adapter beside the weights, `generate`.
2. Caption, five best sentences and the probability of a change. The baseline asks one question at a time, so that the
   images are encoded anew for each sentence.
3. What evaluate.py computes of a pair with --change_probability: that, and captions of the images exchanged and of the
   image before given twice. The baseline also loads the images for each question.
4. How near ours is to two floors, as shares: the arithmetic of the image encoder, counted from its shapes, at the rate
   that a large matrix product reaches here; and the bytes of the decoder's weights, read once per token, at the rate
   at which memory can be read here.

Both have the same random weights, and must give the same tokens and likelihoods, or it ends with an error.
"""

import argparse
import copy
import io
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from original_recipe import BATCH, NAME, pixel_values, small_config, small_model, small_processor
from paired import REPEATS, Row, compare, ratio_row, run_measurement
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import Blip2Config

from captioner_idc.adapters import add_lora, merged
from captioner_idc.captioning import captions_about
from captioner_idc.change_probability import BEAMS, UNCHANGED, Calibration, compare_about
from captioner_idc.encoded_pairs import EncodedPairs
from modeling_blip2idc import Blip2IdcConfig, Blip2IdcForConditionalGeneration

SINGLE = "one question at a time"
NEW_TOKENS = 20
SIZE = (640, 480)  # of the photographs

Files = tuple[bytes, bytes]


@dataclass(frozen=True)
class Setting:
    """What is measured on what.

    Args:
        config: of the model, whose weights are random.
        new_tokens: of each caption; none ends earlier.
        repeats: of each measurement.
    """

    config: Blip2Config = field(default_factory=small_config)
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    new_tokens: int = NEW_TOKENS
    repeats: int = REPEATS

    def clock(self) -> float:
        """Return seconds: of CPU time, or on a GPU of the wall clock once it has finished."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.accelerator.synchronize()
        return time.perf_counter()


@dataclass(frozen=True)
class Models:
    """The same weights three times: the library's BLIP-2 with its adapter, ours with it, and ours with it merged."""

    plain: Any
    adapted: Any
    merged: Any
    processor: Any


def make_models(setting: Setting, processor: Any) -> Models:
    """Return models whose adapter changes what they say."""
    values = {name: value for name, value in setting.config.to_dict().items() if name != "model_type"}
    with torch.device(setting.device):
        plain = small_model(config=setting.config)
        ours = small_model(Blip2IdcForConditionalGeneration, Blip2IdcConfig(**values))
    adapted = []
    for model in (plain, ours):
        model = add_lora(model.to(setting.dtype), 8, 16, 0.0, 0)
        generator = torch.Generator().manual_seed(1)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.02)
        adapted.append(model.eval())
    # beam search writes as many tokens as the processor allows
    processor = processor.with_settings(max_caption_length=setting.new_tokens)
    return Models(*adapted, merged(copy.deepcopy(adapted[1])), processor)


def draw_files(pairs: int) -> list[Files]:
    """Return pairs of JPEG files: smooth noise, the image after with a patch of another color."""
    random, found = np.random.default_rng(0), []
    for _ in range(pairs):
        rough = random.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        changed = rough.copy()
        changed[3:7, 4:9] = random.integers(0, 255, 3)
        found.append(tuple(_jpeg(Image.fromarray(each).resize(SIZE)) for each in (rough, changed)))
    return found


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def decoding(setting: Setting) -> dict[str, Any]:
    """Return the keywords of `generate`."""
    tokens = setting.new_tokens
    return {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "pad_token_id": 1}


@torch.inference_mode()
def original_tokens(models: Models, setting: Setting, pixels: torch.Tensor) -> torch.Tensor:
    """Return what the original's `generate` writes about canvases, [B, new]."""
    ids = torch.full((len(pixels), models.processor.num_query_tokens), models.processor.image_token_id)
    ids = torch.nn.functional.pad(ids, (0, 1), value=models.processor.tokenizer.bos_token_id).to(setting.device)
    inputs = {"pixel_values": pixels.to(setting.device, setting.dtype), "input_ids": ids}
    tokens = models.plain.generate(**inputs, attention_mask=torch.ones_like(ids), **decoding(setting))
    return tokens[:, -setting.new_tokens :]


def load_pairs(models: Models, files: Sequence[Files]) -> list[Any]:
    """Return both images of each pair as the network sees them."""
    return [models.processor.load_pair(*pair, "a pair") for pair in files]


def encoded(models: Models, setting: Setting, pairs: Sequence[Any], model: Any = None) -> EncodedPairs:
    """Return loaded pairs after the image encoder of a model, by default that with the merged adapter."""
    return EncodedPairs(models.merged if model is None else model, models.processor, pairs)


def check_tokens(models: Models, setting: Setting, files: Sequence[Files]) -> None:
    """Raise ValueError unless both write the same about the same canvases."""
    pixels = pixel_values(models.processor, list(files))
    about = encoded(models, setting, load_pairs(models, files))
    given = {name: about.inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        about.inputs = models.merged.encode_images(pixels.to(setting.device, setting.dtype), **given)
    same = (about.generate(**decoding(setting)) == original_tokens(models, setting, pixels)).float().mean().item()
    if same < (1 if setting.dtype == torch.float32 else 0.5):  # in 16 bits, near ties fall either way
        raise ValueError(f"only {same:.0%} of the tokens are those of {NAME}")


def measure_captions(models: Models, setting: Setting, pairs: int = BATCH, at_least: float | None = None) -> Row:
    """Return the row of captions, from files to tokens."""
    files = draw_files(pairs)
    check_tokens(models, setting, files[:4])

    def theirs() -> None:
        original_tokens(models, setting, pixel_values(models.processor, files))

    def ours() -> None:
        captions_about(encoded(models, setting, load_pairs(models, files)), **decoding(setting))

    what = f"{pairs} pairs of files to captions of {setting.new_tokens} tokens"
    return compare(what, NAME, theirs, ours, at_least, setting.repeats, setting.clock)


@torch.inference_mode()
def single_score(models: Models, setting: Setting, pair: Any, sentence: str) -> float:
    """Return the log-likelihood of one sentence, for which the images are encoded."""
    inputs = models.processor(*pair, captions=sentence).to(setting.device)
    inputs["pixel_values"] = inputs["pixel_values"].to(setting.dtype)
    return -models.adapted(**inputs, num_items_in_batch=1).loss.item()


def single_answers(models: Models, setting: Setting, pair: Any) -> tuple[list[str], list[float]]:
    """Return the likely sentences about a pair, and the log-likelihoods of these and of those that say no change."""
    options = {**decoding(setting), "num_beams": BEAMS, "num_return_sequences": BEAMS}
    encoded(models, setting, [pair], models.adapted).generate(**decoding(setting))
    tokens = encoded(models, setting, [pair], models.adapted).generate(**options)
    texts = models.processor.batch_decode(tokens, skip_special_tokens=True)
    found = list(dict.fromkeys(filter(None, (" ".join(text.split()) for text in texts))))
    return found, [single_score(models, setting, pair, text) for text in (*found, *UNCHANGED)]


def shared_answers(models: Models, setting: Setting, pairs: Sequence[Any]) -> list[tuple[Any, float]]:
    """Return what `compare_about` returns, after the captions, from one encoding of the images."""
    about = encoded(models, setting, pairs)
    captions_about(about, **decoding(setting))
    return compare_about(about, Calibration(UNCHANGED))


def check_scores(models: Models, setting: Setting, pairs: Sequence[Any]) -> None:
    """Raise ValueError unless shared passes give the likelihoods of single ones."""
    asked = [[*UNCHANGED, "the red ball has been removed"]] * len(pairs)
    shared = encoded(models, setting, pairs).log_likelihoods(asked)
    single = [[single_score(models, setting, pair, text) for text in asked[0]] for pair in pairs]
    difference = np.abs(np.array(shared) - np.array(single)).max()
    if difference > (1e-2 if setting.dtype == torch.float32 else 2.0):  # of about -100
        raise ValueError(f"log-likelihoods of shared passes differ by {difference:g} from those of single ones")


def measure_answers(models: Models, setting: Setting, count: int = 1) -> Row:
    """Return the row of caption, likely sentences and probability of a change."""
    pairs = load_pairs(models, draw_files(count))
    check_scores(models, setting, pairs)
    return compare(
        f"caption, {BEAMS} best sentences and probability of a change, pairs: {count}",
        SINGLE,
        lambda: [single_answers(models, setting, pair) for pair in pairs],
        lambda: shared_answers(models, setting, pairs),
        repeats=setting.repeats,
        clock=setting.clock,
    )


def measure_evaluation(models: Models, setting: Setting, count: int = 1, at_least: float | None = None) -> Row:
    """Return the row of all that evaluate.py computes of a pair."""
    files = draw_files(count)

    def theirs() -> None:
        for controls in (lambda a, b: (b, a), lambda a, b: (a, a)):
            about = load_pairs(models, [controls(*pair) for pair in files])
            encoded(models, setting, about, models.adapted).generate(**decoding(setting))
        for pair in load_pairs(models, files):
            single_answers(models, setting, pair)

    def ours() -> None:
        pairs = load_pairs(models, files)
        shared_answers(models, setting, pairs)
        for about in ([pair[::-1] for pair in pairs], [(pair[0], pair[0]) for pair in pairs]):
            captions_about(encoded(models, setting, about), **decoding(setting))

    what = f"captions, input controls and probability of a change, pairs: {count}"
    return compare(what, SINGLE, theirs, ours, at_least, setting.repeats, setting.clock)


def measure_floors(models: Models, setting: Setting, pairs: int = BATCH) -> list[Row]:
    """Return the rows of the shares of the two floors that ours reaches."""
    about = encoded(models, setting, load_pairs(models, draw_files(pairs)))
    inputs = models.processor(*map(list, zip(*load_pairs(models, draw_files(pairs)), strict=True)))
    pixels, vision = inputs["pixel_values"].to(setting.device, setting.dtype), models.merged.vision_model
    options = {"interpolate_pos_encoding": True}
    work = count_operations(setting.config, pixels.shape)
    weights = sum(weight.nbytes for weight in models.merged.language_model.parameters())

    def encode() -> None:
        with torch.inference_mode():
            vision(pixels, **options)

    floors = {
        f"image encoder of {pairs} pairs ({work / 1e9:.0f} GFLOP)": (
            "its arithmetic at the rate of a matrix product",
            lambda: work / matrix_rate(setting),
            encode,
        ),
        f"{setting.new_tokens} tokens of {pairs} captions ({weights / 1e6:.0f} MB of weights)": (
            "its weights read once per token",
            lambda: weights * setting.new_tokens / memory_rate(setting),
            lambda: about.generate(**decoding(setting)),
        ),
    }
    rows = []
    for what, (floor, least, run) in floors.items():
        run()
        times = [(least(), _seconds(run, setting)) for _ in range(setting.repeats)]
        rows.append(ratio_row(what, floor, times, unit="s"))
    return rows


def count_operations(config: Blip2Config, shape: torch.Size) -> int:
    """Return the floating-point operations of the image encoder, a multiplication and an addition counting as two."""
    config = copy.deepcopy(config)
    config._attn_implementation = "eager"  # its products are counted; those of fused attention are not on every device
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        small_model(config=config).vision_model(torch.empty(shape), interpolate_pos_encoding=True)
    return counter.get_total_flops()


def matrix_rate(setting: Setting, side: int = 2048) -> float:
    """Return the operations per second of a large matrix product."""
    factor = torch.randn(side, side, device=setting.device, dtype=setting.dtype)
    factor @ factor
    return 2 * side**3 / _seconds(lambda: factor @ factor, setting)


def memory_rate(setting: Setting, size: int = 2**28) -> float:
    """Return the bytes per second at which a large tensor is read."""
    values = torch.ones(size // 4, device=setting.device)
    values.sum()
    return size / _seconds(lambda: values.sum(), setting)


def _seconds(run: Callable[[], Any], setting: Setting) -> float:
    started = setting.clock()
    run()
    return setting.clock() - started


def measure_all(setting: Setting, processor: Any) -> list[Row]:
    """Return all rows."""
    models = make_models(setting, processor)
    rows = [measure_captions(models, setting), measure_answers(models, setting)]
    return [*rows, measure_evaluation(models, setting, at_least=2.0), *measure_floors(models, setting)]


def measure(_: argparse.Namespace) -> list[Row]:
    """Return all rows of the small model on one core."""
    torch.set_num_threads(1)
    return measure_all(Setting(), small_processor())


if __name__ == "__main__":
    sys.exit(run_measurement(measure, argparse.ArgumentParser(description=__doc__.split("\n")[0])))
