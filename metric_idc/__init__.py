"""Scores for image difference captioning: the field's official metrics, with intervals and controls.

from metric_idc import read_predictions, score_rows
score_rows(read_predictions("predictions.jsonl"))["scores"]["CIDEr"]
"""

from .change_kind import KINDS, change_kind
from .predictions import read_coco, read_predictions, write_predictions
from .ptb_tokenizer import tokenize
from .scoring import METRICS, paired_difference, score_rows

__all__ = [
    "KINDS",
    "METRICS",
    "change_kind",
    "paired_difference",
    "read_coco",
    "read_predictions",
    "score_rows",
    "tokenize",
    "write_predictions",
]
