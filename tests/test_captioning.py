"""Captions from Python and from the command line: order, files, one-line errors, and real photographs."""

import csv
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from PIL import Image
from tiny_models import save_plain_blip2, save_tiny, tiny_model, tiny_processor

from captioner_idc import captioning, command
from captioner_idc.__main__ import main
from captioner_idc.command import SHIPPED_NOTE
from captioner_idc.loading import SHIPPED, load
from captioner_idc.pair_lists import read_pairs
from modeling_blip2idc import Blip2IdcForConditionalGeneration, Blip2IdcProcessor, image_fusion
from modeling_blip2idc.image_fusion import ImageError

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"


def image(seed: int) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 2, (4, 4, 3), dtype=np.uint8) * 255
    return Image.fromarray(blocks).resize((32, 32), Image.Resampling.NEAREST)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model, a plain BLIP-2, images and a file that is not an image."""
    folder = tmp_path_factory.mktemp("work")
    save_tiny(folder / "model", max_caption_length=6)
    save_plain_blip2(folder / "plain", "t5")
    (folder / "images").mkdir()
    for index in range(5):
        image(index).save(folder / "images" / f"{index}.png")
    (folder / "images" / "text.png").write_text("no picture")
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def pairs_of(count: int) -> list[tuple[Image.Image, Image.Image]]:
    return [(image(index), image(index + 1)) for index in range(count)]


def generator_of(pairs: list) -> Iterator:
    yield from pairs


@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_caption_keeps_order_for_any_batch_size_and_generators(kind: str) -> None:
    model, processor = tiny_model(kind), tiny_processor(kind)
    pairs = pairs_of(5)
    alone = [captioning.caption(model, processor, [pair], max_new_tokens=6)[0] for pair in pairs]
    assert len(set(alone)) > 1
    assert captioning.caption(model, processor, pairs, batch_size=2, max_new_tokens=6) == alone
    assert captioning.caption(model, processor, generator_of(pairs), batch_size=9, max_new_tokens=6) == alone
    assert captioning.caption(model, processor, []) == []


def test_caption_takes_pairs_from_a_generator_batch_by_batch() -> None:
    taken = []

    def watched() -> Iterator:
        for index, pair in enumerate(pairs_of(4)):
            assert not torch.is_inference_mode_enabled()
            taken.append(index)
            yield pair

    class Model(Blip2IdcForConditionalGeneration):
        def generate(self, *args: object, **kwargs: object) -> torch.Tensor:
            assert torch.is_inference_mode_enabled() and not self.training
            seen.append(len(taken))
            return super().generate(*args, **kwargs)

    seen, model = [], tiny_model()
    model.__class__ = Model
    captioning.caption(model, tiny_processor(), watched(), batch_size=2, max_new_tokens=1)
    assert seen == [2, 4]


def test_caption_restores_each_training_mode_even_after_an_error() -> None:
    model, processor = tiny_model().train(), tiny_processor()
    model.vision_model.eval()
    captioning.caption(model, processor, pairs_of(1), max_new_tokens=1)
    assert model.training and model.qformer.training and not model.vision_model.training
    with pytest.raises(ImageError, match=r"after image of pair 2 .*no\.png"):
        captioning.caption(model, processor, [*pairs_of(2), (image(0), "no.png")], batch_size=1, max_new_tokens=1)
    assert model.training and not model.vision_model.training


def test_caption_uses_text_limits_and_keywords() -> None:
    model, processor = tiny_model(), tiny_processor(max_caption_length=5)
    default = captioning.caption(model, processor, pairs_of(1), eos_token_id=None)
    assert default == captioning.caption(model, processor, pairs_of(1), eos_token_id=None, max_new_tokens=5)
    assert default != captioning.caption(model, processor, pairs_of(1), eos_token_id=None, text="what changed?")
    model.generation_config.max_new_tokens = 2
    assert captioning.caption(model, processor, pairs_of(1)) == captioning.caption(
        model, processor, pairs_of(1), max_new_tokens=2
    )
    with pytest.raises(ValueError, match="2 sentences for 1 pairs"):
        captioning.caption(model, processor, pairs_of(1), num_beams=2, num_return_sequences=2)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        captioning.caption(model, processor, pairs_of(1), batch_size=0)


def test_load_ours_and_plain_blip2(work: Path) -> None:
    model, processor = load(work / "model", device="cpu")
    assert type(model) is Blip2IdcForConditionalGeneration and not model.training
    assert processor.max_caption_length == 6 and model.dtype == torch.float32
    model, processor = load(str(work / "plain"), device="cpu", dtype=torch.bfloat16)
    assert type(processor) is Blip2IdcProcessor and processor.decoder_only is False
    assert processor.canvas == [32, 32] and model.dtype == torch.bfloat16
    assert len(captioning.caption(model, processor, pairs_of(2), max_new_tokens=3)) == 2


def test_load_repairs_blip2_older_than_the_image_token(work: Path, tmp_path: Path) -> None:
    save_plain_blip2(tmp_path)
    for name, key in (("config.json", "image_token_index"), ("processor_config.json", "num_query_tokens")):
        values = json.loads((tmp_path / name).read_text())
        (tmp_path / name).write_text(json.dumps({**values, key: None}))
    model, processor = load(tmp_path, device="cpu")
    assert model.config.image_token_index == 3 and processor.num_query_tokens == 4
    assert captioning.caption(model, processor, pairs_of(1), max_new_tokens=4) == captioning.caption(
        tiny_model(), tiny_processor(), pairs_of(1), max_new_tokens=4
    )


def test_load_refuses_a_processor_that_does_not_fit_its_model(work: Path, tmp_path: Path) -> None:
    for settings, message in (
        ({"canvas": (36, 32)}, "36x32 is not a multiple"),
        ({"decoder_only": False}, "does not fit"),
    ):
        save_tiny(tmp_path, **settings)
        with pytest.raises(ValueError, match=message):
            load(tmp_path, device="cpu")


def test_load_refuses_models_other_than_blip2(work: Path, tmp_path: Path) -> None:
    tiny_model().language_model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a model of type 'opt', .*: use one of type blip-2, blip2idc"):
        load(tmp_path, device="cpu")


@pytest.fixture(scope="module")
def adapter(work: Path) -> Path:
    """Return a nonzero LoRA adapter with its own processor, whose base model is the relative path `model`."""
    model = peft.get_peft_model(
        Blip2IdcForConditionalGeneration.from_pretrained(work / "model"),
        peft.LoraConfig(r=2, lora_alpha=64, target_modules=["qkv", "q_proj"]),
    )
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    model.peft_config["default"].base_model_name_or_path = "model"
    model.save_pretrained(work / "adapter")
    tiny_processor(layout="horizontal", max_caption_length=5).save_pretrained(work / "adapter")
    return work / "adapter"


def test_adapter_names_its_base_and_its_processor_wins(
    work: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    sentences = []
    for arguments in (("adapter", None), ("model", "adapter"), (adapter, adapter)):
        model, processor = load(*arguments, device="cpu")
        assert processor.layout == "horizontal" and not model.training
        sentences.append(captioning.caption(model, processor, pairs_of(3)))
    assert sentences[0] == sentences[1] == sentences[2]
    base, _ = load("model", device="cpu")
    assert captioning.caption(base, processor, pairs_of(3)) != sentences[0]
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / file).write_bytes((adapter / file).read_bytes())
    assert load(tmp_path, device="cpu")[1].layout == "vertical"  # no processor next to it: the base's
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=r"base model 'model'.*relative paths start at .*pass both base and adapter"):
        load(adapter, device="cpu")


def sentence_of(work: Path, before: int, after: int, **keywords: object) -> str:
    model, processor = load(work / "model", device="cpu")
    return " ".join(captioning.caption(model, processor, [(image(before), image(after))], **keywords)[0].split())


def run_command(work: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "captioner_idc", *arguments]
    return subprocess.run(command, cwd=work, env=environment, capture_output=True, encoding="utf-8")


def test_command_prints_the_sentence_and_nothing_else(work: Path) -> None:
    result = run_command(work, "images/0.png", "images/1.png", "--model", "model", "--device", "cpu")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == sentence_of(work, 0, 1) + "\n"


def test_command_fails_in_one_line_without_traceback(work: Path) -> None:
    result = run_command(work, "images/0.png", "images/9.png", "--model", "model")
    assert (result.returncode, result.stdout) == (2, "")
    assert (
        result.stderr
        == f"error: 'images/9.png' does not exist; check the path (relative paths start at {str(work)!r}).\n"
    )
    result = run_command(work, "images/0.png", "images/1.png", "--model", "nobody/nothing")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: cannot load model 'nobody/nothing'; give --model a folder")
    assert result.stderr.count("\n") == 1


def test_options_reach_generation(work: Path, capsys: pytest.CaptureFixture) -> None:
    images, model = [str(work / "images" / f"{index}.png") for index in (0, 1)], ["--model", str(work / "model")]
    options = ["--max_new_tokens", "4", "--num_beams", "2", "--text", "what changed?", "--device", "cpu"]
    assert main([*images, *model, *options]) == 0
    expected = sentence_of(work, 0, 1, max_new_tokens=4, num_beams=2, text="what changed?")
    assert capsys.readouterr().out == expected + "\n" != sentence_of(work, 0, 1) + "\n"


def test_adapter_alone_is_enough_on_the_command_line(
    work: Path, adapter: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    images = ["images/0.png", "images/1.png"]
    outputs = []
    for model in (["--adapter", "adapter"], ["--model", "adapter"], ["--model", "model", "--adapter", "adapter"]):
        assert main([*images, *model]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] == outputs[2]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_pairs_file_gives_json_lines_in_order(suffix: str, work: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    rows = [{"pair_id": f"p{index}", "before": f"{index}.png", "after": f"{index + 1}.png"} for index in range(3)]
    path = work / "images" / f"pairs.{suffix}"  # image paths are relative to the file's folder, not to the current one
    if suffix == "csv":
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    arguments = ["--pairs", str(path), "--model", str(work / "model"), "--batch_size", "2", "--device", "cpu"]
    assert main([*arguments, "--output", "out.jsonl"]) == 0
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.jsonl"]
    lines = [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [{name: line[name] for name in rows[0]} for line in lines] == rows
    assert [list(line) for line in lines] == [["pair_id", "before", "after", "prediction"]] * 3
    sentences = [" ".join(line["prediction"].split()) for line in lines]
    assert sentences == [sentence_of(work, index, index + 1) for index in range(3)] and len(set(sentences)) > 1
    assert main(arguments) == 0
    assert capsys.readouterr().out == Path("out.jsonl").read_text(encoding="utf-8")


def test_pairs_without_ids_are_numbered(work: Path) -> None:
    path = work / "images" / "bare.csv"
    path.write_text("before,after\n0.png,1.png\n1.png,2.png\n")
    assert [entry.pair_id for entry in read_pairs(path).entries()] == ["0", "1"]


BAD_LISTS = {
    "column.csv": (
        "first,after\n0.png,1.png\n",
        "column.csv, line 1: column 'before' is missing, found ['first', 'after']",
    ),
    "empty.csv": ("", "empty.csv, line 1: column 'before' is missing"),
    "header.csv": ("before,after\n", "header.csv contains no pairs"),
    "twice.csv": ("before,after,before\n0.png,1.png,2.png\n", "line 1: column 'before' is given more than once"),
    "quote.csv": ('before,after,note\n0.png,1.png,"never closed\n1.png,2.png,\n', "quote.csv is not a CSV file"),
    "nothing.jsonl": ("\n", "nothing.jsonl contains no pairs"),
    "pairs.txt": ("before,after\n", "pairs.txt: pairs are read from .csv, .jsonl or .parquet"),
    "latin.csv": ("before,after,note\n0.png,1.png,\xe9\n", "latin.csv cannot be read"),
}


@pytest.mark.parametrize("name", BAD_LISTS)
def test_bad_lists_of_pairs_name_the_line(name: str, work: Path, capsys: pytest.CaptureFixture) -> None:
    content, message = BAD_LISTS[name]
    path = work / "images" / name
    path.write_bytes(content.encode("latin-1"))
    output = work / "unwritten.jsonl"
    arguments = ["--pairs", str(path), "--model", str(work / "model"), "--output", str(output), "--device", "cpu"]
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and message in printed.err and printed.err.count("\n") == 1
    assert printed.out == "" and not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["0.png", "text.png"], "text.png' is not an image that Pillow can read; convert it"),
        (["0.png"], "give two image files"),
        ([], "give two image files"),
        (["0.png", "1.png", "--pairs", "x.csv"], "not both"),
        (["--pairs", "x.csv"], "x.csv does not exist; check the path of --pairs"),
        (["0.png", "1.png", "--output", "x.jsonl"], "--output goes with --pairs"),
        (["--pairs", "x.csv", "--output", "no/x.jsonl"], "the folder of --output no/x.jsonl does not exist"),
        (["--pairs", "x.jsonl", "--output", "./x.jsonl"], "--output x.jsonl would replace the list of pairs"),
        (["0.png", "1.png", "--batch_size", "0"], "--batch_size must be at least 1, got 0"),
        (["0.png", "1.png", "--device", "gpu"], "--device gpu cannot be used here"),
        (["0.png", "1.png", "--model", "."], "cannot load model '.'; give --model a folder"),
        (["0.png", "1.png", "--model", "../no/where/at/all"], "cannot load model '../no/where/at/all'"),
        (["0.png", "1.png", "--model", "../model", "--adapter", "."], "with adapter '.'"),
    ],
)
def test_every_mistake_gives_one_line_and_code_two(
    arguments: list[str], message: str, work: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work / "images")
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert message in printed.err


REAL_PAIRS = {
    "pairs": [
        ("1a.png", "1b.png"),
        ("4a.png", "4b.png"),
        ("tiger.jpg", "tiger-2.jpg"),
        ("laptops.tiff", "laptops-2.tiff"),
    ],
    "instruct-pix2pix": [
        (f"0000014/{seed}_0.jpg", f"0000014/{seed}_1.jpg") for seed in (10483310, 2359342130, 3388447030)
    ]
    + [(f"0000132/{seed}_0.jpg", f"0000132/{seed}_1.jpg") for seed in (127380018, 1818564940)],
    "levir-cc/example": [("A/train_000016.png", "B/train_000016.png")],
    "birds-to-words": [("sample-left.jpg", "sample-right.jpg")],
}


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real photographs are not in {DATA}")
def test_real_photographs_of_every_format(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [
        {"before": str(DATA / folder / before), "after": str(DATA / folder / after)}
        for folder, pairs in REAL_PAIRS.items()
        for before, after in pairs
    ]
    (tmp_path / "real.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = ["--pairs", str(tmp_path / "real.jsonl"), "--model", str(work / "model"), "--device", "cpu"]
    assert main(arguments) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == len(rows) == 11 and all(line["prediction"] for line in lines)


def test_captions_see_before_and_after_in_this_order(work: Path) -> None:
    """The model gets the pixels of the pair, and not those of the exchanged pair."""
    model, processor = load(work / "model", device="cpu")
    generator = np.random.default_rng(0)
    seen = []
    encode = model.encode_images
    model.encode_images = lambda **inputs: seen.append(inputs["pixel_values"]) or encode(**inputs)
    before, after = generator.integers(0, 255, (2, 40, 30, 3), dtype=np.uint8)
    captioning.caption(model, processor, [(before, after)])
    assert torch.equal(seen[0], processor(before=before, after=after)["pixel_values"])
    assert not torch.equal(seen[0], processor(before=after, after=before)["pixel_values"])


def test_the_shipped_captioner_is_the_default_and_needs_no_network(
    root: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.socket.connect", connect)
    monkeypatch.chdir(tmp_path)
    images = [str(root / "docs" / name) for name in ("before.jpg", "after.jpg")]
    assert main(images) == 0
    printed = capsys.readouterr()
    assert printed.err == SHIPPED_NOTE + "\n" and "--model" in SHIPPED_NOTE
    model, processor = load(SHIPPED, device="cpu")
    assert printed.out == captioning.caption(model, processor, [images])[0] + "\n" != "\n"


def test_missing_peft_is_reported_in_one_line_with_the_extra(
    work: Path, adapter: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.chdir(work)
    assert main(["images/0.png", "images/1.png", "--adapter", "adapter"]) == 2
    assert capsys.readouterr().err == 'error: adapters need the package peft: pip install "blip2idc[train]"\n'


def test_each_image_is_converted_once(work: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """This applies to the processor (training), caption() and the command."""
    counted = []
    convert = image_fusion._to_rgb
    monkeypatch.setattr(image_fusion, "_to_rgb", lambda image: counted.append(image) or convert(image))
    model, processor = load(work / "model", device="cpu")
    before, after = str(work / "images" / "0.png"), str(work / "images" / "1.png")
    monkeypatch.chdir(work)
    for use in (
        lambda: processor(before=before, after=after, captions="a ball"),
        lambda: captioning.caption(model, processor, [(before, after)]),
        lambda: captioning.caption(model, processor, [(Image.open(before), Image.open(after))]),
        lambda: main([before, after, "--model", "model", "--device", "cpu"]),
    ):
        counted.clear()
        use()
        assert len(counted) == 2


def test_only_one_image_has_its_whole_size_at_a_time(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory does not depend on the size of photographs times the batch."""
    paths = [tmp_path / f"{index}.png" for index in range(6)]
    for index, path in enumerate(paths):
        image(index).resize((200, 150)).save(path)
    convert, whole = image_fusion._to_rgb, []

    def watched(image: Image.Image) -> Image.Image:
        assert not [reference for reference in whole if reference() is not None]
        converted = convert(image)
        whole.append(weakref.ref(converted))
        return converted

    monkeypatch.setattr(image_fusion, "_to_rgb", watched)
    model, processor = load(work / "model", device="cpu")
    captioning.caption(model, processor, zip(paths[::2], paths[1::2], strict=True))
    rows = [{"path": path.name, "bytes": path.read_bytes()} for path in paths]
    captioning.caption(model, processor, zip(rows[::2], rows[1::2], strict=True))
    processor(before=paths[::2], after=paths[1::2], captions=["a ball"] * 3)
    assert len(whole) == 18


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_captioning_and_training_see_the_same_pixels(
    suffix: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{index}.{suffix}" for index in range(2)]
    for index, path in enumerate(paths):
        image(index).resize((640, 480)).save(path)
    rows = [{"path": path.name, "bytes": path.read_bytes()} for path in paths]
    model, processor = load(work / "model", device="cpu")
    trained = processor(before=rows[0], after=rows[1], captions="a ball")["pixel_values"]
    seen, encode = [], model.encode_images
    model.encode_images = lambda **inputs: seen.append(inputs["pixel_values"]) or encode(**inputs)
    for pair in (paths, [path.read_bytes() for path in paths], rows):
        captioning.caption(model, processor, [pair])
    monkeypatch.setattr(command, "load", lambda *_, **__: (model, processor))
    assert main([*map(str, paths), "--model", "m"]) == 0
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"before": paths[0].name, "after": paths[1].name}))
    assert main(["--pairs", str(tmp_path / "pairs.jsonl"), "--model", "m"]) == 0
    assert len(seen) == 5 and all(torch.equal(pixels, trained) for pixels in seen)


