"""The one row that every benchmark yields, and the builder class that all of them share.

A benchmark is one file with one class: it states its facts, and `entries` reads its authors' files. Everything else
(reading and checking images, shards, skipping what is broken) is here.
"""

import hashlib
import io
import json
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import datasets
from datasets.exceptions import DatasetGenerationError
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

Entry = TypeVar("Entry")
Made = TypeVar("Made")
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

    def __post_init__(self) -> None:
        """Raises: DataError for text that no file can hold, such as half of a surrogate pair, which JSON can spell."""
        names = (source[0] if isinstance(source, tuple) else source.name for source in (self.before, self.after))
        try:
            "".join((self.pair_id, self.kind, *names, *self.captions)).encode()
        except UnicodeEncodeError as error:
            raise DataError(f"pair {self.pair_id!r}: a text that is no Unicode ({error})") from error


@dataclass(frozen=True)
class Fault:
    """Stands where the annotations should have given a pair."""

    error: DataError
    pair_id: str = ""  # where it can be told


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


def fingerprint(folder: Path) -> str:
    """Of the names, sizes and times of all files in a data folder: another one after an edit. Nothing is opened."""
    hashed, seen = hashlib.sha256(), set()
    waiting = [os.fspath(folder)]
    while waiting:
        place = waiting.pop()
        known = os.stat(place)
        if (known.st_dev, known.st_ino) in seen:  # links may lead in a circle
            continue
        seen.add((known.st_dev, known.st_ino))
        lines = [place[len(os.fspath(folder)) :]]
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith("."):  # `.fetching`, and what desktops leave
                    continue
                if entry.is_dir():
                    waiting.append(entry.path)
                else:
                    facts = entry.stat(follow_symlinks=entry.is_file())  # a link to nothing has its own
                    lines.append(f"{entry.name}\0{facts.st_size}\0{facts.st_mtime_ns}")
        waiting.sort()
        hashed.update("\n".join(sorted(lines)).encode(errors="surrogateescape"))
    return hashed.hexdigest()


def read_json(path: Path) -> Any:
    """Raises: DataError for a file that is missing or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{str(path)!r} is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{str(path)!r} cannot be read as JSON ({error})") from error


def read_each(entries: Iterable[tuple[str, Entry] | Fault], read: Callable[[Entry], Made]) -> Iterator[Made | Fault]:
    """What `read` makes of each entry, and a Fault that names the place for each entry that is broken.

    Args:
        entries: (place, entry), the place for messages; faults are passed on.
    """
    for entry in entries:
        if isinstance(entry, Fault):
            yield entry
            continue
        try:
            made = read(entry[1])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            made = Fault(DataError(f"{entry[0]}: {fault_text(error)}"))
        yield made


def fault_text(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no field {error}"
    return f"a field has a wrong type ({error})" if isinstance(error, (TypeError, AttributeError)) else str(error)


def by_split(
    entries: Iterable[tuple[str, Any] | Fault], names: dict[str, str]
) -> dict[str, list[tuple[str, Any] | Fault]]:
    """Our name of a split -> its entries, by their field `split`. Faults, whose split nobody knows, go to the first.

    Args:
        names: the authors' name of a split -> ours.

    Raises: DataError where there are faults and nothing else.
    """
    parts: dict[str, list[tuple[str, Any] | Fault]] = {ours: [] for ours in names.values()}
    faults: list[Fault] = []
    for entry in entries:
        if isinstance(entry, Fault):
            faults.append(entry)
            continue
        place, fields = entry
        split = fields.get("split") if isinstance(fields, dict) else None
        if isinstance(split, str) and split in names:
            parts[names[split]].append(entry)
        else:
            faults.append(Fault(DataError(f"{place}: split={split!r}, which should be one of {', '.join(names)}")))
    found = {split: part for split, part in parts.items() if part}
    if faults and not found:
        raise faults[0].error
    for split in list(found)[:1]:
        found[split] = faults + found[split]
    return found


def numbered_lines(path: Path) -> Iterator[tuple[str, tuple[int, bytes]]]:
    """(place, (number, line)) of all lines that are not blank, one at a time: memory does not grow with the file."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"{str(path)!r}, line {number}", (number, line)


