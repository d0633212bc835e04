"""Checks that every benchmark must pass on tiny raw files from its test module (see docs/add_a_benchmark.md)."""

import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest

from dataset_syned import FEATURES, PairBuilder, benchmark_builder, prepare
from dataset_syned.image_sizes import at_most
from dataset_syned.pairs import CHANGE_TYPES, DataError, RawPair, decode_image

SPLITS = ("train", "validation", "test")


def write_tiny(name: str, root: Path, broken: bool = False) -> None:
    """Write a benchmark's tiny raw files; with `broken`, add an entry that cannot be used."""
    try:
        write = importlib.import_module(f"test_{name}").write_tiny
    except (ModuleNotFoundError, AttributeError):
        pytest.fail(
            f"benchmark {name!r} has no tiny raw files: add tests/test_{name}.py with a function "
            "write_tiny(root: Path, broken: bool), as docs/add_a_benchmark.md shows"
        )
    root.mkdir(parents=True)
    write(root, broken)


def tiny_options(name: str) -> dict[str, Any]:
    """Return the options that make a generated benchmark tiny."""
    return getattr(importlib.import_module(f"test_{name}"), "TINY_OPTIONS", {})


def make(name: str, root: Path, cache: Path, config: str | None = None, **more: Any) -> PairBuilder:
    """Return a builder that reads `root` and writes into `cache`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.builder.config.HF_DATASETS_CACHE", str(cache))
        return benchmark_builder(name, config=config, root=root, **tiny_options(name), **more)


def raw_rows(builder: PairBuilder) -> dict[str, list[dict[str, Any]]]:
    """Return the prepared rows by split, with image files as they are stored."""
    raw = datasets.Image(decode=False)
    splits = prepare(builder)
    return {
        split: rows.cast_column("before", raw).cast_column("after", raw).to_list() for split, rows in splits.items()
    }


def check_rows(name: str, tmp_path: Path) -> None:
    """Check that rows have the schema, valid change types and plain file names, in the builder's order."""
    write_tiny(name, tmp_path / "raw")
    for config in benchmark_builder(name).BUILDER_CONFIGS:
        builder = make(name, tmp_path / "raw", tmp_path / "cache", config.name)
        splits = prepare(builder)
        assert list(splits) == [split for split in SPLITS if split in splits] == builder.raw_splits()
        for split, rows in splits.items():
            assert rows.features == FEATURES
            pairs = [
                pair for pair in builder.raw_pairs(split) if split != "train" or any(map(str.strip, pair.captions))
            ]
            assert rows["pair_id"][:] == [pair.pair_id for pair in pairs], "the order of the annotations"
            assert builder.count_pairs(split) == sum(1 for _ in builder.entries(split)), "shards cover all entries"
        for split, rows in raw_rows(builder).items():
            for row in rows:
                check_row(row, builder.BLANK_CAPTIONS and split != "train")


def check_row(row: dict[str, Any], may_be_blank: bool) -> None:
    """Check the values of one row."""
    assert row["change_type"] == "" or row["change_type"] in CHANGE_TYPES
    assert row["captions"] and (may_be_blank or all(map(str.strip, row["captions"])))
    assert row["provenance"] == "" or json.loads(row["provenance"])
    for side in ("before", "after"):
        assert row[side]["bytes"] and row[side]["path"] == Path(row[side]["path"]).name


def check_prepared_once(name: str, tmp_path: Path) -> None:
    """Check that a second preparation, also without the raw files, gives the same rows and writes nothing."""
    write_tiny(name, tmp_path / "raw")
    first = raw_rows(make(name, tmp_path / "raw", tmp_path / "cache"))
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.arrow")}
    again = raw_rows(make(name, tmp_path / "raw", tmp_path / "cache"))
    (tmp_path / "raw").rename(tmp_path / "away")
    without_raw_files = raw_rows(make(name, tmp_path / "raw", tmp_path / "cache"))
    assert first == again == without_raw_files and files
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.arrow")}


def check_max_side(name: str, tmp_path: Path) -> None:
    """Check that rows with smaller images are a data set of their own, and otherwise the same."""
    write_tiny(name, tmp_path / "raw")
    raw = tmp_path / "raw"
    whole = raw_rows(make(name, raw, tmp_path / "cache"))
    smaller = raw_rows(make(name, raw, tmp_path / "cache", max_side=32))
    assert raw_rows(make(name, raw, tmp_path / "cache")) == whole, "both are in the cache"
    assert smaller.keys() == whole.keys()
    for split, rows in whole.items():
        for row, reduced in zip(rows, smaller[split], strict=True):
            assert reduced == {**row, **{side: at_most(32, row[side]) for side in ("before", "after")}}
            assert all(max(decode_image(reduced[side]).size) <= 32 for side in ("before", "after"))


def check_broken_entry(name: str, tmp_path: Path) -> None:
    """Check that a broken entry stops the preparation with an error, or is skipped, listed and loses no other."""
    write_tiny(name, tmp_path / "whole")
    write_tiny(name, tmp_path / "broken", broken=True)
    with pytest.raises(DataError):
        prepare(make(name, tmp_path / "broken", tmp_path / "cache"))
    assert not list((tmp_path / "cache").rglob("*.arrow")), "no unfinished file is left"
    log = tmp_path / "skipped.jsonl"
    skipping = make(name, tmp_path / "broken", tmp_path / "cache", skip_log=log)
    assert raw_rows(skipping) == raw_rows(make(name, tmp_path / "whole", tmp_path / "cache of the whole"))
    assert all(json.loads(line)["reason"] for line in log.read_text().splitlines()) and log.read_text()


def check_duplicate_and_broken_image(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that errors for a duplicate pair_id and for an image that cannot be decoded name the pair."""
    write_tiny(name, tmp_path / "raw")
    builder = make(name, tmp_path / "raw", tmp_path / "cache")
    split = builder.raw_splits()[-1]
    first = next(pair for pair in builder.entries(split) if isinstance(pair, RawPair))
    for pair, message in (
        (first, f"duplicate pair_id {first.pair_id!r} in split {split!r}"),
        (
            replace(first, pair_id="cut", after=("cut.png", b"\x89PNG\r\n")),
            "pair 'cut': image 'cut.png' cannot be read",
        ),
    ):
        entries = type(builder).entries

        def with_another(self: PairBuilder, part: str, entries: Any = entries, pair: RawPair = pair) -> Iterator[Any]:
            yield from entries(self, part)
            if part == split:
                yield pair

        with monkeypatch.context() as patch:
            patch.setattr(type(builder), "entries", with_another)
            patch.setattr(type(builder), "count_pairs", lambda self, part: sum(1 for _ in self.entries(part)))
            with pytest.raises(DataError) as error:
                prepare(make(name, tmp_path / "raw", tmp_path / "cache"))
        assert message in str(error.value)


def check_missing_files(name: str, tmp_path: Path) -> None:
    """Check that without raw files the error says what is missing and where to get it."""
    for config in benchmark_builder(name).BUILDER_CONFIGS:
        builder = make(name, tmp_path / "nothing", tmp_path / "cache", config.name)
        with pytest.raises(DataError, match="missing") as error:
            builder.raw_splits()
        assert builder.BY_HAND and builder.BY_HAND in str(error.value) and "nothing" in str(error.value)
