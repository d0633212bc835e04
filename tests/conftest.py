"""Settings and fixtures for all tests: no network, temporary caches, no progress bars."""

import importlib.metadata
import os
import re
import tempfile
from collections.abc import Generator
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from program_files import load_program

# Set before any Hugging Face library is imported, because they read these only once.
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
    """Return the root folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def tiny_captioner(root: Path) -> Path:
    return root / "captioner_idc" / "tiny_captioner"


@pytest.fixture(scope="session")
def program(root: Path) -> ModuleType:
    """Return evaluate.py as a module; `import evaluate` would import the library of that name (as it should)."""
    return load_program(root / "evaluate.py", "evaluate_program")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=2, help="how many times test_resuming.py kills each of its runs")


# Files whose tests launch programs or train models. They are marked slow and run first, so that with pytest-xdist no
# worker is still busy with one when the others have finished.
SLOW = (
    *("test_predicting.py", "test_publishing.py", "test_resuming.py", "test_train_push.py", "test_train.py"),
    *("test_evaluate.py", "test_synthesis.py", "test_synthesis_models.py", "test_synthetic_pairs.py", "test_wheel.py"),
    *("test_signature.py", "test_report.py", "test_pushing.py", "test_full_size.py", "test_metric_space.py"),
    *("test_app.py", "test_app_in_browser.py"),
    *("test_settings_reach_use.py", "test_synthesis_settings.py", "test_killed_programs.py"),
    *("test_paths_of_this_machine.py", "test_pair_lists.py", "test_dataset_commands.py", "test_exporting.py"),
    *("test_families.py", "test_chat_families.py", "test_pair_layouts.py", "test_early_attention.py"),
    *("test_tiny_vlm_from_scratch.py", "test_docs.py", "test_exporting_captioners.py"),
    *("test_full_size_speed.py", "test_training_step.py", "test_generation_measurement.py", "test_growth.py"),
    *("test_speed_measurements.py",),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in SLOW:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.path.name not in SLOW)


def is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def missing_packages(reason: str) -> list[str]:
    """Return packages that a reason for a skip names, an extra asks for, and this environment lacks."""
    requirements = map(Requirement, importlib.metadata.requires("blip2idc") or [])
    wanted = {entry.name for entry in requirements if not entry.marker or entry.marker.evaluate({"extra": "all"})}
    return sorted(name for name in wanted & set(re.findall(r"[\w-]+", reason)) if not is_installed(name))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure if CI, which installs every extra, lacks the package."""
    report = yield
    if report.skipped and os.environ.get("CI") and isinstance(report.longrepr, tuple):
        missing = missing_packages(report.longrepr[2])
        if missing:
            report.outcome = "failed"
            report.longrepr = f"CI has to install {', '.join(missing)}: {report.longrepr[2]}"
    return report
