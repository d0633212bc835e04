"""Pictures of a training run: its curves, and some validation pairs with their sentences."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from common_idc.atomic_files import write_atomically

from .paths import CURVES, LOG, VALIDATION_PAIRS


def draw_curves(run: Path) -> Path:
    """Draw curves.png from log.jsonl: losses, learning rate and, if measured, CIDEr over the steps."""
    rows = [json.loads(line) for line in (run / LOG).read_text(encoding="utf-8").splitlines()]
    panels = [
        ("loss", ["loss", "validation_loss"]),
        ("CIDEr", ["validation_CIDEr"]),
        ("learning rate", ["learning_rate"]),
    ]
    panels = [(title, names) for title, names in panels if any(name in row for row in rows for name in names)]
    figure = _figure(4.2 * len(panels), 3.2)
    for place, (title, names) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place)
        for name in names:
            points = [(row["step"], row[name]) for row in rows if name in row]
            axes.plot(*zip(*points, strict=True), marker="o" if len(points) < 40 else None, ms=3, label=name)
        axes.set(xlabel="step", title=title)
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend(["training", "validation"], frameon=False)
    return _save(figure, run / CURVES)


def draw_samples(run: Path, samples: Sequence[dict[str, Any]]) -> Path:
    """Draw validation_pairs.png.

    Args:
        samples: `before` and `after` (RGB images), `reference` and `sentence` (the adapter's) of each pair.
    """
    figure = _figure(7.5, 2.3 * len(samples))
    for place, sample in enumerate(samples):
        for column, side in enumerate(("before", "after")):
            axes = figure.add_subplot(len(samples), 2, 2 * place + column + 1)
            picture = sample[side].copy()
            picture.thumbnail((320, 320), Image.Resampling.BILINEAR)
            axes.imshow(picture)
            axes.axis("off")
            text = f"reference: {sample['reference']}" if column == 0 else f"adapter: {sample['sentence']}"
            # parse_math: a caption may contain dollar signs
            axes.set_title(text, fontsize=8, wrap=True, parse_math=False)
    return _save(figure, run / VALIDATION_PAIRS)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # not pyplot, which keeps figures and asks for a display

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> Path:
    write_atomically(path, lambda file: figure.savefig(file, dpi=130, format="png"))
    return path
