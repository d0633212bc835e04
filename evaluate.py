"""Evaluate a captioner on a benchmark: predictions, scores and a report.

    python evaluate.py --adapter runs/toy --benchmark toy --output_dir runs/toy/eval/toy-test
    python evaluate.py --model captioner_idc/tiny_captioner --benchmark toy --output_dir runs/base
    accelerate launch evaluate.py --adapter runs/toy --benchmark toy --output_dir runs/toy/eval/toy-test

The output folder gets predictions.jsonl first, then its scores (metrics.json, pairs.jsonl) and report.html. `python -m
metric_idc` scores the predictions again, or compares results, without model and images.
"""

import importlib.machinery
import importlib.util
import os
import sys

if __name__ != "__main__":
    # `import evaluate` finds this file before the Hugging Face library of that name, which is wanted: step aside.
    _here = os.path.dirname(os.path.abspath(__file__))
    _spec = importlib.machinery.PathFinder.find_spec(
        "evaluate", [path for path in sys.path if os.path.abspath(path or os.getcwd()) != _here]
    )
    if _spec is None or _spec.loader is None:
        raise ImportError("the library `evaluate` is not installed: pip install evaluate")
    _library = importlib.util.module_from_spec(_spec)
    sys.modules["evaluate"] = _library
    _spec.loader.exec_module(_library)

# This file also runs when somebody imports the library: what loads torch is imported in the functions that need it.
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from common_idc.settings import Options, parse_settings
from metric_idc import best_constant_caption
from metric_idc.comparison import results_table
from metric_idc.controls import describe_controls, merge_signatures, score_with_controls
from metric_idc.result_files import remove_results, write_result, write_rows
from metric_idc.scoring import check_scoring
from run_idc.paths import PREDICTIONS, control_predictions, run_of

Row = dict[str, Any]
CONTROLS = {"swapped": ("after", "before"), "identical": ("before", "before")}  # columns for before and after


