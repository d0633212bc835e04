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
    assert list(answers["lists"])[-3:] == ["METEOR", "ROUGE-L", "CIDEr"]
    assert answers["batches"] == corpus_scores(rows(REFERENCES), ["CIDEr"])
    assert answers["own"] == [], "it ran the installed package, not the copy"


def test_one_reference_may_be_a_string(answers):
    assert answers["strings"] == corpus_scores(rows([texts[:1] for texts in REFERENCES]), ["BLEU", "CIDEr"])


def test_combined_with_others_it_keeps_its_names(answers):
    assert answers["combined"] == answers["lists"]


def test_the_card_is_a_space_s(root):
    import yaml

    text = (root / "metric_idc" / "README.md").read_text(encoding="utf-8")
    card = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL).group(1))
    assert card["sdk"] == "gradio"
    assert (root / "metric_idc" / card["app_file"]).is_file()
    assert set(card["tags"]) == {"evaluate", "metric"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", card["sdk_version"])


def test_the_space_installs_what_setup_asks_for(root):
    """The same lower bounds, so that a metric tried here runs there."""
    setup = (root / "setup.py").read_text(encoding="utf-8")
    for line in (root / "metric_idc" / "requirements.txt").read_text().split():
        assert f'"{line}"' in setup, line


def test_the_page_scores_and_names_unequal_inputs(root, tmp_path):
    pytest.importorskip("gradio", reason="needs the extra demo")
    program = (
        "import app, json; page = app.build(); print(type(page).__name__);"
        "print(json.dumps(app.score('a man appeared\\nx', 'a man is now there ||| a man\\nx')));"
        "app.score('a', 'b\\nc')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=root / "metric_idc",
        capture_output=True,
        text=True,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path)},
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "Interface", done.stderr
    assert json.loads(lines[1])["METEOR"] > 0.5
    assert "1 lines of predictions and 2 of references" in done.stderr
