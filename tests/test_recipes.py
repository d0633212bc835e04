"""The recipes of configs/: their keys and facts, and the launch files of configs/accelerate."""

import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType
from tiny_models import tiny_model

import train
from common_idc.redaction import folder_name
from dataset_syned import BENCHMARKS

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RECIPES = {path.stem: path for path in sorted(CONFIGS.glob("*.yaml"))}
ZERO_SHOT = {path.stem: path for path in sorted((CONFIGS / "zero_shot").glob("*.yaml"))}
TEST_ONLY = ("vlm_subtlebench", "diffspot", "spot_the_shift")  # benchmarks without a train split: nothing is trained
LAUNCHES = {path.stem: path for path in sorted((CONFIGS / "accelerate").glob("*.yaml"))}
PAPER = ("clevr_change", "clevr_dc", "spot_the_diff", "image_editing_request", "syned", "syned_emu")
each_recipe = pytest.mark.parametrize("name", RECIPES)
each_launch = pytest.mark.parametrize("name", LAUNCHES)


def header(path: Path) -> list[str]:
    """Return the comment lines before the first key, without the leading #."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("#").strip() for line in lines[: next(i for i, x in enumerate(lines) if x[:1] != "#")]]


def commands(path: Path) -> list[list[str]]:
    return [shlex.split(line) for line in header(path) if "accelerate launch" in line]


@each_recipe
def test_every_key_of_a_recipe_is_parsed(name: str) -> None:
    config = train.parse_config(["--config", str(RECIPES[name])])
    entries = yaml.safe_load(RECIPES[name].read_text(encoding="utf-8"))
    entries["model"] = folder_name(entries["model"])
    assert {key: getattr(config, key) for key in entries} == entries
    assert config.benchmark in BENCHMARKS and config.alpha == 2 * config.lora_rank
    assert config.output_dir == f"runs/{name}"
    assert set(config.processor) <= {"blur", "prompt"} and 0 <= config.processor.get("blur", 0) <= 0.5


@each_recipe
def test_base_model_is_in_this_repository_or_pinned_to_a_commit(name: str) -> None:
    entries = yaml.safe_load(RECIPES[name].read_text(encoding="utf-8"))
    if (CONFIGS.parent / entries["model"]).is_dir():
        assert "revision" not in entries
    else:
        assert re.fullmatch(r"[0-9a-f]{40}", entries["revision"])


@pytest.mark.parametrize("name", sorted(set(ZERO_SHOT) - set(TEST_ONLY)))
def test_zero_shot_recipe_asks_the_model_of_the_trained_one_the_same_question(name: str, program: ModuleType) -> None:
    trained = train.parse_config(["--config", str(RECIPES[f"qwen3_vl_{name}"])])
    python, file, *own = shlex.split(header(ZERO_SHOT[name])[0])
    assert (python, file, own) == ("python", "evaluate.py", ["--config", f"configs/zero_shot/{name}.yaml"])
    config = program.parse_config(["--config", str(ZERO_SHOT[name])])
    assert (config.model, config.revision) == (trained.model, trained.revision)
    assert (config.benchmark, config.prompt) == (trained.benchmark, trained.processor["prompt"])
    assert config.examples and config.output_dir == f"runs/zero_shot/{name}" and "\n" not in config.prompt


@pytest.mark.parametrize("name", TEST_ONLY)
def test_recipe_of_a_benchmark_without_train_split_asks_one_question(name: str, program: ModuleType) -> None:
    python, file, *own = shlex.split(header(ZERO_SHOT[name])[0])
    assert (python, file, own) == ("python", "evaluate.py", ["--config", f"configs/zero_shot/{name}.yaml"])
    config = program.parse_config(["--config", str(ZERO_SHOT[name])])
    assert "train" not in BENCHMARKS[name].EXPECTED.get("default", {}) and not config.examples
    assert (config.benchmark, config.output_dir) == (name, f"runs/zero_shot/{name}") and config.prompt
    assert re.fullmatch(r"[0-9a-f]{40}", config.revision) and "\n" not in config.prompt


def test_each_vision_language_recipe_has_one_without_training() -> None:
    assert {f"qwen3_vl_{name}" for name in set(ZERO_SHOT) - set(TEST_ONLY)} == {
        name for name in RECIPES if name.startswith("qwen3_vl_")
    }


@each_recipe
def test_recipe_opens_with_commands_that_can_be_parsed(name: str, root: Path) -> None:
    assert "accelerate launch" in header(RECIPES[name])[0]
    for words in commands(RECIPES[name]):
        own = words[words.index("train.py") + 1 :]
        assert own[:2] == ["--config", f"configs/{name}.yaml"]
        config = train.parse_config(["--config", str(RECIPES[name]), *own[2:]])
        assert config.benchmark in BENCHMARKS
        launch = launch_command_parser().parse_args(words[words.index("launch") + 1 :])
        assert launch.config_file is None or (root / launch.config_file).is_file()
    if name != "toy":
        assert any(line.startswith("To beat: ") for line in header(RECIPES[name])), (
            "state the number to beat, or why there is none"
        )


def test_recipes_have_the_papers_settings() -> None:
    """Ranks are from the released adapter_config.json, learning rates from the names of the released checkpoints."""
    found = {}
    for name in PAPER:
        config = train.parse_config(["--config", str(RECIPES[name])])
        found[name] = (
            config.lora_rank,
            config.learning_rate,
            config.processor.get("blur", 0) > 0,
            config.caption_choice,
        )
        assert config.model == "Salesforce/blip2-opt-2.7b" and config.lora_dropout == 0.05
        assert (config.batch_size, config.epochs, config.patience, config.best_by) == (16, 100, 10, "loss")
    assert found == {
        "clevr_change": (16, 1e-4, False, "random"),
        "clevr_dc": (8, 5e-5, False, "random"),
        "spot_the_diff": (8, 1e-4, False, "random"),
        "image_editing_request": (16, 1e-4, True, "shortest"),
        "syned": (32, 4e-5, True, "random"),
        "syned_emu": (8, 5e-5, True, "random"),
    }


def test_second_stage_continues_from_the_first() -> None:
    first, second = (
        train.parse_config(["--config", str(RECIPES["syned_emu"]), *words[words.index("train.py") + 3 :]])
        for words in commands(RECIPES["syned_emu"])
    )
    assert (first.benchmark, first.adapter, second.benchmark) == ("syned", None, "emu_edit")
    assert second.adapter == first.output_dir != second.output_dir


@each_launch
def test_accelerate_knows_every_key(name: str) -> None:
    config = load_config_from_file(str(LAUNCHES[name]))  # raises for unknown keys
    options = vars(launch_command_parser().parse_args(["train.py"]))
    for nested in (config.fsdp_config, config.deepspeed_config):  # copied over the options without a check
        assert set(nested) <= set(options)
    types = {"one_gpu": "NO", "fsdp2": "FSDP", "deepspeed_zero2": "DEEPSPEED", "deepspeed_zero3": "DEEPSPEED"}
    assert config.distributed_type == DistributedType(types.get(name, "MULTI_GPU"))


@each_launch
def test_launch_file_opens_with_its_command_and_says_whether_it_was_run(name: str) -> None:
    words = commands(LAUNCHES[name])[0]
    start = words.index("accelerate")
    launch = launch_command_parser().parse_args(words[start + 2 :])
    assert header(LAUNCHES[name])[0].endswith(shlex.join(words[start:])) and launch.training_script == "train.py"
    assert launch.config_file == f"configs/accelerate/{name}.yaml"
    own: list[Any] = launch.training_script_args
    train.parse_config(["--config", str(CONFIGS.parent / own[1]), *own[2:]])
    assert re.search(r"^Run: (yes|no)\b", "\n".join(header(LAUNCHES[name])), re.MULTILINE)


def test_fsdp_wraps_layers_that_the_model_has() -> None:
    text = LAUNCHES["fsdp2"].read_text(encoding="utf-8")
    names = load_config_from_file(str(LAUNCHES["fsdp2"])).fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(",")
    assert len(names) == 3 and set(names) <= {type(module).__name__ for module in tiny_model().modules()}
    names[2] = re.search(r"For FLAN-T5 put (\w+) in OPTDecoderLayer's place", text).group(1)
    assert set(names) <= {type(module).__name__ for module in tiny_model("t5").modules()}
