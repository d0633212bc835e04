"""The model card of a run folder and its scores as the Hub reads them, from the files in that folder alone."""

import json
import os
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml

TEMPLATE = Path(__file__).resolve().parents[1] / "model_card.md"
HUB_DATASETS = "https://huggingface.co/datasets/"
# Of the two tasks that fit: the one whose Auto class loads the model, and which still has a pipeline.
TASK = "image-text-to-text"


def read_run(run: Path) -> dict[str, Any]:
    """What `train.py` and `evaluate.py` left in a run folder; of the log its first line and its last epoch's."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines() if line.strip()]
    start = lines[0]
    return {
        "name": run.resolve().name,
        "config": yaml.safe_load((run / "train_config.yaml").read_text(encoding="utf-8")),
        "start": start,
        "end": next((line for line in reversed(lines) if "epoch" in line), lines[-1]),
        "environment": start.get("environment", {}),
        "data": start.get("data") or {},
        "results": _read_results(run),
        "processor": _read_json(run / "processor_config.json"),
        "curves": (run / "curves.png").is_file(),
    }


def _read_results(run: Path) -> list[dict[str, Any]]:
    """Each metrics.json with its folder's name; `own` are scores of this run, others stand there for comparison."""
    results = []
    for file in sorted(run.glob("eval/*/metrics.json")):
        result = {"title": file.parent.name, **json.loads(file.read_text(encoding="utf-8"))}
        signature = result["signature"]
        results.append({**result, "own": "benchmark" not in signature or bool(signature.get("adapter"))})
    return results


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_card(run: Path, template: Path = TEMPLATE, name: str | None = None, merged: bool = False) -> Path:
    """README.md of the run folder, from the template.

    Args:
        name: what others load it by; the folder's name if None.
        merged: the folder holds the whole model, not an adapter.
    """
    facts = {**read_run(run), "merged": merged}
    facts["name"] = name or facts["name"]
    card = ModelCard.from_template(_header(facts), template_path=str(template), **facts)
    unfinished = run / "README.md.tmp"
    unfinished.write_text(str(card), encoding="utf-8")
    os.replace(unfinished, run / "README.md")
    return run / "README.md"


def _header(facts: dict[str, Any]) -> ModelCardData:
    base, results = facts["config"]["model"], hub_results(facts["results"])
    metrics = dict.fromkeys(result.metric_type for result in results)
    return ModelCardData(
        base_model=base if "/" in base else None,  # a folder's bare name is nothing on the Hub
        library_name="transformers" if facts["merged"] else "peft",
        pipeline_tag=TASK,
        tags=["image-difference-captioning", "blip-2", *([] if facts["merged"] else ["lora"])],
        language="en",
        datasets=_hub_datasets(facts) or None,
        metrics=list(metrics) or None,
        model_name=facts["name"] if results else None,
        eval_results=results or None,
    )


def _hub_datasets(facts: dict[str, Any]) -> list[str]:
    """Hub ids of the data that it was trained and scored on."""
    homepage = facts["data"].get("homepage") or ""
    trained = [homepage.removeprefix(HUB_DATASETS)] if homepage.startswith(HUB_DATASETS) else []
    scored = [result["signature"].get("hub_dataset") for result in facts["results"] if result["own"]]
    return list(dict.fromkeys([*trained, *filter(None, scored)]))


def hub_results(results: list[dict[str, Any]]) -> list[EvalResult]:
    """The `model-index` of the card: scores of this run on benchmarks."""
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


def write_eval_results(folder: Path) -> None:
    """.eval_results/BENCHMARK.yaml, which the Hub shows beside the model and on the benchmark's page."""
    entries: dict[str, list[EvalResultEntry]] = {}
    for result in _scored_on_benchmarks(_read_results(folder)):
        signature, control = result["signature"], result["controls"]["constant_caption"]["scores"]
        for score, value in result["scores"].items():
            interval = result.get("intervals", {}).get(score)
            told = [f"protocol {signature['protocol']}", f"{signature['pairs']} pairs of split {signature['split']}"]
            told += [f"95 % interval {interval[0]:.4f} to {interval[1]:.4f}"] if interval else []
            told += [f"one constant sentence: {control[score]:.4f}"] if score in control else []
            entry = EvalResultEntry(
                dataset_id=signature.get("hub_dataset") or signature["benchmark"],
                task_id=f"{result['title']}-{score}",
                value=value,
                notes=", ".join(told),
            )
            entries.setdefault(signature["benchmark"], []).append(entry)
    for benchmark, rows in entries.items():
        file = folder / ".eval_results" / f"{benchmark}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump(eval_result_entries_to_yaml(rows), sort_keys=False), encoding="utf-8")


def _scored_on_benchmarks(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [result for result in results if result["own"] and "benchmark" in result["signature"]]
