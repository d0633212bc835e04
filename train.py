"""Adapt BLIP-2 to image difference captioning with LoRA: a benchmark in, an adapter folder out.

    accelerate launch train.py --config configs/toy.yaml
    accelerate launch train.py --config configs/toy.yaml --output_dir runs/other --lora_rank 16

Every field of TrainConfig is a key of the YAML file and an option of the command line, which wins. The run folder gets
the best adapter with its processor, train_config.yaml, log.jsonl, tensorboard files and a card (README.md).
"""

import argparse
import dataclasses
import json
import math
import platform
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_origin

import torch
import yaml
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.utils import broadcast_object_list, gather_object, send_to_device, set_seed
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm
from transformers import HfArgumentParser, get_scheduler

from dataset_syned import load_benchmark
from metric_idc import score_rows
from metric_idc.java import java_command
from modeling_blip2idc.adapters import add_lora, count_parameters, save_adapter
from modeling_blip2idc.captioning import caption, load
from modeling_blip2idc.image_fusion import cell_size
from modeling_blip2idc.publishing import write_card


class Options(dict):
    """A benchmark's own options: a mapping in YAML, JSON on the command line."""

    def __init__(self, text: Any = "{}"):
        try:
            value = json.loads(text) if isinstance(text, str) else text
        except ValueError:
            value = None
        if not isinstance(value, dict):  # of this type, so that argparse passes the message on
            raise argparse.ArgumentTypeError(f'options must be a mapping such as {{"seed": 1}}, got {text!r}')
        super().__init__(value)


@dataclass
class TrainConfig:
    # No default, but optional for the parser: `check` says what is missing, wherever the values came from.
    model: str = field(default="", metadata={"help": "base model: folder or Hub id of a BLIP-2. Required."})
    benchmark: str = field(default="", metadata={"help": "name of the data set, see dataset_syned. Required."})
    output_dir: str = field(default="", metadata={"help": "run folder. Required."})
    revision: str | None = field(default=None, metadata={"help": "revision of the base model on the Hub"})
    benchmark_options: Options = field(default_factory=Options, metadata={"help": 'JSON, such as {"seed": 1}'})
    layout: Literal["vertical", "horizontal"] = field(
        default="vertical", metadata={"help": "before on top of after (the paper's), or left of it"}
    )
    canvas: list[int] = field(
        default_factory=list, metadata={"help": "height and width of the fused picture; default: the base model's"}
    )
    lora_rank: int = field(default=8, metadata={"help": "the paper: 8, 16 or 32"})
    lora_alpha: int | None = field(default=None, metadata={"help": "default: 2 x rank, the paper's"})
    lora_dropout: float = 0.05
    learning_rate: float = field(default=1e-4, metadata={"help": "the paper: 4e-5 to 1e-4"})
    lr_schedule: Literal["constant", "linear", "cosine"] = field(
        default="constant", metadata={"help": "over the epochs asked for; the paper has none"}
    )
    warmup_steps: int = 0
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's default, as in the paper"})
    max_grad_norm: float = 1.0
    batch_size: int = field(default=16, metadata={"help": "pairs per step and process"})
    gradient_accumulation_steps: int = 1
    epochs: int = field(default=100, metadata={"help": "at most; early stopping ends most runs"})
    patience: int = field(default=10, metadata={"help": "epochs without a better validation before the end"})
    best_by: Literal["loss", "CIDEr"] = field(default="loss", metadata={"help": "the validation score that chooses"})
    validation_captions: int = field(
        default=500, metadata={"help": "validation pairs captioned for CIDEr after each epoch, spread evenly; 0: none"}
    )
    mixed_precision: Literal["no", "bf16"] = "bf16"
    attention: Literal["sdpa", "eager"] = field(default="sdpa", metadata={"help": "eager is the faster one on a CPU"})
    num_workers: int = field(default=0, metadata={"help": "processes that load images"})
    seed: int = 42
    log_every: int = field(default=20, metadata={"help": "steps between two lines of log.jsonl"})

    @property
    def alpha(self) -> int:
        return 2 * self.lora_rank if self.lora_alpha is None else self.lora_alpha

    def check(self) -> None:
        for name in ("model", "benchmark", "output_dir"):
            if not getattr(self, name):
                raise ValueError(f"{name} is missing: write it into the config file or pass --{name}")
        least = {"lora_rank": 1, "batch_size": 1, "gradient_accumulation_steps": 1, "epochs": 1, "patience": 1}
        least |= {"log_every": 1, "warmup_steps": 0, "num_workers": 0, "validation_captions": 0, "alpha": 1}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ValueError(f"{name}={getattr(self, name)}: use at least {smallest}")
        for name in ("learning_rate", "max_grad_norm"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)}: use a number above 0")
        if self.canvas and len(self.canvas) != 2:
            raise ValueError(f"canvas={self.canvas}: give height and width")
        if self.best_by == "CIDEr" and not self.validation_captions:
            raise ValueError("best_by=CIDEr needs captions: set validation_captions above 0")


