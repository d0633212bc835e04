"""Content statistics, protocols, scores per pair, paired differences, exchange with SPICE's jar, published scores."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import metric_idc
from metric_idc import spice
from metric_idc.content_statistics import change_detection, length_and_diversity
from metric_idc.protocols import NO_CHANGE_SENTENCES, apply_protocol
from metric_idc.published_scores import PUBLISHED, SOURCES, published
from metric_idc.resampling import interval, resampled_scores

LITERATURE = Path(__file__).resolve().parents[2] / "shared" / "facts" / "literature.md"
QUICK = ["BLEU", "ROUGE-L", "CIDEr"]


def make_row(pair_id: str, prediction: str, *references: str, change_type: str = "") -> dict:
    return {"pair_id": pair_id, "prediction": prediction, "references": list(references), "change_type": change_type}


ROWS = [
    make_row("1", "the red cube is gone", "the red cube was removed", "the red cube is gone", change_type="remove"),
    make_row("2", "nothing has changed", "there is a new blue ball", change_type="add"),
    make_row("3", "the cube moved", "nothing has changed", "no change", change_type="none"),
    make_row("4", "the scene is the same as before", "nothing has changed", "there is no change", change_type="none"),
    make_row("5", "there is a new ball", "there is a new blue ball", "a ball was added", change_type=""),
]


# ---- change or no change


def test_change_detection_by_hand():
    """Pairs 1, 2, 5 are changed, and 2 is predicted unchanged; 3, 4 are unchanged, and 3 is predicted changed."""
    assert change_detection(ROWS)["change_detection"] == {
        "accuracy": 3 / 5,
        "precision": 2 / 3,
        "recall": 2 / 3,
        "f1": 2 / 3,
        "no_change_recall": 1 / 2,
        "changed_pairs": 3,
        "unchanged_pairs": 2,
    }


def test_change_detection_needs_unchanged_pairs():
    assert change_detection(ROWS[:2]) == {}
    assert "change_detection" not in metric_idc.score_rows(ROWS[:2], QUICK)


def test_change_detection_without_changed_pairs_does_not_divide_by_zero():
    table = change_detection([make_row("1", "no change", "no change", change_type="none")])["change_detection"]
    assert (table["accuracy"], table["precision"], table["recall"], table["f1"]) == (1, 0, 0, 0)


# ---- length and variety


def test_length_and_diversity_by_hand():
    assert length_and_diversity(["a b a", "a b", "", "a b"]) == {
        "mean_tokens": 7 / 4,
        "distinct_1": 2 / 7,
        "distinct_2": 2 / 4,
        "distinct_sentences": 3 / 4,
    }
    assert length_and_diversity([""])["distinct_2"] == 0


def test_result_contains_caption_lengths_and_scores_per_number_of_references():
    result = metric_idc.score_rows(ROWS, QUICK)
    assert result["captions"]["predictions"]["mean_tokens"] == 23 / 5  # 5 + 3 + 3 + 7 + 5 words
    groups = result["per_references"]
    assert {count: group["pairs"] for count, group in groups.items()} == {"1": 1, "2": 4}
    weighted = sum(group["pairs"] * group["scores"]["CIDEr"] for group in groups.values()) / 5
    assert weighted == pytest.approx(result["scores"]["CIDEr"])
    assert metric_idc.score_rows(ROWS[2:4], QUICK)["per_references"] == {}, "a single group is left out"


# ---- scores per pair


def test_pairs_are_scored_from_the_same_statistics():
    result = metric_idc.score_rows(ROWS, QUICK)
    assert [pair["pair_id"] for pair in result["pairs"]] == [row["pair_id"] for row in ROWS]
    scores = [pair["scores"] for pair in result["pairs"]]
    assert scores == metric_idc.segment_scores(ROWS, QUICK)
    assert list(scores[0]) == list(result["scores"])
    for name in ("CIDEr", "ROUGE-L"):
        assert np.mean([row[name] for row in scores]) == pytest.approx(result["scores"][name])
    assert scores[0]["BLEU-4"] == pytest.approx(1, abs=1e-6)
    assert scores[2]["ROUGE-L"] == 0


def test_pairs_state_a_change_type_where_it_can_be_compared():
    rows = [
        *ROWS,
        make_row("6", "a thing", "b", change_type="add"),
        make_row("7", "a ball was added", "b", change_type="x"),
    ]
    stated = [pair["stated_change_type"] for pair in metric_idc.score_rows(rows, ["CIDEr"])["pairs"]]
    assert stated == ["remove", "none", "move", "none", None, "", None]


def test_scores_of_pairs_do_not_depend_on_the_protocol():
    result = metric_idc.score_rows(ROWS, QUICK, protocol="paper", paper_batch_size=2)
    assert result["signature"]["pairs"] == 4 and len(result["pairs"]) == 5
    assert [pair["scores"] for pair in result["pairs"]] == metric_idc.segment_scores(ROWS, QUICK)


def test_bleu_of_pairs_equals_pycocoevalcap():
    from pycocoevalcap.bleu.bleu import Bleu

    tokens = {row["pair_id"]: [row["prediction"]] for row in ROWS}
    _, official = Bleu(4).compute_score({row["pair_id"]: row["references"] for row in ROWS}, tokens, verbose=0)
    scores = metric_idc.segment_scores(ROWS, ["BLEU"])
    for order, values in enumerate(official, start=1):
        assert [row[f"BLEU-{order}"] for row in scores] == pytest.approx(values, abs=1e-9)


def test_corpus_scores_equal_the_scores_of_score_rows():
    assert metric_idc.corpus_scores(ROWS, QUICK) == metric_idc.score_rows(ROWS, QUICK)["scores"]


# ---- protocols


def test_standard_is_the_default_and_changes_nothing():
    rows, signature = apply_protocol(ROWS, "standard", 16, 0)
    assert rows is ROWS
    assert signature == {"protocol": "standard"}
    assert metric_idc.score_rows(ROWS, QUICK)["signature"]["protocol"] == "standard"


def test_paper_drops_the_last_batch_and_replaces_right_denials():
    rows, signature = apply_protocol(ROWS, "paper", 2, 0)
    assert [row["pair_id"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["prediction"] for row in rows[:3]] == [row["prediction"] for row in ROWS[:3]]
    assert rows[3]["prediction"] in ROWS[3]["references"], (
        "a reference, because the prediction and a reference are listed"
    )
    assert ROWS[3]["prediction"] == "the scene is the same as before", "the caller's rows stay as they are"
    assert signature["paper_protocol"] == {
        "batch_size": 2,
        "pairs_dropped": 1,
        "predictions_replaced_by_references": 1,
        "controls": "scored as they are, none replaced",
        "seed": 0,
    }


def test_paper_draws_by_seed_and_pair():
    row = make_row("7", "Nothing has changed.", *NO_CHANGE_SENTENCES)
    drawn = [apply_protocol([row], "paper", 1, seed)[0][0]["prediction"] for seed in range(20)]
    assert len(set(drawn)) > 3
    again = [apply_protocol([ROWS[0], row], "paper", 1, seed)[0][1]["prediction"] for seed in range(20)]
    assert again == drawn


def test_paper_leaves_unlisted_denials_and_wrong_ones():
    unlisted_prediction = make_row("1", "there is no difference", "nothing has changed")
    wrong = make_row("2", "nothing has changed", "the cube moved")
    unlisted_reference = make_row("3", "nothing has changed", "almost nothing has changed")
    rows, signature = apply_protocol([unlisted_prediction, wrong, unlisted_reference], "paper", 1, 0)
    assert rows == [unlisted_prediction, wrong, unlisted_reference]
    assert signature["paper_protocol"]["predictions_replaced_by_references"] == 0


def test_paper_raises_scores_and_is_recorded():
    rows = [make_row(str(n), NO_CHANGE_SENTENCES[0], *NO_CHANGE_SENTENCES[1:3], change_type="none") for n in range(8)]
    rows += [make_row(f"c{n}", "the cube moved", f"thing {n} moved away", change_type="move") for n in range(8)]
    rows = [
        row | {"references": [*row["references"], NO_CHANGE_SENTENCES[4]]} if row["change_type"] == "none" else row
        for row in rows
    ]
    standard, paper = (metric_idc.score_rows(rows, QUICK, protocol=name) for name in ("standard", "paper"))
    assert paper["scores"]["CIDEr"] > standard["scores"]["CIDEr"] + 0.1
    assert paper["signature"]["protocol"] == "paper"
    assert paper["signature"]["paper_protocol"]["predictions_replaced_by_references"] == 8
    assert paper["signature"]["pairs"] == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "theirs"}, "unknown protocol 'theirs'"),
        ({"protocol": "paper"}, "all of these 5 pairs at paper_batch_size=16"),
        ({"protocol": "paper", "paper_batch_size": 0}, "paper_batch_size must be at least 1, got 0"),
    ],
)
def test_unusable_protocols_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        metric_idc.score_rows(ROWS, QUICK, **options)


# ---- intervals and comparison


def test_resampled_sums_are_those_of_drawn_rows():
    """The matrix product of counts equals drawing rows and summing them."""
    random = np.random.default_rng(1)
    statistics = {"a": random.random((30, 3)), "b": random.random(30)}
    sums = []
    draws = resampled_scores(statistics, lambda s: sums.append(s) or {"x": float(s["b"])}, 5, seed=3)
    random = np.random.default_rng(3)
    for row, value in zip(sums, draws["x"], strict=True):
        drawn = random.integers(30, size=30)
        assert row["a"] == pytest.approx(statistics["a"][drawn].sum(axis=0))
        assert value == pytest.approx(statistics["b"][drawn].sum())


def test_chunks_of_resamples_give_the_same(monkeypatch):
    statistics = {"a": np.arange(10.0)}
    whole = resampled_scores(statistics, lambda sums: {"x": float(sums["a"])}, 20, seed=0)
    monkeypatch.setattr("metric_idc.resampling.CHUNK", 30)
    parts = resampled_scores(statistics, lambda sums: {"x": float(sums["a"])}, 20, seed=0)
    assert parts["x"].tolist() == whole["x"].tolist()


def test_the_interval_is_the_middle_95_per_cent():
    """Compare it with known percentiles and with the normal approximation."""
    assert interval(np.random.default_rng(0).permutation(np.arange(1001.0))) == [25.0, 975.0]
    rows = [make_row(str(n), "a" if n < 30 else "b", "a") for n in range(100)]  # BLEU-1: the share of correct words
    low, high = metric_idc.score_rows(rows, ["BLEU"], resamples=4000)["intervals"]["BLEU-1"]
    standard_error = (0.3 * 0.7 / 100) ** 0.5
    assert (low, high) == pytest.approx((0.3 - 1.96 * standard_error, 0.3 + 1.96 * standard_error), abs=0.011)
    worse = [row | {"prediction": "b"} for row in rows]
    gain = metric_idc.paired_differences(rows, worse, ["BLEU"], resamples=4000)["BLEU-1"]
    assert (gain["low"], gain["high"]) == pytest.approx((low, high), abs=0.011)


def test_every_score_has_an_interval_around_it():
    words = "cube ball car man dog tree house road lamp sign".split()
    rows = [
        make_row(f"{a}-{b}", f"the {a} near the {b} is gone" if a < b else "gone", f"the {a} near the {b} is gone")
        for a in words
        for b in words
        if a != b
    ]
    result = metric_idc.score_rows(rows, QUICK)
    assert list(result["intervals"]) == list(result["scores"])
    for name, (low, high) in result["intervals"].items():
        assert low < result["scores"][name] < high, name


def test_all_scores_are_compared_at_once():
    better = [make_row(str(n), f"the {n} cube is gone now", f"the {n} cube is gone now") for n in range(40)]
    worse = [row | {"prediction": "the cube is gone"} if n % 2 else row for n, row in enumerate(better)]
    table = metric_idc.paired_differences(better, worse, QUICK)
    assert list(table) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    assert table["BLEU-4"] == metric_idc.paired_differences(better, worse, ["BLEU"])["BLEU-4"]
    scores = [metric_idc.corpus_scores(rows, QUICK) for rows in (better, worse)]
    for name, entry in table.items():
        assert entry["difference"] == pytest.approx(scores[0][name] - scores[1][name])
        assert entry["low"] < entry["difference"] < entry["high"]
        assert entry["p_value"] < 0.01


# ---- SPICE

JAR = """
import json, sys
arguments = sys.argv[sys.argv.index("-jar") + 2:]
items = json.load(open(arguments[0]))
output = arguments[arguments.index("-out") + 1]
json.dump([{"image_id": item["image_id"], "scores": {"All": {"f": len(item["refs"]) / 10}}} for item in items[::-1]],
          open(output, "w"))
