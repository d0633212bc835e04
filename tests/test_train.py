"""train.py through its own command: what it writes, what it learns from, what it refuses."""

import json
import math
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
import torch
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
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)


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
        pairs.epoch = epoch
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


def test_parts_of_the_validation_split_make_up_the_whole(tiny_captioner: Path) -> None:
    rows = {split: load_benchmark("toy", "validation", **OPTIONS) for split in ("train", "validation")}
    _, processor = load(tiny_captioner, device="cpu")
    indices = []
    for part in range(3):
        loader = train.build_loaders(train.TrainConfig(), rows, processor, part, 3)["validation"]
        indices += list(loader.dataset.indices)
    assert sorted(indices) == list(range(OPTIONS["validation"]))


def test_batches_hold_the_images_in_order(tiny_captioner: Path) -> None:
    _, processor = load(tiny_captioner, device="cpu")
    row = next(row for row in load_benchmark("toy", "train", **OPTIONS) if row["kind"] == "add")
    example = {"before": row["before"], "after": row["after"], "caption": "x"}
    batch = train.Collate(processor)([example])
    expected = processor(before=row["before"], after=row["after"])["pixel_values"]
    assert torch.equal(batch["pixel_values"], expected)


def loop_with_scores(
    scores: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path, best_by: str, patience: int
) -> tuple[list[int], int]:
    """Runs the loop with given validation scores: (epochs after which the adapter was saved, epochs run)."""
    given, saved = iter(scores), []
    name = "validation_loss" if best_by == "loss" else "validation_CIDEr"
    epochs = []

    def validations(*_: Any) -> Any:
        epochs.append(len(epochs) + 1)
        yield name, next(given)

    monkeypatch.setattr(train, "validations", validations)
    monkeypatch.setattr(train, "save_adapter", lambda *_: saved.append(epochs[-1]))
    monkeypatch.setattr(train, "run_epoch", lambda *_: 1)
    config = train.TrainConfig(
        model=str(model),
        benchmark="toy",
        output_dir=str(tmp_path),
        epochs=len(scores),
        best_by=best_by,
        patience=patience,
        benchmark_options=train.Options(OPTIONS),
        mixed_precision="no",
    )
    train.train(config, train.Accelerator(cpu=True))
    return saved, len(epochs)


@pytest.mark.parametrize(
    ("best_by", "scores", "saved", "epochs"),
    [
        ("loss", [3.0, 1.0, 2.0, 0.5, 0.7, 0.6, 0.1], [1, 2, 4], 6),
        ("CIDEr", [3.0, 1.0, 4.0, 4.0, 2.0], [1, 3], 5),
    ],
)
def test_the_best_adapter_is_kept_and_patience_ends_the_run(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_captioner: Path,
    best_by: str,
    scores: list[float],
    saved: list[int],
    epochs: int,
) -> None:
    assert loop_with_scores(scores, monkeypatch, tmp_path, tiny_captioner, best_by, 2) == (saved, epochs)


def test_a_score_that_is_no_number_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_captioner: Path
) -> None:
    with pytest.raises(ValueError, match="loss is nan at epoch 2: lower learning_rate"):
        loop_with_scores([1.0, float("nan")], monkeypatch, tmp_path, tiny_captioner, "loss", 5)


OTHER = {**SMOKE, "layout": "horizontal", "canvas": [64, 128], "gradient_accumulation_steps": 2, "batch_size": 4}
OTHER |= {"lr_schedule": "cosine", "warmup_steps": 2, "log_every": 1, "epochs": 2, "validation_captions": 0}


