"""photo_edits: any number of pairs drawn from a folder of photographs, made offline.

    python -m dataset_syned prepare photo_edits --data_dir my_photographs

The folder and its subfolders contain photographs; its subfolder `cut_outs` may contain pictures of single things with
transparent surroundings (PNG; the first line of tiger.txt, or else the file name, is the name of tiger.png). Without
a folder, the photographs inside the installed scikit-image are used. Without cut-outs nothing is added, removed,
replaced or moved.

Each pair shows a view of a photograph before and after one change, sometimes two, or none. Small differences of view,
light, size and compression are not a change. No photograph and no cut-out is in two splits. Row i of a split depends
only on the options, the split, i and the listed files; its `provenance` says how it was drawn:

    {"drawn_by": "photo_edits 1.0.0", "seed": 0, "split": "train", "index": 17, "photograph": "dunes.jpg",
     "view": {"box": [0.1, 0.0, 0.8, 1.0], ..}, "bystanders": [{"thing": "cow", "cut_out": "cow.png", "box": ..}],
     "units": [{"thing": "tiger", "action": "add", "place": "upper left"}],
     "changes": [{"change_type": "add", "box": [12, 20, 80, 71], "area": 0.04, "parameters": {..}}],
     "cut_outs": ["tiger.png"], "distractors": {"before": {"quality": 81}, "after": {..}}}

Boxes are in pixels (left, top, right, bottom) before the small difference of view; areas are shares of the picture.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import datasets

from ..cut_outs import CutOut, CutOutListing, list_cut_outs
from ..pair_builder import PairBuilder, PairConfig, fingerprint
from ..pairs import NO_CHANGE, BrokenEntry, DataError, RawPair, image_bytes, pair_row
from ..photo_changes import CHANGES, LOCAL, TONES, WITH_CUT_OUTS
from ..photo_distractors import PLAIN_QUALITY, distract, jpeg
from ..photo_edit import Edit
from ..photo_scenes import Material, Stage, View, draw_view, photographs_shown, show_view
from ..photo_wordings import captions
from ..photograph_files import SUFFIXES, fill, list_files, split_names, usable_photographs
from ..scene_drawing import pick

VERSION = "1.0.0"
Wording = Literal["description", "request", "both"]
STYLES = {"description": ("description",), "request": ("request",), "both": ("description", "request")}
SPLITS = ("train", "validation", "test")
LEAST_PHOTOGRAPHS = 1  # in each split
LEAST_CUT_OUTS = 2  # in each split, because one replaces another
TRIES = 12  # of one change type, before another one is drawn
SAME_FILE = 0.25  # of unchanged pairs: the same picture twice
# Photographs among the files of scikit-image's wheel.
PACKAGED = (
    "astronaut.png brick.png camera.png chelsea.png coffee.png coins.png grass.png gravel.png hubble_deep_field.jpg "
    "motorcycle_left.png rocket.jpg"
).split()


@dataclass
class PhotoEditsConfig(PairConfig):
    """The options of `photo_edits`.

    Args:
        train, validation, test: number of pairs in each split.
        seed: each seed gives different pairs.
        size: pixels of each picture's longest side.
        wording: "description" ("a tiger has been added in the upper left"), "request" ("add a tiger in the upper
            left") or "both", five of each.
        unchanged: share of pairs without a change, of all pairs.
        two_changes: share of pairs with two changes, of the changed ones.
        distractors: whether view, light, size and compression differ a little.
        cut_outs: folder of cut-outs, absolute or inside the data folder; the folder "cut_outs" may be missing.
    """

    train: int = 3000
    validation: int = 300
    test: int = 1000
    seed: int = 0
    size: int = 256
    wording: Wording = "description"
    unchanged: float = 0.3
    two_changes: float = 0.1
    distractors: bool = True
    cut_outs: str = "cut_outs"

    def check(self) -> None:
        """Raise ValueError that quotes an option which cannot be used."""
        if self.wording not in STYLES:
            raise ValueError(f"photo_edits: wording={self.wording!r}, use one of {', '.join(STYLES)}")
        for name in (*SPLITS, "seed", "size"):
            if type(getattr(self, name)) is not int:
                raise ValueError(f"photo_edits: {name}={getattr(self, name)!r}, use a whole number")
        for name in SPLITS:
            if getattr(self, name) < 1:
                raise ValueError(f"photo_edits: {name}={getattr(self, name)}, use a number of pairs of at least 1")
        if not 64 <= self.size <= 2048:
            raise ValueError(f"photo_edits: size={self.size}, use 64 to 2048 pixels")
        for name in ("unchanged", "two_changes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"photo_edits: {name}={value!r}, use a share from 0 to 1")
        if not isinstance(self.distractors, bool):
            raise ValueError(f"photo_edits: distractors={self.distractors!r}, use true or false")
        if not isinstance(self.cut_outs, str) or not self.cut_outs:
            raise ValueError(f"photo_edits: cut_outs={self.cut_outs!r}, use the name of a folder")


@dataclass(frozen=True)
class Files:
    """The usable files of each split, and what was found to be unusable."""

    photographs: dict[str, list[str]]
    broken: dict[str, list[BrokenEntry]]
    cut_outs: dict[str, list[CutOut]]
    cut_out_listing: CutOutListing


def draw_edit(rng: random.Random, stage: Stage, change_type: str) -> Edit | None:
    """Return an edit of a change type that a person can see, or None if TRIES drew none."""
    edits = (CHANGES[change_type](rng, stage) for _ in range(TRIES))
    return next((edit for edit in edits if edit), None)


def draw_any_edit(rng: random.Random, stage: Stage) -> Edit:
    """Return an edit of a random change type, each with the same probability where it can be seen."""
    possible = [name for name in CHANGES if stage.material.cut_outs or name not in WITH_CUT_OUTS]
    while True:
        edit = draw_edit(rng, stage, pick(rng, possible))
        if edit:
            return edit


def draw_two_edits(rng: random.Random, stage: Stage) -> list[Edit]:
    """Return a change of a part and one of the whole picture that starts where the first ends; [] if unlucky."""
    possible = [name for name in LOCAL if stage.material.cut_outs or name not in WITH_CUT_OUTS]
    for _ in range(TRIES):
        first = draw_edit(rng, stage, pick(rng, possible))
        second = first and TONES[pick(rng, list(TONES))](rng, first.after)
        if second and second.before is first.after:  # not the opposite of a change, which starts elsewhere
            return [first, second]
    return []


def add_bystanders(rng: random.Random, stage: Stage) -> None:
    """Place up to two cut-outs that both pictures show, so that a cut-out is no sign of a change."""
    for _ in range(pick(rng, (0, 0, 1, 1, 2))):
        placed = stage.place(rng)
        if placed:
            stage.bystanders.append(placed)


@dataclass(frozen=True)
class Drawn:
    """A pair before its distractors are drawn."""

    photograph: str
    view: View
    stage: Stage
    pair: tuple[Any, Any]
    edits: list[Edit]


def draw_stage(rng: random.Random, material: Material, name: str) -> tuple[View, Stage]:
    """Return a random view of a photograph with bystanders."""
    photograph = material.photograph(name)
    view = draw_view(rng, photograph, material.size)
    stage = Stage(material, show_view(photograph, view))
    add_bystanders(rng, stage)
    return view, stage


def draw_pair(rng: random.Random, material: Material, name: str, config: PhotoEditsConfig) -> Drawn:
    """Return a random pair of a photograph's view."""
    view, stage = draw_stage(rng, material, name)
    if rng.random() < config.unchanged:
        picture = stage.draw()
        return Drawn(name, view, stage, (picture, picture), [])
    edits = draw_two_edits(rng, stage) if rng.random() < config.two_changes else []
    edits = edits or [draw_any_edit(rng, stage)]
    return Drawn(name, view, stage, (edits[0].before, edits[-1].after), edits)


def encode(rng: random.Random, drawn: Drawn, distractors: bool) -> tuple[list[bytes], dict[str, Any]]:
    """Return both pictures as JPEG files, and their distractors."""
    if not distractors:
        return [jpeg(picture, PLAIN_QUALITY) for picture in drawn.pair], {}
    files, records = zip(*(distract(rng, picture) for picture in drawn.pair), strict=True)
    if not drawn.edits and rng.random() < SAME_FILE:
        files, records = files[:1] * 2, records[:1] * 2
    return list(files), dict(zip(("before", "after"), records, strict=True))


def describe(drawn: Drawn) -> dict[str, Any]:
    """Return the part of `provenance` that says what was drawn."""
    view, stage = drawn.view, drawn.stage
    changes = [edit.change for edit in drawn.edits]
    return {
        "photograph": drawn.photograph,
        "view": {
            "box": list(view.box),
            "mirrored": view.mirrored,
            "brightness": view.brightness,
            "saturation": view.saturation,
        },
        "bystanders": [
            {"thing": placed.cut_out.name.text, "cut_out": placed.cut_out.file, "box": list(stage.box(placed))}
            for placed in stage.bystanders
        ],
        "units": [change.unit() for change in changes],
        "changes": [
            {
                "change_type": change.change_type,
                "box": list(change.box) if change.box else None,
                "area": change.area,
                "parameters": change.parameters,
            }
            for change in changes
        ],
        "cut_outs": [file for edit in drawn.edits for file in edit.cut_outs],
    }


def draw_raw(config: PhotoEditsConfig, material: Material, split: str, index: int) -> RawPair:
    """Return row `index` of a split as a pair. Raises: DataError that names a photograph which cannot be read."""
    rng = random.Random(f"photo_edits/{config.seed}/{split}/{index}")
    drawn = draw_pair(rng, material, material.photograph_name(index), config)
    (before, after), distractors = encode(rng, drawn, config.distractors)
    changes = [edit.change for edit in drawn.edits]
    types = [change.change_type for change in changes]
    pair_id = f"{split}-{index:06d}"
    return RawPair(
        pair_id=pair_id,
        before=(f"{pair_id}-before.jpg", before),
        after=(f"{pair_id}-after.jpg", after),
        captions=[text for style in STYLES[config.wording] for text in captions(rng, changes, style)],
        change_type="multiple" if len(types) > 1 else (types or [NO_CHANGE])[0],
        provenance={
            "drawn_by": f"photo_edits {VERSION}",
            "seed": config.seed,
            "split": split,
            "index": index,
            **describe(drawn),
            "distractors": distractors,
        },
    )


class PhotoEdits(PairBuilder):
    VERSION = datasets.Version(VERSION)
    BUILDER_CONFIG_CLASS = PhotoEditsConfig
    BUILDER_CONFIGS = [PhotoEditsConfig(name="default")]
    DESCRIPTION = "Edited photographs: views of photographs before and after one change, five references each."
    LICENSE = "that of the photographs and cut-outs used"
    HOMEPAGE = "https://scikit-image.org"
    CITATION = (
        "@article{scikit-image, title={scikit-image: image processing in Python}, journal={PeerJ}, year={2014}, "
        "doi={10.7717/peerj.453}}"
    )
    BY_HAND = (
        "Put at least three photographs there, in any subfolders, or name their folder with --data_dir; or install "
        'scikit-image, which contains some: pip install "blip2idc[photos]".'
    )
    EXPECTED = {"default": {"train": 3000, "validation": 300, "test": 1000}}
    OWN_PAIRS = True

    def __init__(self, *args: Any, root: Path | None = None, **kwargs: Any):
        super().__init__(*args, root=root, **kwargs)
        self._files: Files | None = None
        packaged = packaged_folder() if root is None and not self.config.data_dir else None
        self.packaged = packaged is not None
        self.root = packaged or self.root

    @classmethod
    def default_folder(cls, name: str) -> Path | None:
        """Return data/photo_edits if it exists; otherwise the photographs of scikit-image are used."""
        folder = Path("data") / name
        return folder if folder.is_dir() else None

    def _info(self) -> datasets.DatasetInfo:
        self.config.check()  # not in the config's __init__: the base class sets the options later
        return super()._info()

    @property
    def cut_out_folder(self) -> Path | None:
        """Return the folder of cut-outs, or None. Raises: DataError if one was named that does not exist."""
        folder = self.root / Path(self.config.cut_outs).expanduser()
        if folder.is_dir():
            return folder
        if self.config.cut_outs != PhotoEditsConfig.cut_outs:
            raise DataError(f"photo_edits: cut_outs={self.config.cut_outs!r}: there is no folder {str(folder)!r}")
        return None

    def raw_fingerprint(self) -> str:
        """Return a hash of the names, sizes and times of the photographs and the cut-outs."""
        folder = self.cut_out_folder
        outside = folder and not folder.resolve().is_relative_to(self.root.resolve())
        return super().raw_fingerprint() + (fingerprint(folder) if outside else "")

    @property
    def files(self) -> Files:
        """Return the usable files of each split, listed once. Raises: DataError if there are too few."""
        if self._files is None:
            self._files = self.list_files()
        return self._files

    def list_files(self) -> Files:
        """Return the usable files of each split. Raises: DataError if there are too few."""
        if not self.root.is_dir():
            raise self.missing("the folder of photographs")
        folder = self.cut_out_folder
        if self.packaged:
            names = [name for name in PACKAGED if (self.root / name).is_file()]
        else:
            left_out = [self.root / PhotoEditsConfig.cut_outs, *([folder] if folder else [])]
            names = list_files(self.root, SUFFIXES, left_out)
        wanted = {split: photographs_shown(getattr(self.config, split)) for split in SPLITS}
        photographs, broken = usable_photographs(self.root, split_names(names), wanted)
        found = sum(map(len, photographs.values()))
        if found < LEAST_PHOTOGRAPHS * len(SPLITS):
            first = next((f" ({entry.error})" for entries in broken.values() for entry in entries), "")
            raise self.missing(f"one of at least 3 photographs, of which {found} can be used{first},")
        fill(photographs, LEAST_PHOTOGRAPHS)
        cut_outs = list_cut_outs(folder) if folder else CutOutListing()
        broken["train"] += cut_outs.broken
        return Files(photographs, broken, self.split_cut_outs(cut_outs.usable), cut_outs)

    def split_cut_outs(self, cut_outs: list[CutOut]) -> dict[str, list[CutOut]]:
        """Return the cut-outs of each split. Raises: DataError if there are some, but too few."""
        if 0 < len(cut_outs) < LEAST_CUT_OUTS * len(SPLITS) or self.cut_out_folder and not cut_outs:
            raise DataError(
                f"photo_edits: {len(cut_outs)} usable cut-outs in {str(self.cut_out_folder)!r}: use at least "
                f"{LEAST_CUT_OUTS * len(SPLITS)}, {LEAST_CUT_OUTS} for each split, or remove the folder"
            )
        by_file = {cut_out.file: cut_out for cut_out in cut_outs}
        splits = {split: [by_file[name] for name in names] for split, names in split_names(list(by_file)).items()}
        if cut_outs:
            fill(splits, LEAST_CUT_OUTS)
        return splits

    def raw_splits(self) -> list[str]:
        return list(self.files.photographs)

    def drawn_count(self, split: str) -> int:
        """Return the number of pairs that are drawn."""
        return getattr(self.config, split)

    def count_pairs(self, split: str) -> int:
        return self.drawn_count(split) + len(self.files.broken[split])

    def notes(self) -> list[str]:
        """Return the number of photographs and cut-outs of each split, and what was left out."""
        photographs, cut_outs = self.files.photographs, self.files.cut_outs
        lines = [f"photographs: {', '.join(f'{len(photographs[split])} {split}' for split in SPLITS)}"]
        if any(cut_outs.values()):
            lines.append(f"cut-outs: {', '.join(f'{len(cut_outs[split])} {split}' for split in SPLITS)}")
        else:
            lines.append(f"no cut-outs, so no pair has a change of type {', '.join(WITH_CUT_OUTS)}")
        return lines + self.files.cut_out_listing.notes()

    def material(self, split: str) -> Material:
        """Return what the pairs of a split are drawn from."""
        files = self.files
        return Material(
            self.root, files.photographs[split], self.cut_out_folder, files.cut_outs[split], self.config.size
        )

    def draw(self, material: Material, split: str, index: int) -> RawPair | BrokenEntry:
        """Return an entry by its index: the pairs, then the unusable files."""
        count = self.drawn_count(split)
        if index >= count:
            return self.files.broken[split][index - count]
        try:
            return draw_raw(self.config, material, split, index)
        except DataError as error:
            return BrokenEntry(error, f"{split}-{index:06d}")

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        material = self.material(split)
        return (self.draw(material, split, index) for index in range(self.count_pairs(split)))

    def numbered_rows(self, split: str, shards: list[tuple[int, int]]) -> Iterator[tuple[int, dict[str, Any]]]:
        material = self.material(split)
        for start, stop in shards:
            for index in range(start, stop):  # a row does not need the rows before it
                entry = self.draw(material, split, index)
                if isinstance(entry, RawPair):
                    yield index, drawn_row(entry)
                elif self.skip_log is None:
                    raise entry.error
                else:
                    self._skip(split, entry.pair_id, entry.error)


def packaged_folder() -> Path | None:
    """Return the folder of photographs inside the installed scikit-image, which is not imported, or None."""
    package = find_spec("skimage")
    folders = [Path(folder, "data") for folder in package.submodule_search_locations or ()] if package else []
    return next((folder for folder in folders if folder.is_dir()), None)


def drawn_row(pair: RawPair) -> dict[str, Any]:
    """Return the row of a drawn pair, whose pictures need no check."""
    images = image_bytes(*pair.before), image_bytes(*pair.after)
    return pair_row(pair.pair_id, *images, pair.captions, pair.change_type, pair.provenance)
