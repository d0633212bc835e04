"""Adapt a captioner to image difference captioning with LoRA: a benchmark in, a run folder out.

    accelerate launch train.py --config configs/photo_edits.yaml
    accelerate launch train.py --config configs/photo_edits.yaml --output_dir runs/other --lora_rank 16
    accelerate launch train.py --config configs/photo_edits.yaml --resume   # continues where the same command stopped

Every field of TrainConfig is a key of the YAML file and a command-line option, and the command line wins. The run
folder gets the best adapter with its processor, config, log, checkpoints, pictures and a card (README.md).
"""

import dataclasses
import importlib.util
import math
import os
import random
import shutil
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
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
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset
from tqdm import tqdm
from transformers import get_scheduler

from captioner_idc.adapters import (
    LoraVariant,
    adapted_modules,
    add_lora,
    checkpoint_activations,
    count_parameters,
    default_parts,
    lora_settings,
    make_optimizer,
    parts_without_gradient,
    save_adapter,
    trained_parts,
)
from captioner_idc.captioning import caption
from captioner_idc.families import card_facts
from captioner_idc.kept_features import KeptFeatures, check_can_keep, features_key, keep_features
from captioner_idc.loading import load, load_image, processor_fingerprint, slow_in_bfloat16
from captioner_idc.tokenizer_checks import words_in_pieces
from common_idc.atomic_files import remove_leftovers, write_json, write_text
from common_idc.commands import lasting_output, run_command
from common_idc.folder_lock import folder_lock
from common_idc.redaction import folder_name
from common_idc.settings import (
    NonNegativeFloat,
    NonNegativeInt,
    Options,
    PositiveFloat,
    PositiveInt,
    Range,
    Seed,
    as_yaml,
    check_ranges,
    option,
    parse_settings,
)
from dataset_syned import benchmark_builder, evenly_spaced, load_benchmark, rows_fingerprint, undecoded
from dataset_syned.epoch_order import CaptionChoice, PairOrder, TrainingPairs
from metric_idc import corpus_scores
from metric_idc.java import java_command
from run_idc.card import write_card
from run_idc.checkpoints import gather_state, latest_checkpoint
from run_idc.paths import CALIBRATION, CAPTIONER, TRACKERS, TRAIN_CONFIG
from run_idc.pictures import draw_curves, draw_samples
from run_idc.progress import Log, Progress, WaitingTime, environment, peak_memory
from run_idc.publishing import try_push
from run_idc.resuming import (
    check_processor_unchanged,
    check_settings_unchanged,
    restore_checkpoint,
    save_checkpoint,
)
from run_idc.stopping import StopSignals, process_errors_in_one_line

KNOWN_TRACKERS = ("tensorboard", "trackio", "wandb")
CHECKED_PAIRS = 4  # whose images are exchanged before the first step
MOST_WORKERS = 8  # that load images by default
SHARED_MEMORY = Path("/dev/shm")  # where loader processes put their batches; of 64 MB in Docker by default
LEAST_SHARED_MEMORY = 1e9  # bytes: 8 processes with two batches each of 16 pairs of 336 px
SAMPLES = 6  # validation pairs that are drawn with their sentences
# The resulting adapter does not depend on these. The processor is compared on its own, with all its settings.
MAY_CHANGE_ON_RESUME = {
    *("output_dir", "resume", "num_workers", "checkpoint_every", "trackers", "processor", "keep_vision_features"),
    *("push_to_hub", "hub_model_id", "hub_private", "merge"),
}


