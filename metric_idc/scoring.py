"""Scores predictions: statistics per pair first, every score a reduction of them, and a control beside it.

Nothing is rewritten and no pair is dropped: what stands in the rows is what is scored.
"""

import platform
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np

from . import bleu, cider, meteor, ptb_tokenizer, rouge_l
from .change_kind import KINDS, change_kind

METRICS = {"BLEU": bleu, "METEOR": meteor, "ROUGE-L": rouge_l, "CIDEr": cider}

Row = dict[str, Any]


def score_rows(
    rows: list[Row],
    metrics: list[str] | None = None,
    constant_captions: list[list[str]] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores, constant-caption control, per-kind tables, interval and signature of one set of predictions.

    `constant_captions` are the references of each training pair, from which the control's sentence is chosen.
    """
    _check_rows(rows)
    chosen = _choose_metrics(metrics)
    # training sets may hold pairs without a caption; they offer no candidate and are not scored
    constant_captions = [captions for captions in constant_captions or [] if captions]
    predictions, references, training = _tokenize_all(
        [row["prediction"] for row in rows], [row["references"] for row in rows], constant_captions
    )
    source, source_texts = (training, constant_captions) if training else (references, [r["references"] for r in rows])
    constant = cider.best_constant_caption(source)
    statistics = _statistics(chosen, [predictions, [constant] * len(rows)], references)
    own = {name: arrays[0] for name, arrays in statistics.items()}
    everything = np.arange(len(rows))
    result = {
        "scores": _reduce(own, everything),
        "controls": {
            "constant_caption": {
                "caption": _original_text(constant, source, source_texts),
                "chosen_from": "train" if training else "references",
                "scores": _reduce({name: arrays[1] for name, arrays in statistics.items()}, everything),
            }
        },
        "per_kind": _per_kind(rows, own),
        **_kind_accuracy(rows),
        "intervals": {},
        "signature": _signature(rows, chosen, training, resamples, seed),
    }
    if "CIDEr" in own:
        means = [own["CIDEr"][sample].mean() for sample in _resamples(len(rows), resamples, seed)]
        result["intervals"]["CIDEr"] = [float(bound) for bound in np.percentile(means, [2.5, 97.5])]
    return result


def paired_difference(
    rows_a: list[Row], rows_b: list[Row], metric: str = "CIDEr", resamples: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Score of a minus score of b, with a 95 % interval and a two-sided p-value from a paired bootstrap over pairs."""
    _check_rows(rows_a)
    _check_rows(rows_b)
    module = next((module for module in METRICS.values() if metric in module.SCORES), None)
    if module is None:
        raise ValueError(f"unknown score {metric!r}; one of {[name for m in METRICS.values() for name in m.SCORES]}")
    rows_b = _align(rows_a, rows_b)
    tokens_a, references, tokens_b = _tokenize_all(
        [row["prediction"] for row in rows_a],
        [row["references"] for row in rows_a],
        [[row["prediction"]] for row in rows_b],
    )
    a, b = module.segment_statistics([tokens_a, [texts[0] for texts in tokens_b]], references)

    def difference(sample: np.ndarray) -> float:
        return module.reduce(a[sample])[metric] - module.reduce(b[sample])[metric]

    differences = np.array([difference(sample) for sample in _resamples(len(rows_a), resamples, seed)])
    low, high = np.percentile(differences, [2.5, 97.5])
    # one is added so that no finite number of resamples claims certainty
    tail = (1 + min((differences <= 0).sum(), (differences >= 0).sum())) / (1 + resamples)
    return {
        "difference": difference(np.arange(len(rows_a))),
        "low": float(low),
        "high": float(high),
        "p_value": float(min(1.0, 2 * tail)),
    }


def _check_rows(rows: list[Row]) -> None:
    if not rows:
        raise ValueError("no rows to score; give one row per pair of the split")
    seen = set()
    for row in rows:
        pair_id, references = row["pair_id"], row["references"]
        if pair_id in seen:
            raise ValueError(f"pair_id {pair_id!r} stands in two rows; give every pair exactly one prediction")
        seen.add(pair_id)
        if not isinstance(row["prediction"], str):
            raise ValueError(
                f"the prediction of pair {pair_id!r} is {row['prediction']!r}; it must be a string "
                '(the empty string "" stands for no answer)'
            )
        if not isinstance(references, list) or not all(isinstance(text, str) for text in references):
            raise ValueError(f"the references of pair {pair_id!r} are {references!r}; give a list of strings")
        if not references:
            raise ValueError(f"pair {pair_id!r} has no reference; give at least one (pairs are never dropped)")


def _choose_metrics(names: list[str] | None) -> dict[str, ModuleType]:
    unknown = [name for name in names or [] if name not in METRICS]
    if unknown or names == []:
        raise ValueError(f"unknown metrics {unknown or names!r}; choose from {list(METRICS)}")
    return {name: module for name, module in METRICS.items() if names is None or name in names}


def _tokenize_all(predictions: list[str], *lists: list[list[str]]) -> tuple[list[str] | list[list[str]], ...]:
    """Predictions and lists of captions through one call of the tokenizer, in their own shapes."""
    nested = [captions for captions_of_pairs in lists for captions in captions_of_pairs]
    tokens = iter(ptb_tokenizer.tokenize([*predictions, *(text for captions in nested for text in captions)]))
    return (
        [next(tokens) for _ in predictions],
        *([[next(tokens) for _ in captions] for captions in captions_of_pairs] for captions_of_pairs in lists),
    )


def _statistics(
    chosen: dict[str, ModuleType], systems: list[list[str]], references: list[list[str]]
) -> dict[str, list[np.ndarray]]:
    # threads, because METEOR waits for its JVM while the others count
    with ThreadPoolExecutor(len(chosen)) as pool:
        running = {
            name: pool.submit(module.segment_statistics, systems, references) for name, module in chosen.items()
        }
        return {name: future.result() for name, future in running.items()}


def _reduce(statistics: dict[str, np.ndarray], pairs: np.ndarray) -> dict[str, float]:
    scores: dict[str, float] = {}
    for name, array in statistics.items():
        scores |= METRICS[name].reduce(array[pairs])
    return scores


def _original_text(tokens: str, source: list[list[str]], texts: list[list[str]]) -> str:
    """The caption as it was written; of several with the same tokens the first by text."""
    both = zip(source, texts, strict=True)
    return min(text for pair in both for line, text in zip(*pair, strict=True) if line == tokens)


def _per_kind(rows: list[Row], statistics: dict[str, np.ndarray]) -> dict[str, Row]:
    """The scores of each kind's pairs; CIDEr keeps the document frequencies of the whole run."""
    kinds = np.array([row.get("kind", "") for row in rows])
    table = {}
    for kind in sorted(set(kinds.tolist()) - {""}):
        pairs = np.flatnonzero(kinds == kind)
        accuracy = _kind_accuracy([rows[pair] for pair in pairs])
        accuracy.pop("kind_pairs", None)  # known from "pairs"
        table[kind] = {"pairs": len(pairs), "scores": _reduce(statistics, pairs), **accuracy}
    return table


def _kind_accuracy(rows: list[Row]) -> dict[str, float | int]:
    """How often the prediction tells the row's kind of change; kinds without rules are left out of it."""
    right = [change_kind(row["prediction"]) == row["kind"] for row in rows if row.get("kind", "") in KINDS]
    return {"kind_accuracy": sum(right) / len(right), "kind_pairs": len(right)} if right else {}


def _resamples(pairs: int, count: int, seed: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(seed)
    return (random.integers(pairs, size=pairs) for _ in range(count))


def _align(rows_a: list[Row], rows_b: list[Row]) -> list[Row]:
    """The rows of b in the order of a."""
    by_id = {row["pair_id"]: row for row in rows_b}
    differing = sorted({row["pair_id"] for row in rows_a} ^ by_id.keys(), key=str)
    if differing:
        raise ValueError(
            f"{len(differing)} pair_ids stand in only one of the two files (such as {differing[:5]}); "
            "a paired comparison needs the same pairs"
        )
    aligned = [by_id[row["pair_id"]] for row in rows_a]
    changed = [a["pair_id"] for a, b in zip(rows_a, aligned, strict=True) if a["references"] != b["references"]]
    if changed:
        raise ValueError(f"{len(changed)} pairs have other references in the second file (such as {changed[:5]})")
    return aligned


def _signature(
    rows: list[Row], chosen: dict[str, ModuleType], training: list[list[str]], resamples: int, seed: int
) -> dict[str, Any]:
    counts = [len(row["references"]) for row in rows]
    where = f"the references of {len(training)} training pairs" if training else "the scored references themselves"
    return {
        "protocol": "honest",
        "pairs": len(rows),
        "references_per_pair": {"min": min(counts), "max": max(counts), "mean": sum(counts) / len(counts)},
        "tokenizer": ptb_tokenizer.NAME,
        "metrics": {name: module.IMPLEMENTATION for name, module in chosen.items()},
        "constant_caption": f"the single sentence of {where} with the highest CIDEr there as the answer to every pair",
        "bootstrap": {"resamples": resamples, "seed": seed, "interval": 0.95, "unit": "pair"},
        "versions": {
            "pycocoevalcap": version("pycocoevalcap"),
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
    }
