"""The toy benchmark: drawn pairs that are the same everywhere, whose captions are true, and that a person can see."""

import hashlib
import io
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from dataset_syned import BENCHMARKS, FEATURES, benchmark_builder, load_benchmark
from dataset_syned.__main__ import main
from dataset_syned.benchmarks.toy import CHANGE_TYPES, SENTENCES, SETTINGS, ToyConfig, draw_pair, draw_row
from dataset_syned.scene_drawing import COLORS, View, coverage, draw_background, draw_scene, draw_things, separate
from metric_idc import stated_change_type

SMALL = {"train": 60, "validation": 20, "test": 30}
TINY_OPTIONS = {"train": 4, "validation": 2, "test": 3}


def write_tiny(root: Path, broken: bool) -> None:
    """Write nothing: this benchmark is drawn."""


def pixels(image: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image["bytes"])).convert("RGB"))


def digest(rows: list[dict[str, Any]]) -> str:
    """Return a digest of pixels, not of files, because compressors differ between machines."""
    hashed = hashlib.sha256()
    for row in rows:
        hashed.update(pixels(row["before"]).tobytes() + pixels(row["after"]).tobytes())
        hashed.update(json.dumps([row["pair_id"], row["captions"], row["change_type"]]).encode())
    return hashed.hexdigest()


def pairs(change_type: str, count: int = 20, difficulty: str = "easy") -> list[Any]:
    return [
        draw_pair(random.Random(f"{change_type}/{i}"), change_type, SETTINGS[difficulty], 2.0) for i in range(count)
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "6aa918685c03a900ccac4b1e2c36d0a9e197d5235fa1a53de2a06a1ee73f6385"),
        (
            {"look": "studio", "wording": "instruction", "difficulty": "hard", "seed": 7},
            "b2ee92d5a92a6d2e96a9aed4c37bedf0d399c16cd2151d7c81e41f2bb2f3d486",
        ),
    ],
)
def test_drawn_pairs_are_the_same_on_every_machine(options: dict[str, Any], expected: str) -> None:
    config = ToyConfig(**options)
    assert digest([draw_row(config, "train", index) for index in range(20)]) == expected


def test_rows_have_the_common_schema_and_all_change_types() -> None:
    for split, count in SMALL.items():
        rows = load_benchmark("toy", split, **SMALL)
        assert rows.features == FEATURES and len(rows) == count
    rows = load_benchmark("toy", "train", **SMALL)
    assert set(rows["change_type"]) == set(CHANGE_TYPES)
    assert all(len(set(captions)) >= 3 for captions in rows["captions"])
    assert rows[0]["before"].size == (128, 64)
    assert len(set(rows["pair_id"])) == len(rows)


def test_any_number_of_processes_gives_the_same_rows(tmp_path: Path) -> None:
    tables = []
    for processes in (None, 2):
        builder = benchmark_builder("toy", train=1100, validation=1, test=1)
        builder.download_and_prepare(tmp_path / str(processes), num_proc=processes, file_format="parquet")
        files = sorted(map(str, (tmp_path / str(processes)).glob("*train*.parquet")))
        tables.append(datasets.Dataset.from_parquet(files, cache_dir=str(tmp_path)).data.table.combine_chunks())
    assert tables[0].equals(tables[1])


def test_rows_contain_raw_bytes_and_no_path_of_this_machine() -> None:
    rows = load_benchmark("toy", "test", **SMALL).cast_column("before", datasets.Image(decode=False))
    image = rows[0]["before"]
    assert image["path"] == "test-000000-before.png" and image["bytes"].startswith(b"\x89PNG")


def test_splits_are_disjoint_and_seeds_differ() -> None:
    def scenes(split: str, seed: int) -> set[bytes]:
        config = ToyConfig(seed=seed)
        return {pixels(draw_row(config, split, index)["before"]).tobytes() for index in range(100)}

    groups = [scenes("train", 0), scenes("validation", 0), scenes("test", 0), scenes("train", 1)]
    assert len(set.union(*groups)) == sum(map(len, groups)) == 400


def test_load_dataset_finds_the_prepared_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["prepare", "toy", "--num_proc", "2"]) == 0
    monkeypatch.chdir(tmp_path)
    assert datasets.load_dataset("toy", split="test").num_rows == 1000
    streamed = next(iter(datasets.load_dataset("toy", split="test", streaming=True)))
    assert streamed["captions"] == load_benchmark("toy", "test")[0]["captions"]


