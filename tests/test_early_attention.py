"""measurements/early_attention.py: what each arm sees, its runs, and its tables."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

SENTENCES = ["the small red circle is gone", "a large blue square has been added", "nothing has changed"]
PATCHES = 72
OPTIONS = ["--benchmarks", "toy", "--arms", "streams_apart", "--seeds", "3", "--steps", "4", "--batch", "4"]
OPTIONS += ["--warm_up", "2", "--check_every", "2", "--train", "12", "--validation", "4", "--test", "5"]


@pytest.fixture(scope="module")
def experiment(root: Path) -> ModuleType:
    sys.path.insert(0, str(root / "measurements"))  # where Python looks when the file is a program
    try:
        import early_attention
    finally:
        sys.path.pop(0)
    return early_attention


def hidden_states(experiment: ModuleType, arm: str, canvas: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a small model makes of a canvas: patches [1 + patches, width] and queries [queries, width]."""
    torch.manual_seed(0)
    model = experiment.build_model(experiment.build_tokenizer(SENTENCES, 1000), width=32).eval()
    experiment.keep_apart(model, arm, PATCHES)
    with torch.inference_mode():
        found = model.get_image_features(
            experiment.pixel_values(canvas[None], (128, 74)), interpolate_pos_encoding=True
        )
    return found.vision_outputs.last_hidden_state[0], found.qformer_outputs.last_hidden_state[0]


def changed(first: torch.Tensor, second: torch.Tensor) -> list[bool]:
    return (first != second).any(dim=-1).tolist()


