"""Evaluate a model on a benchmark: predictions, scores and a report.

    python evaluate.py --adapter runs/mine --benchmark photo_edits --output_dir runs/mine/eval/photo_edits-test

Predictions are written first and then scored. To score them again without the model, or to compare results:
`python -m metric_idc score FILE --output_dir FOLDER`, `python -m metric_idc compare FOLDER FOLDER`.
"""

import importlib.machinery
import importlib.util
import json
import os
import sys

if __name__ != "__main__":
    # For `import evaluate`, Python looks next to the program first and finds this file. Whoever imports it wants the
    # Hugging Face library of that name, so import that in its place.
    _here = os.path.dirname(os.path.abspath(__file__))
    _spec = importlib.machinery.PathFinder.find_spec(
        "evaluate", [path for path in sys.path if os.path.abspath(path or os.getcwd()) != _here]
    )
    if _spec is None or _spec.loader is None:
        raise ImportError("the library `evaluate` is not installed: pip install evaluate")
    _library = importlib.util.module_from_spec(_spec)
    sys.modules["evaluate"] = _library
    _spec.loader.exec_module(_library)

# torch, accelerate and captioner_idc are imported inside functions, because an `import evaluate` runs this file too
# and must not load them.
import dataclasses
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from tqdm import tqdm

from common_idc.atomic_files import remove_leftovers, write_json
from common_idc.commands import lasting_output, run_command
from common_idc.folder_lock import folder_lock
from common_idc.redaction import folder_name, without_paths
from common_idc.settings import (
    NonNegativeInt,
    Options,
    PositiveFloat,
    PositiveInt,
    Range,
    Seed,
    check_ranges,
    option,
    parse_settings,
)
from dataset_syned import (
    BENCHMARKS,
    benchmark_builder,
    evenly_spaced,
    load_benchmark,
    prepare,
    rows_fingerprint,
    undecoded,
)
from dataset_syned.fetching import fetched_from
from dataset_syned.pairs import NO_CHANGE
from metric_idc import (
    best_constant_caption,
    check_scoring,
    describe_result,
    input_controls,
    remove_results,
    score_rows,
    write_predictions,
    write_results,
)
from run_idc import paths, signature
from run_idc.card import write_card
from run_idc.partial_predictions import PartialPredictions, remove_partial_predictions
from run_idc.report import write_report

# The input controls, and the columns that they use as before and after.
CONTROLS = {"swapped": ("after", "before"), "identical": ("before", "before")}
CALIBRATION_PAIRS = 300  # validation pairs, evenly spaced

Row = dict[str, Any]


