"""Score a model on a benchmark, or score predictions that are already there.

    python evaluate.py --adapter runs/toy --benchmark toy --output_dir runs/toy/eval/toy-test
    python evaluate.py --predictions predictions.jsonl --output_dir scores
    python evaluate.py --predictions results.json --references references.json --output_dir scores    # COCO files
    python evaluate.py --compare runs/toy/eval/toy-test runs/base/eval/toy-test                       # one table

It writes predictions.jsonl first and scores that file, so that scores can be had again without the model; report.html
shows scores and pairs in a browser.
"""

import importlib.machinery
import importlib.util
import os
import sys

if __name__ != "__main__":
    # Python looks for `import evaluate` beside the program first, and finds this file. Whoever imports it wants the
    # Hugging Face library of that name: step aside.
    _here = os.path.dirname(os.path.abspath(__file__))
    _spec = importlib.machinery.PathFinder.find_spec(
        "evaluate", [path for path in sys.path if os.path.abspath(path or os.getcwd()) != _here]
    )
    if _spec is None or _spec.loader is None:
        raise ImportError("the library `evaluate` is not installed: pip install evaluate")
    _library = importlib.util.module_from_spec(_spec)
    sys.modules["evaluate"] = _library
    _spec.loader.exec_module(_library)

# The imports of torch, models and data are inside the functions that need them: this file also runs when somebody
# imports the library, and scoring a file of predictions needs neither torch nor images.
import argparse
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

WEIGHTS = (".safetensors", ".bin")
TABLE_SCORES = ("BLEU-4", "METEOR", "ROUGE-L", "CIDEr")
CONTROLS = {"swapped": ("after", "before"), "identical": ("before", "before")}  # columns for before and after
TABLE_MARKS = ("<!-- results: generated -->", "<!-- results: end -->")


class Options(dict):
    """A benchmark's own options, JSON on the command line."""

    def __init__(self, text: Any = "{}"):
        try:
            value = json.loads(text) if isinstance(text, str) else text
        except ValueError:
            value = None
        if not isinstance(value, dict):  # of this type, so that argparse passes the message on
            raise argparse.ArgumentTypeError(f'options must be a mapping such as {{"seed": 1}}, got {text!r}')
        super().__init__(value)