"""


def test_without_its_files_spice_is_left_out_and_the_signature_says_so():
    if not spice.missing():
        pytest.skip("SPICE's files are installed")
    signature = metric_idc.score_rows(ROWS, resamples=10)["signature"]
    assert "SPICE" not in signature["metrics"]
    assert "stanford-corenlp-3.6.0-models.jar" in signature["left_out"]["SPICE"]
    assert str(spice.jar("spice")) not in str(signature)
    assert "left_out" not in metric_idc.score_rows(ROWS, QUICK)["signature"], "SPICE was not requested"
    with pytest.raises(FileNotFoundError, match="stanford-corenlp-3.6.0.jar.*by hand"):
        metric_idc.score_rows(ROWS, ["SPICE"])


def test_spice_scores_are_returned_in_the_order_of_the_rows(monkeypatch):
    """Replace the jar by a program that answers in reverse order."""
    command = [sys.executable, "-c", JAR]
    monkeypatch.setattr(spice, "run_jar", lambda arguments, **_: subprocess.run([*command, *arguments], check=True))
    monkeypatch.setattr(spice, "missing", lambda: "")
    result = metric_idc.score_rows(ROWS, ["SPICE"])
    assert [pair["scores"]["SPICE"] for pair in result["pairs"]] == [0.2, 0.1, 0.2, 0.2, 0.2]
    assert result["scores"]["SPICE"] == pytest.approx(0.18)


# ---- published peers


def test_every_published_number_is_in_the_notes():
    if not LITERATURE.exists():
        pytest.skip(f"the notes on the literature are missing: {LITERATURE}")
    text = LITERATURE.read_text(encoding="utf-8") + LITERATURE.with_name("vlm.md").read_text(encoding="utf-8")
    sections = {
        "clevr_change": "### 2.1",
        "clevr_dc": "### 2.2",
        "spot_the_diff": "### 2.3",
        "image_editing_request": "### 2.4",
        "omnidiff": "### 2.5",
        "clevr_multi_change": "**Stateful Visual Encoders**",
        "levir_cc": "**Stateful Visual Encoders**",
    }
    assert set(sections) | {"spot_the_shift", "diffspot"} == set(PUBLISHED)  # both from the authors' own tables
    for benchmark, heading in sections.items():
        section = text.split(heading)[1].split("\n###")[0]
        for row in published(benchmark):
            model = row["model"].split(" with ")[0].split(" + ")[0].split(" fine-tuned")[0].split(", ")[-1]
            lines = [line for line in section.splitlines() if model in line or benchmark == "levir_cc"]
            assert any(
                all(
                    re.search(rf"(?<![\d.]){re.escape(str(value))}(?![\d.])", line) for value in row["scores"].values()
                )
                for line in lines
            ), (benchmark, row)


def test_published_rows_are_complete():
    for benchmark in PUBLISHED:
        rows = published(benchmark)
        assert all(row["confidence"] in ("SRC", "SEC", "MEM") for row in rows)
        assert all(
            row["source"] in SOURCES.values() and (row["scores"] or row["note"]) and row["model"] for row in rows
        )
        assert json.loads(json.dumps(rows)) == rows
    best = {row["model"]: row["scores"]["CIDEr"] for row in published("clevr_dc")}
    assert best["BLIP2IDC"] == 88.5
    assert published("toy") == []
