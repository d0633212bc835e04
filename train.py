"""Adapt BLIP-2 to image difference captioning with LoRA: a benchmark in, an adapter folder out.

    accelerate launch train.py --config configs/toy.yaml
    accelerate launch train.py --config configs/toy.yaml --output_dir runs/other --lora_rank 16
    accelerate launch train.py --config configs/toy.yaml --resume       # goes on where the same command was stopped

Every field of TrainConfig is a key of the YAML file and an option of the command line, which wins. The run folder gets
the best adapter with its processor, train_config.yaml, log.jsonl, checkpoints, pictures and a card (README.md).
"""

import dataclasses
import importlib.util
import json
import math
import os
import platform
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import (
    DistributedType,
    ProjectConfiguration,
    broadcast_object_list,
    gather_object,
    send_to_device,
    set_seed,
)
from datasets import concatenate_datasets
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm
from transformers import get_scheduler

from captioner_idc.adapters import (
    LoraVariant,
    add_lora,
    continue_adapter,
    count_parameters,
    lora_settings,
    make_optimizer,
    save_adapter,
)
from captioner_idc.captioning import caption, load
from common_idc.settings import Options, parse_settings
from dataset_syned import benchmark_builder, load_benchmark
from dataset_syned.epoch_order import CaptionChoice, PairOrder, TrainingPairs
from metric_idc import score_rows
from metric_idc.java import java_command
from modeling_blip2idc.image_fusion import cell_size, check_blur
from run_idc.card import write_card
from run_idc.checkpoints import (
    gather_state,
    latest_checkpoint,
    read_progress,
    read_state,
    remove_unfinished,
    renew_progress,
    restore_state,
    write_checkpoint,
)
from run_idc.pictures import draw_curves, draw_samples
from run_idc.publishing import try_push

TRACKERS = ("tensorboard", "trackio", "wandb")
SAMPLES = 6  # validation pairs that are drawn with their sentences
# What may differ when a run is resumed, since the adapter that comes out does not depend on it.
FREE = {
    *("output_dir", "resume", "num_workers", "checkpoint_every", "trackers"),
    *("push_to_hub", "hub_model_id", "hub_private", "merge"),
}