def parse_config(argv: list[str]) -> TrainConfig:
    """YAML first, command line over it: the file's entries are parsed as if they stood before the given ones."""
    parser = HfArgumentParser(TrainConfig, prog="train.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="YAML with any of these options; the command line wins")
    given = parser.parse_args(argv)
    from_file = []
    for name, value in read_yaml(given.config).items() if given.config else ():
        if value in (None, []):
            continue
        if isinstance(value, list):
            from_file += [f"--{name}", *map(str, value)]
        else:  # "=", because a value may begin with a minus
            from_file.append(f"--{name}={json.dumps(value) if isinstance(value, dict) else value}")
    values = vars(parser.parse_args(from_file + argv))
    values.pop("config")
    config = TrainConfig(**values)
    config.check()
    return config


def read_yaml(path: str) -> dict[str, Any]:
    try:
        entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"config {path!r} cannot be read: {error}") from error
    if not isinstance(entries, dict):
        raise ValueError(f"config {path!r} must hold `key: value` lines, found {type(entries).__name__}")
    known = {entry.name for entry in dataclasses.fields(TrainConfig)}
    unknown = sorted(str(name) for name in entries if name not in known)
    if unknown:
        raise ValueError(f"config {path!r}: unknown key {unknown[0]!r}; known keys: {', '.join(sorted(known))}")
    for entry in dataclasses.fields(TrainConfig):
        value = entries.get(entry.name)
        takes_text = entry.type in (str, str | None) or get_origin(entry.type) is Literal
        if takes_text and not isinstance(value, str | None):
            raise ValueError(f"config {path!r}: YAML reads {entry.name} as {value!r}; put the text in quotes")
    return entries


class TrainingPairs(Dataset):
    """Rows with one caption each: a function of (seed, epoch, pair), whatever process or worker asks."""

    def __init__(self, rows: Any, seed: int):
        # No method `set_epoch`: Accelerate would call it with a count of its own, for validation too.
        self.rows, self.seed, self.epoch = rows, seed, 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        chosen = random.Random(f"{self.seed}-{self.epoch}-{row['pair_id']}").choice(row["captions"])
        return {"before": row["before"], "after": row["after"], "caption": chosen}


class Collate:
    """A list of examples -> model inputs. A class, because workers must be able to pickle it."""

    def __init__(self, processor: Any):
        self.processor = processor

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        columns = {name: [example[name] for example in examples] for name in ("before", "after", "caption")}
        return dict(self.processor(before=columns["before"], after=columns["after"], captions=columns["caption"]))


def build_loaders(
    config: TrainConfig, rows: dict[str, Any], processor: Any, part: int = 0, parts: int = 1
) -> dict[str, DataLoader]:
    """Loaders of all training pairs, which Accelerate divides, and of `part` of `parts` of the validation pairs."""
    options = {"collate_fn": Collate(processor), "num_workers": config.num_workers, "batch_size": config.batch_size}
    train = DataLoader(TrainingPairs(rows["train"], config.seed), shuffle=True, **options)
    # Their epoch stays 0: the same captions each time, so that the losses can be compared.
    pairs = TrainingPairs(rows["validation"], config.seed)
    validation = DataLoader(Subset(pairs, range(part, len(pairs), parts)), **options)
    return {"train": train, "validation": validation}


def build_model(config: TrainConfig, device: torch.device) -> tuple[Any, Any]:
    model, processor = load(config.model, revision=config.revision, device=device)
    processor.layout = config.layout
    processor.canvas = list(config.canvas or processor.canvas)
    cell_size(processor.layout, processor.canvas)  # both refuse what would fail at the first batch
    model.must_interpolate(*processor.canvas)
    model.set_attn_implementation(config.attention)
    return add_lora(model, config.lora_rank, config.alpha, config.lora_dropout, config.seed), processor