@pytest.mark.parametrize("difficulty", SETTINGS)
@pytest.mark.parametrize("change_type", CHANGE_TYPES)
def test_the_change_is_the_one_that_is_named(change_type: str, difficulty: str) -> None:
    for pair in pairs(change_type, difficulty=difficulty):
        before, after = set(pair.before), set(pair.after)
        gone, new = before - after, after - before
        assert {t.phrase for t in pair.before if separate(t, [o for o in pair.before if o is not t])} == {
            t.phrase for t in pair.before
        }, "phrases are unique and things do not touch"
        if change_type == "none":
            assert before == after
        elif change_type == "add":
            assert (gone, new) == (set(), {pair.subject})
        elif change_type == "remove":
            assert (gone, new) == ({pair.subject}, set())
        else:
            (old,), (now,) = gone, new
            assert old == pair.subject and (old.shape, old.size) == (now.shape, now.size)
            moved = ((old.x - now.x) ** 2 + (old.y - now.y) ** 2) ** 0.5
            assert (old.color == now.color) == (change_type == "move") == (moved >= SETTINGS[difficulty].move)
            assert pair.new_color == (now.color if change_type == "color" else "")


def test_a_person_can_see_every_change() -> None:
    """Where the change is, the pictures differ clearly."""
    for change_type in ("add", "remove", "move", "color"):
        for number, pair in enumerate(pairs(change_type, 30)):
            background = draw_background((128, 64), "paper", random.Random(number))
            before, after = (draw_scene(s, background, "paper").astype(int) for s in (pair.before, pair.after))
            (rows, columns), alpha = coverage(pair.subject, (128, 64))
            inside = np.abs(before - after)[rows, columns][alpha > 0.99]
            assert inside.max(axis=-1).mean() > 60, (change_type, number, pair)


def test_pairs_have_distractors_except_for_one_unchanged_pair_in_four() -> None:
    views = [pair.views for pair in pairs("none", 400)]
    assert 60 < sum(first == second for first, second in views) < 140
    assert all(first != second for first, second in (pair.views for pair in pairs("color", 100)))
    scene = draw_things(random.Random(1), 4, 2.0)
    plain = draw_scene(scene, draw_background((128, 64), "paper", random.Random(1)), "paper")
    lit = draw_scene(scene, draw_background((128, 64), "paper", random.Random(1)), "paper", View(gain=0.9))
    assert lit.mean() < 0.95 * plain.mean()


def test_captions_say_what_changed_and_how() -> None:
    for wording in SENTENCES:
        config = ToyConfig(wording=wording)
        for index in range(60):
            row = draw_row(config, "train", index)
            for caption in row["captions"]:
                assert stated_change_type(caption) == row["change_type"], caption
                assert (row["change_type"] == "none") != any(color in caption for color in COLORS), caption


def test_change_types_are_balanced() -> None:
    counts = Counter(draw_row(ToyConfig(), "train", index)["change_type"] for index in range(1000))
    assert min(counts.values()) > 150


def test_the_harder_setting_has_more_things_and_larger_shifts() -> None:
    easy, hard = ([len(pair.before) for pair in pairs("color", 50, level)] for level in ("easy", "hard"))
    assert max(easy) <= 5 <= min(hard)
    shifts = [
        max(abs(v.shift_x) for pair in pairs("color", 50, level) for v in pair.views) for level in ("easy", "hard")
    ]
    assert shifts[0] <= 0.015 < 0.04 < shifts[1]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("toys", {}, "unknown benchmark 'toys', use one of: .*toy"),
        ("toy", {"look": "oil"}, "look='oil', use one of paper, studio"),
        ("toy", {"sed": 1}, "has no option 'sed', it has: .*seed"),
        ("toy", {"train": 0}, "train=0, use a number of pairs"),
        ("toy", {"height": 8}, "pictures of 128x8"),
    ],
)
def test_wrong_options_are_quoted(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_benchmark(name, "train", **options)


def test_unknown_split_is_quoted() -> None:
    with pytest.raises(ValueError, match="no split 'val', it has: train, validation, test"):
        load_benchmark("toy", "val", **SMALL)


def test_command_line(capsys: pytest.CaptureFixture) -> None:
    assert main(["list"]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in BENCHMARKS)
    assert main(["prepare", "toys"]) == 2
    assert "unknown benchmark 'toys'" in capsys.readouterr().err
