"""Train a captioner for photographs: a small BLIP-2 that says what changed between two photographs.

    python pretraining/train_photo_captioner.py --data_dir PHOTOGRAPHS --work_dir runs/pretraining --bf16

It learns from pairs of the benchmark photo_edits and, one in five, of the toy benchmark with instructions. A captioner
of this size that sees only sentences stays on a plateau where it ignores the images; two auxiliary losses shorten it:
every patch says where it is, what covers it and what was done to it (vision part), and single queries name action,
place, colour and thing (Q-Former). Their heads are discarded at the end. The language model also reads English:
definitions of WordNet, and sentences about changes of things that no cut-out shows. Pairs are drawn in advance into
--work_dir; the same command continues an interrupted run. A GPU is used if there is one. The result is in the folder
captioner there; write_card.py writes its card.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
import torch.nn.functional as F
from english import definitions, nouns
from examples import (
    ACTIONS,
    CANVAS,
    IGNORED,
    LABELS,
    PATCH,
    PLACE_NAMES,
    UNKNOWN,
    Pool,
    choose_caption,
    draw_pools,
    thing_names,
)
from transformers import (
    Blip2ForConditionalGeneration,
    BlipImageProcessorPil,
)
from transformers.utils import PROCESSOR_NAME

from captioner_idc.small_blip2 import (
    PositionHeads,
    Sizes,
    build_tokenizer,
    from_random_weights,
    learning_rate,
    look,
    optimizer_of,
    prompt,
    speaking_loss,
    token_inputs,
    waves,
)
from common_idc.atomic_files import atomic_files, write_atomically, write_json
from dataset_syned.photo_edit import Change
from dataset_syned.photo_statements import statements
from dataset_syned.photo_wordings import SENTENCES, words_for
from dataset_syned.scene_drawing import pick
from dataset_syned.thing_names import ThingName
from modeling_blip2idc import Blip2IdcProcessor

SIZES = Sizes(CANVAS, PATCH, width=144, heads=6, queries=12, vision_layers=5, qformer_layers=2, language_layers=3)
PIECES = 1536
MAX_TOKENS = 36  # of a sentence with its EOS
SENTENCES_EACH = 2  # about a pair, per step
PLACE_WEIGHT = 2.0  # more than that of the other labels
READ = 32  # sentences without pictures per step
READING = 60_000
HELD_OUT = 500
UNCHANGED = ACTIONS.index("none")
WARM_UP = 300  # steps in which the learning rate rises
MARK = 16  # dimensions of a position that say in which image it is
FIRST, STEPS_PER_SHARD = 8, 120  # shards of drawn pairs at the start, and steps until the next one


def reading_sentences(wordnet: Path, photo_captions: list[str]) -> list[str]:
    """Return English without pictures: definitions, captions, and captions about other things."""
    rng = random.Random("tiny captioner/reading")
    defined, words = definitions(wordnet), nouns(wordnet)
    found = rng.sample(defined, READING // 2) + rng.sample(photo_captions, min(READING // 4, len(photo_captions)))
    local, places = ("add", "remove", "replace", "move", "recolor"), PLACE_NAMES[1:]
    for _ in range(READING // 4):
        thing, other = ThingName(pick(rng, words)), ThingName(pick(rng, words))
        change = Change(
            "", pick(rng, local), thing, pick(rng, places), other, pick(rng, places), pick(rng, ("red", "blue"))
        )
        found.append(pick(rng, SENTENCES["description"][change.action]).format(**words_for(rng, change)))
    rng.shuffle(found)
    return found


@torch.no_grad()
def look_at_the_same_place(vision: torch.nn.Module) -> None:
    """Start the vision part so that half of the heads look around a patch, and half at its place in the other image.

    Positions are waves of row and column within a cell, plus a mark of the cell. Keys start equal to queries, so that
    like attends to like (mimetic initialisation, Trockman and Kolter 2023); in half of the heads, with the mark
    reversed. What the patches show starts small beside that. The table has as many columns as rows, of which the
    canvas, half as wide as high, uses the means of two.
    """
    width, count = SIZES.width, SIZES.rows
    rows = torch.arange(count).repeat_interleave(count)
    columns = torch.arange(count).repeat(count) * SIZES.columns / count
    cell = torch.where(rows < count // 2, 1.0, -1.0)[:, None].repeat(1, MARK)
    within = (rows % (count // 2)).float()
    places = torch.cat([cell, waves(within, 48, 2 * count), waves(columns, 48, 2 * count)], dim=1)  # [256, 112]
    embedding = vision.embeddings.position_embedding  # [1, 1 + 256, width]; the first is the class token's
    embedding.zero_()
    embedding[0, 1:, : places.shape[1]] = 0.5 * places
    torch.nn.init.normal_(vision.embeddings.patch_embedding.weight, std=0.01)
    other_cell = torch.ones(width)
    other_cell[:MARK] = -1.0
    for layer in vision.encoder.layers:
        attention = layer.self_attn
        queries = 1.4 * torch.randn(width, width) / math.sqrt(width)
        keys = queries.clone()
        keys[: width // 2] *= other_cell  # the first half of the heads
        attention.qkv.weight[:width], attention.qkv.weight[width : 2 * width] = queries, keys
        torch.nn.init.xavier_uniform_(attention.qkv.weight[2 * width :])
        torch.nn.init.xavier_uniform_(attention.projection.weight)
        torch.nn.init.normal_(layer.mlp.fc2.weight, std=0.02)


class Heads(torch.nn.Module):
    """The auxiliary classifiers: action, thing and position of each patch; one query each for what `labels` has."""

    def __init__(self, things: int) -> None:
        super().__init__()
        self.action, self.thing = torch.nn.Linear(SIZES.width, len(ACTIONS)), torch.nn.Linear(SIZES.width, things)
        sizes = [*map(len, LABELS.values()), things, things]
        self.query = torch.nn.ModuleList(torch.nn.Linear(SIZES.width, size) for size in sizes)
        self.positions = PositionHeads(SIZES)

    def patch_loss(self, hidden: torch.Tensor, actions: torch.Tensor, things: torch.Tensor) -> torch.Tensor:
        patches = hidden[:, 1:].float()  # [B, 128, width]
        loss = self.positions.loss(hidden)
        for head, labels, common in ((self.action, actions, UNCHANGED), (self.thing, things, UNKNOWN)):
            weights = torch.ones(head.out_features, device=hidden.device)
            weights[common] = 0.2  # of most patches
            logits = head(patches).flatten(0, 1)
            loss = loss + F.cross_entropy(logits, labels.flatten(), weight=weights, ignore_index=IGNORED)
        return loss

    def query_loss(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        hidden = hidden.float()
        losses = [F.cross_entropy(head(hidden[:, i]), labels[:, i]) for i, head in enumerate(self.query)]
        return sum(losses) + PLACE_WEIGHT * losses[list(LABELS).index("place")]


def patch_actions(status: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Return what was done to each patch, [B, 128]: to all of them if none is marked as changed.

    Args:
        status: [B, 128], 1 where something changed.
        actions: [B], of the pairs.
    """
    each = actions[:, None].expand_as(status)
    elsewhere = torch.where(each == ACTIONS.index("two"), IGNORED, UNCHANGED)  # the second one is of the whole picture
    local = torch.where(status == 1, each, torch.where(status == IGNORED, IGNORED, elsewhere))
    return torch.where((status == 1).any(dim=1, keepdim=True), local, each)