@torch.no_grad()
def validation_loss(accelerator: Accelerator, model: Any, loader: DataLoader) -> float:
    """Mean over all caption tokens of the split, gathered from all processes."""
    model = accelerator.unwrap_model(model).eval()  # bare: the processes may have different numbers of batches
    total = torch.zeros(2, device=accelerator.device, dtype=torch.float64)
    for batch in loader:
        batch = send_to_device(batch, accelerator.device)
        with accelerator.autocast():
            loss = model(**batch).loss
        tokens = (batch["labels"] != -100).sum()
        total += torch.stack([loss.double() * tokens, tokens.double()])
    total = accelerator.reduce(total)
    return (total[0] / total[1]).item()


def validation_cider(accelerator: Accelerator, model: Any, processor: Any, rows: Any, batch_size: int) -> float:
    """CIDEr of greedy sentences for these rows, split over the processes."""
    with accelerator.split_between_processes(list(range(len(rows)))) as part:
        pairs = ((rows[i]["before"], rows[i]["after"]) for i in part)
        with accelerator.autocast():
            sentences = caption(accelerator.unwrap_model(model), processor, pairs, batch_size=batch_size)
    sentences = gather_object(sentences)
    scored = [
        {"pair_id": pair_id, "prediction": sentence, "references": captions}
        for pair_id, sentence, captions in zip(rows["pair_id"], sentences, rows["captions"], strict=True)
    ]
    return score_rows(scored, metrics=["CIDEr"])["scores"]["CIDEr"] if accelerator.is_main_process else 0.0


class Log:
    """log.jsonl and the trackers; only the main process writes."""

    def __init__(self, accelerator: Accelerator, folder: Path):
        self.accelerator, self.path, self.started = accelerator, folder / "log.jsonl", time.monotonic()

    def write(self, step: int, values: dict[str, Any]) -> None:
        if not self.accelerator.is_main_process:
            return
        row = {"step": step, "seconds": round(time.monotonic() - self.started, 1), **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.accelerator.log({k: v for k, v in values.items() if isinstance(v, (int, float))}, step=step)


def run_epoch(
    accelerator: Accelerator, config: TrainConfig, parts: dict[str, Any], step: int, bar: tqdm, log: Log
) -> int:
    """One pass over the training pairs; returns the number of steps taken so far in all."""
    model, optimizer, scheduler = parts["model"], parts["optimizer"], parts["scheduler"]
    model.train()
    losses: list[torch.Tensor] = parts["losses"]  # since the last line of the log, which may lie in the epoch before
    for batch in parts["train"]:
        with accelerator.accumulate(model):
            with accelerator.autocast():
                loss = model(**batch).loss
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(parts["trainable"], config.max_grad_norm)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        losses.append(loss.detach())
        if not accelerator.sync_gradients:
            continue
        step += 1
        bar.update()
        if step % config.log_every == 0:
            mean = torch.stack(losses).mean().item()
            losses.clear()
            log.write(step, {"loss": mean, "learning_rate": scheduler.get_last_lr()[0]})
            bar.set_postfix(loss=f"{mean:.3f}")
    return step


def environment(accelerator: Accelerator) -> dict[str, Any]:
    """What made the run, beside its config."""
    packages = ("torch", "transformers", "peft", "accelerate", "datasets")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "device": str(accelerator.device.type),
        "processes": accelerator.num_processes,
        "commit": commit(),
    }


