"""Exports: they load again with the same content, and a failed one leaves nothing."""

import errno
import io
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import benchmark_contract
import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import test_folder
import torch
import transformers
import yaml
from kill_points import after_kills
from PIL import Image
from tiny_models import tiny_tokenizer

from common_idc.folder_lock import folder_lock
from dataset_syned import BENCHMARKS, benchmark_builder, exporting, load_benchmark, prepare
from dataset_syned.__main__ import main
from dataset_syned.exporting import PROMPT, PROMPT_COMPLETION, coco_references, export, export_clevr
from dataset_syned.pairs import FEATURES, NO_CHANGE, DataError, image_bytes, pair_row, png
from dataset_syned.preparing import undecoded
from modeling_blip2idc.image_fusion import load_image

OPTIONS = {"train": 12, "validation": 4, "test": 6}


@pytest.fixture(scope="module")
def toy() -> tuple:
    builder = benchmark_builder("toy", **OPTIONS)
    return builder, prepare(builder)


def test_parquet_loads_with_load_dataset_and_contains_no_local_paths(
    toy: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(*toy, tmp_path / "toys", "parquet", "5KB")
    files = sorted(path.name for path in (tmp_path / "toys" / "data" / "default").iterdir())
    assert len([name for name in files if name.startswith("train")]) > 2, "shards are bounded in size"
    assert not list(tmp_path.glob(".*"))
    monkeypatch.chdir(tmp_path)
    for streaming in (False, True):
        again = datasets.load_dataset("./toys", split="test", streaming=streaming)
        first = load_benchmark("toy", "test", **OPTIONS)
        assert again.features == first.features
        for ours, theirs in zip(first, again, strict=True):
            assert np.array_equal(np.asarray(ours["before"]), np.asarray(theirs["before"]))
            assert (ours["pair_id"], ours["captions"]) == (theirs["pair_id"], theirs["captions"])
    text = b"".join(path.read_bytes() for path in (tmp_path / "toys").rglob("*.parquet"))
    assert str(tmp_path).encode() not in text and b"test-000000-before.png" in text


def test_the_card_names_configs_counts_and_licence(toy: tuple, tmp_path: Path) -> None:
    export(*toy, tmp_path / "toys", "parquet", "500MB")
    card = (tmp_path / "toys" / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["configs"][0]["config_name"] == "default" and head["license"] == "mit"
    assert "| default | train | 12 |" in card and "{{" not in card and "{%" not in card


def test_coco_references_are_the_captions_in_order(toy: tuple, tmp_path: Path) -> None:
    export(*toy, tmp_path / "coco", "coco", "")
    rows = load_benchmark("toy", "test", **OPTIONS)
    content = json.loads((tmp_path / "coco" / "test.json").read_text())
    assert content == coco_references(rows)
    assert [image["id"] for image in content["images"]] == rows["pair_id"][:]
    assert [a["id"] for a in content["annotations"]] == list(range(30))
    gathered: dict[str, list[str]] = {}
    for annotation in content["annotations"]:
        gathered.setdefault(annotation["image_id"], []).append(annotation["caption"])
    assert list(gathered.values()) == rows["captions"][:]


def test_clevr_layout_reads_back(toy: tuple, tmp_path: Path) -> None:
    export(*toy, tmp_path / "clevr", "clevr", "")
    read = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "clevr").glob("*.json")}
    assert {split: len(numbers) for split, numbers in read["splits"].items()} == {"train": 12, "val": 4, "test": 6}
    names = {f"{number:06d}.png" for numbers in read["splits"].values() for number in numbers}
    assert (
        names
        == set(read["change_captions"])
        == {name for change_type in read["type_mapping"].values() for name in change_type}
    )
    for folder in ("images", "sc_images"):
        assert {path.name for path in (tmp_path / "clevr" / folder).iterdir()} == names
    row = load_benchmark("toy", "test", **OPTIONS)[0]
    name = f"{read['splits']['test'][0]:06d}.png"
    assert read["pair_ids"][name] == row["pair_id"] and read["change_captions"][name] == row["captions"]
    assert np.array_equal(
        datasets.Image().decode_example({"path": str(tmp_path / "clevr/sc_images" / name), "bytes": None}),
        row["after"],
    )


