"""Measure whether evidence maps point at the change: the pointing game, where box or mask of the change are known.

    python measurements/evidence_maps.py --data_dir PHOTOGRAPHS --page docs/evaluation.md

A map hits if the centre of its strongest part lies in the box of the change, or at most half a part beside it (the
pointing game's tolerance, Zhang et al. 2016); chance is the area of that. Maps: occlusion, which ships
(captioner_idc/evidence.py); the cross-attention of the Q-Former, rolled through the vision encoder (attention rollout,
Abnar and Zuidema 2020), for BLIP-2 only; and the mean absolute difference of the pixels, without any model. The
evidence is for the captioner's own greedy sentence. Both benchmarks shift the view and change the light of the image
after; photo_edits also resizes it and saves it as JPEG.
"""

import argparse
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from tqdm import tqdm

from captioner_idc.captioning import caption
from captioner_idc.evidence import GRID, find_evidence, overlay
from captioner_idc.loading import SHIPPED, load
from common_idc.atomic_files import write_atomically, write_json
from common_idc.commands import run_command
from dataset_syned import load_benchmark, undecoded
from dataset_syned.benchmarks.toy import ToyConfig, compose, draw_raw
from dataset_syned.scene_drawing import Thing, View, coverage
from metric_idc.comparison import renew_table
from metric_idc.resampling import interval

MARKS = ("<!-- evidence maps: generated -->", "<!-- evidence maps: end -->")
TOLERANCE = 0.5 / GRID  # shares of the sides
RESAMPLES = 1000
SHOWN = 12  # pairs in the picture
SIDE = 160  # of an image in it, in pixels

Box = tuple[float, float, float, float]  # left, top, right, bottom as shares of the sides


@dataclass(frozen=True)
class LocalChange:
    """A pair whose images differ in the boxes, distractors aside."""

    before: Any
    after: Any
    boxes: list[Box]


def photo_changes(data_dir: Path | None) -> Iterator[LocalChange]:
    """Yield the test pairs of photo_edits with exactly one local change."""
    options = {} if data_dir is None else {"data_dir": str(data_dir)}
    for row in undecoded(load_benchmark("photo_edits", "test", **options)):
        changes = json.loads(row["provenance"])["changes"]
        if len(changes) == 1 and changes[0]["box"] and changes[0]["change_type"] != "crop":
            size = Image.open(io.BytesIO(row["after"]["bytes"])).size
            box = tuple(value / side for value, side in zip(changes[0]["box"], size * 2, strict=True))
            yield LocalChange(row["before"], row["after"], [box])


def toy_changes() -> Iterator[LocalChange]:
    """Yield the changed test pairs of toy, with the boxes of what is in one image only."""
    config = ToyConfig(name="default", wording="instruction")
    for index in range(config.test):
        pair, _, _ = compose(config, "test", index)
        if pair.subject is not None:
            raw = draw_raw(config, "test", index)
            before, after = (Image.open(io.BytesIO(side[1])) for side in (raw.before, raw.after))
            sides = ((pair.before, pair.after, pair.views[0]), (pair.after, pair.before, pair.views[1]))
            boxes = [
                box_of(thing, before.size, view) for own, others, view in sides for thing in own if thing not in others
            ]
            yield LocalChange(before, after, boxes)


def box_of(thing: Thing, size: tuple[int, int], view: View) -> Box:
    """Return the box of a thing, as shares of the sides."""
    (rows, columns), _ = coverage(thing, size, view)
    return columns.start / size[0], rows.start / size[1], columns.stop / size[0], rows.stop / size[1]


def pixel_difference(pair: tuple[Any, Any]) -> np.ndarray:
    """Return the mean absolute difference of the pixels of each part, [GRID, GRID]."""
    before, after = (np.asarray(cell.picture, np.float32) for cell in pair)
    difference = Image.fromarray(np.abs(after - before).mean(axis=2))
    return np.asarray(difference.resize((GRID, GRID), Image.Resampling.BOX), float)


