"""Difference units: what the rules read in a sentence, the matching against brute force, and the scores by hand."""

import itertools
import json
import random
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from program_files import load_program

import metric_idc
from metric_idc import read_coco, score_rows, stated_units
from metric_idc.__main__ import main
from metric_idc.difference_units import (
    ACTION_NAMES,
    LEAST_SIMILARITY,
    DifferenceUnits,
    best_counts,
    count_matches,
    true_units,
    word_similarity,
)
from metric_idc.noun_phrases import singular, things_of
from metric_idc.unit_rules import ACTIONS, WEAK, Unit

SPOT = Path(__file__).resolve().parents[2] / "shared" / "data" / "spot-the-diff" / "predictions"
UNITS = ["DifferenceUnits"]

# ---- what the rules read

SENTENCES = {
    "a red car has appeared on the left": [("red car", "add")],
    "remove the two tall trees near the house.": [("tall tree", "remove")],
    "the road on the meadow has been renovated": [("road", "change")],
    "lane marking modified": [("lane marking", "change")],
    "a lot has been constructed beside the renovated road": [("lot", "add")],
    "the tree was removed and a bench has been added": [("tree", "remove"), ("bench", "add")],
    "there is no dog anymore": [("dog", "remove")],
    "there are no more people on the sidewalk": [("person", "remove")],
    "the white truck is no longer there": [("white truck", "remove")],
    "the group of people is gone": [("person", "remove")],
    "there is now a man; he carries a bag": [("man", "add")],
    "a man and a woman have disappeared": [("man", "remove"), ("woman", "remove")],
    "there is a dog instead of the cat": [("cat", "replace")],
    "replace the cat with a dog": [("cat", "replace")],
    "a dog has taken the place of the cat on the left": [("cat", "replace")],
    "the leaves turned into flowers": [("leaf", "replace")],
    "the car moved closer to the building": [("car", "move")],
    "the cube is in a different place": [("cube", "move")],
    "make the sky blue": [("sky", "recolor")],
    "change the color of the boy's shirt to green": [("boy shirt", "recolor")],
    "blur the background, increase the contrast": [("background", "blur"), ("picture", "raise contrast")],
    "Crop the image Add a hat": [("picture", "crop"), ("hat", "add")],
    "add the word 'hello, you' at the top": [("text", "add")],
    "remove the text and add a tall, old tree": [("text", "remove"), ("tall old tree", "add")],
    "crop the photo and rotate it to the left": [("picture", "crop"), ("picture", "rotate left")],
    "the whole image is darker": [("picture", "darken")],
    "there is a darker car": [("darker car", "add")],
    "a person in the after image that was not in the before image": [("person", "add")],
    "the man is in the first picture but not in the second": [("man", "remove")],
    "the picture on the right has more people": [("person", "add")],
    "the car left the parking lot": [("car", "remove")],
    "the left car was painted red": [("car", "recolor")],
    "transform the picture into a watercolor": [("picture", "style")],
    "the sphere turned matte": [("sphere", "material")],
    "nothing has changed": [],
    "there is no difference between the two images": [],
    "everything stayed the same": [],
    "": [],
    "?": [("picture", "add")],  # no denial, so it states something
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_rules_read_thing_and_action(sentence: str) -> None:
    assert list(stated_units(sentence)) == SENTENCES[sentence]


@pytest.mark.parametrize("denial", ["nothing in the second picture has changed", "no change was made", "do nothing"])
def test_a_denial_states_no_unit(denial: str) -> None:
    assert stated_units(denial) == ()


def test_each_unit_is_stated_once() -> None:
    assert stated_units("a car was added and a car has appeared") == (Unit("car", "add"),)


def test_things_of_a_noun_phrase() -> None:
    assert things_of("the two black and white cats near the door") == ["black white cat"]
    assert things_of("dogs, a cat and some birds in the garden") == ["dog", "cat", "bird"]
    assert things_of("the upper left corner") == ["part"]
    assert things_of("the whole picture") == ["picture"]
    assert things_of("") == things_of("in the middle") == []
    plurals = "people buses boxes berries glasses shoes grass tomatoes churches".split()
    singulars = "person bus box berry glasses shoe grass tomato church".split()
    assert [singular(word) for word in plurals] == singulars


# ---- similarity and matching


def test_word_similarity_by_hand() -> None:
    assert word_similarity("red car", "red car") == 1
    assert word_similarity("car", "red car") == (1 + 2 / 3) / 2
    assert word_similarity("blue car", "red car") == (1 + 1 / 2) / 2
    assert word_similarity("red truck", "red car") == 1 / 4 < LEAST_SIMILARITY
    assert word_similarity("car", "dog") == 0


def brute_force(similarity: np.ndarray) -> int:
    """Try all one-to-one assignments; of the one with the largest sum, count the matches."""
    if similarity.shape[0] > similarity.shape[1]:
        similarity = similarity.T
    rows = range(similarity.shape[0])
    assignments = itertools.permutations(range(similarity.shape[1]), similarity.shape[0])
    best = max(assignments, key=lambda columns: sum(similarity[row, columns[row]] for row in rows))
    return sum(similarity[row, best[row]] >= LEAST_SIMILARITY for row in rows)


def test_matching_equals_brute_force_on_1000_random_cases() -> None:
    rng = np.random.default_rng(0)
    several = 0
    for _ in range(1000):
        similarity = rng.random(rng.integers(1, 6, size=2))
        assert count_matches(similarity) == brute_force(similarity)
        several += count_matches(similarity) != int((similarity.max(axis=1) >= LEAST_SIMILARITY).sum())
    assert several > 100, "one-to-one often differs from the best match of each unit"


def test_f1_equals_brute_force_on_1000_random_cases() -> None:
    """Several references, things with random similarities, with and without equal actions."""
    rng = random.Random(0)
    similarities = {pair: rng.random() for pair in itertools.product("abcdefgh", repeat=2)}

    def similarity(a: str, b: str) -> float:
        return similarities[a, b]

    def random_units() -> list[Unit]:
        return [Unit(rng.choice("abcdefgh"), rng.choice(("add", "remove"))) for _ in range(rng.randint(1, 4))]

    for case in range(1000):
        units, references, same_action = random_units(), [random_units() for _ in range(rng.randint(1, 3))], case % 2
        expected = []
        for truth in references:
            table = [[similarity(a.thing, b.thing) * (not same_action or a.action == b.action) for b in truth]
                     for a in units]  # fmt: skip
            matched = brute_force(np.array(table))
            precision, recall = matched / len(units), matched / len(truth)
            expected.append(2 * precision * recall / (precision + recall) if matched else 0)
        matched, invented, missed = best_counts(units, references, similarity, bool(same_action))
        assert 2 * matched / (2 * matched + invented + missed) == pytest.approx(max(expected))
        assert matched + invented == len(units) and matched + missed in map(len, references)


def test_an_empty_side_has_no_match() -> None:
    assert count_matches(np.zeros((0, 3))) == count_matches(np.zeros((2, 0))) == 0
    assert best_counts((), [[Unit("car", "add")]], word_similarity) == (0, 0, 1)
    assert best_counts([Unit("car", "add")], [], word_similarity) == (0, 0, 0)


# ---- scores by hand


def make_row(pair_id: str, prediction: str, *references: str, **more: object) -> dict:
    return {"pair_id": pair_id, "prediction": prediction, "references": list(references), **more}


ROWS = [
    # best reference is the second: one match of thing and action, one invented
    make_row("1", "a car was added and a dog was removed", "a man left", "a car was added", change_type="add"),
    # thing matches, action does not
    make_row("2", "the tree was removed", "the tree moved", change_type="move"),
    # missed
    make_row("3", "nothing has changed", "the cat and the dog are gone", change_type="remove"),
    make_row("4", "no change", "nothing has changed", change_type="none"),
    make_row("5", "a car and a bus were added", "nothing has changed", change_type="none"),
    make_row("6", "there is no difference", "nothing has changed", change_type="none"),
]


def test_scores_by_hand() -> None:
    scores = score_rows(ROWS, UNITS)["scores"]
    assert scores == pytest.approx(
        {
            "Unit-P": 2 / 3,
            "Unit-R": 2 / 4,
            "Unit-F1": 2 * 2 / (2 * 2 + 1 + 2),
            "Unit-Action-F1": 2 * 1 / (2 * 1 + 2 + 3),
            "Unit-TNR": 2 / 3,
            "Unit-HR": 2 / 3,
        }
    )


def test_scores_have_intervals_groups_and_pairs() -> None:
    result = score_rows(ROWS, UNITS)
    assert result["intervals"].keys() == result["scores"].keys()
    assert all(low <= result["scores"][name] <= high for name, (low, high) in result["intervals"].items())
    groups = {name: group["scores"] for name, group in result["per_change_type"].items()}
    assert groups["none"] == pytest.approx({"Unit-TNR": 2 / 3, "Unit-HR": 2 / 3}), (
        "F1 does not apply to unchanged pairs"
    )
    assert groups["add"]["Unit-F1"] == pytest.approx(2 / 3) and "Unit-TNR" not in groups["add"]
    pairs = [pair["scores"] for pair in result["pairs"]]
    assert pairs == metric_idc.segment_scores(ROWS, UNITS)
    assert [pair.get("Unit-F1") for pair in pairs] == pytest.approx([2 / 3, 1, 0, None, None, None])
    assert metric_idc.corpus_scores(ROWS, UNITS) == result["scores"]
    assert json.loads(json.dumps(result, allow_nan=False)), "no nan in the files"


def test_controls_are_shown_beside_the_scores() -> None:
    controls = score_rows(ROWS, UNITS)["controls"]
    silent = {"Unit-P": 0, "Unit-R": 0, "Unit-F1": 0, "Unit-Action-F1": 0, "Unit-TNR": 1, "Unit-HR": 0}
    assert controls["no_change"] == {"caption": "nothing has changed", "scores": silent}
    assert controls["constant_caption"]["scores"].keys() == silent.keys()
    assert "no_change" not in score_rows(ROWS, ["BLEU"])["controls"]


def test_paired_differences_of_units() -> None:
    better = [row | {"prediction": row["references"][-1]} for row in ROWS]
    gains = metric_idc.paired_differences(better, ROWS, UNITS)
    assert gains["Unit-F1"]["difference"] == pytest.approx(1 - 4 / 7)
    assert gains["Unit-TNR"]["difference"] == pytest.approx(1 / 3)
    assert gains["Unit-F1"]["low"] <= gains["Unit-F1"]["difference"] <= gains["Unit-F1"]["high"]


def test_true_units_replace_those_of_the_references() -> None:
    true = [{"thing": "a red Bus", "action": "shift colors", "place": "left"}]
    rows = [make_row("1", "the bus was painted blue", "a man left", change_type="color", units=true)]
    rows.append(make_row("2", "the bus was painted blue", "a bus was painted", change_type="color", units=[]))
    scores = score_rows(rows, UNITS)["scores"]
    assert (scores["Unit-F1"], scores["Unit-Action-F1"], scores["Unit-TNR"]) == (1, 1, 0), "[] is an unchanged pair"
    assert "true units" in score_rows(rows, UNITS)["signature"]["metrics"]["DifferenceUnits"]
    assert "best reference" in score_rows(ROWS, UNITS)["signature"]["metrics"]["DifferenceUnits"]


def test_names_of_actions_are_those_of_the_rules() -> None:
    actions = {action for action, _ in [*ACTIONS, *WEAK]}
    assert set(ACTION_NAMES.values()) <= actions
    assert true_units([{"thing": "text", "action": "add text"}]) == (Unit("text", "add"),)


def test_pairs_of_unknown_type_are_unchanged_if_all_references_say_so() -> None:
    rows = [make_row("1", "a car appeared", "no change", "nothing has changed"), make_row("2", "x", "no change", "y")]
    scores = score_rows(rows, UNITS)["scores"]
    assert scores["Unit-TNR"] == 0 and scores["Unit-HR"] == 1, "only the first is unchanged"


def test_a_pair_whose_references_state_no_unit_does_not_count() -> None:
    rows = [*ROWS, make_row("7", "a car appeared", "nothing has changed", change_type="move")]
    assert score_rows(rows, UNITS)["scores"] == score_rows(ROWS, UNITS)["scores"]


def test_another_parser_may_read_the_sentences() -> None:
    def first_word(sentence: str) -> list[Unit]:
        return [Unit(sentence.split()[0], "any")]

    metric = DifferenceUnits(ROWS[:1], parser=first_word, parser_name="first words")
    (statistics,) = metric.segment_statistics([["man there"]], [["man here", "dog here"]])
    assert metric.reduce(statistics.sum(axis=0), 1)["Unit-Action-F1"] == 1
    assert "by first words" in metric.IMPLEMENTATION


class FewWords:
    """Embeddings of two words as the same vector."""

    folder = Path("few-words")

    def embed(self, texts: list[str]) -> np.ndarray:
        vectors = {"car": [1.0, 0.0], "automobile": [0.8, 0.6]}
        return np.array([vectors.get(text, [0.0, 1.0]) for text in texts])


def test_things_can_be_compared_by_embeddings() -> None:
    metric = DifferenceUnits(ROWS[:2], FewWords())
    sentences = ["an automobile was added", "a house was removed"]
    (statistics,) = metric.segment_statistics([sentences], [["a car was added"], ["the car was removed"]])
    scores = metric.reduce(statistics.sum(axis=0), 2)
    assert scores == pytest.approx({f"Unit-{name}-Embedded": 0.5 for name in ("P", "R", "F1", "Action-F1")})
    assert "few-words" in metric.IMPLEMENTATION


@pytest.mark.parametrize("units", ["car", [{"thing": "car"}], [{"thing": "car", "action": 3}], {"thing": "x"}, None])
def test_units_of_another_form_are_quoted(units: object, tmp_path: Path) -> None:
    row = make_row("7", "a", "b", change_type="add", units=units)
    with pytest.raises(ValueError, match=r"the units of pair '7' are .*; give e.g. \[\{\"thing\""):
        score_rows([row], UNITS)
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match="line 1: units is "):
        metric_idc.read_predictions(tmp_path / "p.jsonl")


