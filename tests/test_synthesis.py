"""Synthesis with the drawing editor, which needs no model: stages, resuming, the data set folder."""

import errno
import io
import json
import os
import random
import re
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kill_points import after_kills
from PIL import Image
from test_image_fusion import BROKEN_EXIF

from dataset_syned import benchmark_builder
from dataset_syned.__main__ import main
from dataset_syned.benchmarks.toy import compose
from dataset_syned.pairs import RawPair, decode_image
from dataset_syned.scene_drawing import Thing
from dataset_syned.synthesis import no_change, stages
from dataset_syned.synthesis.diffusion_editor import PIPELINES
from dataset_syned.synthesis.drawing_editor import EditError, SceneEditor, change
from dataset_syned.synthesis.instructions import Instructions
from dataset_syned.synthesis.reporting import SAMPLED, Sample, category_of, deciles_of
from dataset_syned.synthesis.schemas import SOURCES
from dataset_syned.synthesis.settings import (
    MADE_FROM,
    MAY_CHANGE,
    STAGE_NAMES,
    EditorName,
    SynthesisConfig,
    parse_config,
    resolved_revision,
)
from dataset_syned.synthesis.shards import Share, StageFolder
from dataset_syned.synthesis.sources import benchmark_source, folder_sources, read_source
from dataset_syned.synthesis.stages import synthesize

TOY = {"look": "studio", "wording": "instruction", "seed": 7, "train": 60}


def config(folder: Path, **changes: Any) -> SynthesisConfig:
    settings: dict[str, Any] = dict(
        output_dir=str(folder),
        benchmark="toy",
        benchmark_options=TOY,
        editor="drawing",
        pairs=22,
        shard_pairs=5,
        candidates=2,
        top_k=1,
        batch_size=4,
        no_change_share=0.2,
    )
    return SynthesisConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def synthesized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    synthesize(config(folder))
    return folder


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "dataset" / "metadata.jsonl").read_text().splitlines()]


def content(folder: Path) -> dict[str, bytes]:
    """Return every file of the data set, and its descriptions."""
    files = [*(folder / "dataset").rglob("*"), folder / "statistics.json", folder / "problems.jsonl"]
    files.append(folder / "contact_sheet.png")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files if path.is_file()}


def test_every_pair_is_edited_once_and_keeps_its_provenance(synthesized: Path) -> None:
    lines = lines_of(synthesized)
    assert len({line["pair_id"] for line in lines}) == len(lines)
    edited = [line for line in lines if line["change_type"] != "none"]
    failed = [json.loads(line)["pair_id"] for line in (synthesized / "problems.jsonl").read_text().splitlines()]
    assert len(edited) + len(failed) == 22
    provenance = edited[0]["provenance"]
    assert provenance["editor"]["editor"] == "drawing" and isinstance(provenance["candidate"]["seed"], int)
    assert {"changed", "contrast"} <= set(provenance["scores"]) and provenance["source"]["drawn_by"].startswith("toy")
    assert edited[0]["captions"][0] == provenance["instruction"] and len(edited[0]["captions"]) == 5


def test_statistics_add_up(synthesized: Path) -> None:
    statistics = json.loads((synthesized / "statistics.json").read_text())
    lines = lines_of(synthesized)
    assert statistics["source_pairs"] == 22 and sum(statistics["candidates"].values()) == 44
    assert statistics["pairs"] == len(lines) == sum(statistics["change_types"].values())
    assert statistics["no_change_pairs"] == sum(line["change_type"] == "none" for line in lines)
    assert statistics["candidates"]["accepted"] == statistics["pairs"] - statistics["no_change_pairs"]
    assert sum(statistics["distractors"].values()) == statistics["candidates"]["accepted"]
    with Image.open(synthesized / "contact_sheet.png") as sheet:
        sheet.load()
    assert str(synthesized) not in (synthesized / "dataset" / "README.md").read_text()


