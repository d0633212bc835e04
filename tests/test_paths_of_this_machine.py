"""No file that is made to be read by others contains a path of the machine that made it."""

import json
import subprocess
import sys
from pathlib import Path

import yaml

import train

OWN = ("train_config.yaml", "log.jsonl", "adapter_config.json")  # of a run; cut when they are pushed


def test_cards_scores_and_reports_contain_no_path(root: Path, tiny_captioner: Path, tmp_path: Path) -> None:
    private = tmp_path / "of alice"
    options = {"train": 8, "validation": 4, "test": 4, "data_dir": str(private / "data")}
    run = private / "run"
    config = {"model": str(tiny_captioner), "benchmark": "toy", "benchmark_options": options, "epochs": 1}
    config |= {"validation_captions": 0, "mixed_precision": "no", "output_dir": str(run), "trackers": []}
    private.mkdir()
    (private / "config.yaml").write_text(yaml.safe_dump(config))
    assert train.main(["--config", str(private / "config.yaml")]) == 0
    command = [sys.executable, "evaluate.py", "--adapter", str(run), "--benchmark", "toy", "--output_dir"]
    command += [str(run / "eval" / "test"), "--benchmark_options", json.dumps(options), "--metrics", "BLEU"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "metric_idc", "score", str(run / "eval" / "test" / "predictions.jsonl")]
    command += ["--output_dir", str(private / "scores"), "--metrics", "BLEU"]
    assert subprocess.run(command, cwd=root).returncode == 0

    files = [path for path in private.rglob("*") if path.is_file() and path.name not in (*OWN, "config.yaml")]
    assert {"README.md", "metrics.json", "report.html", "predictions.jsonl"} <= {path.name for path in files}
    secrets = ["of alice", str(tmp_path), str(root), f"{Path.home()}/"]
    for path in files:
        for secret in secrets:
            assert secret.encode() not in path.read_bytes(), (path.name, secret)
