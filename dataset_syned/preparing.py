"""From a benchmark's name to its rows: its builder, and the splits prepared in the cache of `datasets`."""

import json
import os
from pathlib import Path
from typing import Any

import datasets
from datasets import DownloadMode

from common_idc.atomic_files import write_text

from .benchmarks import BENCHMARKS
from .pair_builder import PairBuilder, fingerprint
from .pairs import DataError


def benchmark_builder(
    name: str, config: str | None = None, root: Path | None = None, skip_log: Path | None = None, **options: Any
) -> PairBuilder:
    """Return the builder of a benchmark.

    `dataset_name` and `hash` put its files where `load_dataset(name)` looks for prepared data sets; each config has
    its own hash, because the cache refuses to choose between two configs of one hash.

    Args:
        config: name of one of its configs; the default one if None.
        root: folder of the raw files from which the data set is prepared. Unlike the option `data_dir` it does not
            make another data set of the same benchmark.
        skip_log: see `PairBuilder`.
        options: the benchmark's own, e.g. `seed` of `toy`.

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
    identity = f"{builder.VERSION}-{config}"
    return builder(dataset_name=name, config_name=config, hash=identity, root=root, skip_log=skip_log, **options)


def prepare(builder: PairBuilder, num_proc: int | None = None) -> datasets.DatasetDict:
    """Return all splits; write them into the cache of `datasets` unless it has them from the same raw files.

    If there are no raw files (any more), the prepared splits are returned as they are.

    Raises: DataError that names the first broken pair; the cache is left as it was.
    """
    current = fingerprint(builder.root) if builder.root.is_dir() else None
    record = Path(builder.cache_dir, "raw_files.json")
    prepared_from = json.loads(record.read_text(encoding="utf-8")) if record.exists() else None
    changed = current is not None and current != prepared_from
    mode = DownloadMode.REUSE_CACHE_IF_EXISTS if changed else DownloadMode.REUSE_DATASET_IF_EXISTS
    if changed:
        builder.info.splits = None  # they describe the previous rows
    try:
        # no checks: they would compare the new splits with the previous ones
        builder.download_and_prepare(download_mode=mode, verification_mode="no_checks", num_proc=num_proc)
    except DataError as error:
        if prepared_from is None:
            raise
        raise DataError(
            f"{error} (the raw files in {str(builder.root)!r} have changed since they were prepared; to continue with "
            "what was prepared, move that folder away)"
        ) from error
    if changed:
        write_text(record, json.dumps(current))
    default = benchmark_builder(builder.dataset_name).cache_dir
    if os.path.isdir(default):
        os.utime(default)  # `load_dataset(name)` takes the newest config of the cache: the default one
    return builder.as_dataset()


def load_benchmark(name: str, split: str, num_proc: int | None = None, **options: Any) -> datasets.Dataset:
    """Return the rows of one split, prepared on first use and whenever the raw files have changed.

    Args:
        options: `config`, `data_dir` (folder of the raw files) and the benchmark's own, e.g. `seed` of `toy`.
    """
    builder = benchmark_builder(name, **options)
    splits = prepare(builder, num_proc)
    if split not in splits:
        raise ValueError(f"benchmark {name!r} has no split {split!r}, it has: {', '.join(splits)}")
    return splits[split]