@dataclass
class EvaluateConfig:
    model: str | None = field(default=None, metadata={"help": "folder or Hub id; an adapter names its base itself"})
    adapter: str | None = field(default=None, metadata={"help": "folder or Hub id of a LoRA adapter"})
    revision: str | None = field(default=None, metadata={"help": "of --model (or of --adapter alone) on the Hub"})
    adapter_revision: str | None = field(default=None, metadata={"help": "of --adapter beside --model, on the Hub"})
    benchmark: str | None = field(default=None, metadata={"help": "name of the data set, see dataset_syned"})
    benchmark_options: Options = field(default_factory=Options, metadata={"help": 'JSON, such as {"seed": 1}'})
    split: str = "test"
    output_dir: str | None = field(default=None, metadata={"help": "gets predictions.jsonl and metrics.json"})
    batch_size: int = 32
    dtype: Literal["auto", "float32", "bfloat16"] = field(
        default="auto", metadata={"help": "auto: bfloat16 on a GPU, float32 elsewhere"}
    )
    num_beams: int = field(default=1, metadata={"help": "1 is greedy decoding, the paper's"})
    do_sample: bool = field(default=False, metadata={"help": "sample instead of taking the likeliest word"})
    temperature: float = field(default=1.0, metadata={"help": "with --do_sample"})
    top_p: float = field(default=1.0, metadata={"help": "with --do_sample"})
    max_new_tokens: int | None = field(default=None, metadata={"help": "default: the processor's longest caption"})
    seed: int = field(default=0, metadata={"help": "with --do_sample"})
    input_controls: bool = field(
        default=True, metadata={"help": "also caption each pair with its images exchanged, and its first image twice"}
    )
    protocol: Literal["honest", "paper"] = field(
        default="honest",
        metadata={"help": "paper repeats how the paper's code rewrote no-change sentences and dropped the last pairs"},
    )
    metrics: list[str] = field(
        default_factory=list, metadata={"help": "of BLEU METEOR ROUGE-L CIDEr SPICE; default: all"}
    )
    sentence_model: str | None = field(
        default=None, metadata={"help": "folder of a sentence-embedding model: adds similarity to the references"}
    )
    clip_model: str | None = field(
        default=None, metadata={"help": "folder of a CLIP model: adds CLIPScore and RefCLIPScore of the after images"}
    )
    predictions: str | None = field(default=None, metadata={"help": "score this file: our JSON lines or COCO results"})
    references: str | None = field(default=None, metadata={"help": "COCO references for --predictions"})
    compare: list[str] = field(
        default_factory=list, metadata={"help": "folders with predictions.jsonl and metrics.json: print one table"}
    )
    names: list[str] = field(default_factory=list, metadata={"help": "names for --compare; default: the folders"})
    table_in: str | None = field(
        default=None, metadata={"help": "Markdown file in which --compare renews the table between its result marks"}
    )
    push_to_hub: bool = field(default=False, metadata={"help": "push the run of --output_dir RUN/eval/NAME again"})
    hub_model_id: str | None = field(default=None, metadata={"help": "where to, <user>/<name>"})
    hub_private: bool = field(default=False, metadata={"help": "create the repository as a private one"})
    merge: bool = field(default=False, metadata={"help": "push the whole model, as the repository holds it"})

    def check(self) -> None:
        tasks = [name for name in ("benchmark", "predictions", "compare") if getattr(self, name)]
        if len(tasks) != 1:
            raise ValueError(
                f"give one of --benchmark, --predictions or --compare, got {', '.join(tasks) or 'none'}; see --help"
            )
        if self.benchmark and not (self.model or self.adapter):
            raise ValueError("--benchmark needs --model or --adapter (a folder or Hub id)")
        if self.adapter_revision and not (self.model and self.adapter):
            raise ValueError("--adapter_revision goes with --model and --adapter; of --adapter alone it is --revision")
        if not self.compare and not self.output_dir:
            raise ValueError("--output_dir is missing: name the folder for predictions.jsonl and metrics.json")
        if self.references and not self.predictions:
            raise ValueError("--references goes with --predictions: a benchmark brings its own")
        if (self.table_in or self.names) and not self.compare:
            raise ValueError("--table_in and --names go with --compare")
        if len(set(self.names or self.compare)) < len(self.names or self.compare):
            raise ValueError(f"--compare needs different names, got {' '.join(self.names or self.compare)}")
        if self.names and len(self.names) != len(self.compare):
            raise ValueError(f"{len(self.names)} --names for {len(self.compare)} folders to --compare")
        for name in ("batch_size", "num_beams", "max_new_tokens"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(self, name)}")
        if self.clip_model and not self.benchmark:
            raise ValueError("--clip_model needs --benchmark, whose images it looks at")
        if not self.do_sample and (self.temperature, self.top_p) != (1.0, 1.0):
            raise ValueError("--temperature and --top_p go with --do_sample")
        if not (0 < self.temperature < float("inf") and 0 < self.top_p <= 1):
            raise ValueError(f"--temperature={self.temperature}, --top_p={self.top_p}: above 0, and top_p at most 1")
        if self.push_to_hub != bool(self.hub_model_id) or (self.hub_private or self.merge) and not self.push_to_hub:
            raise ValueError("--push_to_hub and --hub_model_id go together; --hub_private and --merge go with them")
        if self.push_to_hub and (not self.benchmark or run_of(Path(self.output_dir)) is None):
            raise ValueError(
                f"--push_to_hub pushes a run with its scores: --output_dir must be RUN/eval/NAME in the folder of a "
                f"run, got {self.output_dir!r}"
            )

    def decoding(self) -> dict[str, Any]:
        """Keywords of `generate`."""
        settings: dict[str, Any] = {"num_beams": self.num_beams, "do_sample": self.do_sample}
        if self.do_sample:
            settings |= {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        return settings | ({"max_new_tokens": self.max_new_tokens} if self.max_new_tokens else {})

    def scoring(self) -> dict[str, Any]:
        """Keywords of `score_rows`."""
        settings = {"protocol": self.protocol, "sentence_model": self.sentence_model, "clip_model": self.clip_model}
        return {"metrics": self.metrics or None, "batch_size": 16, **settings}


def run_of(folder: Path) -> Path | None:
    """The run that a folder of results, RUN/eval/NAME, belongs to."""
    run = folder.resolve().parent.parent
    return run if folder.resolve().parent.name == "eval" and (run / "train_config.yaml").is_file() else None


def remove_results(folder: Path) -> None:
    """So that no score of an earlier call can stand beside new predictions."""
    for name in ("metrics.json", "report.html", *(control_file(control) for control in CONTROLS)):
        (folder / name).unlink(missing_ok=True)


def control_file(control: str) -> str:
    return f"predictions_{control}.jsonl"


def write_json(path: Path, content: Any) -> None:
    unfinished = path.with_name(path.name + ".tmp")
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    # half a character in a caption, which UTF-8 cannot hold, becomes the escape that JSON has for it
    unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(unfinished, path)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    from metric_idc import write_predictions

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    write_predictions(rows, unfinished)
    os.replace(unfinished, path)


class Partial:
    """Predictions of one process so far, so that an interrupted evaluation goes on where it stopped.

    FOLDER/.partial-NAME-PROCESS.jsonl: a first line with what makes the predictions, then a line per batch. A file
    whose first line differs belongs to another model, data set or setting, and is not used.
    """

    def __init__(self, folder: Path, name: str, process: int, identity: dict[str, Any]):
        self.folder, self.name, self.identity = folder, name, json.loads(json.dumps(identity))
        self.path = folder / f".partial-{name}-{process}.jsonl"
        self.usable: set[Path] = set()  # files that `done` has read

    def done(self) -> dict[int, list[str]]:
        """Sentences by batch, of all processes of this and earlier calls."""
        batches: dict[int, list[str]] = {}
        for path in sorted(self.folder.glob(f".partial-{self.name}-*.jsonl")):
            lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # what follows the last line end is half a line
            try:
                first, *entries = map(json.loads, lines)
            except ValueError:  # a disk's work: its batches are predicted again
                continue
            if first == self.identity:
                self.usable.add(path)
                batches |= {entry["batch"]: entry["sentences"] for entry in entries}
        return batches

    def begin(self) -> None:
        """A file of this process's own with what it had, without a half line; one of another identity is replaced."""
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1] if self.path.exists() else []
        if self.path not in self.usable:
            lines = [json.dumps(self.identity)]
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".tmp")
        unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
        os.replace(unfinished, self.path)

    def add(self, batch: int, sentences: list[str]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"batch": batch, "sentences": sentences}) + "\n")


