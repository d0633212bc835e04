"""Kept vision features: which files are computed, what they depend on, what is refused."""

import contextlib
import os
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from tiny_chat_models import save_chat
from tiny_models import save_tiny

import train
from captioner_idc import kept_features
from captioner_idc.adapters import add_lora
from captioner_idc.kept_features import KeptFeatures, check_can_keep, features_key, keep_features
from captioner_idc.loading import load
from dataset_syned import load_benchmark
from run_idc.stopping import StopSignals

PARTS = ["qformer", "language"]


@pytest.fixture(autouse=True)
def few_pairs_per_file(monkeypatch: pytest.MonkeyPatch) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(kept_features, "PAIRS_PER_FILE", 4)


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    model, processor = load(save_tiny(tmp_path_factory.mktemp("model") / "tiny"), device="cpu")
    return add_lora(model, 2, 4, 0.0, 0, PARTS), processor


@pytest.fixture(scope="module")
def rows() -> Any:
    return load_benchmark("toy", "train", train=10, validation=4, test=3)


def keep(folder: Path, rows: Any, captioner: tuple[Any, Any], **share: Any) -> None:
    model, processor = captioner
    keep_features(folder, rows, processor, model, contextlib.nullcontext(), batch_size=3, **share)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_features_are_those_of_their_pairs(tmp_path: Path, rows: Any, captioner: tuple[Any, Any]) -> None:
    keep(tmp_path, rows, captioner)
    model, processor = captioner
    features = KeptFeatures(tmp_path, len(rows))
    assert len(features) == 10
    for row in (0, 3, 4, 9):
        canvas = processor(before=rows[row]["before"], after=rows[row]["after"])["pixel_values"]
        with torch.no_grad():
            [expected] = model.get_base_model().encode_vision(canvas)
        assert torch.allclose(features[row], expected, atol=1e-5)
    assert not torch.allclose(features[0], features[1], atol=1e-2)


def test_the_model_makes_the_same_loss_of_features_and_refuses_both(rows: Any, captioner: tuple[Any, Any]) -> None:
    model, processor = captioner
    inputs = processor(before=rows[0]["before"], after=rows[0]["after"], captions=rows[0]["captions"][0])
    given = processor.without_images([rows[0]["captions"][0]])
    assert all(torch.equal(given[name], inputs[name]) for name in given) and set(inputs) - set(given) == {
        "pixel_values"
    }
    with torch.no_grad():
        encoded = model.get_base_model().encode_vision(inputs["pixel_values"])
        assert model(**given, vision_features=encoded).loss == model(**inputs).loss
        assert model(**given, vision_features=encoded + 1).loss != model(**inputs).loss
    with pytest.raises(ValueError, match="pixel_values and vision_features are both given"):
        model(**inputs, vision_features=encoded)
    with pytest.raises(ValueError, match="2 canvases"):
        model(**given, vision_features=encoded.repeat(2, 1, 1))


def test_only_missing_files_are_computed_and_processes_share_them(
    tmp_path: Path, rows: Any, captioner: tuple[Any, Any]
) -> None:
    keep(tmp_path, rows, captioner, process=1, processes=2)
    assert names(tmp_path) == ["00001.safetensors"]
    keep(tmp_path, rows, captioner, process=0, processes=2)
    whole = [f"0000{number}.safetensors" for number in range(3)]
    assert names(tmp_path) == whole
    kept = {name: (tmp_path / name).read_bytes() for name in whole}
    times = [(tmp_path / name).stat().st_mtime_ns for name in whole]
    os.rename(tmp_path / whole[1], tmp_path / f".{whole[1]}.{'0' * 32}.tmp")  # as a killed process leaves it
    keep(tmp_path, rows, captioner)
    assert names(tmp_path) == whole and (tmp_path / whole[1]).read_bytes() == kept[whole[1]]
    assert [(tmp_path / name).stat().st_mtime_ns == time for name, time in zip(whole, times, strict=True)] == [
        *(True, False, True)
    ]


def test_the_key_is_of_pairs_processor_weights_and_precision(tmp_path: Path, captioner: tuple[Any, Any]) -> None:
    model, processor = captioner
    other, _ = load(save_tiny(tmp_path / "other", seed=1), device="cpu")
    bf16, _ = load(tmp_path / "other", device="cpu", dtype=torch.bfloat16)
    keys = {
        features_key("a", processor, model),
        features_key("b", processor, model),
        features_key("a", processor.with_settings(blur=0.5), model),
        *(features_key("a", processor, add_lora(each, 2, 4, 0.0, 0, PARTS)) for each in (other, bf16)),
    }
    assert len(keys) == 5
    again, _ = load(tmp_path / "other", device="cpu")
    assert features_key("a", processor, add_lora(again, 4, 4, 0.0, 1, ["language"])) in keys


def test_what_cannot_be_kept_is_refused(
    tmp_path: Path, rows: Any, captioner: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = captioner
    with pytest.raises(ValueError, match="adapters are in vision language: .* --lora_parts qformer language"):
        check_can_keep(model, ["vision", "language"])
    chat, _ = load(save_chat(tmp_path / "chat", "qwen3_vl"), device="cpu")
    with pytest.raises(ValueError, match="'qwen3_vl' cannot be kept, only those of blip2"):
        check_can_keep(chat, ["language"])
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(kept_features.shutil, "disk_usage", lambda _: usage(10, 9, 1))
    with pytest.raises(OSError, match=r"vision features need 0.0 GB in .*, whose disk has 0.0 GB left"):
        keep(tmp_path / "full", rows, captioner)
    assert not (tmp_path / "full").exists()


def test_a_damaged_or_missing_file_is_named(tmp_path: Path, rows: Any, captioner: tuple[Any, Any]) -> None:
    keep(tmp_path, rows, captioner)
    (tmp_path / "00001.safetensors").write_bytes(b"damaged")
    (tmp_path / "00002.safetensors").unlink()
    features = KeptFeatures(tmp_path, len(rows))
    assert features[3].ndim == 2
    for row, name in ((4, "00001"), (8, "00002")):
        with pytest.raises(OSError, match=f"{name}.safetensors' cannot be read .*: remove it"):
            features[row]


def test_a_run_refuses_adapters_in_vision_and_sharded_models(tiny_captioner: Path, tmp_path: Path) -> None:
    options = train.Options({"train": 4, "validation": 2, "test": 2})
    config = train.TrainConfig(
        model=str(tiny_captioner),
        benchmark="toy",
        benchmark_options=options,
        output_dir=str(tmp_path / "run"),
        keep_vision_features=str(tmp_path / "features"),
        trackers=[],
        mixed_precision="no",
    )
    accelerator = Accelerator(cpu=True)
    with pytest.raises(ValueError, match="vision features change while vision is trained"):
        train.prepare(accelerator, config, StopSignals())
    accelerator.state.distributed_type = DistributedType.FSDP
    with pytest.raises(ValueError, match="whole model in each process, not FSDP"):
        train.vision_features(accelerator, config, ([], [], None), None, None)
