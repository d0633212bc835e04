"""The installed wheel alone, without a clone: every documented command of the packages works."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_models import save_tiny

from captioner_idc.adapters import add_lora, save_adapter
from captioner_idc.families import card_facts
from captioner_idc.loading import load

# Import this project's packages from the wheel's folder only, however the repository is installed here.
START = """
import importlib.abc, runpy, sys
wheel, module, *arguments = sys.argv[1:]
class OnlyTheWheel(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if path is None and name.endswith(("_idc", "_syned", "_blip2idc")):
            import importlib.machinery
            return importlib.machinery.PathFinder.find_spec(name, [wheel])
sys.meta_path.insert(0, OnlyTheWheel())
sys.argv = [module, *arguments]
runpy.run_module(module, run_name="__main__")
"""


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the wheel was installed into."""
    pytest.importorskip("setuptools", minversion="77", reason="building a wheel without network needs setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    names = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True).stdout.splitlines()
    for name in names:
        if (root / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((root / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-index"]
    for command in (
        [*pip, "wheel", *options, "--wheel-dir", str(folder), str(source)],
        [*pip, "install", "--no-deps", "--no-index", "--target", str(folder / "installed")],
    ):
        command += [str(path) for path in folder.glob("*.whl")] if "install" in command else []
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder / "installed"


def run(wheel: Path, folder: Path, module: str, *arguments: Any, code: int = 0) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, "-I", "-c", START, str(wheel), module, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=folder, env={**environment, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    return done.stdout


def test_a_caption_by_the_captioner_that_ships(wheel: Path, root: Path, tmp_path: Path) -> None:
    images = [root / "docs" / name for name in ("before.jpg", "after.jpg")]
    assert run(wheel, tmp_path, "captioner_idc", *images).strip()


def test_data_commands(wheel: Path, tmp_path: Path) -> None:
    assert "spot_the_diff" in run(wheel, tmp_path, "dataset_syned", "list")
    assert "--editor" in run(wheel, tmp_path, "dataset_syned", "synthesize", "--help")
    options = ["--editor", "drawing", "--benchmark", "toy", "--pairs", "8", "--output_dir", "made"]
    options += ["--benchmark_options", json.dumps({"wording": "instruction", "train": 8})]
    run(wheel, tmp_path, "dataset_syned", "synthesize", *options)
    assert "ready for load_dataset" in run(
        wheel, tmp_path, "dataset_syned", "prepare", "folder", "--data_dir", "made/dataset"
    )
    run(wheel, tmp_path, "dataset_syned", "export", "folder", "exported", "--data_dir", "made/dataset")
    assert list((tmp_path / "exported" / "data" / "default").glob("*.parquet"))


def test_score_and_compare(wheel: Path, tmp_path: Path) -> None:
    rows = [{"pair_id": str(n), "prediction": "the car left", "references": [f"car {n} left"]} for n in range(4)]
    (tmp_path / "given.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "CIDEr" in run(wheel, tmp_path, "metric_idc", "score", "given.jsonl", "--output_dir", "scores")
    assert "| scores |" in run(wheel, tmp_path, "metric_idc", "compare", "scores")
    run(wheel, tmp_path, "run_idc.report", "scores")
    assert (tmp_path / "scores" / "report.html").is_file()


def test_publishing_lists_a_run_with_its_card_and_its_adapter_can_be_merged(wheel: Path, tmp_path: Path) -> None:
    model, processor = load(save_tiny(tmp_path / "base"), device="cpu")
    run_folder = tmp_path / "run"
    save_adapter(add_lora(model, 2, 4, 0.0, 0), processor, run_folder, base=str(tmp_path / "base"), revision=None)
    config = {"model": "base", "benchmark": "toy", "output_dir": "run", "processor": processor.settings}
    config |= {"lora_rank": 2, "lora_alpha": 4, "lora_dropout": 0.0, "learning_rate": 0.1, "batch_size": 1}
    config |= {"lr_scheduler_type": "constant", "gradient_accumulation_steps": 1}
    (run_folder / "train_config.yaml").write_text(yaml.safe_dump(config))
    (run_folder / "captioner.json").write_text(json.dumps(card_facts(model)))
    (run_folder / "log.jsonl").write_text(json.dumps({"step": 0, "environment": {"device": "cpu"}}) + "\n")
    assert "README.md" in run(wheel, tmp_path, "run_idc.publishing", "run", "me/run", "--dry_run")
    run(wheel, tmp_path, "captioner_idc.exporting", "--adapter", "run", "--output", "merged")
    assert (tmp_path / "merged" / "model.safetensors").is_file()