def commit() -> str:
    """Of the code that runs; empty where there is no git or no repository."""
    command = ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def spread(rows: Any, count: int) -> Any:
    """`count` rows, evenly spread over the split."""
    return rows.select([i * len(rows) // count for i in range(count)]) if count < len(rows) else rows


def prepare(accelerator: Accelerator, config: TrainConfig) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """(parts of the training, rows by split, processor)"""
    with accelerator.main_process_first():
        splits = ("train", "validation")
        rows = {split: load_benchmark(config.benchmark, split, **config.benchmark_options) for split in splits}
    model, processor = build_model(config, accelerator.device)
    processes = accelerator.num_processes
    loaders = build_loaders(config, rows, processor, accelerator.process_index, processes)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=config.learning_rate, weight_decay=config.weight_decay)
    per_epoch = -(-len(loaders["train"]) // (processes * config.gradient_accumulation_steps))
    # Times the processes: a prepared scheduler moves by that many at each step.
    scheduler = get_scheduler(
        config.lr_schedule, optimizer, config.warmup_steps * processes, per_epoch * config.epochs * processes
    )
    pairs = loaders["train"].dataset
    model, optimizer, scheduler, train = accelerator.prepare(model, optimizer, scheduler, loaders["train"])
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "trainable": trainable, "losses": []}
    return {**parts, "train": train, "pairs": pairs, "validation": loaders["validation"]}, rows, processor


def validations(
    accelerator: Accelerator, config: TrainConfig, parts: dict[str, Any], rows: Any, processor: Any
) -> Iterator[tuple[str, float]]:
    yield "validation_loss", validation_loss(accelerator, parts["model"], parts["validation"])
    if config.validation_captions:
        chosen = spread(rows, config.validation_captions)
        yield "validation_CIDEr", validation_cider(accelerator, parts["model"], processor, chosen, config.batch_size)


def start_run(accelerator: Accelerator, config: TrainConfig, model: Any, pairs: int) -> Log:
    """The run folder with config and log; says what is trained."""
    folder = Path(config.output_dir)
    trainable, total = count_parameters(model)
    log = Log(accelerator, folder)
    accelerator.init_trackers("tensorboard")
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        entries = {**vars(config), "lora_alpha": config.alpha, "benchmark_options": dict(config.benchmark_options)}
        (folder / "train_config.yaml").write_text(yaml.safe_dump(entries, sort_keys=False), encoding="utf-8")
    facts = {"environment": environment(accelerator), "trainable_parameters": trainable, "parameters": total}
    log.write(0, {**facts, "training_pairs": pairs})
    accelerator.print(f"{pairs} training pairs; {trainable:,} of {total:,} parameters are trained")
    return log


def train(config: TrainConfig, accelerator: Accelerator) -> None:
    folder = Path(config.output_dir)
    parts, rows, processor = prepare(accelerator, config)
    log = start_run(accelerator, config, parts["model"], len(rows["train"]))
    per_epoch = -(-len(parts["train"]) // config.gradient_accumulation_steps)  # steps; this loader is divided already
    bar = tqdm(total=per_epoch * config.epochs, unit="step", disable=not accelerator.is_main_process)
    best, waited, step = -float("inf"), 0, 0
    for epoch in range(config.epochs):
        parts["train"].set_epoch(epoch)  # order
        parts["pairs"].epoch = epoch  # captions
        step = run_epoch(accelerator, config, parts, step, bar, log)
        scores = dict(validations(accelerator, config, parts, rows["validation"], processor))
        log.write(step, {"epoch": epoch + 1, **scores})
        told = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in scores.items())
        accelerator.print(f"\nepoch {epoch + 1}: {told}")
        score = -scores["validation_loss"] if config.best_by == "loss" else scores["validation_CIDEr"]
        score = broadcast_object_list([score])[0]  # the main process decides for all
        if not math.isfinite(score):
            raise ValueError(
                f"{config.best_by} is {score} at epoch {epoch + 1}: lower learning_rate, or look at the data"
            )
        waited = 0 if score > best else waited + 1
        if score > best and accelerator.is_main_process:
            save_adapter(accelerator.unwrap_model(parts["model"]), processor, folder, config.model, config.revision)
        best = max(best, score)
        if waited >= config.patience:
            accelerator.print(f"no better {config.best_by} for {waited} epochs: done")
            break
    bar.close()
    if accelerator.is_main_process:
        write_card(folder, template=Path(__file__).with_name("model_card.md"))


def main(argv: list[str] | None = None) -> int:
    try:
        config = parse_config(sys.argv[1:] if argv is None else argv)
        if (Path(config.output_dir) / "train_config.yaml").exists():
            raise ValueError(f"{config.output_dir!r} already holds a run: name another output_dir, or remove it")
        if config.validation_captions:
            java_command()  # whose absence would otherwise end the run after its first epoch
        accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=config.seed),
            log_with="tensorboard",
            project_dir=config.output_dir,
        )
        set_seed(config.seed)
        train(config, accelerator)
        accelerator.end_training()
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
