"""What the vision encoder makes of each pair, computed once and kept on disk, for training without adapters in it.

    FOLDER/KEY/00000.safetensors, 00001.safetensors ...

KEY is a fingerprint of all that the features depend on: pairs, processor, weights and their precision. Each file holds
the features of PAIRS_PER_FILE consecutive pairs and exists whole or not at all, so that another run finds those that
an interrupted one has computed, and several processes share the work. Reading maps the files into memory.
"""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from tqdm import tqdm

from common_idc.atomic_files import write_atomically

from .families import FAMILIES, family_of
from .loading import processor_fingerprint, weights_sha256

PAIRS_PER_FILE = 512  # 370 MB of the largest BLIP-2's vision encoder in bfloat16
NAME = "features"  # of the only tensor in a file


class KeptFeatures:
    """The features of some pairs, in their order: `features[row]` is [P, D].

    Args:
        folder: FOLDER/KEY, with the files of all `pairs`.
    """

    def __init__(self, folder: Path, pairs: int):
        self.folder, self.pairs = folder, pairs
        self._files: dict[int, Any] = {}

    def __len__(self) -> int:
        return self.pairs

    def __getitem__(self, row: int) -> torch.Tensor:
        """Return [P, D]. Raises: OSError if its file is missing or damaged."""
        number, place = divmod(row, PAIRS_PER_FILE)
        try:
            if number not in self._files:
                self._files[number] = safe_open(_file(self.folder, number), framework="pt")
            return self._files[number].get_slice(NAME)[place]
        except (OSError, SafetensorError) as error:
            file = str(_file(self.folder, number))
            raise OSError(f"{file!r} cannot be read ({error}): remove it, and start the command again") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_files": {}}  # a loader process opens them itself


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:05}.safetensors"


def check_can_keep(model: Any, trained: Sequence[str]) -> None:
    """Raise ValueError unless the model's vision encoder can be left out of training steps.

    Args:
        trained: the parts of the model that have adapters.
    """
    if family_of(model).vision_encoder is None:
        able = ", ".join(name for name, family in FAMILIES.items() if family.vision_encoder)
        raise ValueError(
            f"vision features of {model.config.model_type!r} cannot be kept, only those of {able}: leave "
            "keep_vision_features out"
        )
    if "vision" in trained:
        raise ValueError(
            f"the adapters are in {' '.join(trained)}: vision features change while vision is trained. Keep them with "
            "--lora_parts qformer language, or leave keep_vision_features out"
        )


def features_key(pairs: str, processor: Any, model: Any) -> str:
    """Return KEY: a fingerprint of all that the features of some pairs depend on.

    Args:
        pairs: a fingerprint of their images.
        model: a `PeftModel`.
    """
    encoder = model.get_base_model().get_submodule(family_of(model).vision_encoder)
    shown = f"{pairs} {processor_fingerprint(processor)} {weights_sha256(encoder)} {model.dtype}"
    return hashlib.sha256(shown.encode()).hexdigest()[:32]


def keep_features(
    folder: Path,
    pairs: Any,
    processor: Any,
    model: Any,
    autocast: AbstractContextManager,
    batch_size: int,
    process: int = 0,
    processes: int = 1,
    **loading: Any,
) -> None:
    """Compute and write the files that are missing in FOLDER/KEY, of which this process writes every P-th.

    Args:
        pairs: rows with `pair_id`, `before` and `after`.
        model: a `PeftModel`, on its device.
        autocast: the context of the run's steps.
        batch_size: canvases that are encoded together.
        loading: keywords of `DataLoader` that say which processes load images.

    Raises: OSError if the disk has not enough space for all files; ImageError for an unreadable image.
    """
    files = range(-(-len(pairs) // PAIRS_PER_FILE))
    missing = [number for number in files if not _file(folder, number).exists()]
    own = [number for number in missing if number % processes == process]
    if not own:
        return
    base = model.get_base_model().eval()
    batches = [batch for number in own for batch in _batches(number, len(pairs), batch_size)]
    loader = DataLoader(pairs, batch_sampler=batches, collate_fn=Canvases(processor), **loading)
    with torch.no_grad(), autocast, tqdm(total=0, unit="pair", desc="vision features", disable=process > 0) as bar:
        bar.total = sum(map(len, batches))
        encoded = (base.encode_vision(canvases.to(base.device)).cpu() for canvases in loader)
        first = next(encoded)
        _check_space(folder, first[0].nbytes * min(len(missing) * PAIRS_PER_FILE, len(pairs)))
        encoded = chain([first], encoded)
        for number in own:
            features = torch.cat([next(encoded) for _ in _batches(number, len(pairs), batch_size)])
            write_atomically(_file(folder, number), lambda file, kept=features: save_file({NAME: kept}, file))
            bar.update(len(features))


def _batches(number: int, pairs: int, batch_size: int) -> Iterator[list[int]]:
    end = min((number + 1) * PAIRS_PER_FILE, pairs)
    for start in range(number * PAIRS_PER_FILE, end, batch_size):
        yield list(range(start, min(start + batch_size, end)))


def _check_space(folder: Path, needed: int) -> None:
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise OSError(
            f"the vision features need {needed / 1e9:.1f} GB in {str(folder)!r}, whose disk has {free / 1e9:.1f} GB "
            "left: name a folder on another disk, or leave keep_vision_features out"
        )


class Canvases:
    """Collation of rows to canvases, [B, 3, H, W]; a class, because loader processes must pickle it."""

    def __init__(self, processor: Any):
        self.processor = processor

    def __call__(self, rows: list[dict[str, Any]]) -> torch.Tensor:
        pairs = [self.processor.load_pair(row["before"], row["after"], f"pair {row['pair_id']!r}") for row in rows]
        return self.processor(before=[b for b, _ in pairs], after=[a for _, a in pairs])["pixel_values"]
