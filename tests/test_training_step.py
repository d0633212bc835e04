"""The training step: the same losses as a plain loop, and what its measurement compares."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from peft import LoraConfig, get_peft_model
from tiny_models import save_tiny
from transformers import Blip2Config, Blip2ForConditionalGeneration

import train
from captioner_idc import loading
from captioner_idc.adapters import default_parts
from captioner_idc.families import FAMILIES
from run_idc.stopping import StopSignals

STEPS, CAPTION_TOKENS = 50, 30


@pytest.fixture(autouse=True)
def new_accelerator_state() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)


def plain_losses(folder: Path, run: train.Run, batches: list[dict[str, torch.Tensor]], rate: float) -> list[float]:
    """Return the losses of plain BLIP-2 with PEFT's LoRA, trained by a plain loop on captions of one length."""
    model = Blip2ForConditionalGeneration.from_pretrained(folder)
    targets = "|".join(FAMILIES["blip2"].lora_targets[part] for part in default_parts(model))
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=targets)).train()
    trained = [name for name, weight in run.model.named_parameters() if weight.requires_grad]
    assert trained == [name for name, weight in model.named_parameters() if weight.requires_grad]
    model.load_state_dict({name: run.model.get_parameter(name).detach() for name in trained}, strict=False)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer, losses = torch.optim.AdamW(weights, lr=rate, weight_decay=0.01), []
    for step in range(STEPS):
        batch = batches[step % len(batches)]
        longest = batch["input_ids"].shape[1] + CAPTION_TOKENS
        padded = {
            name: torch.nn.functional.pad(batch[name], (0, longest - batch[name].shape[1]), value=fill)
            for name, fill in {"input_ids": 1, "attention_mask": 0, "labels": -100}.items()
        }
        loss = model(pixel_values=batch["pixel_values"], **padded).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_the_losses_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    """Logits at labels, captions of their own length and all else that saves time leave the losses as they are."""
    rate, folder = 1e-3, save_tiny(tmp_path / "model")
    config = train.TrainConfig(
        model=str(folder),
        benchmark="toy",
        benchmark_options=train.Options({"train": 12, "validation": 2, "test": 2}),
        output_dir=str(tmp_path / "run"),
        batch_size=4,
        learning_rate=rate,
        lora_dropout=0.0,
        mixed_precision="no",
        trackers=[],
    )
    run = train.prepare(Accelerator(cpu=True), config, StopSignals())
    run.model.train()
    batches = list(run.train)
    expected = plain_losses(folder, run, [batch for batch, _ in batches], rate)
    found = [train.train_step(run, [batches[step % len(batches)]])[0] for step in range(STEPS)]
    assert found == pytest.approx(expected, abs=1e-4)
    assert expected[-1] < expected[0] - 0.1  # they have moved


@pytest.mark.parametrize(
    ("machine", "bf16", "amx", "slow"),
    [
        ("x86_64", False, False, True),
        ("x86_64", True, False, False),
        ("AMD64", False, True, False),
        ("arm64", False, False, False),
    ],
)
def test_bfloat16_is_slow_on_cpus_without_instructions_for_it(
    machine: str, bf16: bool, amx: bool, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert loading.slow_in_bfloat16(torch.device("cpu")) == slow
    assert not loading.slow_in_bfloat16(torch.device("cuda"))


@pytest.mark.parametrize(("precision", "said"), [("bf16", True), ("no", False)])
def test_a_run_says_that_float32_is_faster(
    precision: str, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(train, "slow_in_bfloat16", lambda device: device.type == "cpu")
    config = train.TrainConfig(
        model=str(save_tiny(tmp_path / "model")),
        benchmark="toy",
        benchmark_options=train.Options({"train": 4, "validation": 2, "test": 2}),
        output_dir=str(tmp_path / "run"),
        mixed_precision=precision,
        trackers=[],
    )
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    train.start_run(train.prepare(accelerator, config, StopSignals()))
    assert ("--mixed_precision no is faster here" in capsys.readouterr().err) == said


@pytest.fixture
def measurement(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(root / "measurements"))
    import training_step

    yield training_step
    for name in ("training_step", "original_recipe", "paired", "full_size"):
        sys.modules.pop(name, None)


@pytest.fixture
def tiny_sizes(measurement: Any) -> Blip2Config:
    """Return sizes of two small layers per part, for canvases and words of the small model."""
    config = measurement.small_config()
    for part in (config.vision_config, config.qformer_config, config.text_config):
        part.hidden_size, part.num_hidden_layers, part.num_attention_heads = 16, 2, 2
    config.vision_config.intermediate_size = config.qformer_config.intermediate_size = 16
    config.qformer_config.encoder_hidden_size = config.text_config.word_embed_proj_dim = 16
    config.text_config.ffn_dim = 16
    return config


def test_the_measured_steps_do_the_same_work(measurement: Any, tiny_sizes: Blip2Config) -> None:
    recipes = measurement.RECIPES
    options = {"config": tiny_sizes, "batch": 2, "repeats": 1}
    row = measurement.time_row("step", ("plain", recipes["baseline"]), recipes["float32"], 1.5, **options)
    assert row["baseline"] == "plain" and row["ratio"] > 0 and row["goal"] == 1.5
    kept = measurement.replace(recipes["float32"], parts=("qformer", "language"), kept=True)
    unlike = measurement.replace(kept, kept=False, parts=("language",))
    with pytest.raises(ValueError, match="losses differ by .* from those of other parts"):
        measurement.time_row("step", ("other parts", unlike), kept, None, **options | {"rate": 0.1})
    assert measurement.peak_memory(recipes["bfloat16"], repeats=2, config=tiny_sizes, batch=2)[1] > 0
