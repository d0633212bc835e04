"""Pairs of a benchmark with their canvases in one memory-mapped file, so that each image is decoded once."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from common_idc.atomic_files import atomic_folder
from dataset_syned import load_benchmark, undecoded
from modeling_blip2idc import fuse

CANVASES, ROWS = "canvases.npy", "rows.jsonl"
KEPT = ("pair_id", "captions", "change_type")


class CanvasPairs:
    """Pairs of one split.

    Attributes:
        canvases: uint8 [pairs, height, width, 3], of which a page is read when it is needed.
        rows: `pair_id`, `captions` and `change_type` of each pair.
    """

    def __init__(self, folder: Path):
        self.canvases = np.load(folder / CANVASES, mmap_mode="r")
        self.rows = [json.loads(line) for line in (folder / ROWS).read_text(encoding="utf-8").splitlines()]

    def __len__(self) -> int:
        return len(self.rows)


def canvas_pairs(
    folder: Path, canvas: tuple[int, int], benchmark: str, split: str, options: dict[str, Any]
) -> CanvasPairs:
    """Return the pairs of a split; write their canvases into a folder on first use."""
    if not folder.is_dir():
        rows = undecoded(load_benchmark(benchmark, split, **options))
        with atomic_folder(folder) as unfinished:
            shape = (len(rows), *canvas, 3)
            canvases = np.lib.format.open_memmap(unfinished / CANVASES, mode="w+", dtype=np.uint8, shape=shape)
            with (unfinished / ROWS).open("w", encoding="utf-8") as file:
                for index, row in enumerate(rows):
                    canvases[index] = fuse(row["before"], row["after"], "vertical", canvas)
                    file.write(json.dumps({name: row[name] for name in KEPT}) + "\n")
            canvases.flush()
    return CanvasPairs(folder)
