"""Adapters of PEFT 0.5: conversion of the paper's pickles, and files that are refused."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModel
from safetensors.torch import load_file
from test_adapters import logits, randomise
from tiny_models import save_plain_blip2, tiny_model

from captioner_idc.adapters import add_lora, load_adapter, merge
from captioner_idc.old_adapters import convert, main


def write_old_adapter(folder: Path, base: str = "Salesforce/blip2-opt-2.7b") -> Any:
    """Write an adapter as PEFT 0.5 did: the fields of the released adapter_config.json, a pickle, half precision."""
    model = add_lora(tiny_model(), rank=2, alpha=4, dropout=0.05, seed=0)
    randomise(model)
    targets = ["qformer.encoder.layer.0.crossattention.attention.query", "value", "key", "qkv"]
    config = {
        "auto_mapping": {
            "base_model_class": "Blip2ForConditionalGeneration",
            "parent_library": "transformers.models.blip_2.modeling_blip_2",
        },
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "lora_alpha": 4,
        "lora_dropout": 0.05,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": 2,
        "revision": None,
        "target_modules": [*targets, "q_proj", "k_proj", "v_proj"],
        "task_type": None,
    }
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    # PEFT 0.5 left out the adapter's name, as today, and the paper trained in half precision
    halves = {
        name.replace(".default", ""): parameter.detach().half()
        for name, parameter in model.named_parameters()
        if "lora_" in name
    }
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.copy_(parameter.data.half())
    torch.save(halves, folder / "adapter_model.bin")
    return model


def test_old_format_loads_merges_and_converts(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, old, new = tmp_path / "base", tmp_path / "old", tmp_path / "made" / "new"
    save_plain_blip2(base)
    wanted = logits(write_old_adapter(old))
    assert (logits(tiny_model()) - wanted).abs().max() > 1e-2
    loaded = load_adapter(tiny_model(), str(old), allow_pickle=True)
    assert (logits(loaded) - wanted).abs().max() < 1e-6
    assert (logits(merge(loaded)) - wanted).abs().max() < 1e-4  # the logits are about 3, because this adapter is large

    command = [sys.executable, "-m", "captioner_idc.old_adapters", old, new, "--base", base, "--revision", "abc"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "30 tensors" in done.stdout, done
    assert sorted(path.name for path in new.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    config = json.loads((new / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"], config["r"]) == (str(base), "abc", 2)
    monkeypatch.chdir(tmp_path)
    convert(old, tmp_path / "relative", base="base")
    relative = json.loads((tmp_path / "relative" / "adapter_config.json").read_text())
    assert relative["base_model_name_or_path"] == "./base"
    assert (logits(AutoPeftModel.from_pretrained(new, revision=None)) - wanted).abs().max() < 1e-6
    assert (logits(load_adapter(tiny_model(), str(new), trainable=True)) - wanted).abs().max() < 1e-6


class Harmful:
    """An object whose pickle runs code when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harmed",)


def test_old_adapters_that_cannot_be_converted_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    old, new = tmp_path / "old", tmp_path / "new"
    write_old_adapter(old)
    weights = torch.load(old / "adapter_model.bin", weights_only=True)

    def assert_refused(message: str) -> None:
        assert main([str(old), str(new)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and message in error and error.count("\n") == 1, error

    for content, message in (
        (Harmful(), "contains more than tensors"),
        ({**weights, "base.weight": torch.zeros(2, 2)}, "not a plain LoRA adapter of the rank"),
        ({name: torch.cat([t, t], 0 if "lora_A" in name else 1) for name, t in weights.items()}, "of the rank in its"),
        ({}, "not a plain LoRA"),
        ([1, 2], "contains something else than named tensors"),
        ({name: 1 for name in weights}, "contains something else than named tensors"),
        ({name: tensor / 0 for name, tensor in weights.items()}, "contains numbers that are not finite, in"),
    ):
        torch.save(content, old / "adapter_model.bin")
        assert_refused(message)
    for content, message in (
        (b"cut", "is damaged"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:01\nsize 9\n", "run `git lfs pull`"),
    ):
        (old / "adapter_model.bin").write_bytes(content)
        assert_refused(message)
    assert not Path("harmed").exists() and not new.exists()
    (old / "adapter_model.bin").unlink()
    assert_refused("contains no adapter_model.bin")
    torch.save(weights, old / "adapter_model.bin")
    new.mkdir()
    (new / "mine.txt").write_text("mine")
    assert_refused("already exists and is not empty")
    (new / "mine.txt").unlink()
    assert main([str(old), str(new)]) == 0  # an empty folder is accepted
    saved = load_file(new / "adapter_model.safetensors")
    assert saved.keys() == weights.keys() and all(torch.equal(saved[name], weights[name]) for name in saved)
    for content, message in (
        ("[1]", "contains a list"),
        ("{", "is cut off"),
        ('{"peft_type": "IA3"}', "only LORA adapters are"),
    ):
        (old / "adapter_config.json").write_text(content)
        assert_refused(message)
    (old / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match="contains no adapter_config.json"):
        convert(old, tmp_path / "other")
