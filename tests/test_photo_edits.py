"""The benchmark photo_edits: pairs from a folder of photographs and cut-outs that tests draw themselves."""

import io
import json
import random
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from dataset_syned import benchmark_builder, prepare
from dataset_syned.__main__ import main
from dataset_syned.benchmarks import photo_edits
from dataset_syned.benchmarks.photo_edits import PhotoEdits
from dataset_syned.cut_outs import list_cut_outs
from dataset_syned.pairs import CHANGE_TYPES, DataError, RawPair
from dataset_syned.photo_changes import CHANGES, WITH_CUT_OUTS
from dataset_syned.photo_edit import Edit
from dataset_syned.photo_scenes import PLACES, REPEATS, WINDOW, Material, Stage, difference, photographs_shown
from dataset_syned.photo_wordings import REFERENCES, SENTENCES
from dataset_syned.photograph_files import list_files, split_names, split_of
from dataset_syned.thing_names import name_of
from metric_idc import stated_change_type

TINY_OPTIONS = {"train": 6, "validation": 2, "test": 3, "size": 64}
THINGS = ("tiger", "cow", "apple", "teapot", "horse", "violin", "key", "mug", "carrot", "balloon", "chair", "lamp")
SIZE = 96


def photograph(seed: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """Return a picture with the colours and shapes of a photograph: smooth patches, an edge and some grain."""
    rng = np.random.default_rng(seed)
    patches = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    values = np.asarray(patches.resize(size, Image.Resampling.BICUBIC)).astype(int)
    values[size[1] // 2 :, : size[0] // 3] //= 2
    return Image.fromarray(np.clip(values + rng.integers(-9, 10, values.shape), 0, 255).astype(np.uint8))


def cut_out(seed: int, size: tuple[int, int] = (60, 44)) -> Image.Image:
    """Return a picture of an ellipse, transparent around it."""
    picture = photograph(seed, size).convert("RGBA")
    x, y = np.meshgrid(np.linspace(-1.1, 1.1, size[0]), np.linspace(-1.1, 1.1, size[1]))
    picture.putalpha(Image.fromarray(np.where(x * x + y * y < 1, 255, 0).astype(np.uint8)))
    return picture


def write_photographs(root: Path, count: int = 8) -> Path:
    (root / "inner").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        photograph(number).save(root / ("inner" if number % 2 else ".") / f"photo-{number}.png")
    return root


def write_cut_outs(folder: Path, names: tuple[str, ...] = THINGS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        cut_out(100 + number).save(folder / f"{name}.png")
    return folder


def write_tiny(root: Path, broken: bool) -> None:
    """Write photographs and cut-outs; with `broken`, one photograph more, which cannot be read."""
    write_photographs(root)
    write_cut_outs(root / "cut_outs")
    write_cut_outs(root / "cut_outs" / "kitchen", THINGS[-6:])
    if broken:
        (root / "zzz.jpg").write_bytes(b"no photograph")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photographs")
    write_tiny(root, broken=False)
    return root


def builder(root: Path, **options: Any) -> PhotoEdits:
    return benchmark_builder("photo_edits", **{"data_dir": str(root), **TINY_OPTIONS, "size": SIZE, **options})


def drawn(root: Path, split: str = "train", count: int = 60, **options: Any) -> list[RawPair]:
    made = builder(root, **options)
    material = made.material(split)
    return [photo_edits.draw_raw(made.config, material, split, index) for index in range(count)]


def pixels(source: tuple[str, bytes]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(source[1])).convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def material(folder: Path) -> Material:
    return builder(folder).material("train")


def edits(material: Material, change_type: str, count: int = 6) -> list[tuple[Stage, Edit]]:
    found = []
    for seed in range(10 * count):
        rng = random.Random(f"stage/{seed}")
        scene = photo_edits.draw_stage(rng, material, material.photograph_name(seed))[1]
        edit = photo_edits.draw_edit(rng, scene, change_type)
        found += [(scene, edit)] if edit else []
        if len(found) == count:
            return found
    raise AssertionError(f"{change_type} is seldom drawn")


def test_rows_depend_on_their_index_alone(folder: Path) -> None:
    rows = drawn(folder, count=12)
    assert rows == drawn(folder, count=12)
    made = builder(folder, train=5000)
    assert [made.draw(made.material("train"), "train", index) for index in (11, 3)] == [rows[11], rows[3]]
    assert [row.before for row in drawn(folder, count=3, seed=1)] != [row.before for row in rows[:3]]


def test_any_number_of_processes_gives_the_same_rows(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("dataset_syned.pair_builder.SHARD_PAIRS", 4)
    tables = []
    for processes in (None, 2):
        made = builder(folder, train=10, validation=1, test=1)
        made.download_and_prepare(tmp_path / str(processes), num_proc=processes, file_format="parquet")
        files = sorted(map(str, (tmp_path / str(processes)).glob("*train*.parquet")))
        tables.append(datasets.Dataset.from_parquet(files, cache_dir=str(tmp_path)).data.table.combine_chunks())
    assert tables[0].equals(tables[1]) and tables[0].num_rows == 10


def test_splits_are_disjoint_in_photographs_and_cut_outs(folder: Path) -> None:
    files = builder(folder).files
    for splits in (files.photographs, files.cut_outs):
        names = [str(getattr(entry, "file", entry)) for entries in splits.values() for entry in entries]
        assert len(names) == len(set(names)) and all(splits.values())
    for split in ("train", "test"):
        own = {cut_out.file for cut_out in files.cut_outs[split]}
        for row in drawn(folder, split, 15):
            found = row.provenance
            assert found["photograph"] in files.photographs[split]
            assert {*found["cut_outs"], *(placed["cut_out"] for placed in found["bystanders"])} <= own


def test_more_files_change_the_split_of_no_other(folder: Path) -> None:
    names = [f"{number}.jpg" for number in range(1000)]
    shares = Counter(map(split_of, names))
    assert 640 < shares["train"] < 760 and 60 < shares["validation"] < 140 and 150 < shares["test"] < 250
    few = split_names(names[:20])
    assert all(set(entries) <= set(split_names(names)[split]) for split, entries in few.items())


def test_pairs_have_all_change_types_and_the_share_of_unchanged_pairs(folder: Path) -> None:
    rows = drawn(folder, count=250)
    counts = Counter(row.change_type for row in rows)
    assert set(counts) == {*CHANGES, "none", "multiple"} <= set(CHANGE_TYPES)
    assert 50 < counts["none"] < 100
    assert {row.change_type for row in drawn(folder, count=12, unchanged=1.0)} == {"none"}
    assert {row.change_type for row in drawn(folder, count=6, unchanged=0.0, two_changes=1.0)} == {"multiple"}
    same = [row.before[1] == row.after[1] for row in rows if row.change_type == "none"]
    assert 3 < sum(same) < 35, "one in four"
    assert all(row.before[1] != row.after[1] for row in rows if row.change_type != "none")


def test_without_cut_outs_nothing_is_added_or_moved(tmp_path: Path) -> None:
    write_photographs(tmp_path)
    types = {row.change_type for row in drawn(tmp_path, count=80, unchanged=0.0)}
    assert not types & set(WITH_CUT_OUTS) and {"text", "cover", "flip", "color"} <= types
    assert any("no cut-outs" in note for note in builder(tmp_path).notes())


def test_provenance_says_what_changed_and_where(folder: Path) -> None:
    for row in drawn(folder, count=60):
        found = json.loads(json.dumps(row.provenance))
        assert found["drawn_by"] == "photo_edits 1.0.0" and (found["split"], found["seed"]) == ("train", 0)
        assert not any(str(folder) in str(value) for value in found.values()), "no path of this machine"
        width, height = Image.open(io.BytesIO(row.after[1])).size
        assert max(width, height) == SIZE
        assert len(found["units"]) == len(found["changes"]) == {"none": 0, "multiple": 2}.get(row.change_type, 1)
        for unit, change in zip(found["units"], found["changes"], strict=True):
            assert unit["place"] == "" or unit["place"] in [place for places in PLACES for place in places]
            assert 0 < change["area"] <= 1
            if unit["place"]:
                left, top, right, bottom = change["box"]
                assert 0 <= left < right <= width and 0 <= top < bottom <= height
                assert f"the {unit['place']}" in row.captions[0]


@pytest.mark.parametrize("change_type", CHANGES)
def test_a_person_can_see_every_change(material: Material, change_type: str) -> None:
    for scene, edit in edits(material, change_type):
        assert edit.before.size == edit.after.size and edit.change.change_type == change_type
        assert difference(edit.before, edit.after) > (0.25 if edit.change.place else 8.0)
        if edit.change.box and edit.change.place:
            outside = Image.new("L", scene.size, 255)
            margin = SIZE // 8  # of shadows and soft edges
            left, top, right, bottom = edit.change.box
            outside.paste(0, (left - margin, top - margin, right + margin, bottom + margin))
            inside = Image.new("L", scene.size)
            inside.paste(255, edit.change.box)
            assert difference(edit.before, edit.after, inside) > 3
            if change_type != "move" and outside.getextrema()[1]:
                assert difference(edit.before, edit.after, outside) < 0.5, "nothing else changed"


def test_unchanged_pairs_differ_less_than_changed_ones(folder: Path) -> None:
    rows = drawn(folder, count=60, two_changes=0.0)
    apart = {True: [], False: []}
    for row in rows:
        apart[row.change_type == "none"].append(np.abs(pixels(row.before) - pixels(row.after)).mean())
    assert np.median(apart[True]) < 0.5 * np.median(apart[False])
    plain = drawn(folder, count=12, unchanged=1.0, distractors=False)
    assert all(row.before[1] == row.after[1] and row.provenance["distractors"] == {} for row in plain)


def test_both_pictures_show_cut_outs_and_distractors(folder: Path) -> None:
    """Neither a cut-out nor a trace of editing is a sign of a change."""
    rows = [row.provenance for row in drawn(folder, count=60)]
    assert sum(bool(row["bystanders"]) for row in rows if not row["units"]) > 5
    for side in ("before", "after"):
        recorded = Counter(key for row in rows for key in row["distractors"][side])
        assert recorded["quality"] == 60 and all(10 < recorded[key] < 55 for key in ("corners", "gains", "scale"))
    actions = {unit["action"] for row in drawn(folder, count=250) for unit in row.provenance["units"]}
    for pair in (("add", "remove"), ("brighten", "darken"), ("blur", "sharpen"), ("add text", "remove text")):
        assert set(pair) <= actions


RECOGNIZED = {"add": "add", "remove": "remove", "move": "move", "recolor": "color", "shift colors": "color"}


def test_captions_are_english_and_say_what_changed(folder: Path) -> None:
    assert set(SENTENCES["description"]) == set(SENTENCES["request"])
    for row in drawn(folder, count=120, wording="both"):
        assert len(row.captions) == len(set(row.captions)) == 2 * REFERENCES
        actions = [unit["action"] for unit in row.provenance["units"]]
        for caption in row.captions:
            assert not set("{}") & set(caption) and "  " not in caption, caption
            stated = stated_change_type(caption)
            assert (stated == "none") == (row.change_type == "none"), caption
            if len(actions) == 1 and actions[0] in RECOGNIZED:
                assert stated == RECOGNIZED[actions[0]], caption


def test_requests_are_requests(folder: Path) -> None:
    first_words = {row.captions[0].split()[0] for row in drawn(folder, count=40, wording="request")}
    assert first_words & {"add", "remove", "put", "move", "make"} and not first_words & {"the", "a", "there"}


@pytest.mark.parametrize(
    ("description", "stem", "indefinite", "definite", "head"),
    [
        ("A Sumatran tiger.", "x", "a sumatran tiger", "the sumatran tiger", "tiger"),
        ("An owl.", "x", "an owl", "the owl", "owl"),
        ("A UK post box. Put your letter in here!", "x", "a uk post box", "the uk post box", "post box"),
        ("Two flowers.", "x", "two flowers", "the two flowers", "flowers"),
        ("Some grapes.", "x", "some grapes", "the grapes", "grapes"),
        ("A bunch of grapes.", "x", "a bunch of grapes", "the bunch of grapes", "bunch of grapes"),
        ("A ripe, red tomato!", "x", "a ripe red tomato", "the ripe red tomato", "tomato"),
        ("A “Fuji” apple.", "x", "a fuji apple", "the fuji apple", "apple"),
        ("Sweet yellow corn.", "x", "some sweet yellow corn", "the sweet yellow corn", "corn"),
        ("A hoverfly resembles a honeybee drone.", "x", "a hoverfly", "the hoverfly", "hoverfly"),
        ("Eat your bread!", "loaf", "a loaf", "the loaf", "loaf"),
        ("", "red_apple-2", "a red apple", "the red apple", "apple"),
        ("", "oldHouse", "an old house", "the old house", "house"),
        ("虎", "虎", "something", "something", "something"),
        ("Тигр.", "IMG_1234", "something", "something", "something"),
        ("Тигр.", "tiger", "a tiger", "the tiger", "tiger"),
    ],
)
def test_names_of_things(description: str, stem: str, indefinite: str, definite: str, head: str) -> None:
    name = name_of(description, stem)
    assert (name.indefinite, name.definite, name.head.text) == (indefinite, definite, head)


def test_unusable_cut_outs_are_counted(tmp_path: Path) -> None:
    write_photographs(tmp_path)
    folder = write_cut_outs(tmp_path / "cut_outs")
    (folder / "tiger.txt").write_text("A Sumatran tiger.\nUn tigre.")
    photograph(1).save(folder / "photo.png")  # nothing is transparent
    Image.new("RGBA", (50, 50)).save(folder / "empty.png")
    cut_out(1, (20, 20)).save(folder / "tiny.png")
    flat = Image.new("RGBA", (60, 60), (200, 30, 30, 255))
    flat.paste((0, 0, 0, 0), (0, 0, 20, 60))
    flat.save(folder / "symbol.png")
    (folder / "cartoon").mkdir()
    cut_out(2).save(folder / "cartoon" / "dog.png")
    cut_out(3).save(folder / "虎.png")
    listing = list_cut_outs(folder)
    assert len(listing.usable) == len(THINGS) + 1 and sum(listing.left_out.values()) == 5 and not listing.broken
    assert {"sumatran tiger", "something", "cow"} <= {entry.name.text for entry in listing.usable}
    notes = "\n".join(builder(tmp_path).notes())
    assert "nothing is transparent, or everything: 2" in notes and "smaller than 32 pixels: 1" in notes
    assert "few colors, as symbols and drawings have: 1" in notes and "'cartoon' or 'symbols': 1" in notes
    assert 'without an English name, called "something": 1' in notes
    (folder / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="cut-out '.*broken.png' cannot be read .*: replace or remove it"):
        prepare(builder(tmp_path))


def test_too_few_files_are_quoted(tmp_path: Path) -> None:
    write_photographs(tmp_path / "two", 2)
    message = (
        r"photo_edits: one of at least 3 photographs, of which 2 can be used, is missing in '.*two'\. Put at least"
    )
    with pytest.raises(DataError, match=message):
        builder(tmp_path / "two").raw_splits()
    write_photographs(tmp_path / "few")
    write_cut_outs(tmp_path / "few" / "cut_outs", THINGS[:5])
    with pytest.raises(DataError, match="5 usable cut-outs in '.*cut_outs': use at least 6, 2 for each split"):
        prepare(builder(tmp_path / "few"))
    with pytest.raises(DataError, match="cut_outs='stamps': there is no folder '.*stamps'"):
        prepare(builder(tmp_path / "few", cut_outs="stamps"))


def test_three_photographs_are_enough(tmp_path: Path) -> None:
    write_photographs(tmp_path, 3)
    rows = prepare(builder(tmp_path))
    shown = {split: {json.loads(text)["photograph"] for text in rows[split]["provenance"]} for split in rows}
    assert sorted(map(len, shown.values())) == [1, 1, 1] and len(set.union(*shown.values())) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("zzz.jpg", b"no photograph", "photograph '.*zzz.jpg' cannot be read .*: replace or remove it"),
        ("zzz.png", (8, 8), "photograph '.*zzz.png' is 8x8 pixels: use one of at least 64 on each side"),
        ("zzz.png", (900, 90), "photograph '.*zzz.png' is 900x90 pixels: use one that is at most 5 times as long as"),
    ],
)
def test_an_unusable_photograph_is_an_error_or_left_out(
    tmp_path: Path, monkeypatch: Any, capsys: Any, name: str, content: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path / "photos", 3)
    if isinstance(content, bytes):
        (tmp_path / "photos" / name).write_bytes(content)
    else:
        photograph(9, content).save(tmp_path / "photos" / name)
    cache = tmp_path / "cache"
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", str(cache))
    monkeypatch.setattr(PhotoEdits, "drawn_count", lambda self, split: 2)
    command = ["prepare", "photo_edits", "--data_dir", str(tmp_path / "photos")]
    assert main(command) == 2
    assert re.search(f"^error: {message}", capsys.readouterr().err, re.MULTILINE)
    assert not list(cache.rglob("*.arrow")), "nothing half written"
    assert main([*command, "--on-error", "skip"]) == 0
    printed = capsys.readouterr().out
    assert "2 train, 2 validation, 2 test" in printed and "1 pairs were left out" in printed
    assert re.search(message, json.loads((tmp_path / "photo_edits-skipped.jsonl").read_text())["reason"])


def test_a_truncated_photograph_is_named(tmp_path: Path) -> None:
    write_photographs(tmp_path, 3)
    names = builder(tmp_path).files.photographs["train"]
    photograph(7, (400, 300)).save(tmp_path / names[0])
    (tmp_path / names[0]).write_bytes((tmp_path / names[0]).read_bytes()[:20_000])
    with pytest.raises(DataError, match=f"image '.*{names[0]}' cannot be read"):
        prepare(builder(tmp_path))


def test_huge_and_grey_photographs_are_drawn(tmp_path: Path) -> None:
    write_photographs(tmp_path, 3)
    names = {split: found[0] for split, found in builder(tmp_path).files.photographs.items()}
    Image.new("RGB", (12_000, 9_000), (90, 140, 60)).save(tmp_path / names["train"], "JPEG")
    photograph(5).convert("L").save(tmp_path / names["test"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drawn(tmp_path, count=3)
    types = {row.change_type for row in drawn(tmp_path, "test", 60, unchanged=0.0)}
    assert "flip" in types and not types & {"black-and-white", "saturation"}, "what cannot be seen is not drawn"


def test_of_many_photographs_only_those_that_are_drawn_are_opened(tmp_path: Path, monkeypatch: Any) -> None:
    for number in range(1500):
        (tmp_path / f"{number}.jpg").touch()
    opened = []
    monkeypatch.setattr("dataset_syned.photograph_files.check_photograph", opened.append)
    files = builder(tmp_path, train=600, validation=2, test=5).files
    assert [len(files.photographs[split]) for split in ("train", "validation", "test")] == [192, 64, 64]
    assert len(opened) == 320


def test_only_a_few_photographs_are_in_memory(folder: Path) -> None:
    material = Material(folder, [f"{number}.jpg" for number in range(1000)], None, [], SIZE)
    shown = [material.photograph_name(index) for index in range(1000)]
    assert max(map(len, (set(shown[start : start + 256]) for start in range(0, 1000, 256)))) == WINDOW
    assert len(set(shown)) == photographs_shown(1000) == 256
    assert Counter(shown).most_common(1)[0][1] == REPEATS and shown[0] != shown[1]
    few = Material(folder, ["a", "b", "c"], None, [], SIZE)
    assert [few.photograph_name(index) for index in range(5)] == ["a", "b", "c", "a", "b"]


def test_hidden_files_and_linked_circles_are_not_searched(tmp_path: Path) -> None:
    write_photographs(tmp_path, 3)
    (tmp_path / ".hidden.png").touch()
    (tmp_path / "inner" / "circle").symlink_to(tmp_path)
    assert list_files(tmp_path, (".png",)) == ["inner/photo-1.png", "photo-0.png", "photo-2.png"]


def test_changed_cut_outs_outside_the_folder_are_noticed(tmp_path: Path) -> None:
    write_photographs(tmp_path / "photos")
    outside = write_cut_outs(tmp_path / "stamps")
    made = builder(tmp_path / "photos", cut_outs=str(outside))
    first = made.raw_fingerprint()
    cut_out(9).save(outside / "new.png")
    assert made.raw_fingerprint() != first
    assert [len(found) for found in made.files.cut_outs.values()] and len(list_cut_outs(outside).usable) == 13


def test_without_a_folder_the_photographs_of_scikit_image_are_used(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "packages" / "skimage"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    for number, name in enumerate((*photo_edits.PACKAGED, "phantom.png")):
        photograph(number).save(package / "data" / name)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    found = benchmark_builder("photo_edits", **TINY_OPTIONS).files.photographs
    assert sorted(name for names in found.values() for name in names) == sorted(photo_edits.PACKAGED)
    assert found["test"] == ["coins.png", "motorcycle_left.png", "chelsea.png"] and found["validation"] == [
        "coffee.png"
    ]
    write_photographs(tmp_path / "data" / "photo_edits")
    assert "inner/photo-1.png" in sum(benchmark_builder("photo_edits", **TINY_OPTIONS).files.photographs.values(), [])


def test_without_a_folder_and_scikit_image_the_error_says_what_to_do(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(photo_edits, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"the folder of photographs is missing .*blip2idc\[photos\]"):
        benchmark_builder("photo_edits").raw_splits()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wording": "instruction"}, "wording='instruction', use one of description, request, both"),
        ({"train": 0}, "train=0, use a number of pairs of at least 1"),
        ({"seed": "1"}, "seed='1', use a whole number"),
        ({"size": 8}, "size=8, use 64 to 2048 pixels"),
        ({"unchanged": 30}, "unchanged=30, use a share from 0 to 1"),
        ({"two_changes": True}, "two_changes=True, use a share from 0 to 1"),
        ({"distractors": "no"}, "distractors='no', use true or false"),
        ({"cut_outs": ""}, "cut_outs='', use the name of a folder"),
    ],
)
def test_wrong_options_are_quoted(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        builder(folder, **options)
