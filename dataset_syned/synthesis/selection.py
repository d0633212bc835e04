"""Fourth stage: which candidates become pairs. Every rejected one keeps its reason, and its scores are in `scores`."""

import math

from .settings import SynthesisConfig
from .shards import Row

BLANK = 1.0  # standard deviation, of 255: what a safety checker or an overflow leaves is one colour
ACCEPTED = "accepted"
# score, setting that bounds it from below, reason
THRESHOLDS = (
    ("changed", "min_changed", "identical"),
    ("image_image", "min_image_image", "different_picture"),
    ("image_text", "min_image_text", "text_not_shown"),
    ("directional", "min_directional", "other_direction"),
)


Score = dict[str, float | None]  # None where a model gave no number


def quality(score: Score | None) -> float:
    """What candidates of a pair are ranked by: directional similarity as in InstructPix2Pix, else image and text."""
    score = score or {}
    value = score.get("directional", score.get("image_text", 0.0))
    return -math.inf if value is None else value


def reject(score: Score, config: SynthesisConfig) -> str:
    """The first reason against a candidate by itself, or nothing."""
    for name, value in score.items():
        if value is None:
            return f"not_finite: {name}"
    if score["contrast"] < BLANK:
        return "blank"
    for name, setting, reason in THRESHOLDS:
        if name in score and score[name] < getattr(config, setting):
            return f"{reason}: {name} {score[name]:.3f} < {getattr(config, setting)}"
    return ""


class Selection:
    """Rows: verdicts, one per candidate: "accepted" or the reason; kept, the accepted from the best on."""

    needs, looks = ("scores",), False

    def __init__(self, config: SynthesisConfig):
        self.config, self.batch_size = config, config.shard_pairs

    def work(self, batch: list[dict[str, Row]]) -> list[Row]:
        return [self.one(inputs["scores"]) for inputs in batch]

    def one(self, row: Row) -> Row:
        """`row` is the ranking's."""
        scores, problems, digests = row["scores"], row["editor_problems"], row["digests"]
        verdicts = [""] * len(scores)
        kept: list[int] = []
        seen: set[str] = set()
        for number in sorted(range(len(scores)), key=lambda number: -quality(scores[number])):
            verdict = f"editor: {problems[number]}" if problems[number] else reject(scores[number], self.config)
            if not verdict and digests[number] in seen:
                verdict = "duplicate"
            if not verdict and len(kept) == self.config.top_k:
                verdict = "not_in_top_k"
            seen.add(digests[number])
            verdicts[number] = verdict or ACCEPTED
            if not verdict:
                kept.append(number)
        return {"verdicts": verdicts, "kept": kept, "problem": "" if kept else "no candidate was accepted"}
