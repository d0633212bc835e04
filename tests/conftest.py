"""For all tests: no network, caches of their own, no progress bars."""

import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType

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
    """Return the repository."""
    return ROOT


@pytest.fixture(scope="session")
def tiny_captioner(root: Path) -> Path:
    return root / "captioner_idc" / "tiny_captioner"


@pytest.fixture(scope="session")
def program(root: Path) -> ModuleType:
    """Return the file evaluate.py; by its plain name Python would find the library (as it should)."""
    spec = importlib.util.spec_from_file_location("evaluate_program", root / "evaluate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=2, help="how many times test_resuming.py kills each of its runs")


# Files whose tests launch programs or train models: marked slow, and first, so that no process is left with one of
# them when the others have finished.
SLOW = (
    *("test_predicting.py", "test_publishing.py", "test_resuming.py", "test_train_push.py", "test_train.py"),
    *("test_evaluate.py", "test_synthesis.py", "test_synthesis_models.py", "test_synthetic_pairs.py", "test_wheel.py"),
    *("test_signature.py", "test_report.py", "test_pushing.py", "test_full_size.py", "test_metric_space.py"),
    *("test_settings_reach_use.py", "test_synthesis_settings.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in SLOW:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.path.name not in SLOW)