def test_a_sentence_is_one_line_that_no_terminal_obeys(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = load(work / "model", device="cpu")
    decoded = {
        " the\x1b[31m red\x07 ball\x7f\n": "the[31m red ball",
        "a\tball\r\nmoved\x85to\x9b2J the\u2028left \x00 side": "a ball moved to2J the left side",
        "\x1b\x08 ": "",
        "größer 变 \N{GRINNING FACE}": "größer 变 \N{GRINNING FACE}",
    }
    monkeypatch.setattr(type(processor), "batch_decode", lambda *_, **__: list(decoded))
    assert captioning.caption(model, processor, pairs_of(4)) == list(decoded.values())


def test_empty_sentences_are_described() -> None:
    assert captioning.describe_empty(0, 2) == captioning.describe_empty(0, 0) == ""
    assert captioning.describe_empty(1, 3) == "1 of 3 sentences are empty"
    assert captioning.describe_empty(1, 2) == (
        "1 of 2 sentences are empty: the weights or the tokenizer of the model are probably damaged"
    )


def test_the_command_warns_of_empty_sentences(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(command, "caption", lambda model, processor, pairs, **_: ["" for _ in pairs])
    monkeypatch.chdir(work / "images")
    Path("empty.csv").write_text("before,after\n0.png,1.png\n1.png,2.png\n")
    for arguments, count in ((["0.png", "1.png"], "1 of 1"), (["--pairs", "empty.csv"], "2 of 2")):
        assert main([*arguments, "--model", "../model", "--device", "cpu"]) == 0
        assert capsys.readouterr().err.startswith(
            f"warning: {count} sentences are empty: the weights or the tokenizer"
        )


@pytest.mark.parametrize("option", [[], ["--allow_pickle"]])
def test_pickled_weights_need_an_option(option: list[str], work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    loaded = load(work / "model", device="cpu")
    monkeypatch.setattr(command, "load", lambda *_, **options: given.append(options) or loaded)
    monkeypatch.chdir(work / "images")
    assert main(["0.png", "1.png", "--model", "../model", *option]) == 0
    assert given[0]["allow_pickle"] is bool(option)


def test_a_missing_image_is_found_before_the_model_is_loaded(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(command, "load", None)
    monkeypatch.chdir(work / "images")
    os.mkfifo("pipe.png")
    for name, message in (("no.png", "'no.png' does not exist"), ("pipe.png", "'pipe.png' is a pipe or a device")):
        assert main(["0.png", name]) == 2
        assert message in capsys.readouterr().err


def test_remarks_of_pillow_without_a_file_name_are_not_printed(work: Path, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0")  # cut off
    with pytest.warns(UserWarning, match="Corrupt EXIF data"):
        image_fusion.load_image(tmp_path / "a.jpg")
    result = run_command(work, str(tmp_path / "a.jpg"), "images/1.png", "--model", "model", "--device", "cpu")
    assert (result.returncode, result.stderr) == (0, "")


def test_a_batch_is_halved_until_it_fits_into_memory(caplog: pytest.LogCaptureFixture) -> None:
    tried, limit = [], captioning.MemoryLimit()

    def compute(pairs: list[int]) -> list[int]:
        tried.append(len(pairs))
        if len(pairs) > 3:
            raise torch.OutOfMemoryError("too many")
        return [10 * pair for pair in pairs]

    assert limit.split(compute, list(range(8))) == [10 * pair for pair in range(8)]
    assert tried == [8, 4, 2, 2, 2, 2] and "no memory for 8 pairs at a time" in caplog.text
    assert limit.split(compute, [1, 2, 3]) == [10, 20, 30] and tried[6:] == [2, 1], "it is remembered"


def test_memory_that_is_too_small_for_one_pair_is_an_error() -> None:
    def compute(pairs: list[int]) -> list[int]:
        raise torch.OutOfMemoryError("too many")

    with pytest.raises(torch.OutOfMemoryError):
        captioning.MemoryLimit().split(compute, [1, 2])


def test_captions_of_a_halved_batch_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor, pairs = tiny_model(), tiny_processor(), pairs_of(3)
    expected = captioning.caption(model, processor, pairs, max_new_tokens=5)
    generate, sizes = model.generate, []

    def small(**inputs: object) -> torch.Tensor:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError("too many")
        return generate(**inputs)

    monkeypatch.setattr(model, "generate", small)
    assert captioning.caption(model, processor, pairs, max_new_tokens=5) == expected
    assert sizes == [3, 1, 1, 1]
