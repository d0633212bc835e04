"""Fourth stage: which candidates become pairs. Every rejected one keeps its reason, and its scores are in `scores`."""

import hashlib
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

    needs = ("edits", "scores")

    def __init__(self, config: SynthesisConfig):
        self.config, self.batch_size = config, config.shard_pairs

    def work(self, batch: list[dict[str, Row]]) -> list[Row]:
        return [self.one(inputs["edits"]["candidates"], inputs["scores"]["scores"]) for inputs in batch]

    def one(self, candidates: list[Row], scores: list[Score | None]) -> Row:
        verdicts = [""] * len(candidates)
        kept: list[int] = []
        seen: set[bytes] = set()
        for number in sorted(range(len(candidates)), key=lambda number: -quality(scores[number])):
            verdict = self.verdict(candidates[number], scores[number], seen, len(kept))
            verdicts[number] = verdict or ACCEPTED
            if not verdict:
                kept.append(number)
        return {"verdicts": verdicts, "kept": kept, "problem": "" if kept else "no candidate was accepted"}

    def verdict(self, candidate: Row, score: Score | None, seen: set[bytes], kept: int) -> str:
        if candidate["problem"]:
            return f"editor: {candidate['problem']}"
        reason = reject(score, self.config)
        digest = hashlib.sha256(candidate["image"]["bytes"]).digest()
        if not reason and digest in seen:
            reason = "duplicate"
        if not reason and kept == self.config.top_k:
            reason = "not_in_top_k"
        seen.add(digest)
        return reason
