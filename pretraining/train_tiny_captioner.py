"""Train the tiny BLIP-2 that the offline demo adapts, as users adapt Salesforce/blip2-opt-2.7b.

    python pretraining/train_tiny_captioner.py --output_dir captioner_idc/tiny_captioner --bf16 --compile

What it learns from: drawn pairs mostly of another look and only with other sentences (instructions) than the toy
benchmark's defaults. A captioner of this size that sees only pair sentences stays on a plateau where it ignores
the images. Two auxiliary losses prevent that: every patch names the thing that covers it and its change (vision
part), and single queries name change type, size, color, shape and new color of the change (Q-Former). Their heads are
discarded at the end. The language model also reads sentences of both wordings without pictures, as OPT has read
English.
"""

import argparse
import copy
import json
import math
import random
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessorPil,
    PreTrainedTokenizerFast,
)

from dataset_syned.benchmarks.toy import CHANGE_TYPES, SENTENCES, SETTINGS, Pair, draw_captions, draw_pair, pick
from dataset_syned.scene_drawing import COLORS, RADII, SHAPES, coverage, draw_background, draw_scene
from modeling_blip2idc.image_fusion import fuse

CANVAS, PATCH, QUERIES, WIDTH = 96, 8, 8, 128
GRID = CANVAS // PATCH
STATUS = ("nothing", "unchanged", *CHANGE_TYPES[:-1])
ATTRIBUTES = {
    "change_type": len(CHANGE_TYPES),
    "size": 3,
    "color": 8,
    "shape": 5,
    "new_color": 8,
}  # 0 = none, but for change_type
PATCH_TARGETS = {"shape": 5, "color": 8, "size": 3, "status": len(STATUS)}
PICTURE = (128, 64)
MAX_TOKENS = 16  # of a sentence with its EOS
PAPER_SHARE = 0.25  # share of pairs drawn in the toy benchmark's default look


def number(value: str, names: dict) -> int:
    return 1 + list(names).index(value) if value else 0


def attribute_labels(pair: Pair) -> list[int]:
    thing = pair.subject
    names = (thing.size, thing.color, thing.shape) if thing else ("", "", "")
    values = [number(value, table) for value, table in zip(names, (RADII, COLORS, SHAPES), strict=True)]
    return [CHANGE_TYPES.index(pair.change_type), *values, number(pair.new_color, COLORS)]


