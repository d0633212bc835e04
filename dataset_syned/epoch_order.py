"""Deterministic epoch order: which pair in which step, with which caption, as a function of seed, epoch and step.

Nothing here depends on the number of processes or workers, or on earlier random numbers, so that a run can be
distributed or resumed anywhere and sees the same pairs.
"""

import random
from collections.abc import Iterator
from typing import Any, Literal

import datasets
import numpy as np

CaptionChoice = Literal["random", "shortest"]


class TrainingPairs:
    """Rows with one caption each.

    Args:
        rows: the training rows of one benchmark or more.
        caption_choice: a random caption in each epoch, or always the first of the shortest.
    """

    def __init__(self, rows: datasets.Dataset, seed: int, caption_choice: CaptionChoice = "random"):
        # No method `set_epoch`: Accelerate would call it with its own count.
        self.rows, self.seed, self.caption_choice, self.epoch = rows, seed, caption_choice, 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> dict[str, Any]:
        """Return the example of an item of `PairOrder`, or of a row number; `weight` is 0 for a padding item.

        `row` is the row's number.
        """
        copy, index = divmod(item if item >= 0 else ~item, len(self.rows))
        row = self.rows[index]
        example = {name: row[name] for name in ("pair_id", "before", "after")}
        return {**example, "row": index, "caption": self._caption(row, copy), "weight": int(item >= 0)}

    def _caption(self, row: dict[str, Any], copy: int) -> str:
        if self.caption_choice == "shortest":
            return min(row["captions"], key=len)
        return random.Random(f"{self.seed}-{self.epoch}-{row['pair_id']}-{copy}").choice(row["captions"])


class PairOrder:
    """The pairs of an epoch in steps, and one process's share of them as batches (a `batch_sampler`).

    An item is `copy * rows + row`; `~item` is a padding item for a process that would have none, since all processes
    must take part in each backward pass. Every pair comes exactly once (or `weight` times) in an epoch, whose last
    step may be smaller. The pairs of all benchmarks are shuffled together.

    Args:
        sizes: rows of each benchmark, in the order in which they were joined.
        weights: how many times a benchmark's pairs come in an epoch; 0.5 is a different random half each time.
        batch_size: pairs per process and batch.
        batches: batches per process and step (gradient accumulation).
        process, processes: number of this process, and of all processes.
    """

    def __init__(
        self,
        sizes: list[int],
        weights: list[float],
        seed: int,
        batch_size: int,
        batches: int = 1,
        process: int = 0,
        processes: int = 1,
    ):
        self.sizes, self.weights, self.seed, self.batch_size = sizes, weights, seed, batch_size
        self.process, self.processes = process, processes
        self.pairs_per_step = batch_size * batches * processes
        self.pairs = sum(round(size * weight) for size, weight in zip(sizes, weights, strict=True))
        self.epoch = self.first_step = 0

    @property
    def steps(self) -> int:
        """Return the number of steps of a whole epoch."""
        return -(-self.pairs // self.pairs_per_step)

    def items(self) -> np.ndarray:
        """Return all items of the epoch in order, [pairs]."""
        generator = np.random.default_rng([self.seed, self.epoch])
        total, start, parts = sum(self.sizes), 0, []
        for size, weight in zip(self.sizes, self.weights, strict=True):
            wanted = round(size * weight)
            rows = np.concatenate(
                [generator.permutation(size) for _ in range(-(-wanted // size) if size else 0)] or [[]]
            )
            copies = np.arange(len(rows)) // max(size, 1)
            parts.append((copies * total + start + rows)[:wanted])
            start += size
        return generator.permutation(np.concatenate(parts).astype(np.int64))

    def batches_in_step(self, step: int) -> int:
        """Return the number of batches of each process in a step; fewer only in the last step."""
        pairs = min(self.pairs_per_step, self.pairs - step * self.pairs_per_step)
        return -(-pairs // (self.batch_size * self.processes))

    def __len__(self) -> int:
        return sum(self.batches_in_step(step) for step in range(self.first_step, self.steps))

    def __iter__(self) -> Iterator[list[int]]:
        """Yield this process's batches, from `first_step` of the epoch on."""
        items = self.items()
        for step in range(self.first_step, self.steps):
            chunk = items[step * self.pairs_per_step : (step + 1) * self.pairs_per_step]
            for batch in range(self.batches_in_step(step)):
                start = (batch * self.processes + self.process) * self.batch_size
                share = chunk[start : start + self.batch_size]
                yield [int(item) for item in share] if len(share) else [~int(chunk[0])]
