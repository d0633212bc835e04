"""train.py through its own command: what it writes, what it learns from, what it refuses."""

import importlib.util
import json
import math
import multiprocessing
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file
from tiny_chat_models import save_chat

import train
from captioner_idc.captioning import caption
from captioner_idc.change_probability import Calibration, write_calibration
from captioner_idc.loading import load
from dataset_syned import load_benchmark
from run_idc.checkpoints import latest_checkpoint
from run_idc.stopping import StopSignals

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
    "attn_implementation": "eager",
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


@pytest.fixture(autouse=True)
def new_accelerator_state() -> None:
    """Reset Accelerate's state, which is one per process, before each test."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def run(root: Path, tiny_captioner: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run made by the documented command."""
    folder = tmp_path_factory.mktemp("run")
    config = write_config(folder / "smoke.yaml", **SMOKE, model=str(tiny_captioner), output_dir="not this one")
    done = launch(root, "--config", config, "--output_dir", str(folder / "run"), "--lora_rank", "4")
    assert done.returncode == 0, done.stderr
    assert "48 training pairs" in done.stdout and "validation CIDEr" in done.stdout
    return folder / "run"


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_the_run_folder_contains_the_documented_files(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "processor_config.json", "tokenizer.json"} <= names
    assert {"train_config.yaml", "log.jsonl", "README.md", "tensorboard", "checkpoints"} <= names
    assert {"curves.png", "validation_pairs.png"} <= names
    assert not [name for name in names if name.endswith((".bin", ".tmp", ".pt")) or name.startswith(".")]
    assert list(run.glob("tensorboard/**/events*"))


def test_the_command_line_wins_and_the_config_repeats_the_run(run: Path) -> None:
    saved = yaml.safe_load((run / "train_config.yaml").read_text())
    assert saved["lora_rank"] == 4 and saved["output_dir"] == str(run) and saved["benchmark_options"] == OPTIONS
    assert train.parse_config(["--config", str(run / "train_config.yaml")]) == train.TrainConfig(**saved)


def test_the_log_contains_losses_validations_and_the_environment(run: Path) -> None:
    log = log_of(run)
    assert log[0]["environment"]["torch"] == version("torch") and log[0]["training_pairs"] == 48
    losses = [row["loss"] for row in log if "loss" in row]
    validations = [row for row in log if "validation_loss" in row]
    assert len(losses) == 6 and len(validations) == 2 and log[-1]["step"] == 12
    assert losses[-1] < losses[0] and validations[1]["validation_loss"] < validations[0]["validation_loss"]
    assert all(row["validation_CIDEr"] >= 0 for row in validations)
    assert all(0 < row["data_wait_share"] < 1 for row in log if "loss" in row)


def test_the_weights_of_the_adapter_are_trained_and_it_writes_captions(run: Path) -> None:
    weights = load_file(run / "adapter_model.safetensors")
    assert all("lora_" in name for name in weights) and all(w.any() for n, w in weights.items() if "lora_B" in n)
    model, processor = load(run, device="cpu")
    row = load_benchmark("toy", "test", **OPTIONS)[0]
    assert caption(model, processor, [(row["before"], row["after"])])[0]


def test_the_card_is_filled_from_the_run(run: Path) -> None:
    card = (run / "README.md").read_text()
    saved, log = yaml.safe_load((run / "train_config.yaml").read_text()), log_of(run)
    assert card.startswith("---\n") and "base_model" not in yaml.safe_load(card.split("---")[1]), "it is a folder"
    assert f"| base model | `{Path(saved['model']).name}` |" in card and saved["model"] not in card
    assert f"{log[0]['trainable_parameters']:,}" in card and f"rank {saved['lora_rank']}, alpha 8" in card
    assert "{{" not in card and "{%" not in card