def pixels(canvases: torch.Tensor, processor: BlipImageProcessorPil) -> torch.Tensor:
    images = canvases.permute(0, 3, 1, 2).float() / 255.0  # [B, 3, 256, 128]
    mean, std = (images.new_tensor(v).view(1, 3, 1, 1) for v in (processor.image_mean, processor.image_std))
    return (images - mean) / std


@torch.no_grad()
def right_shares(model, tokenizer, processor, pool: Pool, batch: int = 100) -> dict[str, float]:
    """Return how often the greedy sentence about held-out photographs states the right actions, and place."""
    model.eval()
    prefix = prompt(model, tokenizer)
    found: dict[str, list[bool]] = {"action": [], "place": [], "unchanged": []}
    for start in range(0, len(pool), batch):
        part = slice(start, start + batch)
        out = model.generate(
            pixel_values=pixels(torch.from_numpy(np.array(pool.canvases[part])).to(model.device), processor),
            input_ids=torch.tensor([prefix] * len(pool.captions[part]), device=model.device),
            max_new_tokens=MAX_TOKENS,
            do_sample=False,
            interpolate_pos_encoding=True,
        )
        texts = tokenizer.batch_decode(out[:, len(prefix) :], skip_special_tokens=True)
        for text, captions in zip(texts, pool.captions[part], strict=True):
            true = statements(captions[0])
            if not true:  # a drawn scene
                continue
            stated = statements(text)
            actions = [statement.action for statement in true]
            right = [statement.action for statement in stated] == actions
            found["unchanged" if actions == ["none"] else "action"].append(right)
            if len(true) == 1 and true[0].place:
                found["place"].append(bool(stated) and stated[0].place == true[0].place)
    model.train()
    return {name: round(float(np.mean(values)), 3) for name, values in found.items()}