@dataclass
class TrainConfig:
    # No default, but optional for the parser: `check` says what is missing, wherever the values came from.
    model: str = field(default="", metadata={"help": "base model: folder or Hub id of a BLIP-2. Required."})
    benchmark: str = field(default="", metadata={"help": "name of the data set, see dataset_syned. Required."})
    output_dir: str = field(default="", metadata={"help": "run folder. Required."})
    revision: str | None = field(default=None, metadata={"help": "revision of the base model on the Hub"})
    benchmark_options: Options = field(default_factory=Options, metadata={"help": 'JSON, such as {"seed": 1}'})
    mix: Options = field(
        default_factory=Options,
        metadata={
            "help": 'further benchmarks to train on: {"syned": {"weight": 0.5}} adds half of its pairs, drawn anew, '
            "to each epoch; other keys are that benchmark's options. Validation stays with `benchmark`"
        },
    )
    caption_choice: CaptionChoice = field(
        default="random",
        metadata={"help": "which reference of a pair is learnt: one at random per epoch, or the shortest"},
    )
    adapter: str | None = field(
        default=None, metadata={"help": "go on from this adapter (folder or Hub id), whose LoRA settings are kept"}
    )
    adapter_revision: str | None = field(default=None, metadata={"help": "revision of --adapter on the Hub"})
    layout: Literal["vertical", "horizontal"] = field(
        default="vertical", metadata={"help": "before on top of after (the paper's), or left of it"}
    )
    canvas: list[int] = field(
        default_factory=list, metadata={"help": "height and width of the fused picture; default: the base model's"}
    )
    blur: float = field(
        default=0.0, metadata={"help": "sigma of a 3x3 blur of each image, in its own pixels; the paper's mean is 0.3"}
    )
    lora_rank: int = field(default=8, metadata={"help": "the paper: 8, 16 or 32"})
    lora_alpha: int | None = field(default=None, metadata={"help": "default: 2 x rank, the paper's"})
    lora_dropout: float = 0.05
    lora_parts: list[str] = field(
        default_factory=lambda: ["vision", "qformer", "language"], metadata={"help": "parts that get adapters"}
    )
    lora_variant: LoraVariant = field(
        default="lora", metadata={"help": "PiSSA is saved as plain LoRA of twice the rank"}
    )
    lora_plus_ratio: float | None = field(
        default=None, metadata={"help": "LoRA+: learning rate of B over that of A, 16 in its paper"}
    )
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
    activation_checkpointing: bool = field(
        default=False, metadata={"help": "less memory, about a third more time: activations are computed twice"}
    )
    num_workers: int = field(default=0, metadata={"help": "processes that load images"})
    seed: int = 42
    log_every: int = field(default=20, metadata={"help": "steps between two lines of log.jsonl"})
    checkpoint_every: int = field(
        default=200, metadata={"help": "steps between two checkpoints; there is one after each epoch as well"}
    )
    resume: bool = field(default=False, metadata={"help": "go on from the run folder's last checkpoint"})
    trackers: list[str] = field(
        default_factory=lambda: ["tensorboard"], metadata={"help": f"any of {', '.join(TRACKERS)}"}
    )
    push_to_hub: bool = field(default=False, metadata={"help": "at each better score and at the end"})
    hub_model_id: str | None = field(default=None, metadata={"help": "repository to push to, such as me/blip2idc-toy"})
    hub_private: bool = field(default=False, metadata={"help": "create the repository as a private one"})
    merge: bool = field(default=False, metadata={"help": "push the whole model instead of the adapter, at the end"})

    @property
    def alpha(self) -> int:
        return 2 * self.lora_rank if self.lora_alpha is None else self.lora_alpha

    def check(self) -> None:
        for name in ("model", "benchmark", "output_dir"):
            if not getattr(self, name):
                raise ValueError(f"{name} is missing: write it into the config file or pass --{name}")
        least = {"lora_rank": 1, "batch_size": 1, "gradient_accumulation_steps": 1, "epochs": 1, "patience": 1}
        least |= {"log_every": 1, "warmup_steps": 0, "num_workers": 0, "validation_captions": 0, "alpha": 1}
        least |= {"checkpoint_every": 1}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ValueError(f"{name}={getattr(self, name)}: use at least {smallest}")
        for name in ("learning_rate", "max_grad_norm", "lora_plus_ratio"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)}: use a number above 0")
        if self.canvas and len(self.canvas) != 2:
            raise ValueError(f"canvas={self.canvas}: give height and width")
        if self.best_by == "CIDEr" and not self.validation_captions:
            raise ValueError("best_by=CIDEr needs captions: set validation_captions above 0")
        if self.push_to_hub != bool(self.hub_model_id):
            raise ValueError(
                f"push_to_hub={self.push_to_hub}, hub_model_id={self.hub_model_id!r}: give both or neither"
            )
        if (self.hub_private or self.merge) and not self.push_to_hub:
            raise ValueError("hub_private and merge go with push_to_hub")
        for name in self.trackers:
            if name not in TRACKERS:
                raise ValueError(f"trackers={' '.join(self.trackers)}: use any of {', '.join(TRACKERS)}")
            if importlib.util.find_spec(name) is None:  # Accelerate would leave it out and say nothing
                raise ValueError(f"trackers={' '.join(self.trackers)}: {name} is not installed: pip install {name}")
        self.check_mix()

    def check_mix(self) -> None:
        for name, options in self.mix.items():
            weight = options.get("weight") if isinstance(options, dict) else None
            if not isinstance(weight, (int, float)) or isinstance(weight, bool) or not 0 < weight < float("inf"):
                raise ValueError(
                    f"mix: {name}={options!r}: write {{{name}: {{weight: 0.5}}}}, how often its pairs come per epoch"
                )
            if name == self.benchmark:
                raise ValueError(f"mix: {name!r} is the benchmark already, whose pairs come once per epoch")


