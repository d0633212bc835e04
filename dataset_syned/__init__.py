"""Image difference captioning data: every benchmark yields the same rows (`pairs.FEATURES`)."""

from importlib import import_module
from typing import Any

HOMES = {
    "BENCHMARKS": "benchmarks",
    "FEATURES": "pairs",
    "DataError": "pairs",
    "PairBuilder": "pair_builder",
    "benchmark_builder": "preparing",
    "evenly_spaced": "preparing",
    "load_benchmark": "preparing",
    "prepare": "preparing",
    "rows_fingerprint": "preparing",
    "undecoded": "preparing",
}
__all__ = list(HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `python -m dataset_syned` can report that `datasets` is missing."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{HOMES[name]}", __name__), name)
