"""The model card of a run folder, and its scores as the Hub reads them, from the files in that folder alone."""

import json
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml

from common_idc.atomic_files import write_text
from common_idc.provenance import file_sha256
from common_idc.redaction import without_paths

from .paths import ADAPTER_WEIGHTS, CAPTIONER, CARD, CURVES, LOG, TRAIN_CONFIG, evaluations
from .signature import hub_dataset

# In an installed package the template is next to this file, in a clone at the top level.
TEMPLATES = (Path(__file__).with_name("model_card.md"), Path(__file__).resolve().parents[1] / "model_card.md")
# Of the two tasks that fit: the one whose Auto class loads the model, and which still has a pipeline.
TASK = "image-text-to-text"


def read_run(run: Path) -> dict[str, Any]:
    """Return what `train.py` left in a run folder; of the log its start and last epoch."""
    lines = [json.loads(line) for line in (run / LOG).read_text(encoding="utf-8").splitlines() if line.strip()]
    start, config = without_paths(lines[0]), yaml.safe_load((run / TRAIN_CONFIG).read_text(encoding="utf-8"))
    return {
        "name": run.resolve().name,
        "config": without_paths(config),
        "start": start,
        "end": next((line for line in reversed(lines) if "epoch" in line), lines[-1]),
        "environment": start.get("environment", {}),
        "data": start.get("data") or {},
        "captioner": json.loads((run / CAPTIONER).read_text(encoding="utf-8")),
        "curves": (run / CURVES).is_file(),
    }


def own_results(run: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the scores of this run's adapter, and of its base for comparison, and the folders of all other scores.

    Others are those of another adapter, of an earlier state of this one, or without a note on what made them. A result
    is the content of metrics.json with `title`, its folder's name, and `own`, false for the base's.
    """
    weights = run / ADAPTER_WEIGHTS
    adapter = file_sha256(weights) if weights.is_file() else None
    results, others = [], []
    for file in evaluations(run):
        result = {"title": file.parent.name, **json.loads(file.read_text(encoding="utf-8"))}
        signature = result["signature"]
        own = adapter is not None and signature.get("adapter_sha256") == adapter
        if own or (signature.get("model") and not signature.get("adapter")):
            results.append({**result, "own": own})
        else:
            others.append(file.parent.name)
    return results, others


def write_card(
    run: Path, name: str | None = None, merged: bool = False, results: list[dict[str, Any]] | None = None
) -> Path:
    """Write README.md of the run folder from the template and return its path.

    Args:
        name: the repository that others load it by; the folder's name if None.
        merged: the folder contains the whole model, not an adapter.
        results: the scores to show, for a folder without the adapter that they belong to; default: see `own_results`.
    """
    shown, others = own_results(run) if results is None else (results, [])
    facts = {**read_run(run), "merged": merged, "results": shown, "other_results": others}
    facts["name"] = name or facts["name"]
    use = facts["captioner"]["merged_use" if merged else "adapter_use"]
    facts["use"] = use.replace("NAME_OR_PATH", facts["name"])
    template = next(path for path in TEMPLATES if path.is_file())
    card = ModelCard.from_template(_header(facts), template_path=str(template), **facts)
    write_text(run / CARD, str(card))
    return run / CARD


def _header(facts: dict[str, Any]) -> ModelCardData:
    base, results = facts["config"]["model"], hub_results(facts["results"])
    # scores of this project, which the Hub does not know
    metrics = dict.fromkeys(result.metric_type for result in results if result.metric_type not in ("unit", "judge"))
    return ModelCardData(
        base_model=base if "/" in base else None,  # the name of a local folder means nothing on the Hub
        library_name="transformers" if facts["merged"] else "peft",
        pipeline_tag=TASK,
        tags=["image-difference-captioning", *facts["captioner"]["tags"], *([] if facts["merged"] else ["lora"])],
        language="en",
        datasets=_hub_datasets(facts) or None,
        metrics=list(metrics) or None,
        model_name=facts["name"] if results else None,
        eval_results=results or None,
    )


def _hub_datasets(facts: dict[str, Any]) -> list[str]:
    """Return the Hub ids of the data that the run was trained and scored on."""
    trained = hub_dataset(facts["data"].get("homepage") or "", [])
    scored = [result["signature"].get("hub_dataset") for result in facts["results"] if result["own"]]
    return list(dict.fromkeys(filter(None, [trained, *scored])))


def hub_results(results: list[dict[str, Any]]) -> list[EvalResult]:
    """Return the `model-index` of the card: scores of this run on benchmarks."""
    return [
        EvalResult(
            task_type=TASK,
            task_name="image difference captioning",
            dataset_type=result["signature"].get("hub_dataset") or result["signature"]["benchmark"],
            dataset_name=result["signature"]["benchmark"],
            dataset_config=json.dumps(options) if (options := result["signature"].get("benchmark_options")) else None,
            dataset_split=result["signature"]["split"],
            metric_type=score.split("-")[0].lower(),  # the Hub's names: bleu, meteor, rouge, cider
            metric_name=score,
            metric_value=value,
        )
        for result in _scored_on_benchmarks(results)
        for score, value in result["scores"].items()
    ]


def write_eval_results(folder: Path, results: list[dict[str, Any]]) -> None:
    """Write .eval_results/BENCHMARK.yaml, which the Hub shows next to the model and on the benchmark's page.

    Args:
        results: see `own_results`.
    """
    entries: dict[str, list[EvalResultEntry]] = {}
    for result in _scored_on_benchmarks(results):
        signature, control = result["signature"], result["controls"]["constant_caption"]["scores"]
        for score, value in result["scores"].items():
            interval = result.get("intervals", {}).get(score)
            notes = [f"protocol {signature['protocol']}", f"{signature['pairs']} pairs of split {signature['split']}"]
            notes += [f"95 % interval {interval[0]:.4f} to {interval[1]:.4f}"] if interval else []
            notes += [f"one constant sentence: {control[score]:.4f}"] if score in control else []
            entry = EvalResultEntry(
                dataset_id=signature.get("hub_dataset") or signature["benchmark"],
                task_id=f"{result['title']}-{score}",
                value=value,
                notes=", ".join(notes),
            )
            entries.setdefault(signature["benchmark"], []).append(entry)
    for benchmark, rows in entries.items():
        file = folder / ".eval_results" / f"{benchmark}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump(eval_result_entries_to_yaml(rows), sort_keys=False), encoding="utf-8")


def _scored_on_benchmarks(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [result for result in results if result["own"] and "benchmark" in result["signature"]]
