"""Check raw files: published counts, unreadable or duplicate pairs."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from .pair_builder import PairBuilder
from .pairs import NO_CHANGE, BrokenEntry, DataError, RawPair, read_image

RULES = {
    "annotation": "an entry of the annotations is broken",
    "missing": "an image file is missing",
    "unreadable": "an image cannot be decoded",
    "duplicate": "a split has a pair_id twice, or a pair has the images and captions of another pair",
    "identical": "the two images are the same file, but the change type says that something changed",
    "mismatched": "the two images have different shapes (width to height)",
    "no text": "a caption is empty, or there is none",
    "count": "the number of pairs of a split is not the published one",
    "empty": "a split has no pair",
}
SHAPE_TOLERANCE = 0.02  # of width / height; resizing to whole pixels stays below


@dataclass
class Problem:
    """A pair, or a split, that breaks one of RULES."""

    rule: str
    split: str
    pair_id: str
    detail: str


@dataclass
class CheckReport:
    """The number of pairs and the problems of a benchmark."""

    benchmark: str
    config: str
    found: dict[str, int] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of problems by rule."""
        return dict(Counter(problem.rule for problem in self.problems))

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON writes it."""
        return {**asdict(self), "counts": self.counts}

    def summary(self, shown: int = 3) -> str:
        """Return the counts per split, then each broken rule with its first cases."""
        lines = [f"{self.benchmark} ({self.config})"]
        for split, count in self.found.items():
            published = self.expected.get(split)
            lines.append(f"  {split}: {count} pairs" + (f", published {published}" if published is not None else ""))
        for rule, count in self.counts.items():
            cases = [problem for problem in self.problems if problem.rule == rule]
            lines.append(f"  {rule}: {count} ({RULES[rule]})")
            lines += [f"    {problem.split} {problem.pair_id}: {problem.detail}" for problem in cases[:shown]]
            lines += [f"    ... and {count - shown} more"] if count > shown else []
        return "\n".join(lines if self.problems else [*lines, "  no problem found"])


def check(builder: PairBuilder) -> CheckReport:
    """Check every raw pair of every split.

    Raises: DataError if a file of annotations is missing or not JSON, so that there are no pairs to check.
    """
    expected = builder.EXPECTED.get(builder.config.name, {})
    report = CheckReport(builder.dataset_name, builder.config.name, expected=dict(expected))
    contents: dict[int, str] = {}
    for split in builder.raw_splits():
        seen: set[str] = set()
        report.found[split] = 0
        for pair in builder.entries(split):
            if isinstance(pair, BrokenEntry):
                report.problems.append(Problem("annotation", split, pair.pair_id, str(pair.error)))
                continue
            found = pair_problems(pair, contents, f"{split} {pair.pair_id}")
            report.problems += [Problem(rule, split, pair.pair_id, detail) for rule, detail in found]
            if pair.pair_id in seen:
                report.problems.append(Problem("duplicate", split, pair.pair_id, "the split has this pair_id twice"))
            seen.add(pair.pair_id)
            report.found[split] += 1
        if not report.found[split]:
            report.problems.append(Problem("empty", split, "", "no entry of its annotations is a pair"))
    for split, count in expected.items():
        found = report.found.get(split, 0)
        if found != count:
            report.problems.append(Problem("count", split, "", f"{found} pairs, published: {count}"))
    return report


def pair_problems(pair: RawPair, contents: dict[int, str], place: str) -> Iterator[tuple[str, str]]:
    """Yield (rule, detail) for each problem of one pair.

    Args:
        contents: hash of images and captions -> place of the first pair that has them; this pair is added.
        place: split and pair_id, for `contents`.
    """
    if not pair.captions or not all(caption.strip() for caption in pair.captions):
        yield "no text", f"captions are {pair.captions}"
    images = []
    for source in (pair.before, pair.after):
        try:
            image, picture = read_image(source)
            images.append((image, picture.width / picture.height))
        except DataError as error:
            yield ("missing" if isinstance(error.__cause__, FileNotFoundError) else "unreadable"), str(error)
    if len(images) < 2:
        return
    (before, before_shape), (after, after_shape) = images
    first = contents.setdefault(hash((before["bytes"], after["bytes"], *pair.captions)), place)
    if first != place:
        yield "duplicate", f"has the images and captions of {first}"
    if before["bytes"] == after["bytes"] and pair.change_type not in ("", NO_CHANGE):
        yield (
            "identical",
            f"change type {pair.change_type!r}, but {before['path']!r} and {after['path']!r} are the same file",
        )
    if abs(before_shape / after_shape - 1) > SHAPE_TOLERANCE:
        yield (
            "mismatched",
            f"width / height is {before_shape:.2f} in {before['path']!r} and {after_shape:.2f} in {after['path']!r}",
        )
