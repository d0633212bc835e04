"""How sure the captioner that ships is, on pairs that the project draws; and the arithmetic of calibrations."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captioner_idc.change_probability import (
    FILE,
    MOST_SENTENCES,
    UNCHANGED,
    Calibration,
    compare_about,
    difference,
    explain_pairs,
    fit_temperature,
    read_calibration,
    score_claim,
    score_claims,
    unchanged_sentences,
    write_calibration,
)
from captioner_idc.encoded_pairs import EncodedPairs
from captioner_idc.loading import SHIPPED, load
from dataset_syned import load_benchmark, undecoded

COUNTS = {"train": 1, "validation": 24, "test": 24}


@pytest.fixture(scope="module")
def shipped() -> tuple[Any, Any]:
    return load(SHIPPED, device="cpu")


@pytest.fixture(scope="module")
def rows() -> Any:
    pytest.importorskip("skimage", reason="scikit-image, whose photographs are used, is not installed")
    return undecoded(load_benchmark("photo_edits", "test", **COUNTS))


def test_a_temperature_makes_the_labels_most_likely() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=20_000)
    changed = rng.random(20_000) < 1 / (1 + np.exp(-logits))
    for scale in (0.25, 1.0, 8.0):
        assert fit_temperature(scale * logits, changed) == pytest.approx(scale, rel=0.1)


def test_pairs_that_are_told_apart_without_error_make_no_probability_certain() -> None:
    differences, changed = np.array([-8.0, -6.0, 7.0, 9.0]), np.array([False, False, True, True])
    few = Calibration(temperature=fit_temperature(differences, changed))
    many = Calibration(temperature=fit_temperature(np.repeat(differences, 100), np.repeat(changed, 100)))
    assert 0.7 < few.probability(7.0) < 0.8 and 0.98 < many.probability(7.0) < 0.999


def test_probabilities_of_any_difference() -> None:
    calibration = Calibration(temperature=2.0)
    assert calibration.probability(0) == 0.5 and calibration.probability(4) == pytest.approx(1 / (1 + math.exp(-2)))
    assert calibration.probability(-1e9) < 1e-100 and calibration.probability(1e9) == 1.0
    assert calibration.probability(-math.inf) < 1e-100


def test_the_best_change_is_compared_with_all_sentences_of_no_change() -> None:
    calibration = Calibration(unchanged=("nothing has changed", "no change"))
    sentences = [("Nothing has changed.", -0.5), ("the cat is gone", -3.0), ("a dog has appeared", -4.0)]
    unchanged = [math.log(0.5), math.log(0.25)]
    assert difference(sentences, unchanged, calibration) == pytest.approx(-3.0 - math.log(0.75))
    assert difference(sentences[:1], unchanged, calibration) == pytest.approx(-0.5 - math.log(0.75))


def test_calibrations_are_saved_beside_the_weights(tmp_path: Path) -> None:
    assert read_calibration(tmp_path) == Calibration(UNCHANGED, 1.0, 0)
    saved = Calibration(("nothing has changed",), 1.5, 300)
    write_calibration(saved, tmp_path)
    assert read_calibration(tmp_path) == saved
    for text in ("{", "[]", json.dumps({"unchanged": ["a"], "temperature": "hot", "pairs": 1})):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(ValueError, match=f"{FILE}' is damaged"):
            read_calibration(tmp_path)


def test_changed_and_unchanged_pairs_are_needed() -> None:
    with pytest.raises(ValueError, match="changed and unchanged pairs are needed"):
        fit_temperature(np.array([1.0, 2.0]), np.array([True, True]))


def test_the_most_frequent_sentences_about_unchanged_pairs_say_no_change() -> None:
    assert unchanged_sentences(["b", "a", "b"]) == ("b", "a")
    assert len(unchanged_sentences(map(str, range(100)))) == MOST_SENTENCES
    assert unchanged_sentences([]) == UNCHANGED


def test_the_captioner_that_ships_knows_whether_anything_changed(shipped: tuple[Any, Any], rows: Any) -> None:
    pairs = [(row["before"], row["after"]) for row in rows]
    changed = np.array(rows["change_type"]) != "none"
    calibration = read_calibration(SHIPPED)
    assert calibration.pairs >= 100 and "nothing has changed" in calibration.unchanged
    answers = explain_pairs(*shipped, pairs, calibration)
    said = np.array([answer.change_probability > 0.5 for answer in answers])
    assert np.mean(said == changed) > 0.9
    for answer, other in zip(answers, said, strict=True):
        first = answer.sentences[0][0]
        assert calibration.says_unchanged(first) != other or 0.05 < answer.change_probability < 0.95
    compared = compare_about(EncodedPairs(*shipped, pairs[:5]), calibration)
    for answer, (_, found) in zip(answers, compared, strict=False):
        assert answer.change_probability == pytest.approx(calibration.probability(found), abs=1e-3)


def test_true_claims_fit_better_than_others(shipped: tuple[Any, Any], rows: Any) -> None:
    calibration = read_calibration(SHIPPED)
    right = []
    for row, other in zip(rows, list(rows)[1:], strict=False):
        if row["change_type"] == other["change_type"]:
            continue
        claims = [row["captions"][0], other["captions"][0]]
        scores = score_claims(*shipped, (row["before"], row["after"]), claims, calibration)
        right.append(scores[0] > scores[1])
        assert score_claim(*shipped, row["before"], row["after"], claims[0], calibration) == pytest.approx(
            scores[0], abs=1e-3
        )
    assert np.mean(right) > 0.85
