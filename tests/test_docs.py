"""The pages in docs/: short, and every command and snippet in them runs, on few pairs."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from captioner_idc import families
from captioner_idc.adapters import add_lora, save_adapter
from captioner_idc.loading import SHIPPED, load

PAGES = (
    *("first_caption", "data", "training", "synthesis", "evaluation", "add_a_benchmark", "add_a_model_family"),
    *("serving", "other_trainers", "early_attention", "speed", "reading_scores"),
)
FEW = """--benchmark_options '{"train": 4, "validation": 4, "test": 4}'"""
# What makes a command short; the first pattern that is found counts.
FEWER = {
    r"train\.py": f"--benchmark toy {FEW} --epochs 1 --validation_captions 2 --num_workers 0",
    r"evaluate\.py": f"--benchmark toy {FEW}",
    "synthesize": "--pairs 4",
}
NOT_RUN = {
    "serving": "tests/test_server_client.py and tests/test_exporting_captioners.py run its snippets",
    "add_a_benchmark": "tests/test_benchmarks.py uses its class and its test module verbatim",
    "early_attention": "hours of training; tests/test_early_attention.py runs the command with small settings",
}


LONG = (
    "prepare photo_edits --data_dir"  # draws thousands of pairs; tests/test_photo_edits.py draws some of such a folder
)


def blocks(root: Path, page: str, language: str) -> list[str]:
    text = (root / "docs" / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(root: Path, page: str) -> list[str]:
    lines = "\n".join(blocks(root, page, "bash")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and LONG not in line]


@pytest.fixture(scope="module")
def place(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder like a clone, with the files that the pages name."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("train.py", "evaluate.py", "configs", "docs", "captioner_idc"):
        (folder / name).symlink_to(root / name)
    for side in ("before", "after"):
        image = Image.open(root / "docs" / f"{side}.jpg")
        image.save(folder / f"{side}.png")
        (folder / "folders" / side).mkdir(parents=True)
        image.save(folder / "folders" / side / "1.png")
    (folder / "pairs.csv").write_text("before,after\nbefore.png,after.png\nafter.png,nothing.png\n")
    (folder / "judged.jsonl").write_text("\n".join(blocks(root, "reading_scores", "json")[:1] * 2))
    model, processor = load(SHIPPED, device="cpu")
    for name in ("mine", "photo_edits", "photo_edits-base"):
        save_adapter(add_lora(model, 2, 4, 0.0, 0), processor, folder / "runs" / name, str(SHIPPED), None)
        model = load(SHIPPED, device="cpu")[0]
    return folder


def run(root: Path, place: Path, words: list[str]) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    environment |= {"HF_HOME": str(place / "cache"), "HF_DATASETS_CACHE": str(place / "cache" / "datasets")}
    return subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True)


def words_of(line: str) -> list[str]:
    """Return the command of a line, with this Python, and with what makes it short."""
    python = sys.executable
    programs = {
        ".venv/bin/python": [python],
        ".venv/bin/accelerate": [python, "-m", "accelerate.commands.accelerate_cli"],
        ".venv/bin/blip2idc": [python, "-m", "captioner_idc"],
    }
    program, *arguments = shlex.split(line)
    fewer = next((options for pattern, options in FEWER.items() if re.search(pattern, line)), "")
    return [*programs[program], *arguments, *shlex.split(fewer)]


def test_every_page_is_known_and_short(root: Path) -> None:
    assert {file.stem for file in (root / "docs").glob("*.md")} == set(PAGES)
    for page in set(PAGES) - {"early_attention", "speed"}:  # whose tables are generated
        assert len((root / "docs" / f"{page}.md").read_text(encoding="utf-8").splitlines()) <= 80, page


@pytest.mark.parametrize("page", [page for page in PAGES if page not in NOT_RUN])
def test_the_commands_of_a_page_run_in_their_order(page: str, root: Path, place: Path) -> None:
    if page == "evaluation":  # what the page compares with
        scored = ["--model", str(SHIPPED), "--output_dir", "runs/photo_edits-base", "--no_input_controls"]
        done = run(root, place, [*words_of(".venv/bin/python evaluate.py"), *scored])
        assert done.returncode == 0, done.stderr
    if page == "training":
        shutil.rmtree(place / "runs" / "mine")
    for line in commands(root, page):
        done = run(root, place, words_of(line))
        bad_pair = "--pairs pairs.csv" in line  # the list has one on purpose
        assert done.returncode == int(bad_pair), f"{line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", ["first_caption", "add_a_model_family"])
def test_the_snippets_of_a_page_run_in_their_order(page: str, root: Path, place: Path) -> None:
    snippets = [text for text in blocks(root, page, "python") if not text.startswith('"')]
    done = run(root, place, [sys.executable, "-c", "\n".join(snippets)])
    assert snippets and done.returncode == 0, done.stderr
    if page == "first_caption":
        assert Image.open(place / "evidence.png").size == Image.open(place / "after.png").size
        first, second, sure, *_ = done.stdout.splitlines()
        assert first == second and "changed with probability " in sure
    else:
        assert "'pixel_values': (1, 3, 256, 128)" in done.stdout


def test_the_entry_of_a_family_is_one(root: Path) -> None:
    [entry] = [text for text in blocks(root, "add_a_model_family", "python") if text.startswith('"')]
    [(name, family)] = eval(f"{{{entry}}}", vars(families)).items()
    assert family.model_types == (name,) and "connector" in family.lora_targets["projector"]


def test_a_bad_pair_of_the_page_gets_its_reason(root: Path, place: Path) -> None:
    line = next(line for line in commands(root, "first_caption") if "--pairs pairs.csv" in line)
    run(root, place, words_of(line))
    good, bad = map(json.loads, (place / "sentences.jsonl").read_text(encoding="utf-8").splitlines())
    assert good["prediction"] and bad["prediction"] is None and "nothing.png" in bad["error"]
