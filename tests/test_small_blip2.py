"""captioner_idc/small_blip2.py: what a small BLIP-2 trained from random weights starts from."""

import math

import pytest
import torch
from transformers import Blip2ForConditionalGeneration

from captioner_idc.small_blip2 import (
    PositionHeads,
    Sizes,
    build_tokenizer,
    from_random_weights,
    learning_rate,
    optimizer_of,
    prompt,
    token_inputs,
    waves,
)
from modeling_blip2idc.processing_blip2idc import IGNORED

SIZES = Sizes((64, 32), 8, width=32, heads=2, queries=4, vision_layers=1, qformer_layers=1, language_layers=1)
SENTENCES = ["the small red circle is gone", "nothing has changed"]


def test_its_tokenizer_spells_any_text() -> None:
    tokenizer = build_tokenizer(SENTENCES, 280)
    assert len(tokenizer) == 280
    for text in (*SENTENCES, "Ein grauer Würfel, 灰色"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_every_pixel_and_word_reaches_the_loss_from_the_first_step() -> None:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(SENTENCES, 300)
    started = []
    model = from_random_weights(Blip2ForConditionalGeneration, SIZES, tokenizer, started.append)
    assert started == [model.vision_model] and model.config.num_query_tokens == SIZES.queries
    images = torch.randn(2, 3, *SIZES.canvas, requires_grad=True)
    inputs = token_inputs(tokenizer, SENTENCES, prompt(model, tokenizer))
    model(pixel_values=images, interpolate_pos_encoding=True, **inputs).loss.backward()
    assert images.grad.abs().sum(dim=1).min() > 0
    assert len({tuple(query) for query in model.query_tokens[0].tolist()}) == SIZES.queries


def test_waves_tell_positions_apart() -> None:
    found = waves(torch.arange(16.0), 8, 32)
    assert found.shape == (16, 8)
    assert torch.allclose(found[:, 0], torch.sin(torch.arange(16.0) * 2 * math.pi / 4), atol=1e-5)
    assert torch.allclose(found[:, 7], torch.cos(torch.arange(16.0) * 2 * math.pi / 32), atol=1e-5)
    assert torch.cdist(found, found).fill_diagonal_(9).min() > 0.1


def test_position_heads_learn_rows_and_columns() -> None:
    torch.manual_seed(0)
    heads, patches = PositionHeads(SIZES), SIZES.rows * SIZES.columns
    known = torch.nn.functional.one_hot(torch.arange(patches)).float().repeat(3, 1, 1)  # 32 patches, 32 numbers each
    hidden = torch.cat([torch.zeros(3, 1, SIZES.width), known], dim=1)
    assert heads.loss(hidden).item() == pytest.approx(math.log(SIZES.rows) + math.log(SIZES.columns), rel=0.1)
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.3)
    for _ in range(60):
        loss = heads.loss(hidden)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    assert heads.row(known[0]).argmax(dim=1).tolist() == [i // SIZES.columns for i in range(patches)]
    assert heads.column(known[0]).argmax(dim=1).tolist() == [i % SIZES.columns for i in range(patches)]


def test_labels_are_the_sentence_and_its_end() -> None:
    tokenizer = build_tokenizer(SENTENCES, 300)
    inputs = token_inputs(tokenizer, SENTENCES, [3, 3, 0])
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in SENTENCES]
    assert len(ids[0]) > len(ids[1])
    gap = len(ids[0]) - len(ids[1])
    assert inputs["labels"].tolist() == [
        [IGNORED] * 3 + ids[0] + [tokenizer.eos_token_id],
        [IGNORED] * 3 + ids[1] + [tokenizer.eos_token_id] + [IGNORED] * gap,
    ]
    assert inputs["input_ids"][1].tolist() == [
        3,
        3,
        0,
        *ids[1],
        tokenizer.eos_token_id,
        *[tokenizer.pad_token_id] * gap,
    ]
    assert inputs["attention_mask"].sum(dim=1).tolist() == [4 + len(row) for row in ids]
    cut = token_inputs(tokenizer, SENTENCES, [0], limit=2)
    assert cut["labels"].tolist() == [[IGNORED, *row[:2]] for row in ids]


def test_the_learning_rate_rises_and_falls_and_matrices_decay() -> None:
    rates = [learning_rate(step, 100, 0.5, warm_up=10) for step in range(100)]
    assert rates[0] == 0.05 and rates[9] == rates[10] == 0.5 == max(rates)
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] == pytest.approx(0.005, abs=5e-4)
    optimizer = optimizer_of([torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))])
    assert [(g["weight_decay"], len(g["params"])) for g in optimizer.param_groups] == [(0.02, 1), (0.0, 1)]