def json_object(line: bytes) -> dict[str, Any]:
    """Raises: DataError."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"no JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError("no JSON object")
    return content


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
        "provenance": json.dumps(provenance, sort_keys=True) if provenance else "",
    }


def check_captions(pair: RawPair) -> None:
    """Raises: DataError that names the pair, if it has no caption or one without text."""
    if not pair.captions or not all(caption.strip() for caption in pair.captions):
        raise DataError(f"pair {pair.pair_id!r} has no caption, or one without text: {pair.captions}")


def is_blank(entry: RawPair | Fault) -> bool:
    """Whether a pair has captions, and none of them a text."""
    return isinstance(entry, RawPair) and bool(entry.captions) and not any(map(str.strip, entry.captions))


def read_row(pair: RawPair) -> dict[str, Any]:
    """Raises: DataError that names the pair and the image."""
    try:
        images = read_image(pair.before), read_image(pair.after)
    except DataError as error:
        raise DataError(f"pair {pair.pair_id!r}: {error}") from error
    return pair_row(pair.pair_id, *images, pair.captions, pair.kind, pair.provenance)


class PairBuilder(datasets.GeneratorBasedBuilder):
    """A `datasets` builder of FEATURES. A benchmark adds its facts, `raw_splits` and `entries`.

    Args:
        root: folder with the raw files; by default the config's `data_dir`, else `data/<name>` in the current folder.
        skip_log: with a file name, broken pairs and entries of the annotations are left out and written there, one
            JSON line each; without, the first one ends the preparation.
    """

    DESCRIPTION = ""
    LICENSE = ""  # as the authors state it
    HOMEPAGE = ""
    CITATION = ""  # BibTeX
    MIRRORS: tuple[Mirror, ...] = ()  # tried in turn by `fetch`
    BY_HAND = ""  # which file from which page goes where
    EXPECTED: dict[str, dict[str, int]] = {}  # config name -> split -> pairs
    # True for a set that its papers score with the blank references that it was released with. They stay, except in
    # train, where pairs without any text are left out: a model would learn to say nothing.
    BLANK_CAPTIONS = False

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
    def entries(self, split: str) -> Iterator[RawPair | Fault]:
        """The pairs of a split in the annotations' order (see `read_each`). Image files are named, not opened.

        Raises: DataError where a whole file is missing or broken.
        """

    def unique_entries(self, split: str) -> Iterator[RawPair | Fault]:
        """With a Fault in place of a pair whose id another has."""
        seen: set[int] = set()  # hashes, not ids: about 4 MiB for 60,000 of them
        for entry in self.entries(split):
            if isinstance(entry, RawPair) and hash(entry.pair_id) in seen:
                text = f"pair {entry.pair_id!r} stands in split {split!r} twice, perhaps in files of two releases"
                entry = Fault(DataError(text), entry.pair_id)
            elif isinstance(entry, RawPair):
                seen.add(hash(entry.pair_id))
            yield entry

    def raw_pairs(self, split: str) -> Iterator[RawPair]:
        """The pairs of a split. Raises: DataError at the first that is broken."""
        for entry in self.unique_entries(split):
            if isinstance(entry, Fault):
                raise entry.error
            yield entry

    def count_pairs(self, split: str) -> int:
        """Those that are broken too."""
        return sum(1 for _ in self.entries(split))

    def notes(self) -> list[str]:
        """Lines that `prepare` should tell about what was done to the data."""
        if not self.BLANK_CAPTIONS or "train" not in self.raw_splits():
            return []
        blank = sum(map(is_blank, self.unique_entries("train")))
        return [f"train pairs left out because no caption of theirs has text: {blank}"] if blank else []

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
        if self.skip_log:
            self.skip_log.unlink(missing_ok=True)
        generators = []
        for split in self.raw_splits():
            total = self.count_pairs(split)
            shards = [(start, min(start + SHARD_PAIRS, total)) for start in range(0, total, SHARD_PAIRS)]
            generators.append(datasets.SplitGenerator(name=split, gen_kwargs={"split": split, "shards": shards}))
        return generators

    def _generate_examples(self, split: str, shards: list[tuple[int, int]]) -> Iterator[tuple[int, dict[str, Any]]]:
        entries, position = self.unique_entries(split), 0
        for start, stop in shards:  # ascending
            part = islice(entries, start - position, stop - position)
            position = stop
            for index, entry in enumerate(part, start=start):
                if split == "train" and self.BLANK_CAPTIONS and is_blank(entry):
                    continue
                try:
                    yield index, self._row(entry)
                except DataError as error:
                    if self.skip_log is None:
                        raise
                    self._skip(split, entry.pair_id, error)

    def _download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        """A split without a pair, which `datasets` would write and then not read, is none."""
        super()._download_and_prepare(*args, **kwargs)
        empty = [split for split, info in self.info.splits.items() if not info.num_examples]
        if empty and (self.skip_log is None or len(empty) == len(self.info.splits)):
            why = f": all were left out, see {str(self.skip_log)!r}" if self.skip_log else ""
            raise DataError(f"{self.dataset_name}: split {empty[0]!r} has no pair{why}")
        for split in empty:
            del self.info.splits[split]

    def _prepare_split_single(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            yield from super()._prepare_split_single(*args, **kwargs)
        except DatasetGenerationError as error:  # `datasets` wraps whatever a builder raises
            if isinstance(error.__cause__, DataError):
                raise error.__cause__ from None  # here, because a cause does not travel from one process to another
            raise

    def _row(self, entry: RawPair | Fault) -> dict[str, Any]:
        if isinstance(entry, Fault):
            raise entry.error
        row = read_row(entry)
        if not self.BLANK_CAPTIONS:
            check_captions(entry)
        return row

    def _skip(self, split: str, pair_id: str, error: DataError) -> None:
        line = json.dumps({"split": split, "pair_id": pair_id, "reason": str(error)})
        with self.skip_log.open("a", encoding="utf-8") as file:  # one short append: several processes may do it
            file.write(line + "\n")
