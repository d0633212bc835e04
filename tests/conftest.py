"""For all tests: no network, caches of their own, no progress bars."""

import os
import tempfile
from pathlib import Path

import pytest

# Before anything of Hugging Face is imported, which reads these once.
CACHE = tempfile.TemporaryDirectory(prefix="blip2idc-tests-")
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_HOME": CACHE.name,
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def tiny_captioner(root: Path) -> Path:
    return root / "checkpoints" / "tiny-blip2"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=2, help="how many times test_resuming.py kills each of its runs")
