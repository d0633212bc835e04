"""measurements/tiny_vlm_from_scratch.py: a model that its layouts can train, and the table in the documentation."""

import json
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from program_files import load_program
from tiny_chat_models import SENTENCES

from captioner_idc.chat_models import image_token_id
from captioner_idc.chat_pairs import LAYOUTS
from captioner_idc.loading import load
from dataset_syned import load_benchmark


@pytest.fixture(scope="module")
def experiment(root: Path) -> ModuleType:
    return load_program(root / "measurements" / "tiny_vlm_from_scratch.py")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_trains_all_weights(experiment: ModuleType, tmp_path: Path, layout: str) -> None:
    rows = load_benchmark("toy", "train", train=8, validation=1, test=1)
    settings = {"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "seed": 0, "bf16": False}
    experiment.make_model(layout, rows, tmp_path, Namespace(**settings))
    model, processor = load(tmp_path, device="cpu")
    assert processor.settings["layout"] == layout
    before, _ = load(tmp_path / "random", device="cpu", processor={"pixels": 96 * 48})
    after = dict(model.named_parameters())
    still = [name for name, weight in before.named_parameters() if torch.equal(weight, after[name])]
    assert not still, "these weights were not trained"
    inputs = experiment.training_inputs(processor, list(rows.select(range(2))))
    tokens = int((inputs["input_ids"] == image_token_id(model.config)).sum()) / 2
    assert tokens == (32 if layout == "two_frames" else 36)
    lines = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 4 and 0 < lines[-1]["loss"] < 10


def test_the_learning_rate_rises_and_falls(experiment: ModuleType) -> None:
    rates = [experiment.learning_rate(step, 800, 1e-3) for step in range(800)]
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[top] == pytest.approx(1e-3) and rates[-1] < 1e-5 and 90 < top < 110


def test_other_settings_need_another_folder(experiment: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "vertical").mkdir()
    (tmp_path / "vertical" / "settings.json").write_text('{"steps": 1}')
    settings = dict.fromkeys(experiment.SETTINGS, 2) | {"output_dir": tmp_path}
    with pytest.raises(ValueError, match="was made with other settings: name another --output_dir"):
        experiment.finish("vertical", [], Namespace(**settings))


def test_the_tokenizer_spells_any_text(experiment: ModuleType) -> None:
    tokenizer = experiment.build_tokenizer(list(SENTENCES))
    text = "Ein Würfel ist verschwunden: <b>"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_the_documentation_shows_the_measured_table(experiment: ModuleType, root: Path) -> None:
    results = json.loads((root / "docs" / "results" / "pair_layouts" / "from_scratch.json").read_text())
    start, end = experiment.MARKS
    documentation = (root / "docs" / "training.md").read_text(encoding="utf-8")
    assert documentation.split(start)[1].split(end)[0].strip() == experiment.table_of(results["rows"])
    assert [row["layout"] for row in results["rows"]] == list(LAYOUTS)
    for row in results["rows"]:
        assert row["interval"][0] > row["constant_caption"], "a model that sees the images does better"
        assert row["interval"][0] > row["sentences_exchanged"]
