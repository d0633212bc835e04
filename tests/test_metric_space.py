"""The metric for the Hugging Face library `evaluate`: by path, from a copy, alone and combined; and its Space."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from metric_idc import corpus_scores

PREDICTIONS = ["the red car is gone", "a man appeared"]
REFERENCES = [["the red car has left", "no red car anymore"], ["a man is now there"]]

PROGRAM = """
import json
import sys
import evaluate
metric = evaluate.load(sys.argv[1])
predictions, references = json.loads(sys.argv[2])
single = [texts[0] for texts in references]
by_batch = evaluate.load(sys.argv[1])
for prediction, texts in zip(predictions, references):
    by_batch.add(prediction=prediction, references=texts)
print(json.dumps({
    "lists": metric.compute(predictions=predictions, references=references),
    "batches": by_batch.compute(metrics=["CIDEr"]),
    "strings": metric.compute(predictions=predictions, references=single, metrics=["BLEU", "CIDEr"]),
    "combined": evaluate.combine([metric]).compute(predictions=predictions, references=references),
    "description": metric.description,
    "own": sorted(name for name in sys.modules if name == "metric_idc" or name.startswith("metric_idc.")),
}))
"""


@pytest.fixture(scope="module")
def answers(root: Path, tmp_path_factory) -> dict:
    """Return the library's answers in a process without this project, from a copy of the folder."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(root / "metric_idc", elsewhere / "metric_idc", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, "./metric_idc", json.dumps([PREDICTIONS, REFERENCES])],
        cwd=elsewhere,
        env={**environment, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(elsewhere / "modules")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def rows(references: list[list[str]]) -> list[dict]:
    return [
        {"pair_id": number, "prediction": prediction, "references": texts}
        for number, (prediction, texts) in enumerate(zip(PREDICTIONS, references, strict=True))
    ]


def test_the_library_gives_our_scores(answers):
    assert answers["lists"] == corpus_scores(rows(REFERENCES))
    assert list(answers["lists"])[4:] == [
        "METEOR",
        "ROUGE-L",
        "CIDEr",
        "Unit-P",
        "Unit-R",
        "Unit-F1",
        "Unit-Action-F1",
    ]
    assert answers["batches"] == corpus_scores(rows(REFERENCES), ["CIDEr"])
    assert answers["own"] == [], "it ran the installed package, not the copy"


def test_one_reference_may_be_a_string(answers):
    assert answers["strings"] == corpus_scores(rows([texts[:1] for texts in REFERENCES]), ["BLEU", "CIDEr"])


def test_a_combination_keeps_the_names_of_the_scores(answers):
    assert answers["combined"] == answers["lists"]


def test_the_card_has_the_fields_of_a_space(root):
    import yaml

    text = (root / "metric_idc" / "README.md").read_text(encoding="utf-8")
    card = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL).group(1))
    assert card["sdk"] == "gradio"
    assert (root / "metric_idc" / card["app_file"]).is_file()
    assert set(card["tags"]) == {"evaluate", "metric"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", card["sdk_version"])


def test_the_space_has_the_requirements_of_setup(root):
    """Compare the lower bounds, so that a metric tested here also runs there."""
    setup = (root / "setup.py").read_text(encoding="utf-8")
    for line in (root / "metric_idc" / "requirements.txt").read_text().split():
        assert f'"{line}"' in setup, line


PAGE = """
import app, json, sys
for predictions, references in json.load(sys.stdin):
    try:
        print(json.dumps(app.score(predictions, references)))
    except ValueError as error:
        print(json.dumps(str(error)))
"""


def run_page(root: Path, folder: Path, program: str, text: str = "") -> list[str]:
    """Return the lines that a program prints in the folder of the Space."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=root / "metric_idc",
        input=text,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_MODULES_CACHE": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_page_scores_every_line(root, tmp_path):
    """Empty answers count, also the first and the last; the end of a last line adds none."""
    answers = ["a man appeared", "", "x"]
    references = [["a man is now there", "a man"], ["the car is gone"], ["x"]]
    text = "a man is now there ||| a man\nthe car is gone\nx"
    orders = [(0, 1, 2), (1, 0, 2), (0, 2, 1)]  # the empty answer in the middle, first and last
    inputs = [
        ["\n".join(answers[n] for n in order), "\n".join(text.split("\n")[n] for n in order)] for order in orders
    ]
    inputs += [[f"{inputs[0][0]}\n", f"{inputs[0][1]}\n\n"], ["a", "b\nc"], ["a\nb\nc", "a"], ["a\nb", "\nb"]]
    *scored, fewer, more, empty = map(json.loads, run_page(root, tmp_path, PAGE, json.dumps(inputs)))
    rows = [{"pair_id": n, "prediction": answers[n], "references": references[n]} for n in range(3)]
    expected = {name: round(value, 4) for name, value in corpus_scores(rows).items()}
    assert scored == [expected] * 4
    assert fewer.startswith("1 lines of predictions and 2 of references")
    assert more.startswith("3 lines of predictions and 1 of references")
    assert empty == "line 1 of the references is empty: give each pair at least one"


def test_the_page_can_be_built_and_shows_errors(root, tmp_path):
    pytest.importorskip("gradio", reason='gradio is not installed: pip install -e ".[demo]"')
    program = """
import app, gradio
page = app.build()
print(type(page).__name__)
try:
    page.fn("a", "b\\nc")
except gradio.Error as error:
    print(error.message)
"""
    assert run_page(root, tmp_path, program) == [
        "Interface",
        "1 lines of predictions and 2 of references: both must be equal",
    ]
