"""Exported captioners: plain models with the same logits, which see what our processor shows them."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loopback_chat import MODEL, LoopbackChat, Question
from PIL import Image
from safetensors.torch import load_file
from tiny_chat_models import CHAT_FAMILIES, saved_on_first_use
from tiny_models import Kind, save_plain_blip2, save_tiny, tiny_model, tiny_processor
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
)

from captioner_idc.__main__ import main as blip2idc
from captioner_idc.adapters import add_lora, save_adapter
from captioner_idc.captioning import caption
from captioner_idc.chat_models import load_images_only
from captioner_idc.chat_pairs import PROMPT, template_options
from captioner_idc.exporting import export, main
from captioner_idc.loading import load, load_processor, processor_fingerprint
from captioner_idc.plain_models import ADDRESS
from captioner_idc.plain_models import save_plain_blip2 as save_plain
from captioner_idc.server_client import Server, request_body
from modeling_blip2idc import Blip2IdcForConditionalGeneration, fuse

KINDS = pytest.mark.parametrize("kind", ["opt", "t5"])
ALL = pytest.mark.parametrize("family", CHAT_FAMILIES)


def photograph(seed: int, size: tuple[int, int] = (90, 70)) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC)


A, B = photograph(0), photograph(1)


def randomise(model: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return saved_on_first_use(tmp_path_factory.mktemp("chats"))


def save_run(folder: Path, base: Path, parts: list[str] | None = None, **settings: Any) -> Path:
    """Save an adapter of random weights; return its folder."""
    model, processor = load(base, device="cpu", processor=settings)
    model = randomise(add_lora(model, 2, 4, 0.0, 0, parts=parts))
    save_adapter(model, processor, folder, base=str(base), revision=None)
    return folder


def logits(model: Any, inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs).logits


@KINDS
def test_a_plain_blip2_has_bit_equal_logits(tmp_path: Path, kind: Kind) -> None:
    run = save_run(tmp_path / "run", save_plain_blip2(tmp_path / "base", kind), layout="horizontal", prompt="what?")
    export(tmp_path / "whole", adapter=run, output_format="remote-code")
    export(tmp_path / "plain", adapter=run)
    ours, processor = load(tmp_path / "whole", device="cpu")
    plain = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "plain")
    inputs = processor(before=[A, B], after=[B, A])
    more = {} if kind == "opt" else {"decoder_input_ids": torch.tensor([[1, 5, 6]] * 2)}
    found = logits(plain.eval(), {**inputs, **more})
    assert torch.equal(found, logits(ours, {**inputs, **more}))
    base = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "base").eval()
    assert not torch.equal(found, logits(base, {**inputs, **more})), "the adapter is merged"


@KINDS
def test_a_plain_blip2_is_read_by_transformers_alone(root: Path, tmp_path: Path, kind: Kind) -> None:
    export(tmp_path / "plain", model=save_tiny(tmp_path / "model", kind, canvas=(32, 32)))
    names = {path.name for path in (tmp_path / "plain").iterdir()}
    assert "model.safetensors" in names and not [name for name in names if name.endswith((".bin", ".pt"))]
    assert [name for name in names if name.endswith(".py")] == ["image_fusion.py"]
    code = (
        "import sys; from transformers import AutoModelForImageTextToText as M, AutoProcessor as P\n"
        "print(type(M.from_pretrained(sys.argv[1])).__name__, type(P.from_pretrained(sys.argv[1])).__name__)\n"
        "assert not any('blip2idc' in name for name in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code, tmp_path / "plain"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["Blip2ForConditionalGeneration", "Blip2Processor"], done.stderr


@pytest.mark.parametrize("prompt", ["", "Question: what changed? Answer:"])
@KINDS
def test_a_plain_blip2_processor_makes_the_same_inputs(tmp_path: Path, kind: Kind, prompt: str) -> None:
    settings = {"layout": "horizontal", "blur": 1.5, "prompt": prompt}
    export(tmp_path / "plain", model=save_tiny(tmp_path / "model", kind, **settings))
    _, processor = load(tmp_path / "model", device="cpu")
    plain = Blip2Processor.from_pretrained(tmp_path / "plain")
    wanted, picture = processor(before=A, after=B), fuse(A, B, "horizontal", (32, 32), 1.5)
    found = plain(images=picture, text=prompt, return_tensors="pt")
    assert torch.allclose(found["pixel_values"], wanted["pixel_values"], atol=1e-6), "the same but for rounding"
    assert torch.equal(found["input_ids"], wanted["input_ids"])
    assert load_processor(tmp_path / "plain").settings == processor.settings == load(tmp_path / "plain")[1].settings


def test_the_precision_is_the_one_asked_for(tmp_path: Path) -> None:
    export(tmp_path / "plain", model=save_tiny(tmp_path / "model"), dtype="bfloat16")
    config = AutoConfig.from_pretrained(tmp_path / "plain")
    assert type(config) is Blip2Config and config.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in load_file(tmp_path / "plain" / "model.safetensors").values()} == {
        torch.bfloat16
    }


def test_the_chat_template_of_a_plain_blip2_is_its_bos_and_prompt(tmp_path: Path) -> None:
    """vLLM renders it, encodes it without special tokens and puts the image tokens before."""
    export(tmp_path / "plain", model=save_tiny(tmp_path / "model", "opt"))
    _, ours = load(tmp_path / "model", device="cpu")
    plain = AutoTokenizer.from_pretrained(tmp_path / "plain")
    for prompt in ("", "Question: what changed? Answer:"):
        for content in (prompt, [{"type": "image"}, {"type": "text", "text": prompt}]):
            turn = {"role": "user", "content": content}
            text = plain.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
            ids = plain(text, add_special_tokens=False)["input_ids"]
            wanted = ours(before=A, after=B, text=prompt)["input_ids"][0].tolist()
            assert [plain.convert_tokens_to_ids("<image>")] * 4 + ids == wanted


@KINDS
def test_positions_are_interpolated_once_for_another_square_canvas(tmp_path: Path, kind: Kind) -> None:
    save_tiny(tmp_path / "model", kind, canvas=(48, 48))
    export(tmp_path / "plain", model=tmp_path / "model")
    ours, processor = load(tmp_path / "model", device="cpu")
    plain = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "plain").eval()
    assert plain.config.vision_config.image_size == 48 and ours.config.vision_config.image_size == 32
    inputs = processor(before=A, after=B)
    assert inputs["pixel_values"].shape[-2:] == (48, 48)
    inputs |= {} if kind == "opt" else {"decoder_input_ids": torch.tensor([[1, 5, 6]])}
    assert torch.equal(logits(plain, inputs), logits(ours, inputs))
    picture = Blip2Processor.from_pretrained(tmp_path / "plain").image_processor(fuse(A, B, "vertical", (48, 48)))
    assert np.allclose(picture["pixel_values"][0], inputs["pixel_values"][0], atol=1e-6)


def test_adapted_embeddings_stay_separate(tmp_path: Path) -> None:
    base = save_plain_blip2(tmp_path / "base")
    run = save_run(tmp_path / "run", base, parts=["embeddings", "language"])
    export(tmp_path / "plain", adapter=run)
    export(tmp_path / "whole", adapter=run, output_format="remote-code")
    plain = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "plain").eval()
    ours, processor = load(tmp_path / "whole", device="cpu")
    inputs = processor(before=A, after=B)
    assert torch.equal(logits(plain, inputs), logits(ours, inputs))


def test_generation_ends_where_the_captioner_ends(tmp_path: Path) -> None:
    model = tiny_model()
    model.config.text_config.eos_token_id = 50118  # as in the checkpoints on the Hub; captions end with BOS
    model.generation_config.eos_token_id = None
    model.save_pretrained(tmp_path / "model")
    tiny_processor().save_pretrained(tmp_path / "model")
    ours = Blip2IdcForConditionalGeneration.from_pretrained(tmp_path / "model")
    (tmp_path / "plain").mkdir()
    save_plain(ours, tiny_processor(), tmp_path / "plain")
    written = AutoModelForImageTextToText.from_pretrained(tmp_path / "plain").generation_config
    assert written.eos_token_id == ours.end_token_ids() == [50118, 0]


def server_inputs(folder: Path, pictures: list[Image.Image], prompt: str, **options: Any) -> Any:
    """Return what transformers' own processor in a folder makes of a request, as a server does."""
    model_type = AutoConfig.from_pretrained(folder).model_type
    server = load_images_only(model_type, str(folder), None)
    content = [{"type": "image", "image": picture} for picture in pictures] + [{"type": "text", "text": prompt}]
    return server.apply_chat_template(
        [[{"role": "user", "content": content}]],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"images_kwargs": options},
        **template_options(server.chat_template),
    )