def processes() -> Any:
    """Accelerate's state of the processes that were launched together; one, if there was no launcher."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())  # left alone, it takes processes without GPU for one each


def predict(
    config: EvaluateConfig, loaded: tuple[Any, Any], rows: Any, sides: tuple[str, str] = ("before", "after")
) -> list[dict[str, Any]]:
    """A prediction for every row, from all processes; `sides` are the columns that stand for before and after.

    The batches are the same whatever the number of processes, since a sentence may depend on its batch by rounding.
    """
    from tqdm import tqdm

    state = processes()
    partial = Partial(Path(config.output_dir), "-".join(sides), state.process_index, identity(config, loaded, rows))
    done = partial.done()
    state.wait_for_everyone()  # all have read before anyone writes
    partial.begin()
    size, count = config.batch_size, -(-len(rows) // config.batch_size)
    own = range(state.process_index, count, state.num_processes)
    if done and state.is_main_process:
        print(f"{' -> '.join(sides)}: going on after {len(done)} of {count} batches", file=sys.stderr)
    with tqdm(total=len(own), unit="batch", desc=" -> ".join(sides), disable=not state.is_main_process) as bar:
        for batch in own:
            if batch not in done:
                chosen = rows.select(range(batch * size, min((batch + 1) * size, len(rows))))
                partial.add(batch, caption_batch(config, loaded, chosen, sides, batch))
            bar.update()
    state.wait_for_everyone()
    done = partial.done()
    if sorted(done) != list(range(count)):
        missing = sorted(set(range(count)) - set(done))
        raise RuntimeError(f"{len(missing)} of {count} batches have no prediction, {missing[0]} for one: run it again")
    sentences = [sentence for batch in range(count) for sentence in done[batch]]
    return [
        {"pair_id": pair_id, "prediction": sentence, "references": captions, "change_type": change_type}
        for pair_id, sentence, captions, change_type in zip(
            rows["pair_id"], sentences, rows["captions"], rows["change_type"], strict=True
        )
    ]


def caption_batch(
    config: EvaluateConfig, loaded: tuple[Any, Any], rows: Any, sides: tuple[str, str], batch: int
) -> list[str]:
    import torch

    from captioner_idc.captioning import caption

    torch.manual_seed(config.seed * 1_000_003 + batch)  # for sampling; the same in any process and after a stop
    pairs = [(row[sides[0]], row[sides[1]]) for row in rows]
    return caption(*loaded, pairs, batch_size=len(pairs), **config.decoding())


def identity(config: EvaluateConfig, loaded: tuple[Any, Any], rows: Any) -> dict[str, Any]:
    """What the predictions depend on: settings, and data and weights by the files' sizes and times."""
    signature = run_signature(config, *loaded)
    names = {name for name in (signature["model"], signature["adapter"]) if name and Path(name).is_dir()}
    weights = [file for name in sorted(names) for file in sorted(Path(name).glob("*")) if file.suffix in WEIGHTS]
    data = [Path(file["filename"]) for file in rows.cache_files]  # written anew when the raw files have changed
    stamps = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in (*weights, *data)]
    return {**signature, "files": stamps, "data": rows._fingerprint, "seed": config.seed}


