"""Write the card of the captioner for photographs, from the log of its training and its scores.

    python evaluate.py --model runs/pretraining/captioner --benchmark photo_edits --benchmark_options \\
        '{"data_dir": "PHOTOGRAPHS"}' --output_dir runs/pretraining/test --change_probability
    python measurements/photo_edits_by_type.py runs/pretraining/test --data_dir PHOTOGRAPHS
    python pretraining/write_card.py --work_dir runs/pretraining --scores runs/pretraining/test \\
        --captioner captioner_idc/tiny_captioner

The card and the calibration of the probability of a change go into the captioner's folder, the log and its curves next
to this script.
"""

import argparse
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from safetensors import safe_open

from metric_idc import describe_change_probability
from run_idc.paths import CALIBRATION

HERE = Path(__file__).parent
LOG, CURVES = "pretraining.jsonl", "pretraining.png"
LOSSES = {"loss": "captions", "patch_loss": "patches", "query_loss": "queries", "reading_loss": "reading"}
COUNTED = ("right type", "right place", "right thing", "said unchanged")

CARD = """---
license: mit
language: en
library_name: transformers
pipeline_tag: image-text-to-text
tags: [blip-2, image-difference-captioning]
---

# Captioner for photographs

A BLIP-2 of {parameters:.2f} million parameters that says what changed between two photographs, for use without a
network. It sees each image at {cell} x {cell} pixels. It tells additions, removals, replacements, moves, copies and
new colours of things, with their place; covered, blurred and pixelated parts; text; and changes of the whole picture:
brightness, contrast, saturation, colours, tint, blur, noise, pixelation, black and white, mirroring, rotation,
cropping. Of other changes it should say no more than "something has changed in the ...". It has seen about 190 kinds
of things, and calls others by what they resemble. To drawn scenes of the toy benchmark it answers with instructions.

It is far from a large model: for anything that matters name one with `--model`.

## Training

`{command}`, {steps:,} steps of {batch} pairs, {minutes:.0f} minutes on {machine}.
The script describes data and losses. {remarks}

![Losses and held-out scores over the steps](../../pretraining/pretraining.png)

| data | source | licence |
|---|---|---|
| photographs | Debian: mate-backgrounds, tuxpaint-data | GPL-2+ |
| photographs | Debian: plasma-workspace-wallpapers, lomiri-wallpapers | per file, LGPL-3 or CC BY-SA |
| photographs | Debian: gcompris-qt-data | per file, mostly CC BY-SA 3.0 and public domain |
| cut-outs and their names | Debian: tuxpaint-stamps-default | GPL-2+ |
| definitions, read without pictures | Debian: wordnet-base | WordNet's, free for any use |

No picture of theirs is in this repository.

## Scores

On {pairs:,} pairs of photographs and cut-outs that it has not seen (benchmark `photo_edits`, test split): CIDEr
{cider:.3f}, the best constant sentence {constant:.3f}. By the benchmark's own sentences
(`measurements/photo_edits_by_type.py`):

| | pairs | {columns} |
|---|---|{bars}
{rows}

The best single name would be the right thing in {chance:.1%}.{sure}
"""


def draw_curves(log: list[dict[str, Any]], path: Path) -> None:
    """Draw losses and held-out scores over the steps."""
    figure = Figure(figsize=(8, 6), layout="constrained")
    losses, scores = figure.subplots(2, 1, sharex=True)
    for name, label in LOSSES.items():
        losses.plot([row["step"] for row in log], [row[name] for row in log], label=label)
    checked = [row for row in log if "right" in row]
    for name in checked[0]["right"] if checked else ():
        scores.plot([row["step"] for row in checked], [row["right"][name] for row in checked], marker=".", label=name)
    losses.set(ylabel="loss", yscale="log", title="Pretraining of the captioner for photographs")
    scores.set(xlabel="step", ylabel="right on held-out pairs", ylim=(0, 1))
    for axes in (losses, scores):
        axes.legend(frameon=False)
    figure.savefig(path, dpi=100)


def cells(shares: dict[str, Any]) -> list[str]:
    return [f"{shares[name]['share']:.1%}" if name in shares else "" for name in COUNTED]


def card(arguments: argparse.Namespace, log: list[dict[str, Any]]) -> str:
    """Return the text of the card."""
    metrics = json.loads((arguments.scores / "metrics.json").read_text())
    by_type = json.loads((arguments.scores / "by_type.json").read_text())
    rows = {"all": by_type["all"], "changed": by_type["changed"], **by_type["by change type"]}
    lines = [f"| {name} | {each['right type']['pairs']} | {' | '.join(cells(each))} |" for name, each in rows.items()]
    with safe_open(arguments.captioner / "model.safetensors", "pt") as weights:
        parameters = sum(weights.get_tensor(name).numel() for name in weights.keys())
    canvas = json.loads((arguments.captioner / "processor_config.json").read_text())["canvas"]
    return CARD.format(
        parameters=parameters / 1e6,
        cell=canvas[1],
        command=arguments.command,
        remarks=arguments.remarks,
        steps=log[-1]["step"],
        minutes=log[-1]["step"] * statistics.median(row["seconds"] for row in log) / 60,  # without pauses
        machine=arguments.machine,
        batch=arguments.batch,
        pairs=metrics["signature"]["pairs"],
        cider=metrics["scores"]["CIDEr"],
        constant=metrics["controls"]["constant_caption"]["scores"]["CIDEr"],
        columns=" | ".join(COUNTED),
        bars="---|" * len(COUNTED),
        rows="\n".join(lines),
        chance=by_type["thing by chance"] or 0.0,
        sure=f" {describe[0].upper() + describe[1:]}." if (describe := describe_change_probability(metrics)) else "",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", type=Path, required=True, help="of train_photo_captioner.py")
    parser.add_argument("--scores", type=Path, required=True, help="of evaluate.py and photo_edits_by_type.py")
    parser.add_argument("--captioner", type=Path, required=True, help="its folder")
    parser.add_argument("--command", default="python pretraining/train_photo_captioner.py")
    parser.add_argument("--remarks", default="", help="what else to know about the training")
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--machine", default="the two cores of a CPU", help="that it was trained on")
    arguments = parser.parse_args()
    log = [json.loads(line) for line in (arguments.work_dir / LOG).read_text().splitlines()]
    (arguments.captioner / "README.md").write_text(card(arguments, log), encoding="utf-8")
    if (arguments.scores / CALIBRATION).is_file():
        shutil.copyfile(arguments.scores / CALIBRATION, arguments.captioner / CALIBRATION)
    shutil.copyfile(arguments.work_dir / LOG, HERE / LOG)
    draw_curves(log, HERE / CURVES)


if __name__ == "__main__":
    main()
