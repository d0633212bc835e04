"""No stage does more per pair because there are more pairs: counted, not timed. And the program that measures it."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from program_files import load_program

from captioner_idc import bulk
from captioner_idc.pair_lists import read_pairs
from dataset_syned.synthesis.settings import STAGE_NAMES, SynthesisConfig
from dataset_syned.synthesis.stages import synthesize

recorders: list[Counter[str]] = []


def record(event: str, values: tuple[Any, ...]) -> None:
    if event in ("os.scandir", "os.listdir"):
        for recorder in recorders:
            recorder[str(values[0])] += 1


@contextmanager
def listings() -> Iterator[Counter[str]]:
    """Yield how often each folder is listed, by its path, while the block runs."""
    if not hasattr(sys, "_listings_are_recorded"):  # an audit hook cannot be removed
        sys.addaudithook(record)
        sys._listings_are_recorded = True
    recorders.append(Counter())
    try:
        yield recorders[-1]
    finally:
        recorders.pop()


def caption_list(folder: Path, pairs: int) -> tuple[int, int, int]:
    """Caption a list; return its shards, how often their folder was listed, and how often a shard was read."""
    folder.mkdir()
    entries = [{"before": f"{number}.png", "after": f"{number}.png"} for number in range(pairs)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    captioner = bulk.Captioner(lambda *_: None, lambda loaded: ["x"] * len(loaded), {})
    reads: list[int] = []

    def read(shards: bulk.Shards, shard: int) -> list[dict[str, Any]]:
        reads.append(shard)
        return original(shards, shard)

    original = bulk.Shards.read
    output = folder / "out.jsonl"
    with listings() as listed, pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk.Shards, "read", read)
        counts = bulk.caption_into(output, read_pairs(folder / "pairs.jsonl"), captioner, 2)
    assert counts.pairs == pairs
    return len(set(reads)), listed[str(bulk.parts_folder(output))], len(reads)


def test_sentences_in_shards_cost_the_same_per_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "SHARD", 2)
    few, many = caption_list(tmp_path / "few", 8), caption_list(tmp_path / "many", 80)
    assert (few[0], many[0]) == (4, 40)
    assert few[1] == many[1], "writing a shard lists the folder of all shards"
    assert (few[2], many[2]) == (2 * 4, 2 * 40), "each shard is looked for once, and read once at the end"


def synthesized(folder: Path, pairs: int) -> dict[str, int]:
    """Synthesize pairs in shards of two; return how often the folder of each stage was listed."""
    drawn = {"look": "studio", "wording": "instruction", "train": pairs}
    config = SynthesisConfig(
        output_dir=str(folder),
        benchmark="toy",
        benchmark_options=drawn,
        editor="drawing",
        shard_pairs=2,
        candidates=1,
        top_k=1,
    )
    with listings() as listed:
        synthesize(config)
    return {stage: listed[str(folder / stage)] for stage in ("sources", *STAGE_NAMES)}


def test_the_folders_of_synthesis_are_not_listed_per_shard(tmp_path: Path) -> None:
    assert synthesized(tmp_path / "few", 6) == synthesized(tmp_path / "many", 24)


@pytest.fixture(scope="module")
def growth(root: Path) -> ModuleType:
    return load_program(root / "measurements" / "growth.py")


def row(pairs: int, milliseconds: float) -> dict[str, Any]:
    return {"stage": "score", "processes": 1, "pairs": pairs, "cpu_ms_per_pair": milliseconds / pairs}


def test_growth_compares_further_pairs_with_those_before(growth: ModuleType) -> None:
    linear = growth.with_growth([row(10, 100 + 10), row(100, 100 + 100), row(1000, 100 + 1000)])
    assert [entry["cpu_ms_per_further_pair"] for entry in linear] == [None, pytest.approx(1), pytest.approx(1)]
    assert [entry["growth"] for entry in linear] == [None, pytest.approx(1 / 11), pytest.approx(1)]
    quadratic = growth.with_growth([row(pairs, pairs**2) for pairs in (10, 100, 1000)])
    assert quadratic[2]["growth"] == pytest.approx(10)


def test_the_table_of_the_page_is_that_of_the_results(growth: ModuleType, root: Path) -> None:
    rows = growth.read_rows(root / "docs" / "results" / "growth" / "growth.json")
    start, end = growth.MARKS
    table = growth.table(growth.with_growth(rows))
    assert f"{start}\n{table}\n{end}" in (root / "docs" / "speed.md").read_text(encoding="utf-8")
    assert {row["stage"] for row in rows} == set(growth.STAGES)


def test_the_program_measures_stages_and_keeps_earlier_rows(root: Path, tmp_path: Path) -> None:
    output = tmp_path / "results" / "growth.json"
    environment = {**os.environ, "PYTHONPATH": str(root)}

    def run(*options: str) -> str:
        command = [sys.executable, "measurements/growth.py", "--output", str(output), *options]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("--sizes", "10", "--stages", "predict")
    table = run("--sizes", "20", "--stages", "predict", "train input")
    content = json.loads(output.read_text())
    measured = sorted((entry["stage"], entry["processes"], entry["pairs"]) for entry in content["rows"])
    both = [("predict", processes, pairs) for processes in (1, 2) for pairs in (10, 20)]
    assert measured == [*both, ("train input", 1, 20), ("train input", 2, 20)]
    assert table.count("\n| predict | ") == 4 and content["cores"] == os.cpu_count() and "torch" in content["versions"]
