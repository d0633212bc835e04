"""The contract of all families, checked on a tiny random model of each."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import TINY_CAPTIONERS

from captioner_idc.adapters import (
    adapted_modules,
    add_lora,
    base_of,
    checkpoint_activations,
    count_parameters,
    default_parts,
    make_optimizer,
    merged,
    save_adapter,
)
from captioner_idc.captioning import generate_tokens
from captioner_idc.change_probability import Calibration, explain
from captioner_idc.chat_models import ChatCaptioner
from captioner_idc.encoded_pairs import EncodedPairs
from captioner_idc.evidence import find_evidence
from captioner_idc.families import FAMILIES, card_facts, family_of, family_of_type
from captioner_idc.likelihood import likely_sentences, log_likelihoods
from captioner_idc.loading import load

CAPTIONERS = pytest.mark.parametrize("captioner", TINY_CAPTIONERS)
SHORT, LONG = "nothing has changed", "the red ball was added to the left of the cube"


def image(seed: int) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 2, (4, 4, 3), dtype=np.uint8) * 255
    return Image.fromarray(blocks).resize((32, 32), Image.Resampling.NEAREST)


A, B = image(0), image(1)
WIDE = A.resize((64, 32))  # takes more tokens than A where these grow with the size: the shorter prompt is padded


def loaded(captioner: str, folder: Path, **options: Any) -> tuple[Any, Any]:
    if not folder.exists():
        TINY_CAPTIONERS[captioner](folder)
    return load(folder, device="cpu", **options)


def test_every_family_has_a_tiny_captioner() -> None:
    assert {name.split("-")[0] for name in TINY_CAPTIONERS} == set(FAMILIES)


@CAPTIONERS
def test_labels_and_loss_cover_only_caption_tokens(captioner: str, tmp_path: Path) -> None:
    model, processor = loaded(captioner, tmp_path / "model")
    inputs = processor(before=[A, B], after=[B, A], captions=[SHORT, LONG], text=["", "what changed?"])
    scored = [row[row >= 0].tolist() for row in inputs["labels"]]
    texts = [processor.tokenizer.decode(row, skip_special_tokens=True).strip() for row in scored]
    assert texts == [SHORT, LONG] and all(row[-1] == processor.tokenizer.eos_token_id for row in scored)
    with torch.no_grad():
        whole = model(**inputs, num_items_in_batch=1).loss
        mean = model(**inputs).loss
    assert whole.item() == pytest.approx(mean.item() * sum(map(len, scored)), rel=1e-5)


@CAPTIONERS
def test_the_order_of_the_images_matters(captioner: str, tmp_path: Path) -> None:
    model, processor = loaded(captioner, tmp_path / "model")
    straight, swapped = (processor(before=x, after=y, captions=SHORT) for x, y in ((A, B), (B, A)))
    with torch.no_grad():
        assert abs(model(**straight).loss.item() - model(**swapped).loss.item()) > 1e-4


@CAPTIONERS
def test_the_likelihood_of_a_sentence_is_that_of_its_tokens(captioner: str, tmp_path: Path) -> None:
    model, processor = loaded(captioner, tmp_path / "model")
    found = log_likelihoods(model, processor, [(A, B), (B, A), (A, A)], [[SHORT, LONG], [], [SHORT]], batch_size=2)
    assert [len(scores) for scores in found] == [2, 0, 1]
    for pair, sentence, score in (
        ((A, B), SHORT, found[0][0]),
        ((A, B), LONG, found[0][1]),
        ((A, A), SHORT, found[2][0]),
    ):
        with torch.no_grad():
            loss = model(**processor(before=pair[0], after=pair[1], captions=sentence), num_items_in_batch=1).loss
        assert score == pytest.approx(-loss.item(), rel=1e-4)
    with pytest.raises(ValueError, match="1 pairs, but 2 lists of sentences"):
        log_likelihoods(model, processor, [(A, B)], [[SHORT], [LONG]])


@CAPTIONERS
def test_what_shares_one_pass_is_what_each_gives_alone(captioner: str, tmp_path: Path) -> None:
    model, processor = loaded(captioner, tmp_path / "model")
    encoded = []
    for name, module in model.named_modules():
        if re.search(r"patch_embed(ding|der|dings)?$", name):
            module.register_forward_pre_hook(lambda *_: encoded.append(1))
    pairs, asked = [(A, B), (WIDE, WIDE), (B, A)], [[SHORT, LONG, "a"], [SHORT], [LONG, SHORT]]
    text, options = "what changed?", {"max_new_tokens": 6, "eos_token_id": None}
    about = EncodedPairs(model, processor, pairs, text)
    once = len(encoded)
    assert once >= 1
    first = about.log_likelihoods(asked, batch_size=4)
    beams, greedy = about.generate(num_beams=3, num_return_sequences=3, **options), about.generate(**options)
    again = about.log_likelihoods(asked)
    assert len(encoded) == once, "the images are encoded once"
    alone = [generate_tokens(model, processor(*pair, text=text), **options) for pair in pairs]
    assert torch.equal(greedy, torch.cat(alone)) and len(beams) == 9
    for pair, sentences, scores, others in zip(pairs, asked, first, again, strict=True):
        assert scores == pytest.approx(others, abs=1e-4)
        for sentence, score in zip(sentences, scores, strict=True):
            with torch.no_grad():
                whole = model(**processor(*pair, captions=sentence, text=text), num_items_in_batch=1)
            assert score == pytest.approx(-whole.loss.item(), abs=1e-4)


@CAPTIONERS
def test_a_model_that_cannot_keep_its_images_gives_the_same(
    captioner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = loaded(captioner, tmp_path / "model")
    if not isinstance(model, ChatCaptioner):
        pytest.skip("BLIP-2 always can")
    kept = EncodedPairs(model, processor, [(A, B)]).log_likelihoods([[SHORT, LONG]])
    monkeypatch.setattr(ChatCaptioner, "encode_images", lambda self, **inputs: inputs)
    about = EncodedPairs(model, processor, [(A, B)])
    assert "pixel_values" in about.inputs and len(about.generate(max_new_tokens=2)) == 1
    assert about.log_likelihoods([[SHORT, LONG]])[0] == pytest.approx(kept[0], abs=1e-4)


@CAPTIONERS
@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
def test_a_merged_adapter_gives_the_same_sentences(captioner: str, variant: str, tmp_path: Path) -> None:
    model, processor = loaded(captioner, tmp_path / "model")
    adapted = add_lora(model, 2, 4, 0.0, 0, parts=list(family_of(model).lora_targets), variant=variant)
    generator = torch.Generator().manual_seed(1)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name or "lora_embedding_B" in name:
            weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    save_adapter(adapted, processor, tmp_path / "run", base=str(tmp_path / "model"), revision=None)
    separate, processor = load(tmp_path / "run", device="cpu")
    options = {"max_new_tokens": 8, "eos_token_id": None}
    inputs = processor(before=[A, B], after=[B, A])
    expected = generate_tokens(separate, inputs, **options)
    together = merged(load(tmp_path / "run", device="cpu")[0])
    assert base_of(separate) is not None and base_of(together) is None and not together.training
    assert torch.equal(generate_tokens(together, inputs, **options), expected)
    base, _ = loaded(captioner, tmp_path / "model")
    [with_adapter], [with_merged], [without] = (
        log_likelihoods(each, processor, [(A, B)], [[LONG]])[0] for each in (separate, together, base)
    )
    assert with_merged == pytest.approx(with_adapter, abs=1e-3) and abs(without - with_adapter) > 0.1
    assert merged(base) is base


@CAPTIONERS
def test_evidence_has_a_strongest_part(captioner: str, tmp_path: Path) -> None:
    model, processor = loaded(captioner, tmp_path / "model")
    found = find_evidence(model, processor, (A, B), SHORT, grid=2)
    assert found.heat.shape == (2, 2) and 0 <= found.heat.min() <= found.heat.max() <= 1
    assert np.isfinite(found.strength) and all(0 <= edge <= 1 for edge in found.box)


@CAPTIONERS
def test_the_best_sentences_and_the_probability_of_a_change(captioner: str, tmp_path: Path) -> None:
    model, processor = loaded(captioner, tmp_path / "model", processor={"max_caption_length": 4})
    sentences, others = likely_sentences(model, processor, [(A, B), (B, A)], 4)
    scores = [score for _, score in sentences]
    assert 1 <= len(sentences) <= 4 and scores == sorted(scores, reverse=True) and max(scores) < 0
    assert [[score] for score in scores] == [
        pytest.approx(score, rel=1e-4)
        for score in log_likelihoods(model, processor, [(A, B)] * len(scores), [[text] for text, _ in sentences])
    ]
    answer = explain(model, processor, (A, B), Calibration(unchanged=(SHORT,), temperature=100.0), count=4)
    assert [text for text, _ in answer.sentences] == [text for text, _ in sentences]
    assert 0 < answer.change_probability < 1 and 1 <= len(others) <= 4


@CAPTIONERS
def test_generation_returns_only_new_tokens(captioner: str, tmp_path: Path) -> None:
    model, processor = loaded(captioner, tmp_path / "model")
    inputs = processor(before=[A, B], after=[B, A], text=["", "what changed?"])
    tokens = generate_tokens(model, inputs, max_new_tokens=5, eos_token_id=None)
    assert tokens.shape == (2, 5)
    again = generate_tokens(model, inputs, max_new_tokens=5, eos_token_id=None)
    assert torch.equal(tokens, again), "decoding is greedy by default"


@CAPTIONERS
def test_settings_survive_saving_and_unknown_ones_are_refused(captioner: str, tmp_path: Path) -> None:
    model, processor = loaded(captioner, tmp_path / "model", processor={"prompt": "what changed?"})
    assert processor.settings["prompt"] == "what changed?"
    family_of(model).save_processor(processor, tmp_path / "model")
    assert loaded(captioner, tmp_path / "model")[1].settings == processor.settings
    assert json.loads(json.dumps(processor.settings)) == processor.settings
    with pytest.raises(ValueError, match="unknown processor setting 'size'"):
        loaded(captioner, tmp_path / "model", processor={"size": 3})


@CAPTIONERS
def test_lora_reaches_every_part_and_nothing_else_is_trained(captioner: str, tmp_path: Path) -> None:
    model, processor = loaded(captioner, tmp_path / "model")
    names = [name for name, _ in model.named_modules()]
    for part, pattern in family_of(model).lora_targets.items():
        assert [name for name in names if re.fullmatch(pattern, name)], part
    parts = list(family_of(model).lora_targets)
    adapted = add_lora(model, rank=2, alpha=4, dropout=0.0, seed=0, parts=parts)
    trainable = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert trainable and all("lora_" in name for name in trainable) and count_parameters(adapted)[0] > 0
    before = {name: weight.clone() for name, weight in adapted.state_dict().items()}
    optimizer = make_optimizer(adapted, learning_rate=0.01, weight_decay=0.0)
    inputs = processor(before=[A, B], after=[B, A], captions=[SHORT, LONG])
    for _ in range(2):  # the first step moves B only, since A's gradient passes through B, which starts at zero
        adapted(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    after = adapted.state_dict()
    assert {name for name in after if not torch.equal(before[name], after[name])} == set(trainable)
    save_adapter(adapted, processor, tmp_path / "run", base=str(tmp_path / "model"), revision=None)
    again, _ = load(tmp_path / "run", device="cpu")
    with torch.no_grad():
        # the same weights at other addresses may be summed in another order
        torch.testing.assert_close(again(**inputs).logits, adapted.eval()(**inputs).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
@CAPTIONERS
def test_no_gradient_passes_below_the_first_adapter(captioner: str, checkpointing: bool, tmp_path: Path) -> None:
    """Else the whole vision encoder would take part in the backward pass for nothing."""
    model, processor = loaded(captioner, tmp_path / "model")
    vision = adapted_modules(model)["vision"]
    inputs = processor(before=[A, B], after=[B, A], captions=[SHORT, LONG])
    for parts, expected in ((["language"], set()), (default_parts(model), {True})):
        adapted = add_lora(loaded(captioner, tmp_path / "model")[0], 2, 4, 0.0, 0, parts).train()
        if checkpointing:
            checkpoint_activations(adapted)
        seen: list[bool] = []

        def hook(_: Any, __: Any, output: torch.Tensor, seen: list[bool] = seen) -> None:
            seen.append(output.requires_grad)

        for name in vision:
            adapted.get_base_model().get_submodule(name).register_forward_hook(hook)
        adapted(**inputs).loss.backward()
        assert seen and set(seen) - {False} == expected, parts


@CAPTIONERS
def test_a_saved_adapter_is_trainable_only_on_request(captioner: str, tmp_path: Path) -> None:
    model, processor = loaded(captioner, tmp_path / "model")
    adapted = add_lora(model, 2, 4, 0.0, 0, parts=list(family_of(model).lora_targets))
    save_adapter(adapted, processor, tmp_path / "run", base=str(tmp_path / "model"), revision=None)
    fixed, _ = load(tmp_path / "run", device="cpu")
    continued, _ = load(tmp_path / "model", tmp_path / "run", device="cpu", trainable=True)
    assert count_parameters(fixed)[0] == 0 and count_parameters(continued) == count_parameters(adapted)


@CAPTIONERS
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_attention_implementation_is_the_one_asked_for(
    captioner: str, implementation: str, tmp_path: Path
) -> None:
    model, _ = loaded(captioner, tmp_path / "model", attn_implementation=implementation)
    assert {module.config._attn_implementation for module in model.modules() if hasattr(module, "config")} == {
        implementation
    }


@CAPTIONERS
def test_the_snippets_of_the_card_run_and_give_the_same_sentence(
    captioner: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = loaded(captioner, tmp_path / "model")
    facts = card_facts(model)
    assert json.loads(json.dumps(facts)) == facts
    assert set(facts) == {
        *("family", "tags", "method", "code", "requirements", "merged_use", "adapter_use", "limits"),
    }
    adapted = add_lora(model, 2, 4, 0.0, 0, parts=list(family_of(model).lora_targets))
    save_adapter(adapted, processor, tmp_path / "run", base=str(tmp_path / "model"), revision=None)
    A.save(tmp_path / "before.png")
    B.save(tmp_path / "after.png")
    monkeypatch.chdir(tmp_path)
    for use, place in (("merged_use", "model"), ("adapter_use", "run")):
        exec(facts[use].replace("NAME_OR_PATH", str(tmp_path / place)), {})
    first, second = capsys.readouterr().out.splitlines()
    assert first == second != ""


def test_unknown_model_types_are_refused_in_one_line() -> None:
    with pytest.raises(
        ValueError, match="'somewhere' contains .* type 'opt', .* not a model of images and text.*: use one"
    ):
        family_of_type("opt", "somewhere")
