"""Sentences about a list of pairs of any size, by one process or by several on one or more machines.

The output is written in shards of consecutive pairs, each whole or not at all, in the folder `.OUT.parts` next to it;
process p of P writes every P-th shard. At the end they become one file. After an interruption, a kill included, the
same command continues with the first shard that is missing, whatever the number of processes.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common_idc.atomic_files import remove_leftovers, write_atomically, write_json, write_text
from common_idc.folder_lock import folder_lock
from modeling_blip2idc.image_fusion import ImageError

from .pair_lists import Entry, PairList, PairListError

SHARD = 64  # pairs: at most so many are captioned again after a kill
GROUP = 128  # shards in a row group of a Parquet file
SETTINGS = "settings.json"
FREE_SPACE = 2**16  # bytes that must fit on the disk of the output before anything is captioned
FORMATS = (".jsonl", ".parquet")
FIELDS = ("pair_id", "before", "after", "prediction", "error")

Record = dict[str, Any]


@dataclass(frozen=True)
class Captioner:
    """What turns pairs into sentences.

    Args:
        load_pair: (before, after, name of the pair) -> what `caption` takes. Raises: ImageError.
        caption: loaded pairs -> a sentence for each, or the error that is why it has none.
        settings: everything that the sentences depend on except the images, JSON-able.
    """

    load_pair: Callable[[Any, Any, str], Any]
    caption: Callable[[list[Any]], list[str | Exception]]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Workers:
    """The processes that share the work.

    Args:
        index, count: of this process, and of all.
        wait: returns when all processes have called it.
    """

    index: int = 0
    count: int = 1
    wait: Callable[[], None] = lambda: None


@dataclass
class Counts:
    """How many pairs an output has, how many of them have no sentence, and how many an empty one."""

    pairs: int = 0
    failed: int = 0
    empty: int = 0

    def add(self, record: Record) -> None:
        """Count a record."""
        self.pairs += 1
        self.failed += record["prediction"] is None
        self.empty += record["prediction"] == ""


def get_workers() -> Workers:
    """Return the processes that Accelerate's launcher has started together; without it, this process alone."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return Workers()
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.accelerator.is_available())  # else each process without a GPU counts as alone
    return Workers(state.process_index, state.num_processes, state.wait_for_everyone)


