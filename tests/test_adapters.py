"""LoRA adapters: they adapt the paper's modules, only they are trained, and once saved they load without our code."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tiny_models import save_plain_blip2, tiny_model, tiny_processor
from transformers import Blip2Config, Blip2ForConditionalGeneration

from captioner_idc.adapters import (
    LORA_VARIANTS,
    adapter_weights,
    add_lora,
    count_parameters,
    load_adapter,
    make_optimizer,
    merge,
    save_adapter,
)
from captioner_idc.exporting import export
from captioner_idc.loading import load
from modeling_blip2idc import Blip2IdcForConditionalGeneration

VARIANTS = pytest.mark.parametrize("variant", LORA_VARIANTS)
ORIGINAL_ADAPTERS = Path(__file__).resolve().parents[2] / "shared" / "data" / "original-adapters"


def adapted_modules(model: torch.nn.Module) -> list[str]:
    return [
        name.removeprefix("base_model.model.") for name, module in model.named_modules() if hasattr(module, "lora_A")
    ]


def randomise(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))


def full_size() -> Blip2ForConditionalGeneration:
    """Return BLIP-2 OPT-2.7B without weights."""
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
        return Blip2ForConditionalGeneration(config)


def test_full_size_has_the_papers_modules_and_weights() -> None:
    """The six released adapter_config.json resolve to 177 modules, with 12.53 M weights at rank 16."""
    with torch.device("meta"):
        model = add_lora(full_size(), rank=16, alpha=32, dropout=0.05, seed=0)
    names = adapted_modules(model)
    trainable, total = count_parameters(model)
    assert len(names) == 177 and round(trainable / 1e6, 2) == 12.53 and 3.7e9 < total < 3.8e9
    assert sum("vision_model" in name for name in names) == 39
    assert sum("language_model" in name for name in names) == 96
    assert sum("crossattention" in name for name in names) == 18
    assert not [name for name in names if name.endswith(".query") and "crossattention" not in name]


def test_released_adapters_adapt_the_same_modules_as_ours() -> None:
    if not ORIGINAL_ADAPTERS.is_dir():
        pytest.skip(f"the six adapter_config.json of the paper are not in {ORIGINAL_ADAPTERS}")
    with torch.device("meta"):
        ours = set(adapted_modules(add_lora(full_size(), rank=16, alpha=32, dropout=0.05, seed=0)))
    folders = sorted(path for path in ORIGINAL_ADAPTERS.iterdir() if path.is_dir())
    assert len(folders) == 6
    for folder in folders:
        config = PeftConfig.from_pretrained(str(folder))
        with torch.device("meta"):
            model = get_peft_model(full_size(), config)
        assert set(adapted_modules(model)) == ours, folder.name
        weights = sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)
        assert weights == 783_360 * config.r, folder.name  # 12.53 M at rank 16


@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_every_part_is_adapted(kind: str) -> None:
    names = adapted_modules(add_lora(tiny_model(kind), rank=2, alpha=4, dropout=0.0, seed=0))
    for part in ("vision_model", "qformer", "language_model"):
        assert any(name.startswith(part) for name in names), part


def batch(kind: Any = "opt") -> dict[str, Any]:
    images = torch.rand(2, 2, 40, 30, 3, generator=torch.Generator().manual_seed(0)).numpy()
    captions = ["the ball is gone", "a new car"]
    return tiny_processor(kind)(before=list(images[0]), after=list(images[1]), captions=captions)


def logits(model: Any, kind: Any = "opt") -> torch.Tensor:
    """Return the logits of all positions; with labels, our model returns only those of labelled positions."""
    inputs = batch(kind)
    if kind == "opt":
        inputs.pop("labels")
    with torch.no_grad():
        return model.eval()(**inputs).logits


def train(model: Any, kind: Any = "opt", **options: Any) -> Any:
    """Train two steps: the first changes only B, because A's gradient goes through B, which starts at zero."""
    optimizer = make_optimizer(model.train(), **{"learning_rate": 0.01, "weight_decay": 0.01, **options})
    for _ in range(2):
        model(**batch(kind)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def base_tensors(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if "lora_" not in name}


@VARIANTS
@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_only_adapter_weights_change(kind: Any, variant: Any) -> None:
    model = add_lora(tiny_model(kind), rank=2, alpha=4, dropout=0.0, seed=0, variant=variant)
    start, base, adapter = logits(model, kind), base_tensors(model), adapter_weights(model)
    train(model, kind)
    after, moved = base_tensors(model), adapter_weights(model)
    assert base.keys() == after.keys() and all(torch.equal(base[name], after[name]) for name in base)
    assert adapter.keys() == moved.keys() and not [name for name in moved if torch.equal(moved[name], adapter[name])]
    assert (logits(model, kind) - start).abs().max() > 1e-3


@VARIANTS
def test_every_variant_starts_as_the_base(variant: Any) -> None:
    model = add_lora(tiny_model(), rank=2, alpha=4, dropout=0.0, seed=0, variant=variant)
    assert (logits(model) - logits(tiny_model())).abs().max() < 1e-5
    settings = model.peft_config["default"]
    found = (settings.use_rslora, settings.use_dora, settings.init_lora_weights)
    assert found == (variant == "rslora", variant == "dora", "pissa_niter_16" if variant == "pissa" else True)


@pytest.mark.parametrize("parts", [["vision"], ["qformer", "language"]])
def test_parts_choose_what_is_adapted(parts: list[Any]) -> None:
    model = add_lora(tiny_model(), rank=2, alpha=4, dropout=0.0, seed=0, parts=parts)
    of_part = {"vision_model": "vision", "qformer": "qformer", "language_model": "language"}
    assert {of_part[name.split(".")[0]] for name in adapted_modules(model)} == set(parts)


def test_unknown_parts_and_variants_are_quoted() -> None:
    with pytest.raises(ValueError, match="vision, qformer, language, embeddings; got 'vit'"):
        add_lora(tiny_model(), 2, 4, 0.0, 0, parts=["vision", "vit"])
    with pytest.raises(ValueError, match="vision, qformer, language, embeddings; got none"):
        add_lora(tiny_model(), 2, 4, 0.0, 0, parts=[])
    with pytest.raises(ValueError, match="'pissa' cannot adapt the part 'embeddings'"):
        add_lora(tiny_model(), 2, 4, 0.0, 0, parts=["embeddings"], variant="pissa")
    with pytest.raises(ValueError, match="variant 'lora\\+' is unknown: use one of lora, rslora, dora, pissa"):
        add_lora(tiny_model(), 2, 4, 0.0, 0, variant="lora+")


@pytest.mark.parametrize("variant", ["lora", "pissa"])
def test_initial_weights_depend_on_the_seed_and_not_on_the_global_generator(variant: Any) -> None:
    models = (add_lora(tiny_model(), 2, 4, 0.0, seed, variant=variant) for seed in (0, 0, 1))
    first, second, other = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    model = tiny_model()
    state = torch.get_rng_state()
    add_lora(model, 2, 4, 0.0, 0, variant=variant)
    assert torch.equal(state, torch.get_rng_state())


@VARIANTS
@pytest.mark.parametrize("ratio", [None, 16.0])
def test_weight_decay_and_learning_rate_are_as_given(variant: Any, ratio: float | None) -> None:
    model = add_lora(tiny_model(), rank=2, alpha=4, dropout=0.0, seed=0, variant=variant)
    optimizer = make_optimizer(model, learning_rate=1e-3, weight_decay=0.5, lora_plus_ratio=ratio)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    optimized = [p for group in optimizer.param_groups for p in group["params"]]
    assert type(optimizer) is torch.optim.AdamW and len(optimized) == len(before) == len(set(map(id, optimized)))
    for parameter in optimized:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # without a gradient AdamW only shrinks, by rate x decay
    for name, parameter in model.named_parameters():
        if name in before:
            rate = 1e-3 * (ratio or 1) if "lora_B" in name or "magnitude" in name else 1e-3
            assert torch.allclose(parameter, before[name] * (1 - rate * 0.5), rtol=1e-6, atol=0), name


def test_lora_plus_trains_embeddings_at_the_learning_rate() -> None:
    model = add_lora(tiny_model(), rank=2, alpha=4, dropout=0.0, seed=0, parts=["embeddings"])
    optimizer = make_optimizer(model, learning_rate=1e-3, weight_decay=0.0, lora_plus_ratio=16)
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert {rates[id(p)] for name, p in model.named_parameters() if "lora_embedding" in name} == {1e-3}


@pytest.mark.parametrize("ratio", [0, -1.0, float("nan"), float("inf")])
def test_impossible_lora_plus_ratio_is_quoted(ratio: float) -> None:
    with pytest.raises(ValueError, match=f"lora_plus_ratio={ratio}: use a number above 0"):
        make_optimizer(add_lora(tiny_model(), 2, 4, 0.0, 0), 1e-3, 0.0, lora_plus_ratio=ratio)


@VARIANTS
def test_saved_adapter_loads_with_peft_alone(variant: Any, tmp_path: Path) -> None:
    base, run = tmp_path / "base", tmp_path / "run"
    save_plain_blip2(base)
    model = Blip2IdcForConditionalGeneration.from_pretrained(base)
    model = train(add_lora(model, rank=2, alpha=4, dropout=0.1, seed=0, variant=variant))
    save_adapter(model, tiny_processor(layout="horizontal"), run, base=str(base), revision=None)
    assert model.training and model.peft_config["default"].r == 2  # training can continue
    saved = json.loads((run / "adapter_config.json").read_text())
    assert saved["auto_mapping"]["base_model_class"] == "Blip2ForConditionalGeneration"
    assert saved["base_model_name_or_path"] == str(base) and saved["inference_mode"] is True
    names = sorted(path.name for path in run.iterdir())
    assert "adapter_model.safetensors" in names
    assert not [name for name in names if name.startswith(".") or name.endswith(".bin") or name == "README.md"]

    plain = PeftModel.from_pretrained(Blip2ForConditionalGeneration.from_pretrained(base), run)
    ours, processor = load(run, device="cpu")
    bare, _ = load(base, device="cpu")
    assert processor.layout == "horizontal"
    wanted = logits(model)
    assert (logits(bare) - wanted).abs().max() > 1e-2
    for loaded in (plain, ours):
        # PiSSA subtracts the initial adapter from the base, the plain adapter does so itself: equal up to rounding
        assert (logits(loaded) - wanted).abs().max() < (1e-5 if variant == "pissa" else 1e-30)
    assert (logits(merge(model)) - wanted).abs().max() < 1e-5


@VARIANTS
def test_merged_model_is_a_plain_one(variant: Any, tmp_path: Path) -> None:
    model = train(add_lora(tiny_model(), rank=2, alpha=4, dropout=0.0, seed=0, variant=variant))
    wanted = logits(model)
    merged = merge(model)
    assert type(merged) is Blip2IdcForConditionalGeneration
    assert merged.state_dict().keys() == tiny_model().state_dict().keys()
    merged.save_pretrained(tmp_path)
    again = Blip2IdcForConditionalGeneration.from_pretrained(tmp_path)
    assert (logits(again) - wanted).abs().max() < 1e-5
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == ["model.safetensors"]


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
@pytest.mark.parametrize(("kind", "own_head"), [("opt", False), ("t5", False), ("t5", True)])
def test_embeddings_and_head_are_adapted_loaded_and_merged(
    kind: Any, own_head: bool, variant: Any, tmp_path: Path
) -> None:
    """Both share one matrix in OPT, while FLAN-T5 has a head of its own: no adapter may be added to both."""
    base, run, whole = tmp_path / "base", tmp_path / "run", tmp_path / "whole"
    model = tiny_model(kind)
    if own_head:
        model.language_model.lm_head.weight = torch.nn.Parameter(model.language_model.lm_head.weight + 0.5)
    model.save_pretrained(base)
    tiny_processor(kind).save_pretrained(base)
    model, processor = load(base, device="cpu")
    model = add_lora(model, 2, 4, 0.0, 0, parts=["embeddings"], variant=variant)
    used = ["decoder.embed_tokens", "lm_head"] if kind == "t5" else ["model.decoder.embed_tokens", "lm_head"]
    names = adapted_modules(model)
    assert {name.removeprefix("language_model.") for name in names} - {"shared"} == set(used) and len(names) > 1
    start = logits(model, kind)
    train(model, kind, learning_rate=0.05)
    wanted = logits(model, kind)
    assert (wanted - start).abs().max() > 0.1
    save_adapter(model, processor, run, base=str(base), revision=None)
    plain = PeftModel.from_pretrained(Blip2ForConditionalGeneration.from_pretrained(base), run)
    for loaded in (plain, load(run, device="cpu")[0]):
        assert (logits(loaded, kind) - wanted).abs().max() < 1e-5
    export(whole, adapter=run, output_format="remote-code")
    export(tmp_path / "plain", adapter=run)
    for folder in (whole, tmp_path / "plain"):
        for merged in (load(folder, device="cpu")[0], Blip2ForConditionalGeneration.from_pretrained(folder)):
            assert (logits(merged, kind) - wanted).abs().max() < 1e-4


def test_merging_refuses_nans() -> None:
    model = add_lora(tiny_model(), rank=2, alpha=4, dropout=0.0, seed=0)
    next(p for name, p in model.named_parameters() if "lora_B" in name).data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        merge(model)


def test_plain_form_of_pissa_is_the_one_of_peft(tmp_path: Path) -> None:
    """Compare our conversion with PEFT's, which needs the initial adapter on disk and switches to eval mode."""
    model = add_lora(tiny_model(), rank=2, alpha=4, dropout=0.0, seed=0, variant="pissa")
    model.save_pretrained(tmp_path / "start")
    train(model)
    save_adapter(model, tiny_processor(), tmp_path / "ours", base="base", revision=None)
    model.save_pretrained(tmp_path / "pefts", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    ours, pefts = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("ours", "pefts"))
    assert ours.keys() == pefts.keys() and all(torch.equal(ours[name], pefts[name]) for name in ours)
    ours, pefts = (PeftConfig.from_pretrained(str(tmp_path / name)) for name in ("ours", "pefts"))
    names = ("r", "lora_alpha", "use_rslora", "init_lora_weights", "target_modules")
    assert {name: getattr(ours, name) for name in names} == {name: getattr(pefts, name) for name in names}
    assert (ours.r, ours.lora_alpha, ours.init_lora_weights) == (4, 8, True)


@VARIANTS
def test_weights_of_a_checkpoint_are_those_of_the_adapter_only(variant: Any) -> None:
    model = train(add_lora(tiny_model(), rank=2, alpha=4, dropout=0.0, seed=0, variant=variant))
    weights = adapter_weights(model)
    assert sum(tensor.numel() for tensor in weights.values()) == count_parameters(model)[0]
    assert all("lora_" in name and ".default" not in name and t.device.type == "cpu" for name, t in weights.items())
    wanted = logits(model)
    train(model)  # further steps do not change the copies
    assert (logits(model) - wanted).abs().max() > 1e-4
    set_peft_model_state_dict(model, weights)
    assert torch.equal(logits(model), wanted)
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    gathered = {name: torch.full_like(parameter, 7.0) for name, parameter in trainable.items()}
    from_elsewhere = adapter_weights(model, gathered)
    assert from_elsewhere.keys() == weights.keys() and all((tensor == 7).all() for tensor in from_elsewhere.values())


RESUMING = """
import sys, torch
sys.path.insert(0, "tests")
import test_adapters as t
model = t.add_lora(t.tiny_model(), rank=2, alpha=4, dropout=0.0, seed=5, variant=sys.argv[1])
t.set_peft_model_state_dict(model, t.load_file(sys.argv[2]))
t.save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, sys.argv[3])
t.save_adapter(model, t.tiny_processor(), t.Path(sys.argv[4]), base="base", revision=None)
"""


@pytest.mark.parametrize("variant", ["dora", "pissa"])
def test_another_process_gets_the_very_same_model(variant: Any, root: Path, tmp_path: Path) -> None:
    """The seed and a checkpoint of the adapter's weights suffice, although PiSSA changes the base as well."""
    model = train(add_lora(tiny_model(), rank=2, alpha=4, dropout=0.0, seed=5, variant=variant))
    save_file(adapter_weights(model), tmp_path / "checkpoint.safetensors")
    save_adapter(model, tiny_processor(), tmp_path / "here", base="base", revision=None)
    places = [str(tmp_path / name) for name in ("checkpoint.safetensors", "model.safetensors", "there")]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", RESUMING, variant, *places], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    other = load_file(places[1])
    assert all(torch.equal(tensor, other[name]) for name, tensor in model.state_dict().items())
    here, there = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("here", "there"))
    assert here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in here)