def parse_config(argv: list[str]) -> TrainConfig:
    config = parse_settings(TrainConfig, argv, "train.py", __doc__.split("\n")[0])
    config.check()
    return config


class Collate:
    """A list of examples -> model inputs and the pairs' ids. A class, because workers must be able to pickle it."""

    def __init__(self, processor: Any):
        self.processor = processor

    def __call__(self, examples: list[dict[str, Any]]) -> tuple[dict[str, torch.Tensor], list[str]]:
        columns = {name: [example[name] for example in examples] for name in ("before", "after", "caption")}
        inputs = self.processor(before=columns["before"], after=columns["after"], captions=columns["caption"])
        for row, example in enumerate(examples):
            if not example["weight"]:  # it only fills up: see PairOrder
                inputs["labels"][row] = -100
        return dict(inputs), [example["pair_id"] for example in examples]


@dataclass
class Progress:
    """How far a run has come; with weights and optimizer all that resuming needs."""

    pairs_per_step: int
    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    waited: int = 0  # epochs without a better score
    done: bool = False
    log_bytes: int = 0
    losses: list[float] = field(default_factory=list)  # of the steps since the last line of the log

    def judge(self, score: float) -> bool:
        """Whether this epoch's score is the best so far; bigger is better."""
        better = self.best is None or score > self.best
        self.best, self.waited = (score, 0) if better else (self.best, self.waited + 1)
        return better


class Stop:
    """SIGTERM, which clusters send before they kill: the step is finished, a checkpoint written, the exit code 0."""

    def __init__(self) -> None:
        self.asked = self.at_once = False

    def listen(self) -> None:
        self.process = os.getpid()
        signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, *_: Any) -> None:
        if os.getpid() != self.process:  # a forked one, such as a loader of images, which is to die as usual
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        self.asked = True
        if self.at_once:
            raise SystemExit(0)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """While nothing is computed that a checkpoint does not hold already."""
        self.at_once = True
        try:
            if self.asked:
                raise SystemExit(0)
            yield
        finally:
            self.at_once = False


class Log:
    """log.jsonl and the trackers; only the main process writes."""

    def __init__(self, accelerator: Accelerator, folder: Path, progress: Progress):
        self.accelerator, self.path, self.progress = accelerator, folder / "log.jsonl", progress
        self.started = time.monotonic() - progress.seconds
        if accelerator.is_main_process:
            with self.path.open("ab") as file:
                file.truncate(progress.log_bytes)  # lines after the checkpoint that a run goes on from

    def write(self, values: dict[str, Any]) -> None:
        self.progress.seconds = round(time.monotonic() - self.started, 1)
        if not self.accelerator.is_main_process:
            return
        step = self.progress.step
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "seconds": self.progress.seconds, **values}) + "\n")
        self.progress.log_bytes = self.path.stat().st_size
        self.accelerator.log({k: v for k, v in values.items() if isinstance(v, (int, float))}, step=step)


@dataclass
class Run:
    """What the functions below share."""

    accelerator: Accelerator
    config: TrainConfig
    model: Any
    processor: Any
    optimizer: Any
    scheduler: Any
    order: PairOrder
    train: DataLoader
    validation: DataLoader
    rows: Any  # of the validation split
    progress: Progress
    stop: Stop
    log: Log | None = None
    bar: tqdm | None = None

    @property
    def folder(self) -> Path:
        return Path(self.config.output_dir)

    @property
    def deepspeed(self) -> bool:
        """DeepSpeed keeps weights and optimizer in shards and pickles of its own, which no checkpoint here holds."""
        return self.accelerator.distributed_type is DistributedType.DEEPSPEED

    def weights(self) -> dict[str, torch.Tensor]:
        """What is trained, whole, also where it is sharded; for all processes together."""
        if self.deepspeed:
            return self.accelerator.get_state_dict(self.model)
        return gather_state(self.model, self.optimizer.optimizer)["adapter"]


