"""The one row that every benchmark yields, and the builder class that all of them share.

A benchmark is one file with one class: it states its facts, and `raw_pairs` reads its authors' files. Everything else
(reading and checking images, shards, skipping what is broken) is here.
"""

import io
import json
import os
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import datasets
from PIL import Image

FEATURES = datasets.Features(
    {
        "pair_id": datasets.Value("string"),
        "before": datasets.Image(),
        "after": datasets.Image(),
        "captions": datasets.List(datasets.Value("string")),
        "kind": datasets.Value("string"),
        "provenance": datasets.Value("string"),  # JSON of how a pair was made; empty for hand-made sets
    }
)
SHARD_PAIRS = 500

ImageSource = Path | tuple[str, bytes]  # a file, or the name and content of one that lies inside another


class DataError(ValueError):
    """Files that are missing or broken; the message names them and says what to do."""


@dataclass(frozen=True)
class RawPair:
    """A pair as its authors distribute it, before its image files are read."""

    pair_id: str
    before: ImageSource
    after: ImageSource
    captions: list[str]
    kind: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Mirror:
    """A copy of a benchmark's raw files, or of some of them, on the Hub.

    Args:
        patterns: which files of the repository (`allow_patterns` of `snapshot_download`); archives among them are
            unpacked.
        revision: a commit, because repositories change; a branch stays at its commit of the first fetch.
    """

    repo_id: str
    revision: str
    patterns: tuple[str, ...]
    repo_type: Literal["dataset", "model"] = "dataset"


def inside(root: Path, name: str) -> Path:
    """The file `name` of a data folder. Raises: DataError if the name leads out of the folder."""
    # By the name alone: asking the file system takes longer than reading the annotation, and links may leave.
    normal = os.path.normpath(name)
    if os.path.isabs(normal) or normal.split(os.sep)[0] == "..":
        raise DataError(f"the name {name!r} leads out of the folder {str(root)!r}: correct it in the annotations")
    return root / name


def read_json(path: Path) -> Any:
    """Raises: DataError for a file that is missing or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{str(path)!r} is missing") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)!r} cannot be read as JSON ({error})") from error


def image_bytes(name: str, data: bytes) -> dict[str, Any]:
    """An image as rows hold it: the raw file under its base name, so that no path of this machine travels with it."""
    return {"path": name, "bytes": data}


def read_image(source: ImageSource) -> dict[str, Any]:
    """The raw file, once it has been decoded to the last pixel. Raises: DataError that names it."""
    name, data = source if isinstance(source, tuple) else (source.name, None)
    try:
        data = source.read_bytes() if data is None else data
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except FileNotFoundError as error:
        raise DataError(f"image {str(source)!r} is missing") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        # Pillow reports damaged files with each of these types
        raise DataError(f"image {str(source if data is None else name)!r} cannot be read ({error})") from error
    return image_bytes(name, data)


def pair_row(
    pair_id: str,
    before: dict[str, Any],
    after: dict[str, Any],
    captions: list[str],
    kind: str = "",
    provenance: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "pair_id": pair_id,
        "before": before,
        "after": after,
        "captions": captions,
        "kind": kind,
        "provenance": json.dumps(provenance, sort_keys=True, ensure_ascii=False) if provenance else "",
    }


def check_captions(pair: RawPair) -> None:
    """Raises: DataError that names the pair, if it has no caption or one without text."""
    if not pair.captions or not all(caption.strip() for caption in pair.captions):
        raise DataError(f"pair {pair.pair_id!r} has no caption, or one without text: {pair.captions}")


def read_row(pair: RawPair) -> dict[str, Any]:
    """Raises: DataError that names the pair and the image."""
    try:
        images = read_image(pair.before), read_image(pair.after)
    except DataError as error:
        raise DataError(f"pair {pair.pair_id!r}: {error}") from error
    return pair_row(pair.pair_id, *images, pair.captions, pair.kind, pair.provenance)


class PairBuilder(datasets.GeneratorBasedBuilder):
    """A `datasets` builder of FEATURES. A benchmark adds its facts, `raw_splits` and `raw_pairs`.

    Args:
        root: folder with the raw files; by default the config's `data_dir`, else `data/<name>` in the current folder.
        skip_log: with a file name, broken pairs are left out and written there, one JSON line each; without, the first
            one ends the preparation.
    """

    DESCRIPTION = ""
    LICENSE = ""  # as the authors state it
    HOMEPAGE = ""
    CITATION = ""  # BibTeX
    MIRRORS: tuple[Mirror, ...] = ()  # tried in turn by `fetch`
    BY_HAND = ""  # which file from which page goes where
    EXPECTED: dict[str, dict[str, int]] = {}  # config name -> split -> pairs
    BLANK_CAPTIONS = False  # True for a set that its papers score with the blank references that it was released with

    def __init__(self, *args: Any, root: Path | None = None, skip_log: Path | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.root = Path(root or self.config.data_dir or Path("data") / self.dataset_name)
        self.skip_log = skip_log

    @abstractmethod
    def raw_splits(self) -> list[str]:
        """Names of the splits whose annotations lie in `root`, in the order train, validation, test.

        Raises: DataError, with BY_HAND, where `root` holds none.
        """

    @abstractmethod
    def raw_pairs(self, split: str) -> Iterator[RawPair]:
        """The pairs of a split in the annotations' order. Image files are named, not opened."""

    def count_pairs(self, split: str) -> int:
        return sum(1 for _ in self.raw_pairs(split))

    def notes(self) -> list[str]:
        """Lines that `prepare` should tell about what was done to the data."""
        return []

    def missing(self, what: str) -> DataError:
        """The error for raw files that are not there."""
        return DataError(f"{self.dataset_name}: {what} is missing in {str(self.root)!r}. {self.BY_HAND}".strip())

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description=self.DESCRIPTION,
            features=FEATURES,
            homepage=self.HOMEPAGE,
            license=self.LICENSE,
            citation=self.CITATION,
        )

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        generators = []
        for split in self.raw_splits():
            total = self.count_pairs(split)
            shards = [(start, min(start + SHARD_PAIRS, total)) for start in range(0, total, SHARD_PAIRS)]
            generators.append(datasets.SplitGenerator(name=split, gen_kwargs={"split": split, "shards": shards}))
        return generators

    def _generate_examples(self, split: str, shards: list[tuple[int, int]]) -> Iterator[tuple[int, dict[str, Any]]]:
        pairs, position = iter(self.raw_pairs(split)), 0
        for start, stop in shards:  # ascending
            part = islice(pairs, start - position, stop - position)
            position = stop
            for index, pair in enumerate(part, start=start):
                try:
                    row = read_row(pair)
                    if not self.BLANK_CAPTIONS:
                        check_captions(pair)
                    yield index, row
                except DataError as error:
                    if self.skip_log is None:
                        raise
                    self._skip(split, pair, error)

    def _skip(self, split: str, pair: RawPair, error: DataError) -> None:
        line = json.dumps({"split": split, "pair_id": pair.pair_id, "reason": str(error)})
        with self.skip_log.open("a", encoding="utf-8") as file:  # one short append: several processes may do it
            file.write(line + "\n")
