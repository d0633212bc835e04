"""train.py with --push_to_hub over real HTTP: whatever happens to a push, training ends well and nothing is lost."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from loopback_hub import TOKEN, LoopbackHub

CONFIG = {
    "benchmark": "toy",
    "benchmark_options": {"train": 16, "validation": 4, "test": 4},
    "batch_size": 8,
    "epochs": 1,
    "learning_rate": 0.004,
    "lora_rank": 2,
    "validation_captions": 0,
    "mixed_precision": "no",
    "attn_implementation": "eager",
    "push_to_hub": True,
    "hub_model_id": "tester/run",
    "hub_private": True,
}
# train.py, but with short pauses between two attempts
QUICK = """
import sys, train
from common_idc import hub_access
hub_access.DELAYS = (0.05, 0.05)
sys.exit(train.main(sys.argv[1:]))
"""


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


def trained(root: Path, model: Path, folder: Path, environment: dict[str, str]) -> tuple[Path, str]:
    """Return (run folder, all printed text) of a run that must succeed."""
    run = folder / "run"
    (folder / "quick.py").write_text(QUICK)
    (folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "model": str(model), "output_dir": str(run)}))
    command = [sys.executable, str(folder / "quick.py"), "--config", str(folder / "config.yaml")]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {"adapter_model.safetensors", "README.md", "log.jsonl"} <= {path.name for path in run.iterdir()}
    return run, done.stdout + done.stderr


def test_the_best_adapter_and_the_end_are_pushed(
    root: Path, tiny_captioner: Path, tmp_path: Path, hub: LoopbackHub
) -> None:
    run, output = trained(root, tiny_captioner, tmp_path, hub.environment(tmp_path / "home"))
    files = hub.files("tester/run")
    assert files["adapter_model.safetensors"] == (run / "adapter_model.safetensors").read_bytes()
    assert len(hub.asked(r"POST .*/commit/")) >= 2, "at a better score and at the end"
    assert "pushed to" in output and hub.asked(r"POST /api/repos/create")
    assert not [name for name in files if "checkpoints" in name or "tensorboard" in name]
    for name, content in files.items():
        assert TOKEN.encode() not in content and str(tmp_path).encode() not in content, name
    assert TOKEN not in output


@pytest.mark.parametrize("fault", ["unavailable", "cut", "wrong token", "no network", "offline"])
def test_a_failed_push_never_stops_training(
    root: Path, tiny_captioner: Path, tmp_path: Path, hub: LoopbackHub, fault: str
) -> None:
    environment = hub.environment(tmp_path / "home", token="hf_wrong" if fault == "wrong token" else TOKEN)
    if fault == "unavailable":
        hub.fail(r"POST .*/commit/", status=503, times=99)
    elif fault == "cut":
        hub.cut(r"PUT ", after=1000, times=99)
    elif fault == "no network":
        environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
    elif fault == "offline":
        environment["HF_HUB_OFFLINE"] = "1"
    run, output = trained(root, tiny_captioner, tmp_path, environment)
    last = output.strip().splitlines()[-1]
    again = re.search(r"python -m run_idc\.publishing (\S+) tester/run --private", last)
    assert again and Path(again[1].strip("'\"")) == run, last
    assert "hf_wrong" not in output and TOKEN not in output