def load_rows(config: TrainConfig) -> tuple[list[Any], list[float], Any]:
    """Training rows of each benchmark, how often each comes per epoch, validation rows."""
    parts, weights = [load_benchmark(config.benchmark, "train", **config.benchmark_options)], [1.0]
    for name, options in config.mix.items():
        parts.append(load_benchmark(name, "train", **{k: v for k, v in options.items() if k != "weight"}))
        weights.append(float(options["weight"]))
    return parts, weights, load_benchmark(config.benchmark, "validation", **config.benchmark_options)


def build_loaders(
    config: TrainConfig, rows: tuple[list[Any], list[float], Any], processor: Any, process: int = 0, processes: int = 1
) -> tuple[PairOrder, DataLoader, DataLoader]:
    """(order of the training pairs, their loader, the validation loader), of one process's share."""
    parts, weights, held_out = rows
    options = {"collate_fn": Collate(processor), "num_workers": config.num_workers}
    sizes = [len(part) for part in parts]
    batches = config.gradient_accumulation_steps
    order = PairOrder(sizes, weights, config.seed, config.batch_size, batches, process, processes)
    pairs = TrainingPairs(concatenate_datasets(parts), config.seed, config.caption_choice)
    train = DataLoader(pairs, batch_sampler=order, **options)
    # Their epoch stays 0: the same captions each time, so that the losses can be compared.
    pairs = TrainingPairs(held_out, config.seed, config.caption_choice)
    own = Subset(pairs, range(process, len(pairs), processes))
    return order, train, DataLoader(own, batch_size=config.batch_size, **options)


def build_model(config: TrainConfig, device: torch.device) -> tuple[Any, Any]:
    """The base in the precision of the arithmetic, its adapter in float32."""
    dtype = torch.bfloat16 if config.mixed_precision == "bf16" else torch.float32
    model, processor = load(config.model, revision=config.revision, device=device, dtype=dtype)
    processor.layout = config.layout
    processor.canvas = list(config.canvas or processor.canvas)
    processor.blur = config.blur
    check_blur(processor.blur)  # these refuse what would fail at the first batch
    cell_size(processor.layout, processor.canvas)
    model.must_interpolate(*processor.canvas)
    model.set_attn_implementation(config.attention)
    if config.adapter:
        model = continue_adapter(model, config.adapter, config.adapter_revision)
        for name, value in lora_settings(model).items():
            setattr(config, f"lora_{name}", value)
    else:
        settings = (config.lora_rank, config.alpha, config.lora_dropout, config.seed)
        model = add_lora(model, *settings, config.lora_parts, config.lora_variant)
    if config.activation_checkpointing:
        # transformers renamed it, and will remove the older name in version 6
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})  # the reentrant kind gives no gradient behind frozen weights
    return model, processor


def prepare(accelerator: Accelerator, config: TrainConfig, stop: Stop) -> Run:
    with accelerator.main_process_first():
        rows = load_rows(config)
    model, processor = build_model(config, accelerator.device)
    loaders = build_loaders(config, rows, processor, accelerator.process_index, accelerator.num_processes)
    order, train, validation = loaders
    optimizer = make_optimizer(model, config.learning_rate, config.weight_decay, config.lora_plus_ratio)
    schedule = "constant_with_warmup" if config.lr_schedule == "constant" else config.lr_schedule
    scheduler = get_scheduler(schedule, optimizer, config.warmup_steps, order.steps * config.epochs)
    if accelerator.distributed_type is DistributedType.DEEPSPEED:  # it would ask a prepared loader
        accelerator.state.deepspeed_plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = config.batch_size
    # Not the loader and the scheduler: their pace is that of PairOrder's steps, the same for any number of processes.
    model, optimizer = accelerator.prepare(model, optimizer)
    parts = (model, processor, optimizer, scheduler, order, train, validation, rows[2])
    return Run(accelerator, config, *parts, Progress(order.pairs_per_step), stop)


