"""Controls that use the model: does it look at both images, and in which order?

Evaluation captions each pair with its images exchanged (`swapped`) and with its before image twice (`identical`).
"""

from pathlib import Path
from typing import Any

from .change_type import stated_change_type
from .content_statistics import NO_CHANGE
from .predictions import read_predictions
from .result_files import CONTROLS, control_predictions, read_result
from .scoring import predictions_hash, score_rows

Row = dict[str, Any]


def score_with_controls(rows: list[Row], controls: dict[str, list[Row]], **options: Any) -> dict[str, Any]:
    """Return what `score_rows` returns, with the controls in it.

    Args:
        controls: predictions of `swapped` and `identical`, or empty.
        options: of `score_rows`.
    """
    same_image_twice = [row["prediction"] for row in controls["identical"]] if controls else None
    result = score_rows(rows, same_image_twice=same_image_twice, **options)
    if controls:
        result["controls"] |= input_controls(rows, controls)
    return result


def input_controls(rows: list[Row], controls: dict[str, list[Row]]) -> dict[str, Any]:
    """Return how often exchanged images change the sentence, and how often one image twice is called unchanged.

    Exchanged images are counted for pairs of change type `add` or `remove`, whose true sentence then differs.
    """
    differs = [
        first["prediction"] != second["prediction"]
        for first, second in zip(rows, controls["swapped"], strict=True)
        if first["change_type"] in ("add", "remove")
    ]
    unchanged = [stated_change_type(row["prediction"]) == NO_CHANGE for row in controls["identical"]]
    counted: dict[str, Any] = {
        "identical_images": {"pairs": len(unchanged), "said_unchanged": sum(unchanged) / len(unchanged)}
    }
    if differs:
        counted["swapped_images"] = {"pairs": len(differs), "sentence_differs": sum(differs) / len(differs)}
    return counted


def previous_result(folder: Path, rows: list[Row]) -> dict[str, Any]:
    """Read what an earlier evaluation recorded about these predictions, to re-score them without the model.

    Returns: `signature`, `constant_caption` and `controls` (predictions); empty if the folder has no result of these
        predictions.
    """
    try:
        result = read_result(folder)
    except (OSError, ValueError):
        return {}
    if result["signature"].get("predictions_sha256") != predictions_hash(rows):
        return {}
    control = result["controls"]["constant_caption"]
    files = {name: folder / control_predictions(name) for name in CONTROLS}
    complete = all(file.is_file() for file in files.values())
    return {
        # without what depends on the protocol, which may be another one now
        "signature": {k: v for k, v in result["signature"].items() if k not in ("paper_protocol", "left_out")},
        "constant_caption": control["caption"] if control["chosen_from"] == "train" else None,
        "controls": {name: read_predictions(file) for name, file in files.items()} if complete else {},
    }


def merge_signatures(predictions: dict[str, Any], scores: dict[str, Any]) -> dict[str, Any]:
    """Return the signature of a result from those of its predictions and of its scoring, with the versions of both."""
    versions = {**predictions.get("versions", {}), **scores["versions"]}
    return {**predictions, **scores, "versions": versions}


def describe_controls(controls: dict[str, Any]) -> str:
    """Return the controls that use the model as lines of text."""
    lines = []
    if "swapped_images" in controls:
        swapped = controls["swapped_images"]
        lines.append(f"images exchanged: another sentence in {swapped['sentence_differs']:.1%} of {swapped['pairs']}")
    if "identical_images" in controls:
        same = controls["identical_images"]
        lines.append(f"one image twice: called unchanged in {same['said_unchanged']:.1%} of {same['pairs']}")
    return "\n".join(lines)
