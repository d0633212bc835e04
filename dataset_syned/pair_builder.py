"""The builder class that all benchmarks share.

A benchmark is one file with one class: it states its facts, and `entries` reads its authors' files. Everything else
(reading and checking images, shards, skipping broken pairs) is here. How to add one: docs/add_a_benchmark.md.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import threading
import time
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import datasets
from datasets.exceptions import DatasetGenerationError
from multiprocess.util import register_after_fork  # the library by which `datasets` starts processes

from common_idc.atomic_files import write_json

from .annotations import Located
from .image_sizes import at_most, check_max_side
from .pairs import FEATURES, BrokenEntry, DataError, RawPair, check_captions, is_blank, read_row, require_file

SHARD_PAIRS = 500
RAW_FILES = "raw_files.json"  # next to the prepared rows: which raw files they were made from


class CacheError(DataError):
    """A cache of `datasets` that cannot be written; the message names the folder and the reason."""


@dataclass
class PairConfig(datasets.BuilderConfig):
    """The options that all benchmarks have.

    Args:
        max_side: larger images are stored with a longer side of this many pixels; None for the files as they are.
    """

    max_side: int | None = None


@dataclass(frozen=True)
class Mirror:
    """A copy of a benchmark's raw files, or of some of them, on the Hub.

    Args:
        revision: a commit, because repositories change; a branch stays at its commit of the first fetch.
        patterns: which files of the repository (`allow_patterns` of `snapshot_download`); archives among them are
            unpacked.
    """

    repo_id: str
    revision: str
    patterns: tuple[str, ...]
    repo_type: Literal["dataset", "model"] = "dataset"


def fingerprint(folder: Path) -> str:
    """Return a hash of the names, sizes and times of all files in a data folder; no file is opened.

    Both times: copying and unpacking can give a new file the old time of modification, but not that of its change.
    """
    hashed, seen = hashlib.sha256(), set()
    folders = [os.fspath(folder)]
    while folders:
        path = folders.pop()
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in seen:  # links may lead in a circle
            continue
        seen.add((status.st_dev, status.st_ino))
        lines = [path[len(os.fspath(folder)) :]]
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):  # `.fetching`, and files of desktop programs
                    continue
                if entry.is_dir():
                    folders.append(entry.path)
                else:
                    status = entry.stat(follow_symlinks=entry.is_file())  # a link to nothing has its own
                    lines.append(f"{entry.name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}")
        folders.sort()
        hashed.update("\n".join(sorted(lines)).encode(errors="surrogateescape"))
    return hashed.hexdigest()


@dataclass(frozen=True)
class ParentWatch:
    """Ends the processes that `parent` forks while this object exists, as soon as `parent` has been killed.

    Otherwise the workers of `datasets` would go on writing next to those of the next preparation, and its queue of
    results would wait for ever, with the terminal or pipe of the killed command open.
    """

    parent: int

    def start(self) -> None:
        """Watch from a thread of a process that `parent` has just forked."""
        if os.getppid() == self.parent:  # not a child of such a process
            threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        """Exit, without writing what is still in buffers, once the parent is another process."""
        while os.getppid() == self.parent:
            time.sleep(0.5)
        os._exit(1)


class PairBuilder(datasets.GeneratorBasedBuilder):
    """A `datasets` builder of FEATURES. A benchmark adds its facts, `entries`, and `listed` or `raw_splits`.

    Args:
        root: folder with the raw files; by default the config's `data_dir`, else `data/<name>` in the current folder.
        skip_log: with a file name, broken pairs and entries of the annotations are left out and written there, one
            JSON line each; without, the first one ends the preparation.
    """

    VERSION = datasets.Version("2.0.0")  # of the rows: a new one wherever they change, so that older ones are not read
    BUILDER_CONFIG_CLASS = PairConfig
    BUILDER_CONFIGS = [PairConfig(name="default")]
    DEFAULT_CONFIG_NAME = "default"
    DESCRIPTION = ""
    LICENSE = ""  # as the authors state it
    HOMEPAGE = ""
    CITATION = ""  # BibTeX
    MIRRORS: tuple[Mirror, ...] = ()  # tried in turn by `fetch`
    BY_HAND = ""  # which file from which page goes where
    SUBFOLDER = ""  # that the authors' archive or repository adds to the data folder
    EXPECTED: dict[str, dict[str, int]] = {}  # config name -> split -> pairs
    OWN_PAIRS = False  # True if each data folder is a data set of its own, not a copy of published files
    # True for a benchmark that papers score with the blank references of its release. They stay, except in train,
    # where pairs without any text are left out: a model would learn to say nothing.
    BLANK_CAPTIONS = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give each config the version of its builder, so that a benchmark states it once."""
        super().__init_subclass__(**kwargs)
        cls.BUILDER_CONFIGS = [dataclasses.replace(config, version=cls.VERSION) for config in cls.BUILDER_CONFIGS]

    def __init__(self, *args: Any, root: Path | None = None, skip_log: Path | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.root = Path(root or self.config.data_dir or Path("data") / self.dataset_name)
        self.skip_log = skip_log

    @classmethod
    def default_folder(cls, name: str) -> Path | None:
        """Return the folder of the raw files where none is named."""
        return Path("data") / name

    @property
    def folder(self) -> Path:
        """Return the folder of the raw files: `root`, or SUBFOLDER in it where that exists."""
        inner = self.root / self.SUBFOLDER
        return inner if inner.is_dir() else self.root

    def listed(self) -> dict[str, list[Located | BrokenEntry]]:
        """Return the annotations of each split, for a benchmark that has all splits in one file (see `by_split`)."""
        raise NotImplementedError(f"{type(self).__name__} needs a method `listed` or `raw_splits`")

    def raw_splits(self) -> list[str]:
        """Return the names of the splits whose annotations are in `root`, in the order train, validation, test.

        Raises: DataError, with BY_HAND, if there are none.
        """
        splits = list(self.listed())
        if not splits:
            raise self.missing("an annotation of any split")
        return splits

    @abstractmethod
    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        """Yield the pairs of a split in the annotations' order (see `read_each`). Image files are named, not opened.

        Raises: DataError if a whole file is missing or broken.
        """

    def unique_entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        """Yield `entries(split)`, with a BrokenEntry for each repeated pair_id."""
        seen: set[int] = set()  # hashes, not ids: about 4 MiB for 60,000 of them
        for entry in self.entries(split):
            if isinstance(entry, RawPair) and hash(entry.pair_id) in seen:
                text = f"duplicate pair_id {entry.pair_id!r} in split {split!r}, perhaps from files of two releases"
                entry = BrokenEntry(DataError(text), entry.pair_id)
            elif isinstance(entry, RawPair):
                seen.add(hash(entry.pair_id))
            yield entry

    def raw_pairs(self, split: str) -> Iterator[RawPair]:
        """Yield the pairs of a split. Raises: DataError at the first broken one."""
        for entry in self.unique_entries(split):
            if isinstance(entry, BrokenEntry):
                raise entry.error
            yield entry

    def count_pairs(self, split: str) -> int:
        """Count the entries of a split, broken ones included."""
        return sum(1 for _ in self.entries(split))

    def raw_fingerprint(self) -> str:
        """Return a hash of the names, sizes and times of the raw files."""
        return fingerprint(self.root)

    def notes(self) -> list[str]:
        """Return lines that say what was done to the data, printed by the command `prepare`."""
        if not self.BLANK_CAPTIONS or "train" not in self.raw_splits():
            return []
        blank = sum(map(is_blank, self.unique_entries("train")))
        return [f"train pairs left out because no caption of theirs has text: {blank}"] if blank else []

    def require(self, name: str) -> Path:
        """Return a raw file, by its name in `folder`. Raises: DataError, with BY_HAND, if it is missing."""
        path = self.folder / name
        if not path.exists():
            raise self.missing(name)
        return require_file(path)

    def missing(self, what: str) -> DataError:
        """Return the error for missing raw files."""
        return DataError(f"{self.dataset_name}: {what} is missing in {str(self.root)!r}. {self.BY_HAND}".strip())

    def _info(self) -> datasets.DatasetInfo:
        max_side = self.config.max_side
        check_max_side(self.dataset_name, max_side)
        return datasets.DatasetInfo(
            description=self.DESCRIPTION + (f" Images have at most {max_side} pixels per side." if max_side else ""),
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
        max_side = self.config.max_side
        for index, row in self.numbered_rows(split, shards):
            smaller = {side: at_most(max_side, row[side]) for side in ("before", "after")} if max_side else {}
            yield index, row | smaller

    def numbered_rows(self, split: str, shards: list[tuple[int, int]]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the rows of some entries of a split, with their indices.

        Args:
            shards: first index of each part and the one after its last, ascending.
        """
        entries, position = self.unique_entries(split), 0
        for start, stop in shards:
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
        """Write all splits, and which raw files they were made from, into a folder that `datasets` then renames.

        A split without a pair is left out: `datasets` would write it but could not read it.
        """
        shutil.rmtree(self._output_dir)  # what a killed process has left there
        os.mkdir(self._output_dir)
        raw_files = self.raw_fingerprint() if self.root.is_dir() else None
        watch = ParentWatch(os.getpid())
        register_after_fork(watch, ParentWatch.start)  # until `watch` is gone, which is when this returns
        super()._download_and_prepare(*args, **kwargs)
        if raw_files:
            folder = os.path.abspath(self.root)
            write_json(Path(self._output_dir, RAW_FILES), {"folder": folder, "fingerprint": raw_files})
        empty = [split for split, info in self.info.splits.items() if not info.num_examples]
        if empty and (self.skip_log is None or len(empty) == len(self.info.splits)):
            why = f": all were left out, see {str(self.skip_log)!r}" if self.skip_log else ""
            raise DataError(f"{self.dataset_name}: split {empty[0]!r} has no pair{why}")
        for split in empty:
            del self.info.splits[split]

    def _prepare_split_single(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            yield from super()._prepare_split_single(*args, **kwargs)
        except DatasetGenerationError as error:  # `datasets` wraps whatever a builder or a writer raises
            # here, because a process does not send causes to another
            if isinstance(error.__cause__, DataError):
                raise error.__cause__ from None
            if isinstance(error.__cause__, OSError):
                raise self.cache_error(error.__cause__) from None
            raise

    def cache_error(self, error: OSError) -> CacheError:
        """Return the error for a cache that cannot be written, e.g. because the disk is full."""
        place = "" if error.filename else f" into {self.cache_dir!r}"
        return CacheError(f"{self.dataset_name}: the rows cannot be written{place} ({error})")

    def _row(self, entry: RawPair | BrokenEntry) -> dict[str, Any]:
        """Return the row of an entry. Raises: DataError if it is broken."""
        if isinstance(entry, BrokenEntry):
            raise entry.error
        row = read_row(entry)
        if not self.BLANK_CAPTIONS:
            check_captions(entry)
        return row

    def _skip(self, split: str, pair_id: str, error: DataError) -> None:
        """Add a line to the skip log."""
        line = json.dumps({"split": split, "pair_id": pair_id, "reason": str(error)})
        with self.skip_log.open("a", encoding="utf-8") as file:  # one short append: several processes may do it
            file.write(line + "\n")
