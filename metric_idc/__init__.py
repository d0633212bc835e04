"""Scores for image difference captioning: the field's official metrics, with intervals and controls.

from metric_idc import read_predictions, score_rows
score_rows(read_predictions("predictions.jsonl"))["scores"]["CIDEr"]

Commands: `python -m metric_idc score FILE --output_dir FOLDER`, `python -m metric_idc compare A B`,
`python -m metric_idc agreement FILE`, `python -m metric_idc lmms_task NAME`.
"""

from .agreement import agreement
from .change_probability import change_probability, describe_change_probability
from .change_type import CHANGE_TYPES, stated_change_type
from .comparison import compare, describe_chats, describe_result, results_table
from .content_statistics import change_detection
from .controls import best_constant_caption, input_controls
from .predictions import read_coco, read_predictions
from .protocols import PROTOCOLS
from .ptb_tokenizer import tokenize
from .published_scores import published
from .results import read_result, remove_results, write_predictions, write_results
from .scoring import (
    HEADLINE,
    METRICS,
    check_scoring,
    corpus_scores,
    paired_differences,
    score_rows,
    segment_scores,
)
from .unit_rules import stated_units

__all__ = [
    "CHANGE_TYPES",
    "HEADLINE",
    "METRICS",
    "PROTOCOLS",
    "agreement",
    "best_constant_caption",
    "change_detection",
    "change_probability",
    "check_scoring",
    "compare",
    "corpus_scores",
    "describe_change_probability",
    "describe_chats",
    "describe_result",
    "input_controls",
    "paired_differences",
    "published",
    "read_coco",
    "read_predictions",
    "read_result",
    "remove_results",
    "results_table",
    "score_rows",
    "segment_scores",
    "stated_change_type",
    "stated_units",
    "tokenize",
    "write_predictions",
    "write_results",
]
