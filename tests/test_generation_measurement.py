"""measurements/generation.py on few, narrow layers: its rows, and its refusal of results that differ."""

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from program_files import load_program


@pytest.fixture(scope="module")
def generation(root: Path) -> ModuleType:
    return load_program(root / "measurements" / "generation.py", "generation_measurement")


@pytest.fixture(scope="module")
def setting(generation: ModuleType) -> Any:
    config = generation.small_config()
    config.vision_config.num_hidden_layers = config.qformer_config.num_hidden_layers = 1
    config.text_config.num_hidden_layers = 1
    return generation.Setting(config=config, new_tokens=3, repeats=1)


@pytest.fixture(scope="module")
def models(generation: ModuleType, setting: Any) -> Any:
    return generation.make_models(setting, generation.small_processor())


def test_rows_compare_the_same_work(generation: ModuleType, setting: Any, models: Any) -> None:
    rows = [generation.measure_captions(models, setting, 2), generation.measure_answers(models, setting)]
    rows += [generation.measure_evaluation(models, setting, 1), *generation.measure_floors(models, setting, 2)]
    assert len({row["what"] for row in rows}) == 5
    assert all(row["ratio"] > 0 and row["repeats"] == 1 and row["goal"] is None for row in rows)


def test_other_results_are_an_error(generation: ModuleType, setting: Any, models: Any) -> None:
    other = generation.make_models(setting, models.processor).merged
    with torch.no_grad():
        other.language_model.lm_head.weight.copy_(other.language_model.lm_head.weight.roll(1, 0))
    changed = dataclasses.replace(models, merged=other)
    with pytest.raises(ValueError, match="differ by"):
        generation.check_scores(changed, setting, generation.load_pairs(models, generation.draw_files(1)))
    with pytest.raises(ValueError, match="of the tokens are those of"):
        generation.check_tokens(changed, setting, generation.draw_files(2))


def test_operations_are_counted_from_shapes(generation: ModuleType, setting: Any) -> None:
    vision = setting.config.vision_config
    tokens, width, wide = 257, vision.hidden_size, vision.intermediate_size
    products = 2 * tokens * width * (4 * width + 2 * wide) + 2 * 2 * tokens * tokens * width
    patches = 2 * 256 * width * 3 * 14 * 14
    assert generation.count_operations(setting.config, torch.Size([2, 3, 224, 224])) == 2 * (products + patches)
