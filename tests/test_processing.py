"""The processor: pixels, tokens and labels, and its saved settings."""

import inspect
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import QUERY_TOKENS, save_plain_blip2, tiny_plain_processor, tiny_processor, tiny_tokenizer

from modeling_blip2idc import Blip2IdcProcessor, processing_blip2idc
from modeling_blip2idc.image_fusion import ImageError, fuse, load_image

IMAGE_TOKEN, BOS, PAD, EOS = 3, 0, 1, 2
IGNORED = -100
HEAD = [IMAGE_TOKEN] * QUERY_TOKENS
SHORT, LONG = "nothing has changed", "the red ball was added to the left of the cube"


def image(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def close(values: torch.Tensor, others: torch.Tensor) -> bool:
    """Return whether values differ by rounding only."""
    return torch.allclose(values, others, rtol=1e-6, atol=1e-6)


def ids(text: str) -> list[int]:
    return tiny_tokenizer()(text, add_special_tokens=False)["input_ids"]


A, B = image(0), image(1, (25, 60))


def test_swapping_the_images_changes_the_pixels() -> None:
    processor = tiny_processor()
    pixels, swapped = processor(before=A, after=B)["pixel_values"], processor(before=B, after=A)["pixel_values"]
    assert pixels.shape == (1, 3, 32, 32)
    assert not torch.equal(pixels, swapped)
    assert not torch.allclose(pixels[:, :, :16], pixels[:, :, 16:])  # the two halves contain different images
    assert torch.equal(pixels[:, :, :16], swapped[:, :, 16:])


@pytest.mark.parametrize("layout", ["vertical", "horizontal"])
def test_pixels_are_the_normalised_fused_picture(layout: str) -> None:
    processor = tiny_processor(layout=layout, canvas=(64, 32))
    pixels = processor(before=A, after=B)["pixel_values"]
    plain = tiny_plain_processor().image_processor(fuse(A, B, layout, (64, 32)), do_resize=False, return_tensors="pt")
    assert pixels.shape == (1, 3, 64, 32) and close(pixels, plain["pixel_values"])


@pytest.mark.parametrize("kind", ["opt", "t5"])
@pytest.mark.parametrize("prompt", ["", "Question: what changed?"])
def test_generation_inputs_are_those_of_blip2(kind: str, prompt: str) -> None:
    ours = tiny_processor(kind, prompt=prompt)(before=A, after=B)
    plain = tiny_plain_processor(kind)(images=fuse(A, B, "vertical", (32, 32)), text=prompt, return_tensors="pt")
    assert ours["input_ids"].tolist() == plain["input_ids"].tolist()
    assert ours["attention_mask"].tolist() == plain["attention_mask"].tolist()
    assert "labels" not in ours


@pytest.mark.parametrize("pad_is_eos", [False, True])
def test_opt_labels_score_caption_and_eos_only(pad_is_eos: bool) -> None:
    inputs = tiny_processor("opt", pad_is_eos)(before=[A, B], after=[B, A], captions=[SHORT, LONG])
    short, long, pad = ids(SHORT), ids(LONG), EOS if pad_is_eos else PAD
    gap = len(long) - len(short)
    assert gap > 0
    assert inputs["input_ids"].tolist() == [
        [*HEAD, BOS, *short, EOS, *[pad] * gap],
        [*HEAD, BOS, *long, EOS],
    ]
    assert inputs["labels"].tolist() == [
        [IGNORED] * (QUERY_TOKENS + 1) + short + [EOS] + [IGNORED] * gap,
        [IGNORED] * (QUERY_TOKENS + 1) + long + [EOS],
    ]
    assert inputs["attention_mask"].sum(dim=1).tolist() == [
        QUERY_TOKENS + 2 + len(short),
        QUERY_TOKENS + 2 + len(long),
    ]


def test_opt_prompt_is_not_scored_and_the_caption_follows_it() -> None:
    inputs = tiny_processor(prompt="what changed?")(before=A, after=B, captions=SHORT)
    prompt, caption = ids("what changed?"), ids(" " + SHORT)
    assert inputs["input_ids"].tolist() == [[*HEAD, BOS, *prompt, *caption, EOS]]
    assert inputs["labels"].tolist() == [[IGNORED] * (QUERY_TOKENS + 1 + len(prompt)) + caption + [EOS]]


@pytest.mark.parametrize("pad_is_eos", [False, True])
def test_t5_labels_score_caption_and_eos_only(pad_is_eos: bool) -> None:
    processor = tiny_processor("t5", pad_is_eos)
    inputs = processor(before=[A, B], after=[B, A], captions=[SHORT, LONG], text=["", "what?"])
    short, long, prompt, pad = ids(SHORT), ids(LONG), ids("what?"), EOS if pad_is_eos else PAD
    assert inputs["input_ids"].tolist() == [[*HEAD, EOS, *[pad] * len(prompt)], [*HEAD, *prompt, EOS]]
    assert inputs["attention_mask"].tolist() == [
        [1] * (QUERY_TOKENS + 1) + [0] * len(prompt),
        [1] * (QUERY_TOKENS + 1 + len(prompt)),
    ]
    assert inputs["labels"].tolist() == [
        [*short, EOS, *[IGNORED] * (len(long) - len(short))],
        [*long, EOS],
    ]


def test_generation_pads_opt_on_the_left() -> None:
    inputs = tiny_processor()(before=[A, B], after=[B, A], text=["what?", ""])
    prompt = ids("what?")
    assert inputs["input_ids"].tolist() == [[*HEAD, BOS, *prompt], [PAD] * len(prompt) + [*HEAD, BOS]]
    assert inputs["attention_mask"].tolist()[1] == [0] * len(prompt) + [1] * (QUERY_TOKENS + 1)


@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_special_tokens_spelled_by_a_user_stay_text(kind: str) -> None:
    text = "an <image> of </s> and <pad> appeared"
    inputs = tiny_processor(kind)(before=A, after=B, captions=text, text="see <image></s>:")
    assert (inputs["input_ids"] == IMAGE_TOKEN).sum() == QUERY_TOKENS
    scored = inputs["labels"][inputs["labels"] != IGNORED].tolist()
    assert scored[-1] == EOS and not {IMAGE_TOKEN, PAD, EOS} & set(scored[:-1])
    assert tiny_tokenizer().decode(scored, skip_special_tokens=True).strip() == text


def test_long_captions_are_cut_with_eos_and_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    warnings = []
    monkeypatch.setattr(processing_blip2idc.logger, "warning", warnings.append)
    processor = tiny_processor(max_caption_length=9)
    processor(before=A, after=B, captions=SHORT[:5])
    assert not warnings
    processor(before=[A, A], after=[B, B], captions=[LONG, LONG])
    labels = processor(before=A, after=B, captions=LONG)["labels"][0]
    assert labels[labels != IGNORED].tolist() == [*ids(LONG)[:8], EOS]
    whole = tiny_processor(max_caption_length=len(ids(LONG)) + 1)(before=A, after=B, captions=LONG)["labels"][0]
    assert whole[whole != IGNORED].tolist() == [*ids(LONG), EOS]
    assert len(warnings) == 1 and "max_caption_length=9" in warnings[0]


def test_one_pair_equals_a_batch_of_one(tmp_path: Path) -> None:
    processor = tiny_processor()
    A.save(tmp_path / "a.png")
    single = processor(before=str(tmp_path / "a.png"), after=np.asarray(B), captions=SHORT, text="what?")
    batch = processor(before=[A], after=[B], captions=[SHORT], text=["what?"])
    assert all(torch.equal(single[name], batch[name]) for name in batch)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"before": [A, A], "after": [B]}, "before has 2 images, after has 1"),
        ({"before": [], "after": []}, "before has 0 images, after has 0"),
        ({"before": [A], "after": B}, "got list and Image"),
        ({"before": A}, "after is NoneType"),
        ({"before": [A, A], "after": [B, B], "captions": ["x"]}, "captions has 1 texts for 2 pairs"),
        ({"before": [A, A], "after": [B, B], "captions": "x"}, "captions has 1 texts for 2 pairs"),
        ({"before": [A, A], "after": [B, B], "text": ["x"] * 3}, "text has 3 texts for 2 pairs"),
        ({"before": A, "after": B, "captions": [None]}, "captions must be strings, got None"),
    ],
)
def test_mismatched_inputs_are_quoted(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_processor()(**arguments)


def test_unreadable_image_is_named_with_its_position(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"after image of pair 1 .*x\.png' does not exist"):
        tiny_processor()(before=[A, A], after=[B, tmp_path / "x.png"])
    with pytest.raises(ImageError, match=r"before image of pair 0 .*dtype int64"):
        tiny_processor()(before=[np.zeros((3, 3), np.int64)], after=[B])


def test_a_pair_can_be_loaded_before_the_call_under_a_name_of_its_own(tmp_path: Path) -> None:
    for settings in ({}, {"layout": "horizontal", "canvas": (64, 32), "blur": 2.0}):
        processor = tiny_processor(**settings)
        before, after = processor.load_pair(A, B, "pair_id '7'")
        loaded = processor(before=[before], after=[after])["pixel_values"]
        assert torch.equal(loaded, processor(before=A, after=B)["pixel_values"]), "blurred once"
    (tmp_path / "x.png").write_text("no image")
    with pytest.raises(ImageError, match=r"^after image of pair_id '7': '.*x\.png' is not an image"):
        processor.load_pair(A, tmp_path / "x.png", "pair_id '7'")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_paths_bytes_and_undecoded_rows_give_the_same_pixels(suffix: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for path, seed in zip(paths, (0, 1), strict=True):
        image(seed, (16, 12)).resize((640, 480)).save(path, quality=90)
    processor = tiny_processor()
    pixels = processor(before=paths[0], after=paths[1])["pixel_values"]
    for read in (str, Path.read_bytes, lambda path: {"path": path.name, "bytes": path.read_bytes()}):
        before, after = map(read, paths)
        assert torch.equal(processor(before=[before], after=[after])["pixel_values"], pixels)
    whole = processor(before=load_image(paths[0]), after=load_image(paths[1]))["pixel_values"]
    assert torch.equal(pixels, whole) == (suffix == "png")
    assert (pixels - whole).abs().mean() < 0.02, "of a range of about 4"
    exact = processor.with_settings(scaled_decoding=False)
    pixels = exact(before=[path.read_bytes() for path in paths[:1]], after=paths[1:])["pixel_values"]
    assert torch.equal(pixels, exact(before=load_image(paths[0]), after=load_image(paths[1]))["pixel_values"])


def test_settings_survive_saving(tmp_path: Path) -> None:
    settings = {"layout": "horizontal", "canvas": (64, 32), "prompt": "what?", "max_caption_length": 7, "blur": 0.3}
    processor = tiny_processor("t5", **settings)
    processor.save_pretrained(tmp_path)
    restored = Blip2IdcProcessor.from_pretrained(tmp_path)
    for name in (*settings, "num_query_tokens", "decoder_only"):
        assert getattr(restored, name) == getattr(processor, name), name
    assert restored.canvas == [64, 32] and restored.decoder_only is False
    first, second = (each(before=A, after=B, captions=LONG) for each in (processor, restored))
    assert all(torch.equal(first[name], second[name]) for name in first)
    restored.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "processor_config.json").read_text()) == json.loads(
        (tmp_path / "processor_config.json").read_text()
    )
    assert sorted(path.name for path in tmp_path.glob("*.py")) == ["image_fusion.py", "processing_blip2idc.py"]


