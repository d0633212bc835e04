"""Loading: damaged and hostile folders are refused in one line that quotes the folder, and none of their code runs."""

import functools
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from loopback_hub import LoopbackHub
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny, tiny_config, tiny_model, tiny_plain_processor, tiny_processor, tiny_tokenizer
from tokenizers import Tokenizer, models
from transformers import Blip2ForConditionalGeneration, Blip2Processor, PreTrainedTokenizerFast

from captioner_idc import adapter_files
from captioner_idc.adapters import add_lora, base_of, save_adapter
from captioner_idc.captioning import caption
from captioner_idc.loading import SHIPPED, load, processor_fingerprint
from captioner_idc.tokenizer_checks import words_in_pieces
from modeling_blip2idc import Blip2IdcForConditionalGeneration, Blip2IdcProcessor

WEIGHTS, ADAPTER, CONFIG = "model.safetensors", "adapter_model.safetensors", "adapter_config.json"
PROCESSOR = "processor_config.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 7808032\n"
EMBEDDINGS = "language_model.model.decoder.embed_tokens.weight"
LANGUAGE = "language_model.model.decoder.layers.1.fc1.bias"
Damage = Callable[[Path], Any]


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harmed",)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that contains the folders of a model and of an adapter for it."""
    folder = tmp_path_factory.mktemp("whole")
    save_tiny(folder / "model")
    adapted = add_lora(tiny_model(), rank=2, alpha=4, dropout=0.0, seed=0)
    save_adapter(adapted, tiny_processor(), folder / "adapter", base="./model", revision=None)
    return folder