def caption_records(pairs: PairList, captioner: Captioner, batch_size: int) -> Iterator[Record]:
    """Yield a record for each pair, in order: FIELDS, with `error` only where there is no sentence."""
    for _, entries in groupby(pairs.entries(), key=lambda entry: entry.number // batch_size):
        yield from _caption_batch(list(entries), captioner)


def caption_into(
    output: Path, pairs: PairList, captioner: Captioner, batch_size: int, workers: Workers | None = None
) -> Counts | None:
    """Write the records of all pairs into a file; return their counts, None in all processes but the first.

    The shards are kept if a pair has no sentence, so that the next call captions only the shards of such pairs again.

    Args:
        output: .jsonl or .parquet.

    Raises: PairListError if no pair has a sentence (nothing is written then), if there are shards of other settings,
        which are never mixed, or if a file cannot be written; OSError if another process writes this output.
    """
    workers = workers or Workers()
    lock = folder_lock(output, output.with_name(f".{output.name}.lock"))
    with nullcontext() if workers.index else lock, _unwritten_named(output):
        if not workers.index:
            _begin(output, pairs, captioner.settings, batch_size)
        workers.wait()
        shards = Shards.of(output, pairs.count)
        _caption_shards(shards, pairs, captioner, batch_size, workers)
        workers.wait()
        return None if workers.index else _finish(output, shards)


@dataclass(frozen=True)
class Shards:
    """The files of an output that is not complete yet.

    Args:
        size: pairs of a shard; the last one may have fewer.
        pairs: of all shards.
    """

    folder: Path
    size: int
    pairs: int

    @classmethod
    def of(cls, output: Path, pairs: int) -> "Shards":
        """Return the shards of an output that `_begin` has begun."""
        folder = parts_folder(output)
        return cls(folder, json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["shard"], pairs)

    @property
    def count(self) -> int:
        """Return the number of shards."""
        return -(-self.pairs // self.size)

    def file(self, shard: int) -> Path:
        """Return the path of a shard."""
        return self.folder / f"{shard:08d}.jsonl"

    def read(self, shard: int) -> list[Record]:
        """Return the records of a shard, each with its `state`; [] if it is missing or damaged."""
        try:
            return [json.loads(line) for line in self.file(shard).read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError):
            return []

    def write(self, shard: int, records: list[Record]) -> None:
        """Write a shard, whole or not at all."""
        write_text(self.file(shard), "".join(json.dumps(record) + "\n" for record in records), among_many=True)


def parts_folder(output: Path) -> Path:
    """Return the folder of the shards of an output."""
    return output.with_name(f".{output.name}.parts")


def _begin(output: Path, pairs: PairList, settings: dict[str, Any], batch_size: int) -> None:
    """Check that existing shards are of the same settings, or write these settings."""
    folder = parts_folder(output)
    remove_leftovers(folder)
    settings = json.loads(json.dumps({"list of pairs": [str(pairs.path.resolve()), pairs.state], **settings}))
    shards = list(folder.glob("[0-9]*.jsonl"))
    if shards:
        found = _parsed(folder / SETTINGS)
        changed = [name for name, value in settings.items() if found.get(name) != value]
        if changed:
            raise PairListError(
                f"'{folder}' contains sentences of an interrupted run with another {', '.join(changed)}; repeat that "
                "command, name another --output, or delete this folder."
            )
        done = min(len(shards) * found["shard"], pairs.count)
        print(f"continuing after {done} of {pairs.count} pairs", file=sys.stderr)
    else:
        write_json(folder / SETTINGS, {**settings, "shard": max(SHARD, batch_size)})


def _parsed(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _caption_shards(shards: Shards, pairs: PairList, captioner: Captioner, batch_size: int, workers: Workers) -> None:
    """Caption the shards of this process, except those whose images are unchanged and whose pairs have sentences."""

    def is_own(number: int) -> bool:
        return number // shards.size % workers.count == workers.index

    name = f"process {workers.index + 1} of {workers.count}" if workers.count > 1 else None
    # disable=None: a bar on a terminal, none in a log. Closed also by errors, so that these get their own line.
    with tqdm(total=-(-pairs.count // workers.count), desc=name, unit="pair", disable=None, file=sys.stderr) as bar:
        for shard, group in groupby(pairs.entries(is_own), key=lambda entry: entry.number // shards.size):
            entries = list(group)
            states = [entry.state() for entry in entries]
            done = shards.read(shard)
            if [record["state"] for record in done] != states or any(record["prediction"] is None for record in done):
                records: list[Record] = []
                for start in range(0, len(entries), batch_size):  # the same batches when the command continues
                    records += _caption_batch(entries[start : start + batch_size], captioner)
                    bar.update(len(records) - start)
                shards.write(shard, [{"state": s, **record} for s, record in zip(states, records, strict=True)])
            else:
                bar.update(len(entries))


def _caption_batch(entries: list[Entry], captioner: Captioner) -> list[Record]:
    """Return the records of a batch."""
    loaded = [_loaded(entry, captioner) for entry in entries]
    pairs = [pair for pair in loaded if not isinstance(pair, Exception)]
    sentences = iter(captioner.caption(pairs) if pairs else [])
    answers = (pair if isinstance(pair, Exception) else next(sentences) for pair in loaded)
    return [_record(entry, answer) for entry, answer in zip(entries, answers, strict=True)]


def _loaded(entry: Entry, captioner: Captioner) -> Any:
    """Return the loaded pair of an entry, or the error that is why it has none."""
    if entry.error is not None:
        return PairListError(entry.error)
    try:
        return captioner.load_pair(*entry.images, f"pair {entry.pair_id!r}")
    except ImageError as error:
        return error


def _record(entry: Entry, answer: str | Exception) -> Record:
    """Return the record of a pair; say on standard error if it has no sentence."""
    record = {"pair_id": entry.pair_id, "before": entry.before, "after": entry.after}
    if isinstance(answer, str):
        return record | {"prediction": answer}
    reason = " ".join(str(answer).split())
    tqdm.write(f"skipped: {entry.where}: {reason}", file=sys.stderr)
    return record | {"prediction": None, "error": reason}


def _finish(output: Path, shards: Shards) -> Counts:
    """Join the shards to the output, each read once, and remove them if every pair has its sentence."""
    counts = Counts()
    write = _write_parquet if output.suffix.lower() == ".parquet" else _write_lines
    write_atomically(output, lambda file: write(file, _counted(shards, counts, output)))
    if not counts.failed:
        shutil.rmtree(shards.folder)
    return counts


def _counted(shards: Shards, counts: Counts, output: Path) -> Iterator[list[Record]]:
    """Yield the records of each shard without their state, and count them.

    Raises: PairListError at the end if a shard is missing, or if no pair has a sentence, whose shards are removed.
    """
    missing = 0
    for shard in range(shards.count):
        records = shards.read(shard)
        missing += not records
        for record in records:
            counts.add(record)
        yield [{name: record[name] for name in FIELDS if name in record} for record in records]
    if missing:
        raise PairListError(f"{missing} of {shards.count} shards of {output} are missing; run the same command again.")
    if counts.failed == counts.pairs:
        shutil.rmtree(shards.folder)
        raise PairListError("no pair has a sentence, and nothing was written; correct what is named above.")


def _write_lines(file: Path, shards: Iterator[list[Record]]) -> None:
    with file.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as lines:
        for records in shards:
            lines.writelines(record_line(record) for record in records)


def record_line(record: Record, ascii_only: bool = False) -> str:
    """Return a record as a line of JSON."""
    return json.dumps(record, ensure_ascii=ascii_only) + "\n"


def _write_parquet(file: Path, shards: Iterator[list[Record]]) -> None:
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([(name, pyarrow.string()) for name in FIELDS])
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for group in iter(lambda: list(chain.from_iterable(islice(shards, GROUP))), []):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))


def check_output(path: Path) -> None:
    """Raise PairListError if sentences could not be written to `path`, before any time is spent on them."""
    if path.exists() and not path.is_file():
        raise PairListError(f"--output {path} is not a regular file; leave --output out to print the sentences.")
    if path.suffix.lower() not in FORMATS:
        raise PairListError(f"--output {path} must end in {' or '.join(FORMATS)}; rename it.")
    if path.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise PairListError(f'--output {path} needs pyarrow: pip install "blip2idc[data]"')
    try:
        with tempfile.TemporaryFile(dir=path.parent) as file:  # without a name: nothing is left, even after a kill
            file.write(b" " * FREE_SPACE)
    except OSError as error:
        raise PairListError(f"--output {path} cannot be written ({error.strerror}); name another file.") from error


@contextmanager
def _unwritten_named(output: Path) -> Iterator[None]:
    """Say what to do if a file cannot be written, e.g. because the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # of the lock
            raise
        raise PairListError(
            f"'{error.filename or output}' cannot be written ({error.strerror}); correct this and run the same "
            "command again to continue."
        ) from error