def random_canvas(experiment: ModuleType) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*experiment.SIZES.canvas, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "arm, class_token, other_image, first_half, second_half",
    [
        ("joint", True, True, True, True),
        ("vision_apart", False, False, True, True),
        ("streams_apart", False, False, True, False),
    ],
)
@pytest.mark.parametrize("side", [0, 1])
def test_what_a_changed_image_changes(
    experiment: ModuleType,
    arm: str,
    class_token: bool,
    other_image: bool,
    first_half: bool,
    second_half: bool,
    side: int,
) -> None:
    canvas = random_canvas(experiment)
    other = canvas.copy()
    cell = experiment.SIZES.canvas[0] // 2
    other[side * cell : (side + 1) * cell] = 255 - other[side * cell : (side + 1) * cell]
    (patches, queries), (patches_then, queries_then) = (hidden_states(experiment, arm, c) for c in (canvas, other))
    token, *seen = changed(patches, patches_then)
    halves = [seen[: len(seen) // 2], seen[len(seen) // 2 :]]
    assert token == class_token and all(halves[side]) and set(halves[1 - side]) == {other_image}
    seen = changed(queries, queries_then)
    halves = [seen[: len(seen) // 2], seen[len(seen) // 2 :]]
    assert set(halves[side]) == {first_half} and set(halves[1 - side]) == {second_half}


def test_a_pixel_at_the_seam_belongs_to_its_own_image(experiment: ModuleType) -> None:
    canvas, half = random_canvas(experiment), PATCHES // 2
    for row, seen in (
        (experiment.SIZES.canvas[0] // 2 - 1, slice(1, 1 + half)),
        (experiment.SIZES.canvas[0] // 2, slice(1 + half, None)),
    ):
        other = canvas.copy()
        other[row] = 255 - other[row]
        first, second = (hidden_states(experiment, "vision_apart", c)[0] for c in (canvas, other))
        found = changed(first, second)
        assert all(found[seen]) and sum(found) == half


def test_arms_have_the_same_weights_and_the_streams_fuse_in_the_language_model(experiment: ModuleType) -> None:
    tokenizer, weights = experiment.build_tokenizer(SENTENCES, 1000), {}
    for arm in experiment.ARMS:
        torch.manual_seed(5)
        model = experiment.build_model(tokenizer, width=32).eval()
        experiment.keep_apart(model, arm, PATCHES)
        weights[arm] = model.state_dict()
        images = experiment.pixel_values(random_canvas(experiment)[None], (128, 74)).requires_grad_()
        inputs = experiment.token_inputs(tokenizer, SENTENCES[:1], experiment.prompt(model, tokenizer))
        model(pixel_values=images, **inputs).loss.backward()
        assert images.grad.abs().sum(dim=(1, 3)).min() > 0  # every row of both images
    assert all(weights[arm].keys() == weights["joint"].keys() for arm in weights)
    assert all(torch.equal(weights[arm][name], value) for arm in weights for name, value in weights["joint"].items())


def test_positions_are_interpolated_to_the_canvas(experiment: ModuleType) -> None:
    torch.manual_seed(0)
    embeddings = experiment.build_model(experiment.build_tokenizer(SENTENCES, 1000), width=32).vision_model.embeddings
    rows, columns = (side // 16 for side in experiment.SIZES.canvas)
    table = embeddings.position_embedding.detach()[0, 1:].reshape(rows, rows, 32)
    found = embeddings.interpolate_pos_encoding(
        torch.zeros(1, 1 + rows * columns, 32), *experiment.SIZES.canvas
    ).detach()
    found = found[0, 1:].reshape(rows, columns, 32)
    between = (table[:, 0::2] + table[:, 1::2]) / 2  # rows stay; of two columns there is about the mean
    assert torch.allclose(found[:, 1:-1], between[:, 1:-1], atol=0.1)
    assert (found - found[:1]).abs().amax(dim=(1, 2))[1:].min() > 0.05  # no row has the positions of another


def test_impossible_arms_are_quoted(experiment: ModuleType) -> None:
    model = experiment.build_model(experiment.build_tokenizer(SENTENCES, 1000), width=32)
    with pytest.raises(ValueError, match="arm must be one of joint, .*, got 'late'"):
        experiment.keep_apart(model, "late", PATCHES)
    with pytest.raises(ValueError, match="must be even, got 127 and 12"):
        experiment.keep_apart(model, "joint", 127)


def run_json(folder: Path) -> dict:
    return json.loads((folder / "runs" / "toy" / "train-30-distractors" / "streams_apart-3" / "run.json").read_text())


def test_an_interrupted_run_ends_like_an_unbroken_one(
    experiment: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    page = tmp_path / "docs" / "page.md"
    assert experiment.main([*OPTIONS, "--folder", str(whole), "--page", str(page)]) == 0
    assert "| streams apart |" in page.read_text() and (whole / "early_attention.png").stat().st_size > 5000
    take_step = experiment.Training.take_step

    def interrupted(training: object) -> None:
        if training.step == 3:
            raise KeyboardInterrupt
        take_step(training)

    monkeypatch.setattr(experiment.Training, "take_step", interrupted)
    assert experiment.main([*OPTIONS, "--folder", str(broken)]) == 130
    monkeypatch.undo()
    assert experiment.main([*OPTIONS, "--folder", str(broken)]) == 0
    curve = run_json(whole)["curve"]
    assert curve == run_json(broken)["curve"] and [point["step"] for point in curve] == [2, 4]
    names = [path.name for path in broken.rglob("streams_apart-3/*")]
    assert sorted(names) == ["predictions.jsonl", "run.json", "state.pt"]  # from which photo_edits continues
    assert experiment.main([*OPTIONS, "--folder", str(broken), "--steps", "5"]) == 2
    assert "contains runs with steps=4, not 5" in capsys.readouterr().err


def test_a_run_on_photographs_continues_that_on_toy(
    experiment: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = experiment.parse_arguments([*OPTIONS, "--photo_steps", "2", "--folder", str(tmp_path)])
    settings, pairs = experiment.settings_of(arguments), experiment.Pairs(tmp_path, experiment.settings_of(arguments))
    run, started = experiment.Training.run, {}

    def observed(training: object) -> None:
        started[training.cell.benchmark] = {name: t.clone() for name, t in training.model.state_dict().items()}
        run(training)

    monkeypatch.setattr(experiment.Training, "run", observed)
    cell = experiment.Cell("photo_edits", "joint", 4)
    experiment.finish(cell, settings, pairs, tmp_path)
    trained = torch.load(tmp_path / "runs" / cell.start.name / "state.pt")["model"]
    assert all(torch.equal(started["photo_edits"][name], value) for name, value in trained.items())
    assert not all(torch.equal(started["toy"][name], value) for name, value in trained.items())
    assert sorted(path.name for path in (tmp_path / "runs" / cell.name).iterdir()) == ["predictions.jsonl", "run.json"]
    experiment.finish(cell, settings, pairs, tmp_path)
    assert len(started) == 2 and cell.start.start is None


def prediction(index: int, said: str, true: str, change_type: str) -> dict:
    return {"pair_id": str(index), "prediction": said, "references": [true], "change_type": change_type}


def made_up_runs(seeds: int) -> tuple[list[list[dict]], list[dict]]:
    rows = [
        prediction(0, "a cow has been added in the middle", "a dog has been added in the middle", "add"),
        prediction(1, "a cow has been added on the left", "a dog has been added in the middle", "add"),
        prediction(2, "nothing has changed", "nothing has changed", "none"),
        prediction(3, "nothing has changed", "the whole picture is darker", "brightness"),
    ]
    curve = [{"step": step, "validation_loss": 1 / step, "right_change_type": 0.1} for step in (1, 2, 3)]
    return [rows] * seeds, [{"parameters": 7, "seconds_per_step": 0.5, "curve": curve}] * seeds


def test_scores_tables_and_plot(experiment: ModuleType, tmp_path: Path) -> None:
    report = sys.modules["early_attention_results"]
    runs = {arm: made_up_runs(2) for arm in experiment.ARMS}
    better = [{**row, "prediction": row["references"][0]} for row in runs["joint"][0][0]]
    runs["joint"] = [better, runs["joint"][0][1]], runs["joint"][1]
    found = report.compare_arms("photo_edits", runs, [["nothing has changed"], ["the whole picture is darker"]] * 2)
    apart, joint = found["scores"]["vision_apart"], found["scores"]["joint"]
    assert {name: apart[name]["mean"] for name in report.SCORES[1:]} == {
        **{"right change type": 0.75, "right place": 0.5},
        **{"unchanged recognized": 1.0, "change missed": pytest.approx(1 / 3)},
    }
    assert joint["right change type"]["seeds"] == [1.0, 0.75]
    difference = found["differences"]["joint minus vision_apart"]["right change type"]
    assert difference["mean"] == 0.125 and difference["interval"][0] == 0.0
    table = report.arms_table({"settings": {"batch": 2}, "benchmarks": {"photo_edits": found}})
    assert "photo_edits, 4 test pairs, 3 steps of 2 pairs, 2 seeds" in table
    assert "| brightness | 1 | 0.50 | 0.00 | 0.00 |" in table and "+0.12 [+0.00, " in table
    report.draw_curves({"photo_edits": found}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000
    shares = report.compare_shares(experiment.SHARES[:1], [made_up_runs(1)[0]])
    assert "| 0% | yes | " in report.shares_table({"shares": shares})


def test_the_page_shows_the_measured_tables(experiment: ModuleType, root: Path) -> None:
    report = sys.modules["early_attention_results"]
    tables = (
        ("arms.json", report.arms_table, report.PAGE_MARKS),
        ("shares.json", report.shares_table, report.SHARE_MARKS),
    )
    page = root / "docs" / "early_attention.md"
    for name, table, (start, end) in tables:
        file = root / "docs" / "results" / "early_attention" / name
        assert experiment.PAGE_TEMPLATE.read_text(encoding="utf-8").count(f"{start}\n{end}") == 1
        if file.exists():
            shown = page.read_text(encoding="utf-8").split(start)[1].split(end)[0].strip()
            assert shown == table(json.loads(file.read_text(encoding="utf-8")))
