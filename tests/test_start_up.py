"""What a command imports before it has work to do: help and wrong arguments are answered without heavy libraries."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from captioner_idc.server_client import API_KEY_ENV

HEAVY = {
    "torch",
    "transformers",
    "datasets",
    "pandas",
    "scipy",
    "sklearn",
    "accelerate",
    "peft",
    "diffusers",
    "gradio",
}
LIGHT = {
    "blip2idc --help": ["-m", "captioner_idc", "--help"],
    "exporting --help": ["-m", "captioner_idc.exporting", "--help"],
    "metric --help": ["-m", "metric_idc", "--help"],
    "dataset --help": ["-m", "dataset_syned", "--help"],
    "report --help": ["-m", "run_idc.report", "--help"],
    "publishing --help": ["-m", "run_idc.publishing", "--help"],
}
WRONG = {
    "missing image": (["docs/before.jpg", "docs/no.jpg"], "'docs/no.jpg' does not exist"),
    "missing list": (["--pairs", "no.csv"], "no.csv does not exist"),
    "contradiction": (["docs/before.jpg", "docs/after.jpg", "--processor", "x"], "--processor goes with --server"),
    "impossible number": (["docs/before.jpg", "docs/after.jpg", "--batch_size", "0"], "--batch_size must be at least"),
}


def run(root: Path, *arguments: str) -> tuple[subprocess.CompletedProcess, set[str]]:
    """Return the finished program, and the top-level names of all modules that it has imported."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    imported = re.findall(r"^import time: .*\| +([\w.]+)$", done.stderr, re.MULTILINE)
    assert "argparse" in imported, done.stderr
    return done, {name.split(".")[0] for name in imported}


@pytest.mark.parametrize("command", LIGHT)
def test_help_imports_no_heavy_library(root: Path, command: str) -> None:
    done, imported = run(root, *LIGHT[command])
    assert done.returncode == 0 and done.stdout.startswith("usage: "), done.stderr
    assert not imported & HEAVY


def test_help_of_evaluate_imports_no_model(root: Path) -> None:
    """The data library is needed for the names and the defaults of benchmarks."""
    done, imported = run(root, "evaluate.py", "--help")
    assert done.returncode == 0
    assert not imported & {"torch", "accelerate", "peft", "captioner_idc", "scipy", "sklearn"}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_argument_is_reported_without_a_heavy_library(root: Path, mistake: str) -> None:
    arguments, message = WRONG[mistake]
    done, imported = run(root, "-m", "captioner_idc", *arguments)
    assert done.returncode == 2 and message in done.stderr
    assert not imported & HEAVY


def test_scoring_imports_no_heavy_library(root: Path, tmp_path: Path) -> None:
    row = '{"pair_id": "7", "prediction": "the car is gone", "references": ["a car has left"]}\n'
    (tmp_path / "predictions.jsonl").write_text(row)
    command = ("score", str(tmp_path / "predictions.jsonl"), "--output_dir", str(tmp_path), "--metrics", "BLEU")
    done, imported = run(root, "-m", "metric_idc", *command)
    assert done.returncode == 0, done.stderr
    assert not imported & HEAVY


def test_the_help_names_the_variable_of_the_key(root: Path) -> None:
    done, _ = run(root, "-m", "captioner_idc", "--help")
    assert f"default: {API_KEY_ENV}" in " ".join(done.stdout.split())