def test_units_survive_the_file_of_predictions(tmp_path: Path) -> None:
    row = make_row(
        "1", "the bus left", "a man left", change_type="remove", units=[{"thing": "bus", "action": "remove"}]
    )
    metric_idc.write_predictions([row], tmp_path / "p.jsonl")
    assert metric_idc.read_predictions(tmp_path / "p.jsonl") == [row]
    arguments = ["score", str(tmp_path / "p.jsonl"), "--output_dir", str(tmp_path / "s"), "--metrics", *UNITS]
    assert main(arguments) == 0
    assert json.loads((tmp_path / "s" / "metrics.json").read_text())["scores"]["Unit-Action-F1"] == 1


# ---- real sentences


@pytest.mark.skipif(not SPOT.is_dir(), reason="needs ../shared/data/spot-the-diff")
def test_units_of_real_predictions_for_spot_the_diff() -> None:
    """The control says one sentence to all and is nearly as good: F1 of things alone does not tell much here."""
    rows = read_coco(SPOT / "ddla_rerun_predfile.json", SPOT / "ddla_rerun_gtfile.json")
    result = score_rows(rows, UNITS, constant_caption="there are no people in the parking lot")
    scores, (low, high) = result["scores"], result["intervals"]["Unit-Action-F1"]
    assert scores["Unit-F1"] == pytest.approx(0.62, abs=0.02)
    assert scores["Unit-Action-F1"] == pytest.approx(0.37, abs=0.03)
    assert low < scores["Unit-Action-F1"] < high < low + 0.08
    assert result["controls"]["constant_caption"]["scores"]["Unit-Action-F1"] < low