@dataclass
class TrainConfig:
    # Required, but with a default for the parser: `check` says what is missing in file and command line together.
    model: str = option("", "base model: folder or Hub id of a captioner. Required.")
    benchmark: str = option("", "name of the data set, see dataset_syned. Required.")
    output_dir: str = option("", "run folder. Required.")
    revision: str | None = option(None, "revision of the base model on the Hub")
    benchmark_options: Options = option(Options(), 'JSON, e.g. {"seed": 1}')
    mix: Options = option(
        Options(),
        'further benchmarks to train on: {"syned": {"weight": 0.5}} adds half of its pairs, a new half in each epoch; '
        "other keys are that benchmark's options. Validation uses `benchmark` alone",
    )
    caption_choice: CaptionChoice = option(
        "random", "reference to learn of each pair: a random one per epoch, or the shortest"
    )
    adapter: str | None = option(None, "continue this adapter (folder or Hub id) with its LoRA and processor settings")
    adapter_revision: str | None = option(None, "revision of --adapter on the Hub")
    processor: Options = option(
        Options(), 'changes to the processor settings that base or adapter saved: JSON, e.g. {"layout": "horizontal"}'
    )
    allow_pickle: bool = option(False, "load pickled weights (.bin) of base or adapter: only from people you trust")
    lora_rank: PositiveInt = option(8, "the paper: 8, 16 or 32")
    lora_alpha: PositiveInt | None = option(None, "default: 2 x rank, the paper's")
    lora_dropout: Annotated[float, Range(at_least=0, below=1)] = option(0.05, "of the adapter's input")
    lora_parts: list[str] = option(
        [],
        "parts that get adapters, e.g. vision language; default: all but embeddings, which are for words that are new "
        "to the base",
    )
    lora_variant: LoraVariant = option("lora", "pissa is saved as plain LoRA of twice the rank")
    lora_plus_ratio: PositiveFloat | None = option(None, "LoRA+: learning rate of B over that of A, 16 in its paper")
    learning_rate: PositiveFloat = option(1e-4, "the paper: 4e-5 to 1e-4")
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = option(
        "constant", "over all epochs; the paper's is constant"
    )
    warmup_steps: NonNegativeInt = option(0, "steps in which the learning rate rises from 0")
    weight_decay: NonNegativeFloat = option(0.01, "AdamW's default, as in the paper")
    max_grad_norm: PositiveFloat = option(1.0, "larger gradients are clipped to this norm")
    batch_size: PositiveInt = option(16, "pairs per step and process")
    gradient_accumulation_steps: PositiveInt = option(1, "batches per step")
    epochs: PositiveInt = option(100, "at most; early stopping ends most runs")
    patience: PositiveInt = option(10, "early stopping after this many epochs without improvement")
    best_by: Literal["loss", "CIDEr"] = option("loss", "score that selects the adapter")
    validation_captions: NonNegativeInt = option(
        500, "validation pairs captioned for CIDEr after each epoch, evenly spaced; 0: none"
    )
    mixed_precision: Literal["no", "bf16"] = option(
        "bf16", "no: float32, which is faster only on CPUs without bfloat16 (avx512_bf16, amx)"
    )
    quantize: Literal["no", "4bit"] = option(
        "no", "4bit: QLoRA, the base in 4 bits; needs a CUDA GPU and bitsandbytes"
    )
    attn_implementation: Literal["sdpa", "eager"] = option("sdpa", "eager: a quarter faster on CPUs in bf16")
    activation_checkpointing: bool = option(
        False, "less memory for about a third more time: activations are computed twice"
    )
    keep_vision_features: str | None = option(
        None,
        "folder in which the vision encoder's features of each pair are kept, for this run and others: no image is "
        "encoded twice. Only with lora_parts without vision",
    )
    num_workers: NonNegativeInt | None = option(
        None, "processes that load images; default: one less than there are CPU cores for each process, at most 8"
    )
    seed: Seed = option(42, "of all random choices")
    log_every: PositiveInt = option(20, "steps between two lines of log.jsonl")
    checkpoint_every: PositiveInt = option(200, "steps between two checkpoints; each epoch ends with one as well")
    resume: bool = option(False, "continue from the run folder's last checkpoint")
    trackers: list[str] = option(["tensorboard"], f"any of {', '.join(KNOWN_TRACKERS)}")
    push_to_hub: bool = option(False, "at each better score and at the end")
    hub_model_id: str | None = option(None, "repository to push to, e.g. me/blip2idc-toy")
    hub_private: bool = option(False, "create the repository as a private one")
    merge: bool = option(False, "push the whole model instead of the adapter, at the end")

    @property
    def alpha(self) -> int:
        """Return LoRA's alpha, with its default resolved."""
        return 2 * self.lora_rank if self.lora_alpha is None else self.lora_alpha

    def check(self) -> None:
        """Raise ValueError for a missing or impossible value, which it quotes."""
        for name in ("model", "benchmark", "output_dir"):
            if not getattr(self, name):
                raise ValueError(f"{name} is missing: write it into the config file or pass --{name}")
        check_ranges(self)
        if self.best_by == "CIDEr" and not self.validation_captions:
            raise ValueError("best_by=CIDEr needs captions: set validation_captions above 0")
        if self.push_to_hub != bool(self.hub_model_id):
            raise ValueError(
                f"push_to_hub={self.push_to_hub}, hub_model_id={self.hub_model_id!r}: give both or neither"
            )
        if (self.hub_private or self.merge) and not self.push_to_hub:
            raise ValueError("hub_private and merge go with push_to_hub")
        for name in self.trackers:
            if name not in KNOWN_TRACKERS:
                raise ValueError(f"trackers={' '.join(self.trackers)}: use any of {', '.join(KNOWN_TRACKERS)}")
            if importlib.util.find_spec(name) is None:  # Accelerate would silently leave it out
                raise ValueError(f"trackers={' '.join(self.trackers)}: {name} is not installed: pip install {name}")
        self.check_mix()

    def check_mix(self) -> None:
        """Raise ValueError for a benchmark of the mix without a weight."""
        for name, options in self.mix.items():
            weight = options.get("weight") if isinstance(options, dict) else None
            if type(weight) not in (int, float) or not 0 < weight < math.inf:
                raise ValueError(
                    f"mix: {name}={options!r}: write {{{name}: {{weight: 0.5}}}}, how often its pairs occur per epoch"
                )
            if name == self.benchmark:
                raise ValueError(f"mix: {name!r} is the benchmark already, whose pairs occur once per epoch")