def test_results_do_not_depend_on_the_number_of_loader_processes(tiny_captioner: Path, tmp_path: Path) -> None:
    results = []
    for workers in (0, 2):
        AcceleratorState._reset_state(reset_partial_state=True)
        folder = tmp_path / str(workers)
        changes = {"model": str(tiny_captioner), "output_dir": str(folder), "num_workers": workers, "trackers": []}
        assert train.main(["--config", write_config(tmp_path / "smoke.yaml", **SMOKE, **changes)]) == 0
        assert not multiprocessing.active_children(), "they end with the run"
        values = [
            [row.get(name) for name in ("loss", "validation_loss", "validation_CIDEr")] for row in log_of(folder)
        ]
        results.append((values, (folder / "adapter_model.safetensors").read_bytes()))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("cores", "processes", "workers"),
    [(1, 1, 0), (2, 1, 1), (2, 2, 0), (4, 1, 3), (16, 4, 3), (128, 1, 8), (8, 16, 0)],
)
def test_a_loader_process_for_each_core_but_one(
    cores: int, processes: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    free = [1e10]
    monkeypatch.setattr(train.shutil, "disk_usage", lambda _: SimpleNamespace(free=free[0]))
    assert train.default_workers(processes) == workers
    free[0] = 64e6  # Docker's default
    assert train.default_workers(processes) == 0


def test_processes_of_one_machine_share_its_cores(tiny_captioner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, processor = load(tiny_captioner, device="cpu")
    seen: list[int] = []
    monkeypatch.setattr(train, "default_workers", lambda processes: seen.append(processes) or 0)
    loaders_of(train.TrainConfig(), processor, 1, 6)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")  # torch's launcher: three of the six are on another machine
    loaders_of(train.TrainConfig(), processor, 1, 6)
    assert seen == [6, 3]
    assert loaders_of(train.TrainConfig(num_workers=5), processor, 1, 6)[1].num_workers == 5 and len(seen) == 2


def loaders_of(config: train.TrainConfig, processor: Any, *share: int) -> Any:
    rows = load_benchmark("toy", "validation", **OPTIONS)
    return train.build_loaders(config, ([rows], [1.0], rows), processor, *share)


def test_validation_loss_is_the_mean_over_tokens(tiny_captioner: Path) -> None:
    """The loss must not depend on the batch size, although the last batch and the lengths are uneven."""
    losses = []
    for size in (3, 8):
        model, processor = load(tiny_captioner, device="cpu")
        _, _, loader = loaders_of(train.TrainConfig(batch_size=size), processor)
        losses.append(train.validation_loss(train.Accelerator(cpu=True), model, loader))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_parts_of_the_validation_split_make_up_the_whole(tiny_captioner: Path) -> None:
    _, processor = load(tiny_captioner, device="cpu")
    loaders = [loaders_of(train.TrainConfig(), processor, part, 3)[2] for part in range(3)]
    assert sorted(i for loader in loaders for i in loader.dataset.indices) == list(range(OPTIONS["validation"]))


def test_batches_contain_the_images_in_order_and_no_labels_of_padding_items(tiny_captioner: Path) -> None:
    _, processor = load(tiny_captioner, device="cpu")
    row = next(row for row in load_benchmark("toy", "train", **OPTIONS) if row["change_type"] == "add")
    example = {**row, "caption": "x", "weight": 1}
    batch, ids = train.Collate(processor)([example, {**example, "weight": 0}])
    expected = processor(before=row["before"], after=row["after"])["pixel_values"]
    assert torch.equal(batch["pixel_values"][:1], expected) and ids == [row["pair_id"]] * 2
    assert (batch["labels"][0] != -100).any() and (batch["labels"][1] == -100).all()


def loop_with_scores(
    scores: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path, best_by: str, patience: int
) -> tuple[list[int], int]:
    """Run the loop with given validation scores and return (epochs after which the adapter was saved, epochs run)."""
    given, saved, epochs = iter(scores), [], []
    name = "validation_loss" if best_by == "loss" else "validation_CIDEr"

    def validate(_: train.Run) -> Any:
        epochs.append(len(epochs) + 1)
        return {"validation_loss": 1.0, name: next(given)}, []

    monkeypatch.setattr(train, "validate", validate)
    monkeypatch.setattr(train, "save_adapter", lambda *_, **__: saved.append(epochs[-1]))
    monkeypatch.setattr(train, "train_epoch", lambda _: True)
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
    train.train(config, train.Accelerator(cpu=True), StopSignals())
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


def test_a_score_that_is_nan_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_captioner: Path
) -> None:
    with pytest.raises(ValueError, match="loss is nan at epoch 2: lower learning_rate"):
        loop_with_scores([1.0, float("nan")], monkeypatch, tmp_path, tiny_captioner, "loss", 5)


OTHER = {
    **SMOKE,
    "processor": {"layout": "horizontal", "canvas": [64, 128]},
    "gradient_accumulation_steps": 2,
    "batch_size": 4,
}
OTHER |= {"lr_scheduler_type": "cosine", "warmup_steps": 2, "log_every": 1, "epochs": 2, "validation_captions": 0}


@pytest.fixture(scope="module")
def other_run(tiny_captioner: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with other settings."""
    folder = tmp_path_factory.mktemp("other")
    config = {**OTHER, "model": str(tiny_captioner), "output_dir": str(folder / "run"), "revision": "main"}
    assert train.main(["--config", write_config(folder / "config.yaml", **config)]) == 0
    return folder / "run"


def test_layout_canvas_and_revision_are_saved_with_the_adapter(other_run: Path) -> None:
    processor = json.loads((other_run / "processor_config.json").read_text())
    assert (processor["layout"], processor["canvas"]) == ("horizontal", [64, 128])
    assert json.loads((other_run / "adapter_config.json").read_text())["revision"] == "main"


def test_steps_and_learning_rate_follow_the_config(other_run: Path) -> None:
    """48 pairs in batches of 4, two to a step: 6 steps an epoch; a warm-up of 2, then half a cosine to zero."""
    rates = [row["learning_rate"] for row in log_of(other_run) if "learning_rate" in row]
    assert len(rates) == 12 and log_of(other_run)[-1]["step"] == 12
    expected = [0.0, 0.5] + [0.5 * (1 + math.cos(math.pi * n / 10)) for n in range(10)]
    assert rates == pytest.approx([OTHER["learning_rate"] * share for share in expected], abs=1e-9)


def test_a_folder_with_a_run_is_not_overwritten(
    run: Path, tiny_captioner: Path, capsys: pytest.CaptureFixture
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    arguments = ["--model", str(tiny_captioner), "--benchmark", "toy", "--output_dir", str(run)]
    assert train.main(arguments) == 2
    assert "already contains a run: pass --resume to continue it, name another output_dir" in capsys.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before


SPOILED_TRAINING = """
import sys, torch, train
steps = []
train_step = train.train_step
def spoil(run, share):
    steps.append([pair for _, ids in share for pair in ids])
    if len(steps) == 3:  # as an image or a weight that has become NaN would
        share[0][0]["pixel_values"][0, 0, 0, 0] = float("nan")
        print("bad step:", steps[-1], flush=True)
    return train_step(run, share)
train.train_step = spoil
sys.exit(train.main(sys.argv[1:]))
"""


def test_a_loss_that_is_not_finite_is_reported_with_its_pairs_and_a_good_checkpoint_is_kept(
    root: Path, tiny_captioner: Path, tmp_path: Path
) -> None:
    config = {**SMOKE, "model": str(tiny_captioner), "output_dir": str(tmp_path / "run"), "checkpoint_every": 1}
    (tmp_path / "spoil.py").write_text(SPOILED_TRAINING)
    command = [sys.executable, str(tmp_path / "spoil.py"), "--config", write_config(tmp_path / "c.yaml", **config)]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert re.search("error: the loss of step 3 is not finite; pairs: .* The step was not taken, the last good", last)
    pairs = re.search(r"bad step: \[(.*)\]", done.stdout)[1].replace("'", "")
    assert pairs in last
    weights = load_file(latest_checkpoint(tmp_path / "run") / "adapter.safetensors")
    assert latest_checkpoint(tmp_path / "run").name == "step-00000002"
    assert all(torch.isfinite(weight).all() for weight in weights.values())


@pytest.mark.parametrize(
    "changes", [{"mixed_precision": "bf16"}, {"activation_checkpointing": True}, {"adapter": "run"}]
)
def test_other_ways_to_train(
    run: Path, tiny_captioner: Path, tmp_path: Path, changes: dict[str, Any], capsys: pytest.CaptureFixture
) -> None:
    changes = {name: str(run) if value == "run" else value for name, value in changes.items()}
    config = {**SMOKE, "epochs": 1, "model": str(tiny_captioner), "output_dir": str(tmp_path / "run"), **changes}
    config |= {"lora_rank": 4, "validation_captions": 0, "log_every": 1}
    write_calibration(Calibration(), tmp_path / "run")  # of an adapter that is replaced
    assert train.main(["--config", write_config(tmp_path / "config.yaml", **config)]) == 0
    assert not (tmp_path / "run" / "change_probability.json").exists()
    losses = [row["loss"] for row in log_of(tmp_path / "run") if "loss" in row]
    first = [row["loss"] for row in log_of(run) if "loss" in row]
    if "activation_checkpointing" in changes:  # the same numbers, for less memory
        assert sum(losses[:2]) / 2 == pytest.approx(first[0], abs=1e-4)
    elif "adapter" in changes:  # it starts with the adapter of the first run
        assert losses[0] < 0.8 * first[0]
    else:
        assert sum(losses[:2]) / 2 == pytest.approx(first[0], abs=0.1)


def test_only_the_adapter_moves(run: Path, tiny_captioner: Path) -> None:
    """Compare all weights of the model before and after two steps."""
    config = train.TrainConfig(model=str(tiny_captioner), benchmark="toy", mixed_precision="no", learning_rate=0.01)
    config.benchmark_options, config.attn_implementation = train.Options(OPTIONS), "eager"
    accelerator = train.Accelerator(cpu=True)
    state = train.prepare(accelerator, config, StopSignals())
    before = {name: weight.clone() for name, weight in state.model.state_dict().items()}
    share = [next(iter(state.train))]
    for _ in range(2):  # B is zero at first, so that A moves in the second step only
        assert all(map(math.isfinite, train.train_step(state, share)))
    moved = {name for name, weight in state.model.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved == {name for name in before if "lora_" in name}


def test_benchmarks_can_be_mixed(tiny_captioner: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs" / "train").mkdir(parents=True)
    lines = []
    for number in range(6):
        for side in ("before", "after"):
            Image.new("RGB", (40, 30), (40 * number, 90, 10)).save(tmp_path / f"pairs/train/{number}{side}.png")
        names = {f"{side}_file_name": f"{number}{side}.png" for side in ("before", "after")}
        lines.append(json.dumps({**names, "captions": ["nothing has changed"]}))
    (tmp_path / "pairs/train/metadata.jsonl").write_text("\n".join(lines))
    mix = {"folder": {"weight": 1.5, "data_dir": str(tmp_path / "pairs")}}
    config = {**SMOKE, "epochs": 1, "mix": mix, "model": str(tiny_captioner), "output_dir": str(tmp_path / "run")}
    assert train.main(["--config", write_config(tmp_path / "config.yaml", **config)]) == 0
    assert log_of(tmp_path / "run")[0]["training_pairs"] == 48 + 9
    assert yaml.safe_load((tmp_path / "run/train_config.yaml").read_text())["mix"] == mix


def test_words_that_the_base_spells_in_pieces_are_reported(
    tiny_captioner: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "pairs").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "pairs" / split).mkdir()
        for side in ("before", "after"):
            Image.new("RGB", (16, 16)).save(tmp_path / "pairs" / split / f"{side}.png")
        names = {"before_file_name": "before.png", "after_file_name": "after.png"}
        row = {**names, "captions": ["the cube became a sphere", "a cube is gone"]}
        (tmp_path / "pairs" / split / "metadata.jsonl").write_text(json.dumps(row))
    config = {**SMOKE, "benchmark": "folder", "benchmark_options": {"data_dir": str(tmp_path / "pairs")}}
    config |= {"model": str(tiny_captioner), "epochs": 1, "validation_captions": 0}
    for parts, reported in ((["language"], True), (["language", "embeddings"], False)):
        config |= {"output_dir": str(tmp_path / f"run-{reported}"), "lora_parts": parts}
        assert train.main(["--config", write_config(tmp_path / "config.yaml", **config)]) == 0
        error = capsys.readouterr().err
        assert ("words of the training captions are spelled in pieces, e.g. cube, sphere" in error) == reported
    trained = load_file(tmp_path / "run-False" / "adapter_model.safetensors")
    assert any("embed_tokens" in name for name in trained)


def test_evenly_spaced_takes_pairs_from_the_whole_split() -> None:
    rows = datasets.Dataset.from_dict({"pair_id": list(range(10))})
    assert train.evenly_spaced(rows, 4)["pair_id"][:] == [0, 2, 5, 7] and train.evenly_spaced(rows, 50) is rows


@pytest.mark.parametrize(
    ("entries", "arguments", "message"),
    [
        ({"lora_rnk": 8}, [], "unknown key 'lora_rnk'; known keys: .*lora_rank"),
        ({}, ["--lora_rank", "0"], "lora_rank=0 must be at least 1"),
        ({"learning_rate": -1}, [], "learning_rate=-1.0 must be above 0"),
        ({"learning_rate": float("nan")}, [], "learning_rate=nan must be above 0 and finite"),
        ({"max_grad_norm": -1.0}, [], "max_grad_norm=-1.0 must be above 0"),
        ({"lora_alpha": 0}, [], "lora_alpha=0 must be at least 1"),
        ({"mixed_precision": False}, [], "YAML reads mixed_precision as False; put the text in quotes"),
        ({"checkpoint_every": 0}, [], "checkpoint_every=0 must be at least 1"),
        ({"lora_plus_ratio": 0.0}, [], "lora_plus_ratio=0.0 must be above 0"),
        ({"push_to_hub": True}, [], "push_to_hub=True, hub_model_id=None: give both or neither"),
        ({}, ["--hub_model_id", "me/x"], "push_to_hub=False, hub_model_id='me/x': give both or neither"),
        ({"merge": True}, [], "hub_private and merge go with push_to_hub"),
        ({"trackers": ["tensorbord"]}, [], "trackers=tensorbord: use any of tensorboard, trackio, wandb"),
        ({"trackers": ["wandb"]}, [], "trackers=wandb: wandb is not installed: pip install wandb"),
        ({"mix": {"syned": {}}}, [], "mix: syned={}: write {syned: {weight: 0.5}}"),
        ({"mix": {"syned": {"weight": 0}}}, [], "how often its pairs occur per epoch"),
        ({"mix": {"toy": {"weight": 1}}}, [], "mix: 'toy' is the benchmark already"),
        ({"mix": {"tois": {"weight": 1}}}, [], "unknown benchmark 'tois'"),
        ({"benchmark": "levir_cc", "benchmark_options": {}}, [], "levir_cc.*(is not there|missing|fetch)"),
        ({"adapter": "./no/adapter"}, [], "./no/adapter"),
        ({"processor": {"canvas": [100, 100]}}, [], "Canvas 100x100 is not a multiple of the patch size 16"),
        ({"processor": {"canvas": [97, 96]}}, [], "height of canvas .* cannot be halved"),
        ({"model": "./no/such/folder"}, [], "the folder './no/such/folder' does not exist"),
        ({"benchmark_options": {"train": "64"}}, [], "train='64', use a whole number"),
        ({"model": None}, [], "model is missing: write it into the config file or pass --model"),
        ({"benchmark": "toys"}, [], "unknown benchmark 'toys'"),
        ({"benchmark_options": {"sed": 1}}, [], "has no option 'sed'"),
        ({"processor": {"canvas": [224]}}, [], "canvas must be two positive whole numbers"),
        ({"processor": {"size": 3}}, [], "unknown processor setting 'size': use any of layout"),
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
def test_invalid_options_are_refused(argument: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(["--model", "m", "--benchmark", "toy", "--output_dir", "o", argument])
    assert stopped.value.code == 2


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat(tmp_path_factory.mktemp("chat") / "model", "qwen3_vl")


def test_a_chat_model_is_trained_and_evaluated_by_the_same_commands(
    root: Path, chat_model: Path, tmp_path: Path
) -> None:
    options = {"train": 16, "validation": 4, "test": 4}
    entries = SMOKE | {"benchmark_options": options, "epochs": 1, "trackers": [], "activation_checkpointing": True}
    processor = {"layout": "vertical", "prompt": "What changed?"}
    entries |= {"model": str(chat_model), "output_dir": str(tmp_path / "run"), "processor": processor}
    done = launch(root, "--config", write_config(tmp_path / "chat.yaml", **entries))
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    saved = yaml.safe_load((run / "train_config.yaml").read_text())
    assert saved["lora_parts"] == ["vision", "projector", "language"]
    assert {name: saved["processor"][name] for name in processor} == processor
    assert json.loads((run / "processor_config.json").read_text())["settings"] == saved["processor"]
    assert "qwen3_vl" in (run / "README.md").read_text() and json.loads((run / "captioner.json").read_text())
    command = [sys.executable, "evaluate.py", "--adapter", str(run), "--benchmark", "toy", "--metrics", "BLEU"]
    command += ["--benchmark_options", json.dumps(options), "--output_dir", str(run / "eval" / "toy-test")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((run / "eval" / "toy-test" / "metrics.json").read_text())
    assert metrics["signature"]["processor"] == saved["processor"]
    assert (
        metrics["signature"]["decoding"]["do_sample"] is False
        and "temperature" not in metrics["signature"]["decoding"]
    )
    again = launch(root, "--config", write_config(tmp_path / "chat.yaml", **entries), "--resume")
    assert again.returncode == 0 and "is finished" in again.stdout, again.stderr


def small_run(model: Path, folder: Path) -> train.Run:
    entries = SMOKE | {"model": str(model), "output_dir": str(folder), "trackers": [], "epochs": 1}
    accelerator = train.Accelerator(cpu=True)
    run = train.prepare(accelerator, train.TrainConfig(**entries), StopSignals())
    return run


@pytest.mark.parametrize("kind", ["blip2", "qwen3_vl"])
def test_a_model_that_does_not_see_its_images_is_not_trained(
    kind: str, tiny_captioner: Path, chat_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run({"blip2": tiny_captioner, "qwen3_vl": chat_model}[kind], tmp_path)
    train.check_images_matter(run)
    forward = type(run.model).forward
    monkeypatch.setattr(  # every pixel is the same
        type(run.model),
        "forward",
        lambda self, pixel_values, **rest: forward(self, pixel_values=torch.zeros_like(pixel_values), **rest),
    )
    with pytest.raises(ValueError, match="exchanging the images of 4 pairs does not change the loss"):
        train.check_images_matter(run)
    monkeypatch.setattr(run.train.dataset, "rows", run.train.dataset.rows.select([0] * 4))
    row = run.train.dataset[0]
    monkeypatch.setattr(type(run.train.dataset), "__getitem__", lambda self, item: {**row, "after": row["before"]})
    train.check_images_matter(run)  # two equal images cannot tell


@pytest.mark.parametrize(
    ("kind", "part", "module"),
    [
        ("blip2", "vision", "vision_model"),
        ("blip2", "qformer", "qformer"),
        ("qwen3_vl", "vision", "model.visual.blocks"),
    ],
)
def test_a_part_without_gradient_stops_the_run(
    kind: str, part: str, module: str, tiny_captioner: Path, chat_model: Path, tmp_path: Path
) -> None:
    run = small_run({"blip2": tiny_captioner, "qwen3_vl": chat_model}[kind], tmp_path)
    share = [next(iter(run.train))]
    for name, weight in run.model.named_parameters():
        if f"{module}." in name and weight.requires_grad:
            weight.register_hook(torch.zeros_like)
    with pytest.raises(ValueError, match=rf"the adapters in {part} get no gradient in the first step"):
        train.train_step(run, share)


def test_four_bits_are_refused_without_a_gpu(chat_model: Path, tmp_path: Path) -> None:
    entries = SMOKE | {"model": str(chat_model), "output_dir": str(tmp_path), "quantize": "4bit"}
    with pytest.raises(ValueError, match="quantize='4bit' needs a CUDA GPU"):
        train.build_model(train.TrainConfig(**entries), torch.device("cpu"))


def test_the_base_may_be_in_four_bits(root: Path, tmp_path: Path) -> None:
    """The adapter of a quantized base also fits the base in full precision."""
    package = Path(sys.prefix) / "quantization"  # not among the other packages: PEFT imports it wherever it finds it
    if not package.is_dir() and importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("the package bitsandbytes is not installed: make weights")
    places = os.pathsep.join(map(str, (package, root, root / "tests")))
    code = [sys.executable, str(root / "tests" / "train_in_four_bits.py"), str(tmp_path)]
    done = subprocess.run(code, env={**os.environ, "PYTHONPATH": places}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["layers"] > 20 and found["types"] == ["nf4"]
    assert found["losses"][-1] < found["losses"][0] - 0.1
    assert (
        found["whole"] == pytest.approx(found["quantized"], abs=0.5) and found["without_adapter"] > found["quantized"]
    )
