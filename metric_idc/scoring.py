"""Scoring: statistics per pair first, every score a reduction of them, with controls, intervals and a signature.

Under the default protocol nothing is rewritten and no pair is dropped: the rows are scored as they are.
"""

import hashlib
import json
import platform
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from . import bleu, cider, meteor, ptb_tokenizer, rouge_l, spice
from .change_probability import change_probability
from .change_type import CHANGE_TYPES, stated_change_type
from .chat_answers import ChatAnswers
from .chat_client import Chat, connect_chat, is_address
from .chat_units import ChatUnits
from .clip_score import ClipScore
from .content_statistics import change_detection, change_type_accuracy, length_and_diversity, said_unchanged
from .difference_units import NO_CHANGE_SENTENCE, DifferenceUnits, read_references
from .java import java_command
from .judge import Judge
from .protocols import apply_protocol
from .resampling import differences, interval, resampled_scores
from .sentence_similarity import SentenceSimilarity
from .unit_rules import UNITS_EXAMPLE, are_units

# A metric: SCORES, IMPLEMENTATION, `segment_statistics(systems, references)` and `reduce(total, pairs)`, where a score
# is nan if it does not apply to any of the pairs. A class is made from the rows, and reads untokenized captions.
METRICS = {
    **{"BLEU": bleu, "METEOR": meteor, "ROUGE-L": rouge_l, "CIDEr": cider, "SPICE": spice},
    "DifferenceUnits": DifferenceUnits,
}
HEADLINE = (
    *("BLEU-4", "METEOR", "ROUGE-L", "CIDEr"),
    *("Unit-F1", "Unit-Action-F1", "Unit-TNR"),
    *("Judge-Overall", "Judge-Recall", "Judge-Specificity"),
)

Row = dict[str, Any]
Metrics = dict[str, Any]


