"""Scoring against pycocoevalcap's own evaluation, in the same run: time as a ratio, and the largest difference.

    python measurements/scoring.py
    python measurements/scoring.py --pairs 500                     # a quick look

The baseline is what COCOEvalCap.evaluate does, without SPICE: PTBTokenizer for references and for predictions, then
Bleu, Meteor, Rouge and Cider, one after the other. Ours is the same work: tokens, statistics of each pair, the same
scores. The whole of `score_rows` is timed too: a second system, the constant caption, which is searched first;
intervals of 1,000 resamples; tables. No two captions of the data are alike, so that nothing is gained by scoring a
duplicate sentence once. It ends with code 1 if a bar is missed.
"""

import argparse
import contextlib
import io
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

WORDS = {
    "color": "red green blue yellow grey purple brown cyan white black dark light".split(),
    "thing": "car truck van person man woman dog bicycle cone box bag tree sign bench bus building roof road".split(),
    "verb": "is gone|has appeared|was moved|has left|stands there now|is no longer there|was painted over".split("|"),
    "place": "parking lot|left corner|street|upper right side|middle of the picture|grass|far end of the lot".split(
        "|"
    ),
}
METRICS = ["BLEU", "METEOR", "ROUGE-L", "CIDEr"]
BARS = {"time": 0.5, "whole": 1.0, "difference": 1e-9}


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
        started = time.perf_counter()
        score, _ = scorer.compute_score(references, predictions)
        print(f"  {name} {time.perf_counter() - started:.1f} s", file=sys.stderr)
        scores |= {f"BLEU-{n}": value for n, value in enumerate(score, 1)} if name == "BLEU" else {name: score}
    return scores


def ours(rows: list[dict[str, Any]]) -> dict[str, float]:
    from metric_idc import corpus_scores

    return corpus_scores(rows, METRICS)


def ours_whole(rows: list[dict[str, Any]]) -> dict[str, float]:
    from metric_idc import score_rows

    return score_rows(rows, METRICS)["scores"]


def timed(name: str, function: Any, rows: list[dict[str, Any]]) -> tuple[dict[str, float], float]:
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):  # theirs prints
        scores = function(rows)
    seconds = time.perf_counter() - started
    print(f"{name}: {seconds:.1f} s, " + ", ".join(f"{key} {value:.4f}" for key, value in scores.items()))
    return scores, seconds


def main(argv: list[str] | None = None) -> int:
    from metric_idc import java

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--references", type=int, default=5, help="per pair")
    arguments = parser.parse_args(argv)
    # theirs calls `java` by its name
    os.environ["PATH"] = f"{Path(java.java_command()).parent}{os.pathsep}{os.environ['PATH']}"
    rows = make_rows(arguments.pairs, arguments.references)
    print(f"{arguments.pairs} pairs with {arguments.references} references each, {os.cpu_count()} cores")
    our_scores, our_seconds = timed("metric_idc, the same work", ours, rows)
    whole_scores, whole_seconds = timed("metric_idc, the whole of score_rows", ours_whole, rows)
    their_scores, their_seconds = timed("pycocoevalcap", theirs, rows)
    found = {
        "time": our_seconds / their_seconds,
        "whole": whole_seconds / their_seconds,
        "difference": max(
            abs(scores[name] - score) for name, score in their_scores.items() for scores in (our_scores, whole_scores)
        ),
    }
    for name, value in found.items():
        print(f"{name}: {value:.3g}{'' if name == 'difference' else ' of theirs'}, bar {BARS[name]}")
    return int(any(found[name] > bar for name, bar in BARS.items()))


if __name__ == "__main__":
    sys.exit(main())