def test_images_after_have_the_distractors_of_no_change_pairs(synthesized: Path, tmp_path: Path) -> None:
    synthesize(config(tmp_path, distractors=False))
    plain = {line["pair_id"]: line for line in lines_of(tmp_path)}
    used = set()
    for line in lines_of(synthesized):
        other = plain[line["pair_id"]]
        after, edit = (
            root / "dataset" / each["after_file_name"] for root, each in ((synthesized, line), (tmp_path, other))
        )
        if line["change_type"] == "none":
            assert after.read_bytes() == edit.read_bytes()
            continue
        distractor = line["provenance"].pop("distractor")
        assert line["provenance"] == other["provenance"] and line["captions"] == other["captions"]
        with Image.open(edit) as image:
            made = no_change.ALTERATIONS[distractor["alteration"]](
                image.convert("RGB"), random.Random(distractor["seed"])
            )
        assert after.read_bytes() == made
        used.add(distractor["alteration"])
    assert len(used) > 2
    sheets = [(folder / "contact_sheet.png").read_bytes() for folder in (synthesized, tmp_path)]
    assert sheets[0] != sheets[1], "it shows what the data set has"
    assert "paraphrase_rules" not in (tmp_path / "dataset" / "README.md").read_text(), "which is no setting"


def test_the_folder_benchmark_reads_it_with_provenance(synthesized: Path) -> None:
    builder = benchmark_builder("folder", root=synthesized / "dataset")
    pairs = list(builder.raw_pairs("train"))
    assert [pair.pair_id for pair in pairs] == [line["pair_id"] for line in lines_of(synthesized)]
    assert all(pair.before.is_file() and pair.after.is_file() and pair.captions for pair in pairs)
    assert pairs[0].provenance["editor"]["editor"] == "drawing"


def test_before_images_are_the_source_files_byte_by_byte(synthesized: Path) -> None:
    line = lines_of(synthesized)[0]
    source = next(
        pair
        for pair in benchmark_builder("toy", **TOY).raw_pairs("train")
        if pair.pair_id == line["provenance"]["source"]["pair_id"]
    )
    assert (synthesized / "dataset" / line["before_file_name"]).read_bytes() == source.before[1]


@pytest.mark.parametrize("changes", [{"batch_size": 1}, {"shard_pairs": 5, "batch_size": 64}])
def test_the_choice_does_not_depend_on_the_batch_size(
    synthesized: Path, tmp_path: Path, changes: dict[str, int]
) -> None:
    synthesize(config(tmp_path, **changes))
    assert content(tmp_path) == content(synthesized)


def test_another_seed_gives_another_choice(synthesized: Path, tmp_path: Path) -> None:
    synthesize(config(tmp_path, seed=1))
    assert content(tmp_path).keys() != content(synthesized).keys() or content(tmp_path) != content(synthesized)
    seeds = [
        {line["provenance"].get("candidate", {}).get("seed") for line in lines_of(f)} for f in (synthesized, tmp_path)
    ]
    assert not (seeds[0] & seeds[1]) - {None}


