"""CI cannot skip a test because it did not install what an extra names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Stands for an environment with pytest and without an invented package, both named by an extra.
ENVIRONMENT = """
import importlib.metadata
importlib.metadata.requires = lambda _: ['nosuchpackage>=1; extra == "all"', 'pytest>=8; extra == "all"']
"""
TESTS = """
import pytest

@pytest.mark.skipif(True, reason='nosuchpackage is not installed: pip install -e ".[demo]"')
def test_marked():
    raise AssertionError("it was run")

def test_inside():
    pytest.importorskip("nosuchpackage", reason="nosuchpackage is missing")

def test_of_another_reason():
    pytest.skip("pytest is installed and the real annotations are missing")

def test_passes():
    pass
"""


@pytest.mark.parametrize(
    ("ci", "summary"), [("true", "1 failed, 1 passed, 1 skipped, 1 error"), ("", "1 passed, 3 skipped")]
)
def test_a_skip_for_a_package_of_an_extra_fails_in_ci(root: Path, tmp_path: Path, ci: str, summary: str) -> None:
    (tmp_path / "environment.py").write_text(ENVIRONMENT)
    (tmp_path / "test_skips.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "environment", "-p", "conftest", "test_skips.py"],
        cwd=tmp_path,
        env=os.environ | {"CI": ci, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root / 'tests'}"},
        capture_output=True,
        text=True,
    )
    assert summary in done.stdout, done.stdout + done.stderr
    assert ("CI has to install nosuchpackage" in done.stdout) == bool(ci)
