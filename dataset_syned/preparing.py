"""From a benchmark's name to its rows: its builder, and the splits prepared in the cache of `datasets`."""

import hashlib
import json
import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets
from datasets import DownloadMode
from filelock import FileLock, Timeout

from .benchmarks import BENCHMARKS
from .pair_builder import RAW_FILES, CacheError, PairBuilder
from .pairs import DataError

logger = logging.getLogger(__name__)


def benchmark_builder(
    name: str, config: str | None = None, root: Path | None = None, skip_log: Path | None = None, **options: Any
) -> PairBuilder:
    """Return the builder of a benchmark.

    `dataset_name` and `hash` put its files where `load_dataset(name)` looks for prepared data sets; each config has
    its own hash, because the cache refuses to choose between two configs of one hash.

    Args:
        config: name of one of its configs; the default one if None.
        root: folder of the raw files from which the data set is prepared. Unlike the option `data_dir` it does not
            make another data set of the same benchmark, unless it contains anyone's own pairs.
        skip_log: see `PairBuilder`.
        options: `data_dir`, and the benchmark's own, e.g. `seed` of `toy`.

    Raises: ValueError for an unknown benchmark, config or option.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}, use one of: {', '.join(BENCHMARKS)}")
    builder = BENCHMARKS[name]
    config = config or builder.DEFAULT_CONFIG_NAME
    configs = [entry.name for entry in builder.BUILDER_CONFIGS]
    if config not in configs:
        raise ValueError(f"benchmark {name!r} has no config {config!r}, it has: {', '.join(configs)}")
    allowed = set(builder.BUILDER_CONFIG_CLASS.__dataclass_fields__) - {"name", "version", "data_files", "description"}
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise ValueError(f"benchmark {name!r} has no option {unknown[0]!r}, it has: {', '.join(sorted(allowed))}")
    if builder.OWN_PAIRS:
        options["data_dir"], root = options.get("data_dir") or root or builder.default_folder(name), None
    if options.get("data_dir") is not None:  # absolute, because it becomes part of the data set's name in the cache
        options["data_dir"] = os.path.abspath(os.path.expanduser(str(options["data_dir"])))
    identity = f"{builder.VERSION}-{config}"
    return builder(dataset_name=name, config_name=config, hash=identity, root=root, skip_log=skip_log, **options)


def prepare(builder: PairBuilder, num_proc: int | None = None) -> datasets.DatasetDict:
    """Return all splits; write them into the cache of `datasets` unless it has them from the same raw files.

    If there are no raw files (any more), the prepared splits are returned as they are.

    Raises: DataError that names the first broken pair, or CacheError if e.g. the disk is full; the cache is left as
        it was.
    """
    remove_leftovers(Path(builder.cache_dir).parents[2])
    earlier = prepared_from(builder)
    changed = builder.root.is_dir() and builder.raw_fingerprint() != earlier.get("fingerprint")
    mode = DownloadMode.REUSE_CACHE_IF_EXISTS if changed else DownloadMode.REUSE_DATASET_IF_EXISTS
    if changed:
        builder.info.splits = None  # they describe the previous rows
    try:
        # no checks: they would compare the new splits with the previous ones
        builder.download_and_prepare(download_mode=mode, verification_mode="no_checks", num_proc=num_proc)
    except CacheError:
        raise
    except OSError as error:
        raise builder.cache_error(error) from error
    except DataError as error:
        if not earlier:
            raise
        raise DataError(
            f"{error} (the raw files in {str(builder.root)!r} have changed since they were prepared; to continue with "
            "what was prepared, move that folder away)"
        ) from error
    default = benchmark_builder(builder.dataset_name).cache_dir
    if os.path.isdir(default):
        os.utime(default)  # `load_dataset(name)` takes the newest config of the cache: the default one
    return builder.as_dataset()


def remove_leftovers(root: Path) -> None:
    """Remove what killed preparations of a benchmark left, whatever their options.

    `load_dataset(name)` takes the newest folder of the cache, also an unfinished one, and fails then.

    Args:
        root: folder of the benchmark in the cache.
    """
    for folder in root.glob("*/*/*.incomplete"):
        lock = FileLock(f"{str(folder).removesuffix('.incomplete')}_builder.lock")  # that of `datasets`
        with suppress(Timeout), lock.acquire(timeout=0):  # which fails while another process writes there
            shutil.rmtree(folder, ignore_errors=True)


def prepared_from(builder: PairBuilder) -> dict[str, str]:
    """Return `folder` and `fingerprint` of the raw files that the prepared rows were made from; {} if unknown."""
    try:
        content = json.loads(Path(builder.cache_dir, RAW_FILES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def load_benchmark(name: str, split: str, num_proc: int | None = None, **options: Any) -> datasets.Dataset:
    """Return the rows of one split, prepared on first use and whenever the raw files have changed.

    Args:
        options: `config`, `data_dir` (folder of the raw files) and the benchmark's own, e.g. `seed` of `toy`.
    """
    builder = benchmark_builder(name, **options)
    splits = prepare(builder, num_proc)
    logger.info("%s: rows prepared from %r", name, prepared_from(builder).get("folder", ""))
    if split not in splits:
        raise ValueError(f"benchmark {name!r} has no split {split!r}, it has: {', '.join(splits)}")
    return splits[split]


def rows_fingerprint(rows: datasets.Dataset) -> str:
    """Return a hash of all rows' pair_id, captions and image files, wherever the cache lies.

    Images are read, a few at a time, but not decoded.
    """
    columns = ["pair_id", "captions", "before", "after"]
    hashed = hashlib.sha256()
    for table in rows.select_columns(columns).with_format("arrow").iter(batch_size=100):
        for row in table.to_pylist():
            images = row["before"]["bytes"], row["after"]["bytes"]
            texts = json.dumps([row["pair_id"], row["captions"], *map(len, images)])
            for part in (texts.encode(), *images):
                hashed.update(part)
    return hashed.hexdigest()


def undecoded(rows: datasets.Dataset) -> datasets.Dataset:
    """Return the same rows with images as {"path": name, "bytes": file}, to be decoded no larger than needed."""
    for side in ("before", "after"):
        rows = rows.cast_column(side, datasets.Image(decode=False))
    return rows


def evenly_spaced(rows: datasets.Dataset, count: int) -> datasets.Dataset:
    """Return `count` rows, evenly spaced over the split, or all if there are fewer."""
    return rows.select([i * len(rows) // count for i in range(count)]) if count < len(rows) else rows