def score_rows(
    rows: list[Row],
    metrics: list[str] | None = None,
    constant_caption: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
    *,
    same_image_twice: list[str] | None = None,
    protocol: str = "standard",
    paper_batch_size: int = 16,
    sentence_model: str | Path | None = None,
    clip_model: str | Path | None = None,
    images: Iterable[Any] | None = None,
    judge: str | Path | None = None,
    unit_parser: str | Path | None = None,
    judge_model: str | None = None,
    chat_answers: Path | None = None,
) -> dict[str, Any]:
    """Return the content of metrics.json for one set of predictions, and under "pairs" that of pairs.jsonl.

    Args:
        rows: `pair_id, prediction, references` of every pair of a split, and `change_type`, `units` (the true
            changes, each with `thing` and `action`) and `change_probability` if they are known.
        metrics: some of METRICS; by default all (SPICE only where its files are installed).
        constant_caption: the control's answer to every pair, chosen from training captions by
            `best_constant_caption`; by default the best of the scored references.
        resamples: draws of the bootstrap behind the intervals.
        same_image_twice: the model's captions for each pair's image before, given twice, in the order of the rows.
        protocol: "standard", or "paper" with the `paper_batch_size` of the repeated evaluation; see protocols.py.
        sentence_model: folder of a sentence-embedding model; adds SentenceSimilarity, and difference units whose
            things are compared by it.
        clip_model: folder of a CLIP model; with `images`, the RGB images after, adds CLIPScore and RefCLIPScore.
        judge: a chat model that judges the predictions, see judge.py: a folder, or the address of a server.
        unit_parser: a chat model that reads difference units in place of the rules.
        judge_model: name of the model at the server of `judge` or `unit_parser`; by default the first listed there.
        chat_answers: file in which the answers of both are kept, and from which an interrupted call continues.

    Raises: ValueError for rows or options that cannot be scored; ImportError or FileNotFoundError for what is not
        installed.
    """
    _check_rows(rows)
    chats = _connect(metrics, protocol, judge, unit_parser, judge_model)
    if same_image_twice is not None and len(same_image_twice) != len(rows):
        raise ValueError(
            f"{len(same_image_twice)} captions in same_image_twice for {len(rows)} rows; give one per row"
        )
    scored, protocol_facts = apply_protocol(rows, protocol, paper_batch_size, seed)
    twice = (same_image_twice or [])[: len(scored)]
    chosen, left_out = _choose_metrics(metrics)
    if images is not None and scored is not rows:
        images = islice(images, len(scored))  # those of pairs that the paper protocol drops are not read
    parser = (
        ChatUnits(ChatAnswers(chats[_place(unit_parser)], "units", chat_answers)) if unit_parser is not None else None
    )
    on_tokens, on_text = _by_input(chosen, scored, parser)
    on_text |= _model_metrics(scored, on_text.keys(), sentence_model, clip_model, images, parser)
    tokens, written, references = _systems(scored, twice, constant_caption)
    texts = [row["references"] for row in scored]
    if parser:
        parser.read(chain(*written.values(), read_references(scored), [NO_CHANGE_SENTENCE]))
    statistics = _segment_statistics(on_tokens, tokens, references)
    statistics |= _segment_statistics(on_text, written, texts, threads=1)  # two cannot import transformers at once
    if "DifferenceUnits" in on_text:  # the wording does not matter to it
        denials = {"no_change": [NO_CHANGE_SENTENCE] * len(scored)}
        units = _segment_statistics({"DifferenceUnits": on_text["DifferenceUnits"]}, denials, texts)
        statistics["DifferenceUnits"] |= units["DifferenceUnits"]
    judges = {}
    if judge is not None:  # only of the predictions: other sentences would cost as much
        metric = judges["Judge"] = Judge(scored, ChatAnswers(chats[_place(judge)], "judge", chat_answers))
        # not in a thread, so that Ctrl-C ends it
        own_verdicts = metric.segment_statistics([written["own"]], texts)[0]
        statistics["Judge"] = {"own": own_verdicts, "no_change": metric.no_change_statistics(texts)}
    used = on_tokens | on_text | judges

    def scores(system: str, pairs: Any = slice(None)) -> dict[str, float]:
        known = {name: arrays[system][pairs] for name, arrays in statistics.items() if system in arrays}
        return _reduce(used, known)

    own = {name: arrays["own"] for name, arrays in statistics.items()}
    source = "references" if constant_caption is None else "train"
    constant = {"caption": written["constant"][0], "chosen_from": source, "scores": scores("constant")}
    controls = {"constant_caption": constant}
    if {"DifferenceUnits", "Judge"} & used.keys():
        controls["no_change"] = {"caption": NO_CHANGE_SENTENCE, "scores": scores("no_change")}
    if twice:
        controls["same_image_twice"] = {"scores": scores("same_image_twice"), "said_unchanged": said_unchanged(twice)}
    lengths = {"predictions": tokens["own"], "references": [text for texts in references for text in texts]}
    facts = {"data_sha256": _hash(rows, "references"), "predictions_sha256": predictions_hash(rows)}
    return {
        "scores": scores("own"),
        "controls": controls,
        "per_change_type": _per_change_type(scored, scores),
        "per_references": _per_references(scored, scores),
        **change_type_accuracy(scored),
        **change_detection(scored),
        **change_probability(scored),
        **{name.lower(): metric.facts() for name, metric in judges.items()},
        **({"unit_parser": parser.facts()} if parser else {}),
        "captions": {name: length_and_diversity(sentences) for name, sentences in lengths.items()},
        "intervals": _intervals(used, own, resamples, seed),
        "signature": protocol_facts | facts | _signature(scored, used, left_out, source, resamples, seed),
        # of every row as it was predicted, also those that the paper protocol rewrites or drops
        "pairs": _pairs(rows, _pair_scores(used, own) if scored is rows else segment_scores(rows, list(chosen))),
    }


def check_scoring(
    pairs: int,
    metrics: list[str] | None = None,
    *,
    protocol: str = "standard",
    paper_batch_size: int = 16,
    sentence_model: str | Path | None = None,
    clip_model: str | Path | None = None,
    judge: str | Path | None = None,
    unit_parser: str | Path | None = None,
    judge_model: str | None = None,
) -> None:
    """Raise what `score_rows` would raise for so many rows, e.g. for unknown names, or without a JVM or model."""
    _choose_metrics(metrics)
    java_command()
    for chat in _connect(metrics, protocol, judge, unit_parser, judge_model).values():
        chat.check()
    _model_metrics([], (), sentence_model, clip_model, ())
    apply_protocol([{"pair_id": "", "prediction": "", "references": [""]}] * pairs, protocol, paper_batch_size, 0)


def corpus_scores(rows: list[Row], metrics: list[str] | None = None) -> dict[str, float]:
    """Return the scores alone."""
    chosen, statistics = _own_statistics(rows, metrics)
    return _reduce(chosen, statistics)


def segment_scores(rows: list[Row], metrics: list[str] | None = None) -> list[dict[str, float]]:
    """Return the scores of each row: the corpus formula of each metric on that pair alone.

    BLEU is thus pycocoevalcap's sentence score, near 0 without a common 4-gram; CIDEr has the document frequencies of
    all rows.
    """
    return _pair_scores(*_own_statistics(rows, metrics))


