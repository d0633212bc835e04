"""InstructPix2Pix: generated pictures before and after an edit; the edit instruction is the caption.

    python -m dataset_syned prepare instruct_pix2pix        # raw files in data/instruct_pix2pix, see BY_HAND

One folder per instruction, `0000014/{prompt.json,metadata.jsonl,10483310_0.jpg,10483310_1.jpg}`, one pair per seed:

    prompt.json       {"input": "a jungle leopard", "edit": "make it a lion", "output": "a jungle lion", "url": ".."}
    metadata.jsonl    {"seed": 10483310, "scale": 7.5, "sim_0": 0.3, "sim_direction": 0.4, "sim_image": 0.8, ..}

No change type is stated.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..annotations import inside, json_object, numbered_lines, read_each, read_json
from ..pair_builder import PairBuilder
from ..pairs import BrokenEntry, DataError, RawPair

# By position in seeds.json, as the authors split: their bounds are the floors of these shares of its length.
SHARES = {"train": (0.0, 0.9), "validation": (0.9, 0.9 + 0.05), "test": (0.9 + 0.05, 1.0)}
# Names that the authors' generator writes today -> names in their release.
RELEASED_NAMES = {
    "clip_sim_0": "sim_0",
    "clip_sim_1": "sim_1",
    "clip_sim_dir": "sim_direction",
    "clip_sim_image": "sim_image",
    "cfg_scale": "scale",
}


def read_metadata(path: Path) -> dict[str, dict[str, Any]]:
    """Return how each pair of a folder was generated, by seed; not every copy has the file."""
    if not path.exists():
        return {}
    metadata = {}
    for place, (_, line) in numbered_lines(path):
        try:
            fields = json_object(line)
            metadata[str(fields["seed"])] = {RELEASED_NAMES.get(name, name): value for name, value in fields.items()}
        except (DataError, KeyError) as error:
            raise DataError(f"{place}: not a JSON object with 'seed' ({error})") from error
    return metadata


def read_prompt(path: Path) -> dict[str, str]:
    """Return `edit`, and `input` and `output`, from which the pictures were generated, if the copy has them."""
    prompt = read_json(path)
    if not isinstance(prompt, dict) or not isinstance(prompt.get("edit"), str):
        raise DataError(f"{str(path)!r} has no text in field 'edit'")
    if "caption" in prompt:  # the authors' generator, instead of `input`
        prompt = {"input": prompt["caption"], **prompt}
    return {name: prompt[name] for name in ("input", "edit", "output") if name in prompt}


def folder_pairs(folder: Path, seeds: list[str]) -> Iterator[RawPair | BrokenEntry]:
    """Yield the pairs of one instruction."""
    try:
        # The release lacks some folders that its seeds.json names, as does a download of a few archives. Their pairs
        # then fail by missing images, one by one, so that a skip log can list them.
        prompt = read_prompt(folder / "prompt.json") if folder.is_dir() else {"edit": ""}
        metadata = read_metadata(folder / "metadata.jsonl")
    except DataError as error:
        yield from (BrokenEntry(error, f"{folder.name}-{seed}") for seed in seeds)
        return
    source = {name: prompt[name] for name in ("input", "output") if name in prompt}

    def read(seed: str) -> RawPair:
        if folder.is_dir() and not prompt["edit"].strip():
            raise DataError("the field 'edit' of its prompt.json has no text")
        images = inside(folder, f"{seed}_0.jpg"), inside(folder, f"{seed}_1.jpg")
        provenance = {**source, **metadata.get(seed, {})}
        return RawPair(f"{folder.name}-{seed}", *images, [prompt["edit"].strip()], provenance=provenance)

    yield from read_each(((f"pair '{folder.name}-{seed}'", seed) for seed in seeds), read)


class InstructPix2Pix(PairBuilder):
    DESCRIPTION = "InstructPix2Pix: generated pictures before and after an edit, with the instruction and CLIP scores."
    LICENSE = "none stated for the pictures (code: MIT-like)"
    HOMEPAGE = "https://github.com/timothybrooks/instruct-pix2pix"
    CITATION = """@inproceedings{brooks2023instructpix2pix,
  title={InstructPix2Pix: Learning to Follow Image Editing Instructions},
  author={Brooks, Tim and Holynski, Aleksander and Efros, Alexei A.},
  booktitle={IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages={18392--18402},
  year={2023}
}"""
    SUBFOLDER = "clip-filtered-dataset"  # of the authors' download script
    BY_HAND = (
        "Take seeds.json and the zip archives of clip-filtered-dataset from http://instruct-pix2pix.eecs.berkeley.edu "
        "(436 GB; any folders of it will do, without seeds.json all are `train`) and unpack them there: "
        "0000014/prompt.json, 0000014/10483310_0.jpg, .. (timbrooks/instructpix2pix-clip-filtered on the Hub has the "
        "same pictures as Parquet, one pair per instruction.)"
    )
    # The 313,010 of the authors' README are folders; there are about three times as many pairs, no exact number is
    # published.
    EXPECTED: dict[str, dict[str, int]] = {}

    def raw_splits(self) -> list[str]:
        splits = [split for split in SHARES if self.folders(split)]
        if not splits:
            raise self.missing("seeds.json, or a folder with prompt.json and images,")
        return splits

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        data = self.folder
        for name, seeds in self.folders(split):
            yield from folder_pairs(inside(data, name), seeds)

    def count_pairs(self, split: str) -> int:
        return sum(len(seeds) for _, seeds in self.folders(split))  # without opening 300,000 prompt files

    def folders(self, split: str) -> list[tuple[str, list[str]]]:
        """Return the names of a split's folders and their seeds."""
        path = self.folder / "seeds.json"
        if not path.exists():
            return self.unlisted_folders() if split == "train" else []
        listed = read_json(path)
        try:
            folders = [(name, [str(seed) for seed in seeds]) for name, seeds in listed]
            if not all(isinstance(name, str) for name, _ in folders):
                raise TypeError("a folder name that is not a text")
        except (TypeError, ValueError) as error:
            raise DataError(f"{str(path)!r}: not a list of [folder, [seed, ..]] ({error})") from error
        start, stop = (math.floor(share * len(folders)) for share in SHARES[split])
        return folders[start:stop]

    def unlisted_folders(self) -> list[tuple[str, list[str]]]:
        """Return all folders and their seeds in the order of the authors' seeds.json, which is sorted by name."""
        found = []
        for prompt in sorted(self.folder.glob("*/prompt.json")):
            seeds = [path.name.removesuffix("_0.jpg") for path in sorted(prompt.parent.glob("*_0.jpg"))]
            if seeds:
                found.append((prompt.parent.name, seeds))
        return found
