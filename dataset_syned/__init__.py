"""Image difference captioning data: every benchmark gives the same rows (`pair_builder.FEATURES`)."""

from typing import Any

import datasets

from .benchmarks.toy import Toy
from .pair_builder import FEATURES, PairBuilder

BENCHMARKS: dict[str, type[PairBuilder]] = {
    "toy": Toy,
}


def benchmark_builder(name: str, **options: Any) -> PairBuilder:
    """The builder of a benchmark.

    `dataset_name` and `hash` put its files where `load_dataset(name)` looks for prepared data sets.

    Raises: ValueError for a benchmark or an option that does not exist.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}, use one of: {', '.join(BENCHMARKS)}")
    builder = BENCHMARKS[name]
    known = set(builder.BUILDER_CONFIG_CLASS.__dataclass_fields__) - {
        "name",
        "version",
        "data_dir",
        "data_files",
        "description",
    }
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f"benchmark {name!r} has no option {unknown[0]!r}, it has: {', '.join(sorted(known))}")
    return builder(dataset_name=name, hash=str(builder.VERSION), **options)


def load_benchmark(name: str, split: str, num_proc: int | None = None, **options: Any) -> datasets.Dataset:
    """The rows of one split, prepared on first use and read from the cache afterwards.

    Args:
        options: the benchmark's own, such as `toy`'s `seed` or `wording`.
    """
    builder = benchmark_builder(name, **options)
    builder.download_and_prepare(num_proc=num_proc)
    if split not in builder.info.splits:
        raise ValueError(f"benchmark {name!r} has no split {split!r}, it has: {', '.join(builder.info.splits)}")
    return builder.as_dataset(split=split)


__all__ = ["BENCHMARKS", "FEATURES", "PairBuilder", "benchmark_builder", "load_benchmark"]
