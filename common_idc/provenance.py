"""What made a result: library versions, the Git commit of the code, the Hub commit and hash of weights."""

import hashlib
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from huggingface_hub import try_to_load_from_cache


def library_versions(*packages: str) -> dict[str, str]:
    """Return the installed version of each package; packages that are not installed are left out."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def code_commit() -> str:
    """Return the Git commit of this code, or "" outside a repository."""
    command = ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def hub_commit(name: str, file: str, revision: str | None = None) -> tuple[Path, str | None]:
    """Return the folder that `file` of a model was just loaded from, and its Hub commit; None for a local folder.

    Args:
        name: a folder or a Hub id.
        file: a file that every such repository has, e.g. "config.json".
    """
    if Path(name).is_dir():
        return Path(name), None
    found = try_to_load_from_cache(name, file, revision=revision)  # .../snapshots/COMMIT/FILE
    return (Path(found).parent, Path(found).parent.name) if isinstance(found, str) else (Path(name), None)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