def parse_config(argv: list[str]) -> TrainConfig:
    """Return the checked settings of a command line and its config file.

    Raises: ValueError for an unknown key or an impossible value; SystemExit as argparse does.
    """
    config = parse_settings(TrainConfig, argv, "train.py", __doc__.split("\n")[0])
    config.check()
    return dataclasses.replace(config, model=folder_name(config.model), adapter=folder_name(config.adapter))


class Collate:
    """Collation of examples to model inputs and pair ids; a class, because loader processes must pickle it.

    Args:
        features: what the vision encoder has made of the pairs, instead of their images.
    """

    def __init__(self, processor: Any, features: Dataset | None = None):
        self.processor, self.features = processor, features

    def __call__(self, examples: list[dict[str, Any]]) -> tuple[dict[str, torch.Tensor], list[str]]:
        captions = [example["caption"] for example in examples]
        if self.features is None:
            pairs = [load_pair(self.processor, example) for example in examples]
            inputs = self.processor(before=[b for b, _ in pairs], after=[a for _, a in pairs], captions=captions)
        else:
            inputs = self.processor.without_images(captions)
            inputs["vision_features"] = torch.stack([self.features[example["row"]] for example in examples])
        for row, example in enumerate(examples):
            if not example["weight"]:  # a padding item: see PairOrder
                inputs["labels"][row] = -100
        return dict(inputs), [example["pair_id"] for example in examples]


def load_pair(processor: Any, row: dict[str, Any]) -> tuple[Any, Any]:
    """Return both images of a row as the network sees them. Raises: ImageError that names pair and file."""
    return processor.load_pair(row["before"], row["after"], f"pair {row['pair_id']!r}")


