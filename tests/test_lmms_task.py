"""`python -m metric_idc lmms_task`: lmms-eval gets all pairs, images and references, and the scores of score_rows.

Without lmms-eval a reader of the same form stands in: YAML whose `!function FILE.NAME` is a function of a file there.
"""

import importlib.util
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml

from dataset_syned.exporting import PROMPT, export
from dataset_syned.preparing import benchmark_builder, prepare
from metric_idc import lmms_task, score_rows
from metric_idc.__main__ import main
from metric_idc.lmms_task import scored_rows, write_task

# Of lmms_eval.api.task.TaskConfig in 0.7.3: other keys are an error there.
KEYS = {
    *("task", "dataset_path", "dataset_name", "test_split", "output_type", "doc_to_visual", "doc_to_text"),
    *("doc_to_target", "process_results", "generation_kwargs", "metric_list", "metadata"),
}
QUICK = ["BLEU", "CIDEr", "DifferenceUnits"]  # without Java
needs_lmms_eval = pytest.mark.skipif(
    importlib.util.find_spec("lmms_eval") is None, reason="lmms-eval is not installed: pip install lmms-eval"
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "toy"
    builder = benchmark_builder("toy", train=2, validation=2, test=6)
    export(builder, prepare(builder), folder, "parquet", "500MB")
    return folder


def read_task(file: Path) -> dict[str, Any]:
    """Return the content of a task's YAML, with the functions that it names, as lmms-eval reads it."""

    class Loader(yaml.FullLoader):
        pass

    def function(loader: yaml.Loader, node: yaml.Node) -> Callable:
        module_name, name = loader.construct_scalar(node).split(".")
        spec = importlib.util.spec_from_file_location(module_name, file.with_name(f"{module_name}.py"))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return getattr(module, name)

    Loader.add_constructor("!function", function)
    return yaml.load(file.read_text(encoding="utf-8"), Loader)


def answers(docs: Any) -> list[str]:
    """Return the first reference of every other pair, and of the others a constant sentence."""
    return [doc["captions"][0] if place % 2 else "the big dog is gone" for place, doc in enumerate(docs)]


def expected_scores(docs: Any, metrics: list[str]) -> dict[str, float]:
    rows = [
        {
            **{"pair_id": doc["pair_id"], "prediction": text, "references": doc["captions"]},
            "change_type": doc["change_type"],
        }
        for doc, text in zip(docs, answers(docs), strict=True)
    ]
    return score_rows(rows, metrics, resamples=2)["scores"]


def test_a_task_has_all_pairs_images_and_references_and_our_scores(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tasks" / "idc_toy"
    assert main(["lmms_task", "toy", "--data", str(exported), "--output_dir", str(folder), "--metrics", *QUICK]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["idc_toy.yaml", "utils.py"]
    task = read_task(folder / "idc_toy.yaml")
    assert task["task"] == "idc_toy" and task.keys() <= KEYS
    docs = datasets.load_dataset(task["dataset_path"], cache_dir=tmp_path / "cache")[task["test_split"]]
    assert len(docs) == 6 and task["doc_to_text"] == PROMPT
    before, after = task["doc_to_visual"](docs[0])
    assert before.mode == after.mode == "RGB" and before.tobytes() == docs[0]["before"].convert("RGB").tobytes()
    assert after.tobytes() == docs[0]["after"].convert("RGB").tobytes() != before.tobytes()
    assert len(docs[0][task["doc_to_target"]]) == 5

    rows = [task["process_results"](doc, [text]) for doc, text in zip(docs, answers(docs), strict=True)]
    found = {
        metric["metric"]: metric["aggregation"]([row[metric["metric"]] for row in rows])
        for metric in task["metric_list"]
    }
    assert found == pytest.approx(expected_scores(docs, QUICK), nan_ok=True)
    assert 0 < found["CIDEr"] and 0 < found["Unit-F1"] < 1
    lower = [metric["metric"] for metric in task["metric_list"] if not metric["higher_is_better"]]
    assert lower == ["Unit-HR"]


def test_scores_that_apply_to_no_pair_are_no_error(exported: Path, tmp_path: Path) -> None:
    task = read_task(write_task("toy", tmp_path / "idc_toy", str(exported), metrics=QUICK) / "idc_toy.yaml")
    doc = {"pair_id": "1", "captions": ["a car left"], "change_type": "remove", "provenance": ""}
    row = task["process_results"](doc, ["the car is gone"])
    found = {each["metric"]: each["aggregation"]([row[each["metric"]]]) for each in task["metric_list"]}
    assert math.isnan(found["Unit-TNR"]) and math.isnan(found["Unit-HR"]) and found["Unit-F1"] == 1


def test_the_leftover_of_a_killed_process_is_written_again(exported: Path, tmp_path: Path) -> None:
    folder = write_task("toy", tmp_path / "idc_toy", str(exported), metrics=QUICK)
    (folder / "idc_toy.yaml").unlink()
    assert read_task(write_task("toy", folder, str(exported), metrics=QUICK) / "idc_toy.yaml")["task"] == "idc_toy"
    with pytest.raises(FileExistsError, match="exists: remove it"):
        write_task("toy", folder, str(exported), metrics=QUICK)


@needs_lmms_eval
@pytest.mark.parametrize("form", ["simple", "chat"])
def test_lmms_eval_reads_a_task(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    from lmms_eval.tasks import TaskManager, get_task_dict

    monkeypatch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path / "cache"))
    write_task("toy", tmp_path / "tasks" / "idc_toy", str(exported), metrics=QUICK)
    manager = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
    task = get_task_dict(["idc_toy"], manager, form)["idc_toy"]
    task.build_all_requests()
    docs = task.eval_docs_no_media
    assert len(task.instances) == len(docs) == 6
    assert len(task.doc_to_visual(task.test_docs()[0])) == 2
    rows = [task.process_results(doc, [f" {text}\n"]) for doc, text in zip(docs, answers(docs), strict=True)]
    found = {name: aggregate([row[name] for row in rows]) for name, aggregate in task.aggregation().items()}
    assert found == pytest.approx(expected_scores(docs, QUICK), nan_ok=True)


def test_scores_are_computed_once_for_all_names(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(lmms_task, "corpus_scores", lambda rows, _: calls.append(rows) or {"A": 1.0, "B": 2.0})
    lmms_task._scores.cache_clear()
    rows = [{"pair_id": "1", "prediction": "x"}]
    assert [lmms_task.aggregation(name, ["BLEU"])(rows) for name in "AB"] == [1.0, 2.0] and calls == [rows]
    lmms_task._scores.cache_clear()


def test_true_units_of_a_pair_are_scored() -> None:
    units = [{"thing": "dog", "action": "add"}]
    doc = {"pair_id": "7", "captions": ["x"], "change_type": "add", "provenance": json.dumps({"units": units})}
    rows = scored_rows(doc, ["a dog appeared"], ["CIDEr"])
    assert rows["CIDEr"]["units"] == units
    assert "units" not in scored_rows({**doc, "provenance": ""}, ["a dog appeared"], ["CIDEr"])["CIDEr"]


def test_a_prepared_benchmark_is_named_and_a_config_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_task("clevr_change", config="small", split="validation", metrics=["BLEU"])
    assert folder == Path("lmms_tasks/idc_clevr_change")
    task = read_task(folder / "idc_clevr_change.yaml")
    assert (task["dataset_path"], task["dataset_name"], task["test_split"]) == ("clevr_change", "small", "validation")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["a/b"], "name 'a/b': use letters"),
        (["toy", "--data", "./missing"], r"'./missing' is missing: write it with `python -m dataset_syned export toy"),
        (["toy", "--data", "empty"], "'empty' contains no Parquet file of the split 'test'"),
        (["toy", "--output_dir", "full"], "'full' exists: remove it"),
        (["toy", "--metrics", "Bleu"], r"unknown metrics \['Bleu'\]"),
    ],
)
def test_impossible_tasks_are_one_line_and_write_nothing(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert main(["lmms_task", *options]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full"]
