"""METEOR 1.5 for English: the official jar aligns each pair; the corpus score is computed from summed counts."""

import re
import tempfile
from pathlib import Path

import numpy as np

from .java import jar, run_java, run_java_on_all_cores
from .paraphrases import needed_paraphrases

SCORES = ("METEOR",)
IMPLEMENTATION = "METEOR 1.5 jar of pycocoevalcap, -l en -norm, score of the summed statistics"

# The jar's own settings for English (task "rank"), Denkowski and Lavie 2014; a test compares with the jar's EVAL.
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
STAGE_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])  # exact, stem, synonym, paraphrase
CHUNKS = 20  # column of the statistics
ENOUGH = 500  # lines that are worth starting another JVM

JAR = ("meteor", "meteor-1.5.jar")
PLAIN = re.compile(r"[A-Za-z ]*")
# Line ends would break the one-line-per-pair exchange with the jar, `|||` is its field separator.
LINE_ENDS = re.compile("\r\n|[\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]")


def segment_statistics(systems: list[list[str]], references: list[list[str]]) -> list[np.ndarray]:
    """Return per system [pairs, 23] the jar's statistics of each prediction against its best reference.

    Each distinct line goes through the jar once; many lines are shared among one JVM per core.
    """
    normal = _normalized([text for texts in [*systems, *references] for text in texts])
    lines = [
        " ||| ".join(["SCORE", *(normal[text] for text in texts), normal[prediction]])
        for system in systems
        for prediction, texts in zip(system, references, strict=True)
    ]
    unique = list(dict.fromkeys(lines))
    with tempfile.TemporaryDirectory() as folder:
        words = set(" ".join(normal.values()).lower().split())
        table = needed_paraphrases(words, Path(folder))
        # settings with which a short-lived JVM starts fastest; pycocoevalcap's options, but -norm is already done
        program = ["-Xmx2G", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-jar", str(jar(*JAR))]
        options = ["-", "-", "-stdio", "-l", "en", "-lower", "-a", str(table)]
        output = run_java_on_all_cores([*program, *options], unique, enough=ENOUGH)
    rows = dict(zip(unique, output, strict=True))
    statistics = np.array([rows[line].split() for line in lines], dtype=float)
    statistics[_perfect(statistics), CHUNKS] = 0
    return np.split(statistics, len(systems))


def reduce(total: np.ndarray, pairs: int) -> dict[str, float]:
    """Return METEOR of the summed statistics, as the jar's EVAL command computes it."""
    # columns: 4 lengths, 4 stages of 4 match counts, chunks, matched words
    length, reference_length, function_words, reference_function_words, *rest = total.tolist()
    stages = np.array(rest[:16]).reshape(4, 4)  # [stage, (content, reference content, function, reference function)]
    chunks, matched, reference_matched = rest[16:]
    content, reference_content, function, reference_function = STAGE_WEIGHTS @ stages
    precision = _ratio(content, function, length, function_words)
    recall = _ratio(reference_content, reference_function, reference_length, reference_function_words)
    if precision == 0 or recall == 0:
        return {"METEOR": 0.0}
    mean = 1 / ((1 - ALPHA) / precision + ALPHA / recall)
    fragmentation = chunks / ((matched + reference_matched) / 2)
    return {"METEOR": float(mean * (1 - GAMMA * fragmentation**BETA))}


def _perfect(statistics: np.ndarray) -> np.ndarray:
    """Return [pairs] whether all words match in one chunk; such pairs add no chunk to the jar's corpus score."""
    stages = statistics[:, 4:CHUNKS].reshape(-1, 4, 2, 2)  # [pairs, stage, content or function, side]
    matches = stages.sum(axis=(1, 2))  # [pairs, side]
    return (matches == statistics[:, :2]).all(axis=1) & (statistics[:, CHUNKS] == 1)


def _normalized(texts: list[str]) -> dict[str, str]:
    """Return each text as the jar's option -norm does, by the jar's own normalizer, which does not change plain words.

    This is done once per text instead of in each line that contains it.
    """
    fields = {text: _one_field(text) for text in dict.fromkeys(texts)}
    odd = list(dict.fromkeys(field for field in fields.values() if not PLAIN.fullmatch(field)))
    program = ["-cp", str(jar(*JAR)), "edu.cmu.meteor.util.Normalizer", "en", "true"]
    normal = dict(zip(odd, run_java(program, odd), strict=True)) if odd else {}
    return {text: normal.get(field, field) for text, field in fields.items()}


def _one_field(text: str) -> str:
    # as pycocoevalcap does it to predictions; it leaves references alone, where `|||` would make two of one
    return LINE_ENDS.sub(" ", text).replace("|||", "").replace("  ", " ")


def _ratio(content_matches: float, function_matches: float, words: float, function_words: float) -> float:
    """Return the matches per word; content words weigh DELTA, function words 1 - DELTA."""
    total = DELTA * (words - function_words) + (1 - DELTA) * function_words
    return (DELTA * content_matches + (1 - DELTA) * function_matches) / total if total else 0.0
