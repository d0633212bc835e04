"""Every field of TrainConfig and of toy's config changes something; a new field without an entry here is a failure.

test_evaluate.py does the same for EvaluateConfig.
"""

import dataclasses
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from tiny_models import save_tiny

import train
from captioner_idc import captioning, loading
from captioner_idc.adapters import add_lora, save_adapter
from dataset_syned.benchmarks.toy import ToyConfig, draw_raw
from run_idc import resuming
from run_idc.stopping import StopSignals

OPTIONS = {"train": 10, "validation": 4, "test": 3}


def digest(*tensors: torch.Tensor) -> str:
    hashed = hashlib.sha256()
    for tensor in tensors:
        hashed.update(tensor.detach().contiguous().float().numpy().tobytes())
    return hashed.hexdigest()[:12]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the folders of two tiny captioners, of an adapter of the first, and one for vision features."""
    folder = tmp_path_factory.mktemp("models")
    paths = {name: str(save_tiny(folder / name, seed=seed)) for seed, name in enumerate(("base", "other"))}
    model, processor = loading.load(paths["base"], device="cpu")
    save_adapter(add_lora(model, 3, 6, 0.0, 0), processor, folder / "adapter", base=paths["base"], revision=None)
    return {**paths, "adapter": str(folder / "adapter"), "features": str(folder / "features")}


@pytest.fixture(autouse=True)
def new_accelerator_state() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)


def train_config(models: dict[str, str], folder: Path, **changes: Any) -> train.TrainConfig:
    config = {"model": models["base"], "benchmark": "toy", "output_dir": str(folder / "run"), "batch_size": 4}
    config |= {"benchmark_options": train.Options(OPTIONS), "mixed_precision": "no", "epochs": 1, "trackers": []}
    config |= {"validation_captions": 0, "lora_rank": 2, "learning_rate": 0.01, "num_workers": 0}
    return train.TrainConfig(**config | {name: resolved(value, models) for name, value in changes.items()})


def resolved(value: Any, models: dict[str, str]) -> Any:
    """Return the folder of a model whose name is given in angle brackets."""
    return models[value[1:-1]] if isinstance(value, str) and value.startswith("<") else value


def prepared(config: train.TrainConfig, *_: Any) -> dict[str, Any]:
    """Return the state of a run before its first step."""
    run = train.prepare(train.Accelerator(cpu=True), config, StopSignals())
    lora = run.model.peft_config["default"]
    torch.manual_seed(0)
    batch, ids = next(iter(run.train))
    rates = []
    for _ in range(8):
        rates.append(run.scheduler.get_last_lr())
        run.scheduler.step()
    return {
        "config": [run.config.processor, run.model.config._attn_implementation, str(run.model.dtype)],
        "lora": [lora.r, lora.lora_alpha, lora.lora_dropout, str(lora.target_modules), lora.use_rslora],
        "weights": digest(*(weight for weight in run.model.parameters())),
        "groups": [(group["weight_decay"], len(group["params"])) for group in run.optimizer.param_groups],
        "rates": rates,
        "order": [run.order.items().tolist(), run.order.pairs_per_step, run.order.batch_size],
        "batch": [ids, digest(*images_or_features(batch)), batch["labels"].tolist()],
        "loader": [run.train.num_workers, run.validation.batch_size, len(run.rows)],
        "checkpointing": any(getattr(module, "gradient_checkpointing", False) for module in run.model.modules()),
    }


def images_or_features(batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [batch[name] for name in ("pixel_values", "vision_features") if name in batch]


def loaded_with(config: train.TrainConfig, patch: pytest.MonkeyPatch) -> Any:
    """Return the arguments with which a run loads its model."""

    def load(*arguments: Any, **options: Any) -> Any:
        raise InterruptedError(repr((arguments, options)))

    patch.setattr(train, "load", load)
    with pytest.raises(InterruptedError) as stopped:
        train.build_model(config, torch.device("cpu"))
    return str(stopped.value)


def trained(config: train.TrainConfig, patch: pytest.MonkeyPatch) -> Any:
    """Return the results of a whole run: log, files, weights, pushes, checkpoints."""
    seen: list[Any] = []
    patch.setattr(train, "try_push", lambda *arguments, **options: seen.append((arguments[1:], options)) or "")
    write = resuming.write_checkpoint
    patch.setattr(resuming, "write_checkpoint", lambda *a: seen.append(a[2]["step"]) or write(*a))
    accelerator = train.Accelerator(
        cpu=True,
        log_with=config.trackers,
        project_config=train.ProjectConfiguration(logging_dir=f"{config.output_dir}/tensorboard"),
    )
    clip = accelerator.clip_grad_norm_
    accelerator.clip_grad_norm_ = lambda weights, limit: seen.append(limit) or clip(weights, limit)
    scores = iter([3.0, 1.0, 2.0, 4.0])
    validate = train.validate

    def scored(run: train.Run) -> Any:  # losses that rise and fall, so that patience and best_by decide something
        found, sentences = validate(run)
        score = next(scores)  # a better CIDEr where it is a worse loss
        return {"validation_loss": score, "validation_CIDEr": score if "validation_CIDEr" in found else 0.0}, sentences

    patch.setattr(train, "validate", scored)
    train.train(config, accelerator, StopSignals())
    folder = Path(config.output_dir)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    timed = ("seconds", "pairs_per_second", "data_wait_share", "peak_memory_gb")
    adapter_config = json.loads((folder / "adapter_config.json").read_text())
    return {
        "seen": seen,
        "log": [{name: value for name, value in line.items() if name not in timed} for line in log[1:]],
        "files": sorted(path.name for path in folder.iterdir()),
        "adapter": [adapter_config["revision"], (folder / "adapter_model.safetensors").read_bytes()],
        "events": bool(list(folder.glob("tensorboard/**/events*"))),
    }


# field -> (value, observer, further changes of both runs)
TRAIN: dict[str, tuple[Any, Callable[..., Any], dict[str, Any]]] = {
    "model": ("<other>", prepared, {}),
    "revision": ("v2", loaded_with, {}),
    "benchmark_options": (train.Options({**OPTIONS, "seed": 5}), prepared, {}),
    "caption_choice": ("shortest", prepared, {}),
    "adapter": ("<adapter>", prepared, {}),
    "adapter_revision": ("v3", loaded_with, {"adapter": "<adapter>"}),
    "processor": (train.Options({"layout": "horizontal", "blur": 0.5}), prepared, {}),
    "allow_pickle": (True, loaded_with, {}),
    "lora_rank": (4, prepared, {}),
    "lora_alpha": (1, prepared, {}),
    "lora_dropout": (0.3, prepared, {}),
    "lora_parts": (["qformer"], prepared, {}),
    "lora_variant": ("rslora", prepared, {}),
    "lora_plus_ratio": (4.0, prepared, {}),
    "learning_rate": (0.02, prepared, {}),
    "lr_scheduler_type": ("linear", prepared, {"epochs": 3}),
    "warmup_steps": (3, prepared, {}),
    "weight_decay": (0.5, prepared, {}),
    "max_grad_norm": (0.001, trained, {}),
    "batch_size": (2, prepared, {}),
    "gradient_accumulation_steps": (2, prepared, {}),
    "epochs": (2, trained, {}),
    "patience": (1, trained, {"epochs": 4}),
    "best_by": ("CIDEr", trained, {"epochs": 2, "validation_captions": 2}),
    "validation_captions": (2, trained, {}),
    "mixed_precision": ("bf16", loaded_with, {}),
    "quantize": ("4bit", loaded_with, {}),
    "attn_implementation": ("eager", prepared, {}),
    "activation_checkpointing": (True, prepared, {}),
    "keep_vision_features": ("<features>", prepared, {"lora_parts": ["qformer", "language"]}),
    "num_workers": (1, prepared, {}),
    "seed": (7, prepared, {}),
    "log_every": (1, trained, {}),
    "checkpoint_every": (2, trained, {}),
    "trackers": (["tensorboard"], trained, {}),
    "push_to_hub": (True, trained, {}),
    "hub_model_id": ("me/other", trained, {"push_to_hub": True}),
    "hub_private": (True, trained, {"push_to_hub": True}),
    "merge": (True, trained, {"push_to_hub": True}),
}

TESTED_ALONE = ("benchmark", "mix", "resume", "output_dir")  # the last one by every run of test_train.py


def test_every_field_of_training_has_an_entry() -> None:
    assert {*TRAIN, *TESTED_ALONE} == {field.name for field in dataclasses.fields(train.TrainConfig)}


@pytest.mark.parametrize("name", TRAIN)
def test_each_field_of_training_reaches_its_use(name: str, models: dict[str, str], tmp_path: Path) -> None:
    value, observe, further = TRAIN[name]
    seen = []
    for number, changes in enumerate((further, {**further, name: value})):
        AcceleratorState._reset_state(reset_partial_state=True)
        random.seed(0)
        torch.manual_seed(0)
        with pytest.MonkeyPatch.context() as patch:
            seen.append(observe(train_config(models, tmp_path / str(number), **changes), patch))
    assert seen[0] != seen[1]


@pytest.mark.parametrize("observe", [prepared, trained, loaded_with])
def test_the_same_settings_give_the_same_observation(
    observe: Callable[..., Any], models: dict[str, str], tmp_path: Path
) -> None:
    """If two equal runs gave different observations, the test above could not fail."""
    seen = []
    for number in range(2):
        AcceleratorState._reset_state(reset_partial_state=True)
        random.seed(0)
        torch.manual_seed(0)
        with pytest.MonkeyPatch.context() as patch:
            changes = {"validation_captions": 2, "trackers": ["tensorboard"]}
            seen.append(observe(train_config(models, tmp_path / str(number), **changes), patch))
    assert seen[0] == seen[1]


def test_resume_benchmark_and_mix_reach_their_use(models: dict[str, str], tmp_path: Path) -> None:
    config = train_config(models, tmp_path)
    Path(config.output_dir).mkdir()
    (Path(config.output_dir) / "train_config.yaml").write_text(yaml.safe_dump({"seed": 1}))
    with pytest.raises(ValueError, match="pass --resume"):
        train.check_folder(config)
    with pytest.raises(ValueError, match="was started with"):
        train.check_folder(dataclasses.replace(config, resume=True))
    with pytest.raises(ValueError, match="unknown benchmark 'toy2'"):
        train.load_rows(dataclasses.replace(config, benchmark="toy2"))
    mixed = dataclasses.replace(config, mix=train.Options({"toy": {"weight": 0.5, "train": 6, "seed": 9}}))
    assert [len(part) for part in train.load_rows(mixed)[0]] == [10, 6]


def test_gradients_are_clipped_before_the_step(models: dict[str, str], tmp_path: Path) -> None:
    run = train.prepare(train.Accelerator(cpu=True), train_config(models, tmp_path, max_grad_norm=0.01), StopSignals())
    norms, step = [], run.optimizer.step

    def measured() -> None:
        gradients = [weight.grad for weight in run.model.parameters() if weight.grad is not None]
        norms.append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))
        step()

    run.optimizer.step = measured
    _, before_clipping = train.train_step(run, [next(iter(run.train))])
    assert before_clipping > 0.02 and norms == [pytest.approx(0.01, rel=1e-3)]


def test_validation_captions_are_of_before_and_after_in_this_order(tiny_captioner: Path) -> None:
    """Exchanged images would give other sentences, and another CIDEr, so that best_by keeps the wrong epoch."""
    from dataset_syned import load_benchmark

    rows = load_benchmark("toy", "validation", **{**OPTIONS, "validation": 12})
    model, processor = loading.load(tiny_captioner, device="cpu")
    sentences = train.validation_captions(train.Accelerator(cpu=True), model, processor, rows, 4)
    straight, swapped = (
        captioning.caption(model, processor, [(row[first], row[second]) for row in rows], batch_size=4)
        for first, second in (("before", "after"), ("after", "before"))
    )
    assert sentences == straight != swapped
    assert train.cider(rows, straight) != train.cider(rows, swapped)


def test_an_adapter_is_continued_with_the_processor_that_it_saved(models: dict[str, str], tmp_path: Path) -> None:
    """A base is trained with its own processor, unless the run changes a setting."""
    model, processor = loading.load(models["base"], device="cpu", processor={"layout": "horizontal", "prompt": "so?"})
    save_adapter(add_lora(model, 2, 4, 0.0, 0), processor, tmp_path / "first", base=models["base"], revision=None)
    config = train_config(models, tmp_path, adapter=str(tmp_path / "first"))
    found, _, used = train.build_model(config, torch.device("cpu"))
    assert used.settings == processor.settings == found.processor and used.settings["layout"] == "horizontal"
    blurred = save_tiny(tmp_path / "blurred", blur=0.4)
    config = train_config(models, tmp_path, model=str(blurred))
    assert train.build_model(config, torch.device("cpu"))[2].settings["blur"] == 0.4
    config = train_config(models, tmp_path, model=str(blurred), processor=train.Options({"blur": 0.1}))
    assert train.build_model(config, torch.device("cpu"))[2].settings["blur"] == 0.1


# data


TOY = {"train": 5, "validation": 5, "test": 5, "seed": 8, "look": "studio", "wording": "instruction"}
TOY |= {"difficulty": "hard", "width": 192, "height": 96}


def test_every_field_of_the_toy_benchmark_reaches_its_use() -> None:
    own = {field.name for field in dataclasses.fields(ToyConfig)} - {
        *("name", "version", "data_dir", "data_files", "description", "max_side")
    }
    assert own == set(TOY)
    for name in set(TOY) - {"train", "validation", "test"}:  # the contract tests check the counts
        first, second = (draw_raw(ToyConfig(**changes), "train", 4) for changes in ({}, {name: TOY[name]}))
        assert (first.before, first.after, first.captions) != (second.before, second.after, second.captions), name