def test_stages_run_alone_and_a_missing_one_is_named(synthesized: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'instructions' first"):
        synthesize(config(tmp_path, stage="edits"))
    for stage in STAGE_NAMES:
        synthesize(config(tmp_path, stage=stage))
    assert content(tmp_path) == content(synthesized)
    with pytest.raises(FileNotFoundError, match="run the stage 'edits' first"):
        (tmp_path / "edits" / "00001.parquet").unlink()
        (tmp_path / "scores" / "00001.jsonl").unlink()
        synthesize(config(tmp_path, stage="scores"))


def test_finished_pairs_are_not_edited_again(
    synthesized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited: list[str] = []
    real = stages.stage_class

    def observed_class(stage: str) -> Any:
        return lambda settings, **options: observed(stage, real(stage)(settings, **options))

    def observed(stage: str, worker: Any) -> Any:
        if stage == "edits":
            work = worker.work

            def observed_work(batch: list[Any]) -> list[Any]:
                if len(edited) >= 8 and not stopped:
                    stopped.append(True)
                    raise KeyboardInterrupt
                edited.extend(inputs["sources"]["pair_id"] for inputs in batch)
                return work(batch)

            worker.work = observed_work
        return worker

    stopped: list[bool] = []
    monkeypatch.setattr(stages, "stage_class", observed_class)
    with pytest.raises(KeyboardInterrupt):
        synthesize(config(tmp_path))
    assert list((tmp_path / "edits").glob("*.parts/*"))  # in the middle of a shard
    synthesize(config(tmp_path))
    assert len(edited) == len(set(edited)) == 22
    assert content(tmp_path) == content(synthesized) and not list(tmp_path.rglob("*.parts"))


def test_other_settings_are_not_mixed(tmp_path: Path, synthesized: Path) -> None:
    with pytest.raises(ValueError, match=r"min_changed=0.002, now it is 0.5: remove selection, paraphrases, rows"):
        synthesize(config(synthesized, min_changed=0.5))
    synthesize(config(synthesized, batch_size=3))  # changes no pair


def run(folder: Path, process: int = 0, processes: int = 1) -> subprocess.Popen[str]:
    program = (
        "import sys, json; from dataset_syned.synthesis.settings import SynthesisConfig;"
        "from dataset_syned.synthesis.stages import synthesize; synthesize(SynthesisConfig(**json.loads(sys.argv[1])))"
    )
    environment = {**os.environ, "RANK": str(process), "WORLD_SIZE": str(processes)}
    settings = json.dumps(vars(config(folder)))
    return subprocess.Popen(
        [sys.executable, "-c", program, settings], env=environment, stderr=subprocess.PIPE, text=True
    )


def finished(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors


@pytest.fixture(scope="module")
def seconds(tmp_path_factory: pytest.TempPathFactory) -> float:
    """Return how long two processes take without a kill."""
    start = time.monotonic()
    folder = tmp_path_factory.mktemp("timed")
    finished([run(folder, process, 2) for process in range(2)])
    return time.monotonic() - start


def wait_for_work(folder: Path) -> None:
    while not (folder / "sources").is_dir():
        time.sleep(0.02)


def test_two_processes_killed_at_random_moments_write_the_same(
    synthesized: Path, tmp_path: Path, pytestconfig: pytest.Config, seconds: float
) -> None:
    kills, rng, hits = pytestconfig.getoption("--kills") + 1, random.Random(0), 0
    for number in range(kills):
        folder = tmp_path / str(number // 4)  # several kills hit one run
        processes = [run(folder, process, 2) for process in range(2)]
        wait_for_work(folder)
        time.sleep(rng.uniform(0, 0.5 * seconds))
        hits += any(process.poll() is None for process in processes)
        for process in processes:
            process.kill()
            process.communicate()
    assert hits, "no kill hit a process that was still running"
    for folder in sorted(tmp_path.iterdir()):
        finished([run(folder, process, 2) for process in range(2)])
        assert content(folder) == content(synthesized)
        assert not [*folder.rglob("*.parts"), *folder.rglob(".*.tmp")]


SYNTHESIZE = """
from dataset_syned.synthesis.settings import SynthesisConfig
from dataset_syned.synthesis.stages import synthesize

def command(folder):
    toy = {"look": "studio", "wording": "instruction", "seed": 7, "train": 20}
    few = {"pairs": 3, "shard_pairs": 2, "candidates": 1, "top_k": 1, "batch_size": 2, "no_change_share": 0.3}
    synthesize(SynthesisConfig(str(folder / "out"), "toy", toy, editor="drawing", **few))
"""


def test_a_kill_at_any_rename_leaves_nothing_and_loses_nothing(tmp_path: Path) -> None:
    *killed, unbroken = after_kills(SYNTHESIZE, tmp_path, ("os.rename",))
    assert "out/dataset/metadata.jsonl" in unbroken and not [name for name in unbroken if name.endswith(".tmp")]
    assert len(killed) > 30 and all(listing == unbroken for listing in killed)


@pytest.mark.parametrize(
    ("running", "started"), [((0, 1), (0, 1)), ((1, 2), (1, 2)), ((1, 2), (0, 1)), ((0, 1), (2, 3))]
)
def test_a_second_synthesis_in_the_same_folder_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    running: tuple[int, int],
    started: tuple[int, int],
) -> None:
    for name, value in zip(("RANK", "WORLD_SIZE"), started, strict=True):
        monkeypatch.setenv(name, str(value))
    command = [
        "synthesize",
        "--benchmark",
        "toy",
        "--editor",
        "drawing",
        "--pairs",
        "2",
        "--output_dir",
        str(tmp_path),
    ]
    with stages.share_lock(tmp_path, Share(*running)):
        assert main(command) == 2
        message = f"error: another process is writing into {str(tmp_path)!r}: wait for its end, or name another folder"
        assert capsys.readouterr().err.strip() == message
        others = [Share(number, running[1]) for number in range(running[1]) if number != running[0]]
        for other in others:
            with stages.share_lock(tmp_path, other):  # of the same run
                pass
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".lock")] == []


def test_a_full_disk_is_reported_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "Error writing bytes to file")

    monkeypatch.setattr(StageFolder, "_write_table", fail)
    command = ["synthesize", "--benchmark", "toy", "--editor", "drawing", "--pairs", "2"]
    assert main([*command, "--output_dir", str(tmp_path)]) == 2
    file = tmp_path / "sources" / "00000.parquet"
    assert capsys.readouterr().err.strip() == f"error: [Errno 28] No space left on device: {str(file)!r}"
    assert not [*tmp_path.rglob(".*.tmp")]