def paired_differences(
    rows_a: list[Row], rows_b: list[Row], metrics: list[str] | None = None, resamples: int = 1000, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Return a minus b per score, with the 95 % interval of a paired bootstrap over pairs and a two-sided p-value.

    Raises: ValueError if the two files contain different pairs or references.
    """
    _check_rows(rows_a)
    _check_rows(rows_b)
    both = {"a": rows_a, "b": _align(rows_a, rows_b)}
    sentences = {name: [row["prediction"] for row in rows] for name, rows in both.items()}
    chosen, statistics = _statistics(rows_a, metrics, sentences)
    sides = [{name: arrays[system] for name, arrays in statistics.items()} for system in ("a", "b")]
    return differences(*sides, lambda sums: _reduce_sums(chosen, sums, len(rows_a)), resamples, seed)


def _check_rows(rows: list[Row]) -> None:
    if not rows:
        raise ValueError("no rows to score; give one row per pair of the split")
    seen = set()
    for row in rows:
        pair_id, references = row["pair_id"], row["references"]
        if pair_id in seen:
            raise ValueError(f"duplicate pair_id {pair_id!r}: each pair needs exactly one prediction")
        seen.add(pair_id)
        if not isinstance(row["prediction"], str):
            raise ValueError(
                f"the prediction of pair {pair_id!r} is {row['prediction']!r}; it must be a string "
                '("" if there is no answer)'
            )
        if not isinstance(references, list) or not all(isinstance(text, str) for text in references):
            raise ValueError(f"the references of pair {pair_id!r} are {references!r}; give a list of strings")
        if not references:
            raise ValueError(f"pair {pair_id!r} has no reference; give at least one (pairs are never dropped)")
        if not are_units(row.get("units", [])):
            raise ValueError(f"the units of pair {pair_id!r} are {row['units']!r}; give e.g. {UNITS_EXAMPLE}")
        for text in (row["prediction"], *references):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"{text!a} of pair {pair_id!r} has a lone surrogate; read files with `read_predictions`, which "
                    "replaces them"
                ) from error


def _choose_metrics(names: list[str] | None) -> tuple[Metrics, dict[str, str]]:
    """Return the metrics, and why some are left out: only SPICE may be, and only if it was not asked for."""
    unknown = [name for name in names or [] if name not in METRICS]
    if unknown or names == []:
        raise ValueError(f"unknown metrics {unknown or names!r}; choose from {list(METRICS)}")
    left_out = {} if names is not None or not spice.missing() else {"SPICE": spice.missing()}
    return {
        name: module for name, module in METRICS.items() if name not in left_out and (names is None or name in names)
    }, left_out


def _connect(
    metrics: list[str] | None,
    protocol: str,
    judge: str | Path | None,
    unit_parser: str | Path | None,
    judge_model: str | None,
) -> dict[str, Chat]:
    """Return the chat models by their places; one that is both is loaded once."""
    places = {_place(place): place for place in (unit_parser, judge) if place is not None}
    if judge_model is not None and not any(map(is_address, places)):
        raise ValueError(f"judge_model {judge_model!r} is the name of a model at a server: give its address as judge")
    if unit_parser is not None and "DifferenceUnits" not in (metrics or METRICS):
        raise ValueError("unit_parser reads difference units: add DifferenceUnits to the metrics")
    if places and protocol != "standard":
        raise ValueError(
            f"chat models need the standard protocol, got {protocol!r}: it rewrites sentences, and pairs.jsonl has "
            "the scores of each pair as predicted"
        )
    return {whole: connect_chat(place, judge_model if is_address(place) else None) for whole, place in places.items()}


def _place(place: str | Path) -> str:
    """Return the address of a server as it is, and the whole path of a folder."""
    return str(place) if is_address(place) else str(Path(place).resolve())


def _by_input(metrics: Metrics, rows: list[Row], parser: ChatUnits | None = None) -> tuple[Metrics, Metrics]:
    """Return the metrics that read tokens, and those that read captions as they were written, made from the rows."""
    read_by = {"DifferenceUnits": _parsed_by(parser)}
    on_text = {
        name: metric(rows, **read_by.get(name, {})) for name, metric in metrics.items() if isinstance(metric, type)
    }
    return {name: metric for name, metric in metrics.items() if name not in on_text}, on_text


def _parsed_by(parser: ChatUnits | None) -> dict[str, Any]:
    """Return the keywords of DifferenceUnits for a parser; none for the rules."""
    return {"parser": parser, "parser_name": parser.name} if parser else {}


def _model_metrics(
    rows: list[Row],
    chosen: Iterable[str],
    sentence_model: str | Path | None,
    clip_model: str | Path | None,
    images: Iterable[Any] | None,
    parser: ChatUnits | None = None,
) -> Metrics:
    """Return the metrics that read untokenized captions, by neural networks."""
    models: Metrics = {}
    if sentence_model is not None:
        models["SentenceSimilarity"] = SentenceSimilarity(sentence_model)
        if "DifferenceUnits" in chosen:
            models["EmbeddedUnits"] = DifferenceUnits(rows, models["SentenceSimilarity"], **_parsed_by(parser))
    if clip_model is not None:
        models["CLIPScore"] = ClipScore(clip_model, images)
    return models


def _systems(
    rows: list[Row], twice: list[str], constant_caption: str | None
) -> tuple[dict[str, list[str]], dict[str, list[str]], list[list[str]]]:
    """Return tokens and captions of each scored system, and the tokens of the references.

    The systems: "own", the predictions; "constant", one caption for every pair, the best reference if none is given;
    "same_image_twice", the captions for the image before given twice, [] if they are unknown.
    """
    texts, own = [row["references"] for row in rows], [row["prediction"] for row in rows]
    predictions, same_image_twice, given, references = _tokenize_all(
        [own, twice, [] if constant_caption is None else [constant_caption]], texts
    )
    constant, caption = (*given, constant_caption) if given else cider.best_constant_caption(references, texts)
    tokens = {"own": predictions, "constant": [constant] * len(rows), "same_image_twice": same_image_twice}
    return tokens, {"own": own, "constant": [caption] * len(rows), "same_image_twice": twice}, references


def _tokenize_all(systems: list[list[str]], *lists: list[list[str]]) -> list[Any]:
    """Return the tokens of systems and of lists of captions, in their shapes, from one call of the tokenizer."""
    nested = [*([system] for system in systems), *lists]
    tokens = iter(ptb_tokenizer.tokenize([text for captions in nested for texts in captions for text in texts]))
    shaped = [[[next(tokens) for _ in texts] for texts in captions] for captions in nested]
    return [*(captions[0] for captions in shaped[: len(systems)]), *shaped[len(systems) :]]


def _segment_statistics(
    metrics: Metrics, systems: dict[str, list[str]], references: list[list[str]], threads: int | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """Return the statistics per metric and system; a system without sentences is left out.

    Args:
        threads: by default, one for each metric.
    """
    systems = {name: sentences for name, sentences in systems.items() if sentences}
    if not metrics:
        return {}
    # threads, because METEOR waits for its JVMs while the others count
    with ThreadPoolExecutor(threads or len(metrics)) as pool:
        running = {
            name: pool.submit(metric.segment_statistics, list(systems.values()), references)
            for name, metric in metrics.items()
        }
        return {name: dict(zip(systems, future.result(), strict=True)) for name, future in running.items()}


def _own_statistics(rows: list[Row], metrics: list[str] | None) -> tuple[Metrics, dict[str, np.ndarray]]:
    _check_rows(rows)
    used, statistics = _statistics(rows, metrics, {"own": [row["prediction"] for row in rows]})
    return used, {name: arrays["own"] for name, arrays in statistics.items()}


def _statistics(
    rows: list[Row], metrics: list[str] | None, systems: dict[str, list[str]]
) -> tuple[Metrics, dict[str, dict[str, np.ndarray]]]:
    """Return the metrics, and the statistics of each for several systems' sentences."""
    on_tokens, on_text = _by_input(_choose_metrics(metrics)[0], rows)
    texts = [row["references"] for row in rows]
    *tokens, references = _tokenize_all(list(systems.values()), texts)
    statistics = _segment_statistics(on_tokens, dict(zip(systems, tokens, strict=True)), references)
    return on_tokens | on_text, statistics | _segment_statistics(on_text, systems, texts, threads=1)


def _reduce(metrics: Metrics, statistics: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the scores that apply to any of the pairs."""
    sums = {name: array.sum(axis=0) for name, array in statistics.items()}
    return _defined(_reduce_sums(metrics, sums, len(next(iter(statistics.values())))))


def _reduce_sums(metrics: Metrics, sums: dict[str, np.ndarray], pairs: int) -> dict[str, float]:
    return {
        score: value for name, total in sums.items() for score, value in metrics[name].reduce(total, pairs).items()
    }


def _defined(scores: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if not np.isnan(value)}


def _pair_scores(metrics: Metrics, statistics: dict[str, np.ndarray]) -> list[dict[str, float]]:
    rows = zip(*statistics.values(), strict=True)
    return [_defined(_reduce_sums(metrics, dict(zip(statistics, row, strict=True)), 1)) for row in rows]


def _intervals(
    metrics: Metrics, statistics: dict[str, np.ndarray], resamples: int, seed: int
) -> dict[str, list[float]]:
    pairs = len(next(iter(statistics.values())))
    draws = resampled_scores(statistics, lambda sums: _reduce_sums(metrics, sums, pairs), resamples, seed)
    return {name: interval(draws[name]) for name in _reduce(metrics, statistics)}


def _pairs(rows: list[Row], scores: list[dict[str, float]]) -> list[Row]:
    """Return the lines of pairs.jsonl.

    `stated_change_type` is None where the rules cannot recognize the pair's own change type, so that the two cannot be
    compared; it is "" where no rule fits the prediction.
    """
    return [
        {
            "pair_id": row["pair_id"],
            "stated_change_type": (
                stated_change_type(row["prediction"]) if row.get("change_type") in CHANGE_TYPES else None
            ),
            "scores": own,
        }
        for row, own in zip(rows, scores, strict=True)
    ]


def _per_change_type(rows: list[Row], scores: Any) -> dict[str, Row]:
    """Return the scores of each change type's pairs; CIDEr keeps the document frequencies of the whole run."""
    change_types = np.array([row.get("change_type", "") for row in rows])
    table = {}
    for change_type in sorted(set(change_types.tolist()) - {""}):
        pairs = np.flatnonzero(change_types == change_type)
        accuracy = change_type_accuracy([rows[pair] for pair in pairs])
        accuracy.pop("change_type_pairs", None)  # known from "pairs"
        table[change_type] = {"pairs": len(pairs), "scores": scores("own", pairs), **accuracy}
    return table


def _per_references(rows: list[Row], scores: Any) -> dict[str, Row]:
    """Return the scores per number of references, with which scores rise; {} if all pairs have equally many."""
    counts = np.array([len(row["references"]) for row in rows])
    groups = {int(count): np.flatnonzero(counts == count) for count in np.unique(counts)}
    if len(groups) == 1:
        return {}
    return {str(count): {"pairs": len(pairs), "scores": scores("own", pairs)} for count, pairs in groups.items()}


def _align(rows_a: list[Row], rows_b: list[Row]) -> list[Row]:
    """Return the rows of b in the order of a."""
    by_id = {row["pair_id"]: row for row in rows_b}
    differing = sorted({row["pair_id"] for row in rows_a} ^ by_id.keys(), key=str)
    if differing:
        raise ValueError(
            f"{len(differing)} pair_ids are in only one of the two files (e.g. {differing[:5]}); "
            "a paired comparison needs the same pairs"
        )
    aligned = [by_id[row["pair_id"]] for row in rows_a]
    changed = [a["pair_id"] for a, b in zip(rows_a, aligned, strict=True) if a["references"] != b["references"]]
    if changed:
        raise ValueError(f"{len(changed)} pairs have other references in the second file (e.g. {changed[:5]})")
    return aligned


def predictions_hash(rows: list[Row]) -> str:
    """Return the SHA-256 of pair ids and predictions, whatever their order."""
    return _hash(rows, "prediction")


def _hash(rows: list[Row], field: str) -> str:
    """Return the SHA-256 of pair ids and one field; the same on every machine and in any order of the pairs."""
    hashed = hashlib.sha256()
    for pair in sorted([str(row["pair_id"]), row[field]] for row in rows):
        hashed.update(json.dumps(pair).encode("ascii") + b"\n")
    return hashed.hexdigest()


def _signature(
    rows: list[Row],
    metrics: Metrics,
    left_out: dict[str, str],
    constant_source: str,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    counts = [len(row["references"]) for row in rows]
    constant = "the scored reference with the highest CIDEr as the answer to every pair"
    return {
        "pairs": len(rows),
        "references_per_pair": {"min": min(counts), "max": max(counts), "mean": sum(counts) / len(counts)},
        "tokenizer": ptb_tokenizer.NAME,
        "metrics": {name: metric.IMPLEMENTATION for name, metric in metrics.items()},
        **({"left_out": left_out} if left_out else {}),
        # where a caption of training pairs was given, who chose it describes the choice
        **({"constant_caption": constant} if constant_source == "references" else {}),
        "bootstrap": {"resamples": resamples, "seed": seed, "interval": 0.95, "unit": "pair"},
        "versions": {
            "pycocoevalcap": version("pycocoevalcap"),
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
    }
