"""The web page of the metric's Space: predictions and references in, scores out.

python metric_idc/app.py
"""

from pathlib import Path
from typing import Any

SEPARATOR = "|||"
INTRODUCTION = (
    "Scores of image difference captions: BLEU, METEOR, ROUGE-L and CIDEr by the official COCO code. "
    f"Write one pair per line; separate the references of a pair with {SEPARATOR}."
)


def score(predictions: str, references: str) -> dict[str, float]:
    """Return the scores of predictions and references, one pair per line.

    Raises: ValueError if the numbers of lines differ, or if a pair has no reference.
    """
    import evaluate  # noqa: TID251  a Space shows a metric of that library

    texts = [[text.strip() for text in line.split(SEPARATOR)] for line in references.rstrip("\n").split("\n")]
    sentences = predictions.split("\n")
    if len(sentences) == len(texts) + 1 and not sentences[-1]:
        sentences.pop()  # the end of the last line; otherwise an empty line is an empty answer
    if len(sentences) != len(texts):
        raise ValueError(f"{len(sentences)} lines of predictions and {len(texts)} of references: both must be equal")
    if [""] in texts:
        raise ValueError(f"line {texts.index(['']) + 1} of the references is empty: give each pair at least one")
    metric = evaluate.load(str(Path(__file__).with_name("metric_idc.py")))
    scores = metric.compute(predictions=sentences, references=texts)
    return {name: round(value, 4) for name, value in scores.items()}


def build() -> Any:
    """Return the page, a gradio Interface."""
    import gradio

    def score_or_error(predictions: str, references: str) -> dict[str, float]:
        try:
            return score(predictions, references)
        except ValueError as error:
            raise gradio.Error(str(error)) from error

    example = [
        "the red car is gone\na man appeared",
        "the red car has left ||| no red car anymore\na man is now there",
    ]
    return gradio.Interface(
        score_or_error,
        [gradio.Textbox(label="Predictions", lines=6), gradio.Textbox(label="References", lines=6)],
        gradio.JSON(label="Scores"),
        title="metric_idc",
        description=INTRODUCTION,
        examples=[example],
        cache_examples=False,
        flagging_mode="never",
    )


if __name__ == "__main__":
    build().launch()