@VARIANTS
def test_training_continues_from_a_saved_adapter(variant: Any, tmp_path: Path) -> None:
    first = train(add_lora(tiny_model(), rank=2, alpha=4, dropout=0.0, seed=0, variant=variant))
    save_adapter(first, tiny_processor(), tmp_path / "first", base="base", revision=None)
    second = load_adapter(tiny_model(), str(tmp_path / "first"), trainable=True)
    assert (logits(second) - logits(first)).abs().max() < 1e-5
    trainable = {name for name, parameter in second.named_parameters() if parameter.requires_grad}
    assert trainable == {name for name, _ in second.named_parameters() if "lora_" in name}
    base, adapter = base_tensors(second), adapter_weights(second)
    train(second)
    after, moved = base_tensors(second), adapter_weights(second)
    assert all(torch.equal(base[name], after[name]) for name in base)
    assert not [name for name in moved if torch.equal(moved[name], adapter[name])]
    save_adapter(second, tiny_processor(), tmp_path / "second", base="base", revision=None)
    third = load_adapter(tiny_model(), str(tmp_path / "second"))
    assert torch.equal(logits(third), logits(second)) and count_parameters(third)[0] == 0


def test_adapters_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save_adapter(add_lora(tiny_model(), 2, 4, 0.0, 0), tiny_processor(), tmp_path, base="base", revision=None)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    first = min(weights)
    for name, others in (
        ("some", {name: tensor for name, tensor in weights.items() if name != first}),
        ("wide", {**weights, first: torch.zeros(3, 32)}),
    ):
        save_file(others, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
        for trainable in (False, True):
            with pytest.raises(ValueError, match="does not fit this model"):
                load_adapter(tiny_model(), str(tmp_path), trainable=trainable)
                pytest.fail(name)
    with pytest.raises(OSError, match="nowhere' does not exist"):
        load_adapter(tiny_model(), str(tmp_path / "nowhere"))


def test_unconverted_pissa_is_not_trained_on(tmp_path: Path) -> None:
    add_lora(tiny_model(), 2, 4, 0.0, 0, variant="pissa").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="init_lora_weights='pissa_niter_16'.* save it as plain LoRA first"):
        load_adapter(tiny_model(), str(tmp_path), trainable=True)


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