def assert_same_inputs(found: Any, wanted: Any) -> None:
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        assert torch.equal(torch.as_tensor(found[name]), torch.as_tensor(values)), name


@ALL
def test_a_plain_chat_model_has_bit_equal_logits_on_the_pictures_of_a_request(
    chats: Any, tmp_path: Path, family: str
) -> None:
    run = save_run(tmp_path / "run", chats(family), prompt="Which?")
    export(tmp_path / "plain", adapter=run)
    export(tmp_path / "whole", adapter=run, output_format="remote-code")
    ours, processor = load(tmp_path / "whole", device="cpu")
    client = load_processor(tmp_path / "plain")
    assert client.settings == processor.settings
    pictures = client.pictures(client.load_pair(A, B, "the pair"))
    found = server_inputs(tmp_path / "plain", pictures, "Which?", **processor.image_options)
    assert_same_inputs(found, processor(before=A, after=B))
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "plain").eval()
    assert torch.equal(logits(plain, found), logits(ours, found))
    base = AutoModelForImageTextToText.from_pretrained(chats(family)).eval()
    assert not torch.equal(logits(plain, found), logits(base, found)), "the adapter is merged"
    names = {path.name for path in (tmp_path / "plain").iterdir()}
    assert "model.safetensors" in names and not [name for name in names if name.endswith((".py", ".bin"))]


