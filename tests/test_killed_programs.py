"""Training and evaluation, killed before each renaming and continued, leave the files of an unbroken run."""

from pathlib import Path

import pytest
import yaml
from kill_points import after_kills

COMMANDS = {
    "train": """
import torch, train
from accelerate.state import AcceleratorState
def command(folder):
    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert train.main(["--config", {config!r}, "--output_dir", f"{{folder}}/run", "--resume"]) == 0
""",
    "evaluate": """
import importlib.util, sys, torch
specification = importlib.util.spec_from_file_location("evaluate_program", {root!r} + "/evaluate.py")
sys.modules["evaluate_program"] = program = importlib.util.module_from_spec(specification)
specification.loader.exec_module(program)
def command(folder):
    torch.set_num_threads(1)
    assert program.main(["--config", {config!r}, "--output_dir", f"{{folder}}/out"]) == 0
""",
}
CONFIGS = {
    "train": {
        **{"epochs": 1, "batch_size": 4, "checkpoint_every": 1, "validation_captions": 0, "trackers": []},
        "mixed_precision": "no",
    },
    "evaluate": {"batch_size": 2, "metrics": ["BLEU"]},
}
TIMED = ("log.jsonl", "README.md", "progress.json", "curves.png", "metrics.json", "report.html")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_and_continued_program_leaves_what_an_unbroken_one_does(
    name: str, root: Path, tiny_captioner: Path, tmp_path: Path
) -> None:
    config = {"model": str(tiny_captioner), "benchmark": "toy", **CONFIGS[name]}
    config["benchmark_options"] = {"train": 6, "validation": 2, "test": 4}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    code = COMMANDS[name].format(root=str(root), config=str(tmp_path / "config.yaml"))
    listings = after_kills(code, tmp_path, ("os.rename",), {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})
    assert len(listings) > 5
    unbroken = listings[-1]
    for number, listing in enumerate(listings):
        assert listing.keys() == unbroken.keys(), number
        differing = {path for path in listing if listing[path] != unbroken[path] and not path.endswith(TIMED)}
        assert not differing, number
