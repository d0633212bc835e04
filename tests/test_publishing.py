"""A run is pushed to a loopback Hub and loaded by the snippet of its card, in a process without this package."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from loopback_hub import TOKEN, LoopbackHub
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_chat_models import save_chat
from tiny_models import save_plain_blip2, tiny_processor
from without_package import ALONE

from captioner_idc.adapters import add_lora, save_adapter
from captioner_idc.captioning import caption
from captioner_idc.change_probability import Calibration, read_calibration, write_calibration
from captioner_idc.families import card_facts
from captioner_idc.loading import load, load_image
from dataset_syned.benchmarks.toy import ToyConfig, draw_row
from modeling_blip2idc import Blip2IdcForConditionalGeneration
from run_idc.card import own_results, read_run, write_card
from run_idc.publishing import main, outdated, staged_files, try_push

BASE, REPO = "tester/tiny-blip2", "tester/toy"
OPTIONS = {"train": 48, "validation": 8, "test": 12}
CODE = {"image_fusion.py", "processing_blip2idc.py"}
PROCESSOR = {"processor_config.json", "tokenizer.json", "tokenizer_config.json"}
RECORDS = {".gitattributes", "README.md", "train_config.yaml", "log.jsonl", "captioner.json"}
ADAPTER = {"adapter_config.json", "adapter_model.safetensors"}
TRY = """
from common_idc import hub_access
from run_idc import publishing
hub_access.DELAYS = (0.05, 0.1)
for run, repo, options in {pushes!r}:
    print(publishing.try_push(run, repo, **options))