def resume(run: Run) -> None:
    """Weights, optimizer, learning rate and progress of the last checkpoint, if there is one."""
    if run.accelerator.is_main_process:
        for name in remove_unfinished(run.folder):
            print(f"ignored the half-written checkpoint {name}")
    folder = latest_checkpoint(run.folder)
    if folder is None:
        run.accelerator.print("no checkpoint yet: starting from the beginning")
        return
    progress = Progress(**read_progress(folder))
    if progress.pairs_per_step != run.order.pairs_per_step:
        raise ValueError(
            f"the run was started with {progress.pairs_per_step} pairs per step, now there are "
            f"{run.order.pairs_per_step}: keep batch_size x gradient_accumulation_steps x processes the same"
        )
    run.progress = progress
    if progress.done:
        return
    restore_state(run.model, run.optimizer.optimizer, read_state(folder))
    run.scheduler.last_epoch = progress.step - 1
    run.scheduler.step()  # sets the rate of this step: it is a function of the step alone
    run.accelerator.print(f"going on after step {progress.step}, in epoch {progress.epoch + 1}")


def save(run: Run) -> None:
    """A checkpoint, or only the newer progress if no step was taken since the last one. For all processes together."""
    if run.deepspeed or not run.progress.step:
        return
    folder = latest_checkpoint(run.folder)
    run.accelerator.wait_for_everyone()  # until all have looked: the main process is about to change the folder
    if folder is not None and int(folder.name.removeprefix("step-")) == run.progress.step:
        if run.accelerator.is_main_process:
            renew_progress(folder, dataclasses.asdict(run.progress))
        return
    state = gather_state(run.model, run.optimizer.optimizer)
    if run.accelerator.is_main_process:
        write_checkpoint(run.folder, state, dataclasses.asdict(run.progress))


def start_run(run: Run) -> None:
    """The run folder with config and log; says what is trained."""
    accelerator, config = run.accelerator, run.config
    if accelerator.is_main_process:
        run.folder.mkdir(parents=True, exist_ok=True)
        unfinished = run.folder / "train_config.yaml.tmp"
        unfinished.write_text(yaml.safe_dump(entries(config), sort_keys=False), encoding="utf-8")
        os.replace(unfinished, run.folder / "train_config.yaml")
    run.log = Log(accelerator, run.folder, run.progress)
    # Steps that will be repeated are taken off tensorboard's curves.
    named = {"name": run.folder.resolve().name}
    purge = {"purge_step": run.progress.step + 1}
    accelerator.init_trackers("blip2idc", init_kwargs={"tensorboard": purge, "trackio": named, "wandb": named})
    trainable, total = count_parameters(run.model)
    if not run.progress.log_bytes:
        pairs, validation = run.order.pairs, len(run.rows)
        facts = {"environment": environment(accelerator), "data": data_facts(config), "training_pairs": pairs}
        facts |= {"validation_pairs": validation, "trainable_parameters": trainable, "parameters": total}
        run.log.write(facts)
    share = f"{trainable:,} of {total:,} parameters are trained ({trainable / total:.2%})"
    accelerator.print(f"{run.order.pairs} training pairs, {run.order.steps} steps an epoch; {share}")


def entries(config: TrainConfig) -> dict[str, Any]:
    """Of train_config.yaml: the run can be repeated from it."""
    values = {**vars(config), "lora_alpha": config.alpha, "mix": dict(config.mix)}
    values["benchmark_options"] = dict(config.benchmark_options)
    values.pop("resume")
    return values


