"""Controls: what a caption that never changes would score, and whether the model looks at both images.

Also what an earlier evaluation recorded, so that a file of predictions is scored again without the model.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import cider, ptb_tokenizer
from .content_statistics import said_unchanged
from .predictions import read_predictions
from .results import CONTROLS, control_predictions, read_result
from .scoring import predictions_hash

Row = dict[str, Any]
OF_SCORING = ("paper_protocol", "left_out")  # signature entries that scoring writes only sometimes


def best_constant_caption(training_captions: list[list[str]]) -> str:
    """Return the training caption that has the highest CIDEr as the answer to every training pair, as it was written.

    Args:
        training_captions: the references of each training pair; pairs without any are ignored.

    Raises: ValueError if there is no caption at all.
    """
    references = [captions for captions in training_captions if captions]
    if not references:
        raise ValueError("the training pairs have no captions: leave constant_caption at None")
    tokens = iter(ptb_tokenizer.tokenize([text for captions in references for text in captions]))
    return cider.best_constant_caption([[next(tokens) for _ in captions] for captions in references], references)[1]


def input_controls(rows: list[Row], swapped: list[Row], identical: list[Row]) -> dict[str, dict[str, float | int]]:
    """Return how often the predictions depend on the images: "swapped_images" and "identical_images".

    An exchanged pair of change_type "add" or "remove" has another true caption; an image next to itself has not
    changed. "swapped_images" is missing if there is no such pair.

    Args:
        swapped: the predictions for the same pairs with their images exchanged, in the order of `rows`.
        identical: those for the image before, given twice.
    """
    differs = [
        first["prediction"] != second["prediction"]
        for first, second in zip(rows, swapped, strict=True)
        if first["change_type"] in ("add", "remove")
    ]
    sentences = [row["prediction"] for row in identical]
    controls = {"identical_images": {"pairs": len(sentences), "said_unchanged": said_unchanged(sentences)}}
    if differs:
        controls["swapped_images"] = {"pairs": len(differs), "sentence_differs": sum(differs) / len(differs)}
    return controls


@dataclass
class EarlierResult:
    """The recorded facts of an evaluation that cannot be computed from its file of predictions."""

    signature: dict[str, Any] = field(default_factory=dict)
    constant_caption: str | None = None  # chosen from training captions
    predictions: dict[str, list[Row]] = field(default_factory=dict)  # by control; empty if a file is missing
    controls: dict[str, Any] = field(default_factory=dict)  # of the images, as they were scored

    def facts_beyond(self, signature: dict[str, Any]) -> dict[str, Any]:
        """Return the recorded facts that scoring does not know, e.g. the model, and all versions."""
        if not self.signature:
            return {}
        versions = {"versions": self.signature.get("versions", {}) | signature["versions"]}
        return {name: value for name, value in self.signature.items() if name not in signature} | versions

    @property
    def same_image_twice(self) -> list[str] | None:
        """Return the captions for the image before, given twice; None if they are unknown."""
        return [row["prediction"] for row in self.predictions["identical"]] if self.predictions else None

    def controls_for(self, rows: list[Row], result: dict[str, Any]) -> dict[str, Any]:
        """Return the controls that `score_rows` could not compute for its `result`.

        Without the predictions of the controls their recorded numbers are returned; the scores of
        "same_image_twice" only if the protocol and each of the metrics are the same.
        """
        if self.predictions:
            return input_controls(rows, **self.predictions)
        now, then = result["signature"], self.signature
        same = then.get("protocol") == now["protocol"] and then.get("metrics", {}).items() <= now["metrics"].items()
        return {name: value for name, value in self.controls.items() if same or "scores" not in value}


def earlier_result(folder: Path, rows: list[Row]) -> EarlierResult:
    """Read what an earlier evaluation recorded about these predictions, to score them again without the model.

    The result is empty if the folder has no scores, or those of other predictions.
    """
    try:
        recorded = read_result(folder)
    except (OSError, ValueError):
        return EarlierResult()
    if recorded["signature"].get("predictions_sha256") != predictions_hash(rows):
        return EarlierResult()
    controls = recorded["controls"]
    constant = controls.pop("constant_caption")
    controls.pop("no_change", None)  # always computed again
    files = {name: folder / control_predictions(name) for name in CONTROLS}
    complete = all(file.is_file() for file in files.values())
    return EarlierResult(
        signature={name: value for name, value in recorded["signature"].items() if name not in OF_SCORING},
        constant_caption=constant["caption"] if constant["chosen_from"] == "train" else None,
        predictions={name: read_predictions(file) for name, file in files.items()} if complete else {},
        controls=controls,
    )
