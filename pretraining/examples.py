"""What the captioner for photographs learns from: drawn pairs on their canvas, with labels for the auxiliary losses.

Four of five are edited photographs with descriptions, the rest scenes of the toy benchmark with instructions.
"""

import json
import random
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from common_idc.atomic_files import atomic_folder
from dataset_syned.benchmarks import toy
from dataset_syned.benchmarks.photo_edits import PhotoEdits, PhotoEditsConfig, draw_pair, draw_stage, encode
from dataset_syned.cut_outs import categories_of
from dataset_syned.photo_distractors import distract
from dataset_syned.photo_edit import Change, random_part
from dataset_syned.photo_part_changes import SHEETS, soft_mask
from dataset_syned.photo_scenes import PLACES, Material, place_of_box
from dataset_syned.photo_statements import CHANGE_TYPES
from dataset_syned.photo_wordings import REFERENCES, captions, located
from dataset_syned.scene_drawing import COLORS as TOY_COLORS
from dataset_syned.scene_drawing import SHAPES, between, coverage, draw_background, draw_scene, pick
from modeling_blip2idc.image_fusion import fuse

CELL = 128
CANVAS = (2 * CELL, CELL)  # height, width: before on top
PATCH = 16
ROWS, COLUMNS = CANVAS[0] // PATCH, CANVAS[1] // PATCH
SIZES = (128, 160, 192, 256)  # of the drawn pictures' longest side
TOY_SHARE = 0.2
TOY_PICTURE = (128, 64)
PAPER_SHARE = 0.25  # of the toy scenes in the toy benchmark's default look
SOMETHING_SIDES = ((0.25, 0.5), (0.25, 0.5), (0.5, 0.8))  # of a part that is changed, as shares of the picture's
OTHER_SHARE = 0.07  # pairs with a change that photo_edits does not have
NAMED, NARROW = 0.2, 0.2  # of the sentences name a thing by its name, by its narrowest category; the others: widest
TWO_CHANGES = 0.2  # of the changed photographs
# Changes that are hard to tell, of which there are more than in the benchmark.
HARD = ("add", "remove", "replace", "move", "color", "duplicate", "text", "rotate", "crop", "pixelate")
REPLACED = 0.4  # of the photographs with another change are drawn anew
OTHER_SENTENCES = {
    "something": ("something has changed {at}", "something is different {at}", "something changed {at}"),
    "everything": (
        "something has changed in the whole picture",
        "the whole picture looks different",
        "something changed everywhere in the picture",
    ),
    "other scene": (
        "the two pictures show different scenes",
        "these are two different pictures",
        "the second picture shows another scene",
    ),
}
ACTIONS = (*CHANGE_TYPES, "two", *OTHER_SENTENCES)
PLACE_NAMES = ("", *(place for row in PLACES for place in row))
COLORS = ("", *SHEETS, *TOY_COLORS)
UNKNOWN, IGNORED = 0, 255


@dataclass(frozen=True)
class Example:
    """A pair for training.

    Args:
        canvas: [256, 128, 3] uint8.
        status: [128] uint8 per patch: whether something changed there, IGNORED where that is not known.
        things: [128] uint8 per patch: the thing that covers it, 0 for none.
        labels: action, place, source, colour, thing, other thing.
    """

    canvas: np.ndarray
    status: np.ndarray
    things: np.ndarray
    labels: list[int]
    captions: list[str]


LABELS = {"action": ACTIONS, "place": PLACE_NAMES, "source": PLACE_NAMES, "color": tuple(dict.fromkeys(COLORS))}


@cache
def material(data_dir: Path, split: str, size: int) -> Material:
    """Return what pairs are drawn from."""
    made = PhotoEdits(root=data_dir, cache_dir=str(data_dir / ".unused"), size=size, train=10**6).material(split)
    made.photograph = lru_cache(maxsize=512)(made._photograph)  # all of them stay in memory
    made.cut_out = lru_cache(maxsize=512)(made._cut_out)
    return made


@cache
def thing_names(data_dir: Path) -> tuple[str, ...]:
    """Return the names that the auxiliary losses know: those of the training cut-outs, and the toy's shapes."""
    names = {cut_out.name.head.text for cut_out in material(data_dir, "train", SIZES[0]).cut_outs}
    return ("", *sorted(names | {"rectangle", "circle", "text"} | set(SHAPES)))


def number(value: str, names: tuple[str, ...]) -> int:
    return names.index(value) if value in names else UNKNOWN


