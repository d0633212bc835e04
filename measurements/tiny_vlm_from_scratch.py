"""Train a tiny Qwen3-VL from random weights on the toy benchmark, once per pair layout: a test of the plumbing.

    python measurements/tiny_vlm_from_scratch.py                                          # some minutes per layout
    python measurements/tiny_vlm_from_scratch.py --layouts two_images --steps 2000        # one layout, longer

All weights are trained, through the processor that users of large models train with. A layout passes if the model
does better than the best sentence that ignores the images. What it scores says nothing about large models, which
have seen millions of images before. Models, logs and scores stay in runs/; the same command continues with the
first layout that has no scores.
"""

import argparse
import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)

from captioner_idc.chat_models import NotLoaded, image_token_id, images_only
from captioner_idc.chat_pairs import LAYOUTS, PROMPT, PairLayout
from captioner_idc.loading import load
from common_idc.atomic_files import write_json
from common_idc.commands import run_command
from dataset_syned import load_benchmark
from dataset_syned.benchmarks.toy import ToyConfig
from metric_idc import corpus_scores, read_predictions, read_result
from metric_idc.comparison import renew_table
from run_idc import paths

REPOSITORY = Path(__file__).resolve().parent.parent
SETTINGS = ("steps", "batch_size", "learning_rate", "pairs", "seed", "bf16")  # that a result depends on
WARMUP, LOG_EVERY = 100, 25  # steps
WIDTH, HEADS, PATCH, MERGE = 128, 4, 8, 2
TURN = "<|im_start|>", "<|im_end|>"
IMAGE = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    + "".join(IMAGE)
    + "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Pixels of an image that give 18 tokens, or 32 for the one grid of two frames (toy images have 128 x 64 pixels).
PIXELS: dict[PairLayout, int] = {**dict.fromkeys(LAYOUTS, 96 * 48), "two_frames": 128 * 64}
MARKS = ("<!-- tiny vision-language models: generated -->", "<!-- tiny vision-language models: end -->")


def build_tokenizer(sentences: list[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE whose tokens are mostly the words of the sentences."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        special_tokens=["<|pad|>", *TURN, *IMAGE, "<|video_pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*sentences, *[f"user\nassistant\n{PROMPT}"] * 100], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token=TURN[1])


