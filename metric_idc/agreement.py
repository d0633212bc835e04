"""Agreement with people: Kendall's tau between each score and preferences or ratings of the same sentences.

python -m metric_idc agreement judged.jsonl
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .comparison import describe_chats
from .difference_units import LOWER_IS_BETTER
from .resampling import interval
from .scoring import score_rows

PREFERENCES = {"a": 1.0, "b": -1.0, "tie": 0.0}
EXAMPLES = (
    '{"prediction_a": "the car is gone", "prediction_b": "no change", "references": ["a car has left"], '
    '"preference": "a"}',
    '{"prediction": "the car is gone", "references": ["a car has left"], "rating": 4.5}',
)

Row = dict[str, Any]


class Agreement(NamedTuple):
    """What `agreement` has found.

    Attributes:
        scores: name -> `tau`, `low` and `high` of its interval, and the number of `lines`.
        chats: what `describe_chats` says of the judge; "" without one.
    """

    scores: dict[str, dict[str, float]]
    chats: str


def agreement(
    path: str | Path,
    metrics: list[str] | None = None,
    sentence_model: str | Path | None = None,
    resamples: int = 1000,
    seed: int = 0,
    *,
    judge: str | Path | None = None,
    judge_model: str | None = None,
    chat_answers: Path | None = None,
) -> Agreement:
    """Return per score Kendall's tau-b with people, its 95 % interval, and the number of lines that have the score.

    With ratings, it is that of scores and ratings over all lines. With preferences, only the two sentences of a line
    are compared: concordant minus discordant lines, divided by the square root of (lines with different scores) times
    (lines without a tie). The interval is that of a bootstrap over lines. The sign of a score of which less is better
    is exchanged.

    Args:
        path: of JSON lines, all in one of the forms of EXAMPLES; `change_type` and `units` may be there too.
        metrics, sentence_model, judge, judge_model, chat_answers: see `score_rows`. Sentences without a usable
            answer of the judge are left out of the lines of its scores, and counted in `chats`.

    Raises: ValueError with file and line for what cannot be used; OSError if the file cannot be read.
    """
    lines = _read(Path(path))
    if "preference" in lines[0]:
        rows = [_as_row(line, number, side) for side in "ab" for number, line in enumerate(lines, start=1)]
        judged = np.array([PREFERENCES[line["preference"]] for line in lines])
        tau: Callable[[np.ndarray, np.ndarray], float] = tau_of_preferences
    else:
        rows = [_as_row(line, number) for number, line in enumerate(lines, start=1)]
        judged = np.array([float(line["rating"]) for line in lines])
        tau = tau_of_ratings
    if len(np.unique(judged)) == 1 and (tau is tau_of_ratings or not judged[0]):
        raise ValueError(f"{path}: all lines have the same judgement, so that nothing can agree with it")
    models = {"sentence_model": sentence_model, "judge": judge, "judge_model": judge_model}
    result = score_rows(rows, metrics, resamples=1, chat_answers=chat_answers, **models)
    scored = [pair["scores"] for pair in result["pairs"]]
    found = {}
    for name in dict.fromkeys(name for scores in scored for name in scores):
        sign = -1 if name in LOWER_IS_BETTER else 1
        values = sign * np.array([scores.get(name, np.nan) for scores in scored]).reshape(-1, len(lines))
        values = values[0] - values[1] if len(values) == 2 else values[0]
        kept = ~np.isnan(values)
        found[name] = {**_with_interval(tau, values[kept], judged[kept], resamples, seed), "lines": int(kept.sum())}
    return Agreement(found, describe_chats(result))


def agreement_table(found: dict[str, dict[str, float]]) -> str:
    """Return a Markdown table, the best agreement first; scores that are equal everywhere have no tau."""
    order = sorted(found, key=lambda name: -np.nan_to_num(found[name]["tau"], nan=-2))
    lines = ["| score | Kendall's tau [95 %] | lines |", "|---|---|---|"]
    for name in order:
        row = found[name]
        shown = "" if np.isnan(row["tau"]) else f"{row['tau']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        lines.append(f"| {name} | {shown} | {row['lines']} |")
    return "\n".join(lines)


def tau_of_preferences(differences: np.ndarray, preferences: np.ndarray) -> float:
    """Return tau-b of the comparisons a minus b and 1, -1 or 0 for a, b or a tie.

    It is nan if one of both has only ties, or for a single line.
    """
    if len(differences) < 2:
        return float("nan")
    signs = np.sign(np.where(np.abs(differences) < 1e-9, 0, differences))
    compared = np.count_nonzero(signs) * np.count_nonzero(preferences)
    return float(signs @ preferences / np.sqrt(compared)) if compared else float("nan")


def tau_of_ratings(scores: np.ndarray, ratings: np.ndarray) -> float:
    """Return Kendall's tau-b; nan if all scores or all ratings are equal, or for a single line."""
    from scipy.stats import kendalltau

    return float("nan") if len(scores) < 2 else float(kendalltau(np.round(scores, 9), ratings).statistic)


def _with_interval(
    tau: Callable[[np.ndarray, np.ndarray], float], scores: np.ndarray, judged: np.ndarray, resamples: int, seed: int
) -> dict[str, float]:
    random = np.random.default_rng(seed)
    chosen = (random.integers(len(scores), size=len(scores)) for _ in range(resamples))
    value, draws = tau(scores, judged), np.array([tau(scores[draw], judged[draw]) for draw in chosen])
    low, high = interval(draws) if not np.isnan(draws).all() else (value, value)
    return {"tau": value, "low": low, "high": high}


def _read(path: Path) -> list[Row]:
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    lines = [_line(line, f"{path}, line {number}") for number, line in enumerate(content, start=1) if line.strip()]
    if len(lines) < 2:
        raise ValueError(f"{path} has {len(lines)} lines; agreement needs at least 2")
    if len({"preference" in line for line in lines}) == 2:
        raise ValueError(f"{path} has lines with a preference and lines with a rating; use one form in a file")
    return lines


def _line(text: bytes, where: str) -> Row:
    try:
        line = json.loads(text.decode("utf-8"))
    except ValueError as error:  # not UTF-8, or not JSON
        raise ValueError(f"{where}: not a line of JSON ({error}); expected e.g. {EXAMPLES[0]}") from error
    forms = [json.loads(example) for example in EXAMPLES]
    if not isinstance(line, dict) or not any(form.keys() <= line.keys() for form in forms):
        raise ValueError(f"{where}: expected the fields of {EXAMPLES[0]} or of {EXAMPLES[1]}, got {str(line)[:100]}")
    if "preference" in line and line["preference"] not in PREFERENCES:
        raise ValueError(f"{where}: preference is {line['preference']!r}; use one of {', '.join(PREFERENCES)}")
    rating = line.get("rating", 0)
    if not isinstance(rating, int | float) or isinstance(rating, bool) or not np.isfinite(rating):
        raise ValueError(f"{where}: rating is {rating!r}; use a finite number")
    return line


def _as_row(line: Row, number: int, side: str = "") -> Row:
    """Return a row for scoring; its pair_id names the line in messages."""
    known = {name: line[name] for name in ("references", "change_type", "units") if name in line}
    suffix = f"_{side}" if side else ""
    return {"pair_id": f"line {number}{suffix}", "prediction": line[f"prediction{suffix}"], **known}