def test_blur_is_part_of_the_picture_and_absent_from_older_files(tmp_path: Path) -> None:
    processor = tiny_processor(blur=0.5)
    pixels = processor(before=A, after=B)["pixel_values"]
    picture = fuse(A, B, "vertical", (32, 32), blur=0.5)
    plain = tiny_plain_processor().image_processor(picture, do_resize=False, return_tensors="pt")["pixel_values"]
    sharp = tiny_processor()(before=A, after=B)["pixel_values"]
    assert close(pixels, plain) and not close(pixels, sharp)
    processor.save_pretrained(tmp_path)
    file = tmp_path / "processor_config.json"
    settings = json.loads(file.read_text())
    assert settings.pop("blur") == 0.5 and settings.pop("scaled_decoding") is True
    file.write_text(json.dumps(settings))
    restored = Blip2IdcProcessor.from_pretrained(tmp_path)
    assert (
        restored.blur == 0.0
        and restored.scaled_decoding is True
        and torch.equal(restored(before=A, after=B)["pixel_values"], sharp)
    )


@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_from_blip2_reads_the_settings_of_the_model_folder(kind: str, tmp_path: Path) -> None:
    processor = Blip2IdcProcessor.from_blip2(save_plain_blip2(tmp_path, kind), prompt="what?")
    assert (processor.num_query_tokens, processor.decoder_only) == (QUERY_TOKENS, kind == "opt")
    assert processor.canvas == [32, 32] and processor.prompt == "what?"