@torch.inference_mode()
def cross_attention(model: Any, processor: Any, pair: tuple[Any, Any]) -> np.ndarray:
    """Return the attention of BLIP-2's queries to each part of both images, [GRID, GRID]; needs eager attention."""
    pixels = processor(before=pair[0], after=pair[1])["pixel_values"]
    vision = model.vision_model(pixels, interpolate_pos_encoding=True, output_attentions=True)
    flow = torch.eye(vision.attentions[0].shape[-1])
    for attention in vision.attentions:  # [1, heads, 1 + patches, 1 + patches]
        flow = 0.5 * (attention[0].mean(0) + torch.eye(len(flow))) @ flow
    asked = model.qformer(model.query_tokens, encoder_hidden_states=vision.last_hidden_state, output_attentions=True)
    queries = torch.stack([each[0].mean((0, 1)) for each in asked.cross_attentions]).mean(0)  # [1 + patches]
    patch, (height, width) = model.config.vision_config.patch_size, pixels.shape[2:]
    canvas = (queries @ flow)[1:].reshape(height // patch, width // patch)
    halves = canvas.chunk(2, dim=0 if processor.settings["layout"] == "vertical" else 1)
    total = Image.fromarray(sum(halves).float().numpy())
    return np.asarray(total.resize((GRID, GRID), Image.Resampling.BOX), float)


def is_hit(heat: np.ndarray, boxes: list[Box]) -> bool:
    """Return whether the strongest part is in a box, with the tolerance."""
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    x, y = (column + 0.5) / heat.shape[1], (row + 0.5) / heat.shape[0]
    return any(left <= x <= right and top <= y <= bottom for left, top, right, bottom in map(widened, boxes))


def widened(box: Box) -> Box:
    """Return a box with the tolerance around it, within the image."""
    left, top, right, bottom = box
    return (
        *(max(edge - TOLERANCE, 0.0) for edge in (left, top)),
        *(min(edge + TOLERANCE, 1.0) for edge in (right, bottom)),
    )


def chance(boxes: list[Box]) -> float:
    """Return the share of parts whose centres are in a box, with the tolerance."""
    parts = np.eye(GRID * GRID).reshape(-1, GRID, GRID)
    return float(np.mean([is_hit(part, boxes) for part in parts]))


def play(
    changes: Iterator[LocalChange], model: Any, processor: Any, shown: list[Image.Image]
) -> dict[str, list[float]]:
    """Return the hits of each map, pair by pair; add pictures of the first pairs to `shown`."""
    hits: dict[str, list[float]] = {"occlusion": [], "cross-attention": [], "pixel difference": [], "chance": []}
    for change in changes:
        pair = processor.load_pair(change.before, change.after, "the pair")
        [sentence] = caption(model, processor, [pair])
        found = find_evidence(model, processor, pair, sentence)
        maps = found.heat, cross_attention(model, processor, pair), pixel_difference(pair)
        for name, heat in zip(hits, maps, strict=False):
            hits[name].append(is_hit(heat, change.boxes))
        hits["chance"].append(chance(change.boxes))
        if len(shown) < SHOWN:
            pictures = [overlay(image, found).resize((SIDE, SIDE)) for image in (change.before, change.after)]
            shown.append(with_boxes(pictures, change.boxes, sentence))
    return hits


def with_boxes(pictures: list[Image.Image], boxes: list[Box], sentence: str) -> Image.Image:
    """Return two pictures side by side with the true boxes in white, above their sentence."""
    sheet = Image.new("RGB", (2 * SIDE + 4, SIDE + 28), "white")
    for index, picture in enumerate(pictures):
        for box in boxes:
            edges = [round(share * (SIDE - 1)) for share in box]
            ImageDraw.Draw(picture).rectangle(edges, outline="white")
        sheet.paste(picture, (index * (SIDE + 4), 0))
    ImageDraw.Draw(sheet).text((2, SIDE + 4), sentence[:56], fill="black")
    return sheet


def table_of(results: dict[str, dict[str, list[float]]]) -> str:
    """Return a Markdown table of hit rates with 95 % intervals of a bootstrap over pairs."""
    rng, lines = np.random.default_rng(0), []
    for benchmark, hits in results.items():
        cells = []
        for values in map(np.array, hits.values()):
            draws = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
            low, high = interval(draws)
            cells.append(f"{values.mean():.3f} [{low:.3f}, {high:.3f}]")
        lines.append(f"| {benchmark} | {len(values)} | {' | '.join(cells)} |")
    names = list(next(iter(results.values())))
    return "\n".join([f"| | pairs | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|", *lines])


def run(arguments: argparse.Namespace) -> None:
    """Play on both benchmarks, and write table, numbers and picture."""
    torch.set_num_threads(arguments.threads)
    model, processor = load(arguments.model, device="cpu", attn_implementation="eager")
    results, pictures = {}, []
    for name, changes in (("photo_edits", photo_changes(arguments.data_dir)), ("toy", toy_changes())):
        some = tqdm(islice(changes, arguments.pairs), total=arguments.pairs, unit="pair", desc=name, disable=None)
        results[name] = play(some, model, processor, pictures)
    table = table_of(results)
    if arguments.page:
        renew_table(arguments.page, table, MARKS)
    if arguments.output:
        write_json(arguments.output / "evidence_maps.json", results)
        sheet = Image.new("RGB", (3 * pictures[0].width + 24, -(-len(pictures) // 3) * pictures[0].height), "white")
        for index, picture in enumerate(pictures):
            sheet.paste(picture, (index % 3 * (picture.width + 12), index // 3 * picture.height))
        write_atomically(arguments.output / "evidence_maps.jpg", lambda file: sheet.save(file, "JPEG", quality=85))
    print(table)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=SHIPPED, help="a BLIP-2; default: the captioner that ships")
    parser.add_argument("--data_dir", type=Path, help="photographs for photo_edits; default: scikit-image's")
    parser.add_argument("--pairs", type=int, default=200, help="of each benchmark (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="folder for numbers and a picture")
    parser.add_argument("--page", type=Path, help="Markdown file whose table is renewed")
    arguments = parser.parse_args(argv)
    return run_command(lambda: run(arguments), ValueError, OSError)


if __name__ == "__main__":
    sys.exit(main())