"""


@pytest.fixture
def hub(root: Path) -> Iterator[LoopbackHub]:
    with new_hub(root) as hub:
        yield hub


def new_hub(root: Path) -> LoopbackHub:
    hub = LoopbackHub()
    files = (root / "captioner_idc" / "tiny_captioner").iterdir()
    hub.add_repo(BASE, {file.name: file.read_bytes() for file in files})
    return hub


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a real and evaluated run of train.py, on a base model from the Hub."""
    folder = tmp_path_factory.mktemp("trained")
    config = {
        "model": BASE,
        "benchmark": "toy",
        "benchmark_options": OPTIONS,
        "batch_size": 8,
        "epochs": 2,
        "learning_rate": 0.01,
        "lora_rank": 2,
        "lora_dropout": 0.0,
        "validation_captions": 0,
        "mixed_precision": "no",
        "attn_implementation": "eager",
        "output_dir": str(folder / "run"),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with new_hub(root) as hub:
        done = program(hub, root, folder / "home", "train.py", "--config", folder / "config.yaml")
        assert done.returncode == 0, done.stderr
        result = folder / "run" / "eval" / "toy-test"
        done = program(hub, root, folder / "home", *evaluation(folder / "run"))
        assert done.returncode == 0 and (result / "metrics.json").is_file(), done.stderr
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of the real run, in a folder whose name must not be published."""
    return Path(shutil.copytree(trained, tmp_path / "of alice" / "run"))


def program(hub: LoopbackHub, root: Path, home: Path, *arguments: Any, **more: str | None):
    environment = hub.environment(home, **more)
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def evaluation(run: Path) -> list[str]:
    arguments = ["evaluate.py", "--adapter", str(run), "--benchmark", "toy", "--benchmark_options"]
    return [*arguments, json.dumps(OPTIONS), "--output_dir", str(run / "eval" / "toy-test")]


def publish(hub: LoopbackHub, root: Path, home: Path, run: Path, *options: str, repo: str = REPO, **more: str | None):
    return program(hub, root, home, "-m", "run_idc.publishing", run, repo, *options, **more)


def tried(hub: LoopbackHub, home: Path, *pushes: tuple[Path, str, dict[str, bool]], **more: str | None) -> list[str]:
    """Return the line of each `try_push`, which must neither raise nor print a second line."""
    done = hub.run(TRY.format(pushes=[(str(run), repo, options) for run, repo, options in pushes]), home, **more)
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr and "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(pushes), done.stdout
    return lines


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def snippet(card: str) -> str:
    [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return code


PIPELINE = f"""
from transformers import pipeline

pipe = pipeline("image-difference-captioning", model="{REPO}", trust_remote_code=True)
print(pipe({{"before": "before.png", "after": "after.png"}})["generated_text"])
"""


def output_without_package(hub: LoopbackHub, folder: Path, code: str) -> str:
    """Return the last line that this code prints for another user, in a new folder without token, package or cache."""
    folder.mkdir()
    for side, image in zip(("before", "after"), images(), strict=True):
        image.save(folder / f"{side}.png")
    done = hub.run(ALONE + code, folder / "home", folder, token=None, PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def images() -> tuple[Image.Image, Image.Image]:
    """Return a pair of the kind that the run was trained on."""
    row = draw_row(ToyConfig(seed=2026, width=256, height=128), "test", 3)
    return load_image(row["before"]), load_image(row["after"])


def test_an_adapter_works_by_its_cards_snippet_without_this_package(
    hub: LoopbackHub, root: Path, tmp_path: Path, run: Path
) -> None:
    done = publish(hub, root, tmp_path / "mine", run)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == f"{hub.endpoint}/{REPO}", done.stderr
    files = hub.files(REPO)
    scores = {"eval/toy-test/metrics.json", ".eval_results/toy.yaml"}
    pictures = {"curves.png"} if (run / "curves.png").is_file() else set()
    assert set(files) == RECORDS | ADAPTER | PROCESSOR | CODE | scores | pictures
    for name, content in files.items():
        if name != ".gitattributes":
            assert re.search(rf"{len(content):,} bytes  {re.escape(name)}\n", done.stdout), name
    assert files["adapter_model.safetensors"] == (run / "adapter_model.safetensors").read_bytes()
    assert len(hub.asked("POST .*/commit/main 200")) == len(hub.asked("POST /api/validate-yaml 200")) == 1

    base = root / "captioner_idc" / "tiny_captioner"
    model, processor = load(base, run, device="cpu")
    [expected] = caption(model, processor, [images()])
    before, after = images()
    length = model.generate(**processor(before=before, after=after), max_new_tokens=128).shape[1]
    code = snippet(files["README.md"].decode()) + "print(tokens.shape[1], _)"
    code = code.replace("print(processor", "_ = (processor", 1)
    assert output_without_package(hub, tmp_path / "theirs", code) == f"{length} {expected}" and length < 128
    assert caption(*load(base, device="cpu"), [images()]) != [expected], "the adapter must change the caption"


def test_a_merged_model_works_by_its_cards_snippet_without_this_package(
    hub: LoopbackHub, root: Path, tmp_path: Path, run: Path
) -> None:
    hub.add_repo(REPO, {**dict.fromkeys(ADAPTER, b"old"), "LICENSE": b"theirs"})
    done = publish(hub, root, tmp_path / "mine", run, "--merge")
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == f"{hub.endpoint}/{REPO}", done.stderr
    files = hub.files(REPO)
    model = {"config.json", "generation_config.json", "model.safetensors"}
    code = CODE | {"configuration_blip2idc.py", "modeling_blip2idc.py", "pipeline_blip2idc.py"}
    assert set(files) >= RECORDS | PROCESSOR | model | code | {"LICENSE"} and not ADAPTER & set(files)
    assert {name for name in files if name.endswith(".py")} == code
    [expected] = caption(*load(root / "captioner_idc" / "tiny_captioner", run, device="cpu"), [images()])
    assert output_without_package(hub, tmp_path / "theirs", snippet(files["README.md"].decode())) == expected
    assert output_without_package(hub, tmp_path / "pipeline", PIPELINE) == expected
    header = ModelCard(files["README.md"].decode()).data
    assert (header.library_name, header.base_model) == ("transformers", BASE)

    refused = publish(hub, root, tmp_path / "mine", run)  # pushing an adapter must not remove the model
    assert refused.returncode == 2 and "contains a whole model" in refused.stderr
    assert hub.files(REPO) == files


@pytest.mark.parametrize("merge", [False, True])
def test_a_chat_model_works_by_its_cards_snippet_with_this_package(
    hub: LoopbackHub, root: Path, tmp_path: Path, run: Path, merge: bool
) -> None:
    base = save_chat(tmp_path / "base", "qwen3_vl")
    hub.add_repo("tester/base", {file.name: file.read_bytes() for file in base.iterdir()})
    model, processor = load(base, device="cpu", processor={"prompt": "What is new?", "layout": "two_frames"})
    model = add_lora(model, rank=2, alpha=4, dropout=0.0, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
    for pattern in (*PROCESSOR, "*.py"):
        for file in run.glob(pattern):
            file.unlink()
    save_adapter(model, processor, run, base="tester/base", revision=None)
    (run / "captioner.json").write_text(json.dumps(card_facts(model)))
    done = publish(hub, root, tmp_path / "mine", run, *["--merge"] * merge)
    assert done.returncode == 0, done.stderr
    files = hub.files(REPO)
    whole = {"model.safetensors", "config.json", "video_preprocessor_config.json"}  # with the base's video part
    assert set(files) >= PROCESSOR | {"chat_template.jinja"} | (whole if merge else ADAPTER)
    card = files["README.md"].decode()
    assert not list(filter(lambda name: name.endswith(".py"), files)) and "trust_remote_code" not in card
    [expected] = caption(*load(base, run, device="cpu"), [images()])
    for side, image in zip(("before", "after"), images(), strict=True):
        image.save(tmp_path / f"{side}.png")
    code = snippet(card).replace("print(", "print(repr(").rstrip() + ")"
    done = hub.run(code, tmp_path / "theirs", tmp_path, token=None, PYTHONPATH=str(root))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == repr(expected) and expected


@pytest.mark.parametrize("language", ["opt", "t5"])
def test_the_adapters_snippet_works_for_both_kinds_of_language_model(
    hub: LoopbackHub, root: Path, tmp_path: Path, run: Path, language: str
) -> None:
    """Use a prompt, and a canvas of another size than the vision model's."""
    base = save_plain_blip2(tmp_path / "base", language)
    hub.add_repo("tester/base", {file.name: file.read_bytes() for file in base.iterdir()})
    model = add_lora(Blip2IdcForConditionalGeneration.from_pretrained(base), rank=2, alpha=4, dropout=0.0, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(1))
    for name in PROCESSOR:
        (run / name).unlink()
    processor = tiny_processor(language, prompt="Question: what?", canvas=(64, 32), max_caption_length=12)
    save_adapter(model, processor, run, base="tester/base", revision=None)
    (run / "captioner.json").write_text(json.dumps(card_facts(model)))
    done = publish(hub, root, tmp_path / "mine", run)
    assert done.returncode == 0, done.stderr
    [expected] = caption(*load(base, run, device="cpu"), [images()])
    card = hub.files(REPO)["README.md"].decode()
    # random weights may generate line breaks, and only the last line of output is compared
    code = snippet(card).replace("print(", "print(repr(").rstrip() + ")"
    assert output_without_package(hub, tmp_path / "theirs", code) == repr(expected) and expected


def test_scores_go_onto_the_card_and_the_hub(hub: LoopbackHub, root: Path, tmp_path: Path, run: Path) -> None:
    shutil.rmtree(run / "eval")
    assert publish(hub, root, tmp_path / "mine", run).returncode == 0
    assert "Not evaluated yet" in hub.files(REPO)["README.md"].decode()
    done = program(hub, root, tmp_path / "mine", *evaluation(run), "--push_to_hub", "--hub_model_id", REPO)
    assert done.returncode == 0 and f"pushed to {hub.endpoint}/{REPO}" in done.stdout, done.stderr
    files = hub.files(REPO)
    metrics = json.loads(files["eval/toy-test/metrics.json"])
    mine = json.loads((run / "eval" / "toy-test" / "metrics.json").read_text())
    assert metrics["scores"] == mine["scores"] and metrics["signature"]["adapter"] == "run"

    card = ModelCard(files["README.md"].decode())
    assert {result.metric_name: result.metric_value for result in card.data.eval_results} == mine["scores"]
    assert {(r.dataset_type, r.dataset_split) for r in card.data.eval_results} == {("toy", "test")}
    assert card.data.metrics == ["bleu", "meteor", "rouge", "cider"]
    entries = yaml.safe_load(files[".eval_results/toy.yaml"])
    assert [entry["value"] for entry in entries] == list(mine["scores"].values())
    assert all("protocol standard, 12 pairs" in entry["notes"] for entry in entries)
    assert len({(entry["dataset"]["id"], entry["dataset"]["task_id"]) for entry in entries}) == len(entries)
    assert len(hub.asked("POST .*/commit/main 200")) == 2
    judged = mine | {"scores": mine["scores"] | {"Judge-Overall": 0.5}}
    (run / "eval" / "toy-test" / "metrics.json").write_text(json.dumps(judged))
    assert ModelCard.load(write_card(run)).data.metrics == card.data.metrics, "the Hub knows no metric of this name"


def test_a_failed_push_does_not_fail_the_evaluation(hub: LoopbackHub, root: Path, tmp_path: Path, run: Path) -> None:
    arguments = [*evaluation(run), "--push_to_hub", "--hub_model_id", "other/toy"]
    done = program(hub, root, tmp_path / "mine", *arguments)
    assert done.returncode == 0 and "constant caption" in done.stdout, done.stderr
    last = done.stdout.splitlines()[-1]
    assert "'other/toy': HTTP 403" in last and "Nothing is lost" in last


def test_no_token_and_no_path_is_published(
    hub: LoopbackHub, root: Path, tmp_path: Path, run: Path, tiny_captioner: Path
) -> None:
    """The base is a local folder here, and the records name files of this machine in every way that occurs."""
    base = Path(shutil.copytree(tiny_captioner, tmp_path / "of alice" / "my-base"))
    records = yaml.safe_load((run / "train_config.yaml").read_text())
    records |= {"model": str(base), "adapter": str(run), "output_dir": str(run)}
    records["benchmark_options"]["data_dir"] = str(tmp_path / "of alice" / "data")
    (run / "train_config.yaml").write_text(yaml.safe_dump(records))
    adapter = json.loads((run / "adapter_config.json").read_text()) | {"base_model_name_or_path": str(base)}
    (run / "adapter_config.json").write_text(json.dumps(adapter))
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps({"epoch": 3, "step": 9, "seconds": 1, "command": f"train.py {TOKEN} {tmp_path}/c.yaml"}))
    for name in ("tensorboard/events", "checkpoints/step-1/adapter.safetensors", "README.md.tmp", ".adapter-x/a.json"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(str(tmp_path))
    for options, repo in (([], REPO), (["--merge"], "tester/merged")):
        done = publish(hub, root, tmp_path / "mine", run, *options, repo=repo)
        assert done.returncode == 0, done.stderr
        assert ("warning: the base model is the local folder 'my-base'" in done.stderr) == (not options)
        for name, content in hub.files(repo).items():
            for private in (tmp_path.name, "alice", TOKEN, str(Path.home()) + "/", str(root), ".push.tmp"):
                assert private.encode() not in content, (name, private)
        assert not [name for name in hub.files(repo) if re.search(r"tensorboard|checkpoints|tmp|\.adapter", name)]
        assert ModelCard(hub.files(repo)["README.md"].decode()).data.base_model is None
    config = json.loads(hub.files(REPO)["adapter_config.json"])
    assert config["base_model_name_or_path"] == "my-base"
    assert "is a folder of the author's" in hub.files(REPO)["README.md"].decode()


def test_a_failed_commit_is_repeated_without_a_second_upload(hub: LoopbackHub, tmp_path: Path, run: Path) -> None:
    hub.fail("POST .*/commit/main", status=503)
    assert tried(hub, tmp_path / "mine", (run, REPO, {})) == [f"pushed to {hub.endpoint}/{REPO}"]
    assert [line.split()[-1] for line in hub.asked("POST .*/commit/main")] == ["503", "200"]
    assert len(hub.asked("PUT /lfs/")) == len(set(hub.asked("PUT /lfs/")))


def test_a_cut_upload_is_repeated(hub: LoopbackHub, tmp_path: Path, run: Path) -> None:
    hub.cut("PUT /lfs/", after=1000, times=2, reset=True)
    assert tried(hub, tmp_path / "mine", (run, REPO, {})) == [f"pushed to {hub.endpoint}/{REPO}"]
    assert len(hub.asked("PUT /lfs/.* cut")) == 2
    assert hub.files(REPO)["adapter_model.safetensors"] == (run / "adapter_model.safetensors").read_bytes()


def test_a_connection_that_stays_cut_is_given_up(hub: LoopbackHub, tmp_path: Path, run: Path) -> None:
    hub.cut("PUT /lfs/", after=1000, times=99, reset=True)
    [line] = tried(hub, tmp_path / "mine", (run, REPO, {}))
    assert line.startswith(f"could not push to '{REPO}'") and "Nothing is lost" in line
    assert set(hub.files(REPO)) == {".gitattributes"}
    assert len(hub.asked("PUT /lfs/")) <= 6 * len(set(hub.asked("PUT /lfs/"))), "the client's own attempts, once"


def test_a_hub_that_stays_down_leaves_the_run_unchanged(
    hub: LoopbackHub, root: Path, tmp_path: Path, run: Path
) -> None:
    before = content_of(run)
    hub.fail("POST .*/commit/main", status=503, times=99)
    [line] = tried(hub, tmp_path / "mine", (run, REPO, {"private": True, "merge": True}))
    assert line.startswith(f"could not push to '{REPO}' after 3 attempts: HTTP 503")
    assert len(hub.asked("POST .*/commit/main")) == 3 and content_of(run) == before
    # the command in the message works
    hub.faults.clear()
    command = line.split("push it later with: ")[1]
    assert command == f"python -m run_idc.publishing '{run}' {REPO} --private --merge"
    environment = hub.environment(tmp_path / "mine")
    shell = command.replace("python ", f"{sys.executable} ", 1)
    done = subprocess.run(["bash", "-c", shell], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "model.safetensors" in hub.files(REPO), done.stderr
    assert hub.repos["model", REPO].private


def test_a_refused_token_is_reported_at_once(hub: LoopbackHub, tmp_path: Path, run: Path) -> None:
    [line] = tried(hub, tmp_path / "mine", (run, REPO, {}), token="hf_wrong")
    assert "HTTP 401, Invalid credentials in Authorization header; the Hub refuses the token" in line
    assert "Nothing is lost" in line and "hf_wrong" not in line
    assert hub.asked("POST") == ["POST /api/repos/create 401"]


def test_somebody_elses_repository_is_refused_at_once(hub: LoopbackHub, tmp_path: Path, run: Path) -> None:
    hub.add_repo("other/toy", {"x.txt": b"x"})
    names = ("other/toy", "other/new")
    for name, line in zip(names, tried(hub, tmp_path / "mine", *((run, name, {}) for name in names)), strict=True):
        assert line.startswith(f"could not push to '{name}': HTTP 403") and "no right to write there" in line
    assert set(hub.files("other/toy")) == {".gitattributes", "x.txt"} and ("model", "other/new") not in hub.repos


def test_without_a_network_one_clear_line(hub: LoopbackHub, tmp_path: Path, run: Path) -> None:
    [line] = tried(hub, tmp_path / "mine", (run, REPO, {}), HF_ENDPOINT="http://127.0.0.1:9")
    assert line.startswith(f"could not push to '{REPO}' after 3 attempts: ") and "Connection refused" in line


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("", "there is no token for the Hub: run `hf auth login` or set HF_TOKEN"),
        ("hf_\x01wrong", "the Hub token contains a character that no token has"),
        ("hf_fine", "could not push to"),  # as all tests, with HF_HUB_OFFLINE=1
    ],
)
def test_pushes_that_cannot_work_are_refused_without_a_request(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, token: str, message: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    line = try_push(run, REPO)
    assert message in line and "Nothing is lost" in line and "hf_" not in line
    assert ("offline mode is enabled" in line.lower()) == (token == "hf_fine")
    assert main([str(run), REPO]) == 2
    assert capsys.readouterr().err == f"error: {line}\n"


def test_a_repository_is_private_only_if_it_can_be(hub: LoopbackHub, tmp_path: Path, run: Path) -> None:
    hub.add_repo("tester/public", {"x.txt": b"x"})
    private = {"private": True}
    pushed, refused = tried(hub, tmp_path / "mine", (run, REPO, private), (run, "tester/public", private))
    assert pushed.startswith("pushed to ") and hub.repos["model", REPO].private
    assert "'tester/public' exists and is public: make it private" in refused
    assert set(hub.files("tester/public")) == {".gitattributes", "x.txt"}


def test_a_second_push_replaces_files_and_duplicates_none(hub: LoopbackHub, tmp_path: Path, run: Path) -> None:
    renewed = Path(shutil.copytree(run, tmp_path / "renewed"))
    (renewed / "eval" / "toy-test").rename(renewed / "eval" / "toy-again")
    tried(hub, tmp_path / "mine", (run, REPO, {}), (run, REPO, {}), (renewed, REPO, {}))
    first, second = list(hub.repos["model", REPO].commits.values())[1:]  # the identical push made no commit
    assert set(second) == {name.replace("toy-test", "toy-again") for name in first}
    assert second["adapter_model.safetensors"] == first["adapter_model.safetensors"]
    assert second["README.md"] != first["README.md"]


def test_only_what_a_push_wrote_is_replaced() -> None:
    existing = ["adapter_model.safetensors", "model-00001-of-00002.safetensors", "LICENSE", "docs/config.json"]
    existing += ["eval/toy-test/metrics.json", ".eval_results/toy.yaml", ".eval_results/gpqa.yaml", "README.md"]
    replaced = ["model-00001-of-00002.safetensors", "eval/toy-test/metrics.json", ".eval_results/toy.yaml"]
    assert outdated(existing, {"adapter_model.safetensors", "README.md"}) == replaced


def test_a_dry_run_lists_the_files_without_a_request(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)  # the Hub cannot be asked either: HF_HUB_OFFLINE=1
    before = content_of(run)
    assert main([str(run), REPO, "--dry_run"]) == 0
    size = (run / "adapter_model.safetensors").stat().st_size
    assert f"{size:,} bytes  adapter_model.safetensors\n" in capsys.readouterr().out
    assert content_of(run) == before


@pytest.mark.parametrize(
    ("missing", "repo", "message"),
    [
        ("adapter_model.safetensors", REPO, "contains no adapter_model.safetensors: name a run folder of train.py"),
        ("log.jsonl", REPO, "contains no log.jsonl"),
        (None, "toy", "invalid repository id 'toy': use <user>/<name>"),
    ],
)
def test_bad_arguments_give_one_line(
    run: Path, capsys: pytest.CaptureFixture, missing: str | None, repo: str, message: str
) -> None:
    if missing:
        (run / missing).unlink()
    assert main([str(run), repo]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_the_card_describes_the_run(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    facts = read_run(run)
    metrics = json.loads((run / "eval" / "toy-test" / "metrics.json").read_text())
    card = write_card(run).read_text()
    table = [line for line in card.splitlines() if line.startswith("| this adapter |")][0]
    for name, value in metrics["scores"].items():
        assert f" {value:.4f} " in table, name
    low, high = metrics["intervals"]["CIDEr"]
    control = metrics["controls"]["constant_caption"]
    assert (
        f"[{low:.4f}, {high:.4f}]" in table and f'"{control["caption"]}" | {control["scores"]["BLEU-1"]:.4f}' in card
    )
    assert "12 pairs of toy, split test" in card and "protocol `standard`" in card
    assert f"{facts['start']['trainable_parameters']:,} of" in card and "rank 2, alpha 4" in card
    assert f"| {facts['end']['step']} steps, 2 epoch(s)" in card.replace("| time ", "")
    assert "@inproceedings{evennou2025blip2idc" in card and "No evidence" in card
    assert not re.search(r"\{\{|\{%|None|Undefined|\|\s\s+\|", card), "an empty cell or a broken table"
    for rows in re.findall(r"(?:^\|.*\n)+", card, re.MULTILINE):
        assert len({row.count("|") for row in rows.splitlines()}) == 1, rows


def test_the_calibration_goes_with_the_adapter(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    write_calibration(Calibration(("nothing has changed",), 1.5, 300), run)
    with staged_files(run, "me/run", merge=False) as folder:
        assert read_calibration(folder) == Calibration(("nothing has changed",), 1.5, 300)


def test_lines_without_data_in_the_log_are_left_out(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    start = json.loads((run / "log.jsonl").read_text().splitlines()[0])
    start["data"] = {"name": "syned", "licence": "CC-BY-NC-4.0", "counts": {"train": 7}}
    start["data"]["homepage"] = "https://huggingface.co/datasets/Gevennou/Syned"
    lines = [start, {"step": 4, "seconds": 90.0, "epoch": 1, "peak_memory_gb": 7.5}, {"step": 5, "resumed": True}]
    (run / "log.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    full = write_card(run).read_text()
    for line in ("peak memory | 7.5 GB", "4 steps, 1 epoch(s) in 1.5 minutes", "CC-BY-NC-4.0, as its", "train 7 |"):
        assert line in full, line
    assert ModelCard(full).data.datasets == ["Gevennou/Syned"]
    (run / "log.jsonl").write_text(json.dumps({"step": 0}) + "\n")
    bare = write_card(run).read_text()
    for line in ("peak memory", "| time |", "licence of the data", "trained weights", "| device |", "made with"):
        assert line not in bare, line


def test_scores_of_the_bare_base_are_not_taken_for_the_adapters(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    metrics = json.loads((run / "eval" / "toy-test" / "metrics.json").read_text())
    metrics["signature"] |= {"adapter": None, "adapter_sha256": None}
    (run / "eval" / "base").mkdir()
    (run / "eval" / "base" / "metrics.json").write_text(json.dumps(metrics))
    card = write_card(run).read_text()
    assert f"| `{BASE}` without adapter |" in card and card.count("| this adapter |") == 1
    assert len(ModelCard(card).data.eval_results) == len(metrics["scores"])


def add_result(run: Path, title: str, **signature: Any) -> None:
    """Copy the run's scores into another evaluation, with changes to their signature."""
    metrics = json.loads((run / "eval" / "toy-test" / "metrics.json").read_text())
    (run / "eval" / title).mkdir()
    changed = metrics | {"signature": metrics["signature"] | signature}
    (run / "eval" / title / "metrics.json").write_text(json.dumps(changed))


def test_scores_of_other_weights_are_named_and_left_out(
    hub: LoopbackHub, root: Path, tmp_path: Path, run: Path
) -> None:
    add_result(run, "of another adapter", adapter="elsewhere", adapter_sha256="0" * 64)
    add_result(run, "unknown", model=None, adapter=None, adapter_sha256=None)
    add_result(run, "base", adapter=None, adapter_sha256=None)
    for options, repo in (([], REPO), (["--merge"], "tester/merged")):
        done = publish(hub, root, tmp_path / "mine", run, *options, repo=repo)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("not pushed: ") == 2 and "has scores of other weights" in done.stderr
        files = hub.files(repo)
        assert {name for name in files if name.endswith("metrics.json")} == {
            "eval/base/metrics.json",
            "eval/toy-test/metrics.json",
        }
        assert len(ModelCard(files["README.md"].decode()).data.eval_results) == 13
        assert len(yaml.safe_load(files[".eval_results/toy.yaml"])) == 13
    card = write_card(run).read_text()
    assert "Not listed, because they are not of these weights" in card
    assert "`eval/of another adapter`, `eval/unknown`." in card and "### unknown" not in card


def test_scores_of_an_earlier_state_of_the_adapter_are_left_out(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    assert own_results(run)[1] == [] and len(own_results(run)[0]) == 1
    weights = load_file(run / "adapter_model.safetensors")
    save_file({name: weight + 1 for name, weight in weights.items()}, run / "adapter_model.safetensors")
    assert own_results(run) == ([], ["toy-test"])
    assert "Not evaluated yet" in write_card(run).read_text()
