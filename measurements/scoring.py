"""Scoring against pycocoevalcap's own evaluation: CPU time, Java's included, as a ratio; the scores are the same.

    python measurements/scoring.py
    python measurements/scoring.py --pairs 100                     # a quick look

The baseline is what COCOEvalCap.evaluate does, without SPICE: PTBTokenizer for references and for predictions, then
Bleu, Meteor, Rouge and Cider, one after the other. Ours is the same work: tokens, statistics of each pair, the same
scores. The whole of `score_rows` is timed too: a second system, the constant caption, which is searched first;
intervals of 1,000 resamples; tables. No two captions of the data are alike, so that nothing is gained by scoring a
duplicate sentence once.
"""

import argparse
import contextlib
import io
import os
import random
import sys
from pathlib import Path
from typing import Any

from paired import REPEATS, Row, ratio_row, run_measurement
from tqdm import tqdm

WORDS = {
    "color": "red green blue yellow grey purple brown cyan white black dark light".split(),
    "thing": "car truck van person man woman dog bicycle cone box bag tree sign bench bus building roof road".split(),
    "verb": "is gone|has appeared|was moved|has left|stands there now|is no longer there|was painted over".split("|"),
    "place": "parking lot|left corner|street|upper right side|middle of the picture|grass|far end of the lot".split(
        "|"
    ),
}
METRICS = ["BLEU", "METEOR", "ROUGE-L", "CIDEr"]
DIFFERENCE = 1e-9  # of a score, at most


def sentence(rng: random.Random) -> str:
    def thing() -> str:
        return f"{rng.choice(('the', 'a', 'another'))} {rng.choice(WORDS['color'])} {rng.choice(WORDS['thing'])}"

    text = f"{thing()} {rng.choice(WORDS['verb'])} near {thing()} in the {rng.choice(WORDS['place'])}"
    return f"{text}, {rng.choice(('and', 'but'))} {thing()} {rng.choice(WORDS['verb'])}.".capitalize()


def make_rows(pairs: int, references: int) -> list[dict[str, Any]]:
    rng, used = random.Random(0), set()

    def new() -> str:
        text = sentence(rng)
        while text in used:
            text = sentence(rng)
        used.add(text)
        return text

    def near(text: str) -> str:
        """Return a prediction that shares most words with a reference, so that there are stems and chunks to align."""
        words = [rng.choice(WORDS["color"]) if word in WORDS["color"] else word for word in text.split()]
        return " ".join(word for word in words if rng.random() > 0.1)

    rows = []
    for number in range(pairs):
        texts = [new() for _ in range(references)]
        rows.append({"pair_id": str(number), "prediction": near(texts[0]), "references": texts, "change_type": ""})
    return rows


def theirs(rows: list[dict[str, Any]]) -> dict[str, float]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenizer = PTBTokenizer()
    references = {row["pair_id"]: [{"caption": text} for text in row["references"]] for row in rows}
    predictions = {row["pair_id"]: [{"caption": row["prediction"]}] for row in rows}
    references, predictions = tokenizer.tokenize(references), tokenizer.tokenize(predictions)
    # all made before the first one scores, as evaluate does it: the METEOR jar starts while BLEU counts
    scorers = {"BLEU": Bleu(4), "METEOR": Meteor(), "ROUGE-L": Rouge(), "CIDEr": Cider()}
    scores = {}
    for name, scorer in scorers.items():
        score, _ = scorer.compute_score(references, predictions)
        scores |= {f"BLEU-{n}": value for n, value in enumerate(score, 1)} if name == "BLEU" else {name: score}
    return scores


def ours(rows: list[dict[str, Any]]) -> dict[str, float]:
    from metric_idc import corpus_scores

    return corpus_scores(rows, METRICS)


def ours_whole(rows: list[dict[str, Any]]) -> dict[str, float]:
    from metric_idc import score_rows

    return score_rows(rows, METRICS)["scores"]


def timed(function: Any, rows: list[dict[str, Any]]) -> tuple[dict[str, float], float]:
    """Return the scores, and the seconds of CPU time of this process and of the JVMs that it has started and ended."""
    started = sum(os.times()[:4])
    with contextlib.redirect_stdout(io.StringIO()):  # theirs prints
        scores = function(rows)
    return scores, sum(os.times()[:4]) - started


def check_scores(theirs: dict[str, float], ours: dict[str, float]) -> None:
    """Raise RuntimeError if a score differs."""
    for name, score in theirs.items():
        if abs(ours[name] - score) > DIFFERENCE:
            raise RuntimeError(f"{name} is {ours[name]!r}, that of pycocoevalcap {score!r}")


def measure(arguments: argparse.Namespace) -> list[Row]:
    from metric_idc import java

    # theirs calls `java` by its name
    os.environ["PATH"] = f"{Path(java.java_command()).parent}{os.pathsep}{os.environ['PATH']}"
    rows = make_rows(arguments.pairs, arguments.references)
    same: list[tuple[float, float]] = []
    whole: list[tuple[float, float]] = []
    for _ in tqdm(range(REPEATS), desc="scoring", leave=False):
        scores, baseline = timed(theirs, rows)
        for function, found in ((ours, same), (ours_whole, whole)):
            own, seconds = timed(function, rows)
            check_scores(scores, own)
            found.append((baseline, seconds))
    what, name = f"{arguments.pairs} pairs with {arguments.references} references", "pycocoevalcap"
    return [
        ratio_row(f"scores of {what}", name, same, at_least=2),
        ratio_row(f"scores, control and intervals of {what}", f"{name}, scores alone", whole, at_least=1),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--references", type=int, default=5, help="per pair")
    return run_measurement(measure, parser)


if __name__ == "__main__":
    sys.exit(main())
