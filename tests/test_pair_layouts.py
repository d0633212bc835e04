"""measurements/pair_layouts.py: equally many image tokens for every layout, its commands, its table."""

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from program_files import load_program
from tiny_chat_models import saved_on_first_use

import train
from captioner_idc.loading import load
from metric_idc.resampling import mean_over_seeds

TOY = {"train": 6, "validation": 2, "test": 4}


@pytest.fixture(scope="module")
def experiment(root: Path) -> ModuleType:
    return load_program(root / "measurements" / "pair_layouts.py")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the folder of a family's tiny model."""
    return saved_on_first_use(tmp_path_factory.mktemp("chat"))


@pytest.fixture
def commands(experiment: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    given: list[tuple[str, ...]] = []
    monkeypatch.setattr(experiment, "run", lambda log, *arguments: given.append(arguments))
    return given


def pictures(width: int, height: int) -> list[tuple[Image.Image, Image.Image]]:
    return [(Image.new("RGB", (width, height)), Image.new("RGB", (width, height), "white"))] * 2


def option(command: tuple[str, ...], name: str) -> str:
    return command[command.index(name) + 1]


def arguments_for(experiment: ModuleType, folder: Path, *more: str) -> Namespace:
    given = ["--model", "some/model", "--benchmark", "toy", "--output_dir", str(folder)]
    return experiment.parse_arguments([*given, *more])


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "qwen3_5"])
def test_layouts_have_equally_many_image_tokens(
    experiment: ModuleType, folders: Callable[[str], Path], family: str
) -> None:
    unit = 28 if family == "qwen2_5_vl" else 32
    model, processor = load(folders(family), device="cpu", processor={"pixels": 6 * 4 * unit**2})
    possible = experiment.possible_layouts(processor)
    chosen = experiment.equal_tokens(model, processor, possible, pictures(12 * unit, 8 * unit))
    assert list(chosen) == ["two_images", "vertical", "horizontal", "two_frames"]
    assert [tokens for _, tokens in chosen.values()] == [48.0, 48.0, 48.0, 9 * 6], "8 x 5 is farther from 48"
    assert {pixels for pixels, _ in list(chosen.values())[:3]} == {6 * 4 * unit**2}


def test_small_images_lower_the_tokens_of_all_layouts(experiment: ModuleType, folders: Callable[[str], Path]) -> None:
    model, processor = load(folders("qwen3_vl"), device="cpu")
    chosen = experiment.equal_tokens(model, processor, ["two_images", "two_frames"], pictures(12 * 32, 8 * 32))
    (fewer, tokens), (whole, frames) = chosen["two_images"], chosen["two_frames"]
    assert frames == 12 * 8, "two frames cannot have more than their images"
    assert frames / 1.25 <= tokens <= frames * 1.25 and fewer < whole == processor.pixels


def test_families_with_a_fixed_number_are_measured_as_they_are(
    experiment: ModuleType, folders: Callable[[str], Path], capsys: pytest.CaptureFixture
) -> None:
    model, processor = load(folders("gemma3"), device="cpu")
    layouts = experiment.possible_layouts(processor)
    chosen = experiment.equal_tokens(model, processor, layouts, pictures(64, 48))
    assert chosen == {"two_images": (1024, 8.0), "vertical": (1024, 4.0), "horizontal": (1024, 4.0)}
    views = [{"layout": layout, "image_tokens": tokens} for layout, (_, tokens) in chosen.items()]
    experiment.warn_of_unequal_tokens(views[1:])
    assert not capsys.readouterr().err
    experiment.warn_of_unequal_tokens(views)
    assert "two_images 8.0, vertical 4.0, horizontal 4.0" in capsys.readouterr().err


def test_the_commands_of_a_layout(experiment: ModuleType, commands: list[tuple[str, ...]], tmp_path: Path) -> None:
    more = (
        "--prompt",
        "What?",
        "--processor",
        '{"max_caption_length": 9}',
        "--train",
        "--lora_rank 4 --quantize 4bit",
    )
    arguments = arguments_for(experiment, tmp_path, *more, "--evaluate", "--batch_size 3", "--revision", "abc")
    arguments.zero_shot = "--examples 5"
    data, view = experiment.Data("toy", {"seed": 3}, "test"), {"pixels": 5000}
    for seed in (None, 7):
        experiment.finish(experiment.Cell("vertical", seed), view, data, arguments)
    zero_shot, trained, scored = commands
    settings = {"max_caption_length": 9, "prompt": "What?", "layout": "vertical", "pixels": 5000}
    assert zero_shot[0] == scored[0] == "evaluate.py" and trained[0] == "train.py"
    for command in (zero_shot, trained):
        assert option(command, "--model") == "some/model" and option(command, "--revision") == "abc"
        assert json.loads(option(command, "--processor")) == settings
    for command in commands:
        assert json.loads(option(command, "--benchmark_options")) == {"seed": 3}
    assert option(scored, "--adapter") == option(trained, "--output_dir") == str(tmp_path / "vertical-lora-7")
    assert "--processor" not in scored, "the adapter's own settings are used"
    assert option(trained, "--seed") == "7" and option(trained, "--quantize") == "4bit" and "--resume" in trained
    assert option(zero_shot, "--examples") == "5" and "--examples" not in scored
    assert option(zero_shot, "--batch_size") == option(scored, "--batch_size") == "3"