def data_facts(config: TrainConfig) -> dict[str, Any]:
    info = benchmark_builder(config.benchmark, **config.benchmark_options).info
    return {"name": config.benchmark, "licence": info.license, "homepage": info.homepage}


def environment(accelerator: Accelerator) -> dict[str, Any]:
    """What made the run, beside its config."""
    packages = ("torch", "transformers", "peft", "accelerate", "datasets")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "device": torch.cuda.get_device_name() if accelerator.device.type == "cuda" else accelerator.device.type,
        "processes": accelerator.num_processes,
        "distributed": accelerator.distributed_type.value,
        "commit": commit(),
    }


def commit() -> str:
    """Of the code that runs; empty where there is no git or no repository."""
    command = ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def peak_memory() -> float:
    """Of this process in GB: of the GPU if there is one."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)


def train_epoch(run: Run) -> bool:
    """The rest of an epoch; False if SIGTERM came, after a checkpoint."""
    progress, order, pairs = run.progress, run.order, run.train.dataset
    order.epoch = pairs.epoch = progress.epoch
    order.first_step = progress.step_in_epoch
    run.model.train()
    batches = iter(run.train) if len(order) else iter(())
    started = time.monotonic(), progress.step
    for step in range(order.first_step, order.steps):
        share = list(islice(batches, order.batches_in_step(step)))
        loss = train_step(run, share)
        if loss is None:
            save(run)
            return False
        progress.step, progress.step_in_epoch = progress.step + 1, step + 1
        progress.losses.append(loss)
        rate = run.scheduler.get_last_lr()[0]
        run.scheduler.step()
        speed = (progress.step - started[1]) * order.pairs_per_step / (time.monotonic() - started[0])
        run.bar.update()
        run.bar.set_postfix_str(f"loss {loss:.3f}, lr {rate:.1e}, {speed:.3g} pairs/s")
        if progress.step % run.config.log_every == 0:
            mean = sum(progress.losses) / len(progress.losses)
            progress.losses.clear()
            run.log.write({"loss": mean, "learning_rate": rate, "pairs_per_second": round(speed, 2)})
        if progress.step % run.config.checkpoint_every == 0:
            save(run)
    return True


def train_step(run: Run, share: list[tuple[dict[str, torch.Tensor], list[str]]]) -> float | None:
    """One optimizer step on this process's batches: mean loss over all processes' caption tokens; None to stop."""
    accelerator, model = run.accelerator, run.model
    count = sum(int((batch["labels"] >= 0).sum()) for batch, _ in share)
    counts = torch.tensor([count, run.stop.asked], device=accelerator.device, dtype=torch.float32)
    tokens, asked = accelerator.reduce(counts).tolist()
    if asked:
        return None
    losses = []
    for number, (batch, _) in enumerate(share):
        accelerator.sync_gradients = number == len(share) - 1
        with nullcontext() if accelerator.sync_gradients else accelerator.no_sync(model):
            seed = f"{run.config.seed}-{run.progress.step}-{number}-{accelerator.process_index}"
            torch.manual_seed(random.Random(seed).getrandbits(63))  # dropout, also after a resumption
            with accelerator.autocast():
                loss = model(**send_to_device(batch, accelerator.device), num_items_in_batch=tokens).loss
            losses.append(loss.detach())
            # Gradients are averaged over the processes, but each loss is a part of the sum already.
            accelerator.backward(loss * accelerator.num_processes)
    trainable = [p for p in model.parameters() if p.requires_grad]
    norm = accelerator.clip_grad_norm_(trainable, run.config.max_grad_norm)
    mean = accelerator.reduce(torch.stack(losses).sum()).item()
    if not (math.isfinite(mean) and math.isfinite(float(norm))):
        refuse(run, share, losses, mean)
    run.optimizer.step()
    run.optimizer.zero_grad()
    return mean


def refuse(run: Run, share: list[Any], losses: list[torch.Tensor], mean: float) -> None:
    """Ends the run before the step would ruin the adapter."""
    bad = [ids for (_, ids), loss in zip(share, losses, strict=True) if not torch.isfinite(loss)]
    bad = bad or [ids for _, ids in share]  # the loss was a number, its gradient was not
    pairs = gather_object([pair for ids in bad for pair in ids])
    last = latest_checkpoint(run.folder)
    kept = "there is no checkpoint yet" if last is None else f"the last good checkpoint is {str(last)!r}"
    raise ValueError(
        f"the {'gradient' if math.isfinite(mean) else 'loss'} of step {run.progress.step + 1} is not finite; pairs: "
        f"{', '.join(pairs[:8])}{f' and {len(pairs) - 8} more' if len(pairs) > 8 else ''}. The step was not taken, "
        f"{kept}: look at these pairs, or start again with a lower learning_rate"
    )


@torch.no_grad()
def validation_loss(accelerator: Accelerator, model: Any, loader: DataLoader) -> float:
    """Mean over all caption tokens of the split, gathered from all processes."""
    model = accelerator.unwrap_model(model).eval()  # bare: the processes may have different numbers of batches
    total = torch.zeros(2, device=accelerator.device, dtype=torch.float64)
    for batch, _ in loader:
        batch = send_to_device(batch, accelerator.device)
        with accelerator.autocast():
            loss = model(**batch, num_items_in_batch=1).loss
        total += torch.stack([loss.double(), (batch["labels"] >= 0).sum().double()])
    total = accelerator.reduce(total)
    return (total[0] / total[1]).item()


def validation_captions(accelerator: Accelerator, model: Any, processor: Any, rows: Any, batch_size: int) -> list[str]:
    """Greedy sentences for these rows, split over the processes."""
    with accelerator.split_between_processes(list(range(len(rows)))) as part:
        pairs = ((rows[i]["before"], rows[i]["after"]) for i in part)
        with accelerator.autocast():
            sentences = caption(accelerator.unwrap_model(model), processor, pairs, batch_size=batch_size)
    return gather_object(sentences)


def cider(rows: Any, sentences: list[str]) -> float:
    scored = [
        {"pair_id": pair_id, "prediction": sentence, "references": captions}
        for pair_id, sentence, captions in zip(rows["pair_id"], sentences, rows["captions"], strict=True)
    ]
    return score_rows(scored, metrics=["CIDEr"])["scores"]["CIDEr"]


def spread(rows: Any, count: int) -> Any:
    """`count` rows, evenly spread over the split."""
    return rows.select([i * len(rows) // count for i in range(count)]) if count < len(rows) else rows


def validate(run: Run) -> tuple[dict[str, float], list[str]]:
    """(scores, the main process's captions)"""
    accelerator, config = run.accelerator, run.config
    scores = {"validation_loss": validation_loss(accelerator, run.model, run.validation)}
    if not config.validation_captions:
        return scores, []
    chosen = spread(run.rows, config.validation_captions)
    sentences = validation_captions(accelerator, run.model, run.processor, chosen, config.batch_size)
    if accelerator.is_main_process:
        scores["validation_CIDEr"] = cider(chosen, sentences)
    return scores, sentences


def finish_epoch(run: Run) -> None:
    """Validation; the adapter is kept if it is the best so far."""
    accelerator, config, progress = run.accelerator, run.config, run.progress
    save(run)
    with run.stop.allowed():
        scores, sentences = validate(run)
        # The main process decides for all, and captions there are only here.
        scores = broadcast_object_list([scores])[0]
    progress.epoch, progress.step_in_epoch = progress.epoch + 1, 0
    run.log.write({"epoch": progress.epoch, **scores, "peak_memory_gb": peak_memory()})
    told = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in scores.items())
    accelerator.print(f"\nepoch {progress.epoch}: {told}")
    score = -scores["validation_loss"] if config.best_by == "loss" else scores["validation_CIDEr"]
    if not math.isfinite(score):
        raise ValueError(
            f"{config.best_by} is {score} at epoch {progress.epoch}: lower learning_rate, or look at the data"
        )
    if progress.judge(score):
        keep_adapter(run, sentences)
    save(run)


