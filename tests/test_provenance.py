"""Provenance of a result: versions, commits and hashes."""

import hashlib
from importlib.metadata import version
from pathlib import Path

from common_idc.provenance import file_sha256, hub_commit, library_versions


def test_packages_that_are_not_installed_are_left_out() -> None:
    assert library_versions("torch", "no-such-package-here") == {"torch": version("torch")}


def test_a_hash_is_of_the_whole_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 2**13  # two blocks
    (tmp_path / "file").write_bytes(content + b"end")
    assert file_sha256(tmp_path / "file") == hashlib.sha256(content + b"end").hexdigest()


def test_a_local_folder_has_no_hub_commit(tmp_path: Path) -> None:
    assert hub_commit(str(tmp_path), "config.json") == (tmp_path, None)