def test_what_is_scored_is_not_repeated(
    experiment: ModuleType, commands: list[tuple[str, ...]], tmp_path: Path
) -> None:
    arguments, cell = arguments_for(experiment, tmp_path), experiment.Cell("two_images", 1)
    results = experiment.results_of(cell, arguments)
    results.mkdir(parents=True)
    (results / "metrics.json").write_text("{}")
    experiment.finish(cell, {"pixels": 1}, experiment.Data("toy", {}, "test"), arguments)
    assert not commands


def test_other_settings_need_another_folder(
    experiment: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(experiment, "view_layouts", lambda *_: {"machine": "m", "layouts": []})
    data = experiment.Data("toy", {}, "test")
    first = experiment.saved_views(arguments_for(experiment, tmp_path), data)
    assert experiment.saved_views(arguments_for(experiment, tmp_path, "--seeds", "1", "2"), data) == first
    with pytest.raises(ValueError, match="was made with another --processor: name another --output_dir"):
        experiment.saved_views(arguments_for(experiment, tmp_path, "--prompt", "Why?"), data)


def test_a_layout_in_the_processor_settings_is_refused(experiment: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name layouts with --layouts"):
        arguments_for(experiment, tmp_path, "--processor", '{"layout": "vertical"}')


def test_a_model_without_layouts_is_refused(experiment: ModuleType, tiny_captioner: Path, tmp_path: Path) -> None:
    arguments = arguments_for(experiment, tmp_path)
    arguments.model = str(tiny_captioner)
    with pytest.raises(ValueError, match="is not a vision-language model"):
        experiment.view_layouts(arguments, experiment.Data("toy", TOY, "test"))


def test_a_failed_command_is_reported_with_its_log(experiment: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    with pytest.raises(RuntimeError, match="(?s)`evaluate.py .*` ended with code 2, see .*--model or --adapter"):
        experiment.run(log, "evaluate.py", "--benchmark", "toy")
    assert "is missing" in log.read_text()


def row(experiment: ModuleType, layout: str, use: str, cider: float, accuracy: float | None) -> dict[str, Any]:
    scores = {"BLEU-4": 0.25, "METEOR": 0.5, "CIDEr": cider, "change_type_accuracy": accuracy}
    estimate = mean_over_seeds(np.full((2, 5), cider))
    needs = {"layout": layout, "pixels": 4096, "image_tokens": 48.0, "seconds": 0.5}
    return {**needs, "use": use, "scores": scores, "CIDEr": estimate}


def test_the_table_has_a_row_per_layout_and_use(experiment: ModuleType, tmp_path: Path) -> None:
    rows = [row(experiment, layout, use, 1.5, None) for use in ("zero-shot", "LoRA") for layout in ("a", "b")]
    rows[3] |= {"gain": mean_over_seeds(np.full((2, 5), -0.25))}
    rows[3]["scores"]["change_type_accuracy"] = 0.875
    constant = {"scores": {"BLEU-4": 0.1, "METEOR": 0.2, "CIDEr": 0.3}}
    lines = experiment.table_of({"rows": rows, "constant_caption": constant}).splitlines()
    assert len(lines) == 2 + 4 + 1 and len({line.count("|") for line in lines}) == 1
    assert lines[2] == "| a | zero-shot | 48.0 | 0.500 | 0.250 | 0.500 | 1.500 [1.500, 1.500] |  |  |"
    assert lines[5].endswith("| -0.250 [-0.250, -0.250] | 87.5% |")
    assert lines[6] == "| constant caption | | | | 0.100 | 0.200 | 0.300 | | |"
    experiment.draw({"rows": rows, "constant_caption": constant}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_few_pairs_from_command_to_table(
    experiment: ModuleType,
    folders: Callable[[str], Path],
    program: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    """The programs run in this process, which saves the time of starting them."""
    ran, programs = [], {"train.py": train.main, "evaluate.py": program.main}

    def run(log: Path, name: str, *arguments: str) -> None:
        ran.append(name)
        assert programs[name](list(arguments)) == 0

    monkeypatch.setattr(experiment, "run", run)
    page = tmp_path / "page.md"
    page.write_text("{}\nold\n{}\n".format(*experiment.MARKS))
    model = ["--model", str(folders("qwen3_vl")), "--processor", '{"max_caption_length": 6}']
    data = ["--benchmark", "toy", "--benchmark_options", json.dumps(TOY), "--pairs", "3", "--measured", "2"]
    training = "--lora_rank 2 --validation_captions 0 --mixed_precision no"
    places = ["--output_dir", str(tmp_path / "runs"), "--results", str(tmp_path / "results"), "--page", str(page)]
    command = [*model, *data, *places, "--layouts", "two_images", "two_frames", "--epochs", "1", "--train", training]
    assert experiment.main(command) == 0
    assert ran == ["evaluate.py"] * 2 + ["train.py", "evaluate.py"] * 2
    summary = json.loads((tmp_path / "results" / "results.json").read_text())
    table = experiment.table_of(summary)
    assert table in page.read_text() and table in capsys.readouterr().out
    assert [(each["layout"], each["use"]) for each in summary["rows"]] == [
        (layout, use) for use in ("zero-shot", "LoRA") for layout in ("two_images", "two_frames")
    ]
    assert summary["settings"]["benchmark"] == "toy" and str(tmp_path / "runs") not in json.dumps(summary)
    assert all(each["seconds"] > 0 and each["image_tokens"] > 0 for each in summary["rows"])
    assert experiment.main(command) == 0 and len(ran) == 6, "the second time everything is there"
