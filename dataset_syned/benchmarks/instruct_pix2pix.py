"""instruct_pix2pix: generated pictures before and after an edit; the edit instruction is the caption.

One folder per instruction, `0000014/{prompt.json,metadata.jsonl,10483310_0.jpg,10483310_1.jpg}`, one pair per seed. A
prompt.json and a line of metadata.jsonl:

    {"input": "a jungle leopard", "edit": "make it a lion", "output": "a jungle lion", "url": ".."}
    {"seed": 10483310, "sim_0": 0.27, "sim_1": 0.25, "sim_direction": 0.21, "sim_image": 0.9, "scale": 8.1}
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..annotations import inside, json_object, numbered_lines, read_each, read_json
from ..pair_builder import PairBuilder
from ..pairs import BrokenEntry, DataError, RawPair

# By position in seeds.json, as the authors cut: their bounds are the floors of these shares of its length.
SPLIT_SHARES = {"train": (0.0, 0.9), "validation": (0.9, 0.9 + 0.05), "test": (0.9 + 0.05, 1.0)}
# The authors' generator writes other names today than it did for their release.
RELEASED_NAMES = {
    "clip_sim_0": "sim_0",
    "clip_sim_1": "sim_1",
    "clip_sim_dir": "sim_direction",
    "clip_sim_image": "sim_image",
    "cfg_scale": "scale",
}


def read_metadata(path: Path) -> dict[str, dict[str, Any]]:
    """How each pair of a folder was generated, by seed. Not every copy has the file."""
    if not path.is_file():
        return {}
    made = {}
    for place, (_, line) in numbered_lines(path):
        try:
            fields = json_object(line)
            made[str(fields["seed"])] = {RELEASED_NAMES.get(name, name): value for name, value in fields.items()}
        except (DataError, KeyError) as error:
            raise DataError(f"{place}: no JSON object with 'seed' ({error})") from error
    return made


def read_prompt(path: Path) -> dict[str, str]:
    """`edit`, and where the copy has them, what the pictures were generated from: `input` and `output`."""
    prompt = read_json(path)
    if not isinstance(prompt, dict) or not isinstance(prompt.get("edit"), str):
        raise DataError(f"{str(path)!r} has no text in field 'edit'")
    if "caption" in prompt:  # the authors' generator, instead of `input`
        prompt = {"input": prompt["caption"], **prompt}
    return {name: prompt[name] for name in ("input", "edit", "output") if name in prompt}


def folder_pairs(folder: Path, seeds: list[str]) -> Iterator[RawPair | BrokenEntry]:
    try:
        # The release lacks some folders that its seeds.json names, as does whoever took a few of its archives. Their
        # pairs then fail by missing images, one by one, which a skip log can take.
        prompt = read_prompt(folder / "prompt.json") if folder.is_dir() else {"edit": ""}
        made = read_metadata(folder / "metadata.jsonl")
    except DataError as error:
        yield from (BrokenEntry(error, f"{folder.name}-{seed}") for seed in seeds)
        return
    source = {name: prompt[name] for name in ("input", "output") if name in prompt}

    def read(seed: str) -> RawPair:
        if folder.is_dir() and not prompt["edit"].strip():
            raise DataError("the field 'edit' of its prompt.json has no text")
        images = inside(folder, f"{seed}_0.jpg"), inside(folder, f"{seed}_1.jpg")
        provenance = {**source, **made.get(seed, {})}
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
    BY_HAND = (
        "Take seeds.json and the zip archives of clip-filtered-dataset from http://instruct-pix2pix.eecs.berkeley.edu "
        "(436 GB; any folders of it will do, without seeds.json all are `train`) and unpack them there: "
        "0000014/prompt.json, 0000014/10483310_0.jpg, .. (timbrooks/instructpix2pix-clip-filtered on the Hub has the "
        "same pictures as Parquet, one pair per instruction.)"
    )
    # The 313,010 of the authors' README are folders; pairs are about three times as many, nobody states the number.
    EXPECTED: dict[str, dict[str, int]] = {}

    def raw_splits(self) -> list[str]:
        splits = [split for split in SPLIT_SHARES if self.folders(split)]
        if not splits:
            raise self.missing("seeds.json, or a folder with prompt.json and images,")
        return splits

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        data = self.data_folder()
        for name, seeds in self.folders(split):
            yield from folder_pairs(inside(data, name), seeds)

    def count_pairs(self, split: str) -> int:
        return sum(len(seeds) for _, seeds in self.folders(split))  # without opening 300,000 prompt files

    def folders(self, split: str) -> list[tuple[str, list[str]]]:
        """Names of a split's folders and their seeds."""
        path = self.data_folder() / "seeds.json"
        if not path.is_file():
            return self.unlisted_folders() if split == "train" else []
        listed = read_json(path)
        try:
            folders = [(name, [str(seed) for seed in seeds]) for name, seeds in listed]
            if not all(isinstance(name, str) for name, _ in folders):
                raise TypeError("a folder name that is no text")
        except (TypeError, ValueError) as error:
            raise DataError(f"{str(path)!r}: no list of [folder, [seed, ..]] ({error})") from error
        start, stop = (math.floor(share * len(folders)) for share in SPLIT_SHARES[split])
        return folders[start:stop]

    def unlisted_folders(self) -> list[tuple[str, list[str]]]:
        """As the authors' script makes seeds.json: sorted names, as numbers of a fixed width."""
        found = []
        for prompt in sorted(self.data_folder().glob("*/prompt.json")):
            seeds = [path.name.removesuffix("_0.jpg") for path in sorted(prompt.parent.glob("*_0.jpg"))]
            if seeds:
                found.append((prompt.parent.name, seeds))
        return found

    def data_folder(self) -> Path:
        """The authors' download script adds a folder of this name."""
        named = self.root / "clip-filtered-dataset"
        return named if named.is_dir() else self.root