def build_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLConfig:
    vision = {
        **{"depth": 3, "hidden_size": WIDTH, "intermediate_size": 3 * WIDTH, "num_heads": HEADS},
        **{"patch_size": PATCH, "spatial_merge_size": MERGE, "temporal_patch_size": 2},
        **{"num_position_embeddings": 16 * 16, "out_hidden_size": WIDTH, "deepstack_visual_indexes": [1]},
    }
    text = {
        **{"hidden_size": WIDTH, "intermediate_size": 3 * WIDTH, "num_hidden_layers": 3, "tie_word_embeddings": True},
        **{"num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": WIDTH // HEADS},
        **{"max_position_embeddings": 512, "vocab_size": len(tokenizer)},
        **{"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None},
        # half of the numbers of a head for time, and a quarter each for row and column
        "rope_parameters": {
            **{"rope_type": "default", "rope_theta": 10000.0},
            **{"mrope_section": [8, 4, 4], "mrope_interleaved": True},
        },
    }
    return Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **image_ids(tokenizer))


def image_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Return the ids of the tokens of images, as a config has them."""
    names = dict(zip(("vision_start", "image", "vision_end"), IMAGE, strict=True)) | {"video": "<|video_pad|>"}
    return {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def build_processor(tokenizer: PreTrainedTokenizerFast, patch: int = PATCH, tokens: int = 256) -> Qwen3VLProcessor:
    """Return a processor of images without videos.

    Args:
        patch: side in pixels.
        tokens: of an image, at most.
    """
    unit = (patch * MERGE) ** 2
    images = Qwen2VLImageProcessorPil(
        patch_size=patch, merge_size=MERGE, size={"shortest_edge": unit, "longest_edge": tokens * unit}
    )
    return images_only(Qwen3VLProcessor)(images, tokenizer, NotLoaded(), chat_template=TEMPLATE)


def save_random_model(folder: Path, sentences: list[str], seed: int) -> None:
    """Write a model with random weights and its processor, as a repository on the Hub has them."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(sentences)
    model = Qwen3VLForConditionalGeneration(build_config(tokenizer))
    model.generation_config.update(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    build_processor(tokenizer).save_pretrained(folder)
    model.save_pretrained(folder)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return a rate that rises in a line and then falls in a half cosine."""
    if step < WARMUP:
        return peak * (step + 1) / WARMUP
    return peak * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / max(1, steps - WARMUP)))


def batches(rows: Any, size: int, seed: int) -> Iterator[list[dict[str, Any]]]:
    """Yield batches of training pairs without end, in a new random order per epoch."""
    rng, order = random.Random(seed), []
    while True:
        if len(order) < size:
            order += rng.sample(range(len(rows)), len(rows))
        chosen, order = order[:size], order[size:]
        yield list(rows.select(chosen))


def training_inputs(processor: Any, rows: list[dict[str, Any]]) -> Any:
    """Return the inputs of a batch; the shortest reference of a pair is learned, so that wording is no riddle."""
    pairs = [processor.load_pair(row["before"], row["after"], row["pair_id"]) for row in rows]
    captions = [min(row["captions"], key=len) for row in rows]
    return processor([before for before, _ in pairs], [after for _, after in pairs], captions=captions)


def train(
    model: Any, processor: Any, rows: Any, arguments: argparse.Namespace, log: Callable[[dict[str, Any]], None]
) -> None:
    """Train all weights; `log` gets the mean loss of every stretch of steps."""
    torch.manual_seed(arguments.seed)
    model.requires_grad_(True).train()
    rate, steps = arguments.learning_rate, arguments.steps
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.02)
    losses, started = [], time.monotonic()
    for step, chosen in enumerate(islice(batches(rows, arguments.batch_size, arguments.seed), steps)):
        optimizer.param_groups[0]["lr"] = learning_rate(step, steps, rate)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=arguments.bf16):
            loss = model(**training_inputs(processor, chosen)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % LOG_EVERY == 0 or step + 1 == steps:
            mean, losses = sum(losses) / len(losses), []
            log({"step": step + 1, "loss": round(mean, 4), "seconds": round(time.monotonic() - started, 1)})


def make_model(layout: PairLayout, rows: Any, folder: Path, arguments: argparse.Namespace) -> None:
    """Write a trained model and its log."""
    save_random_model(folder / "random", [text for captions in rows["captions"] for text in captions], arguments.seed)
    settings = {"layout": layout, "pixels": PIXELS[layout], "max_caption_length": 32}
    # "eager": torch's fused attention is not faster on a CPU at these sizes
    model, processor = load(folder / "random", device="cpu", processor=settings, attn_implementation="eager")
    with (folder / "training.jsonl").open("w", encoding="utf-8") as file:

        def log(line: dict[str, Any]) -> None:
            print(json.dumps(line), file=file, flush=True)
            print(f"{layout}: {line}", file=sys.stderr)

        train(model, processor, rows, arguments, log)
    processor.save_whole(folder)
    model.save_pretrained(folder)


def evaluate(folder: Path, results: Path) -> None:
    """Score a model on the toy benchmark's test split. Raises: RuntimeError if that failed."""
    command = [sys.executable, str(REPOSITORY / "evaluate.py"), "--model", str(folder), "--benchmark", "toy"]
    done = subprocess.run([*command, "--output_dir", str(results)], stdout=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"evaluate.py ended with code {done.returncode}")


def finish(layout: PairLayout, rows: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return a row of the table, from an earlier run of the same command if there was one.

    Raises: ValueError if that run had other settings.
    """
    folder = arguments.output_dir / layout
    settings = {name: getattr(arguments, name) for name in SETTINGS}
    results, file = folder / paths.EVALUATIONS / "toy-test", folder / "settings.json"
    if file.is_file() and json.loads(file.read_text(encoding="utf-8")) != settings:
        raise ValueError(f"{str(folder)!r} was made with other settings: name another --output_dir.")
    if not (folder / "model.safetensors").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, settings)
        make_model(layout, rows, folder, arguments)
    if not (results / paths.METRICS).is_file():
        evaluate(folder, results)
    return row_of(layout, folder, results)


def row_of(layout: PairLayout, folder: Path, results: Path) -> dict[str, Any]:
    """Return what the table says about a layout; one control gives each pair the sentence of another."""
    result = read_result(results)
    last = json.loads((folder / "training.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    model, processor = load(folder, device="cpu")
    image = Image.new("RGB", (ToyConfig.width, ToyConfig.height))
    tokens = (processor(image, image)["input_ids"] == image_token_id(model.config)).sum()
    controls, rows = result["controls"], read_predictions(results / paths.PREDICTIONS)
    sentences = [row["prediction"] for row in rows]
    random.Random(0).shuffle(sentences)
    exchanged = [{**row, "prediction": sentence} for row, sentence in zip(rows, sentences, strict=True)]
    return {
        **{"layout": layout, "image_tokens": int(tokens), "steps": last["step"], "seconds": last["seconds"]},
        **{"loss": last["loss"], "CIDEr": result["scores"]["CIDEr"], "interval": result["intervals"]["CIDEr"]},
        **{"BLEU-4": result["scores"]["BLEU-4"], "change_type_accuracy": result["change_type_accuracy"]},
        "constant_caption": controls["constant_caption"]["scores"]["CIDEr"],
        "sentences_exchanged": corpus_scores(exchanged, ["CIDEr"])["CIDEr"],
        "same_image_twice": controls["same_image_twice"]["scores"]["CIDEr"],
        "sentence_differs_when_swapped": controls["swapped_images"]["sentence_differs"],
    }


def table_of(rows: list[dict[str, Any]]) -> str:
    """Return the Markdown table of the layouts and of the constant caption."""
    columns = ["layout", "image tokens per pair", "steps", "minutes", "last loss", "BLEU-4", "CIDEr [95 %]"]
    columns += ["change type accuracy", "CIDEr, sentences exchanged among pairs", "CIDEr, before image twice"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in rows:
        low, high = row["interval"]
        cells = [row["layout"], row["image_tokens"], row["steps"], f"{row['seconds'] / 60:.0f}", f"{row['loss']:.3f}"]
        cells += [f"{row['BLEU-4']:.3f}", f"{row['CIDEr']:.3f} [{low:.3f}, {high:.3f}]"]
        cells += [f"{row['change_type_accuracy']:.1%}"]
        cells += [f"{row[name]:.3f}" for name in ("sentences_exchanged", "same_image_twice")]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines.append(f"| constant caption | | | | | | {rows[0]['constant_caption']:.3f} | | | |")
    return "\n".join(lines)


def train_layouts(arguments: argparse.Namespace) -> None:
    """Train and score what is missing, and print the table."""
    train = load_benchmark("toy", "train", train=arguments.pairs)
    rows = [finish(layout, train, arguments) for layout in arguments.layouts]
    table, results = table_of(rows), arguments.results or arguments.output_dir
    settings = {name: getattr(arguments, name) for name in SETTINGS}
    results.mkdir(parents=True, exist_ok=True)
    write_json(results / "from_scratch.json", {"settings": settings, "rows": rows})
    if arguments.page:
        renew_table(arguments.page, table, MARKS)
    print(table)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS), help="default: all")
    add("--steps", type=int, default=800, help="of each layout (default: %(default)s)")
    add("--batch_size", type=int, default=32, help="pairs per step (default: %(default)s)")
    add("--learning_rate", type=float, default=1e-3, help="the highest (default: %(default)s)")
    add("--pairs", type=int, default=16_000, help="training pairs (default: %(default)s)")
    add("--seed", type=int, default=0, help="of weights and order (default: %(default)s)")
    add("--bf16", action="store_true", help="bf16 autocast, faster on processors that have it")
    add("--output_dir", type=Path, default=REPOSITORY / "runs" / "tiny-vlm", help="one folder per layout")
    add("--results", type=Path, help="folder of from_scratch.json; default: --output_dir")
    add("--page", type=Path, help="Markdown file in which the table between its marks is renewed")
    arguments = parser.parse_args(argv)
    return run_command(lambda: train_layouts(arguments), ValueError, OSError, RuntimeError)


if __name__ == "__main__":
    sys.exit(main())