def test_a_pair_that_fails_does_not_take_its_batch_with_it() -> None:
    def work(batch: list[Any]) -> list[Any]:
        if 3 in batch:
            raise AttributeError("whatever a library raises")
        return [{"problem": "", "value": number} for number in batch]

    rows = stages.Attempts(work).rows([1, 2, 3, 4])
    assert [row["problem"] for row in rows] == ["", "", "AttributeError: whatever a library raises", ""]


def test_failures_that_do_not_depend_on_the_pairs_end_the_run() -> None:
    def work(batch: list[Any]) -> list[Any]:
        if min(batch) < 30:
            raise RuntimeError("CUDA error")
        return [{"problem": ""} for _ in batch]

    attempts = stages.Attempts(work)
    # 19 failures in a row, a success, 8 failures
    assert len(attempts.rows([*range(11, 30), 30, *range(12, 20)])) == 28
    with pytest.raises(RuntimeError, match="20 pairs in a row failed, .*: RuntimeError: CUDA error"):
        attempts.rows(list(range(12)))


def test_failed_pairs_are_edited_again_on_request(
    synthesized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the editor run out of memory at first; a retry gives the usual data set and edits only the failed pairs."""
    edit, seen = SceneEditor.edit_scene, []

    def failing(self: SceneEditor, task: Any, candidate: Any) -> Any:
        if int(task.pair_id[-1]) % 3 == 0:
            raise MemoryError("out of memory")
        return edit(self, task, candidate)

    monkeypatch.setattr(SceneEditor, "edit_scene", failing)
    assert synthesize(config(tmp_path))
    problems = [json.loads(line) for line in (tmp_path / "problems.jsonl").read_text().splitlines()]
    failed = {entry["pair_id"] for entry in problems if entry["problem"] == "MemoryError: out of memory"}
    assert len(failed) > 3 and content(tmp_path) != content(synthesized)
    monkeypatch.setattr(
        SceneEditor, "edit_scene", lambda self, *pair: seen.append(pair[0].pair_id) or edit(self, *pair)
    )
    assert synthesize(config(tmp_path)) and not seen  # no retry without the setting
    assert synthesize(config(tmp_path, retry_failed=True))
    assert set(seen) == failed and content(tmp_path) == content(synthesized)


THINGS = [Thing("circle", "red", "large", 0.3, 0.5), Thing("square", "blue", "small", 1.2, 0.5)]


@pytest.mark.parametrize(
    ("instruction", "change_type", "expected"),
    [
        ("make the red circle blue", "color", ["large blue circle", "small blue square"]),
        ("Paint the large red circle cyan.", "color", ["large cyan circle", "small blue square"]),
        ("remove the small square", "remove", ["large red circle"]),
        ("get rid of the large thing", "remove", ["small blue square"]),
        ("add a small green cross", "add", ["large red circle", "small blue square", "small green cross"]),
        ("leave everything as it is", "none", ["large red circle", "small blue square"]),
        ("put the red circle somewhere else", "move", ["large red circle", "small blue square"]),
    ],
)
def test_the_drawing_editor_understands(instruction: str, change_type: str, expected: list[str]) -> None:
    found, things = change(THINGS, instruction, random.Random(0), 2.0, 0.3)
    assert (found, [thing.phrase for thing in things]) == (change_type, expected)
    if change_type == "move":
        assert (things[0].x, things[0].y) != (THINGS[0].x, THINGS[0].y) and things[1] == THINGS[1]


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("make the red cube blue", "nothing that can be drawn"),
        ("remove the green circle", "has no 'green circle'"),
        ("remove the thing", "has 2 'thing'"),
        ("make the red circle red", "cannot be done"),
        ("make the picture dramatic", "nothing that can be drawn"),
    ],
)
def test_the_drawing_editor_says_what_it_cannot_do(instruction: str, reason: str) -> None:
    with pytest.raises(EditError, match=reason):
        change(THINGS, instruction, random.Random(0), 2.0, 0.3)


def test_a_removed_thing_is_gone_from_the_picture(synthesized: Path) -> None:
    """The pixel at the middle of the removed thing changes clearly."""
    line = next(line for line in lines_of(synthesized) if line["change_type"] == "remove")
    builder = benchmark_builder("toy", **TOY)
    pair, _, _ = compose(builder.config, "train", line["provenance"]["source"]["index"])
    names = [synthesized / "dataset" / line[name] for name in ("before_file_name", "after_file_name")]
    pictures = [np.asarray(Image.open(name), dtype=int) for name in names]
    view, thing, height = pair.views[0], pair.subject, 64
    x, y = int((thing.x + view.shift_x) * height), int((thing.y + view.shift_y) * height)
    assert np.abs(pictures[0][y, x] - pictures[1][y, x]).max() > 40


def test_the_drawing_editor_refuses_other_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set benchmark to it"):
        synthesize(config(tmp_path, benchmark="", benchmark_options={}, image_folder=str(photographs(tmp_path / "p"))))


def photographs(folder: Path) -> Path:
    folder.mkdir()
    Image.new("RGB", (64, 48), "red").save(folder / "a.png")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "instruction": "make it blue"}) + "\n")
    return folder


@pytest.mark.parametrize("name", no_change.ALTERATIONS)
def test_alterations_keep_size_and_picture(name: str) -> None:
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8), np.ones((16, 16, 1), dtype=np.uint8))
    image = Image.fromarray(pixels)
    results = [no_change.ALTERATIONS[name](image, random.Random(seed)) for seed in (0, 0, 1)]
    assert results[0] == results[1] != results[2]
    with Image.open(io.BytesIO(results[0])) as altered:
        assert altered.size == image.size
        after = np.asarray(altered.convert("RGB"), dtype=float)
    assert 0 < np.abs(after - pixels).mean() < 40
    assert np.corrcoef(after.ravel(), pixels.ravel())[0, 1] > 0.8


def test_the_share_of_no_change_pairs_is_met_on_average() -> None:
    counts = [no_change.wanted(9, 0.2, random.Random(seed)) for seed in range(400)]
    assert abs(sum(counts) / (9 * 400 + sum(counts)) - 0.2) < 0.01
    assert no_change.wanted(9, 0.0, random.Random(0)) == 0


def test_every_setting_belongs_to_a_stage_or_may_change() -> None:
    names = [name for group in MADE_FROM.values() for name in group] + list(MAY_CHANGE)
    assert sorted(names) == sorted(entry.name for entry in fields(SynthesisConfig))
    assert set(EditorName.__args__) == {*PIPELINES, "drawing"}


def test_shards_are_distributed_over_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for environment, share in (({"RANK": "1", "WORLD_SIZE": "3"}, Share(1, 3)), ({}, Share(0, 1))):
        for name in ("RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert Share.of_this_process() == share
    assert [[n for n in range(7) if n in Share(p, 3)] for p in range(3)] == [[0, 3, 6], [1, 4], [2, 5]]
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="RANK counts from 0"):
        Share.of_this_process()


def test_captions_of_both_images_are_kept_if_the_benchmark_has_them() -> None:
    provenance = {"idx": 4, "input": "a street", "output": "a street at night"}
    pair = RawPair("train-4", Path("a.png"), Path("b.png"), ["make it night"], "global", provenance)
    source = benchmark_source(pair)
    assert (source.image_caption, source.edited_caption) == ("a street", "a street at night")
    assert (source.captions, source.image) == (["make it night"], Path("a.png"))


def test_deciles_of_a_sample_are_close_to_those_of_all_values() -> None:
    sample, values = Sample(), [number % 1000 / 1000 for number in range(50_000)]
    for value in values:
        sample.add(value)
    assert len(sample.values) == SAMPLED and sample.added == 50_000
    found, exact = deciles_of(sample.values), deciles_of(values)
    assert all(abs(found[name] - exact[name]) < 0.02 for name in exact)


def test_a_shard_is_read_and_written_row_by_row(tmp_path: Path) -> None:
    """Neither memory nor the 2 GiB of an ordinary column limits the size of a shard."""
    folder = StageFolder(tmp_path, SOURCES)
    rows = [
        {"position": position, "pair_id": str(position), "image": {"bytes": b"x" * 9, "path": None}}
        for position in (2, 0, 1)
    ]
    folder.write_part(0, rows[:2])
    folder.write_part(0, rows[2:])
    folder.finish(0, 3)
    file = pq.ParquetFile(folder.path(0))
    assert file.num_row_groups == 3 and pa.types.is_large_binary(
        file.schema_arrow.field("image").type.field("bytes").type
    )
    assert [row["pair_id"] for row in folder.read(0)] == ["0", "1", "2"] and not folder.parts(0)
    (found,) = folder.read(0, [1])
    assert (found["pair_id"], found["image"]["bytes"]) == ("1", b"x" * 9)
    assert "image" not in folder.read(0, light=True)[0]


def test_what_a_kill_left_half_written_is_removed_by_its_own_process(tmp_path: Path) -> None:
    folder = StageFolder(tmp_path)
    folder.write_whole(0, [])
    for name in (".00000.jsonl.abc.tmp", ".00001.jsonl.abc.tmp", "00000.parts/00000.jsonl", "00002.parts/00000.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    folder.sweep(Share(0, 2))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".00001.jsonl.abc.tmp", "00000.jsonl", "00002.parts"]


def drawn_folder(folder: Path, entries: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (64, 48), "white").save(folder / "a.png")
    lines = [json.dumps({"file_name": "a.png", **entry}) + "\n" for entry in entries]
    (folder / "metadata.jsonl").write_text("".join(lines))
    return folder


def test_settings_may_change_before_there_are_files_and_sources_may_not_after(tmp_path: Path) -> None:
    folder = drawn_folder(tmp_path / "photos", [{"instruction": "make it blue"}])
    changes = {"benchmark": "", "benchmark_options": {}, "stage": "instructions"}
    with pytest.raises(ValueError, match="metadata.jsonl' is missing"):
        synthesize(config(tmp_path / "out", image_folder=str(tmp_path / "typo"), **changes))
    settings = config(tmp_path / "out", image_folder=str(folder), **changes)
    assert synthesize(settings) is False  # one stage alone writes no data set
    drawn_folder(folder, [{"instruction": "make it red"}])
    with pytest.raises(ValueError, match="was made with metadata.jsonl=.*: remove sources, instructions, edits"):
        synthesize(settings)


def test_texts_of_a_folder_become_one_line_and_others_are_refused(tmp_path: Path) -> None:
    entries = [
        {"instruction": "make\r\nit\x1b blue\t"},
        {"instruction": None, "caption": "a dog"},
        {"instruction": ""},
    ]
    rows = [read_source(source, 0) for source in folder_sources(drawn_folder(tmp_path / "photos", entries))]
    given = [Instructions(config(tmp_path)).given(row) for row in rows]
    assert [row["instruction"] for row in given] == ["make it blue", "", ""]
    assert [row["problem"] for row in given] == ["", "", "empty instruction"]  # the chat model writes the second
    with pytest.raises(ValueError, match="line 1: instruction=7, which should be a text"):
        list(folder_sources(drawn_folder(tmp_path / "photos", [{"instruction": 7}])))
    with pytest.raises(ValueError, match="line 1: instruction is not valid Unicode"):
        list(folder_sources(drawn_folder(tmp_path / "photos", [{"instruction": "\ud83d"}])))


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> Image.Image:
    return decode_image({"path": "a.png", "bytes": data})


def test_images_are_decoded_as_viewers_show_them() -> None:
    ramp = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    grey = np.asarray(decoded(encoded(Image.fromarray(ramp))))
    assert grey.mean() == pytest.approx(127, abs=1) and grey.shape == (48, 64, 3)
    turned = Image.Exif()
    turned[0x0112] = 6
    photo = Image.new("RGB", (64, 48), "red")
    assert decoded(encoded(photo, "JPEG", exif=turned)).size == (48, 64)
    assert decoded(encoded(photo, "JPEG", exif=BROKEN_EXIF)).size == (64, 48)
    assert decoded(encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 0)))).getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(ValueError, match="values from -3 to -3 are not grey levels"):
        decoded(encoded(Image.new("F", (4, 4), -3.0), "TIFF"))


@pytest.mark.parametrize(
    ("reason", "category"),
    [
        ("text_not_shown: image_text 0.100 < 0.3", "text_not_shown"),
        ("editor: hidden by the editor's safety checker", "editor: hidden by the editor's safety checker"),
        ("image of 1x1 pixels: needs at least 32 on each side", "image of NxN pixels: needs at least N on each side"),
        ("image 'a.png' cannot be read (x)", "image … cannot be read (x)"),
    ],
)
def test_reasons_are_counted_without_their_numbers_and_names(reason: str, category: str) -> None:
    assert category_of(reason) == category


def test_a_model_from_the_hub_is_recorded_with_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository, commit = tmp_path / "models--me--clip", "0123456789" * 4
    for name, text in (("refs/main", commit), (f"snapshots/{commit}/model_index.json", "{}")):
        (repository / name).parent.mkdir(parents=True)
        (repository / name).write_text(text)
    assert resolved_revision("me/clip", None) == commit
    assert resolved_revision("me/other", "v1") == "v1"  # not from the Hub's cache: as it was asked for
    assert resolved_revision(str(tmp_path), None) is None


def test_lines_keep_separators_that_json_leaves_as_they_are(tmp_path: Path) -> None:
    folder = StageFolder(tmp_path)
    folder.write_whole(0, [{"position": 0, "text": "a\u2028b\x85c"}])
    assert folder.read(0) == [{"position": 0, "text": "a\u2028b\x85c"}]


@pytest.mark.parametrize(
    "name", sorted(Path(__file__).parents[1].glob("configs/synthesis/*.yaml")), ids=lambda p: p.stem
)
def test_recipes_parse(name: Path) -> None:
    """Parse the command in the first line of each recipe."""
    command = name.read_text().split("\n")[0].removeprefix("# python -m dataset_syned synthesize ").split()
    assert command[:2] == ["--config", f"configs/synthesis/{name.name}"]
    assert parse_config(["--config", str(name), *command[2:]]).output_dir


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("output_dir: x\nbenchmark: toy\ncandidats: 3", "unknown key 'candidats'"),
        ("output_dir: x", "give one of them"),
        ("benchmark: toy", "output_dir is missing"),
        ("output_dir: x\nbenchmark: toy\ncandidates: 0", "candidates=0"),
        ("output_dir: x\nbenchmark: toy\nmin_image_text: 30", "must be at least -1 and at most 1"),
        ("output_dir: x\nbenchmark: toy\nno_change_share: 1", "no_change_share=1"),
        ("output_dir: x\nbenchmark: 3", "put the text in quotes"),
        ("output_dir: x\nbenchmark: nothing\neditor: drawing", "unknown benchmark 'nothing'"),
        ("output_dir: x\nbenchmark: toy\nsplit: dev\neditor: drawing", "no split 'dev'"),
        ("output_dir: x\nbenchmark: toy\neditor: drawing\nguidance_scales: [3]", "has no guidance"),
        ("output_dir: x\nbenchmark: toy\neditor: instruct_pix2pix\nguidance_scales: [1]", "ignores the source"),
    ],
)
def test_bad_settings_end_with_one_sentence(
    tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(text)
    assert main(["synthesize", "--config", "c.yaml", "--pairs", "2"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error


def test_the_documented_command_runs(tmp_path: Path, root: Path) -> None:
    command = [sys.executable, "-m", "dataset_syned", "synthesize", "--config", "configs/synthesis/toy.yaml"]
    command += ["--pairs", "6", "--output_dir", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"edits .*6/6.*pair/s", done.stderr)
    assert lines_of(tmp_path / "out")


def test_a_reader_that_ends_does_not_end_the_work(tmp_path: Path, root: Path) -> None:
    command = [sys.executable, "-m", "dataset_syned", "synthesize", "--config", "configs/synthesis/toy.yaml"]
    command += ["--pairs", "3", "--output_dir", str(tmp_path / "out")]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    process.stdout.close()  # as `head` or a killed `tee` does
    assert process.wait() == 0 and lines_of(tmp_path / "out")


def test_other_commands_still_refuse_unknown_options() -> None:
    with pytest.raises(SystemExit):
        main(["check", "toy", "--nothing"])