def test_clevr_layout_has_the_images_that_training_sees_and_names_those_it_refuses(tmp_path: Path) -> None:
    turned, clear = Image.new("RGB", (8, 4), "red"), Image.new("RGBA", (8, 4), (0, 0, 0, 0))
    exif = turned.getexif()
    exif[0x0112] = 6  # a quarter turn
    files = []
    for picture, options in ((turned, {"exif": exif}), (clear, {})):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", **options)
        files.append(buffer.getvalue())
    row = pair_row("p", image_bytes("a.png", files[0]), image_bytes("b.png", files[1]), ["turned"], "style")
    rows = datasets.Dataset.from_list([row], features=FEATURES)
    export_clevr(datasets.DatasetDict(test=rows), tmp_path / "clevr")
    for folder, expected in (("images", load_image(files[0])), ("sc_images", load_image(files[1]))):
        with Image.open(tmp_path / "clevr" / folder / "000000.png") as written:
            assert written.mode == "RGB" and np.array_equal(np.asarray(written), np.asarray(expected))
    assert json.loads((tmp_path / "clevr" / "type_mapping.json").read_text()) == {"style": ["000000.png"]}
    cut = datasets.Dataset.from_list([row | {"after": image_bytes("b.png", files[1][:40])}], features=FEATURES)
    with pytest.raises(DataError, match="pair 'p': image 'b.png' cannot be read"):
        export_clevr(datasets.DatasetDict(test=cut), tmp_path / "cut")
    assert not (tmp_path / "cut").exists()


QUESTION = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": PROMPT}]


def tiny_splits(name: str, tmp_path: Path) -> tuple:
    """Return the builder of a benchmark with tiny raw files, and its splits."""
    benchmark_contract.write_tiny(name, tmp_path / "raw")
    builder = benchmark_contract.make(name, tmp_path / "raw", tmp_path / "cache")
    return builder, prepare(builder)