@pytest.fixture(scope="module")
def other_run(tiny_captioner: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything set otherwise."""
    folder = tmp_path_factory.mktemp("other")
    config = {**OTHER, "model": str(tiny_captioner), "output_dir": str(folder / "run"), "revision": "main"}
    assert train.main(["--config", write_config(folder / "config.yaml", **config)]) == 0
    return folder / "run"


def test_layout_canvas_and_revision_are_saved_beside_the_adapter(other_run: Path) -> None:
    processor = json.loads((other_run / "processor_config.json").read_text())
    assert (processor["layout"], processor["canvas"]) == ("horizontal", [64, 128])
    assert json.loads((other_run / "adapter_config.json").read_text())["revision"] == "main"


def test_steps_and_learning_rate_follow_the_config(other_run: Path) -> None:
    """48 pairs in batches of 4, two to a step: 6 steps an epoch; a warm-up of 2, then half a cosine to zero."""
    rates = [row["learning_rate"] for row in log_of(other_run) if "learning_rate" in row]
    assert len(rates) == 12 and log_of(other_run)[-1]["step"] == 12
    expected = [0.5, 1.0] + [0.5 * (1 + math.cos(math.pi * n / 10)) for n in range(1, 11)]
    assert rates == pytest.approx([OTHER["learning_rate"] * share for share in expected], abs=1e-9)


TWO_PROCESSES = """
import sys, train
seen = []
validations = train.validations
def spy(accelerator, config, parts, rows, processor):
    epoch = len(seen)
    pairs, held = parts["pairs"], parts["validation"].dataset
    seen.append(([pairs[i]["caption"] for i in range(8)], [held[i]["caption"] for i in range(len(held))]))
    rates = parts["scheduler"].get_last_lr()
    yield from validations(accelerator, config, parts, rows, processor)
    if epoch == 2 and accelerator.is_main_process:
        print("captions move:", seen[0][0] != seen[1][0] != seen[2][0], "validation moves:", seen[0][1] != seen[2][1])
        print("final rate:", rates[0], "processes:", accelerator.num_processes, flush=True)
train.validations = spy
sys.exit(train.main(sys.argv[1:]))
"""


def test_two_processes_draw_new_captions_each_epoch_and_end_the_schedule(
    root: Path, tiny_captioner: Path, tmp_path: Path
) -> None:
    config = {**SMOKE, "epochs": 3, "lr_schedule": "cosine", "model": str(tiny_captioner)}
    config |= {"benchmark_options": {**OPTIONS, "train": 40, "validation": 7}, "output_dir": str(tmp_path / "run")}
    (tmp_path / "spy.py").write_text(TWO_PROCESSES)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(tmp_path / "spy.py"), "--config", write_config(tmp_path / "config.yaml", **config)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "captions move: True validation moves: False" in done.stdout
    rate = float(re.search(r"final rate: (\S+) processes: 2", done.stdout)[1])
    assert rate == pytest.approx(0, abs=1e-9)
    assert log_of(tmp_path / "run")[-1]["step"] == 9  # 40 pairs, 2 x 8 at a time: 3 steps an epoch


def test_a_folder_with_a_run_is_not_written_over(
    run: Path, tiny_captioner: Path, capsys: pytest.CaptureFixture
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    arguments = ["--model", str(tiny_captioner), "--benchmark", "toy", "--output_dir", str(run)]
    assert train.main(arguments) == 2
    assert "already holds a run: name another output_dir" in capsys.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before


def test_spread_takes_pairs_from_the_whole_split() -> None:
    rows = datasets.Dataset.from_dict({"pair_id": list(range(10))})
    assert train.spread(rows, 4)["pair_id"][:] == [0, 2, 5, 7] and train.spread(rows, 50) is rows


@pytest.mark.parametrize(
    ("entries", "arguments", "message"),
    [
        ({"lora_rnk": 8}, [], "unknown key 'lora_rnk'; known keys: .*lora_rank"),
        ({}, ["--lora_rank", "0"], "lora_rank=0: use at least 1"),
        ({"learning_rate": -1}, [], "learning_rate=-1.0: use a number above 0"),
        ({"learning_rate": float("nan")}, [], "learning_rate=nan: use a number above 0"),
        ({"max_grad_norm": -1.0}, [], "max_grad_norm=-1.0: use a number above 0"),
        ({"lora_alpha": 0}, [], "alpha=0: use at least 1"),
        ({"mixed_precision": False}, [], "YAML reads mixed_precision as False; put the text in quotes"),
        ({"canvas": [100, 100]}, [], "Canvas 100x100 is no multiple of the patch size 8"),
        ({"canvas": [97, 96]}, [], "height of canvas .* cannot be halved"),
        ({"model": "./no/such/folder"}, [], "the folder './no/such/folder' does not exist"),
        ({"benchmark_options": {"train": "64"}}, [], "train='64', use a whole number"),
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
    assert lines[-1].startswith("error: ") and not (tmp_path / "run").exists()
    assert re.search(message, lines[-1])


def test_unreadable_config_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert train.main(["--config", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml' cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("argument", ["--lora_rank=eight", "--best_by=BLEU", "--no_such_option=1"])
def test_options_have_real_types(argument: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(["--model", "m", "--benchmark", "toy", "--output_dir", "o", argument])
    assert stopped.value.code == 2
