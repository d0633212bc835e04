"""The file names of a run folder. No other file of train.py, evaluate.py and run_idc spells them.

RUN/adapter_model.safetensors, adapter_config.json, processor_config.json ...  the best adapter and its processor
RUN/train_config.yaml, log.jsonl, README.md, curves.png, validation_pairs.png
RUN/checkpoints/step-00000120/
RUN/eval/NAME/predictions.jsonl, pairs.jsonl, metrics.json, report.html, chat_answers.jsonl
"""

from pathlib import Path

# of a run
ADAPTER_WEIGHTS, ADAPTER_CONFIG, PROCESSOR = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "processor_config.json",
)
TRAIN_CONFIG, LOG, CARD, CAPTIONER = "train_config.yaml", "log.jsonl", "README.md", "captioner.json"
CURVES, VALIDATION_PAIRS = "curves.png", "validation_pairs.png"
CALIBRATION = "change_probability.json"  # captioner_idc, which does not import this file, has this name too (tested)
CHECKPOINTS, TRACKERS, EVALUATIONS = "checkpoints", "tensorboard", "eval"

# of a checkpoint
TRAINED_WEIGHTS, OPTIMIZER, PROGRESS = "adapter.safetensors", "optimizer.safetensors", "progress.json"

# of an evaluation; metric_idc, which imports no other package of ours, uses the same three names first (tested)
PREDICTIONS, PAIRS, METRICS, REPORT = "predictions.jsonl", "pairs.jsonl", "metrics.json", "report.html"
CHAT_ANSWERS = "chat_answers.jsonl"


def control_predictions(control: str) -> str:
    """Return the file name of the predictions of a control, e.g. "swapped"."""
    return f"predictions_{control}.jsonl"


def run_of(evaluation: Path) -> Path | None:
    """Return the run folder that an evaluation folder, RUN/eval/NAME, belongs to; None if there is none."""
    folder = evaluation.resolve()
    run = folder.parent.parent
    return run if folder.parent.name == EVALUATIONS and (run / TRAIN_CONFIG).is_file() else None


def evaluations(run: Path) -> list[Path]:
    """Return the metrics files of a run, RUN/eval/NAME/metrics.json, sorted by name."""
    return sorted(run.glob(f"{EVALUATIONS}/*/{METRICS}"))