@pytest.fixture
def folders(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy, which is also the current directory."""
    shutil.copytree(whole, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def write(name: str, content: str | bytes | Any) -> Damage:
    """Return a function that writes a file: text, bytes, or JSON."""

    def damage(folder: Path) -> None:
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        if not isinstance(content, (str, bytes)):
            file.write_text(json.dumps(content))
        else:
            file.write_bytes(content.encode() if isinstance(content, str) else content)

    return damage


def cut(name: str) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-30])


def remove(*names: str) -> Damage:
    return lambda folder: [(folder / name).unlink() for name in names]


def edit(name: str, **values: Any) -> Damage:
    """Return a function that changes entries of a JSON file; "a__b" is entry b of entry a."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        for path, value in values.items():
            *parents, last = path.split("__")
            functools.reduce(dict.__getitem__, parents, content)[last] = value
        (folder / name).write_text(json.dumps(content))

    return damage


def edit_weights(name: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> Damage:
    def damage(folder: Path) -> None:
        weights = load_file(folder / name)
        change(weights)
        save_file(weights, folder / name, metadata={"format": "pt"})

    return damage


def fill(part: str, value: float) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda weights: weights[next(name for name in weights if part in name)].view(-1)[:1].fill_(value)


def pickled(content: Any, file: str, old: str) -> Damage:
    def damage(folder: Path) -> None:
        torch.save(load_file(folder / old) if content is None else content, folder / file)
        (folder / old).unlink()

    return damage


def tokenizer(change: Callable[[Any], Any]) -> Damage:
    def damage(folder: Path) -> None:
        changed = tiny_tokenizer()
        changed = change(changed) or changed
        changed.save_pretrained(folder)

    return damage


def other_words(original: Any) -> Any:
    """Return a tokenizer of the same size and special tokens, whose words have each other's ids."""
    content = json.loads(original.backend_tokenizer.to_str())
    words = content["model"]["vocab"]
    a, b = list(words)[10:12]
    words[a], words[b] = words[b], words[a]
    original._tokenizer = type(original.backend_tokenizer).from_str(json.dumps(content))
    return original


def both(*damages: Damage) -> Damage:
    return lambda folder: [damage(folder) for damage in damages]


# transformers makes an empty tokenizer of this class
NO_WORDS = both(remove("tokenizer.json"), write("tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer"}))
EVIL_CODE = both(
    write("evil.py", "import os\nos.mkdir('harmed')\nclass Evil: pass\n"),
    write("custom_generate/generate.py", "import os\nos.mkdir('harmed')\ndef generate(*a, **k): pass\n"),
)
AUTO_MAP = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoProcessor": "evil.Evil"}
IMAGE_CODE = {"AutoImageProcessor": "evil.Evil"}
EVIL_PATTERN = r"([a-z_]+.?)+!"

# name -> damage, what the message must contain
MODELS: dict[str, tuple[Damage, str]] = {
    "no config": (remove("config.json"), "config.json"),
    "cut config": (cut("config.json"), "/config.json' is cut off or damaged"),
    "config as pointer": (write("config.json", POINTER), "config.json' is a Git LFS pointer.*git lfs pull"),
    "config is a list": (write("config.json", [1]), "/config.json' contains a list"),
    "another kind of model": (
        write("config.json", {"model_type": "opt"}),
        "model of type 'opt', which cannot be used .*: use one of type blip",
    ),
    "code for an unknown kind": (
        both(write("config.json", {"model_type": "evil", "auto_map": AUTO_MAP}), EVIL_CODE),
        "needs code of its own.* trust_remote_code=True",
    ),
    "config with fewer layers": (
        edit("config.json", text_config__num_hidden_layers=1),
        r"no place for: \['language_model.model.decoder.layers.1",
    ),
    "config with more layers": (edit("config.json", qformer_config__num_hidden_layers=3), "lacks weights: .*layer.2"),
    "config of another size": (edit("config.json", text_config__ffn_dim=32), r"of shape \[64.* config.json says \[32"),
    "config with a text for a number": (edit("config.json", num_query_tokens="8"), "num_query_tokens"),
    "config of a quantized model": (
        edit("config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        "cannot be loaded: .*bitsandbytes",
    ),
    "cut settings of generation": (cut("generation_config.json"), "generation_config.json' is cut off"),
    **{
        f"generation with {name} {value!r}": (
            edit("generation_config.json", **{name: value}),
            f"has {name}={value!r}:",
        )
        for name, value in (
            *(("num_beams", "x"), ("num_beams", 0), ("temperature", "1"), ("do_sample", "no"), ("max_length", -3)),
            *(("pad_token_id", 1.5), ("top_p", True)),
        )
    },
    "repeated key": (write("config.json", '{"a": 1, "a": 2}'), "the key 'a' is given 2 times"),
    "no weights": (remove(WEIGHTS), "cannot be loaded: .*model.safetensors"),
    "cut weights": (cut(WEIGHTS), "model.safetensors' is cut off or damaged .*again"),
    "weights as pointer": (write(WEIGHTS, POINTER), "model.safetensors' is a Git LFS pointer.*git lfs pull"),
    "empty weights": (write(WEIGHTS, b""), "model.safetensors' is cut off or damaged"),
    "weights are text": (write(WEIGHTS, "<html>Not found</html>" * 20), "model.safetensors' is cut off or damaged"),
    "NaN": (edit_weights(WEIGHTS, fill(LANGUAGE, float("nan"))), f"not finite, in '{LANGUAGE}'"),
    "infinity": (edit_weights(WEIGHTS, fill("query_tokens", float("inf"))), "not finite, in 'query_tokens'"),
    "too many weights": (
        edit_weights(WEIGHTS, lambda weights: weights.update(other=torch.ones(2))),
        r"no place for: \['other'\]",
    ),
    "too few weights": (edit_weights(WEIGHTS, lambda weights: weights.pop(LANGUAGE)), f"lacks weights: .*{LANGUAGE}"),
    "weights of another shape": (
        edit_weights(WEIGHTS, lambda weights: weights.update({LANGUAGE: torch.ones(3)})),
        rf"contains '{LANGUAGE}' of shape \[3\], but its config.json says \[64\]",
    ),
    "pickled weights": (pickled(None, "pytorch_model.bin", WEIGHTS), "is a pickle.* --allow_pickle"),
    "a missing shard": (
        both(remove(WEIGHTS), write(f"{WEIGHTS}.index.json", {"metadata": {}, "weight_map": {"a": "b.safetensors"}})),
        "b.safetensors",
    ),
    "index is a list": (both(remove(WEIGHTS), write(f"{WEIGHTS}.index.json", [1])), "index.json' contains a list"),
    "no tokenizer": (remove("tokenizer.json", "tokenizer_config.json"), "cannot be loaded: .*tokenizer"),
    "no words in the tokenizer": (NO_WORDS, "gives nothing for 'a'"),
    "tokenizer as pointer": (write("tokenizer.json", POINTER), "tokenizer.json' is a Git LFS pointer"),
    "cut tokenizer": (cut("tokenizer.json"), "tokenizer.json' is cut off or damaged"),
    "larger tokenizer": (
        tokenizer(lambda t: t.add_tokens(["w1", "w2", "w3"]) and None),
        "tokenizer in .* has 323 tokens, but the model 320: it is another model's",
    ),
    "smaller tokenizer": (
        both(
            edit("config.json", text_config__vocab_size=640),
            edit_weights(WEIGHTS, lambda weights: weights.update({EMBEDDINGS: weights[EMBEDDINGS].repeat(2, 1)})),
        ),
        "tokenizer in .* has 320 tokens, but the model 640: it is another model's",
    ),
    "another end": (tokenizer(lambda t: setattr(t, "eos_token", "the")), "has the eos token .*, but the model 2"),
    "another beginning": (
        tokenizer(lambda t: setattr(t, "bos_token", "the")),
        "has the bos token .*, but the model 0",
    ),
    "another padding": (tokenizer(lambda t: setattr(t, "pad_token", "the")), "has the pad token .*, but the model 1"),
    "another image token": (edit("config.json", image_token_index=9), "has the image token 3, but the model 9"),
    "no processor": (remove(PROCESSOR), "cannot be loaded"),
    "processor is a list": (write(PROCESSOR, [1]), "processor_config.json' contains a list"),
    "cut processor": (cut(PROCESSOR), "processor_config.json' is cut off or damaged"),
    "another processor": (edit(PROCESSOR, processor_class="CLIPProcessor", auto_map={}), "contains a CLIPProcessor"),
    "code of the processor": (
        both(edit(PROCESSOR, processor_class="Evil", auto_map=AUTO_MAP), EVIL_CODE),
        "needs code of its own",
    ),
    "code of the tokenizer": (
        both(
            edit(
                "tokenizer_config.json", tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
            ),
            EVIL_CODE,
        ),
        "needs code of its own",
    ),
    "code of the image processor": (
        both(
            edit(PROCESSOR, image_processor__image_processor_type="Evil", image_processor__auto_map=IMAGE_CODE),
            EVIL_CODE,
        ),
        "needs code of its own",
    ),
    "caption length as text": (edit(PROCESSOR, max_caption_length="5"), "max_caption_length must be .* got '5'"),
    "query tokens as text": (edit(PROCESSOR, num_query_tokens="8"), "num_query_tokens must be .* got '8'"),
    "other query tokens": (edit(PROCESSOR, num_query_tokens=5), "num_query_tokens=5, which .* the model's 4"),
    "canvas of floats": (edit(PROCESSOR, canvas=[32.0, 32.0]), "canvas must be two positive whole numbers"),
    "canvas as number": (edit(PROCESSOR, canvas=32), "canvas must be a list of two whole numbers.* got 32"),
    "canvas that does not fit": (edit(PROCESSOR, canvas=[36, 36]), "not a multiple of the patch size 8"),
    "unknown layout": (edit(PROCESSOR, layout=["vertical"]), "layout must be"),
    "blur as text": (edit(PROCESSOR, blur="0.3"), "blur must be .* got '0.3'"),
    "blur NaN": (edit(PROCESSOR, blur=float("nan")), "blur must be .* got nan"),
    "prompt as number": (edit(PROCESSOR, prompt=5), "prompt must be a text, got 5"),
    "prompt too long": (edit(PROCESSOR, prompt="what " * 200), "more than the 256 positions"),
    "prompt with the image token": (edit(PROCESSOR, prompt="a <image>", max_caption_length=999), "positions"),
    "decoder_only as text": (edit(PROCESSOR, decoder_only="yes"), "decoder_only must be true or false, got 'yes'"),
    "decoder_only of T5": (edit(PROCESSOR, decoder_only=False), "decoder_only=False, which does not fit the model's"),
    "division by zero": (edit(PROCESSOR, image_processor__image_std=[0, 0, 0]), "pixels that are not finite"),
    "mean as text": (edit(PROCESSOR, image_processor__image_mean="x"), "cannot be loaded"),
}
ADAPTERS: dict[str, tuple[Damage, str]] = {
    "no config": (remove(CONFIG), f"contains no {CONFIG}"),
    "cut config": (cut(CONFIG), f"{CONFIG}' is cut off or damaged"),
    "config as pointer": (write(CONFIG, POINTER), f"{CONFIG}' is a Git LFS pointer"),
    "config is a list": (write(CONFIG, [1]), f"{CONFIG}' contains a list"),
    "config nested too deeply": (write(CONFIG, "[" * 9999), "nested too deeply"),
    "repeated key": (write(CONFIG, '{"r": 2, "r": 4}'), "the key 'r' is given 2 times"),
    "base is a list": (edit(CONFIG, base_model_name_or_path=["a", "b"]), r"base_model_name_or_path \['a', 'b'\]"),
    "IA3": (edit(CONFIG, peft_type="IA3"), "peft_type 'IA3': only LORA adapters are supported"),
    "prompt tuning": (edit(CONFIG, peft_type="PROMPT_TUNING"), "peft_type 'PROMPT_TUNING': only LORA"),
    "no type": (edit(CONFIG, peft_type=None), "peft_type None: only LORA"),
    "rank as text": (edit(CONFIG, r="2"), "has r '2', which must be a whole number from 1"),
    "rank 0": (edit(CONFIG, r=0), "has r 0, which must be a whole number from 1"),
    "rank of a billion": (edit(CONFIG, r=10**9), "weights of rank 2, but its adapter_config.json says 1000000000"),
    "rank of a billion in one module": (edit(CONFIG, rank_pattern={"qkv": 10**9}), "weights of rank 2, but"),
    "smaller rank": (edit(CONFIG, r=1), "does not fit this model .*size mismatch"),
    "alpha NaN": (edit(CONFIG, lora_alpha=float("nan")), "has lora_alpha nan, which must be a finite number"),
    "dropout above 1": (edit(CONFIG, lora_dropout=1.5), "has lora_dropout 1.5, which must be"),
    "targets as number": (edit(CONFIG, target_modules=5), "has target_modules 5, which must be"),
    "targets that match nothing": (edit(CONFIG, target_modules=["nothing"]), "does not fit this model"),
    "targets for ever": (edit(CONFIG, target_modules=EVIL_PATTERN), "cannot be matched within .* seconds"),
    "exclusion for ever": (edit(CONFIG, exclude_modules=EVIL_PATTERN), "cannot be matched within .* seconds"),
    "rank pattern for ever": (edit(CONFIG, rank_pattern={EVIL_PATTERN: 2}), "cannot be matched within .* seconds"),
    "layer pattern for ever": (edit(CONFIG, layers_pattern=EVIL_PATTERN), "cannot be matched within .* seconds"),
    "targets are no pattern": (edit(CONFIG, target_modules="("), "which is not a regular expression"),
    "targets without weights": (
        edit(CONFIG, target_modules=r".*\.(qkv|key|value|query|q_proj|k_proj|v_proj|fc1)"),
        "does not fit this model .*missing adapter keys",
    ),
    "weights without targets": (
        edit(CONFIG, target_modules=r".*\.(qkv|q_proj|k_proj|v_proj)"),
        r"weights of modules that its adapter_config.json does not target: \['base_model.model.qformer",
    ),
    "code of Megatron": (
        both(edit(CONFIG, megatron_config={"a": 1}, megatron_core="evil"), lambda _: write("evil.py", "")(Path())),
        "Megatron is not supported",
    ),
    "no weights": (remove(ADAPTER), f"contains no {ADAPTER}"),
    "cut weights": (cut(ADAPTER), f"{ADAPTER}' is cut off or damaged"),
    "weights as pointer": (write(ADAPTER, POINTER), f"{ADAPTER}' is a Git LFS pointer.*git lfs pull"),
    "empty weights": (write(ADAPTER, b""), f"{ADAPTER}' is cut off or damaged"),
    "no tensor": (edit_weights(ADAPTER, lambda weights: weights.clear()), "LoRA weights of rank 0"),
    "NaN": (edit_weights(ADAPTER, fill("q_proj.lora_B", float("nan"))), "not finite, in .*q_proj.lora_B"),
    "infinity": (edit_weights(ADAPTER, fill("qkv.lora_A", float("inf"))), "not finite, in .*qkv.lora_A"),
    "too few weights": (edit_weights(ADAPTER, lambda weights: weights.popitem()), "missing adapter keys"),
    "too many weights": (
        edit_weights(ADAPTER, lambda weights: weights.update({"base_model.model.x.lora_A.weight": torch.ones(2, 2)})),
        r"does not target: \['base_model.model.x.lora_A.weight'\]",
    ),
    "pickled weights": (pickled(None, "adapter_model.bin", ADAPTER), "is a pickle.*old_adapters.* --allow_pickle"),
    "no words in the tokenizer": (NO_WORDS, "gives nothing for 'a'"),
    "another vocabulary": (tokenizer(other_words), "has another vocabulary than that of its base .*exchanged"),
    "other query tokens": (edit(PROCESSOR, num_query_tokens=5), "num_query_tokens=5, which .* the model's 4"),
}


def refused(model: Path, adapter: Path | None = None, **options: Any) -> str:
    """Return the message with which a folder is refused, after checking its form."""
    with pytest.raises((OSError, ValueError)) as error:
        load(model, adapter, device="cpu", **options)
    message = str(error.value)
    assert "\n" not in message and len(message) < 600, message
    assert str(adapter or model) in message or os.path.basename(adapter or model) in message, message
    assert not Path("harmed").exists(), "its code ran"
    return message


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question"))
    monkeypatch.setattr(adapter_files, "PATTERN_SECONDS", 2.0)


def test_the_folders_are_sound_before_they_are_damaged(folders: Path) -> None:
    for names in (("model",), ("model", "adapter"), ("adapter",)):
        load(*(folders / name for name in names), device="cpu")


@pytest.mark.parametrize("case", MODELS)
def test_a_damaged_model_is_refused_in_one_line(case: str, folders: Path) -> None:
    damage, expected = MODELS[case]
    damage(folders / "model")
    assert re.search(expected, message := refused(folders / "model")), message


@pytest.mark.parametrize("case", ADAPTERS)
def test_a_damaged_adapter_is_refused_in_one_line(case: str, folders: Path) -> None:
    damage, expected = ADAPTERS[case]
    damage(folders / "adapter")
    assert re.search(expected, message := refused(folders / "model", folders / "adapter")), message


@pytest.mark.parametrize(
    ("case", "expected"), [("ia3_adapter", "has peft_type 'IA3': only LORA"), ("lfs_adapter", "is a Git LFS pointer")]
)
def test_adapters_that_people_had_are_refused(case: str, expected: str, root: Path, folders: Path) -> None:
    adapter = root.parent / "shared" / "cases" / case
    if not adapter.is_dir():
        pytest.skip("the small inputs that failed are not next to this repository")
    assert expected in refused(folders / "model", adapter)


@pytest.mark.parametrize("name", ["./nowhere", "../nowhere", "~/nowhere", "nowhere/", "a/b/nowhere", "/a/nowhere"])
def test_the_hub_is_never_asked_for_a_folder(name: str, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folders))
    monkeypatch.setattr("captioner_idc.loading.cache_if_unreachable", lambda: pytest.fail("the Hub"))
    for arguments in ((name,), ("model", name)):
        with pytest.raises(OSError, match="the folder .*nowhere.* does not exist"):
            load(*arguments, device="cpu")
    edit(CONFIG, base_model_name_or_path=name)(folders / "adapter")
    with pytest.raises(OSError, match=f"adapter/{CONFIG}' names as base model the folder .*nowhere.*: change the dir"):
        load("adapter", device="cpu")


def test_a_base_that_is_a_folder_is_saved_as_one(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.move("model", "checkpoints/tiny")
    model, processor = load("checkpoints/tiny", device="cpu")
    save_adapter(add_lora(model, 2, 4, 0.0, 0), processor, folders / "run", base="checkpoints/tiny", revision=None)
    assert base_of(load("run", device="cpu")[0]) == ("./checkpoints/tiny", None)
    with pytest.raises(HFValidationError):
        validate_repo_id("./checkpoints/tiny")
    monkeypatch.chdir("run")
    with pytest.raises(OSError, match=f"/run/{CONFIG}' names as base model the folder './checkpoints/tiny', which"):
        load(folders / "run", device="cpu")


def test_another_base_than_the_one_in_the_adapter_is_said(folders: Path, caplog: pytest.LogCaptureFixture) -> None:
    for same in ("model", "./model", folders / "model"):
        load(same, "adapter", device="cpu")
        assert not caplog.messages
    shutil.copytree("model", "other")
    model, _ = load("other", "adapter", device="cpu")
    assert caplog.messages == ["the adapter 'adapter' was trained on './model', but is used with 'other'"]
    assert base_of(model) == ("./model", None)


def test_a_base_that_is_an_adapter_is_refused(folders: Path) -> None:
    edit(CONFIG, base_model_name_or_path="./adapter")(folders / "adapter")
    assert "'./adapter' is an adapter itself" in refused(folders / "adapter")
    edit(CONFIG, base_model_name_or_path=None)(folders / "adapter")
    assert "names no base model" in refused(folders / "adapter")


@pytest.mark.parametrize("evil", [False, True])
def test_pickles_are_read_with_an_option_and_only_tensors_are(evil: bool, folders: Path) -> None:
    model, adapted = (load(*names, device="cpu")[0].state_dict() for names in (("model",), ("adapter",)))
    pickled(Harmful() if evil else None, "adapter_model.bin", ADAPTER)(folders / "adapter")
    if evil:
        assert "more than tensors" in refused(folders / "adapter", allow_pickle=True)
    else:
        again = load("adapter", device="cpu", allow_pickle=True)[0].state_dict()
        assert again.keys() == adapted.keys() and all(torch.equal(again[name], adapted[name]) for name in again)
    pickled(Harmful() if evil else None, "pytorch_model.bin", WEIGHTS)(folders / "model")
    if evil:
        assert "more than tensors" in refused(folders / "model", allow_pickle=True)
    else:
        again = load("model", device="cpu", allow_pickle=True)[0].state_dict()
        assert all(torch.equal(again[name], model[name]) for name in model)


def test_code_in_the_folder_of_a_known_model_is_ignored(folders: Path) -> None:
    """A merged model of ours contains its own code and names it, as this one does."""
    EVIL_CODE(folders / "model")
    assert "auto_map" in json.loads((folders / "model" / "config.json").read_text())
    edit("config.json", auto_map=AUTO_MAP)(folders / "model")
    edit(PROCESSOR, auto_map=AUTO_MAP)(folders / "model")
    model, _ = load("model", device="cpu")
    assert type(model) is Blip2IdcForConditionalGeneration and not Path("harmed").exists()


def test_a_prompt_given_later_is_checked_too(folders: Path) -> None:
    model, processor = load("model", device="cpu")
    image = Image.new("RGB", (8, 8))
    with pytest.raises(ValueError, match="more than the 256 positions"):
        caption(model, processor, [(image, image)], text="what " * 200)
    with pytest.raises(ValueError, match="and 300 of caption are more than the 256 positions"):
        caption(model, processor, [(image, image)], max_new_tokens=300)
    with pytest.raises(ValueError, match="more than the 256 positions"):
        model(**processor(before=image, after=image, captions="a", text="what " * 200))


def test_the_fingerprint_of_a_processor_is_that_of_all_it_does(folders: Path) -> None:
    processor = load("model", device="cpu")[1]
    original = processor_fingerprint(processor)
    processor.tokenizer(["a", "longer text"], padding=True, truncation=True, max_length=2)
    assert processor_fingerprint(processor) == original == processor_fingerprint(load("model", device="cpu")[1])
    prompted = load("model", device="cpu", processor={"prompt": "what?"})[1]
    for change in (
        edit(PROCESSOR, image_processor__image_mean=[0, 0, 0]),
        tokenizer(other_words),
        tokenizer(lambda t: setattr(t, "pad_token", "</s>")),
    ):
        shutil.copytree("model", "changed", dirs_exist_ok=True)
        change(Path("changed"))
        assert processor_fingerprint(load("changed", device="cpu")[1]) != original
    assert processor_fingerprint(prompted) != original


def test_the_fingerprint_of_the_shipped_processor_outlives_saving(tmp_path: Path) -> None:
    processor = load(SHIPPED, device="cpu")[1]
    processor.save_pretrained(tmp_path)
    assert processor_fingerprint(Blip2IdcProcessor.from_pretrained(tmp_path)) == processor_fingerprint(processor)


def real_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Return one with the special tokens and ids of BLIP-2's OPT or FLAN-T5, without `<image>`."""
    special = ["<s>", "<pad>", "</s>"] if kind == "opt" else ["<pad>", "</s>"]
    size = 50265 if kind == "opt" else 500
    words = [*special, *(chr(33 + i) for i in range(94)), *(f"w{i}" for i in range(size))][:size]
    vocabulary = {word: index for index, word in enumerate(words)}
    if kind == "opt":  # OPT's newline
        vocabulary.pop(words[50118])
        vocabulary["\n"] = 50118
    bos = {"bos_token": "</s>"} if kind == "opt" else {}
    backend = Tokenizer(models.BPE(vocabulary, []))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", **bos)


@pytest.mark.parametrize(
    ("kind", "names_image_token", "rows"),
    [("opt", True, 50304), ("opt", False, 50272), ("t5", True, 512), ("t5", False, 500), ("t5", False, 512)],
)
def test_real_tokenizers_fit(kind: Any, names_image_token: bool, rows: int, tmp_path: Path) -> None:
    """OPT ends with its newline, while its tokenizer ends with BOS; T5 has no BOS; both pad their vocabulary."""
    text = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 50118} if kind == "opt" else {}
    text |= {"vocab_size": rows} | ({} if kind == "opt" else {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1})
    config = tiny_config(kind)
    config.text_config.update(text)
    config.image_token_index = {"opt": 50265, "t5": 500}[kind] if names_image_token else None
    Blip2ForConditionalGeneration(config).save_pretrained(tmp_path)
    Blip2Processor(tiny_plain_processor(kind).image_processor, real_tokenizer(kind)).save_pretrained(tmp_path)
    if not names_image_token:
        real_tokenizer(kind).save_pretrained(tmp_path)
        edit(PROCESSOR, num_query_tokens=4)(tmp_path)
    model, processor = load(tmp_path, device="cpu")
    assert model.config.image_token_id == processor.image_token_id == {"opt": 50265, "t5": 500}[kind]
    image = Image.new("RGB", (8, 8))
    assert len(caption(model, processor, [(image, image)], max_new_tokens=2)) == 1


def test_words_spelled_in_pieces_are_counted() -> None:
    words = load(SHIPPED, device="cpu")[1].tokenizer
    known = ["the small red circle has been removed", "take away the blue triangle", "insert a large square"]
    assert words_in_pieces(words, known) == (0, 15, [])
    captions = ["the gray cube is a cube", "a sphere, a gray cube", *known]
    assert words_in_pieces(words, captions) == (2, 19, ["cube", "sphere"])


HUB_CLIENT = """
from captioner_idc.loading import load
from huggingface_hub import constants
for name in ("tester/model", "tester/adapter", "tester/nowhere", "tester/pickles"):
    try:
        load(name, device="cpu")
        print("loaded", name)
    except (OSError, ValueError) as error:
        print(error)
assert not constants.HF_HUB_OFFLINE
"""


def test_without_the_hub_the_cache_is_used_at_once(folders: Path, tmp_path: Path) -> None:
    edit(CONFIG, base_model_name_or_path="tester/model")(folders / "adapter")
    with LoopbackHub() as hub:
        for name in ("model", "adapter"):
            hub.add_repo(f"tester/{name}", {path.name: path.read_bytes() for path in Path(name).iterdir()})
        pickled(None, "pytorch_model.bin", WEIGHTS)(folders / "model")
        hub.add_repo("tester/pickles", {path.name: path.read_bytes() for path in Path("model").iterdir()})
        online = hub.run(HUB_CLIENT, tmp_path / "home")
    offline = hub.run(HUB_CLIENT, tmp_path / "home")
    for done in (online, offline):
        assert done.returncode == 0, done.stderr
        first, second, third, fourth = done.stdout.splitlines()
        assert (first, second) == ("loaded tester/model", "loaded tester/adapter")
        assert third.startswith("'tester/nowhere' cannot be loaded: ")
        assert "--allow_pickle" in fourth
    said = [line for line in offline.stderr.splitlines() if "Hub" in line]
    assert len(said) == 1 and "cannot be reached ([Errno 111] Connection refused): using the files in" in said[0]
    assert "Hub" not in online.stderr and len(hub.asked("^HEAD / ")) == 1
