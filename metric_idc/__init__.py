"""Scores for image difference captioning: the field's official metrics, with intervals and controls.

from metric_idc import read_predictions, score_rows
score_rows(read_predictions("predictions.jsonl"))["scores"]["CIDEr"]
"""

from .change_type import CHANGE_TYPES, stated_change_type
from .content_statistics import change_detection
from .predictions import read_coco, read_predictions, write_predictions
from .protocols import PROTOCOLS
from .ptb_tokenizer import tokenize
from .published_scores import published
from .scoring import (
    HEADLINE,
    METRICS,
    best_constant_caption,
    corpus_scores,
    paired_difference,
    paired_differences,
    score_rows,
    segment_scores,
)

__all__ = [
    "HEADLINE",
    "CHANGE_TYPES",
    "METRICS",
    "PROTOCOLS",
    "best_constant_caption",
    "change_detection",
    "stated_change_type",
    "corpus_scores",
    "paired_difference",
    "paired_differences",
    "published",
    "read_coco",
    "read_predictions",
    "score_rows",
    "segment_scores",
    "tokenize",
    "write_predictions",
]
