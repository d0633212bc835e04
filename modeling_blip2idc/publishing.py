"""The model card of a run folder, filled from the files in that folder and nothing else."""

import json
import os
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData


def read_run(run: Path) -> dict[str, Any]:
    """What `train.py` and `evaluate.py` left in a run folder: config, first and last line of the log, results."""
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    results = []
    for file in sorted(run.glob("eval/*/metrics.json")):
        results.append({"title": file.parent.name, **json.loads(file.read_text(encoding="utf-8"))})
    return {
        "name": run.resolve().name,
        "config": yaml.safe_load((run / "train_config.yaml").read_text(encoding="utf-8")),
        "start": json.loads(lines[0]),
        "end": json.loads(lines[-1]),
        "results": results,
    }


def write_card(run: Path, template: Path) -> Path:
    """README.md of the run folder, from the template."""
    facts = read_run(run)
    data = ModelCardData(
        base_model=facts["config"]["model"],
        library_name="peft",
        pipeline_tag="image-text-to-text",
        tags=["image-difference-captioning", "blip-2", "lora"],
        language="en",
    )
    card = ModelCard.from_template(data, template_path=str(template), **facts)
    unfinished = run / "README.md.tmp"
    unfinished.write_text(str(card), encoding="utf-8")
    os.replace(unfinished, run / "README.md")
    return run / "README.md"
