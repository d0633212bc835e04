"""The signature of an evaluation: what the predictions depend on, enough to compare or repeat it."""

from pathlib import Path
from typing import Any

from common_idc.provenance import file_sha256, hub_commit

from .paths import ADAPTER_CONFIG, ADAPTER_WEIGHTS

WEIGHTS = (".safetensors", ".bin")


def weights_signature(
    model: str | None,
    revision: str | None,
    adapter: str | None,
    adapter_revision: str | None,
    base_of_adapter: tuple[str, str | None] | None,
) -> dict[str, str | None]:
    """Return name, requested revision and Hub commit of base and adapter, and the hash of the adapter's weights.

    Base models in folders have no hash: reading 15 GB takes longer than loading them.

    Args:
        model, revision, adapter, adapter_revision: as the user gave them; `model` may name an adapter.
        base_of_adapter: the base that the loaded adapter names; None for a model without adapter.
    """
    if base_of_adapter and not (model and adapter):  # one name was given, the adapter's, and its revision
        adapter, adapter_revision = adapter or model, revision
        model, revision = base_of_adapter
    commit = hub_commit(model, "config.json", revision)[1]
    signature = {"model": model, "revision": revision, "commit": commit, "adapter": adapter}
    folder, adapter_commit = hub_commit(adapter, ADAPTER_CONFIG, adapter_revision) if adapter else (None, None)
    signature |= {"adapter_revision": adapter_revision, "adapter_commit": adapter_commit}
    file = folder and folder / ADAPTER_WEIGHTS
    exists = file is not None and file.is_file()  # PEFT loads pickled weights too
    return signature | {"adapter_sha256": file_sha256(file) if exists else None}


def settings_fingerprint(signature: dict[str, Any], data_files: list[Path], data: str, seed: int) -> dict[str, Any]:
    """Return what predictions depend on: settings, and data and weights by the sizes and times of their files.

    Args:
        signature: of the run, see evaluate.py.
        data_files: files of the prepared data set.
        data: its fingerprint by `datasets`.
    """
    folders = {name for name in (signature["model"], signature["adapter"]) if name and Path(name).is_dir()}
    weights = [file for name in sorted(folders) for file in sorted(Path(name).glob("*")) if file.suffix in WEIGHTS]
    stamps = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in (*weights, *data_files)]
    return {**signature, "files": stamps, "data": data, "seed": seed}
