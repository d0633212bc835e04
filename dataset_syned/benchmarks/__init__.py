"""One file per benchmark; the names by which they are known are in `dataset_syned.BENCHMARKS`."""
