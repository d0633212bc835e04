"""What chat models do in addition to the contract of all families (test_families.py), on a tiny model of each."""

import json
import logging
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_chat_models import (
    CHAT_FAMILIES,
    SENTENCES,
    TURN_END,
    chat_template,
    save_chat,
    saved_on_first_use,
    tiny_chat_model,
)
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, Qwen3VLProcessor

import train
from captioner_idc import chat_models, families
from captioner_idc.adapters import add_lora, make_optimizer, parts_without_gradient, save_adapter
from captioner_idc.captioning import caption, generate_tokens
from captioner_idc.chat_models import OLDEST, image_token_id
from captioner_idc.chat_pairs import ChatPairProcessor, Tiles, fit
from captioner_idc.exporting import export
from captioner_idc.families import FAMILIES, card_facts, family_of_type
from captioner_idc.loading import load, processor_fingerprint
from modeling_blip2idc import ImageError

ALL = pytest.mark.parametrize("family", CHAT_FAMILIES)
QWEN = ("qwen2_5_vl", "qwen3_vl", "qwen3_5")
CAPTIONS = SENTENCES[1:4]

Load = Callable[..., tuple[Any, ChatPairProcessor]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the folder of a family's tiny model."""
    return saved_on_first_use(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def tiny(folders: Callable[[str], Path]) -> Load:
    return lambda family, **options: load(folders(family), device="cpu", **options)


def picture(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 2, (4, 4, 3), dtype=np.uint8) * 255
    return Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST)


def pairs(count: int) -> list[tuple[Image.Image, Image.Image]]:
    """Return pairs of images of which no two pairs have the same sizes."""
    return [(picture(2 * i, (64 + 16 * i, 64)), picture(2 * i + 1, (64, 64 + 8 * i))) for i in range(count)]


def batch(processor: ChatPairProcessor, count: int = 2, **options: Any) -> Any:
    befores, afters = zip(*pairs(count), strict=True)
    return processor(befores, afters, [CAPTIONS[i % len(CAPTIONS)] for i in range(count)], **options)


def test_there_is_a_tiny_model_of_every_chat_family() -> None:
    assert {*CHAT_FAMILIES, "blip2"} == set(FAMILIES)


@ALL
def test_the_loss_falls_and_every_part_is_trained(tiny: Load, family: str) -> None:
    model, processor = tiny(family)
    model = add_lora(model, rank=4, alpha=8, dropout=0.0, seed=0).train()
    inputs, optimizer, losses = batch(processor, 8), make_optimizer(model, 0.02, 0.0), []
    for step in range(10):
        loss = model(**inputs).loss
        loss.backward()
        if step == 0:
            assert parts_without_gradient(model) == []
            vision = [w.grad for n, w in model.named_parameters() if "vis" in n and "lora_B" in n]
            assert vision and all(gradient is not None and gradient.any() for gradient in vision)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@ALL
def test_the_answers_of_a_batch_are_those_of_each_pair_alone(tiny: Load, family: str) -> None:
    model, processor = tiny(family)
    processor.tokenizer.padding_side = "right"  # as some repositories have it; the images differ in size
    together = caption(model, processor, pairs(3), batch_size=3, max_new_tokens=8)
    assert together == [caption(model, processor, [pair], max_new_tokens=8)[0] for pair in pairs(3)]


@ALL
def test_questions_of_different_lengths_are_padded_on_the_left(tiny: Load, family: str) -> None:
    model, processor = tiny(family)
    images, texts = [(picture(0), picture(1)), (picture(2), picture(3))], ["?", "the small red cube has been removed?"]
    inputs = processor(*zip(*images, strict=True), text=texts)
    assert inputs["attention_mask"][0, 0] == 0 and inputs["attention_mask"][:, -1].all()
    tokens = generate_tokens(model, inputs, max_new_tokens=6, eos_token_id=None)
    for row, (pair, text) in enumerate(zip(images, texts, strict=True)):
        alone = generate_tokens(model, processor(*pair, text=text), max_new_tokens=6, eos_token_id=None)
        assert torch.equal(tokens[row], alone[0])


@ALL
def test_answers_are_greedy_whatever_the_models_own_settings_say(
    folders: Callable[[str], Path], tiny: Load, family: str
) -> None:
    saved = json.loads((folders(family) / "generation_config.json").read_text())
    assert saved["do_sample"] is True and saved["temperature"] == 1.5
    model, processor = tiny(family)
    inputs = processor(*pairs(1)[0])
    tokens = generate_tokens(model, inputs, max_new_tokens=1, eos_token_id=None)
    with torch.no_grad():
        logits = model(**inputs).logits
    assert tokens.tolist() == [[logits[0, -1].argmax().item()]]
    longer = [generate_tokens(model, inputs, max_new_tokens=12, eos_token_id=None) for _ in range(3)]
    assert all(torch.equal(longer[0], each) for each in longer)


@ALL
def test_labels_are_the_answer_and_its_end_and_nothing_else(tiny: Load, family: str) -> None:
    _, processor = tiny(family)
    inputs = batch(processor, 3)
    rows = [[token for token in row if token >= 0] for row in inputs["labels"].tolist()]
    assert [processor.tokenizer.decode(row) for row in rows] == [text + TURN_END for text in CAPTIONS]
    for ids, labels, mask in zip(inputs["input_ids"], inputs["labels"], inputs["attention_mask"], strict=True):
        assert torch.equal(ids[labels >= 0], labels[labels >= 0]) and mask[0] == 1, "padding must be on the right"
    asked = processor(*pairs(1)[0])["input_ids"][0]
    answered = batch(processor, 1)
    first = (answered["labels"][0] >= 0).nonzero()[0, 0]
    assert torch.equal(answered["input_ids"][0, :first], asked), "training must ask as generation does"


@ALL
def test_a_batch_whose_images_are_missing_is_refused(tiny: Load, family: str) -> None:
    model, processor = tiny(family)
    inputs, question = batch(processor), processor(*pairs(1)[0])
    blind = {name: value for name, value in inputs.items() if name != "pixel_values"}
    with pytest.raises(ValueError, match="image tokens, but no pixel_values"):
        model(**blind)
    del question["pixel_values"]
    with pytest.raises(ValueError, match="image tokens, but no pixel_values"):
        generate_tokens(model, question, max_new_tokens=2)
    places = (inputs["input_ids"] == image_token_id(model.config)).nonzero()
    row, column = places[0].tolist()
    inputs["input_ids"][row, column] = processor.tokenizer.pad_token_id
    with pytest.raises(ValueError):
        model(**inputs)


# Without these, the model sees something else and says nothing.
SILENT = {"qwen2_5_vl": "mm_token_type_ids", "gemma3": "token_type_ids"}


@ALL
def test_every_output_of_the_familys_processor_is_passed_on(tiny: Load, family: str) -> None:
    model, processor = tiny(family)
    before, after = pairs(1)[0]
    content = [{"type": "image", "image": image} for image in (before, after)]
    chat = [{"role": "user", "content": [*content, {"type": "text", "text": processor.prompt}]}]
    given = {"padding": True, "images_kwargs": processor.image_options}
    plain = processor.processor.apply_chat_template(
        [chat], tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs=given
    )
    assert set(processor(before, after)) == set(plain)
    assert family not in SILENT or SILENT[family] in plain
    if family in SILENT:
        inputs = batch(processor)
        with torch.no_grad():
            whole = model(**inputs).loss
            part = model(**{name: value for name, value in inputs.items() if name != SILENT[family]}).loss
        assert whole != part


@ALL
@pytest.mark.parametrize("layout", ["two_images", "vertical", "horizontal"])
def test_both_images_reach_the_model_in_their_order(tiny: Load, family: str, layout: str) -> None:
    model, processor = tiny(family, processor={"layout": layout})
    before, after, other = picture(0), picture(1), picture(2)
    with torch.no_grad():
        losses = [
            model(**processor(*pair, CAPTIONS[0])).loss.item()
            for pair in ((before, after), (after, before), (other, after), (before, other))
        ]
    assert len(set(losses)) == 4
    black, white = Image.new("RGB", (64, 64)), Image.new("RGB", (64, 64), (255, 255, 255))
    pixels = processor(black, white)["pixel_values"].flatten(1).float()
    if layout == "two_images":
        half = pixels.numel() // 2 if family not in ("gemma4",) else None
        if half:
            assert pixels.flatten()[:half].mean() < pixels.flatten()[half:].mean(), "before must come first"
    elif layout == "vertical" and family in ("gemma3", "internvl"):
        rows = processor(black, white)["pixel_values"][0].mean(dim=(0, 2))  # [C, H, W] -> [H]
        assert rows[: len(rows) // 2].max() < rows[len(rows) // 2 :].min()


@ALL
def test_a_canvas_is_one_image_without_tiles(tiny: Load, family: str) -> None:
    model, processor = tiny(family)
    count = {}
    for layout in ("two_images", "vertical", "horizontal"):
        tokens = processor.with_settings(layout=layout)(picture(0), picture(1))["input_ids"]
        count[layout] = int((tokens == image_token_id(model.config)).sum())
    assert 0 < count["vertical"] <= count["two_images"] + 2 and 0 < count["horizontal"] <= count["two_images"] + 2
    if family == "internvl":  # whose own setting is to cut images into tiles
        assert count == {"two_images": 8, "vertical": 4, "horizontal": 4}
    if isinstance(FAMILIES[family].load_processor.args[0], Tiles):
        large = processor.with_settings(pixels=4 * processor.pixels)
        tiled, canvas = large(picture(0), picture(1)), large.with_settings(layout="vertical")(picture(0), picture(1))
        places = [int((inputs["input_ids"] == image_token_id(model.config)).sum()) for inputs in (tiled, canvas)]
        assert places == [2 * 5 * 4, 4], "5 tiles of 4 tokens per image, one for the canvas"


@pytest.mark.parametrize("family", QWEN)
def test_two_frames_are_the_moments_of_one_patch(tiny: Load, family: str) -> None:
    model, processor = tiny(family, processor={"layout": "two_frames"})
    two = processor.with_settings(layout="two_images")
    frames, images = processor(picture(0), picture(1)), two(picture(0), picture(1))
    count = [int((inputs["input_ids"] == image_token_id(model.config)).sum()) for inputs in (frames, images)]
    assert 2 * count[0] == count[1] and len(frames["image_grid_thw"]) == 1
    size = processor.image_processor.patch_size
    seen = frames["pixel_values"].view(-1, 3, 2, size, size)
    first, second = images["pixel_values"].view(2, -1, 3, 2, size, size)
    assert torch.equal(seen[:, :, 0], first[:, :, 0]) and torch.equal(seen[:, :, 1], second[:, :, 1])
    (a, b), (c, d) = pairs(2)  # sizes differ
    together = processor([a, c], [b, d], CAPTIONS[:2])
    assert torch.equal(together["pixel_values"], torch.cat([processor(*p)["pixel_values"] for p in ((a, b), (c, d))]))
    with torch.no_grad():
        assert model(**together).loss > 0


def test_two_frames_are_refused_where_a_patch_has_one_moment(tiny: Load) -> None:
    with pytest.raises(ValueError, match="layout must be one of two_images, vertical, horizontal for this model"):
        tiny("gemma3", processor={"layout": "two_frames"})


IN_A_FRESH_PROCESS = """
import json, sys
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText
answers = {}
for family, base, run, inputs in json.load(sys.stdin):
    model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), run).eval()
    inputs = load_file(inputs)
    tokens = model.generate(**inputs, do_sample=False, max_new_tokens=8)
    answers[family] = tokens[:, inputs["input_ids"].shape[1]:].tolist()
assert "captioner_idc" not in sys.modules and "modeling_blip2idc" not in sys.modules
print(json.dumps(answers))
"""


def test_saved_adapters_give_the_same_answers_by_plain_peft(
    folders: Callable[[str], Path], tiny: Load, tmp_path: Path
) -> None:
    expected, saved = {}, []
    for family in CHAT_FAMILIES:
        model, processor = tiny(family)
        model = add_lora(model, rank=4, alpha=8, dropout=0.0, seed=0)
        optimizer, inputs = make_optimizer(model, 0.02, 0.0), batch(processor)
        for _ in range(3):
            model(**inputs).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        run, file = tmp_path / family, tmp_path / f"{family}.safetensors"
        save_adapter(model.eval(), processor, run, base=str(folders(family)), revision=None)
        question = processor(*pairs(1)[0])
        expected[family] = generate_tokens(model, question, max_new_tokens=8)
        save_file({name: value.contiguous() for name, value in question.items()}, file)
        saved.append((family, str(folders(family)), str(run), str(file)))
        again, other = load(run, device="cpu")
        assert torch.equal(generate_tokens(again, other(*pairs(1)[0]), max_new_tokens=8), expected[family])
        assert other.settings == processor.settings
        assert processor_fingerprint(other) == processor_fingerprint(processor)
        assert card_facts(again)["family"] == family
    command = [sys.executable, "-W", "ignore", "-c", IN_A_FRESH_PROCESS]
    done = subprocess.run(command, input=json.dumps(saved), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {name: each.tolist() for name, each in expected.items()}


@pytest.mark.parametrize("family", ["qwen3_vl", "idefics3"])
def test_the_folder_of_an_adapter_does_not_pretend_to_have_the_whole_processor(
    tiny: Load, tmp_path: Path, family: str
) -> None:
    _, processor = tiny(family, processor={"prompt": "Which?", "max_caption_length": 9})
    processor.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "processor_config.json").read_text())
    assert content == {"processor_class": "ChatPairProcessor", "settings": processor.settings}
    assert not list(tmp_path.glob("*preprocessor*"))
    assert not isinstance(AutoProcessor.from_pretrained(tmp_path), type(processor.processor).__mro__[1])


@ALL
def test_a_merged_model_needs_no_other_base(
    folders: Callable[[str], Path], tiny: Load, tmp_path: Path, family: str
) -> None:
    model, processor = tiny(family, processor={"prompt": "Which?"})
    model = add_lora(model, rank=2, alpha=4, dropout=0.0, seed=0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05, generator=torch.Generator().manual_seed(1))
    save_adapter(model, processor, tmp_path / "run", base=str(folders(family)), revision=None)
    export(tmp_path / "merged", adapter=tmp_path / "run", output_format="remote-code")
    whole, saved = load(tmp_path / "merged", device="cpu")
    assert saved.settings == processor.settings
    for name in ("processor_config.json", "video_preprocessor_config.json"):  # as transformers reads them
        own, written = (json.loads((place / name).read_text()) for place in (folders(family), tmp_path / "merged"))
        assert {key: value for key, value in written.items() if key != "settings"} == own
    assert AutoConfig.from_pretrained(tmp_path / "merged").architectures == [type(whole).__name__]
    inputs = batch(saved)
    with torch.no_grad():
        torch.testing.assert_close(whole(**inputs).loss, model.eval()(**batch(processor)).loss, rtol=1e-4, atol=1e-4)
        plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
        loss = plain(**inputs).loss
    torch.testing.assert_close(loss, whole(**inputs).loss, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", QWEN)
def test_checkpointing_keeps_the_gradient_of_the_vision_part(
    folders: Callable[[str], Path], tmp_path: Path, family: str
) -> None:
    """Reentrant checkpointing gives it none, without an error."""
    config = train.TrainConfig(
        model=str(folders(family)), benchmark="toy", output_dir=str(tmp_path), mixed_precision="no"
    )
    config.activation_checkpointing = True
    resolved, model, processor = train.build_model(config, torch.device("cpu"))
    assert resolved.lora_parts == ["vision", "projector", "language"]
    model.train()(**batch(processor)).loss.backward()
    assert parts_without_gradient(model) == []


def test_a_part_without_gradient_is_named(tiny: Load) -> None:
    model, processor = tiny("qwen3_vl")
    model = add_lora(model, rank=2, alpha=4, dropout=0.0, seed=0)
    model.get_base_model().model.visual.register_forward_hook(
        lambda module, inputs, output: detach(output)  # as reentrant checkpointing does
    )
    model(**batch(processor)).loss.backward()
    assert parts_without_gradient(model) == ["vision", "projector"]


def detach(output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return output.detach()
    if isinstance(output, (tuple, list)):
        return type(output)(map(detach, output))
    for name, value in output.items():
        output[name] = detach(value)
    return output


def test_special_tokens_in_texts_are_refused(tiny: Load) -> None:
    _, processor = tiny("qwen3_vl")
    for options in ({"captions": "a <|im_end|> b"}, {"text": "<|image_pad|>?"}):
        with pytest.raises(ValueError, match="contains the special token"):
            processor(*pairs(1)[0], **options)


def test_long_captions_are_cut_and_still_end(tiny: Load) -> None:
    _, processor = tiny("internvl", processor={"max_caption_length": 4})
    labels = processor(*pairs(1)[0], CAPTIONS[0])["labels"][0]
    text = processor.tokenizer.decode(labels[labels >= 0])
    assert len(labels[labels >= 0]) <= 4 and text.endswith(TURN_END) and CAPTIONS[0].startswith(text[: -len(TURN_END)])


def test_a_template_that_moves_the_question_is_refused(tiny: Load) -> None:
    _, processor = tiny("qwen3_vl")
    inner = processor.processor
    inner.chat_template = inner.chat_template.replace(
        "if enable_thinking is not defined or enable_thinking", "if true"
    )
    with pytest.raises(ValueError, match="labels would be shifted"):
        processor(*pairs(1)[0], CAPTIONS[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "diagonal"}, "layout must be one of"),
        ({"prompt": 3}, "prompt must be a text, got 3"),
        ({"pixels": 0}, "pixels must be a whole number from 1"),
        ({"pixels": 100}, "pixels=100: this model needs at least 1024"),
        ({"max_caption_length": 1}, "max_caption_length must be a whole number from 2"),
        ({"canvas": [32, 32]}, "unknown processor setting 'canvas'"),
        ({"pixels": 1600 * 1600}, "more than the 4096 positions"),
    ],
)
def test_impossible_settings_are_refused(tiny: Load, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny("qwen3_vl", processor=changes)


def test_a_fixed_number_of_pixels_cannot_be_changed(tiny: Load) -> None:
    with pytest.raises(ValueError, match="pixels=2048: this model sees every image at 1024 pixels"):
        tiny("gemma3", processor={"pixels": 2048})


def test_images_wait_for_their_batch_at_the_size_that_the_network_sees(tiny: Load, tmp_path: Path) -> None:
    _, processor = tiny("qwen3_vl", processor={"pixels": 128 * 128})
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    picture(0, (1600, 1200)).save(tmp_path / "before.jpg", exif=exif)
    before, after = processor.load_pair(tmp_path / "before.jpg", picture(1, (400, 10)), "the pair")
    assert before.picture.size == (96, 128) and after.picture.width * after.picture.height <= 128 * 128
    assert processor(before, after)["image_grid_thw"].tolist()[0] == [1, 8, 6]
    with pytest.raises(ImageError, match="after image of the pair: .*missing.png.* does not exist"):
        processor.load_pair(tmp_path / "before.jpg", tmp_path / "missing.png", "the pair")


def test_fit_never_enlarges_and_keeps_to_the_limit() -> None:
    assert fit((64, 64), 4096) == (64, 64) and fit((4000, 3000), 512 * 512, 32) == (576, 416)
    assert fit((10, 4000), 1024, 32) == (32, 640)


@pytest.mark.parametrize("family", ["qwen3_vl", "smolvlm"])
def test_loader_processes_can_pickle_the_processor(tiny: Load, family: str) -> None:
    _, processor = tiny(family)
    again = pickle.loads(pickle.dumps(processor))
    assert torch.equal(again(*pairs(1)[0])["pixel_values"], processor(*pairs(1)[0])["pixel_values"])


UNUSABLE = {
    "mistral3": "processor needs torchvision",
    "lfm2_vl": "its image processor needs torchvision",
    "opt": "not a model of images and text",
}


@pytest.mark.parametrize("model_type", UNUSABLE)
def test_models_that_cannot_work_are_refused_in_one_line(model_type: str) -> None:
    with pytest.raises(ValueError, match=UNUSABLE[model_type]) as error:
        family_of_type(model_type, "somewhere")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("model", ["idefics3", "paligemma", "git"])
def test_a_model_without_chat_template_is_refused(tmp_path: Path, model: str) -> None:
    folder = save_chat(tmp_path / "model", model)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(ValueError, match="has no chat template: choose a model that is trained to answer") as error:
        load(folder, device="cpu")
    assert "\n" not in str(error.value)


def test_a_model_without_image_tokens_is_refused(tmp_path: Path) -> None:
    folder = save_chat(tmp_path / "model", "git")
    (folder / "chat_template.jinja").write_text(chat_template("<image>"))
    with pytest.raises(ValueError, match="'.*model' cannot be loaded: .* names no image token") as error:
        load(folder, device="cpu")
    assert "\n" not in str(error.value)


IMAGE = "{% if c['type'] == 'image' %}"


@ALL
def test_a_model_of_one_image_is_refused_unless_it_gets_a_canvas(tmp_path: Path, family: str) -> None:
    folder = save_chat(tmp_path / "model", family)
    template = folder / "chat_template.jinja"
    assert IMAGE in template.read_text()
    # the second image is not written
    only_first = "{% if c['type'] == 'image' and not loop.first %}{% elif c['type'] == 'image' %}"
    template.write_text(template.read_text().replace(IMAGE, only_first))
    with pytest.raises(ValueError, match="takes one image only: put both on one canvas with the setting") as error:
        load(folder, device="cpu")
    assert "\n" not in str(error.value) and str(error.value).endswith("""--processor '{"layout": "vertical"}'.""")
    model, processor = load(folder, device="cpu", processor={"layout": "vertical"})
    assert isinstance(caption(model, processor, pairs(1), max_new_tokens=2)[0], str)


@pytest.mark.parametrize("silently", [True, False])
def test_a_processor_that_drops_or_refuses_the_second_image_is_refused(
    folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, silently: bool
) -> None:
    plain = Qwen3VLProcessor.apply_chat_template

    def only_first(self: Any, chats: Any, **options: Any) -> Any:
        for chat in chats if options["tokenize"] else []:
            if len(chat[0]["content"]) > 2 and not silently:
                raise ValueError("one image, please")
            chat[0]["content"] = [chat[0]["content"][0], chat[0]["content"][-1]]
        return plain(self, chats, **options)

    monkeypatch.setattr(Qwen3VLProcessor, "apply_chat_template", only_first)
    with pytest.raises(ValueError, match="takes one image only"):
        load(folders("qwen3_vl"), device="cpu")
    load(folders("qwen3_vl"), device="cpu", processor={"layout": "vertical"})


def test_an_older_transformers_is_refused_in_one_line(
    folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_models.transformers, "__version__", "5.20.2")
    with pytest.raises(ValueError, match="chat models need transformers 5.21 or newer, this is 5.20.2: pip") as error:
        load(folders("qwen3_vl"), device="cpu")
    assert "\n" not in str(error.value)


def test_the_oldest_transformers_is_that_of_the_package(root: Path) -> None:
    assert f'"transformers>={OLDEST}"' in (root / "setup.py").read_text()


def test_a_type_that_is_not_listed_with_an_image_processor_is_tried(tmp_path: Path) -> None:
    model, processor = load(save_chat(tmp_path / "model", "qwen3_vl_moe"), device="cpu")
    assert model.config.model_type == "qwen3_vl_moe"
    model = add_lora(model, rank=2, alpha=4, dropout=0.0, seed=0)
    model(**batch(processor)).loss.backward()
    assert parts_without_gradient(model) == []


def test_an_unknown_type_is_tried_like_the_others_and_the_log_says_so(
    folders: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    families._untested_family.cache_clear()
    monkeypatch.delitem(FAMILIES, "qwen3_vl")
    with caplog.at_level(logging.WARNING):
        model, processor = load(folders("qwen3_vl"), device="cpu")
        add_lora(model, rank=2, alpha=4, dropout=0.0, seed=0)
    assert [record.message for record in caplog.records if "not tested" in record.message] == [
        "models of type 'qwen3_vl' are not tested here: trying it like other chat models"
    ]
    assert processor.settings["layout"] == "two_images" and caption(model, processor, pairs(1), max_new_tokens=2)
    assert card_facts(model)["family"] == "qwen3_vl"


def test_a_tokenizer_of_another_model_is_refused(folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = save_chat(tmp_path / "model", "gemma3")
    CHAT_FAMILIES["qwen3_vl"]()[1].tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match="'.*model'.*"):
        load(folder, device="cpu")


def test_four_bits_need_a_gpu(folders: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match="quantize='4bit' needs a CUDA GPU, this is 'cpu'"):
        load(folders("qwen3_vl"), device="cpu", quantize="4bit")


def test_weights_of_the_tiny_models_are_drawn_from_the_seed() -> None:
    config, _ = CHAT_FAMILIES["internvl"]()
    first, again, other = (tiny_chat_model(config, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
