"""measurements/full_size.py: the architecture of BLIP-2 OPT-2.7B, and a small checkpoint written by the same code."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from program_files import load_program
from tiny_models import tiny_config
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, Blip2ForConditionalGeneration

from captioner_idc.captioning import caption
from captioner_idc.loading import load


@pytest.fixture(scope="module")
def full_size(root: Path) -> ModuleType:
    return load_program(root / "measurements" / "full_size.py")


@pytest.fixture(scope="module")
def small(full_size: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of few, narrow layers with the full vocabulary, in shards smaller than the embedding."""
    config = full_size.full_size_config()
    small, text = tiny_config(), config.text_config
    for name in ("hidden_size", "word_embed_proj_dim", "ffn_dim", "num_hidden_layers", "num_attention_heads"):
        setattr(text, name, getattr(small.text_config, name))
    config.vision_config, config.qformer_config = small.vision_config, small.qformer_config
    config.qformer_config.encoder_hidden_size = config.vision_config.hidden_size
    folder = tmp_path_factory.mktemp("full-size") / "small"
    parameters = full_size.make_checkpoint(folder, config, shard_size=10**6)
    assert parameters == sum(p.numel() for p in Blip2ForConditionalGeneration(config).parameters())
    return folder


def test_shape_is_that_of_blip2_opt(full_size: ModuleType) -> None:
    config = full_size.full_size_config()
    with torch.device("meta"):
        model = Blip2ForConditionalGeneration(config)
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == 3_744_761_856  # 7.49 GB; the published model has 3.74 billion
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert shapes["query_tokens"] == (1, 32, 768)
    assert shapes["vision_model.encoder.layers.38.self_attn.qkv.weight"] == (4224, 1408)
    assert shapes["vision_model.embeddings.position_embedding"] == (1, 257, 1408)
    assert shapes["qformer.encoder.layer.11.attention.attention.key.weight"] == (768, 768)
    assert shapes["language_model.model.decoder.layers.31.fc1.weight"] == (10240, 2560)
    assert shapes["language_model.model.decoder.embed_tokens.weight"] == (50304, 2560)
    assert config.image_token_index == 50265 and config.text_config.max_position_embeddings == 2048


def test_folder_is_a_sharded_checkpoint_in_bfloat16(small: Path, full_size: ModuleType) -> None:
    files = {path.name for path in small.iterdir()}
    index = json.loads((small / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {name for name in files if name.endswith(".safetensors")}
    assert len(set(index["weight_map"].values())) > 1 and not [name for name in files if name.startswith(".")]
    plain, report = AutoModelForImageTextToText.from_pretrained(small, output_loading_info=True)
    assert type(plain) is Blip2ForConditionalGeneration and plain.dtype == torch.bfloat16
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    assert AutoConfig.from_pretrained(small).architectures == ["Blip2ForConditionalGeneration"]
    spread = plain.vision_model.encoder.layers[0].mlp.fc1.weight.float().std().item()
    assert spread == pytest.approx(full_size.SPREAD, rel=0.1)
    assert plain.vision_model.post_layernorm.weight.eq(1).all() and plain.vision_model.post_layernorm.bias.eq(0).all()


def test_tokenizer_has_the_token_ids_of_opt(small: Path) -> None:
    tokenizer = AutoProcessor.from_pretrained(small).tokenizer
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 2, 1)
    assert tokenizer.convert_tokens_to_ids("<image>") == 50265 and len(tokenizer) == 50266
    words = tokenizer("a red circle has appeared", add_special_tokens=False)["input_ids"]
    assert len(words) <= 6 and tokenizer.decode(words) == "a red circle has appeared"
    assert tokenizer("zebra")["input_ids"][0] == 2


def test_small_checkpoint_loads_and_captions(small: Path, root: Path) -> None:
    model, processor = load(small, device="cpu", dtype=torch.bfloat16)
    assert (processor.image_token_id, processor.decoder_only, model.config.image_token_id) == (50265, True, 50265)
    pair = (root / "docs" / "before.jpg", root / "docs" / "after.jpg")
    sentence = caption(model, processor, [pair], max_new_tokens=5)
    assert len(sentence) == 1 and isinstance(sentence[0], str)
    inputs = processor(before=pair[0], after=pair[1], captions="the red circle is gone")
    loss = model(**inputs.to(torch.bfloat16)).loss
    assert torch.isfinite(loss) and 9 < loss < 12.5  # about ln(50304) = 10.8: the weights are random


def test_unsuitable_folders_are_refused(
    full_size: ModuleType, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    (tmp_path / "file").write_text("")
    for folder, message in ((root / "runs" / "x", "is inside the repository"), (tmp_path, "is there already")):
        assert full_size.main([str(folder)]) == 2
        assert message in capsys.readouterr().err and not (root / "runs" / "x").exists()
    monkeypatch.setattr(full_size.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 3.21e9}))
    assert full_size.main([str(tmp_path / "new" / "deep")]) == 2
    assert capsys.readouterr().err == (
        f"error: {str(tmp_path)!r} has 3.2 GB left, 8 are needed: name a folder on another disk\n"
    )
    assert not (tmp_path / "new").exists()


def test_failure_leaves_nothing(full_size: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(full_size, "save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        full_size.make_checkpoint(tmp_path / "x", tiny_config())
    assert not list(tmp_path.iterdir())


def test_printed_commands_can_be_parsed(full_size: ModuleType, tmp_path: Path) -> None:
    import shlex

    import train
    from captioner_idc.__main__ import _parse_arguments

    lines = full_size.next_commands(tmp_path / "a b").replace("\\\n", " ").splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith(("  python", "  blip2idc"))]
    assert len(commands) == 3
    config = train.parse_config(commands[0][2:])
    assert config.model == str(tmp_path / "a b") and config.benchmark_options["train"] == 4
    for arguments in commands[1:]:
        assert _parse_arguments(arguments[1:]).after == "docs/after.jpg"