@dataclass
class EvaluateConfig:
    model: str | None = field(default=None, metadata={"help": "captioner or adapter: folder or Hub id"})
    adapter: str | None = field(default=None, metadata={"help": "LoRA adapter; without --model it names its base"})
    revision: str | None = field(default=None, metadata={"help": "of --model (or of --adapter alone) on the Hub"})
    adapter_revision: str | None = field(default=None, metadata={"help": "of --adapter next to --model, on the Hub"})
    processor: Options = field(
        default_factory=Options,
        metadata={"help": 'changes to the saved processor settings: JSON, e.g. {"prompt": "what changed?"}'},
    )
    benchmark: str = field(default="", metadata={"help": "name of the data set, see dataset_syned. Required."})
    benchmark_options: Options = field(default_factory=Options, metadata={"help": 'JSON, e.g. {"seed": 1}'})
    split: str = "test"
    output_dir: str = field(default="", metadata={"help": "gets predictions, scores and report. Required."})
    batch_size: int = 32
    dtype: Literal["auto", "float32", "bfloat16"] = field(
        default="auto", metadata={"help": "auto: bfloat16 on a GPU, float32 elsewhere"}
    )
    num_beams: int = field(default=1, metadata={"help": "1 is greedy decoding, the paper's"})
    do_sample: bool = field(default=False, metadata={"help": "sample instead of taking the most likely token"})
    temperature: float = field(default=1.0, metadata={"help": "with --do_sample"})
    top_p: float = field(default=1.0, metadata={"help": "with --do_sample"})
    max_new_tokens: int | None = field(default=None, metadata={"help": "default: the processor's max_caption_length"})
    seed: int = field(default=0, metadata={"help": "with --do_sample"})
    input_controls: bool = field(
        default=True, metadata={"help": "also caption each pair with its images exchanged, and its before image twice"}
    )
    protocol: Literal["standard", "paper"] = field(
        default="standard",
        metadata={"help": "paper: rewrite no-change sentences and drop the last pairs, as the paper's code did"},
    )
    metrics: list[str] = field(
        default_factory=list, metadata={"help": "of BLEU METEOR ROUGE-L CIDEr SPICE; default: all"}
    )
    sentence_model: str | None = field(
        default=None, metadata={"help": "folder of a sentence-embedding model: adds SentenceSimilarity"}
    )
    clip_model: str | None = field(
        default=None, metadata={"help": "folder of a CLIP model: adds CLIPScore and RefCLIPScore of the after images"}
    )
    push_to_hub: bool = field(default=False, metadata={"help": "push the run of --output_dir RUN/eval/NAME again"})
    hub_model_id: str | None = field(default=None, metadata={"help": "repository to push to, <user>/<name>"})
    hub_private: bool = field(default=False, metadata={"help": "create the repository as a private one"})
    merge: bool = field(default=False, metadata={"help": "push the whole model, as the repository contains it"})

    def check(self) -> None:
        """Raise ValueError for a missing or impossible value, which it quotes."""
        for name in ("benchmark", "output_dir"):
            if not getattr(self, name):
                raise ValueError(f"--{name} is missing; see --help")
        if not (self.model or self.adapter):
            raise ValueError("--model or --adapter is missing: give a folder or Hub id")
        if self.adapter_revision and not (self.model and self.adapter):
            raise ValueError("--adapter_revision needs --model and --adapter; for --adapter alone use --revision")
        for name in ("batch_size", "num_beams", "max_new_tokens"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(self, name)}")
        if not self.do_sample and (self.temperature, self.top_p) != (1.0, 1.0):
            raise ValueError("--temperature and --top_p need --do_sample")
        if not (0 < self.temperature < float("inf") and 0 < self.top_p <= 1):
            raise ValueError(f"--temperature={self.temperature}, --top_p={self.top_p}: above 0, and top_p at most 1")
        if self.push_to_hub != bool(self.hub_model_id) or (self.hub_private or self.merge) and not self.push_to_hub:
            raise ValueError("--push_to_hub and --hub_model_id go together; --hub_private and --merge need them")
        if self.push_to_hub and run_of(Path(self.output_dir)) is None:
            raise ValueError(
                f"--push_to_hub pushes a run with its scores: --output_dir must be RUN/eval/NAME in the folder of a "
                f"run, got {self.output_dir!r}"
            )

    def decoding(self) -> dict[str, Any]:
        """Return keywords of `generate`."""
        settings: dict[str, Any] = {"num_beams": self.num_beams, "do_sample": self.do_sample}
        if self.do_sample:
            settings |= {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        return settings | ({"max_new_tokens": self.max_new_tokens} if self.max_new_tokens else {})

    def scoring(self) -> dict[str, Any]:
        """Return keywords of `score_rows`."""
        settings = {"protocol": self.protocol, "sentence_model": self.sentence_model, "clip_model": self.clip_model}
        return {"metrics": self.metrics or None, **settings}


def launched_processes() -> Any:
    """Return Accelerate's state of the processes that were launched together; one without a launcher."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())  # else processes without GPU would not see each other


def predict(
    config: EvaluateConfig, loaded: tuple[Any, Any], rows: Any, sides: tuple[str, str] = ("before", "after")
) -> list[Row]:
    """Return a prediction for every row, from all processes; `sides` are the columns used as before and after.

    The batches are the same whatever the number of processes, since rounding may depend on the batch.

    Raises: RuntimeError if a process left batches out.
    """
    from tqdm import tqdm

    from run_idc.partial_predictions import PartialPredictions
    from run_idc.signature import settings_fingerprint

    state = launched_processes()
    files = [Path(file["filename"]) for file in rows.cache_files]  # written again when the raw files have changed
    fingerprint = settings_fingerprint(run_signature(config, *loaded), files, rows._fingerprint, config.seed)
    partial = PartialPredictions(Path(config.output_dir), "-".join(sides), state.process_index, fingerprint)
    done = partial.read()
    state.wait_for_everyone()  # all have read before anyone writes
    partial.start()
    size, count = config.batch_size, -(-len(rows) // config.batch_size)
    own = range(state.process_index, count, state.num_processes)
    if done and state.is_main_process:
        print(f"{' -> '.join(sides)}: continuing after {len(done)} of {count} batches", file=sys.stderr)
    with tqdm(total=len(own), unit="batch", desc=" -> ".join(sides), disable=not state.is_main_process) as bar:
        for batch in own:
            if batch not in done:
                chosen = rows.select(range(batch * size, min((batch + 1) * size, len(rows))))
                partial.add(batch, caption_batch(config, loaded, chosen, sides, batch))
            bar.update()
    state.wait_for_everyone()
    done = partial.read()
    missing = sorted(set(range(count)) - set(done))
    if missing:
        raise RuntimeError(
            f"{len(missing)} of {count} batches have no prediction (first: {missing[0]}): run the command again"
        )
    sentences = [sentence for batch in range(count) for sentence in done[batch]]
    columns = (rows["pair_id"], sentences, rows["captions"], rows["change_type"])
    names = ("pair_id", "prediction", "references", "change_type")
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def caption_batch(
    config: EvaluateConfig, loaded: tuple[Any, Any], rows: Any, sides: tuple[str, str], batch: int
) -> list[str]:
    """Return the sentences of a batch; sampling depends on the seed and the number of the batch alone."""
    import torch

    from captioner_idc.captioning import caption

    torch.manual_seed(config.seed * 1_000_003 + batch)
    pairs = [(row[sides[0]], row[sides[1]]) for row in rows]
    return caption(*loaded, pairs, batch_size=len(pairs), **config.decoding())


def evaluate_benchmark(config: EvaluateConfig) -> dict[str, Any] | None:
    """Predict in all processes, score in the main one; return the result there and None in the others."""
    import torch

    from captioner_idc.loading import load
    from dataset_syned import load_benchmark

    state = launched_processes()
    with state.main_process_first():
        rows = load_benchmark(config.benchmark, config.split, **config.benchmark_options)
        if state.is_main_process:
            check_scoring(len(rows), **config.scoring())  # before hours of predictions
    loaded = load(
        config.model or config.adapter,
        config.adapter if config.model else None,
        device=state.device,
        dtype=None if config.dtype == "auto" else getattr(torch, config.dtype),
        revision=config.revision,
        adapter_revision=config.adapter_revision,
        processor=config.processor,
    )
    predicted = predict(config, loaded, rows)
    controls = CONTROLS if config.input_controls else {}
    others = {name: predict(config, loaded, rows, sides) for name, sides in controls.items()}
    return score_benchmark(config, loaded, rows, predicted, others) if state.is_main_process else None


def score_benchmark(
    config: EvaluateConfig, loaded: tuple[Any, Any], rows: Any, predicted: list[Row], others: dict[str, list[Row]]
) -> dict[str, Any]:
    """Write predictions, scores and report into --output_dir; return the result.

    Args:
        others: predictions of the controls.
    """
    from captioner_idc.loading import load_image
    from run_idc.partial_predictions import remove_partial_predictions
    from run_idc.report import write_report

    folder = Path(config.output_dir)
    remove_results(folder)
    write_rows(folder / PREDICTIONS, predicted)
    for name, predictions in others.items():
        write_rows(folder / control_predictions(name), predictions)
    images = (load_image(row["after"]) for row in rows) if config.clip_model else None
    caption = best_constant_caption(training_captions(config))
    result = score_with_controls(predicted, others, constant_caption=caption, images=images, **config.scoring())
    result["signature"] = merge_signatures(
        {**data_signature(config, rows), **run_signature(config, *loaded)}, result["signature"]
    )
    write_result(folder, result)
    write_report(folder, ((load_image(row["before"]), load_image(row["after"])) for row in rows))
    remove_partial_predictions(folder)
    renew_card(folder)
    return result


def training_captions(config: EvaluateConfig) -> list[list[str]]:
    """Return the references of the training pairs; none if the benchmark has no training split here."""
    from dataset_syned import benchmark_builder, prepare

    splits = prepare(benchmark_builder(config.benchmark, **config.benchmark_options))
    return splits["train"]["captions"][:] if "train" in splits else []


def run_signature(config: EvaluateConfig, model: Any, processor: Any) -> dict[str, Any]:
    """Return what made the predictions: data, weights, what the network saw, decoding, versions."""
    from captioner_idc.adapters import base_of
    from captioner_idc.captioning import length_limit
    from common_idc.provenance import library_versions
    from run_idc.signature import weights_signature

    defaults = model.generation_config.to_diff_dict()
    defaults.pop("transformers_version", None)
    chosen = config.decoding()
    given = (config.model, config.revision, config.adapter, config.adapter_revision)
    return {
        "benchmark": config.benchmark,
        "benchmark_options": dict(config.benchmark_options),
        "split": config.split,
        "hub_dataset": hub_dataset(config.benchmark),
        **weights_signature(*given, base_of(model)),
        "processor": processor.settings,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "batch_size": config.batch_size,
        "decoding": {**defaults, **length_limit(model, processor, chosen), **chosen},
        **({"seed": config.seed} if config.do_sample else {}),
        "versions": library_versions("torch", "transformers", "peft", "datasets"),
    }


def data_signature(config: EvaluateConfig, rows: Any) -> dict[str, str | None]:
    """Return the version of the builder and the origin of its raw files; `score_rows` adds a hash of the rows."""
    from dataset_syned import benchmark_builder
    from dataset_syned.fetching import fetched_from

    builder = benchmark_builder(config.benchmark, **config.benchmark_options)
    return {"data_version": str(rows.info.version), "data_source": fetched_from(builder.root)}


def hub_dataset(benchmark: str) -> str | None:
    """Return the Hub id of a benchmark's data: its home page, or else the repository of its files."""
    from dataset_syned import BENCHMARKS

    builder, pages = BENCHMARKS[benchmark], "https://huggingface.co/datasets/"
    if builder.HOMEPAGE.startswith(pages):
        return builder.HOMEPAGE.removeprefix(pages)
    return next((mirror.repo_id for mirror in builder.MIRRORS if mirror.repo_type == "dataset"), None)


def renew_card(folder: Path) -> None:
    """Write the results inside a run folder (RUN/eval/NAME) into the run's card."""
    from run_idc.card import write_card

    if run := run_of(folder):
        write_card(run)


def push_run(config: EvaluateConfig) -> str:
    """Push the run; return a one-line success or failure message."""
    from run_idc.publishing import try_push

    run = run_of(Path(config.output_dir))
    return try_push(run, config.hub_model_id, private=config.hub_private, merge=config.merge)


def parse_config(argv: list[str]) -> EvaluateConfig:
    """Return the checked settings of a command line and its config file.

    Raises: ValueError for an unknown key or an impossible value; SystemExit as argparse does.
    """
    config = parse_settings(EvaluateConfig, argv, "evaluate.py", __doc__.split("\n")[0])
    config.check()
    return config


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    try:
        config = parse_config(sys.argv[1:] if argv is None else argv)
        result = evaluate_benchmark(config)
        if result is None:  # not the main process
            return 0
        print(results_table({config.adapter or config.model: result}))
        if lines := describe_controls(result["controls"]):
            print(lines)
        if config.push_to_hub:
            print(push_run(config))
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