def patch_labels(things: list, others: list, change_type: str, view) -> np.ndarray:
    """Return what covers each patch of one picture, uint8 [GRID / 2, GRID, 4] in the order of PATCH_TARGETS."""
    rows, columns = GRID // 2, GRID
    labels = np.zeros((rows, columns, 4), dtype=np.uint8)
    best = np.full(
        (rows, columns), 0.15
    )  # a patch belongs to the thing that covers most of it, and at least this share
    for thing in things:
        mask = np.zeros((CANVAS // 2, CANVAS), dtype=np.float32)
        box, alpha = coverage(thing, (CANVAS, CANVAS // 2), view)
        mask[box] = alpha
        share = mask.reshape(rows, PATCH, columns, PATCH).mean(axis=(1, 3))
        status = STATUS.index("unchanged" if thing in others else change_type)
        values = (number(thing.shape, SHAPES), number(thing.color, COLORS), number(thing.size, RADII), status)
        won = share > best
        labels[won] = values
        best = np.maximum(best, share)
    return labels


def draw_example(index: int) -> tuple[np.ndarray, np.ndarray, list[int], list[str]]:
    """Return canvas uint8 [96, 96, 3], patch labels [144, 4], attribute labels [5], five instructions."""
    rng = random.Random(f"tiny captioner/{index}")
    look = "paper" if rng.random() < PAPER_SHARE else "studio"
    pair = draw_pair(rng, pick(rng, CHANGE_TYPES), SETTINGS["easy"], PICTURE[0] / PICTURE[1])
    background = draw_background(PICTURE, look, rng)
    pictures = [draw_scene(s, background, look, v) for s, v in zip((pair.before, pair.after), pair.views, strict=True)]
    canvas = np.asarray(fuse(*pictures, layout="vertical", canvas=(CANVAS, CANVAS)))
    labels = np.concatenate(
        [
            patch_labels(pair.before, pair.after, pair.change_type, pair.views[0]),
            patch_labels(pair.after, pair.before, pair.change_type, pair.views[1]),
        ]
    )
    return canvas, labels.reshape(-1, 4), attribute_labels(pair), draw_captions(rng, pair, "instruction")


def draw_pool(
    start: int, count: int, processes: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[list[str]]]:
    with ProcessPoolExecutor(processes) as pool:
        examples = list(pool.map(draw_example, range(start, start + count), chunksize=500))
    canvases, patches, attributes, captions = zip(*examples, strict=True)
    return np.stack(canvases), np.stack(patches), np.array(attributes), list(captions)


def reading_sentences(count: int) -> list[str]:
    """Return sentences of both wordings, without pictures."""
    rng = random.Random("tiny captioner/reading")
    sentences = []
    for _ in range(count):
        pair = draw_pair(rng, pick(rng, CHANGE_TYPES), SETTINGS["easy"], 2.0)
        sentences.append(draw_captions(rng, pair, pick(rng, list(SENTENCES)))[0])
    return sentences


def build_tokenizer(sentences: list[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE, which can spell any text, with the words of the sentences as single tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=768,
        special_tokens=["<s>", "<pad>", "</s>", "<image>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
        model_max_length=128,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> Blip2ForConditionalGeneration:
    config = Blip2Config(
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": CANVAS,
            "patch_size": PATCH,
        },
        qformer_config={
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "cross_attention_frequency": 1,
            "encoder_hidden_size": WIDTH,
            "vocab_size": 4,
            "max_position_embeddings": 8,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        text_config={
            "model_type": "opt",
            "hidden_size": WIDTH,
            "word_embed_proj_dim": WIDTH,
            "ffn_dim": 4 * WIDTH,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 256,
            "dropout": 0.0,
            "bos_token_id": tokenizer.bos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    # "eager": the backward pass of torch's fused attention takes ten times as long on a CPU at these sizes
    model = Blip2ForConditionalGeneration._from_config(config, attn_implementation="eager")
    look_at_the_same_place(model.vision_model)
    return model


def waves(positions: torch.Tensor, size: int) -> torch.Tensor:
    """Return sines and cosines of positions [N] -> [N, size], with wavelengths of 4 to 32 patches."""
    frequencies = torch.exp(torch.linspace(0.0, -math.log(8.0), size // 2)) * math.pi / 2
    angles = positions[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


@torch.no_grad()
def look_at_the_same_place(vision: torch.nn.Module) -> None:
    """Start the vision part so that a patch attends to its neighbours and to the same place in the other image.

    Positions are waves of row and column within a cell, plus a mark of the cell; keys start equal to queries, so that
    like attends to like (mimetic initialisation, Trockman and Kolter 2023). From the usual random start a run (smaller
    things, learning rate 1e-3) was still on the plateau, with a caption loss of 0.84, after 1,500 steps.
    """
    rows = torch.arange(GRID).repeat_interleave(GRID)
    columns = torch.arange(GRID).repeat(GRID)
    cell = torch.where(rows < GRID // 2, 1.0, -1.0)[:, None].repeat(1, 8)
    places = torch.cat(
        [waves((rows % (GRID // 2)).float(), 48), waves(columns.float(), 48), cell], dim=1
    )  # [144, 104]
    embedding = vision.embeddings.position_embedding  # [1, 1 + 144, 128]; the first is the class token's
    embedding.zero_()
    embedding[0, 1:, : places.shape[1]] = 0.5 * places
    for layer in vision.encoder.layers:
        attention = layer.self_attn
        queries = 1.4 * torch.randn(WIDTH, WIDTH) / math.sqrt(WIDTH)
        attention.qkv.weight[:WIDTH] = queries
        attention.qkv.weight[WIDTH : 2 * WIDTH] = queries
        torch.nn.init.xavier_uniform_(attention.qkv.weight[2 * WIDTH :])
        torch.nn.init.xavier_uniform_(attention.projection.weight)


class Heads(torch.nn.Module):
    """The auxiliary classifiers: one per patch target on the patches, one per attribute on a query of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = torch.nn.Linear(WIDTH, sum(PATCH_TARGETS.values()))
        self.query = torch.nn.ModuleList(torch.nn.Linear(WIDTH, size) for size in ATTRIBUTES.values())

    def patch_loss(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = self.patch(hidden[:, 1:]).split(list(PATCH_TARGETS.values()), dim=-1)  # [B, 144, classes] each
        weight = torch.where(labels[..., 0] == 0, 0.2, 1.0)  # most patches are background
        losses = [
            (F.cross_entropy(part.flatten(0, 1).float(), labels[..., i].flatten(), reduction="none"))
            for i, part in enumerate(logits)
        ]
        return (sum(losses) * weight.flatten()).sum() / weight.sum()

    def query_loss(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return sum(F.cross_entropy(head(hidden[:, i]).float(), labels[:, i]) for i, head in enumerate(self.query))


def encode(tokenizer: PreTrainedTokenizerFast, sentences: list[str], prefix: list[int]) -> dict[str, torch.Tensor]:
    """Return prefix, sentence and EOS, padded on the right; labels leave out the prefix and the padding."""
    rows = [tokenizer(s, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] for s in sentences]
    width = MAX_TOKENS  # always the same, so that compiled code is compiled once
    pad = tokenizer.pad_token_id
    ids = torch.tensor([prefix + row + [pad] * (width - len(row)) for row in rows])
    labels = torch.tensor([[-100] * len(prefix) + row + [-100] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * (len(prefix) + len(row)) + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def pixels(canvases: np.ndarray, processor: BlipImageProcessorPil) -> torch.Tensor:
    images = torch.from_numpy(canvases).permute(0, 3, 1, 2).float() / 255.0  # [B, 3, 96, 96]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (processor.image_mean, processor.image_std))
    return (images - mean) / std


def flipped(canvases: np.ndarray, patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mirrored example; no sentence says left or right."""
    grid = patches.reshape(-1, GRID, GRID, 4)[:, :, ::-1]
    return canvases[:, :, ::-1].copy(), grid.reshape(-1, GRID * GRID, 4).copy()


def learning_rate(step: int, steps: int, peak: float, warmup: int = 300) -> float:
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))))


@torch.no_grad()
def exact_share(model, tokenizer, image_processor, pool, batch: int = 100) -> dict[str, float]:
    """Return the share of held-out pairs whose greedy sentence fits the pair, by change type."""
    model.eval()
    canvases, _, attributes, captions = pool
    prefix = [model.config.image_token_id] * QUERIES + [tokenizer.bos_token_id]
    right: dict[str, list[bool]] = {change_type: [] for change_type in CHANGE_TYPES}
    for start in range(0, len(canvases), batch):
        part = slice(start, start + batch)
        ids = torch.tensor([prefix] * len(canvases[part]))
        out = model.generate(
            pixel_values=pixels(canvases[part], image_processor), input_ids=ids, max_new_tokens=20, do_sample=False
        )
        texts = tokenizer.batch_decode(out[:, len(prefix) :], skip_special_tokens=True)
        for text, label, fitting in zip(texts, attributes[part], captions[part], strict=True):
            right[CHANGE_TYPES[label[0]]].append(text.strip() in fitting)
    return {change_type: float(np.mean(values)) for change_type, values in right.items()}


def train(args: argparse.Namespace) -> None:
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    reading = reading_sentences(20_000)
    tokenizer = build_tokenizer(reading)
    model = build_model(tokenizer)
    image_processor = BlipImageProcessorPil(size={"height": CANVAS, "width": CANVAS})
    heads = Heads()
    checked = copy.deepcopy(model)  # generates with the weights of the moment; never compiled
    if args.compile:
        for part in (model.vision_model, model.qformer, model.language_model):
            part.compile()
    parameters = [*model.parameters(), *heads.parameters()]
    decayed = [p for p in parameters if p.ndim > 1]
    plain = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98))
    held_out = draw_pool(10**9, 500)
    canvases, patches, attributes, captions = draw_pool(0, args.pairs)
    prefix = [model.config.image_token_id] * QUERIES + [tokenizer.bos_token_id]
    args.output_dir.mkdir(parents=True, exist_ok=True)
    log = (args.output_dir / "pretraining.jsonl").open("w")
    started, sums, counted = time.time(), np.zeros(4), 0
    order: list[int] = []
    for step in range(args.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.lr)
        if len(order) < args.batch:
            order = random.sample(range(args.pairs), args.pairs)
        batch, order = order[: args.batch], order[args.batch :]
        images, labels = canvases[batch], patches[batch]
        if random.random() < 0.5:
            images, labels = flipped(images, labels)
        text = encode(tokenizer, [random.choice(captions[i]) for i in batch], prefix)
        read = encode(tokenizer, random.sample(reading, 32), [tokenizer.bos_token_id])
        aux = 1.0 if step < 0.7 * args.steps else 0.2
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
            out = model(pixel_values=pixels(images, image_processor), **text)
            patch = heads.patch_loss(out.vision_outputs.last_hidden_state, torch.from_numpy(labels).long())
            query = heads.query_loss(out.qformer_outputs.last_hidden_state, torch.from_numpy(attributes[batch]))
            language = model.language_model(**read).loss
        loss = out.loss + 0.5 * aux * patch + 0.5 * aux * query + 0.2 * language
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        sums += [out.loss.item(), patch.item(), query.item(), language.item()]
        counted += 1
        if (step + 1) % args.log_every == 0 or step + 1 == args.steps:
            names = ("loss", "patch_loss", "query_loss", "reading_loss")
            row = {"step": step + 1, **dict(zip(names, (sums / counted).round(4).tolist(), strict=True))}
            row["seconds"] = round(time.time() - started)
            if (step + 1) % (10 * args.log_every) == 0 or step + 1 == args.steps:
                checked.load_state_dict(model.state_dict())
                row["exact"] = exact_share(checked, tokenizer, image_processor, held_out)
                save(checked, tokenizer, image_processor, args.output_dir)
            log.write(json.dumps(row) + "\n")
            log.flush()
            sums, counted = np.zeros(4), 0
    log.close()
    write_card(args.output_dir, args, sum(p.numel() for p in checked.parameters()))


def save(model, tokenizer, image_processor, folder: Path) -> None:
    processor = Blip2Processor(image_processor, tokenizer, num_query_tokens=QUERIES)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


CARD = """---
license: mit
language: en
library_name: transformers
pipeline_tag: image-text-to-text
tags: [blip-2, image-difference-captioning]
---

# Tiny captioner

A BLIP-2 of {parameters:.2f} million parameters (canvas {canvas}x{canvas}, patches of {patch}, width {width},
{queries} query tokens) for use without a network, where Salesforce/blip2-opt-2.7b cannot be downloaded. It knows drawn
scenes and nothing else.

Trained by

    {command}

on {pairs:,} drawn pairs, {seen:,} examples seen in {minutes:.0f} minutes on {threads} CPU thread(s); torch {torch},
transformers {transformers}. The pairs carry instructions ("remove the small red circle") and are drawn in the "studio"
look, {paper:.0%} of them in the "paper" look of the toy benchmark; the benchmark's own sentences it has only read as
text, without pictures. The script describes the auxiliary losses.

![Loss curves](pretraining.png)

Held-out pairs of the same kind whose greedy sentence is exactly one of the fitting instructions:
{exact}.
Losses at the end (`pretraining.jsonl`): captions {loss}, patches {patch_loss}, queries {query_loss},
reading {reading_loss}.
"""


def write_card(folder: Path, args: argparse.Namespace, parameters: int) -> None:
    """Write README.md and the loss curves, from the log."""
    log = [json.loads(line) for line in (folder / "pretraining.jsonl").read_text().splitlines()]
    last = log[-1]
    names = ("loss", "patch_loss", "query_loss", "reading_loss")
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for name in names:
        axes.plot([row["step"] for row in log], [row[name] for row in log], label=name.replace("_", " "))
    axes.set(xlabel="step", ylabel="loss", yscale="log", title="Pretraining of the tiny captioner")
    axes.legend()
    figure.savefig(folder / "pretraining.png", dpi=100)
    card = CARD.format(
        parameters=parameters / 1e6,
        canvas=CANVAS,
        patch=PATCH,
        width=WIDTH,
        queries=QUERIES,
        command="python pretraining/train_tiny_captioner.py "
        + " ".join(f"--{k} {v}" if v is not True else f"--{k}" for k, v in vars(args).items() if v is not False),
        pairs=args.pairs,
        seen=last["step"] * args.batch,
        minutes=last["seconds"] / 60,
        threads=torch.get_num_threads(),
        torch=version("torch"),
        transformers=version("transformers"),
        paper=PAPER_SHARE,
        exact=", ".join(f"{change_type} {share:.1%}" for change_type, share in last["exact"].items()),
        **{name: last[name] for name in names},
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8_000)
    parser.add_argument("--pairs", type=int, default=100_000, help="size of the pool that is drawn in advance")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log_every", type=int, default=50)
    parser.add_argument("--compile", action="store_true", help="compile the three parts with torch.compile")
    parser.add_argument("--bf16", action="store_true", help="bf16 autocast, faster on processors that have it")
    train(parser.parse_args(argv))


if __name__ == "__main__":
    main()