def patches_in(box: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    """Return the share of each patch of one picture that a box covers, [8, 8]."""
    left, top, right, bottom = (value / side * COLUMNS for value, side in zip(box, size * 2, strict=True))
    at = np.arange(COLUMNS)
    across = np.clip(np.minimum(at + 1, right) - np.maximum(at, left), 0, 1)
    down = np.clip(np.minimum(at + 1, bottom) - np.maximum(at, top), 0, 1)
    return down[:, None] * across[None, :]


def photo_example(data_dir: Path, split: str, seed: str) -> Example:
    """Return a random edited photograph."""
    rng = random.Random(seed)
    config = PhotoEditsConfig(size=pick(rng, SIZES), two_changes=TWO_CHANGES)
    drawn_from = material(data_dir, split, config.size)
    drawn = draw_pair(rng, drawn_from, pick(rng, drawn_from.photographs), config)
    while drawn.edits and drawn.edits[0].change.change_type not in HARD and rng.random() < REPLACED:
        drawn = draw_pair(rng, drawn_from, pick(rng, drawn_from.photographs), replace(config, unchanged=0.0))
    files, _ = encode(rng, drawn, distractors=True)
    names, stage = thing_names(data_dir), drawn.stage
    status, things = np.zeros((2, COLUMNS, COLUMNS), np.uint8), np.zeros((2, COLUMNS, COLUMNS), np.uint8)
    for placed in stage.bystanders:
        covered = patches_in(stage.box(placed), stage.size) > 0.4
        things[:, covered] = number(placed.cut_out.name.head.text, names)
    changes = [edit.change for edit in drawn.edits]
    for change in changes:
        if change.box is None or change.action == "crop":
            continue
        covered = patches_in(change.box, stage.size) > 0.3
        status[:, covered] = 1
        if change.source:  # where it was is not recorded
            status[0] = IGNORED
        name = number(change.thing.head.text, names)
        other = number(change.other.head.text, names) if change.other else name
        for side, shown in ((0, change.action not in ("add", "move", "duplicate", "cover", "add text")), (1, True)):
            if shown and change.action not in (("remove", "remove text") if side else ()):
                things[side, covered] = other if side else name
    first = changes[0] if changes else None
    labels = [
        number("two" if len(changes) > 1 else first.action if first else "none", ACTIONS),
        number(first.place if first else "", LABELS["place"]),
        number(first.source if first else "", LABELS["source"]),
        number(first.color if first else "", LABELS["color"]),
        number(first.thing.head.text if first else "", names),
        number(first.other.head.text if first and first.other else "", names),
    ]
    texts = captions(rng, changes, "description")
    for which in (0, -1):  # the narrowest category, and the widest
        coarse = [in_category(edit.change, edit.cut_outs, which) for edit in drawn.edits]
        texts += captions(rng, coarse, "description") if coarse != changes else []
    canvas = np.asarray(fuse(*files, layout="vertical", canvas=CANVAS))
    return Example(canvas, status.reshape(-1), things.reshape(-1), labels, texts)


def in_category(change: Change, files: tuple[str, ...], which: int) -> Change:
    """Return a change whose things have the names of one of their categories, unless both would be called the same."""
    if not files:
        return change
    first, second = ((categories_of(file) or [None])[which] for file in (files[0], files[-1]))
    if change.other and first == second:
        return change
    return replace(change, thing=first or change.thing, other=change.other and (second or change.other))


def other_example(data_dir: Path, split: str, seed: str) -> Example:
    """Return a pair with a change that photo_edits does not have; its sentences say no more than where it is."""
    rng = random.Random(seed)
    drawn_from = material(data_dir, split, pick(rng, SIZES))
    _, stage = draw_stage(rng, drawn_from, pick(rng, drawn_from.photographs))
    _, second = draw_stage(rng, drawn_from, pick(rng, drawn_from.photographs))
    before, other = stage.draw(), second.draw().resize(stage.size)
    action, place = pick(rng, ("something", "something", "something", "everything", "other scene")), ""
    status = np.zeros((2, COLUMNS, COLUMNS), np.uint8)
    if action == "other scene":
        after = other
    else:
        after = pick(rng, EFFECTS)(rng, before, other if action == "something" else before)
    if action == "something":
        mask = None
        while mask is None:
            box = random_part(rng, stage.size, *pick(rng, SOMETHING_SIDES))
            mask = box and soft_mask(stage.size, box, pick(rng, ("ellipse", "rounded rectangle")))
        after, place = Image.composite(after, before, mask), place_of_box(box, stage.size)
        status[:, patches_in(box, stage.size) > 0.3] = 1
    pictures = [before, after] if rng.random() < 0.5 else [after, before]
    files = [distract(rng, picture)[0] for picture in pictures]
    texts = [text.format(at=located(place)) for text in OTHER_SENTENCES[action]]
    labels = [number(action, ACTIONS), number(place, PLACE_NAMES), UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]
    canvas = np.asarray(fuse(*files, layout="vertical", canvas=CANVAS))
    things = np.full(ROWS * COLUMNS, IGNORED, np.uint8)
    return Example(canvas, status.reshape(-1), things, labels, texts)


def paste(rng: random.Random, picture: Image.Image, other: Image.Image) -> Image.Image:
    return other if other is not picture else ImageOps.posterize(picture, 2)


def negative(rng: random.Random, picture: Image.Image, other: Image.Image) -> Image.Image:
    return ImageOps.invert(picture)


def edges(rng: random.Random, picture: Image.Image, other: Image.Image) -> Image.Image:
    return picture.filter(pick(rng, (ImageFilter.FIND_EDGES, ImageFilter.EMBOSS, ImageFilter.CONTOUR)))


def waves(rng: random.Random, picture: Image.Image, other: Image.Image) -> Image.Image:
    """Shift rows and columns by waves."""
    values = np.asarray(picture)
    height, width = values.shape[:2]
    strength, length = between(rng, 0.03, 0.07) * width, between(rng, 0.1, 0.3) * width
    rows, columns = np.mgrid[:height, :width]
    down = (rows + strength * np.sin(2 * np.pi * columns / length)).astype(int) % height
    across = (columns + strength * np.sin(2 * np.pi * rows / length)).astype(int) % width
    return Image.fromarray(values[down, across])


EFFECTS = (paste, paste, negative, edges, waves)


def toy_example(data_dir: Path, seed: str) -> Example:
    """Return a random drawn scene with instructions."""
    rng = random.Random(seed)
    look = "paper" if rng.random() < PAPER_SHARE else "studio"
    pair = toy.draw_pair(rng, pick(rng, toy.CHANGE_TYPES), toy.SETTINGS["easy"], TOY_PICTURE[0] / TOY_PICTURE[1])
    background = draw_background(TOY_PICTURE, look, rng)
    pictures = [draw_scene(s, background, look, v) for s, v in zip((pair.before, pair.after), pair.views, strict=True)]
    subject = pair.subject
    action = {"color": "recolor"}.get(pair.change_type, pair.change_type)
    labels = [
        number(action, ACTIONS),
        UNKNOWN,
        UNKNOWN,
        number(pair.new_color, LABELS["color"]),
        number(subject.shape if subject else "", thing_names(data_dir)),
        UNKNOWN,
    ]
    canvas = np.asarray(fuse(*pictures, layout="vertical", canvas=CANVAS))
    sides = ((pair.before, pair.after, pair.views[0]), (pair.after, pair.before, pair.views[1]))
    marked = [toy_patches(*side, thing_names(data_dir)) for side in sides]
    status, things = (np.concatenate(part).reshape(-1) for part in zip(*marked, strict=True))
    return Example(canvas, status, things, labels, toy.draw_captions(rng, pair, "instruction"))


def toy_patches(own: list, others: list, view, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return status and things of the patches of one scene, [8, 8] each."""
    width, height = TOY_PICTURE
    status, things = np.zeros((2, COLUMNS, COLUMNS), np.uint8)
    for thing in own:
        mask = np.zeros((height, width), np.float32)
        box, alpha = coverage(thing, TOY_PICTURE, view)
        mask[box] = alpha
        covered = mask.reshape(COLUMNS, height // COLUMNS, COLUMNS, width // COLUMNS).mean(axis=(1, 3)) > 0.2
        status[covered], things[covered] = thing not in others, number(thing.shape, names)
    return status, things


def draw_example(data_dir: Path, split: str, index: int) -> Example:
    """Return example `index` of a split."""
    seed = f"tiny captioner/{split}/{index}"
    share = random.Random(seed).random()
    if share < TOY_SHARE:
        return toy_example(data_dir, seed)
    if share < TOY_SHARE + OTHER_SHARE:
        return other_example(data_dir, split, seed)
    return photo_example(data_dir, split, seed)


def choose_caption(rng: random.Random, texts: list[str]) -> str:
    """Return one of the captions of an example: the first REFERENCES name things, others give their categories."""
    groups = [texts[start : start + REFERENCES] for start in range(0, len(texts), REFERENCES)]
    share = rng.random()
    which = 0 if share < NAMED else len(groups) // 2 if share < NAMED + NARROW else -1
    return rng.choice(groups[which])


class Pool:
    """Examples that were drawn in advance into files, of which a page is read when it is needed."""

    def __init__(self, folder: Path):
        self.canvases = np.load(folder / "canvases.npy", mmap_mode="r")
        self.status, self.things, self.labels = (np.load(folder / f"{n}.npy") for n in ("status", "things", "labels"))
        self.captions = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]

    def __len__(self) -> int:
        return len(self.captions)


SHARD = 2000


def draw_shard(data_dir: Path, split: str, folder: Path, start: int, count: int) -> Path:
    """Write examples into a folder, unless it exists; return it."""
    place = folder / f"{start:08d}"
    if place.exists():
        return place
    examples = [draw_example(data_dir, split, start + index) for index in range(count)]
    with atomic_folder(place) as unfinished:
        for name, values in (
            ("canvases", [example.canvas for example in examples]),
            ("status", [example.status for example in examples]),
            ("things", [example.things for example in examples]),
            ("labels", [example.labels for example in examples]),
        ):
            np.save(unfinished / f"{name}.npy", np.array(values))
        lines = "".join(json.dumps(example.captions) + "\n" for example in examples)
        (unfinished / "captions.jsonl").write_text(lines)
    return place


def draw_pools(data_dir: Path, split: str, folder: Path, count: int, processes: int = 1) -> list[Future]:
    """Return the future shards of `count` examples, drawn by processes of their own; those that exist are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    executor = ProcessPoolExecutor(processes)
    starts = range(0, count, SHARD)
    return [executor.submit(draw_shard, data_dir, split, folder, s, min(SHARD, count - s)) for s in starts]
