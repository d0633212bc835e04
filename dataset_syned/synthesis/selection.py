"""Fourth stage: which candidates become pairs. Each rejected one has its reason here and its scores in `scores`."""

import math

from .settings import SynthesisConfig
from .shards import Row

BLANK = 1.0  # standard deviation, of 255: a safety checker or an overflow leaves one color
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
    """Return the rank of a candidate: directional similarity as in InstructPix2Pix, else image and text."""
    score = score or {}
    value = score.get("directional", score.get("image_text", 0.0))
    return -math.inf if value is None else value


def reject(score: Score, config: SynthesisConfig) -> str:
    """Return the first reason against a candidate by itself, or ""."""
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
    """Stage whose rows have verdicts ("accepted" or a reason) and kept, the accepted candidates, best first."""

    inputs, reads_images = ("scores",), False

    def __init__(self, config: SynthesisConfig):
        self.config, self.batch_size = config, config.shard_pairs

    def work(self, batch: list[dict[str, Row]]) -> list[Row]:
        return [self.select_pair(inputs["scores"]) for inputs in batch]

    def select_pair(self, row: Row) -> Row:
        """Return verdicts of a row of scores."""
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
