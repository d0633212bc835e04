"""train.py through its own command: what it writes, what it learns from, what it refuses."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from safetensors.torch import load_file

import train
from dataset_syned import load_benchmark
from modeling_blip2idc.captioning import caption, load

OPTIONS = {"train": 48, "validation": 8, "test": 12}
SMOKE = {
    "benchmark": "toy",
    "benchmark_options": OPTIONS,
    "batch_size": 8,
    "epochs": 2,
    "learning_rate": 0.004,
    "lora_dropout": 0.0,
    "validation_captions": 8,
    "mixed_precision": "no",
    "attention": "eager",
    "log_every": 2,
}


def write_config(path: Path, **entries: Any) -> str:
    path.write_text(yaml.safe_dump(entries))
    return str(path)


def launch(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--cpu", "train.py", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def run(root: Path, tiny_captioner: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run made by the documented command."""
    folder = tmp_path_factory.mktemp("run")
    config = write_config(folder / "smoke.yaml", **SMOKE, model=str(tiny_captioner), output_dir="not this one")
    done = launch(root, "--config", config, "--output_dir", str(folder / "run"), "--lora_rank", "4")
    assert done.returncode == 0, done.stderr
    assert "48 training pairs" in done.stdout and "validation CIDEr" in done.stdout
    return folder / "run"


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_the_run_folder_holds_what_the_design_says(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "processor_config.json", "tokenizer.json"} <= names
    assert {"train_config.yaml", "log.jsonl", "README.md", "tensorboard"} <= names
    assert not [name for name in names if name.endswith((".bin", ".tmp", ".pt")) or name.startswith(".")]
    assert list(run.glob("tensorboard/**/events*"))


def test_the_command_line_wins_and_the_config_repeats_the_run(run: Path) -> None:
    saved = yaml.safe_load((run / "train_config.yaml").read_text())
    assert saved["lora_rank"] == 4 and saved["output_dir"] == str(run) and saved["benchmark_options"] == OPTIONS
    assert train.parse_config(["--config", str(run / "train_config.yaml")]) == train.TrainConfig(**saved)


def test_the_log_holds_losses_validations_and_what_made_the_run(run: Path) -> None:
    log = log_of(run)
    assert log[0]["environment"]["torch"] == version("torch") and log[0]["training_pairs"] == 48
    losses = [row["loss"] for row in log if "loss" in row]
    validations = [row for row in log if "validation_loss" in row]
    assert len(losses) == 6 and len(validations) == 2 and log[-1]["step"] == 12
    assert losses[-1] < losses[0] and validations[1]["validation_loss"] < validations[0]["validation_loss"]
    assert all(row["validation_CIDEr"] >= 0 for row in validations)


def test_the_adapter_captions_and_its_weights_have_moved(run: Path) -> None:
    weights = load_file(run / "adapter_model.safetensors")
    assert all("lora_" in name for name in weights) and all(w.any() for n, w in weights.items() if "lora_B" in n)
    model, processor = load(run, device="cpu")
    row = load_benchmark("toy", "test", **OPTIONS)[0]
    assert caption(model, processor, [(row["before"], row["after"])])[0]


def test_the_card_is_filled_from_the_run(run: Path) -> None:
    card = (run / "README.md").read_text()
    saved, log = yaml.safe_load((run / "train_config.yaml").read_text()), log_of(run)
    assert card.startswith("---\n") and yaml.safe_load(card.split("---")[1])["base_model"] == saved["model"]
    assert f"{log[0]['trainable_parameters']:,}" in card and f"rank {saved['lora_rank']}, alpha 8" in card
    assert "{{" not in card and "{%" not in card


def test_captions_are_a_function_of_seed_epoch_and_pair() -> None:
    rows = load_benchmark("toy", "train", **OPTIONS)
    pairs = train.TrainingPairs(rows, seed=1)

    def drawn(epoch: int) -> list[str]:
        pairs.set_epoch(epoch)
        return [pairs[index]["caption"] for index in range(len(pairs))]

    first, again, second = drawn(0), drawn(0), drawn(1)
    assert first == again != second
    places = Counter(row["captions"].index(text) for row, text in zip(rows, first, strict=True))
    assert len(places) == 5, "all references are drawn, not only one"


def test_validation_loss_is_the_mean_over_tokens(tiny_captioner: Path) -> None:
    """Uneven last batch and uneven lengths: the split's loss must not depend on the batch size."""
    rows = {split: load_benchmark("toy", "validation", **OPTIONS) for split in ("train", "validation")}
    losses = []
    for size in (3, 8):
        config = train.TrainConfig(batch_size=size)
        model, processor = load(tiny_captioner, device="cpu")
        loader = train.build_loaders(config, rows, processor)["validation"]
        losses.append(train.validation_loss(train.Accelerator(cpu=True), model, loader))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_spread_takes_pairs_from_the_whole_split() -> None:
    rows = datasets.Dataset.from_dict({"pair_id": list(range(10))})
    assert train.spread(rows, 4)["pair_id"][:] == [0, 2, 5, 7] and train.spread(rows, 50) is rows


@pytest.mark.parametrize(
    ("entries", "arguments", "message"),
    [
        ({"lora_rnk": 8}, [], "unknown key 'lora_rnk'; known keys: .*lora_rank"),
        ({}, ["--lora_rank", "0"], "lora_rank=0: use at least 1"),
        ({"learning_rate": -1}, [], "learning_rate=-1.0: use a number above 0"),
        ({"model": None}, [], "model is missing: write it into the config file or pass --model"),
        ({"benchmark": "toys"}, [], "unknown benchmark 'toys'"),
        ({"benchmark_options": {"sed": 1}}, [], "has no option 'sed'"),
        ({"canvas": [224]}, [], r"canvas=\[224\]: give height and width"),
        ({"best_by": "CIDEr", "validation_captions": 0}, [], "best_by=CIDEr needs captions"),
    ],
)
def test_bad_values_are_quoted_in_one_line(
    tmp_path: Path,
    tiny_captioner: Path,
    capsys: pytest.CaptureFixture,
    entries: dict[str, Any],
    arguments: list[str],
    message: str,
) -> None:
    entries = {**SMOKE, "model": str(tiny_captioner), "output_dir": str(tmp_path / "run"), **entries}
    assert train.main(["--config", write_config(tmp_path / "config.yaml", **entries), *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    assert re.search(message, lines[-1])


def test_unreadable_config_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert train.main(["--config", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml' cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("argument", ["--lora_rank=eight", "--best_by=BLEU", "--no_such_option=1"])
def test_options_have_real_types(argument: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(["--model", "m", "--benchmark", "toy", "--output_dir", "o", argument])
    assert stopped.value.code == 2