@pytest.fixture(scope="module")
def corruptions(root: Path) -> ModuleType:
    return load_program(root / "measurements" / "corruptions.py")


@pytest.mark.parametrize("style", ["description", "request"])
def test_the_rules_read_the_wordings_of_photo_edits(corruptions: ModuleType, style: str) -> None:
    quality = corruptions.parser_quality(style)
    print(style, quality)
    assert quality["precision"] > 0.98 and quality["recall"] > 0.98


def test_corrupted_sentences_differ_in_what_they_are_named_after(corruptions: ModuleType) -> None:
    change = corruptions.Change("", "move", corruptions.NAMES[0], "top", corruptions.NAMES[1], "left", "red")
    errors = {kind: error(random.Random(0), change) for kind, error in corruptions.ERRORS.items()}
    fields = {"thing": "thing", "action": "action", "place": "place", "color": "color"}
    for kind, field in fields.items():
        assert getattr(errors[kind], field) != getattr(change, field), kind
    assert (errors["direction"].place, errors["direction"].source) == ("left", "top")
    assert corruptions.with_synonyms("the picture has been added") == "the image was inserted"
    row, others = corruptions.variants(random.Random(3), 3)
    assert {"no change", "invented change", "other sentence"} <= others.keys()
    assert row["prediction"] not in row["references"] and len(row["references"]) == corruptions.REFERENCES


def test_units_notice_errors_and_not_other_wordings(corruptions: ModuleType) -> None:
    found = corruptions.noticed(60, None)
    for kind in ("thing", "action", "invented change", "no change"):
        assert found[kind]["Unit-Action-F1"][0] > 0.9, kind
    assert found["other sentence"]["Unit-Action-F1"][0] == 0 < found["other sentence"]["CIDEr"][0]
    assert found["invented on unchanged"]["Unit-TNR"][0] == 1
    assert found["action"]["Unit-F1"][0] == 0, "it does not read actions"


def test_the_table_of_corruptions(corruptions: ModuleType) -> None:
    found = {kind: {"Unit-Action-F1": [1.0, 2], "CIDEr": [0.5, 2]} for kind in corruptions.ERRORS}
    rest = ("invented change", "left-out change", "no change", "invented on unchanged", "other sentence", "synonyms")
    table = corruptions.table_of(found | {kind: {"CIDEr": [0.25, 4]} for kind in rest})
    assert "| CIDEr | 50 | 50 | 50 | 50 | 50 | 25 |" in table and "| pairs | 2 | 2 | 2 | 2 | 2 | 4 |" in table
