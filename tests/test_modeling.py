"""The model: equality with BLIP-2, refused inputs, generation, and use without this package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import (
    QUERY_TOKENS,
    save_plain_blip2,
    save_tiny,
    tiny_config,
    tiny_model,
    tiny_processor,
)
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor, Blip2ForConditionalGeneration
from transformers.utils import logging
from without_package import ALONE

from modeling_blip2idc import Blip2IdcConfig, Blip2IdcForConditionalGeneration, Blip2IdcProcessor
from modeling_blip2idc.modeling_blip2idc import OPT_NEWLINE

KINDS = pytest.mark.parametrize("kind", ["opt", "t5"])
IMAGE_TOKEN, EOS = 3, 2


def image(seed: int) -> Image.Image:
    """Return coarse blocks: a difference strong enough for a random model to answer with another sentence."""
    blocks = np.random.default_rng(seed).integers(0, 2, (4, 4, 3), dtype=np.uint8) * 255
    return Image.fromarray(blocks).resize((32, 32), Image.Resampling.NEAREST)


A, B = image(0), image(1)


def labelled(kind: str, inputs: dict[str, torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
    """Return the logits that predict a token with a label; for T5, these are all."""
    return logits if kind == "t5" else logits[:, :-1][:, (inputs["labels"][:, 1:] != -100).any(dim=0)]


@KINDS
def test_plain_blip2_folder_loads_whole_and_gives_bit_equal_logits(kind: str, tmp_path: Path, monkeypatch) -> None:
    warnings = []
    monkeypatch.setattr(logging.get_logger("transformers.configuration_utils"), "warning", warnings.append)
    save_plain_blip2(tmp_path, kind)
    plain = Blip2ForConditionalGeneration.from_pretrained(tmp_path).eval()
    ours, report = Blip2IdcForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    assert ours.config.model_type == "blip2idc" and not warnings
    inputs = Blip2IdcProcessor.from_blip2(tmp_path)(before=A, after=B, captions="nothing has changed")
    with torch.no_grad():
        theirs, own = plain(**inputs), ours.eval()(**inputs)
        without_labels = (
            ours(**{name: value for name, value in inputs.items() if name != "labels"}) if kind == "opt" else own
        )
    assert torch.equal(theirs.logits, without_labels.logits) and theirs.loss.item() == pytest.approx(
        own.loss.item(), abs=1e-6
    )
    assert torch.equal(labelled(kind, inputs, theirs.logits), own.logits)


@KINDS
def test_the_loss_of_parts_adds_up_and_ignores_padding(kind: str) -> None:
    """The loss of a step does not depend on how it is split into batches and how these are padded."""
    model, processor = tiny_model(kind), tiny_processor(kind)
    captions = ["nothing has changed", "the red ball was added to the left of the cube", "a cube"]
    whole = processor(before=[A, B, A], after=[B, A, A], captions=captions)
    tokens = (whole["labels"] != -100).sum()
    parts = [
        processor(before=before, after=after, captions=text)
        for before, after, text in zip([A, B, A], [B, A, A], captions, strict=True)
    ]
    parts[0]["labels"] = torch.nn.functional.pad(parts[0]["labels"], (0, 5), value=-100)
    if kind == "opt":
        parts[0]["input_ids"] = torch.nn.functional.pad(parts[0]["input_ids"], (0, 5), value=1)
        parts[0]["attention_mask"] = torch.nn.functional.pad(parts[0]["attention_mask"], (0, 5), value=0)
    with torch.no_grad():
        summed = sum(model(**part, num_items_in_batch=tokens).loss for part in parts)
        assert summed.item() == pytest.approx(model(**whole).loss.item(), abs=1e-5)
        unlabelled = {**whole, "labels": torch.full_like(whole["labels"], -100)}
        assert model(**unlabelled, num_items_in_batch=tokens).loss == 0


def test_the_head_sees_only_positions_with_labels() -> None:
    model, processor = tiny_model(), tiny_processor()
    seen = []
    model.language_model.lm_head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    inputs = processor(before=A, after=B, captions="nothing has changed")
    model(**inputs)
    assert seen == [(1, int((inputs["labels"] != -100).sum()), 32)]


@KINDS
def test_loss_depends_on_images_and_reaches_every_part(kind: str) -> None:
    model, processor = tiny_model(kind), tiny_processor(kind)
    loss = model(**processor(before=A, after=B, captions="nothing has changed")).loss
    swapped = model(**processor(before=B, after=A, captions="nothing has changed")).loss
    assert abs(loss.item() - swapped.item()) > 1e-4
    loss.backward()
    for part in (model.query_tokens, model.language_projection.weight, model.vision_model.post_layernorm.weight):
        assert part.grad.abs().max() > 0


@KINDS
@pytest.mark.parametrize(
    ("tokens", "found"),
    [([0, 5, 6], "[0]"), ([IMAGE_TOKEN] * 3 + [0], "[3]"), ([IMAGE_TOKEN] * 5 + [0], "[5]")],
    ids=["none", "too few", "too many"],
)
def test_wrong_number_of_image_tokens_is_refused(kind: str, tokens: list[int], found: str) -> None:
    model, pixels, input_ids = tiny_model(kind), torch.zeros(1, 3, 32, 32), torch.tensor([tokens])
    for call in (model.forward, model.generate):
        with pytest.raises(ValueError) as error:
            call(pixel_values=pixels, input_ids=input_ids)
        assert f"exactly {QUERY_TOKENS} image tokens" in str(error.value) and f"found {found}" in str(error.value)
        assert "Blip2IdcProcessor" in str(error.value)


def test_image_tokens_are_counted_per_row() -> None:
    rows = torch.tensor([[IMAGE_TOKEN] * 3 + [0, 0, 0], [IMAGE_TOKEN] * 5 + [0]])
    model = tiny_model()
    for call in (model.forward, model.generate):
        with pytest.raises(ValueError, match=r"found \[3, 5\]"):
            call(pixel_values=torch.zeros(2, 3, 32, 32), input_ids=rows)
        with pytest.raises(ValueError, match="3 canvases in pixel_values, but 2 rows"):
            call(pixel_values=torch.zeros(3, 3, 32, 32), input_ids=rows)


def test_input_ids_are_required_and_embeddings_are_for_forward_only() -> None:
    model, inputs = tiny_model(), tiny_processor()(before=A, after=B)
    with pytest.raises(ValueError, match="input_ids is missing.*Blip2IdcProcessor"):
        model(pixel_values=inputs["pixel_values"])
    with pytest.raises(ValueError, match="input_ids is missing.*Blip2IdcProcessor"):
        model.generate(inputs["pixel_values"])
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    mask = inputs["attention_mask"]
    by_embeds = model(pixel_values=inputs["pixel_values"], inputs_embeds=embeds, attention_mask=mask).logits
    assert torch.equal(by_embeds, model(**inputs).logits)
    with pytest.raises(ValueError, match=r"found \[3\]"):
        model(pixel_values=inputs["pixel_values"], inputs_embeds=embeds[:, 1:], attention_mask=mask[:, 1:])
    with pytest.raises(ValueError, match="not inputs_embeds"):
        model.generate(inputs["pixel_values"], inputs_embeds=embeds)


@KINDS
def test_the_models_generation_config_is_used_also_after_reloading(kind: str, tmp_path: Path) -> None:
    model, inputs = tiny_model(kind), tiny_processor(kind)(before=A, after=B)
    first = model.generate(**inputs, max_new_tokens=9)[0].tolist()
    assert len(first) == 9, "choose another seed: the checks below need a sentence of nine tokens"
    model.generation_config.max_new_tokens = 3
    assert model.generate(**inputs)[0].tolist() == first[:3]
    model.generation_config.eos_token_id = first[1]
    expected = first[: first.index(first[1]) + 1]
    assert model.generate(**inputs)[0].tolist() == expected
    model.save_pretrained(tmp_path)
    reloaded = Blip2IdcForConditionalGeneration.from_pretrained(tmp_path)
    assert reloaded.generate(**inputs)[0].tolist() == expected
    assert model.generate(**inputs, max_new_tokens=9, eos_token_id=EOS)[0].tolist() == first
    assert model.generation_config.max_new_tokens == 3  # a call does not change the config


@KINDS
def test_generate_returns_new_tokens_only(kind: str) -> None:
    model, processor = tiny_model(kind), tiny_processor(kind)
    inputs = processor(before=[A, B], after=[B, A], text=["what?", "say what changed:"])
    tokens = model.generate(**inputs, max_new_tokens=5, eos_token_id=None)
    assert tokens.shape == (2, 5)
    output = model.generate(
        **inputs, max_new_tokens=5, eos_token_id=None, return_dict_in_generate=True, output_scores=True
    )
    assert output.sequences.tolist() == tokens.tolist()
    # Greedy: each new token is the likeliest of its own step, so nothing else was cut off.
    assert torch.stack([score.argmax(dim=-1) for score in output.scores], dim=1).tolist() == tokens.tolist()
    beams = model.generate(**inputs, max_new_tokens=4, num_beams=3, num_return_sequences=2, eos_token_id=None)
    assert beams.shape == (4, 4)
    assert "what" not in processor.batch_decode(tokens, skip_special_tokens=True)[0]


@KINDS
def test_generated_tokens_are_those_that_forward_prefers(kind: str) -> None:
    """Teacher-forced with its own sentence, the model prefers the same tokens: both paths see the same images."""
    model, inputs = tiny_model(kind), tiny_processor(kind)(before=A, after=B)
    tokens = model.generate(**inputs, max_new_tokens=5, eos_token_id=None, suppress_tokens=[IMAGE_TOKEN])
    with torch.no_grad():
        if kind == "opt":
            rows = torch.cat([inputs["input_ids"], tokens], dim=1)
            logits = model(pixel_values=inputs["pixel_values"], input_ids=rows).logits[:, -6:-1]
        else:
            logits = model(**inputs, labels=tokens).logits
    logits[:, :, IMAGE_TOKEN] = -torch.inf
    assert logits.argmax(dim=-1).tolist() == tokens.tolist()


@KINDS
def test_batched_and_single_generation_agree(kind: str) -> None:
    model, processor = tiny_model(kind), tiny_processor(kind)
    befores, afters, prompts = [A, B, A], [B, A, A], ["", "what changed between the images?", "what?"]
    together = model.generate(
        **processor(before=befores, after=afters, text=prompts), max_new_tokens=8, eos_token_id=None
    )
    alone = [
        model.generate(**processor(before=before, after=after, text=text), max_new_tokens=8, eos_token_id=None)[0]
        for before, after, text in zip(befores, afters, prompts, strict=True)
    ]
    assert together.tolist() == [tokens.tolist() for tokens in alone]
    assert len({tuple(tokens.tolist()) for tokens in alone}) > 1


@KINDS
def test_position_embeddings_are_interpolated_for_other_canvases(kind: str) -> None:
    model, processor = tiny_model(kind), tiny_processor(kind, canvas=(64, 32))
    inputs = processor(before=A, after=B, captions="nothing has changed")
    with torch.no_grad():
        expected = Blip2ForConditionalGeneration.forward(model, **inputs, interpolate_pos_encoding=True)
        own = model(**inputs)
    assert torch.equal(own.logits, labelled(kind, inputs, expected.logits))
    assert own.vision_outputs.last_hidden_state.shape[1] == 8 * 4 + 1
    prompt = processor(before=A, after=B)
    assert torch.equal(
        model.generate(**prompt, max_new_tokens=4, eos_token_id=None),
        model.generate(**prompt, max_new_tokens=4, eos_token_id=None, interpolate_pos_encoding=True),
    )
    # A smaller canvas would pass through BLIP-2 with the wrong positions and no error.
    small = tiny_processor(kind, canvas=(16, 32))(before=A, after=B, captions="nothing has changed")
    with torch.no_grad():
        expected = Blip2ForConditionalGeneration.forward(model, **small, interpolate_pos_encoding=True)
        assert torch.equal(model(**small).logits, labelled(kind, small, expected.logits))


def test_canvas_must_be_a_multiple_of_the_patch_size() -> None:
    model, inputs = tiny_model(), tiny_processor(canvas=(36, 32))(before=A, after=B)
    for call in (model.forward, model.generate):
        with pytest.raises(ValueError, match=r"36x32 is not a multiple of the patch size 8: .*\[40, 32\]"):
            call(**inputs)


def test_opt_checkpoints_that_end_with_a_newline_also_end_with_eos() -> None:
    model = tiny_model()
    model.generation_config.eos_token_id, model.generation_config.bos_token_id = OPT_NEWLINE, 7
    settings, unused = model._generation_settings(None, {"num_beams": 2, "other": 1})
    assert settings.eos_token_id == [OPT_NEWLINE, 7] and settings.num_beams == 2 and unused == {"other": 1}
    assert model._generation_settings(None, {"eos_token_id": 5})[0].eos_token_id == 5
    assert tiny_model()._generation_settings(None, {})[0].eos_token_id == EOS


def test_config_fills_in_the_image_token_of_old_checkpoints() -> None:
    values = tiny_config().to_dict() | {"image_token_index": None}
    values.pop("model_type")
    config = Blip2IdcConfig(**values)
    assert config.image_token_index == config.image_token_id == 50265
    assert {"AutoConfig", "AutoModel", "AutoModelForImageTextToText"} <= config.auto_map.keys()


@KINDS
def test_auto_classes_of_this_process_need_no_remote_code(kind: str, tmp_path: Path) -> None:
    save_tiny(tmp_path, kind)
    assert type(AutoModel.from_pretrained(tmp_path)) is Blip2IdcForConditionalGeneration
    assert type(AutoModelForImageTextToText.from_pretrained(tmp_path)) is Blip2IdcForConditionalGeneration
    assert type(AutoProcessor.from_pretrained(tmp_path)) is Blip2IdcProcessor


ANSWER = """
import json, sys
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

