"""The part of a signature that scoring cannot know: the weights, data and code that made the predictions."""

from pathlib import Path
from typing import Any

from common_idc.provenance import code_commit, file_sha256, hub_commit, library_versions

from .paths import ADAPTER_CONFIG, ADAPTER_WEIGHTS

BASE_CONFIG = "config.json"
WEIGHTS = (".safetensors", ".bin")
LIBRARIES = ("torch", "transformers", "peft", "datasets")
DATASET_PAGES = "https://huggingface.co/datasets/"


def weights_signature(
    model: str | None,
    revision: str | None,
    adapter: str | None,
    adapter_revision: str | None,
    named_base: tuple[str, str | None] | None,
) -> dict[str, str | None]:
    """Return names, requested revisions and Hub commits of base and adapter, and the hash of the adapter's weights.

    Base models in folders have no hash: reading 15 GB takes longer than loading them.

    Args:
        model, revision, adapter, adapter_revision: as they were given to load the model.
        named_base: name and revision of the base that the loaded adapter names; None for a model without adapter.
    """
    if named_base and not (model and adapter):  # only one name was given, the adapter's, and its revision
        adapter, adapter_revision = adapter or model, revision
        model, revision = named_base
    folder, commit = hub_commit(adapter, ADAPTER_CONFIG, adapter_revision) if adapter else (None, None)
    file = folder and folder / ADAPTER_WEIGHTS
    return {
        "model": model,
        "revision": revision,
        "commit": hub_commit(model, BASE_CONFIG, revision)[1],
        "adapter": adapter,
        "adapter_revision": adapter_revision,
        "adapter_commit": commit,
        # PEFT takes pickled weights too, which have another name
        "adapter_sha256": file_sha256(file) if file and file.is_file() else None,
        # which may be another model than the one that it was used with
        "adapter_trained_on": named_base[0] if named_base else None,
    }


def hub_dataset(homepage: str, mirrors: list[tuple[str, str]]) -> str | None:
    """Return the Hub id of a benchmark's data: its home page, or else the repository of its files; None if neither.

    Args:
        mirrors: repository id and repository type of each mirror.
    """
    if homepage.startswith(DATASET_PAGES):
        return homepage.removeprefix(DATASET_PAGES)
    return next((repo_id for repo_id, repo_type in mirrors if repo_type == "dataset"), None)


def code_signature() -> dict[str, Any]:
    """Return the Git commit of this code ("" outside a repository) and the library versions."""
    return {"code_commit": code_commit(), "versions": library_versions(*LIBRARIES)}


def settings_fingerprint(signature: dict[str, Any], data_fingerprint: str, seed: int) -> dict[str, Any]:
    """Return everything that predictions depend on; the weights count by the sizes and times of their files.

    Args:
        signature: of the run; its "model" and "adapter" may be folders.
        data_fingerprint: of the rows.
    """
    folders = sorted({name for name in (signature["model"], signature["adapter"]) if name and Path(name).is_dir()})
    weights = [file for name in folders for file in sorted(Path(name).glob("*")) if file.suffix in WEIGHTS]
    files = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in weights]
    return {**signature, "files": files, "data": data_fingerprint, "seed": seed}