def records_wanted(rows: datasets.Dataset) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield row and caption of each conversation that an export has to contain, in order."""
    for row in undecoded(rows):
        for caption in row["captions"]:
            yield row, caption


def check_no_absolute_path(folder: Path, tmp_path: Path) -> None:
    for file in folder.rglob("*"):
        assert not file.is_file() or str(tmp_path).encode() not in file.read_bytes(), file


@pytest.mark.parametrize("name", BENCHMARKS)
def test_messages_contain_every_caption_of_every_pair_with_its_images(name: str, tmp_path: Path) -> None:
    builder, splits = tiny_splits(name, tmp_path)
    folder = tmp_path / "messages"
    export(builder, splits, folder, "messages", "")
    info = json.loads((folder / "dataset_info.json").read_text())
    assert list(info) == [f"{name}_{split}" for split in splits]
    files = set()
    for split, rows in splits.items():
        entry = info[f"{name}_{split}"]
        columns = entry["columns"]
        lines = (folder / entry["file_name"]).read_text(encoding="utf-8").splitlines()
        for line, (row, caption) in zip(lines, records_wanted(rows), strict=True):
            record = json.loads(line)
            question, answer = record["messages"]
            assert question == {"role": "user", "content": QUESTION}
            assert answer == {"role": "assistant", "content": [{"type": "text", "text": caption}]}
            # what LLaMA-Factory reads: as many placeholders as images
            assert record[columns["prompt"]] == "<image><image>" + PROMPT and record[columns["response"]] == caption
            assert record["pair_id"] == row["pair_id"] and columns["images"] == "images"
            images = [PurePosixPath(path) for path in record["images"]]
            assert len(images) == 2 and not any(path.is_absolute() or ".." in path.parts for path in images)
            for path, side in zip(images, ("before", "after"), strict=True):
                assert (folder / path).read_bytes() == row[side]["bytes"]
                assert path.suffix == PurePosixPath(row[side]["path"]).suffix
            files.update(map(str, images))
    assert len(files) == 2 * sum(map(len, splits.values())), "each pair has its own files"
    written = {path.relative_to(folder).as_posix() for path in (folder / "images").rglob("*") if path.is_file()}
    assert written == files
    check_no_absolute_path(folder, tmp_path)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_prompt_completion_contains_every_caption_of_every_pair_with_its_images(name: str, tmp_path: Path) -> None:
    builder, splits = tiny_splits(name, tmp_path)
    folder = tmp_path / "trl"
    export(builder, splits, folder, "prompt_completion", "500MB")
    again = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "again"))
    assert set(again) == set(splits)
    for split, rows in splits.items():
        assert again[split].features == PROMPT_COMPLETION
        raw = again[split].cast_column("images", datasets.List(datasets.Image(decode=False)))
        for record, (row, caption) in zip(raw, records_wanted(rows), strict=True):
            (question,), (answer,) = record["prompt"], record["completion"]
            assert [(part["type"], part["text"]) for part in question["content"]] == [
                ("image", None),
                ("image", None),
                ("text", PROMPT),
            ]
            assert answer["content"] == [{"type": "text", "text": caption}]
            assert (question["role"], answer["role"]) == ("user", "assistant")
            assert record["images"] == [row["before"], row["after"]]
        assert all(isinstance(image, Image.Image) for image in again[split][0]["images"])
    check_no_absolute_path(folder, tmp_path)


@pytest.mark.parametrize("form", ["messages", "prompt_completion"])
def test_conversations_include_unchanged_pairs(toy: tuple, tmp_path: Path, form: str) -> None:
    export(*toy, tmp_path / "out", form, "500MB")
    unchanged = {caption for row in toy[1]["train"] for caption in row["captions"] if row["change_type"] == NO_CHANGE}
    if form == "messages":
        lines = (tmp_path / "out" / "train.jsonl").read_text().splitlines()
        answers = {json.loads(line)["output"] for line in lines}
    else:
        rows = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
        answers = {row["completion"][0]["content"][0]["text"] for row in rows}
    assert unchanged and unchanged <= answers


def noise_pairs(pairs: int, captions: int, edge: int = 8) -> datasets.DatasetDict:
    """Return pairs of images that cannot be compressed."""
    drawn = np.random.default_rng(0)
    files = [png(Image.fromarray(drawn.integers(0, 256, (edge, edge, 3), np.uint8))) for _ in range(2 * pairs)]
    rows = [
        pair_row(str(n), image_bytes("a.png", files[2 * n]), image_bytes("b.png", files[2 * n + 1]), ["x"] * captions)
        for n in range(pairs)
    ]
    return datasets.DatasetDict(train=datasets.Dataset.from_list(rows, features=FEATURES))


def test_prompt_completion_keeps_images_once_and_a_bounded_number_in_memory(
    toy: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = noise_pairs(pairs=10, captions=5, edge=256)
    size = splits["train"].data.nbytes
    monkeypatch.setattr(exporting, "ROW_GROUP", 2 * size)  # that of four pairs, whose captions repeat their images
    export(toy[0], splits, tmp_path / "whole", "prompt_completion", "500MB")
    (file,) = (tmp_path / "whole" / "data").iterdir()
    assert file.stat().st_size < 1.1 * size
    with pq.ParquetFile(file) as written:
        groups = [written.metadata.row_group(index).num_rows for index in range(written.num_row_groups)]
    assert sum(groups) == 50 and max(groups) <= 25
    export(toy[0], splits, tmp_path / "shards", "prompt_completion", f"{size // 4000}KB")
    names = sorted(path.name for path in (tmp_path / "shards" / "data").iterdir())
    assert names[0].startswith("train-00000-of-0000") and len(names) >= 4
    assert len(datasets.load_dataset(str(tmp_path / "shards"), split="train", cache_dir=str(tmp_path / "cache"))) == 50


@pytest.mark.parametrize("form", ["messages", "prompt_completion"])
def test_texts_that_trainers_would_take_for_images_are_refused(toy: tuple, tmp_path: Path, form: str) -> None:
    with pytest.raises(
        DataError, match="^prompt 'See <image>' contains '<image>', which trainers replace with a file"
    ):
        export(*toy, tmp_path / "out", form, "500MB", "See <image>")
    with pytest.raises(DataError, match="^the prompt is empty: write the question"):
        export(*toy, tmp_path / "out", form, "500MB", " ")
    rows = noise_pairs(pairs=1, captions=1)["train"].remove_columns("captions").add_column("captions", [["a <video>"]])
    with pytest.raises(DataError, match="^pair '0': caption 'a <video>' contains '<video>'"):
        export(toy[0], datasets.DatasetDict(train=rows), tmp_path / "out", form, "500MB")
    assert not list(tmp_path.iterdir())


def test_the_prompt_is_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "raw").mkdir()
    test_folder.write_tiny(tmp_path / "raw", False)
    for more, prompt in (([], PROMPT), (["--prompt", "Où est la différence ?"], "Où est la différence ?")):
        folder = tmp_path / f"out{len(more)}"
        command = ["export", "folder", str(folder), "--format", "messages", "--data_dir", str(tmp_path / "raw")]
        assert main([*command, *more]) == 0
        text = next(folder.glob("*.jsonl")).read_text(encoding="utf-8")
        assert json.loads(text.splitlines()[0])["messages"][0]["content"][2]["text"] == prompt and prompt in text
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    assert f"default: {PROMPT}" in " ".join(capsys.readouterr().out.split())


def tiny_chat_model() -> tuple[transformers.PreTrainedModel, transformers.ProcessorMixin]:
    """Return a random Idefics3 and its processor: it needs no torchvision, and its image token is `<image>`."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    images = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, do_image_splitting=False
    )
    template = (
        "{% for turn in messages %}{{ turn.role }}:{% for part in turn.content %}"
        "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}</s>{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    processor = transformers.Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=template)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.Idefics3Config(
        text_config=sizes | {"model_type": "llama", "vocab_size": len(tokenizer), "num_key_value_heads": 2},
        vision_config=sizes | {"image_size": 32, "patch_size": 8},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    return transformers.Idefics3ForConditionalGeneration(config), processor


@pytest.mark.parametrize("form", ["messages", "prompt_completion"])
def test_trl_trains_one_step(toy: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    pytest.importorskip("trl", reason="needs trl, which needs Python 3.11")
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    export(*toy, tmp_path / "out", form, "500MB")
    monkeypatch.chdir(tmp_path / "out")  # the paths of images are relative
    source, files = ("json", "train.jsonl") if form == "messages" else ("parquet", "data/train-*.parquet")
    rows = datasets.load_dataset(source, data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    model, processor = tiny_chat_model()
    collator = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=form == "prompt_completion")
    examples = [rows[index] for index in (0, 5)]  # of two pairs
    mirrored = [row | {"images": row["images"][::-1]} for row in examples]
    batch = collator(examples)
    assert batch["pixel_values"].shape[:2] == (2, 2), "two images for each of two captions"
    answer = toy[1]["train"][0]["captions"][0]
    labels = processor.decode(batch["labels"][0][batch["labels"][0] != -100])
    assert (
        labels == f"{answer}</s>"
        if form == "prompt_completion"
        else labels.endswith(f"{PROMPT}</s>assistant:{answer}</s>")
    )
    loss = model(**batch).loss
    assert model(**collator(mirrored)).loss != loss, "the order of the images matters"
    loss.backward()
    for name, weight in model.model.vision_model.encoder.named_parameters():
        assert weight.grad is not None and (weight.grad.any() or name.endswith("k_proj.bias")), name  # whose is 0
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert model(**batch).loss < loss


def test_failed_exports_leave_nothing_and_existing_folders_are_kept(
    toy: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty: name another folder"):
        export(*toy, tmp_path / "full", "coco", "")
    monkeypatch.setattr(exporting, "save_png", lambda *_: (_ for _ in ()).throw(OSError("No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        export(*toy, tmp_path / "new", "clevr", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


FULL = [
    ("parquet", "datasets.Dataset.to_parquet", "data/default/train-00000-of-00001.parquet"),
    ("coco", "pathlib.Path.write_text", "train.json"),
    ("clevr", "PIL.Image.Image.save", "images/000000.png"),
    ("messages", "pathlib.Path.write_bytes", "images/train/000000-before.png"),
    ("prompt_completion", "pyarrow.parquet.ParquetWriter", "data/train-00000-of-00001.parquet"),
]


@pytest.mark.parametrize(("form", "writer", "file"), FULL)
def test_a_full_disk_is_reported_with_the_file(
    toy: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, writer: str, file: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer, fail)
    with pytest.raises(OSError, match=f"No space left on device: '.*/{file}'"):
        export(*toy, tmp_path / "new", form, "500MB")
    assert not list(tmp_path.iterdir())


def test_a_second_export_into_the_same_folder_is_refused(toy: tuple, tmp_path: Path) -> None:
    with folder_lock(tmp_path, tmp_path / ".toys.tmp" / ".lock"):
        with pytest.raises(OSError, match="another process is writing into '.*/toys'"):
            export(*toy, tmp_path / "toys", "coco", "")
    export(*toy, tmp_path / "toys", "coco", "")
    assert [path.name for path in tmp_path.iterdir()] == ["toys"]


EXPORT = """
from dataset_syned import benchmark_builder, prepare
from dataset_syned.exporting import export
builder = benchmark_builder("toy", train=3, validation=1, test=1)
splits = prepare(builder)

def command(folder):
    for form in ("parquet", "coco", "clevr", "messages", "prompt_completion"):
        try:
            export(builder, splits, folder / form, form, "500MB")
        except FileExistsError:  # it was complete
            pass
"""


def test_an_export_that_is_killed_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    *killed, unbroken = after_kills(EXPORT, tmp_path, ("os.rename", "os.mkdir", "os.rmdir"))
    assert {name.split("/")[0] for name in unbroken} == {"parquet", "coco", "clevr", "messages", "prompt_completion"}
    assert len(killed) > 20 and all(listing == unbroken for listing in killed)