answers = []
for folder in sys.argv[1:]:
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    inputs = processor(before="a.png", after="b.png")
    for auto in (AutoModel, AutoModelForImageTextToText):
        model = auto.from_pretrained(folder, trust_remote_code=True)
        tokens = model.generate(**inputs, max_new_tokens=8, eos_token_id=None)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
        answers.append({
            "sentence": processor.batch_decode(tokens, skip_special_tokens=True)[0],
            "classes": [type(each).__name__ for each in (model, processor, config)],
            "remote": all(type(each).__module__.startswith("transformers_modules.") for each in (model, processor)),
        })
    model.save_pretrained(folder + "-again")  # copies the code too
    processor.save_pretrained(folder + "-again")
print(json.dumps(answers))
"""


def run_without_package(folder: Path, models: list[str]) -> list[dict]:
    """Return the answers of a fresh process in `folder` that has transformers but not this package."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "home"),
        "HF_MODULES_CACHE": str(folder / "modules"),
    }
    command = [sys.executable, "-I", "-c", ALONE + ANSWER, *models]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_saved_folders_work_without_this_package(tmp_path: Path) -> None:
    A.save(tmp_path / "a.png")
    B.save(tmp_path / "b.png")
    expected = []
    for kind in ("opt", "t5"):
        folder = save_tiny(tmp_path / kind, kind, layout="horizontal", prompt="what?")
        code = {path.name for path in folder.glob("*.py")}
        assert code == {f"{name}.py" for name in REMOTE_FILES}
        processor = Blip2IdcProcessor.from_pretrained(folder)
        tokens = Blip2IdcForConditionalGeneration.from_pretrained(folder).generate(
            **processor(before=A, after=B), max_new_tokens=8, eos_token_id=None
        )
        answer = {
            "sentence": processor.batch_decode(tokens, skip_special_tokens=True)[0],
            "classes": ["Blip2IdcForConditionalGeneration", "Blip2IdcProcessor", "Blip2IdcConfig"],
            "remote": True,
        }
        expected += [answer, answer]
    assert expected[0] != expected[2]
    assert run_without_package(tmp_path, ["opt", "t5"]) == expected
    for kind in ("opt", "t5"):
        assert {path.name for path in (tmp_path / f"{kind}-again").iterdir()} == {
            path.name for path in (tmp_path / kind).iterdir()
        }
    assert run_without_package(tmp_path, ["opt-again"]) == expected[:2]


REMOTE_FILES = (
    *("configuration_blip2idc", "image_fusion", "modeling_blip2idc", "pipeline_blip2idc"),
    "processing_blip2idc",
)


def test_remote_files_import_siblings_by_one_dot_and_few_packages() -> None:
    source = Path(sys.modules["modeling_blip2idc"].__file__).parent
    allowed = {"torch", "transformers", "PIL", "numpy", "huggingface_hub", *sys.stdlib_module_names}
    for name in REMOTE_FILES:
        for line in (source / f"{name}.py").read_text().splitlines():
            words = line.split()
            if line.startswith(("import ", "from ")):
                module = words[1]
                is_allowed = module[1:] in REMOTE_FILES if module.startswith(".") else module.split(".")[0] in allowed
                assert is_allowed, f"{name}: {line}"


def test_all_code_of_the_package_is_saved_with_the_weights(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    source = Path(sys.modules["modeling_blip2idc"].__file__).parent
    assert {path.name for path in source.glob("*.py")} - {"__init__.py"} == {p.name for p in tmp_path.glob("*.py")}
