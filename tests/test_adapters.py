"""LoRA adapters: the paper's modules, only they are trained, and what is saved loads without our code."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny_models import save_plain_blip2, tiny_model, tiny_processor
from transformers import Blip2Config, Blip2ForConditionalGeneration

from modeling_blip2idc import Blip2IdcForConditionalGeneration
from modeling_blip2idc.adapters import add_lora, count_parameters, load_adapter, save_adapter
from modeling_blip2idc.captioning import load


def adapted_modules(model: torch.nn.Module) -> list[str]:
    return [
        name.removeprefix("base_model.model.") for name, module in model.named_modules() if hasattr(module, "lora_A")
    ]


def randomise(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))


def test_full_size_has_the_papers_modules_and_weights() -> None:
    """177 modules, 12.53 M weights at rank 16: what the six released adapter_config.json resolve to."""
    with torch.device("meta"):
        config = Blip2Config(
            vision_config={},
            qformer_config={},
            text_config={
                "model_type": "opt",
                "hidden_size": 2560,
                "ffn_dim": 10240,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "word_embed_proj_dim": 2560,
                "vocab_size": 50304,
            },
            image_token_index=50265,
        )
        model = add_lora(Blip2ForConditionalGeneration(config), rank=16, alpha=32, dropout=0.05, seed=0)
    names = adapted_modules(model)
    trainable, total = count_parameters(model)
    assert len(names) == 177 and round(trainable / 1e6, 2) == 12.53 and 3.7e9 < total < 3.8e9
    assert sum("vision_model" in name for name in names) == 39
    assert sum("language_model" in name for name in names) == 96
    assert sum("crossattention" in name for name in names) == 18
    assert not [name for name in names if name.endswith(".query") and "crossattention" not in name]


@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_every_part_is_adapted(kind: str) -> None:
    names = adapted_modules(add_lora(tiny_model(kind), rank=2, alpha=4, dropout=0.0, seed=0))
    for part in ("vision_model", "qformer", "language_model"):
        assert any(name.startswith(part) for name in names), part


def test_only_adapter_weights_move(tmp_path: Path) -> None:
    processor = tiny_processor()
    model = add_lora(tiny_model(), rank=2, alpha=4, dropout=0.0, seed=0).train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=0.1)
    images = torch.rand(2, 2, 40, 30, 3).numpy()
    for _ in range(2):  # the first step moves B only, for A's gradient goes through B, which starts at zero
        inputs = processor(before=list(images[0]), after=list(images[1]), captions=["the ball is gone", "a new car"])
        model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name in before if "lora_" in name}


def test_same_seed_same_start_and_no_trace_on_global_chance() -> None:
    first, second, other = (add_lora(tiny_model(), 2, 4, 0.0, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    model = tiny_model()
    state = torch.get_rng_state()
    add_lora(model, 2, 4, 0.0, 0)
    assert torch.equal(state, torch.get_rng_state())


def test_saved_adapter_loads_with_peft_alone(tmp_path: Path) -> None:
    base = tmp_path / "base"
    save_plain_blip2(base)
    model = add_lora(Blip2IdcForConditionalGeneration.from_pretrained(base), rank=2, alpha=4, dropout=0.0, seed=0)
    randomise(model)
    save_adapter(model, tiny_processor(layout="horizontal"), tmp_path / "run", base=str(base), revision=None)
    saved = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    assert saved["auto_mapping"]["base_model_class"] == "Blip2ForConditionalGeneration"
    assert saved["base_model_name_or_path"] == str(base)
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert "adapter_model.safetensors" in names and not [n for n in names if n.startswith(".") or n.endswith(".bin")]

    plain = PeftModel.from_pretrained(Blip2ForConditionalGeneration.from_pretrained(base), tmp_path / "run")
    ours, processor = load(tmp_path / "run", device="cpu")
    assert processor.layout == "horizontal"
    images = torch.rand(2, 40, 30, 3).numpy()
    inputs = processor(before=images[0], after=images[1], captions="the ball is gone")
    losses = [m.eval()(**inputs).loss.item() for m in (model, plain, ours)]
    assert losses[0] == losses[1] == losses[2]
    bare, _ = load(base, device="cpu")
    assert bare(**inputs).loss.item() != losses[0]


def test_failed_save_keeps_the_last_good_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = add_lora(tiny_model(), rank=2, alpha=4, dropout=0.0, seed=0)
    processor = tiny_processor()
    save_adapter(model, processor, tmp_path, base="base", revision=None)
    good = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    randomise(model)

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(processor, "save_pretrained", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_adapter(model, processor, tmp_path, base="base", revision=None)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == good


def test_loaded_adapter_is_the_saved_one(tmp_path: Path) -> None:
    model = add_lora(tiny_model(), rank=2, alpha=4, dropout=0.0, seed=0)
    randomise(model)
    save_adapter(model, tiny_processor(), tmp_path, base="base", revision=None)
    again = load_adapter(tiny_model(), str(tmp_path))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