class Run:
    """Everything that a step needs; `work_dir/state.pt` has what an interrupted run continues from."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.step = args, 0
        self.folder = args.work_dir
        torch.manual_seed(args.seed)
        [held_out] = draw_pools(args.data_dir, "validation", self.folder / "validation", HELD_OUT)
        self.shards = draw_pools(args.data_dir, "train", self.folder / "train", args.pairs, args.processes)
        self.held_out, self.pools = Pool(held_out.result()), [Pool(shard.result()) for shard in self.shards[:FIRST]]
        captions = [text for pool in self.pools for texts in pool.captions for text in texts]
        self.reading = reading_sentences(args.wordnet, captions)
        self.tokenizer = build_tokenizer(self.reading, PIECES)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = from_random_weights(Blip2ForConditionalGeneration, SIZES, self.tokenizer, look_at_the_same_place)
        self.model, self.heads = model.to(self.device), Heads(len(thing_names(args.data_dir))).to(self.device)
        self.processor = BlipImageProcessorPil(size={"height": CANVAS[0], "width": CANVAS[1]})
        self.parameters = [*self.model.parameters(), *self.heads.parameters()]
        self.optimizer = optimizer_of(self.parameters)

    @property
    def state_file(self) -> Path:
        return self.folder / "state.pt"

    def save(self) -> None:
        """Write the state, whole or not at all."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "heads", "optimizer")}
        write_atomically(self.state_file, lambda file: torch.save({**parts, "step": self.step}, file))

    def resume(self) -> None:
        """Continue from the last state, if there is one."""
        if self.state_file.is_file():
            state = torch.load(self.state_file, weights_only=True, map_location=self.device)
            for name in ("model", "heads", "optimizer"):
                getattr(self, name).load_state_dict(state[name])
            self.step = state["step"]

    def batch(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str]]:
        """Return the examples of this step, which depend on the seed and the step alone."""
        while len(self.pools) < min(len(self.shards), FIRST + self.step // STEPS_PER_SHARD):
            self.pools.append(Pool(self.shards[len(self.pools)].result()))
        rng = random.Random(f"{self.args.seed}/{self.step}")
        chosen = [(pool := rng.choice(self.pools), rng.randrange(len(pool))) for _ in range(self.args.batch)]
        arrays = [np.stack([getattr(p, n)[i] for p, i in chosen]) for n in ("canvases", "status", "things", "labels")]
        about = [pool.captions[index] for pool, index in chosen for _ in range(SENTENCES_EACH)]
        return *arrays, [choose_caption(rng, texts) for texts in about]

    def tokens(self, sentences: list[str], prefix: list[int]) -> dict[str, torch.Tensor]:
        inputs = token_inputs(self.tokenizer, sentences, prefix, MAX_TOKENS)
        return {name: values.to(self.device) for name, values in inputs.items()}

    def losses(self, batch: tuple) -> dict[str, torch.Tensor]:
        *arrays, captions = batch
        canvases, status, things, labels = (torch.from_numpy(values).to(self.device) for values in arrays)
        text = self.tokens(captions, prompt(self.model, self.tokenizer))
        rng = random.Random(f"reading/{self.args.seed}/{self.step}")
        read = self.tokens(rng.sample(self.reading, READ), [self.tokenizer.bos_token_id])
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.args.bf16):
            patches, queries = look(self.model, pixels(canvases, self.processor))
            speaking = speaking_loss(self.model, queries, **text)
            reading = self.model.language_model(**read).loss
        status, things, labels = status.long(), things.long(), labels.long()
        return {
            "loss": speaking,
            "patch_loss": self.heads.patch_loss(patches, patch_actions(status, labels[:, 0]), things),
            "query_loss": self.heads.query_loss(queries, labels),
            "reading_loss": reading,
        }

    def take_step(self) -> dict[str, float]:
        """Take one optimizer step; return the losses."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.args.steps, self.args.lr, WARM_UP)
        losses = self.losses(self.batch())
        aux = 1.0 if self.step < 0.7 * self.args.steps else 0.3
        loss = losses["loss"] + aux * (0.5 * losses["patch_loss"] + 0.3 * losses["query_loss"])
        (loss + 0.2 * losses["reading_loss"]).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return {name: value.item() for name, value in losses.items()}


def continued_log(path: Path, step: int) -> TextIO:
    """Return the log, open at its end, without rows after the step that a run continues from."""
    rows = path.read_text().splitlines(keepends=True) if path.is_file() else []
    kept = "".join(row for row in rows if json.loads(row)["step"] <= step)
    write_atomically(path, lambda unfinished: unfinished.write_text(kept))
    return path.open("a")


def train(args: argparse.Namespace) -> None:
    run = Run(args)
    run.resume()
    log, sums, started = continued_log(args.work_dir / "pretraining.jsonl", run.step), [], time.time()
    while run.step < args.steps:
        sums.append(run.take_step())
        if run.step % args.log_every == 0 or run.step == args.steps:
            row = {"step": run.step, **{name: round(float(np.mean([s[name] for s in sums])), 4) for name in sums[0]}}
            row["seconds"] = round((time.time() - started) / len(sums), 3)  # per step
            if run.step % args.save_every == 0 or run.step == args.steps:
                run.save()
            if run.step % args.check_every == 0 or run.step == args.steps:
                row["right"] = right_shares(run.model, run.tokenizer, run.processor, run.held_out)
                write_captioner(run.model, run.tokenizer, run.processor, args.work_dir / "captioner")
            log.write(json.dumps(row) + "\n")
            log.flush()
            sums, started = [], time.time()
    log.close()


def write_captioner(model, tokenizer, image_processor, folder: Path) -> None:
    """Write model and processor; the code, which the package has, is left out."""
    settings = {"canvas": CANVAS, "decoder_only": True, "max_caption_length": MAX_TOKENS}
    with atomic_files(folder) as unfinished:
        model.save_pretrained(unfinished)
        Blip2IdcProcessor(image_processor, tokenizer, SIZES.queries, **settings).save_pretrained(unfinished)
        for code in unfinished.glob("*.py"):
            code.unlink()
        config = json.loads((unfinished / PROCESSOR_NAME).read_text())
        write_json(unfinished / PROCESSOR_NAME, {name: value for name, value in config.items() if name != "auto_map"})


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data_dir", type=Path, required=True, help="photographs, with cut-outs in its folder cut_outs")
    made.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    made.add_argument("--work_dir", type=Path, required=True, help="drawn pairs, state and log")
    made.add_argument("--pairs", type=int, default=200_000, help="drawn in advance, %(default)s if not given")
    made.add_argument("--processes", type=int, default=1, help="that draw them, %(default)s if not given")
    made.add_argument("--steps", type=int, default=8_000)
    made.add_argument("--batch", type=int, default=192)
    made.add_argument("--lr", type=float, default=2.5e-3)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--log_every", type=int, default=50)
    made.add_argument("--save_every", type=int, default=200)
    made.add_argument("--check_every", type=int, default=1000)
    made.add_argument("--bf16", action="store_true", help="bf16 autocast, faster on processors that have it")
    return made


if __name__ == "__main__":
    train(parser().parse_args())
