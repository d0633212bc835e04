"""Image difference captioning data: every benchmark gives the same rows (`pairs.FEATURES`).

Names are imported on first use, so that a command can say in one line that the package `datasets` is missing.
"""

from importlib import import_module
from typing import Any

HOMES = {
    "BENCHMARKS": "loading",
    "benchmark_builder": "loading",
    "load_benchmark": "loading",
    "prepare": "loading",
    "PairBuilder": "pair_builder",
    "CHANGE_TYPES": "pairs",
    "DataError": "pairs",
    "FEATURES": "pairs",
    "NO_CHANGE": "pairs",
}
__all__ = [*HOMES]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{HOMES[name]}", __name__), name)