@dataclass
class EvaluateConfig:
    """The options of evaluate.py."""

    model: str | None = option(None, "folder or Hub id; an adapter names its base itself")
    adapter: str | None = option(None, "folder or Hub id of a LoRA adapter")
    revision: str | None = option(None, "Hub revision of --model, or of --adapter without --model")
    adapter_revision: str | None = option(None, "Hub revision of --adapter, together with --model")
    processor: Options = option(
        Options(), """JSON: changes to the saved processor settings, e.g. '{"prompt": "..."}'"""
    )
    prompt: str | None = option(None, "question to the model, instead of the one in its processor settings")
    examples: NonNegativeInt = option(
        0, "reference sentences of the training split that the question shows, for models that were not trained on it"
    )
    quantize: Literal["no", "4bit"] = option("no", "4bit: the base in 4 bits; needs a CUDA GPU and bitsandbytes")
    allow_pickle: bool = option(False, "load pickled weights (.bin) of model or adapter: only from people you trust")
    benchmark: str | None = option(None, "a name that `python -m dataset_syned list` shows")
    benchmark_options: Options = option(Options(), """JSON, e.g. '{"seed": 1}'""")
    split: str = option("test", "split of the benchmark")
    output_dir: str | None = option(None, "folder for predictions.jsonl, pairs.jsonl, metrics.json and report.html")
    batch_size: PositiveInt = option(32, "pairs per batch")
    dtype: Literal["auto", "float32", "bfloat16"] = option("auto", "auto: bfloat16 on a GPU, otherwise float32")
    num_beams: PositiveInt = option(1, "1: greedy decoding, as in the paper")
    do_sample: bool = option(False, "sample instead of taking the most likely token")
    temperature: PositiveFloat = option(1.0, "with --do_sample")
    top_p: Annotated[float, Range(above=0, at_most=1)] = option(1.0, "with --do_sample")
    max_new_tokens: PositiveInt | None = option(None, "default: the processor's maximum caption length")
    seed: Seed = option(0, "with --do_sample")
    input_controls: bool = option(
        True, "also caption each pair with its images exchanged, and with the image before given twice"
    )
    change_probability: bool = option(
        False,
        "also compute how probable a change is, for each pair; calibrated once, on the validation split, and saved "
        "with the run",
    )
    protocol: Literal["standard", "paper"] = option(
        "standard", "paper: rewrite no-change sentences and drop the last batch, as the paper's code does"
    )
    metrics: list[str] = option([], "some of BLEU METEOR ROUGE-L CIDEr SPICE DifferenceUnits; default: all available")
    sentence_model: str | None = option(
        None, "folder of a sentence-embedding model: adds similarities of sentences and of the things that changed"
    )
    clip_model: str | None = option(
        None, "folder of a CLIP model: adds CLIPScore and RefCLIPScore of the images after"
    )
    judge: str | None = option(
        None,
        "chat model that judges the predictions: a folder, or the address of a server, whose key is read from the "
        "environment variable OPENAI_API_KEY",
    )
    unit_parser: str | None = option(None, "chat model that reads difference units in place of rules: as for --judge")
    judge_model: str | None = option(
        None, "name of the model at the server of --judge or --unit_parser; default: the first that it lists"
    )
    push_to_hub: bool = option(False, "push the run of --output_dir RUN/eval/NAME again")
    hub_model_id: str | None = option(None, "repository to push to, <user>/<name>")
    hub_private: bool = option(False, "create the repository as private")
    merge: bool = option(False, "push the whole model with its code, not the adapter")

    def check(self) -> None:
        """Raise ValueError for options that are missing, out of range or do not fit together."""
        if not self.benchmark:
            raise ValueError("--benchmark is missing: name one that `python -m dataset_syned list` shows")
        if not (self.model or self.adapter):
            raise ValueError("--model or --adapter is missing: name a folder or Hub id")
        if not self.output_dir:
            raise ValueError("--output_dir is missing: name the folder for predictions and scores")
        if self.adapter_revision and not (self.model and self.adapter):
            raise ValueError("--adapter_revision needs --model and --adapter; for --adapter alone use --revision")
        check_ranges(self)
        if self.prompt is not None and "prompt" in self.processor:
            raise ValueError("--prompt and --processor both set the prompt: use one of them")
        if not self.do_sample and (self.temperature, self.top_p, self.seed) != (1.0, 1.0, 0):
            raise ValueError("--temperature, --top_p and --seed need --do_sample")
        if self.push_to_hub != bool(self.hub_model_id):
            raise ValueError("--push_to_hub and --hub_model_id need each other")
        if (self.hub_private or self.merge) and not self.push_to_hub:
            raise ValueError("--hub_private and --merge need --push_to_hub")
        if self.push_to_hub and paths.run_of(Path(self.output_dir)) is None:
            raise ValueError(
                f"--push_to_hub pushes a run with its scores: --output_dir must be RUN/eval/NAME in a run folder, "
                f"got {self.output_dir!r}"
            )

    def processor_changes(self) -> dict[str, Any]:
        """Return the changes to the saved processor settings."""
        return {**self.processor, **({} if self.prompt is None else {"prompt": self.prompt})}

    def decoding(self) -> dict[str, Any]:
        """Return the keywords of `generate`."""
        settings: dict[str, Any] = {"num_beams": self.num_beams, "do_sample": self.do_sample}
        if self.do_sample:
            settings |= {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        return settings | ({"max_new_tokens": self.max_new_tokens} if self.max_new_tokens else {})

    def scoring(self) -> dict[str, Any]:
        """Return the keywords that `score_rows` and `check_scoring` share."""
        names = ("protocol", "sentence_model", "clip_model", "judge", "unit_parser", "judge_model")
        return {name: getattr(self, name) for name in names} | ({"metrics": self.metrics} if self.metrics else {})


def get_state() -> Any:
    """Return Accelerate's state of the processes that were launched together, or of this one without a launcher."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.accelerator.is_available())  # else each process without a GPU counts as alone


def load_captioner(config: EvaluateConfig, device: Any, examples: list[str]) -> tuple[Any, Any]:
    """Return model and processor, whose prompt shows the example sentences."""
    import torch

    from captioner_idc.loading import load

    return load(
        config.model or config.adapter,
        config.adapter if config.model else None,
        device=device,
        dtype=None if config.dtype == "auto" else getattr(torch, config.dtype),
        revision=config.revision,
        adapter_revision=config.adapter_revision,
        processor=config.processor_changes(),
        examples=examples,
        allow_pickle=config.allow_pickle,
        quantize=None if config.quantize == "no" else config.quantize,
    )


def images_of(rows: Any, *columns: str) -> Iterator[tuple[Any, ...]]:
    """Yield the RGB images of each row, at their own size."""
    from captioner_idc.loading import load_image

    for row in rows.select_columns(list(columns)):
        yield tuple(load_image(row[column]) for column in columns)


@dataclass(frozen=True)
class Question:
    """What is computed of each pair.

    Args:
        columns: those used as before and after.
        caption: whether to caption it.
        unchanged: the sentences that say no change, to compute what the probability of a change depends on.
    """

    columns: tuple[str, str]
    caption: bool = True
    unchanged: tuple[str, ...] = ()


def in_batches(
    config: EvaluateConfig,
    loaded: tuple[Any, Any],
    rows: Any,
    fingerprint: dict[str, Any],
    name: str,
    questions: dict[str, Question],
) -> list[dict[str, tuple[str | None, float | None]]]:
    """Return caption and difference of log-likelihoods for each question about each row, from all processes.

    The same command continues after the last whole batch. The batches do not depend on the number of processes,
    because an answer may depend on its batch by rounding.

    Args:
        fingerprint: everything that the answers depend on, see `settings_fingerprint`.
        name: of these questions.

    Raises: ImageError that names pair and file of an unreadable image.
    """
    state = get_state()
    fingerprint = {**fingerprint, "questions": {key: dataclasses.asdict(asked) for key, asked in questions.items()}}
    partial = PartialPredictions(Path(config.output_dir), name, state.process_index, fingerprint)
    done = partial.read()
    state.wait_for_everyone()  # every process has read before one writes
    partial.begin()
    count = -(-len(rows) // config.batch_size)
    own = range(state.process_index, count, state.num_processes)
    if done and state.is_main_process:
        print(f"{name}: continuing after {len(done)} of {count} batches", file=sys.stderr)
    left, answer = [batch for batch in own if batch not in done], batch_answerer(config, loaded, questions)
    batches = loaded_ahead(lambda batch: load_batch(config, loaded[1], rows, batch, questions), left)
    for batch, pairs in tqdm(batches, unit="batch", desc=name, total=len(left), disable=not state.is_main_process):
        partial.add(batch, answer(pairs, batch))
    state.wait_for_everyone()
    done = partial.read()
    missing = sorted(set(range(count)) - set(done))
    if missing:
        raise RuntimeError(f"{len(missing)} of {count} batches have no prediction (first: {missing[0]}): run it again")
    return [result for batch in range(count) for result in done[batch]]


def loaded_ahead(load: Callable[[int], Any], batches: list[int]) -> Iterator[tuple[int, Any]]:
    """Yield each batch with what `load` returns for it; a thread loads one batch while its predecessor is used."""
    with ThreadPoolExecutor(1) as thread:
        ahead = None
        for batch, following in zip(batches, [*batches[1:], None], strict=False):  # no batch: nothing follows
            pairs = (ahead or thread.submit(load, batch)).result()
            ahead = None if following is None else thread.submit(load, following)
            yield batch, pairs


def with_true_units(predicted: list[Row], provenance: Any) -> list[Row]:
    """Return the predictions, each with the `units` that the pair's provenance lists, if it lists any."""
    found = [json.loads(text) if text else {} for text in provenance]
    return [
        row | ({"units": facts["units"]} if "units" in facts else {})
        for row, facts in zip(predicted, found, strict=True)
    ]


def load_batch(
    config: EvaluateConfig, processor: Any, rows: Any, batch: int, questions: dict[str, Question]
) -> list[dict[str, tuple[Any, Any]]]:
    """Return the pairs of all questions about each row of a batch, as the network sees them.

    An image is loaded once for all of them, unless its size depends on the image that it is paired with.

    Raises: ImageError that names pair and file.
    """
    first, found = batch * config.batch_size, []
    for row in rows.select(range(first, min(first + config.batch_size, len(rows)))):

        def load(first: str, second: str, row: Row = row) -> tuple[Any, Any]:
            return processor.load_pair(row[first], row[second], f"pair {row['pair_id']!r}")

        pair = load("before", "after")
        pairs = {("before", "after"): pair, ("before", "before"): (pair[0], pair[0])}
        if processor.loads_each_alone:
            pairs["after", "before"] = pair[::-1]
        found.append({key: pairs.get(asked.columns) or load(*asked.columns) for key, asked in questions.items()})
    return found


def batch_answerer(
    config: EvaluateConfig, loaded: tuple[Any, Any], questions: dict[str, Question]
) -> Callable[[list[dict[str, tuple[Any, Any]]], int], list[dict[str, tuple[str | None, float | None]]]]:
    """Return a function (pairs of a batch, its number) -> answers to all questions about each, see `in_batches`.

    The images of a question are encoded once for its caption and its probability. Sampling is seeded per batch, so it
    is the same in any process.
    """
    import torch

    from captioner_idc.captioning import MemoryLimit, captions_about, length_limit
    from captioner_idc.change_probability import Calibration, compare_about
    from captioner_idc.encoded_pairs import EncodedPairs

    model, processor = loaded
    options = {**length_limit(model, processor, config.decoding()), **config.decoding()}
    limit = MemoryLimit()

    def ask(question: Question, batch: int, pairs: list[tuple[Any, Any]]) -> list[tuple[str | None, float | None]]:
        torch.manual_seed(config.seed * 1_000_003 + batch)
        about, nothing = EncodedPairs(model, processor, pairs), [None] * len(pairs)
        captions = captions_about(about, **options) if question.caption else nothing
        compared = compare_about(about, Calibration(question.unchanged)) if question.unchanged else []
        return list(zip(captions, [value for _, value in compared] or nothing, strict=True))

    def answer(pairs: list[dict[str, tuple[Any, Any]]], batch: int) -> list[dict[str, Any]]:
        answers = {
            key: limit.split(functools.partial(ask, question, batch), [each[key] for each in pairs])
            for key, question in questions.items()
        }
        return [dict(zip(answers, each, strict=True)) for each in zip(*answers.values(), strict=True)]

    return answer


def predict(
    config: EvaluateConfig, loaded: tuple[Any, Any], rows: Any, fingerprint: dict[str, Any]
) -> tuple[list[Row], dict[str, list[Row]]]:
    """Return a prediction for every row, and those of the input controls by their names."""
    calibration = get_calibration(config, loaded, fingerprint) if config.change_probability else None
    questions = {"own": Question(("before", "after"), unchanged=calibration.unchanged if calibration else ())}
    controls = CONTROLS if config.input_controls else {}
    questions |= {name: Question(columns) for name, columns in controls.items()}
    answers = in_batches(config, loaded, rows, fingerprint, "predictions", questions)
    known = list(zip(rows["pair_id"], rows["captions"], rows["change_type"], strict=True))
    predicted = {
        name: [
            {"pair_id": pair_id, "prediction": answer[name][0], "references": captions, "change_type": change_type}
            for (pair_id, captions, change_type), answer in zip(known, answers, strict=True)
        ]
        for name in questions
    }
    own = with_true_units(predicted.pop("own"), rows["provenance"])
    if calibration:
        probabilities = [calibration.probability(answer["own"][1]) for answer in answers]
        own = [row | {"change_probability": value} for row, value in zip(own, probabilities, strict=True)]
    return own, predicted


def get_calibration(config: EvaluateConfig, loaded: tuple[Any, Any], fingerprint: dict[str, Any]) -> Any:
    """Return the calibration saved with the model, or one fitted on validation pairs, which is saved.

    Where these have no unchanged pair, the image before given twice takes its place.

    Raises: ValueError without a validation split.
    """
    from captioner_idc.change_probability import fit_calibration, read_calibration, unchanged_sentences

    saved = read_calibration(config.adapter or config.model, config.adapter_revision or config.revision)
    if saved.pairs:
        return saved
    rows = undecoded(load_benchmark(config.benchmark, "validation", **config.benchmark_options))
    rows = evenly_spaced(rows, CALIBRATION_PAIRS)
    changed = [change_type != NO_CHANGE for change_type in rows["change_type"]]
    about_unchanged = zip(rows["captions"], changed, strict=True)
    unchanged = unchanged_sentences(
        text for texts, has_changed in about_unchanged if not has_changed for text in texts
    )
    questions = {"own": Question(("before", "after"), caption=False, unchanged=unchanged)}
    if all(changed):
        questions["identical"] = Question(("before", "before"), caption=False, unchanged=unchanged)
    shown = {**fingerprint, "rows": rows_fingerprint(rows)}
    answers = in_batches(config, loaded, rows, shown, "calibration", questions)
    differences = [answer[name][1] for name in questions for answer in answers]
    fitted = fit_calibration(differences, changed + [False] * (len(differences) - len(rows)), unchanged)
    if get_state().is_main_process:
        save_calibration(config, fitted)
    return fitted


def save_calibration(config: EvaluateConfig, calibration: Any) -> None:
    """Write a calibration next to the scores, and into the run that they belong to."""
    from captioner_idc.change_probability import write_calibration

    folder = Path(config.output_dir)
    for place in filter(None, (folder, paths.run_of(folder))):
        write_calibration(calibration, place)


def evaluate(config: EvaluateConfig) -> dict[str, Any] | None:
    """Predict in all processes; the main one writes all files and returns the scores, the others return None.

    Raises: OSError if another process writes into the same folder.
    """
    state = get_state()
    with folder_lock(Path(config.output_dir)) if state.is_main_process else nullcontext():
        return evaluate_in_locked_folder(config, state)


def evaluate_in_locked_folder(config: EvaluateConfig, state: Any) -> dict[str, Any] | None:
    """Predict and score, see `evaluate`."""
    from captioner_idc.adapters import merged

    if state.is_main_process:
        remove_leftovers(Path(config.output_dir))
    with state.main_process_first():
        rows = undecoded(load_benchmark(config.benchmark, config.split, **config.benchmark_options))
        if state.is_main_process:
            check_scoring(len(rows), **config.scoring())  # before hours of predictions
        training = training_captions(config)
    loaded = load_captioner(config, state.device, example_sentences(training, config.examples))
    run = run_signature(config, *loaded)  # once: it reads the adapter's file
    loaded = merged(loaded[0]), loaded[1]  # after the signature, which names adapter and base
    fingerprint = signature.settings_fingerprint(run, rows_fingerprint(rows), config.seed)
    predicted, controls = predict(config, loaded, rows, fingerprint)
    return score(config, loaded[0], run, rows, training, predicted, controls) if state.is_main_process else None


def score(
    config: EvaluateConfig,
    model: Any,
    run: dict[str, Any],
    rows: Any,
    training: list[list[str]],
    predicted: list[Row],
    controls: dict[str, list[Row]],
) -> dict[str, Any]:
    """Write everything that --output_dir gets, and return the result of scoring.

    Args:
        run: what `run_signature` returned.
        training: what `training_captions` returned.
    """
    from captioner_idc.captioning import describe_empty

    if empty := describe_empty(sum(not row["prediction"] for row in predicted), len(predicted)):
        print(f"warning: {empty}", file=sys.stderr)
    folder = Path(config.output_dir)
    remove_results(folder)
    write_predictions(predicted, folder / paths.PREDICTIONS)
    for name, predictions in controls.items():
        write_predictions(predictions, folder / paths.control_predictions(name))
    result = score_rows(
        predicted,
        constant_caption=best_constant_caption(training) if training else None,
        same_image_twice=[row["prediction"] for row in controls["identical"]] if controls else None,
        images=(image for (image,) in images_of(rows, "after")) if config.clip_model else None,
        chat_answers=folder / paths.CHAT_ANSWERS,
        **config.scoring(),
    )
    result["controls"] |= input_controls(predicted, **controls) if controls else {}
    versions = result["signature"]["versions"]
    result["signature"] |= without_paths({**data_signature(config, rows, training), **run})
    result["signature"]["versions"] = versions | run["versions"]
    write_results(folder, result)
    write_report(folder, images_of(rows, "before", "after"))
    remove_partial_predictions(folder)
    if run_folder := paths.run_of(folder):
        renew_card(run_folder, model)
    return result


def renew_card(run: Path, model: Any) -> None:
    """Write the card of a training run; a run of an earlier version also gets the captioner's facts."""
    from captioner_idc.families import card_facts

    remove_leftovers(run)
    if not (run / paths.CAPTIONER).is_file():
        write_json(run / paths.CAPTIONER, card_facts(model))
    write_card(run)


def training_captions(config: EvaluateConfig) -> list[list[str]]:
    """Return the captions of each training pair; [] without a training split or captions in it."""
    splits = prepare(benchmark_builder(config.benchmark, **config.benchmark_options))
    return [captions for captions in splits["train"]["captions"] if captions] if "train" in splits else []


def example_sentences(training: list[list[str]], count: int) -> list[str]:
    """Return `count` different sentences of training pairs that are evenly spaced over the split.

    Raises: ValueError if there are not as many.
    """
    sentences: dict[str, None] = {}
    for first in (number * len(training) // count for number in range(count)):
        candidates = (captions[0] for captions in chain(training[first:], training[:first]))
        new = next((sentence for sentence in candidates if sentence not in sentences), None)
        if new is None:
            raise ValueError(f"--examples {count}: the training split has {len(sentences)} different first sentences")
        sentences[new] = None
    return list(sentences)


def run_signature(config: EvaluateConfig, model: Any, processor: Any) -> dict[str, Any]:
    """Return what made the predictions: data, weights, what the network saw, decoding, versions."""
    from captioner_idc.adapters import base_of
    from captioner_idc.captioning import length_limit
    from captioner_idc.loading import processor_fingerprint

    builder, chosen = BENCHMARKS[config.benchmark], config.decoding()
    generation = model.generation_config.to_diff_dict()
    generation.pop("transformers_version", None)
    return {
        "benchmark": config.benchmark,
        "benchmark_options": dict(config.benchmark_options),
        "split": config.split,
        "hub_dataset": signature.hub_dataset(
            builder.HOMEPAGE, [(mirror.repo_id, mirror.repo_type) for mirror in builder.MIRRORS]
        ),
        **signature.weights_signature(
            config.model, config.revision, config.adapter, config.adapter_revision, base_of(model)
        ),
        "processor": processor.settings,
        "processor_sha256": processor_fingerprint(processor),
        **({"examples": config.examples} if config.examples else {}),
        **({"quantize": config.quantize} if config.quantize != "no" else {}),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "batch_size": config.batch_size,
        "decoding": {**generation, **length_limit(model, processor, chosen), **chosen},
        **({"seed": config.seed} if config.do_sample else {}),
        **signature.code_signature(),
    }


def data_signature(config: EvaluateConfig, rows: Any, training: list[list[str]]) -> dict[str, str | None]:
    """Return the data's version, where its files were fetched from, and how the constant caption was chosen."""
    builder = benchmark_builder(config.benchmark, **config.benchmark_options)
    chosen = f"the caption of {len(training)} training pairs with the highest CIDEr as the answer to each of them"
    return {
        "data_version": str(rows.info.version),
        "data_source": fetched_from(builder.root),
        **({"constant_caption": chosen} if training else {}),
    }


def parse_config(argv: list[str]) -> EvaluateConfig:
    """Return the checked options of the command line and of its --config file."""
    config = parse_settings(EvaluateConfig, argv, "evaluate.py", __doc__.split("\n")[0])
    config.check()
    return dataclasses.replace(config, model=folder_name(config.model), adapter=folder_name(config.adapter))


def run_program(argv: list[str]) -> None:
    """Evaluate with the settings of a command line, and print the scores."""
    config = parse_config(argv)
    result = evaluate(config)
    if result is None:
        return
    print(describe_result(config.adapter or config.model, result))
    if config.push_to_hub:
        from run_idc.publishing import try_push

        run = paths.run_of(Path(config.output_dir))
        print(try_push(run, config.hub_model_id, private=config.hub_private, merge=config.merge))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    errors = (ValueError, OSError, RuntimeError, ImportError)
    hint = "the same command continues after the last whole batch"
    with lasting_output():
        return run_command(lambda: run_program(arguments), *errors, interrupted=hint)


if __name__ == "__main__":
    sys.exit(main())