def input_controls(
    rows: Any, predicted: list[dict[str, Any]], others: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Does the model look at both images, and in which order? Exchanged images, and the first image twice.

    An exchanged pair of change_type `add` or `remove` has another true sentence; a picture beside itself has not changed.
    """
    from metric_idc import stated_change_type

    differs = [
        first["prediction"] != second["prediction"]
        for first, second in zip(predicted, others["swapped"], strict=True)
        if first["change_type"] in ("add", "remove")
    ]
    unchanged = [stated_change_type(row["prediction"]) == "none" for row in others["identical"]]
    controls = {"identical_images": {"pairs": len(unchanged), "said_unchanged": sum(unchanged) / len(unchanged)}}
    if differs:
        controls["swapped_images"] = {"pairs": len(differs), "sentence_differs": sum(differs) / len(differs)}
    return controls


def evaluate_benchmark(config: EvaluateConfig) -> dict[str, Any] | None:
    """Predictions from all processes, scores from the main one; None in the others."""
    import torch

    from captioner_idc.captioning import load
    from dataset_syned import load_benchmark
    from metric_idc.scoring import check_scoring

    state = processes()
    with state.main_process_first():
        rows = load_benchmark(config.benchmark, config.split, **config.benchmark_options)
        if state.is_main_process:
            check_scoring(len(rows), **config.scoring())  # before hours of predictions
    dtype = None if config.dtype == "auto" else getattr(torch, config.dtype)
    adapter = config.adapter if config.model else None
    revisions = config.revision, config.adapter_revision
    loaded = load(config.model or config.adapter, adapter, state.device, dtype, *revisions)
    predicted = predict(config, loaded, rows)
    wanted = CONTROLS if config.input_controls else {}
    others = {name: predict(config, loaded, rows, sides) for name, sides in wanted.items()}
    if not state.is_main_process:
        return None
    return score_benchmark(config, loaded, rows, predicted, others)


def training_captions(config: EvaluateConfig) -> list[list[str]] | None:
    """None where the benchmark has no training pairs here: the control's sentence is then one of the references."""
    from dataset_syned import benchmark_builder, prepare

    splits = prepare(benchmark_builder(config.benchmark, **config.benchmark_options))
    return splits["train"]["captions"] if "train" in splits else None


def score_benchmark(
    config: EvaluateConfig,
    loaded: tuple[Any, Any],
    rows: Any,
    predicted: list[dict[str, Any]],
    others: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """Writes all that --output_dir gets."""
    from metric_idc import score_rows
    from run_idc.report import write_report

    folder, training = Path(config.output_dir), training_captions(config)
    remove_results(folder)
    write_rows(folder / "predictions.jsonl", predicted)
    for name, predictions in others.items():
        write_rows(folder / control_file(name), predictions)
    copies = [row["prediction"] for row in others["identical"]] if others else None
    images = (row["after"] for row in rows) if config.clip_model else None
    result = score_rows(predicted, constant_captions=training, copies=copies, images=images, **config.scoring())
    result["controls"] |= input_controls(rows, predicted, others) if others else {}
    result["signature"] |= {**data_signature(config, rows), **run_signature(config, *loaded)}
    write_json(folder / "metrics.json", result)
    write_report(folder, ((row["before"], row["after"]) for row in rows))
    for path in folder.glob(".partial-*"):  # the predictions are in their files now
        path.unlink()
    renew_card(folder)
    return result


def run_signature(config: EvaluateConfig, model: Any, processor: Any) -> dict[str, Any]:
    """What made the predictions: data, weights, what the network saw, decoding."""
    from importlib.metadata import version

    from captioner_idc.captioning import length_limit

    settings = model.generation_config.to_diff_dict()
    settings.pop("transformers_version", None)
    chosen = config.decoding()
    return {
        "benchmark": config.benchmark,
        "benchmark_options": dict(config.benchmark_options),
        "split": config.split,
        "hub_dataset": hub_dataset(config.benchmark),
        **weights_signature(config, model),
        "processor": {name: getattr(processor, name) for name in ("layout", "canvas", "prompt")},
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "batch_size": config.batch_size,
        "decoding": {**settings, **length_limit(model, processor, chosen), **chosen},
        **({"seed": config.seed} if config.do_sample else {}),
        "made_with": {name: version(name) for name in ("torch", "transformers", "peft", "datasets")},
    }


def weights_signature(config: EvaluateConfig, model: Any) -> dict[str, str | None]:
    """Base and adapter: name, the revision that was asked for, the Hub's commit that it was then.

    An adapter has its file's hash as well. Base models in folders have none: reading 15 GB takes longer than loading.
    """
    from captioner_idc.adapters import CONFIG_NAME, WEIGHTS_NAME, base_of

    base, revision, adapter, adapter_revision = config.model, config.revision, config.adapter, config.adapter_revision
    adapted = base_of(model)
    if adapted and not (base and adapter):  # one name was given, the adapter's, and its revision
        adapter, adapter_revision = adapter or base, revision
        base, revision = adapted
    told = {"model": base, "revision": revision, "commit": commit_of(base, "config.json", revision)[1]}
    folder, commit = commit_of(adapter, CONFIG_NAME, adapter_revision) if adapter else (None, None)
    told |= {"adapter": adapter, "adapter_revision": adapter_revision, "adapter_commit": commit}
    file = folder and folder / WEIGHTS_NAME
    known = file is not None and file.is_file()  # PEFT takes pickled weights too
    return told | {"adapter_sha256": hashlib.sha256(file.read_bytes()).hexdigest() if known else None}


def commit_of(name: str, file: str, revision: str | None) -> tuple[Path, str | None]:
    """The folder that something was loaded from just now, and its commit if that is the cache of the Hub."""
    from huggingface_hub import try_to_load_from_cache

    if Path(name).is_dir():
        return Path(name), None
    found = try_to_load_from_cache(name, file, revision=revision)  # .../snapshots/COMMIT/FILE
    return (Path(found).parent, Path(found).parent.name) if isinstance(found, str) else (Path(name), None)


def data_signature(config: EvaluateConfig, rows: Any) -> dict[str, str | None]:
    """The version of the builder, and where its raw files were fetched from; `score_rows` adds a hash of the rows."""
    from dataset_syned import benchmark_builder
    from dataset_syned.fetching import fetched_from

    builder = benchmark_builder(config.benchmark, **config.benchmark_options)
    return {"data_version": str(rows.info.version), "data_source": fetched_from(builder.root)}


def hub_dataset(benchmark: str) -> str | None:
    """Hub id of a benchmark's data: its home page, or else the repository of its files."""
    from dataset_syned import BENCHMARKS

    builder, pages = BENCHMARKS[benchmark], "https://huggingface.co/datasets/"
    if builder.HOMEPAGE.startswith(pages):
        return builder.HOMEPAGE.removeprefix(pages)
    return next((mirror.repo_id for mirror in builder.MIRRORS if mirror.repo_type == "dataset"), None)


def renew_card(folder: Path) -> None:
    """Results inside a run folder (RUN/eval/NAME) go onto the run's card."""
    from run_idc.publishing import write_card

    if run := run_of(folder):
        write_card(run, template=Path(__file__).with_name("model_card.md"))


def push_run(config: EvaluateConfig) -> str:
    """What became of it, in one line; the scores are on disk in any case."""
    from run_idc.publishing import try_push

    run = run_of(Path(config.output_dir))
    return try_push(run, config.hub_model_id, private=config.hub_private, merge=config.merge)


def evaluate_predictions(config: EvaluateConfig) -> dict[str, Any]:
    from metric_idc import read_coco, read_predictions, score_rows
    from run_idc.report import write_report

    folder, file = Path(config.output_dir), Path(config.predictions)
    rows = read_coco(file, config.references) if config.references else read_predictions(file)
    known = {} if config.references else earlier(file.parent, rows)
    others = known.get("others", {})
    copies = [row["prediction"] for row in others["identical"]] if others else None
    result = score_rows(rows, constant_captions=known.get("training"), copies=copies, **config.scoring())
    result["controls"] |= input_controls(rows, rows, others) if others else {}
    result["signature"] = known.get("signature", {}) | result["signature"] | {"predictions": file.name}
    if known:
        result["signature"]["constant_caption"] = known["signature"]["constant_caption"]
    folder.mkdir(parents=True, exist_ok=True)
    remove_results(folder)
    if file.resolve() != (folder / "predictions.jsonl").resolve():
        write_rows(folder / "predictions.jsonl", rows)
    for name, predictions in others.items():
        write_rows(folder / control_file(name), predictions)
    write_json(folder / "metrics.json", result)
    write_report(folder)
    return result


def earlier(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the scores beside a file of predictions tell of them, so that they can be had again without the model."""
    from metric_idc import read_predictions
    from metric_idc.scoring import predictions_hash

    try:
        then = read_result(folder)
    except (OSError, ValueError):
        return {}
    if then["signature"].get("predictions_sha256") != predictions_hash(rows):
        return {}
    control = then["controls"]["constant_caption"]
    files = {name: folder / control_file(name) for name in CONTROLS}
    there = all(file.is_file() for file in files.values())
    return {
        # without what the scoring says itself, or leaves out
        "signature": {k: v for k, v in then["signature"].items() if k not in ("paper_protocol", "left_out")},
        "training": [[control["caption"]]] if control["chosen_from"] == "train" else None,
        "others": {name: read_predictions(file) for name, file in files.items()} if there else {},
    }


def table_row(name: str, scores: dict[str, float], interval: list[float] | None, change_types: float | None) -> str:
    cells = [f"{scores[score]:.3f}" if score in scores else "" for score in TABLE_SCORES]
    if interval:
        cells[-1] += f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    return f"| {name} | {' | '.join(cells)} | {'' if change_types is None else f'{change_types:.1%}'} |"


def in_cell(text: str) -> str:
    """Any text in a cell of a Markdown table, and on any terminal."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split()).replace("|", "\\|")


def results_table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: a row per result, and the constant-caption control of the first."""
    lines = [f"| | {' | '.join(TABLE_SCORES)} [95 %] | right change type |", "|---" * (len(TABLE_SCORES) + 2) + "|"]
    for name, result in results.items():
        interval = result.get("intervals", {}).get("CIDEr")
        lines.append(table_row(name, result["scores"], interval, result.get("change_type_accuracy")))
    controls = next(iter(results.values()))["controls"]
    control = controls["constant_caption"]
    told = "" if control["chosen_from"] == "train" else " (the best of the scored references)"
    lines.append(table_row(f'constant caption: "{in_cell(control["caption"])}"{told}', control["scores"], None, None))
    if "copy" in controls:
        lines.append(table_row("before image given twice", controls["copy"]["scores"], None, None))
    return "\n".join(lines)


def read_result(folder: Path) -> dict[str, Any]:
    """metrics.json of a folder that holds the predictions too."""
    for name in ("metrics.json", "predictions.jsonl"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name} is missing: evaluate.py --benchmark or --predictions with --output_dir {folder} "
                "writes what --compare needs"
            )
    try:
        result = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        missing = {"scores", "controls", "signature"} - set(result)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{folder / 'metrics.json'} is no file of scores ({error}): score the folder again"
        ) from error
    if missing:
        raise ValueError(f"{folder / 'metrics.json'} has no {', '.join(sorted(missing))}: score the folder again")
    return result


def compare(config: EvaluateConfig) -> str:
    """The table of several results, how much the first gains over each of the others, and what peers published."""
    from metric_idc import paired_differences

    folders = [Path(name) for name in config.compare]
    names = config.names or config.compare
    results = {name: read_result(folder) for name, folder in zip(names, folders, strict=True)}
    lines = [results_table(results), *same_protocol(results)]
    first, *others = (scored_rows(folder, result) for folder, result in zip(folders, results.values(), strict=True))
    for name, rows in zip(names[1:], others, strict=True):
        gains = paired_differences(first, rows)
        lines.append(
            f"\n{names[0]} minus {name} (95 % interval of a paired bootstrap, p-value of a paired permutation test):\n"
        )
        lines += [told_gain(score, gains[score]) for score in TABLE_SCORES if score in gains]
    lines += peers_table(next(iter(results.values()))["signature"].get("benchmark"))
    table = "\n".join(lines)
    if config.table_in:
        renew_table(Path(config.table_in), table)
    return table


def scored_rows(folder: Path, result: dict[str, Any]) -> list[dict[str, Any]]:
    from metric_idc import read_predictions
    from metric_idc.scoring import predictions_hash

    rows = read_predictions(folder / "predictions.jsonl")
    if result["signature"].get("predictions_sha256", "") not in ("", predictions_hash(rows)):
        raise ValueError(f"{folder / 'metrics.json'} is of other predictions than those beside it: score them again")
    return rows


def told_gain(score: str, gain: dict[str, float]) -> str:
    interval = f"[{gain['low']:+.3f}, {gain['high']:+.3f}]"
    return f"- {score} {gain['difference']:+.3f} {interval}, p = {gain['p_value']:.3f}"


def same_protocol(results: dict[str, dict[str, Any]]) -> list[str]:
    """A warning where scores were not made in one way, and where the gains are not of the scores in the table."""
    protocols = {name: result["signature"].get("protocol", "honest") for name, result in results.items()}
    lines = []
    if len(set(protocols.values())) > 1:
        told = ", ".join(f"{name}: {protocol}" for name, protocol in protocols.items())
        lines.append(f"\nThese scores cannot be compared, their protocols differ ({told}).")
    if len(results) > 1 and set(protocols.values()) != {"honest"}:
        lines.append(
            "\nThe gains below are of all predictions as they stand, whatever the protocol of the scores above."
        )
    return lines


def peers_table(benchmark: str | None) -> list[str]:
    """Markdown of what was published for a benchmark; scores in per cent, as papers give them."""
    from metric_idc import published

    peers = published(benchmark) if benchmark else []
    if not peers:
        return []
    lines = [f"\nPublished for {benchmark}, in per cent; splits and protocols may differ:\n"]
    lines += [f"| | {' | '.join(TABLE_SCORES)} | confidence | source |", "|---" * (len(TABLE_SCORES) + 3) + "|"]
    for peer in peers:
        cells = [f"{peer['scores'][score]:.1f}" if score in peer["scores"] else "" for score in TABLE_SCORES]
        source = ": ".join(filter(None, (peer["source"], peer["note"])))
        lines.append(f"| {peer['model']} | {' | '.join(cells)} | {peer['confidence']} | {source} |")
    return lines


def renew_table(file: Path, table: str) -> None:
    """Replaces what stands between the two result marks of a Markdown file."""
    text = file.read_text(encoding="utf-8")
    start, end = TABLE_MARKS
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"{file} must hold the lines {start} and {end} once each")
    pattern = re.escape(start) + ".*" + re.escape(end)
    file.write_text(re.sub(pattern, lambda _: f"{start}\n{table}\n{end}", text, flags=re.DOTALL), encoding="utf-8")


def told_controls(controls: dict[str, Any]) -> str:
    lines = []
    if "swapped_images" in controls:
        swapped = controls["swapped_images"]
        lines.append(f"images exchanged: another sentence in {swapped['sentence_differs']:.1%} of {swapped['pairs']}")
    if "identical_images" in controls:
        same = controls["identical_images"]
        lines.append(f"one image twice: called unchanged in {same['said_unchanged']:.1%} of {same['pairs']}")
    return "\n".join(lines)


def parse_config(argv: list[str]) -> EvaluateConfig:
    from transformers import HfArgumentParser

    parser = HfArgumentParser(
        EvaluateConfig, prog="evaluate.py", description=__doc__.split("\n")[0], allow_abbrev=False
    )
    config = EvaluateConfig(**vars(parser.parse_args(argv)))
    config.check()
    return config


def main(argv: list[str] | None = None) -> int:
    try:
        config = parse_config(sys.argv[1:] if argv is None else argv)
        if config.compare:
            print(compare(config))
            return 0
        result = evaluate_benchmark(config) if config.benchmark else evaluate_predictions(config)
        if result is None:  # a process beside the main one
            return 0
        print(results_table({config.adapter or config.model or config.predictions: result}))
        if told := told_controls(result["controls"]):
            print(told)
        if config.push_to_hub:
            print(push_run(config))
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
