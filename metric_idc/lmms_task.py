"""Task folders for lmms-eval: a benchmark with all its references, scored by this package.

python -m metric_idc lmms_task spot_the_diff --data ./spot_the_diff
lmms-eval --include_path lmms_tasks --tasks idc_spot_the_diff --model qwen2_5_vl ...

The rows are those that `python -m dataset_syned` prepares, exports and pushes. The form of a task is that of lmms-eval
0.7.3. The written functions import this package, and the decoder that training uses: both must be installed there.
"""

import json
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from .difference_units import LOWER_IS_BETTER
from .results import write_text
from .scoring import METRICS, check_scoring, corpus_scores

PROMPT = "What changed between the two images?"  # the question that exports for trainers ask, too
MAX_NEW_TOKENS = 128  # the longest references, those of OmniDiff, have about 70 words
FUNCTIONS = '''"""Functions of {task}.yaml, which lmms-eval loads; written by `python -m metric_idc lmms_task`."""

from metric_idc.lmms_task import aggregation, check_scoring, scored_rows
from modeling_blip2idc.image_fusion import load_image

METRICS = {metrics}
check_scoring(1, METRICS)  # e.g. a missing Java is an error here, before any answer


def images(doc):
    return [load_image(doc["before"]), load_image(doc["after"])]


def scores(doc, results):
    return scored_rows(doc, results, METRICS)


{aggregations}
'''
CONFIG = """# lmms-eval --include_path FOLDER_ABOVE_THIS_ONE --tasks {task} --model ...
task: {task}
dataset_path: {data}
{dataset_name}test_split: {split}
output_type: generate_until
doc_to_visual: !function utils.images
doc_to_text: {prompt}
doc_to_target: captions
process_results: !function utils.scores
generation_kwargs:
  max_new_tokens: {max_new_tokens}
  do_sample: false
  temperature: 0
  num_beams: 1
metric_list:
{metric_list}
metadata:
  version: 1.0
"""
METRIC = """  - metric: {score}
    aggregation: !function utils.{function}
    higher_is_better: {higher}"""

Row = dict[str, Any]


def write_task(
    name: str,
    folder: Path | None = None,
    data: str | None = None,
    config: str | None = None,
    split: str = "test",
    metrics: list[str] | None = None,
) -> Path:
    """Write the folder of a task, `idc_NAME.yaml` and `utils.py`; return it.

    Args:
        name: of the benchmark; the task is called idc_NAME.
        folder: new or empty, or without the YAML file of a killed process; by default lmms_tasks/idc_NAME.
        data: folder or Hub id of the rows in Parquet; by default the name, which `load_dataset` finds once the
            benchmark is prepared on that machine.
        config: of the data, if it has several.
        metrics: some of METRICS; by default all but SPICE, whose files may be missing where the task runs.

    Raises: ValueError for a name or metric that is impossible; FileNotFoundError for a folder without the split;
        FileExistsError for a folder that is not empty.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"name {name!r}: use letters, digits and _ . - only, e.g. spot_the_diff")
    task = f"idc_{name}"
    folder = Path("lmms_tasks") / task if folder is None else folder
    written = ("utils.py", f"{task}.yaml")  # of a killed process, the first alone
    if folder.exists() and not (folder.is_dir() and {file.name for file in folder.iterdir()} <= {written[0]}):
        raise FileExistsError(f"{str(folder)!r} exists: remove it, or give another --output_dir")
    chosen = [name for name in METRICS if name != "SPICE"] if metrics is None else metrics
    check_scoring(1, chosen)
    functions = {score: score.replace("-", "_") for score in scores_of(chosen)}
    listed = [
        METRIC.format(score=score, function=function, higher=str(score not in LOWER_IS_BETTER).lower())
        for score, function in functions.items()
    ]
    text = CONFIG.format(
        task=task,
        data=json.dumps(place_of(data or name, name, split), ensure_ascii=False),
        dataset_name=f"dataset_name: {json.dumps(config)}\n" if config else "",
        split=json.dumps(split),
        prompt=json.dumps(PROMPT),
        max_new_tokens=MAX_NEW_TOKENS,
        metric_list="\n".join(listed),
    )
    aggregations = "\n".join(f'{function} = aggregation("{score}", METRICS)' for score, function in functions.items())
    code = FUNCTIONS.format(task=task, metrics=json.dumps(chosen), aggregations=aggregations)
    for name, content in zip(written, (code, text), strict=True):
        write_text(folder / name, content)
    return folder


def place_of(data: str, name: str, split: str) -> str:
    """Return what `load_dataset` reads: the whole path of a folder, or a Hub id or prepared benchmark as it is."""
    place = Path(data).expanduser()
    if place.is_dir():
        if not any(place.rglob(f"{split}*.parquet")):
            raise FileNotFoundError(
                f"{data!r} contains no Parquet file of the split {split!r}: choose another --split, or give as --data "
                f"what `python -m dataset_syned export {name} NEW_FOLDER` writes"
            )
        return str(place.resolve())
    if data.startswith((".", "/", "~")):
        raise FileNotFoundError(f"{data!r} is missing: write it with `python -m dataset_syned export {name} {data}`")
    return data


def scores_of(metrics: list[str]) -> list[str]:
    """Return the names of the scores of some METRICS."""
    return [score for metric in metrics for score in METRICS[metric].SCORES]


def scored_rows(doc: Row, results: list[str], metrics: list[str]) -> dict[str, Row]:
    """Return for each score the row that `score_rows` reads, of a pair and a model's answer."""
    row = {
        "pair_id": doc["pair_id"],
        "prediction": results[0],
        "references": list(doc["captions"]),
        "change_type": doc["change_type"],
    }
    facts = json.loads(doc["provenance"] or "{}")
    return dict.fromkeys(scores_of(metrics), row | ({"units": facts["units"]} if "units" in facts else {}))


def aggregation(score: str, metrics: list[str]) -> Callable[[list[Row]], float]:
    """Return the function that lmms-eval calls with the rows of all pairs for one score."""

    def aggregate(rows: list[Row]) -> float:
        # lmms-eval needs a number, also where the score applies to no pair, e.g. without unchanged pairs
        return _scores(json.dumps(rows), tuple(metrics)).get(score, float("nan"))

    return aggregate


@lru_cache(maxsize=1)  # lmms-eval asks for each score with the same rows
def _scores(rows: str, metrics: tuple[str, ...]) -> dict[str, float]:
    return corpus_scores(json.loads(rows), list(metrics))