def test_from_blip2_completes_processors_older_than_the_image_token() -> None:
    plain = tiny_plain_processor()
    plain.num_query_tokens = None
    processor = Blip2IdcProcessor.from_blip2(plain)
    assert processor.num_query_tokens == 32 and processor.canvas == [224, 224] and processor.layout == "vertical"
    inputs = processor(before=A, after=B)
    assert (inputs["input_ids"] == processor.image_token_id).sum() == 32


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be halved"):
        tiny_processor(canvas=(33, 32))
    with pytest.raises(ValueError, match="canvas .* is too large: height and width are at most 4096"):
        tiny_processor().with_settings(canvas=[10**6, 10**6])
    with pytest.raises(ValueError, match="layout must be"):
        tiny_processor(layout="diagonal")
    with pytest.raises(ValueError, match="blur must be .* got -1"):
        tiny_processor(blur=-1)
    with pytest.raises(ValueError, match="max_caption_length must be a whole number from 2"):
        tiny_processor(max_caption_length=1)
    with pytest.raises(ValueError, match="num_query_tokens must be a whole number from 1, got '8'"):
        tiny_processor(num_query_tokens="8")
    with pytest.raises(ValueError, match="decoder_only must be true or false, got 'yes'"):
        tiny_processor(decoder_only="yes")
    with pytest.raises(ValueError, match="canvas must be a list of two whole numbers.* got 32"):
        tiny_processor().with_settings(canvas=32)
    with pytest.raises(ValueError, match="scaled_decoding must be true or false, got 'no'"):
        tiny_processor().with_settings(scaled_decoding="no")


