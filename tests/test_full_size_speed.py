"""full_size.py --gpu on few, narrow layers, and the picture of where time goes."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from program_files import load_program

MODULES = ("bench", "full_size", "full_size_speed", "generation", "original_recipe", "paired", "training_step")


@pytest.fixture
def measurements(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder of the measurements, which import each other."""
    monkeypatch.syspath_prepend(str(root / "measurements"))
    yield root / "measurements"
    for name in (*MODULES, "tiny_vlm_from_scratch"):
        sys.modules.pop(name, None)


@pytest.fixture
def program(measurements: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the program, whose small BLIP-2 has one layer per part here."""
    program = load_program(measurements / "full_size.py", "full_size")
    import full_size_speed
    import training_step

    config = full_size_speed.small_config()
    for part in (config.vision_config, config.qformer_config, config.text_config):
        part.num_hidden_layers = 1
    monkeypatch.setattr(full_size_speed, "small_config", lambda: config)
    monkeypatch.setattr(training_step, "small_config", lambda: config)
    return program


def test_qwen3_vl_has_the_shape_of_the_published_model(program: ModuleType) -> None:
    from transformers import Qwen3VLForConditionalGeneration

    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(program.qwen3_vl_config())
    assert sum(p.numel() for p in model.parameters()) == 2_127_532_032
    assert model.model.visual.merger.linear_fc2.weight.shape == (2048, 4096)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_full_shapes_need_a_gpu(program: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--gpu"]) == 2
    assert "--gpu needs a CUDA GPU with 80 GB: add --small" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["folder", "--gpu"]])
def test_one_of_both_is_asked_for(program: ModuleType, words: list[str]) -> None:
    with pytest.raises(SystemExit):
        program.main(words)


def test_small_shapes_give_all_rows(program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--gpu", "--small", "--output", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    printed = capsys.readouterr().out
    for model, goals in (("BLIP-2", [2.0, 5.0, 2.0, None, None]), ("Qwen3-VL", [2.0, 5.0])):
        own = [row for row in rows if row["what"].startswith(f"{model}: ")]
        goals = goals if not torch.cuda.is_available() else [goals[0], 0.6, *goals[1:]]
        assert [row["goal"] for row in own] == goals and all(row["ratio"] > 0 for row in own)
        assert all(f"{row['what']}: " in printed for row in own)


def test_captions_are_padded_for_the_plain_model(program: ModuleType, measurements: Path) -> None:
    import full_size_speed

    class Processor:
        tokenizer = type("Tokenizer", (), {"pad_token_id": 7})

    inputs = {
        "input_ids": torch.tensor([[1, 1, 5, 2], [1, 1, 2, 7]]),
        "labels": torch.tensor([[-100, -100, 5, 2], [-100, -100, 2, -100]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
        "pixel_values": torch.zeros(2, 3, 4, 4),
        "pixel_grid": torch.zeros(2, 3),
    }
    padded = full_size_speed.padded_captions(inputs, Processor())
    assert padded["input_ids"].shape == (2, 32) and padded["input_ids"][0, 4:].eq(7).all()
    assert padded["labels"][:, 4:].eq(-100).all() and padded["attention_mask"][:, 4:].eq(0).all()
    assert padded["pixel_values"].shape == (2, 3, 4, 4) and padded["pixel_grid"].shape == (2, 3)


def test_the_picture_shows_every_part(program: ModuleType, measurements: Path, tmp_path: Path) -> None:
    where = load_program(measurements / "where_time_goes.py")
    where.small_config = sys.modules["full_size_speed"].small_config
    ours = where.training_times(sys.modules["training_step"].RECIPES["float32"], 1)
    assert set(ours) == {where.IMAGES, *where.PARTS, where.BACKWARD, where.OPTIMIZER, where.REST}
    assert all(ours[part] > 0 for part in (*where.PARTS, where.BACKWARD))
    where.draw({"a": ours, "b": ours}, 1, tmp_path / "x.png")
    assert Image.open(tmp_path / "x.png").width > 1000