@pytest.mark.parametrize("layout", ["two_images", "vertical"])
@pytest.mark.parametrize("family", sorted(set(CHAT_FAMILIES) - {"internvl"}))  # whose processor ignores its files
def test_a_server_without_options_sees_the_same(chats: Any, tmp_path: Path, family: str, layout: str) -> None:
    export(tmp_path / "plain", adapter=save_run(tmp_path / "run", chats(family), layout=layout))
    client, trained = load_processor(tmp_path / "plain"), load_processor(tmp_path / "run")
    assert client.image_options == trained.image_options
    pictures = client.pictures(client.load_pair(A, B, "the pair"))
    assert len(pictures) == (2 if layout == "two_images" else 1)
    found = server_inputs(tmp_path / "plain", pictures, client.settings["prompt"])
    assert_same_inputs(found, trained(before=A, after=B))


# pages: the README.md of an exported folder, and docs/serving.md


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def lines(page: Path, program: str) -> list[list[str]]:
    """Return the words of a page's command lines that run a program."""
    text = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    return [words for words in map(shlex.split, text.splitlines()) if program in words]


@pytest.fixture
def at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a current folder with two photographs; modules that snippets import from it are forgotten afterwards."""
    A.save(tmp_path / "before.png")
    B.save(tmp_path / "after.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "image_fusion", None)
    monkeypatch.delitem(sys.modules, "image_fusion")
    return tmp_path


def same(first: Image.Image, second: Image.Image) -> bool:
    return first.size == second.size and first.tobytes() == second.tobytes()


def answered(page: Path, capsys: pytest.CaptureFixture, code: str = "") -> Question:
    """Run the snippet of a page that asks a server; return what this was asked."""
    with LoopbackChat() as chat:
        snippet = (code or blocks(page, "python")[0]).replace(ADDRESS, chat.url).replace("served", MODEL)
        exec(snippet.replace(f'"model": "{page.parent.name}"', f'"model": "{MODEL}"'), {})
        command = lines(page, "blip2idc")[0][1:]
        command = [str(page.parent) if word == "." else word.replace(ADDRESS, chat.url) for word in command]
        assert capsys.readouterr().out == "the red ball is gone\n"
        assert blip2idc(command) == 0 and capsys.readouterr().out == "the red ball is gone\n"
    snippet_question, question = chat.questions
    assert snippet_question.body == question.body, "the snippet sends what the command sends"
    return question


def test_the_page_of_a_plain_blip2_fuses_as_the_processor_does(
    at_work: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"layout": "horizontal", "blur": 1.5, "prompt": 'what\'s "new" \U0001f600?', "max_caption_length": 9}
    export("plain", model=save_tiny(at_work / "model", **settings))
    monkeypatch.syspath_prepend(at_work / "plain")
    page = at_work / "plain" / "README.md"
    question = answered(page, capsys)
    [picture] = question.pictures
    assert same(picture, fuse(A, B, "horizontal", (32, 32), 1.5)) and not same(
        picture, fuse(B, A, "horizontal", (32, 32), 1.5)
    )
    assert question.text == settings["prompt"] and question.body["max_tokens"] == 9
    assert lines(page, "vllm") == [shlex.split("vllm serve . --served-model-name plain --dtype bfloat16")]
    monkeypatch.chdir("plain")
    snippet = blocks(page, "python")[1]
    exec(snippet.replace('"before.png"', '"../before.png"').replace('"after.png"', '"../after.png"'), {})
    model, processor = load(at_work / "model", device="cpu")
    assert capsys.readouterr().out.strip() == " ".join(caption(model, processor, [(A, B)])[0].split()) != ""


def test_the_page_of_a_t5_has_no_server(at_work: Path, capsys: pytest.CaptureFixture, monkeypatch: Any) -> None:
    export("plain", model=save_tiny(at_work / "model", "t5"))
    page = at_work / "plain" / "README.md"
    assert "vLLM does not serve" in page.read_text() and not blocks(page, "bash")
    monkeypatch.syspath_prepend(at_work / "plain")
    monkeypatch.chdir("plain")
    [snippet] = blocks(page, "python")
    exec(snippet.replace('"before.png"', '"../before.png"').replace('"after.png"', '"../after.png"'), {})
    model, processor = load(at_work / "model", device="cpu")
    assert " ".join(capsys.readouterr().out.split()) == caption(model, processor, [(A, B)])[0] != ""


@pytest.mark.parametrize("layout", ["two_images", "vertical"])
@pytest.mark.parametrize("family", ["qwen3_vl", "internvl", "smolvlm"])
def test_the_page_of_a_chat_model_asks_as_the_processor_does(
    chats: Any, at_work: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, family: str, layout: str
) -> None:
    settings = {"layout": layout, "prompt": "Which?", "scaled_decoding": False}  # the snippet has Pillow alone
    export("plain", adapter=save_run(at_work / "run", chats(family), **settings))
    page, processor = at_work / "plain" / "README.md", load_processor(at_work / "run")
    code = blocks(page, "python")[0].replace('load_processor(".")', 'load_processor("plain")')
    question = answered(page, capsys, code)
    assert question.text == "Which?"
    [words] = lines(page, "vllm")
    options = {name: json.loads(value) for name, value in zip(words[7::2], words[8::2], strict=True)}
    assert options["--limit-mm-per-prompt"] == {"image": len(question.pictures)}
    assert options["--mm-processor-kwargs"] == processor.image_options
    found = server_inputs(at_work / "plain", question.pictures, question.text, **options["--mm-processor-kwargs"])
    assert_same_inputs(found, processor(before=A, after=B))


def test_the_commands_and_snippets_of_the_documentation(
    root: Path, at_work: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = root / "docs" / "serving.md"
    save_run(at_work / "runs" / "mine", save_plain_blip2(at_work / "base"))
    (at_work / "pairs.csv").write_text("before,after\nbefore.png,after.png\nafter.png,before.png\n")
    for words in lines(page, "captioner_idc.exporting"):
        assert main(words[words.index("captioner_idc.exporting") + 1 :]) == 0
    assert {"served", "whole"} <= {path.name for path in at_work.iterdir()}
    model, processor = load("whole", device="cpu")
    with LoopbackChat(lambda question: f"at {question.pictures[0].getpixel((3, 3))[0]}") as chat:
        for words in lines(page, ".venv/bin/blip2idc"):
            address = chat.url.removesuffix("/v1")
            assert blip2idc([word.replace("http://127.0.0.1:8000", address) for word in words[1:]]) == 0
        first, second = (fuse(*pair, "vertical", (32, 32)).getpixel((3, 3))[0] for pair in ((A, B), (B, A)))
        assert capsys.readouterr().out.endswith(f"\nat {first}\n")
        predictions = [json.loads(line)["prediction"] for line in Path("out.jsonl").read_text().splitlines()]
        assert predictions == [f"at {first}", f"at {second}"] and first != second
    shown = json.loads(blocks(page, "json")[0])
    server = Server("http://127.0.0.1:8000/v1", "served")
    sent = request_body(server, server.processor.load_pair(A, B, "the pair"), PROMPT, 128)
    for part, name in zip(sent["messages"][0]["content"], ("BEFORE", "AFTER"), strict=False):
        part["image_url"]["url"] = re.sub("base64,.*", f"base64,{name}", part["image_url"]["url"])
    assert shown == sent


@pytest.mark.parametrize("bits", [8, 4])
def test_the_quantized_snippet_of_the_documentation(root: Path, at_work: Path, bits: int) -> None:
    package = Path(sys.prefix) / "quantization"  # see test_train.py
    if not package.is_dir() and importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("the package bitsandbytes is not installed: make weights")
    export("whole", adapter=save_run(at_work / "run", save_plain_blip2(at_work / "base")), output_format="remote-code")
    snippet = blocks(root / "docs" / "serving.md", "python")[0]
    assert snippet.count("[8]") == 1
    code = (
        "from bitsandbytes.nn import modules\nmodules.has_avx512bf16 = lambda: False  # needs wider models\n"
        f"{snippet.replace('[8]', f'[{bits}]')}\n"
        "print({weight.dtype for weight in model.parameters()}, type(model).__module__)"
    )
    environment = {**os.environ, "PYTHONPATH": str(package)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("torch.int8" if bits == 8 else "torch.uint8") in done.stdout and "transformers_modules" in done.stdout


# the command


def test_the_command_refuses_what_it_cannot_export(
    tiny_captioner: Path, chats: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    base = save_plain_blip2(tmp_path / "base")
    frames = save_run(tmp_path / "frames", chats("qwen3_vl"), layout="two_frames")
    plain, code = tmp_path / "plain", ["--format", "remote-code"]
    for options, message in (
        ([], "there is nothing to export: name a model"),
        (["--model", tiny_captioner], "the canvas [256, 128] is not square"),
        (["--adapter", frames], "the layout 'two_frames' has no pictures"),
        (["--model", base, *code], "is a whole model, not an adapter: there is nothing to merge"),
        (["--adapter", tmp_path / "nowhere"], "does not exist"),
    ):
        assert main([*map(str, options), "--output", str(plain)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and message in error and error.count("\n") == 1, error
        assert not plain.exists() and not list(tmp_path.glob(".*"))
    assert main(["--model", "unread", "--output", str(base)]) == 2
    assert "already exists and is not empty" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--model", str(base), "--output", str(plain), "--format", "gguf"])


def test_the_command_writes_the_whole_model_with_its_code(root: Path, tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", save_plain_blip2(tmp_path / "base"), layout="horizontal")
    command = [sys.executable, "-m", "captioner_idc.exporting", "--adapter", "run", "--output", "whole"]
    command += ["--format", "remote-code", "--dtype", "bfloat16"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "whole: remote-code model\n"), done.stderr
    loaded, processor = load(tmp_path / "whole", device="cpu", dtype=torch.bfloat16)
    assert processor.settings["layout"] == "horizontal" and type(loaded) is Blip2IdcForConditionalGeneration
    adapted, _ = load(run, device="cpu")
    inputs = processor(before=A, after=B)
    assert (logits(loaded, inputs).float() - logits(adapted, inputs)).abs().max() < 0.1
    assert (tmp_path / "whole" / "modeling_blip2idc.py").is_file() and not list(tmp_path.glob(".*"))


def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = save_plain_blip2(tmp_path / "base")

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Blip2Processor, "save_pretrained", full_disk)
    with pytest.raises(OSError, match="No space left"):
        export(tmp_path / "plain", model=base)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_processor_is_loaded_without_weights(chats: Any, tmp_path: Path) -> None:
    for source in (save_tiny(tmp_path / "blip2", prompt="Which?"), save_tiny(tmp_path / "t5", "t5"), chats("gemma3")):
        _, wanted = load(source, device="cpu")
        folder = shutil.copytree(source, tmp_path / "without" / source.name)
        (folder / "model.safetensors").unlink()
        found = load_processor(folder)
        assert found.settings == wanted.settings and type(found) is type(wanted)
        assert processor_fingerprint(found) == processor_fingerprint(wanted)
    run = save_run(tmp_path / "run", save_plain_blip2(tmp_path / "base"), prompt="What?")
    assert load_processor(run).settings["prompt"] == "What?"
    (run / "processor_config.json").unlink()
    assert load_processor(run).settings["prompt"] == ""