# setting -> a changed value; each must reach pixels, tokens or labels
CHANGES = {
    "layout": "horizontal",
    "canvas": [64, 32],
    "blur": 0.5,
    "prompt": "what changed?",
    "max_caption_length": 4,
    "num_query_tokens": 7,
    "decoder_only": False,
    "scaled_decoding": False,
}


def test_every_argument_of_the_processor_is_a_setting_with_a_test() -> None:
    arguments = set(inspect.signature(Blip2IdcProcessor.__init__).parameters)
    assert set(tiny_processor().settings) == set(CHANGES) == arguments - {"self", "image_processor", "tokenizer"}


@pytest.mark.parametrize("name", CHANGES)
def test_each_setting_reaches_its_use(name: str, tmp_path: Path) -> None:
    processor = tiny_processor()
    changed = processor.with_settings(**{name: CHANGES[name]})
    assert changed.settings == {**processor.settings, name: CHANGES[name]}
    assert processor.settings == tiny_processor().settings, "the original is unchanged"
    file = io.BytesIO()
    image(0, (9, 7)).resize((300, 400)).save(file, "JPEG")  # large enough to be decoded at a fraction of its size
    first, second = (each(before=file.getvalue(), after=B, captions=LONG) for each in (processor, changed))
    assert any(first[key].shape != second[key].shape or not torch.equal(first[key], second[key]) for key in first)
    changed.save_pretrained(tmp_path)
    assert Blip2IdcProcessor.from_pretrained(tmp_path).settings == changed.settings
    assert json.loads(json.dumps(changed.settings)) == changed.settings


def test_unknown_settings_are_quoted() -> None:
    with pytest.raises(ValueError, match="unknown processor setting 'size': use any of layout, canvas, blur"):
        tiny_processor().with_settings(size=3)
    with pytest.raises(ValueError, match="blur must be .* got 9"):
        tiny_processor().with_settings(blur=9)
    for name, value in (("prompt", 3), ("max_caption_length", "5")):
        with pytest.raises(ValueError, match=f"{name} must be .* got {value!r}"):
            tiny_processor().with_settings(**{name: value})


def test_an_image_that_is_given_twice_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control of evaluate.py gives each image before twice."""
    processor, loaded, load_cell = tiny_processor(), [], processing_blip2idc.load_cell
    monkeypatch.setattr(processing_blip2idc, "load_cell", lambda *a: loaded.append(a) or load_cell(*a))
    image = np.zeros((9, 9, 3), dtype=np.uint8)
    before, after = processor.load_pair(image, image, "pair '1'")
    assert before is after and len(loaded) == 1
    processor.load_pair(image, image.copy(), "pair '2'")
    assert len(loaded) == 3
    file = io.BytesIO()
    A.save(file, "PNG")
    rows = [{"path": name, "bytes": bytes(bytearray(file.getvalue()))} for name in ("before.png", "after.png")]
    before, after = processor.load_pair(*rows, "pair '3'")
    assert before is after and len(loaded) == 4, "an unchanged pair of a benchmark"


def test_normalisation_is_that_of_any_image_processor() -> None:
    """For every level, and each of its options."""
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    levels[..., 1] += 1
    for options in ({}, {"do_rescale": False}, {"do_normalize": False}, {"image_mean": [0.1, 0.2, 0.3]}):
        processor = tiny_processor(canvas=(32, 16))
        for name, value in options.items():
            setattr(processor.image_processor, name, value)
        values = processor(before=levels, after=levels[::-1])["pixel_values"]
        picture = Image.fromarray(np.concatenate([levels, levels[::-1]]))
        wanted = processor.image_processor(picture, do_resize=False, return_tensors="pt")["pixel_values"]
        assert values.dtype == wanted.dtype == torch.float32 and close(values, wanted), options
