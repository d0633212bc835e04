"""Pictures of a training run, for people who would rather look than read: its curves and some captioned pairs."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from modeling_blip2idc.image_fusion import load_image


def draw_curves(run: Path) -> Path:
    """curves.png from log.jsonl: losses, learning rate and, where it was measured, CIDEr over the steps."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
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
    return _save(figure, run / "curves.png")


def draw_samples(run: Path, samples: Sequence[dict[str, Any]]) -> Path:
    """validation_pairs.png: `before`, `after`, a reference and the adapter's sentence for each sample."""
    figure = _figure(7.5, 2.3 * len(samples))
    for place, sample in enumerate(samples):
        for column, side in enumerate(("before", "after")):
            axes = figure.add_subplot(len(samples), 2, 2 * place + column + 1)
            picture = load_image(sample[side])
            picture.thumbnail((320, 320), Image.Resampling.BILINEAR)
            axes.imshow(picture)
            axes.axis("off")
            text = f"reference: {sample['reference']}" if column == 0 else f"adapter: {sample['sentence']}"
            # parse_math: a caption may hold dollar signs
            axes.set_title(text, fontsize=8, wrap=True, parse_math=False)
    return _save(figure, run / "validation_pairs.png")


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # of its own: pyplot keeps figures and asks for a display

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> Path:
    unfinished = path.with_name(path.name + ".tmp")
    figure.savefig(unfinished, dpi=130, format="png")
    os.replace(unfinished, path)
    return path