@dataclass
class Run:
    """State of one training run."""

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
    stop: StopSignals
    log: Log | None = None
    bar: tqdm | None = None

    @property
    def folder(self) -> Path:
        """Return the run folder."""
        return Path(self.config.output_dir)

    @property
    def deepspeed(self) -> bool:
        """Return whether DeepSpeed keeps weights and optimizer, in pickle files outside our checkpoints."""
        return self.accelerator.distributed_type is DistributedType.DEEPSPEED

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the trained weights, gathered if they are sharded; all processes must call it together."""
        if self.deepspeed:
            return self.accelerator.get_state_dict(self.model)
        return gather_state(self.model, self.optimizer.optimizer)["adapter"]


def load_rows(config: TrainConfig) -> tuple[list[Any], list[float], Any]:
    """Return training rows of each benchmark, their weights per epoch, and validation rows; images are not decoded."""
    parts, weights = [load_benchmark(config.benchmark, "train", **config.benchmark_options)], [1.0]
    for name, options in config.mix.items():
        parts.append(load_benchmark(name, "train", **{k: v for k, v in options.items() if k != "weight"}))
        weights.append(float(options["weight"]))
    held_out = load_benchmark(config.benchmark, "validation", **config.benchmark_options)
    return [undecoded(part) for part in parts], weights, undecoded(held_out)


def default_workers(processes: int) -> int:
    """Return how many processes load images for each of the training processes of this machine.

    One core stays free for training itself. Without a core to spare, or without memory to share, the training process
    loads its images itself.
    """
    if sys.platform != "linux" or shutil.disk_usage(SHARED_MEMORY).free < LEAST_SHARED_MEMORY:
        return 0  # elsewhere such a process would import everything anew in each epoch
    return max(0, min(MOST_WORKERS, len(os.sched_getaffinity(0)) // processes - 1))


def loading_options(config: TrainConfig, processes: int) -> dict[str, Any]:
    """Return the keywords of `DataLoader` that say which processes load images.

    Args:
        processes: that train, on all machines.
    """
    workers = config.num_workers
    if workers is None:
        workers = default_workers(int(os.environ.get("LOCAL_WORLD_SIZE", processes)))
    if workers and sys.platform == "linux":
        return {"num_workers": workers, "multiprocessing_context": "fork"}  # Python 3.14 would start them anew
    return {"num_workers": workers}


def build_loaders(
    config: TrainConfig,
    rows: tuple[list[Any], list[float], Any],
    processor: Any,
    process: int = 0,
    processes: int = 1,
    features: tuple[Dataset, Dataset] | tuple[None, None] = (None, None),
) -> tuple[PairOrder, DataLoader, DataLoader]:
    """Return the order of the training pairs, their loader and the validation loader, for one process's share.

    Args:
        features: see `vision_features`.
    """
    parts, weights, held_out = rows
    options = loading_options(config, processes)
    sizes = [len(part) for part in parts]
    batches = config.gradient_accumulation_steps
    order = PairOrder(sizes, weights, config.seed, config.batch_size, batches, process, processes)
    pairs = TrainingPairs(concatenate_datasets(parts), config.seed, config.caption_choice)
    train = DataLoader(pairs, batch_sampler=order, collate_fn=Collate(processor, features[0]), **options)
    # Their epoch stays 0: the same captions each time, so that the losses can be compared.
    pairs = TrainingPairs(held_out, config.seed, config.caption_choice)
    own = Subset(pairs, range(process, len(pairs), processes))
    collate = Collate(processor, features[1])
    return order, train, DataLoader(own, batch_size=config.batch_size, collate_fn=collate, **options)


def build_model(config: TrainConfig, device: torch.device) -> tuple[TrainConfig, Any, Any]:
    """Return the config with everything that base or adapter decide, the model and the processor.

    The base has the precision of the arithmetic, the adapter float32.
    """
    model, processor = load(
        config.model,
        config.adapter,
        device=device,
        dtype=torch.bfloat16 if config.mixed_precision == "bf16" else torch.float32,
        revision=config.revision,
        adapter_revision=config.adapter_revision,
        processor=config.processor,
        attn_implementation=config.attn_implementation,
        trainable=True,
        allow_pickle=config.allow_pickle,
        quantize=None if config.quantize == "no" else config.quantize,
    )
    resolved: dict[str, Any] = {"processor": Options(processor.settings), "lora_alpha": config.alpha}
    if config.adapter:
        resolved |= {f"lora_{name}": value for name, value in lora_settings(model).items()}
    else:
        resolved["lora_parts"] = config.lora_parts or default_parts(model)
        settings = (config.lora_rank, config.alpha, config.lora_dropout, config.seed)
        model = add_lora(model, *settings, resolved["lora_parts"], config.lora_variant)
    if config.activation_checkpointing:
        checkpoint_activations(model)
    return dataclasses.replace(config, **resolved), model, processor


def hash_inputs(config: TrainConfig, rows: tuple[list[Any], list[float], Any], processor: Any) -> dict[str, str]:
    """Return a hash of each part of the data, and of tokenizer and processor: a run is not resumed with others."""
    parts, _, held_out = rows
    hashes = {
        f"{name}, split train": rows_fingerprint(part)
        for name, part in zip([config.benchmark, *config.mix], parts, strict=True)
    }
    hashes[f"{config.benchmark}, split validation"] = rows_fingerprint(held_out)
    return {**hashes, "tokenizer and processor": processor_fingerprint(processor)}


def vision_features(
    accelerator: Accelerator, config: TrainConfig, rows: tuple[list[Any], list[float], Any], model: Any, processor: Any
) -> tuple[Dataset, Dataset] | tuple[None, None]:
    """Return what the vision encoder makes of the training and the validation pairs, if the config asks to keep it.

    Raises: ValueError if the features cannot be kept; OSError for a disk that is too small, or not the same for all
        processes.
    """
    if config.keep_vision_features is None:
        return None, None
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise ValueError(
            f"keep_vision_features needs the whole model in each process, not {accelerator.distributed_type.value}: "
            "leave it out"
        )
    check_can_keep(model, trained_parts(model))
    kept = []
    for pairs in (*rows[0], rows[2]):
        key = features_key(rows_fingerprint(pairs), processor, model) if accelerator.is_main_process else None
        folder = Path(config.keep_vision_features) / broadcast_object_list([key])[0]
        share = (accelerator.process_index, accelerator.num_processes)
        loading = loading_options(config, accelerator.num_processes)
        keep_features(folder, pairs, processor, model, accelerator.autocast(), config.batch_size, *share, **loading)
        accelerator.wait_for_everyone()
        kept.append(KeptFeatures(folder, len(pairs)))
    return ConcatDataset(kept[:-1]), kept[-1]


def prepare(accelerator: Accelerator, config: TrainConfig, stop: StopSignals) -> Run:
    """Return a run that is ready for its first step."""
    with accelerator.main_process_first():
        rows = load_rows(config)
    config, model, processor = build_model(config, accelerator.device)
    features = vision_features(accelerator, config, rows, model, processor)
    share = (accelerator.process_index, accelerator.num_processes)
    order, train, validation = build_loaders(config, rows, processor, *share, features)
    optimizer = make_optimizer(model, config.learning_rate, config.weight_decay, config.lora_plus_ratio)
    schedule = "constant_with_warmup" if config.lr_scheduler_type == "constant" else config.lr_scheduler_type
    scheduler = get_scheduler(schedule, optimizer, config.warmup_steps, order.steps * config.epochs)
    if accelerator.distributed_type is DistributedType.DEEPSPEED:  # it would ask a prepared loader
        accelerator.state.deepspeed_plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = config.batch_size
    # Not the loader and the scheduler: their pace is that of PairOrder's steps, the same for any number of processes.
    model, optimizer = accelerator.prepare(model, optimizer)
    parts = (model, processor, optimizer, scheduler, order, train, validation, rows[2])
    # hashed by one process, because all images are read for it
    [inputs] = broadcast_object_list([hash_inputs(config, rows, processor) if accelerator.is_main_process else None])
    progress = Progress(order.pairs_per_step, inputs=inputs)
    return Run(accelerator, config, *parts, progress, stop)


def resume(run: Run) -> None:
    """Continue from the newest checkpoint, if there is one."""
    check_processor_unchanged(run.folder, run.processor.settings)
    state = (run.model, run.optimizer.optimizer)
    progress = restore_checkpoint(run.accelerator, run.folder, *state, run.order.pairs_per_step, run.progress.inputs)
    if progress is None:
        return
    run.progress = progress
    if not progress.done:
        run.scheduler.last_epoch = progress.step - 1
        run.scheduler.step()  # sets the rate of this step, which depends on the step alone
        run.accelerator.print(f"continuing after step {progress.step}, in epoch {progress.epoch + 1}")


def save(run: Run) -> None:
    """Write a checkpoint; all processes must call it together."""
    if run.progress.step and not run.deepspeed:
        run.log.sync()
        save_checkpoint(run.accelerator, run.folder, run.model, run.optimizer.optimizer, run.progress)


def start_run(run: Run) -> None:
    """Write config and facts of the captioner into the run folder, open the log, print what is trained."""
    accelerator, config = run.accelerator, run.config
    if accelerator.is_main_process and config.mixed_precision == "bf16" and slow_in_bfloat16(accelerator.device):
        print("this CPU has no instructions for bfloat16: --mixed_precision no is faster here", file=sys.stderr)
    if accelerator.is_main_process:
        run.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(run.folder)
        write_text(run.folder / TRAIN_CONFIG, as_yaml(config, without=["resume"]))
        write_json(run.folder / CAPTIONER, card_facts(accelerator.unwrap_model(run.model)))
    run.log = Log(accelerator, run.folder, run.progress)
    # Steps that will be repeated are removed from tensorboard's curves.
    named = {"name": run.folder.resolve().name}
    purge = {"purge_step": run.progress.step + 1}
    accelerator.init_trackers("blip2idc", init_kwargs={"tensorboard": purge, "trackio": named, "wandb": named})
    trainable, total = count_parameters(run.model)
    if not run.progress.log_bytes:
        pairs, validation = run.order.pairs, len(run.rows)
        facts = {"environment": environment(accelerator), "data": data_facts(config), "training_pairs": pairs}
        facts |= {"validation_pairs": validation, "trainable_parameters": trainable, "parameters": total}
        run.log.write({**facts, "inputs": run.progress.inputs})
    share = f"{trainable:,} of {total:,} parameters are trained ({trainable / total:.2%})"
    accelerator.print(f"{run.order.pairs} training pairs, {run.order.steps} steps per epoch; {share}")
    has_embeddings = "embeddings" in adapted_modules(accelerator.unwrap_model(run.model).get_base_model())
    if accelerator.is_main_process and has_embeddings and "embeddings" not in config.lora_parts:
        report_words_in_pieces(run)


def report_words_in_pieces(run: Run) -> None:
    """Say which words of the training captions the tokenizer spells in pieces: LoRA alone rarely learns those."""
    rows = run.train.dataset.rows
    captions = (caption for captions in rows["captions"] for caption in captions)
    count, total, examples = words_in_pieces(run.processor.tokenizer, captions)
    if count:
        print(
            f"{count} of {total} words of the training captions are spelled in pieces, e.g. {', '.join(examples)}: if "
            'the captions never use them, add "embeddings" to lora_parts',
            file=sys.stderr,
        )


def data_facts(config: TrainConfig) -> dict[str, Any]:
    """Return name, options, licence and home page of the benchmark."""
    info = benchmark_builder(config.benchmark, **config.benchmark_options).info
    facts = {"name": config.benchmark, "options": config.benchmark_options}
    return {**facts, "licence": info.license, "homepage": info.homepage}


def train_epoch(run: Run) -> bool:
    """Train the rest of an epoch; return False if a signal to stop came, after writing a checkpoint."""
    progress, order, pairs = run.progress, run.order, run.train.dataset
    order.epoch = pairs.epoch = progress.epoch
    order.first_step = progress.step_in_epoch
    run.model.train()
    batches = iter(run.train) if len(order) else iter(())
    started = time.monotonic(), progress.step
    waiting = WaitingTime()
    for step in range(order.first_step, order.steps):
        with waiting:
            share = list(islice(batches, order.batches_in_step(step)))
        result = train_step(run, share)
        if result is None:
            save(run)
            return False
        loss, grad_norm = result
        progress.step, progress.step_in_epoch = progress.step + 1, step + 1
        progress.losses.append(loss)
        progress.grad_norms.append(grad_norm)
        rate = run.scheduler.get_last_lr()[0]
        run.scheduler.step()
        speed = (progress.step - started[1]) * order.pairs_per_step / (time.monotonic() - started[0])
        run.bar.update()
        run.bar.set_postfix_str(f"loss {loss:.3f}, lr {rate:.1e}, {speed:.3g} pairs/s")
        if progress.step % run.config.log_every == 0:
            facts = {"pairs_per_second": round(speed, 2), "data_wait_share": waiting.take_share()}
            run.log.write({**progress.take_means(), "learning_rate": rate, **facts})
        if progress.step % run.config.checkpoint_every == 0:
            save(run)
    return True


def train_step(run: Run, share: list[tuple[dict[str, torch.Tensor], list[str]]]) -> tuple[float, float] | None:
    """Take one optimizer step on this process's batches; return loss and gradient norm, or None to stop.

    The loss is the mean over the caption tokens of all processes, the norm is taken before clipping.

    Raises: ValueError if loss or gradient is not finite; the step is then not taken.
    """
    accelerator, model = run.accelerator, run.model
    count = sum(int((batch["labels"] >= 0).sum()) for batch, _ in share)
    counts = torch.tensor([count, run.stop.requested], device=accelerator.device, dtype=torch.float32)
    tokens, stop_requested = accelerator.reduce(counts).tolist()
    if stop_requested:
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
            # Gradients are averaged over the processes, but each loss is already a part of the sum.
            accelerator.backward(loss * accelerator.num_processes)
    if not run.progress.step and not run.deepspeed:  # which keeps gradients elsewhere
        check_gradients(accelerator, model)
    trainable = [p for p in model.parameters() if p.requires_grad]
    norm = float(accelerator.clip_grad_norm_(trainable, run.config.max_grad_norm))
    mean = accelerator.reduce(torch.stack(losses).sum()).item()
    if not (math.isfinite(mean) and math.isfinite(norm)):
        raise_non_finite(run, share, losses, mean)
    run.optimizer.step()
    run.optimizer.zero_grad()
    return mean, norm


def check_gradients(accelerator: Accelerator, model: Any) -> None:
    """Raise ValueError if a part of the model with adapters gets no gradient: it would never be trained."""
    without = parts_without_gradient(accelerator.unwrap_model(model))
    everywhere = set.intersection(*map(set, gather_object([without])))
    if everywhere:
        raise ValueError(
            f"the adapters in {', '.join(sorted(everywhere))} get no gradient in the first step, so that they would "
            "never be trained: leave these parts out of lora_parts, or use another model"
        )


@torch.no_grad()
def check_images_matter(run: Run) -> None:
    """Raise ValueError if the model's loss is the same when the images of each pair are exchanged.

    It says nothing if the images of all pairs that it looks at are the same.
    """
    pairs = run.train.dataset
    examples = [pairs[index] for index in range(min(CHECKED_PAIRS, len(pairs)))]
    exchanged = [{**example, "before": example["after"], "after": example["before"]} for example in examples]
    (straight, _), (swapped, _) = map(Collate(run.processor), (examples, exchanged))
    if all(torch.equal(straight[name], swapped[name]) for name in straight):
        return
    model = run.accelerator.unwrap_model(run.model).eval()
    with run.accelerator.autocast():
        losses = [model(**send_to_device(batch, run.accelerator.device)).loss.item() for batch in (straight, swapped)]
    if losses[0] == losses[1]:
        raise ValueError(
            f"exchanging the images of {len(examples)} pairs does not change the loss ({losses[0]:.4f}): the model "
            "does not see them. Use another model, or other processor settings"
        )


def raise_non_finite(run: Run, share: list[Any], losses: list[torch.Tensor], mean: float) -> None:
    """Raise ValueError with the pairs of a step that would ruin the adapter."""
    bad = [ids for (_, ids), loss in zip(share, losses, strict=True) if not torch.isfinite(loss)]
    bad = bad or [ids for _, ids in share]  # the loss was finite, its gradient was not
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
    """Return the mean loss over all caption tokens of the split, of all processes."""
    model = accelerator.unwrap_model(model).eval()  # unwrapped: the processes may have different numbers of batches
    total = torch.zeros(2, device=accelerator.device, dtype=torch.float64)
    for batch, _ in loader:
        batch = send_to_device(batch, accelerator.device)
        with accelerator.autocast():
            loss = model(**batch, num_items_in_batch=1).loss
        total += torch.stack([loss.double(), (batch["labels"] >= 0).sum().double()])
    total = accelerator.reduce(total)
    return (total[0] / total[1]).item()


def validation_captions(accelerator: Accelerator, model: Any, processor: Any, rows: Any, batch_size: int) -> list[str]:
    """Return greedy sentences for these rows; the processes share the work."""
    with accelerator.split_between_processes(list(range(len(rows)))) as part:
        pairs = (load_pair(processor, row) for row in rows.select(part))
        with accelerator.autocast():
            sentences = caption(accelerator.unwrap_model(model), processor, pairs, batch_size=batch_size)
    return gather_object(sentences)


def cider(rows: Any, sentences: list[str]) -> float:
    """Return the CIDEr of the sentences against the captions of the rows."""
    scored = [
        {"pair_id": pair_id, "prediction": sentence, "references": captions}
        for pair_id, sentence, captions in zip(rows["pair_id"], sentences, rows["captions"], strict=True)
    ]
    return corpus_scores(scored, ["CIDEr"])["CIDEr"]


def validate(run: Run) -> tuple[dict[str, float], list[str]]:
    """Return the validation scores and, on the main process, the sentences."""
    accelerator, config = run.accelerator, run.config
    scores = {"validation_loss": validation_loss(accelerator, run.model, run.validation)}
    if not config.validation_captions:
        return scores, []
    chosen = evenly_spaced(run.rows, config.validation_captions)
    sentences = validation_captions(accelerator, run.model, run.processor, chosen, config.batch_size)
    if accelerator.is_main_process:
        scores["validation_CIDEr"] = cider(chosen, sentences)
    return scores, sentences


def finish_epoch(run: Run) -> None:
    """Validate, and save the adapter if it is the best so far.

    Raises: ValueError if the score is not finite.
    """
    accelerator, config, progress = run.accelerator, run.config, run.progress
    save(run)
    with run.stop.exit_now_allowed():
        scores, sentences = validate(run)
        # The main process, which alone has the captions, decides for all.
        scores = broadcast_object_list([scores])[0]
    progress.epoch, progress.step_in_epoch = progress.epoch + 1, 0
    run.log.write({"epoch": progress.epoch, **scores, "peak_memory_gb": peak_memory()})
    described = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in scores.items())
    accelerator.print(f"\nepoch {progress.epoch}: {described}")
    score = -scores["validation_loss"] if config.best_by == "loss" else scores["validation_CIDEr"]
    if not math.isfinite(score):
        raise ValueError(
            f"{config.best_by} is {score} at epoch {progress.epoch}: lower learning_rate, or look at the data"
        )
    if progress.is_best(score):
        save_best(run, sentences)
    save(run)


def save_best(run: Run, sentences: list[str]) -> None:
    """Save the current adapter with pictures and card into the run folder, and push it if asked."""
    weights = run.weights()
    if not run.accelerator.is_main_process:
        return
    model, config = run.accelerator.unwrap_model(run.model), run.config
    save_adapter(model, run.processor, run.folder, config.model, config.revision, weights)
    (run.folder / CALIBRATION).unlink(missing_ok=True)  # of an earlier adapter
    if sentences:
        rows = evenly_spaced(run.rows, config.validation_captions)
        draw_samples(run.folder, samples(rows, sentences))
    write_card(run.folder)
    if config.push_to_hub and not config.merge:
        push(run)


def samples(rows: Any, sentences: list[str]) -> list[dict[str, Any]]:
    """Return images, reference and sentence of a few evenly spaced validation pairs."""
    chosen = evenly_spaced(rows.add_column("sentence", sentences), SAMPLES)
    images = ({side: load_image(row[side]) for side in ("before", "after")} for row in chosen)
    texts = ({"reference": row["captions"][0], "sentence": row["sentence"]} for row in chosen)
    return [{**pictures, **text} for pictures, text in zip(images, texts, strict=True)]


def push(run: Run) -> None:
    """Push the run folder and say what came of it: a failed push never stops training."""
    config = run.config
    print(try_push(run.folder, config.hub_model_id, private=config.hub_private, merge=config.merge), file=sys.stderr)


def train(config: TrainConfig, accelerator: Accelerator, stop: StopSignals) -> None:
    """Train until the last epoch, early stopping or a signal to stop.

    Raises: KeyboardInterrupt or SystemExit after such a signal, with a checkpoint on the disk.
    """
    with stop.exit_now_allowed():
        run = prepare(accelerator, config, stop)
        if config.resume:
            resume(run)
            if run.progress.done:
                accelerator.print(f"{config.output_dir!r} is finished: nothing to do")
                return
        if not run.progress.step:
            check_images_matter(run)
        start_run(run)
    progress = run.progress
    total = run.order.steps * config.epochs
    with tqdm(total=total, initial=progress.step, unit="step", disable=not accelerator.is_main_process) as run.bar:
        while progress.epoch < config.epochs and progress.epochs_without_improvement < config.patience:
            if not train_epoch(run):
                accelerator.print(f"\nstopped after step {progress.step}: continue with --resume")
                stop.exit()
            finish_epoch(run)
    if progress.epochs_without_improvement >= config.patience:
        accelerator.print(f"early stopping: no better {config.best_by} for {config.patience} epochs")
    finish_run(run)


def finish_run(run: Run) -> None:
    """Draw the curves, renew the card, push if asked, and mark the run as finished."""
    if run.accelerator.is_main_process:
        draw_curves(run.folder)
        write_card(run.folder)
        if run.config.push_to_hub:
            push(run)
    run.progress.done = True
    save(run)


def check_folder(config: TrainConfig) -> None:
    """Refuse to overwrite a run or to resume it with a different config.

    Raises: ValueError that names the first difference.
    """
    settings = vars(config) | {"lora_alpha": config.alpha}
    from_base = set() if config.lora_parts else {"lora_parts"}
    from_adapter = {name for name in settings if name.startswith("lora_")} if config.adapter else from_base
    check_settings_unchanged(Path(config.output_dir), settings, MAY_CHANGE_ON_RESUME | from_adapter, config.resume)


def run_program(argv: list[str]) -> None:
    """Train with the settings of a command line."""
    config = parse_config(argv)
    if config.validation_captions:
        java_command()  # its absence would otherwise end the run after the first epoch
    with StopSignals() as stop, lasting_output(), process_errors_in_one_line():
        accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            log_with=config.trackers or None,
            project_config=ProjectConfiguration(logging_dir=str(Path(config.output_dir) / TRACKERS)),
            cpu=not torch.accelerator.is_available(),  # else each process without a GPU would train on its own
        )
        set_seed(config.seed)
        with folder_lock(Path(config.output_dir)) if accelerator.is_main_process else nullcontext():
            check_folder(config)
            train(config, accelerator, stop)
            accelerator.end_training()


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    errors = (ValueError, OSError, ImportError)
    return run_command(lambda: run_program(arguments), *errors, interrupted="continue with --resume")


if __name__ == "__main__":
    sys.exit(main())
