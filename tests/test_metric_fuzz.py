"""Random difficult captions: nothing crashes, and if pycocoevalcap does not crash either, the scores are equal."""

import os
import random
from pathlib import Path

import numpy as np
import pytest

from metric_idc import bleu, cider, java, meteor, ptb_tokenizer, rouge_l, score_rows

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
PAIRS = 150
WORDS = (
    "the a car cars man is was gone moved red blue left of and not don't isn't man's 2 3.5 1,000 50% U.S. e.g. "
    "well-known moving automobile stopped no longer there has been removed color colour's parking-lot can't I'm "
    "we'll o'clock"
).split()
PIECES = (
    *("", " ", "  ", "\n", "\r\n", "\r", "\t", "\x00", "\x0b", "\x0c", "\x1a", "\x1c", "\x7f", "\x85", "\u00a0"),
    *(
        "\u2028",
        "\u2029",
        "\u200b",
        "\ufeff",
        "|||",
        " ||| ",
        "|",
        "||||",
        '"',
        "'",
        "``",
        "''",
        "`",
        "\u2019",
        "\u201c",
    ),
    *("<b>", "</b>", "&amp;", "<!--", "-->", "{}", "[x]", "(", ")", "-LRB-", "\\", "$1", "%s", "...", "..", ".", "--"),
    *(
        "\u2013",
        "caf\u00e9",
        "na\u00efve",
        "\u65e5\u672c",
        "\U0001f600",
        "\u03a3",
        "\u0130",
        "\u212a",
        "\u00df",
        "e\u0301",
    ),
)
# these shift the lines of pycocoevalcap's tokenizer, which handles only "\n"
BREAKS_THEIRS = frozenset("\r\x0b\x0c\u2028\u2029")


def caption(rng: random.Random) -> str:
    """Return a random caption, mostly with characters that are difficult to tokenize."""
    draw = rng.random()
    if draw < 0.03:
        return ""
    if draw < 0.06:
        return rng.choice(WORDS)
    if draw < 0.08:
        return " ".join(rng.choices(WORDS, k=500))
    words = rng.choices(WORDS, k=rng.randint(1, 14))
    if draw < 0.6:
        for _ in range(rng.randint(1, 4)):
            words.insert(rng.randint(0, len(words)), rng.choice(PIECES))
    return rng.choice(("", " ")).join(words) if draw < 0.12 else " ".join(words)


@pytest.fixture(scope="module")
def captions() -> tuple[list[str], list[list[str]]]:
    rng = random.Random(0)
    references = [[caption(rng) for _ in range(rng.randint(1, 5))] for _ in range(PAIRS)]
    return [rng.choice([caption(rng), *texts]) for texts in references], references


@pytest.fixture(scope="module")
def tokens(captions) -> tuple[list[str], list[list[str]]]:
    predictions, references = captions
    flat = iter(ptb_tokenizer.tokenize([*predictions, *(text for texts in references for text in texts)]))
    return [next(flat) for _ in predictions], [[next(flat) for _ in texts] for texts in references]


@pytest.fixture
def java_by_name(monkeypatch):
    """Put `java` on PATH, because pycocoevalcap calls it by its name."""
    monkeypatch.setenv("PATH", f"{Path(java.java_command()).parent}{os.pathsep}{os.environ['PATH']}")


def as_dicts(predictions: list[str], references: list[list[str]]) -> tuple[dict, dict]:
    return dict(enumerate(references)), {number: [text] for number, text in enumerate(predictions)}


def test_all_captions_are_scored(captions):
    predictions, references = captions
    rows = [
        {"pair_id": number, "prediction": prediction, "references": texts}
        for number, (prediction, texts) in enumerate(zip(predictions, references, strict=True))
    ]
    result = score_rows(rows)
    assert [pair["pair_id"] for pair in result["pairs"]] == list(range(PAIRS))
    assert all(np.isfinite(value) for pair in result["pairs"] for value in pair["scores"].values())
    assert all(0 < result["scores"][name] < 10 for name in ("BLEU-4", "METEOR", "ROUGE-L", "CIDEr"))


def test_tokens_equal_pycocoevalcap(captions, java_by_name):
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    texts = [
        text for text in [*captions[0], *(t for texts in captions[1] for t in texts)] if not set(text) & BREAKS_THEIRS
    ]
    assert len(texts) > PAIRS
    # their output loses blank lines at its end
    official = PTBTokenizer().tokenize({n: [{"caption": text}] for n, text in enumerate([*texts, "end"])})
    assert ptb_tokenizer.tokenize(texts) == [official[number][0] for number in range(len(texts))]


@pytest.mark.parametrize("name", ["BLEU", "ROUGE-L", "CIDEr"])
def test_scores_equal_pycocoevalcap(tokens, name):
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    theirs = {
        "BLEU": (bleu, Bleu(4), {"verbose": 0}),
        "ROUGE-L": (rouge_l, Rouge(), {}),
        "CIDEr": (cider, Cider(), {}),
    }
    module, scorer, options = theirs[name]
    official, _ = scorer.compute_score(*as_dicts(*tokens), **options)
    (statistics,) = module.segment_statistics([tokens[0]], tokens[1])
    assert list(module.reduce(statistics.sum(axis=0), PAIRS).values()) == pytest.approx(
        np.atleast_1d(official), abs=1e-9
    )


def assert_meteor_equals_pycocoevalcap(predictions: list[str], references: list[list[str]]) -> None:
    from pycocoevalcap.meteor.meteor import Meteor

    scorer = Meteor()
    (statistics,) = meteor.segment_statistics([predictions], references)
    official, segments = scorer.compute_score(*as_dicts(predictions, references))
    own = [meteor.reduce(row, 1)["METEOR"] for row in statistics]
    assert own == pytest.approx(segments, abs=1e-9)
    assert meteor.reduce(statistics.sum(axis=0), len(statistics))["METEOR"] == pytest.approx(official, abs=1e-9)


def test_meteor_equals_pycocoevalcap(tokens, java_by_name):
    """Theirs reads all paraphrases and normalizes each line; ours does neither."""
    predictions, references = tokens
    kept = [number for number, texts in enumerate(references) if not any("|||" in text for text in texts)]
    assert len(kept) > PAIRS / 2
    assert_meteor_equals_pycocoevalcap(
        [predictions[number] for number in kept], [references[number] for number in kept]
    )


def test_meteor_equals_pycocoevalcap_on_real_captions(java_by_name):
    """Several annotators use different words for one object, which only paraphrases match."""
    import json

    path = SHARED / "image-editing-request" / "test.json"
    if not path.exists():
        pytest.skip(f"the real captions are missing: {path}")
    items = [item["sents"] for item in json.loads(path.read_text(encoding="utf-8")) if len(item["sents"]) > 1][:200]
    flat = iter(ptb_tokenizer.tokenize([text for texts in items for text in texts]))
    items = [[next(flat) for _ in texts] for texts in items]
    (statistics,) = meteor.segment_statistics([[texts[0] for texts in items]], [texts[1:] for texts in items])
    assert statistics[:, 16:20].sum() > 50, "no paraphrase was matched"
    assert_meteor_equals_pycocoevalcap([texts[0] for texts in items], [texts[1:] for texts in items])