def keep_adapter(run: Run, sentences: list[str]) -> None:
    """The adapter of this moment, with pictures and card, into the run folder, and to the Hub if asked."""
    weights = run.weights()
    if not run.accelerator.is_main_process:
        return
    model, config = run.accelerator.unwrap_model(run.model), run.config
    save_adapter(model, run.processor, run.folder, config.model, config.revision, weights)
    if sentences:
        rows = spread(run.rows, config.validation_captions)
        places = [i * len(rows) // SAMPLES for i in range(SAMPLES)] if len(rows) > SAMPLES else range(len(rows))
        draw_samples(
            run.folder, [{**rows[i], "reference": rows[i]["captions"][0], "sentence": sentences[i]} for i in places]
        )
    write_card(run.folder)
    if config.push_to_hub and not config.merge:
        push(run)


def push(run: Run) -> None:
    config = run.config
    print(try_push(run.folder, config.hub_model_id, private=config.hub_private, merge=config.merge), file=sys.stderr)


def train(config: TrainConfig, accelerator: Accelerator, stop: Stop) -> None:
    run = prepare(accelerator, config, stop)
    if config.resume:
        resume(run)
        if run.progress.done:
            accelerator.print(f"{config.output_dir!r} is finished: nothing to do")
            return
    start_run(run)
    progress = run.progress
    total = run.order.steps * config.epochs
    with tqdm(total=total, initial=progress.step, unit="step", disable=not accelerator.is_main_process) as run.bar:
        while progress.epoch < config.epochs and progress.waited < config.patience:
            if not train_epoch(run):
                accelerator.print(f"stopped after step {progress.step}: go on with --resume")
                return
            finish_epoch(run)
    if progress.waited >= config.patience:
        accelerator.print(f"no better {config.best_by} for {progress.waited} epochs: done")
    finish_run(run)


def finish_run(run: Run) -> None:
    if run.accelerator.is_main_process:
        draw_curves(run.folder)
        write_card(run.folder)
        if run.config.push_to_hub:
            push(run)
    run.progress.done = True
    save(run)


def check_folder(config: TrainConfig) -> None:
    """A run is neither written over nor gone on with under another config."""
    file = Path(config.output_dir) / "train_config.yaml"
    if not file.exists():
        return
    if not config.resume:
        raise ValueError(
            f"{config.output_dir!r} already holds a run: pass --resume to go on with it, name another output_dir, "
            "or remove it"
        )
    before, now = yaml.safe_load(file.read_text(encoding="utf-8")), entries(config)
    adapters = {name for name in now if name.startswith("lora_")} if config.adapter else set()
    for name in sorted(set(now) - FREE - adapters):
        if before.get(name) != now[name]:
            raise ValueError(
                f"the run in {config.output_dir!r} was started with {name}={before.get(name)!r}, now it is "
                f"{now[name]!r}: resume it with the same config, or name another output_dir"
            )


def main(argv: list[str] | None = None) -> int:
    try:
        config = parse_config(sys.argv[1:] if argv is None else argv)
        check_folder(config)
        if config.validation_captions:
            java_command()  # whose absence would otherwise end the run after its first epoch
        stop = Stop()
        stop.listen()
        accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            log_with=config.trackers,
            project_config=ProjectConfiguration(logging_dir=str(Path(config.output_dir) / "tensorboard")),
        )
        set_seed(config.seed)
        train(config, accelerator, stop)
        accelerator.end_training()
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
