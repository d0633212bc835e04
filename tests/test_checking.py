"""Checks of a benchmark: every rule finds its case and nothing else."""

import io
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from PIL import Image

from dataset_syned.checking import RULES, check
from dataset_syned.pair_builder import PairBuilder, PairConfig
from dataset_syned.pairs import DataError, RawPair, read_row


def png(color: str, size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg(color: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), color).save(buffer, "JPEG")
    return buffer.getvalue()


RED, BLUE = ("red.png", png("red")), ("blue.png", png("blue"))


class Listed(PairBuilder):
    """A benchmark of the pairs that a test lists."""

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIGS = [PairConfig(name="default", version=VERSION)]
    DEFAULT_CONFIG_NAME = "default"
    EXPECTED = {"default": {"train": 2, "test": 1}}
    pairs: dict[str, list[RawPair]] = {}

    def raw_splits(self) -> list[str]:
        return list(self.pairs)

    def entries(self, split: str) -> Iterator[RawPair]:
        return iter(self.pairs[split])


def listed(tmp_path: Path, **pairs: list[RawPair]) -> Listed:
    builder = Listed(dataset_name="listed", cache_dir=str(tmp_path / "cache"), root=tmp_path)
    builder.pairs = pairs
    return builder


def good(pair_id: str, **changes: object) -> RawPair:
    return RawPair(
        **{"pair_id": pair_id, "before": RED, "after": BLUE, "captions": [pair_id], "change_type": "color", **changes}
    )


def test_a_complete_benchmark_has_no_problem(tmp_path: Path) -> None:
    report = check(listed(tmp_path, train=[good("1"), good("2")], test=[good("9")]))
    assert report.problems == [] and report.found == report.expected == {"train": 2, "test": 1}
    assert "no problem found" in report.summary()


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("missing", {"before": Path("no-such-file.png")}),
        ("unreadable", {"after": ("cut.png", BLUE[1][:40])}),
        ("unreadable", {"after": ("text.png", b"this is no image")}),
        ("unreadable", {"after": ("cut.jpg", jpeg("blue")[:400])}),
        ("identical", {"after": RED}),
        ("mismatched", {"after": ("wide.png", png("blue", (16, 8)))}),
        ("no text", {"captions": []}),
        ("no text", {"captions": ["fine", "  "]}),
        ("duplicate", {"captions": ["1"]}),
    ],
)
def test_each_rule_finds_its_case(tmp_path: Path, rule: str, change: dict[str, object]) -> None:
    report = check(listed(tmp_path, train=[good("1"), good("2", **change)], test=[good("9")]))
    assert [(p.rule, p.split, p.pair_id) for p in report.problems] == [(rule, "train", "2")]
    assert report.as_dict()["counts"] == {rule: 1} and RULES[rule] in report.summary()


def test_counts_and_duplicates(tmp_path: Path) -> None:
    report = check(listed(tmp_path, train=[good("1"), good("1"), good("3")]))
    assert [(p.rule, p.split) for p in report.problems] == [
        ("duplicate", "train"),
        ("count", "train"),
        ("count", "test"),
    ]
    assert "0 pairs, published: 1" in report.summary() and report.found == {"train": 3}


def test_images_that_training_would_refuse_are_unreadable(tmp_path: Path) -> None:
    """Pillow opens negative grey levels, but the model's decoder does not."""
    buffer = io.BytesIO()
    Image.new("F", (8, 8), -1.0).save(buffer, "TIFF")
    report = check(
        listed(tmp_path, train=[good("1"), good("2", after=("f.tif", buffer.getvalue()))], test=[good("9")])
    )
    (problem,) = report.problems
    assert (problem.rule, problem.pair_id) == ("unreadable", "2")
    assert "image 'f.tif' cannot be read" in problem.detail and "not grey levels" in problem.detail
    with pytest.raises(DataError, match="pair '2': image 'f.tif' cannot be read"):
        read_row(good("2", after=("f.tif", buffer.getvalue())))


def test_unchanged_pairs_may_use_the_same_file_twice(tmp_path: Path) -> None:
    same = [good("1", after=RED, change_type="none"), good("2", after=RED, change_type="")]
    assert check(listed(tmp_path, train=same, test=[good("9")])).problems == []


def test_the_summary_names_the_first_cases_and_counts_the_rest(tmp_path: Path) -> None:
    report = check(listed(tmp_path, train=[good(str(n), captions=[]) for n in range(9)], test=[good("9")]))
    text = report.summary()
    assert "no text: 9" in text and "train 0:" in text and "... and 6 more" in text and "train 5:" not in text


def test_a_split_without_a_pair_is_a_problem(tmp_path: Path) -> None:
    report = check(listed(tmp_path, train=[good("1"), good("2")], test=[good("9")], validation=[]))
    assert [(p.rule, p.split, p.pair_id) for p in report.problems] == [("empty", "validation", "")]
    assert report.found == {"train": 2, "test": 1, "validation": 0} and "validation: 0 pairs" in report.summary()
