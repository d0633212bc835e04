"""The module that `evaluate.load("path/to/metric_idc")` of the Hugging Face library runs; scoring.py does the work.

The library copies this file and those that it finds in import lines of this file: one import per line, without a
comment after it.
"""

import datasets

import evaluate

# Imported for the library's copy: the modules that scoring.py imports.
from .bleu import IMPLEMENTATION as _bleu
from .change_probability import BINS as _change_probability
from .change_type import CHANGE_TYPES as _change_type
from .chat_answers import ATTEMPTS as _chat_answers
from .chat_client import RETRIES as _chat_client
from .chat_units import PROMPT as _chat_units
from .cider import IMPLEMENTATION as _cider
from .clip_score import PREFIX as _clip
from .content_statistics import NO_CHANGE as _content_statistics
from .difference_units import LEAST_SIMILARITY as _difference_units
from .java import INSTALL as _java
from .judge import PROMPT as _judge
from .meteor import IMPLEMENTATION as _meteor
from .ngrams import ORDER as _ngrams
from .noun_phrases import PICTURE as _noun_phrases
from .paraphrases import TABLE as _paraphrases
from .protocols import PROTOCOLS as _protocols
from .ptb_tokenizer import NAME as _tokenizer
from .resampling import CHUNK as _resampling
from .rouge_l import IMPLEMENTATION as _rouge_l
from .scoring import corpus_scores
from .sentence_similarity import POOLINGS as _sentences
from .spice import IMPLEMENTATION as _spice
from .unit_rules import UNITS_EXAMPLE as _unit_rules

DESCRIPTION = "BLEU, METEOR, ROUGE-L and CIDEr of image difference captions, as the official COCO code gives them."
CITATION = """@article{chen2015microsoft,
  title={Microsoft {COCO} Captions: Data Collection and Evaluation Server},
  author={Chen, Xinlei and Fang, Hao and Lin, Tsung-Yi and Vedantam, Ramakrishna and Gupta, Saurabh and
    Doll{\\'a}r, Piotr and Zitnick, C. Lawrence},
  journal={arXiv preprint arXiv:1504.00325},
  year={2015}
}"""
INPUTS = """
Args:
    predictions: one sentence per pair.
    references: a list of sentences per pair; pairs may have different numbers of them.
    metrics: some of BLEU, METEOR, ROUGE-L, CIDEr, DifferenceUnits; all by default.
"""


class MetricIdc(evaluate.Metric):
    """BLEU, METEOR, ROUGE-L and CIDEr as one metric of the library."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            # the library chooses the features that fit its input
            features=[
                datasets.Features({"predictions": text, "references": datasets.List(text)}),
                datasets.Features({"predictions": text, "references": text}),
            ],
        )

    def _compute(self, predictions: list[str], references: list, metrics: list[str] | None = None) -> dict[str, float]:
        texts = [[entry] if isinstance(entry, str) else list(entry) for entry in references]
        rows = [
            {"pair_id": number, "prediction": prediction, "references": captions}
            for number, (prediction, captions) in enumerate(zip(predictions, texts, strict=True))
        ]
        return corpus_scores(rows, metrics)
