"""The table of benchmarks, and how to get their rows."""

import json
import os
from pathlib import Path
from typing import Any

import datasets
from datasets import DownloadMode

from common_idc.atomic_files import write_text

from .benchmarks.birds_to_words import BirdsToWords
from .benchmarks.clevr_change import ClevrChange
from .benchmarks.clevr_dc import ClevrDc
from .benchmarks.emu_edit import EmuEdit
from .benchmarks.folder import Folder
from .benchmarks.image_editing_request import ImageEditingRequest
from .benchmarks.instruct_pix2pix import InstructPix2Pix
from .benchmarks.levir_cc import LevirCc
from .benchmarks.magicbrush import MagicBrush
from .benchmarks.spot_the_diff import SpotTheDiff
from .benchmarks.syned import Syned
from .benchmarks.toy import Toy
from .pair_builder import PairBuilder, fingerprint
from .pairs import DataError

BENCHMARKS: dict[str, type[PairBuilder]] = {
    "syned": Syned,
    "emu_edit": EmuEdit,
    "clevr_change": ClevrChange,
    "clevr_dc": ClevrDc,
    "spot_the_diff": SpotTheDiff,
    "image_editing_request": ImageEditingRequest,
    "levir_cc": LevirCc,
    "birds_to_words": BirdsToWords,
    "instruct_pix2pix": InstructPix2Pix,
    "magicbrush": MagicBrush,
    "folder": Folder,
    "toy": Toy,
}


def benchmark_builder(
    name: str, config: str | None = None, root: Path | None = None, skip_log: Path | None = None, **options: Any
) -> PairBuilder:
    """Return the builder of a benchmark.

    `dataset_name` and `hash` put its files where `load_dataset(name)` looks for prepared data sets; a hash per config,
    because the cache refuses to choose between two configs of one hash.

    Args:
        config: name of one of its configs; the default one if None.
        root: folder of the raw files that the prepared data set is to be made from. Unlike the option `data_dir` it
            is no part of the data set's identity.
        skip_log: see `PairBuilder`.
        options: the benchmark's own, such as `toy`'s `seed`.

    Raises: ValueError for a benchmark, config or option that does not exist.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}, use one of: {', '.join(BENCHMARKS)}")
    builder = BENCHMARKS[name]
    config = config or builder.DEFAULT_CONFIG_NAME
    configs = [known.name for known in builder.BUILDER_CONFIGS]
    if config not in configs:
        raise ValueError(f"benchmark {name!r} has no config {config!r}, it has: {', '.join(configs)}")
    known = set(builder.BUILDER_CONFIG_CLASS.__dataclass_fields__) - {"name", "version", "data_files", "description"}
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f"benchmark {name!r} has no option {unknown[0]!r}, it has: {', '.join(sorted(known))}")
    identity = f"{builder.VERSION}-{config}"
    return builder(dataset_name=name, config_name=config, hash=identity, root=root, skip_log=skip_log, **options)


def prepare(builder: PairBuilder, num_proc: int | None = None) -> datasets.DatasetDict:
    """Return all splits; write them into the cache of `datasets` unless they are there and the raw files unchanged.

    Without raw files, what was prepared before is used.

    Raises: DataError that names the first broken pair; the cache is left as it was.
    """
    found = fingerprint(builder.root) if builder.root.is_dir() else None
    record = Path(builder.cache_dir, "raw_files.json")
    known = json.loads(record.read_text(encoding="utf-8")) if record.exists() else None
    changed = found is not None and found != known
    mode = DownloadMode.REUSE_CACHE_IF_EXISTS if changed else DownloadMode.REUSE_DATASET_IF_EXISTS
    if changed:
        builder.info.splits = None  # those of the rows that were there before: the new ones may be others
    try:
        # no checks: they would compare the new splits with those that were there before
        builder.download_and_prepare(download_mode=mode, verification_mode="no_checks", num_proc=num_proc)
    except DataError as error:
        if known is None:
            raise
        raise DataError(
            f"{error} (the raw files in {str(builder.root)!r} have changed since they were prepared; to go on with "
            "what was prepared, move that folder away)"
        ) from error
    if changed:
        write_text(record, json.dumps(found))
    default = benchmark_builder(builder.dataset_name).cache_dir
    if os.path.isdir(default):
        os.utime(default)  # `load_dataset(name)` takes the newest config of the cache: the default one
    return builder.as_dataset()


def load_benchmark(name: str, split: str, num_proc: int | None = None, **options: Any) -> datasets.Dataset:
    """Return the rows of one split, prepared on first use and when the raw files change, else read from the cache.

    Args:
        options: `config`, `data_dir` (folder of the raw files) and the benchmark's own, such as `toy`'s `seed`.
    """
    builder = benchmark_builder(name, **options)
    splits = prepare(builder, num_proc)
    if split not in splits:
        raise ValueError(f"benchmark {name!r} has no split {split!r}, it has: {', '.join(splits)}")
    return splits[split]
