"""Syned, the data set of the BLIP2IDC paper: Emu Edit's images joined with the released text files.

    python -m dataset_syned fetch syned && python -m dataset_syned prepare syned

`syned` has cleaned test references (see `caption_cleaning`), `syned_raw` the released ones, unchanged. Both end with
the original instruction, so that the four test pairs released without a paraphrase are scored too. Raw annotations:

    instructions_with_idx_test_split.txt    0 <INSTRUCT> Add a goat
    gt_augmented_test_clean.json            {"0 ": ["\\"Place a goat near the fence.\\"", "Insert a goat", ..], ..}
    splits.json                             {"train": [296, ..], "validation": [1941, ..]}

The files in the data folder:

    data/syned/data/validation-*.parquet, test-*.parquet     images, tasks: see `emu_edit`
    data/syned/splits.json, instructions_with_idx_{train,test}_split.txt, gt_augmented_test_clean.json
    data/syned/edits/metadata.jsonl and its images           optional: further edits of train images, made by synthesis
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..annotations import are_texts, inside, json_object, numbered_lines, open_text, read_each, read_json
from ..caption_cleaning import clean, report
from ..pair_builder import Mirror, PairBuilder, PairConfig
from ..pairs import BrokenEntry, DataError, RawPair
from ..parquet_pairs import named_image
from .emu_edit import (
    SOURCE,
    SPLITS,
    SPLITS_FILE,
    Edit,
    edit_pair,
    read_edits,
    read_ids,
    read_splits,
    require_ids,
    shards,
)

INSTRUCTIONS = {
    "train": "instructions_with_idx_train_split.txt",
    "validation": "instructions_with_idx_train_split.txt",  # both splits: the file is older than the cut
    "test": "instructions_with_idx_test_split.txt",
}
PARAPHRASES = "gt_augmented_test_clean.json"
NEEDED = {
    "train": (SPLITS_FILE, INSTRUCTIONS["train"]),
    "validation": (SPLITS_FILE, INSTRUCTIONS["validation"]),
    "test": (INSTRUCTIONS["test"], PARAPHRASES),
}
MARKER = "<INSTRUCT>"
EDITS = "edits"


@dataclass(frozen=True)
class FurtherEdit:
    """An edited image that synthesis added to the `before` image of a train pair."""

    after: Path
    captions: list[str]  # empty: the instruction
    provenance: dict[str, Any]


def read_instructions(path: Path) -> dict[int, str]:
    """Return idx -> instruction from lines like `0 <INSTRUCT> Make the sky night`. Raises: DataError with the line."""
    instructions: dict[int, str] = {}
    with open_text(path) as file:
        try:
            lines = file.read().split("\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{str(path)!r} cannot be read ({error})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        idx, marker, text = line.partition(MARKER)
        if not marker or not idx.strip().isdecimal() or not text.strip():
            raise DataError(f"{str(path)!r}, line {number}: {line[:60]!r} should be an idx, {MARKER} and a text")
        if int(idx) in instructions:
            raise DataError(f"{str(path)!r}, line {number}: duplicate idx {int(idx)}")
        instructions[int(idx)] = text.strip()
    return instructions


def read_paraphrases(path: Path) -> dict[int, list[str]]:
    """Return idx -> lines as released; only the keys, which end in a blank, are stripped."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{str(path)!r} should map an idx to a list of sentences")
    paraphrases: dict[int, list[str]] = {}
    for key, lines in content.items():
        if not key.strip().isdecimal() or not are_texts(lines):
            raise DataError(f"{str(path)!r}: the entry {key!r} should map an idx to a list of sentences")
        if int(key) in paraphrases:
            raise DataError(f"{str(path)!r}: duplicate idx {int(key)}")
        paraphrases[int(key)] = lines
    return paraphrases


def read_further_edits(folder: Path, train: set[int]) -> list[tuple[int, FurtherEdit] | BrokenEntry]:
    """Return (idx, edit) in the order of metadata.jsonl; nothing if the folder does not exist."""
    if not folder.is_dir():
        return []

    def read(line: tuple[int, bytes]) -> tuple[int, FurtherEdit]:
        entry = json_object(line[1])
        idx, captions, provenance = entry["idx"], entry.get("captions") or [], entry["provenance"]
        if type(idx) is not int or not isinstance(provenance, dict) or not are_texts(captions):
            raise DataError("idx should be a number, provenance an object, captions a list of texts")
        if not all(map(str.strip, captions)):
            raise DataError(f"a caption of idx {idx} has no text: correct or remove it")
        if idx not in train:
            raise DataError(f"idx {idx} is not a train pair; only train may have further edits")
        return idx, FurtherEdit(inside(folder, entry["file_name"]), captions, provenance)

    return list(read_each(numbered_lines(folder / "metadata.jsonl"), read))


class Syned(PairBuilder):
    """Syned's pairs. Ids are `<split>-<idx>` (`test` counts from 0 again), and `train-<idx>-<n>` for further edits."""

    BUILDER_CONFIGS = [
        PairConfig(name="syned", description="test references cleaned"),
        PairConfig(name="syned_raw", description="test references as released"),
    ]
    DEFAULT_CONFIG_NAME = "syned"
    DESCRIPTION = (
        "Syned: Emu Edit's image pairs with the instruction as caption; in test, paraphrases of it as well. "
        "The four test pairs released without a paraphrase have the instruction alone."
    )
    LICENSE = "CC-BY-NC-4.0"
    HOMEPAGE = "https://huggingface.co/datasets/Gevennou/Syned"
    CITATION = """@inproceedings{evennou2025blip2idc,
  title={Reframing Image Difference Captioning with BLIP2IDC and Synthetic Augmentation},
  author={Evennou, Gautier and Chaffin, Antoine and Chappelier, Vivien and Kijak, Ewa},
  booktitle={Proceedings of the IEEE/CVF Winter Conference on Applications of Computer Vision},
  year={2025}
}"""
    MIRRORS = (Mirror(SOURCE, "main", ("data/validation-*.parquet", "data/test-*.parquet")),)
    BY_HAND = (
        f"Put data/validation-*.parquet and data/test-*.parquet of https://huggingface.co/datasets/{SOURCE} there, "
        f"and {SPLITS_FILE}, {INSTRUCTIONS['train']}, {INSTRUCTIONS['test']} and {PARAPHRASES} of "
        "https://huggingface.co/datasets/Gevennou/Syned (also in code_release/Syned of "
        "https://github.com/gautierevn/BLIP2IDC)."
    )
    BLANK_CAPTIONS = True
    EXPECTED = {name: {"train": 3050, "validation": 539, "test": 2022} for name in ("syned", "syned_raw")}

    def raw_splits(self) -> list[str]:
        splits = [split for split, names in NEEDED.items() if any((self.root / name).exists() for name in names)]
        for split in splits:
            for name in NEEDED[split]:
                self.require(name)
            if not shards(self.root, split):
                raise self.missing(f"data/{SPLITS[split]}-*.parquet")
        if not splits:
            raise self.missing(SPLITS_FILE)
        return splits

    def split_instructions(self, split: str) -> dict[int, str]:
        """Return idx -> instruction. Raises: DataError if an idx has no images, or no instruction."""
        name = INSTRUCTIONS[split]
        instructions = read_instructions(self.root / name)
        require_ids(instructions, read_ids(shards(self.root, split)), name, SPLITS[split])
        if split == "test":
            return instructions
        wanted = read_splits(self.root / SPLITS_FILE)[split]
        absent = sorted(wanted - set(instructions))
        if absent:
            raise DataError(f"idx {absent[0]} of {SPLITS_FILE} has no line in {str(self.root / name)!r}")
        return {idx: text for idx, text in instructions.items() if idx in wanted}

    def references(self, instructions: dict[int, str]) -> dict[int, list[str]]:
        """Return idx -> test references: the cleaned paraphrases, and last the instruction."""
        paraphrases = read_paraphrases(self.root / PARAPHRASES)
        absent = sorted(set(instructions) - set(paraphrases))
        if absent:
            raise DataError(f"idx {absent[0]} of {INSTRUCTIONS['test']} is not in {str(self.root / PARAPHRASES)!r}")
        if self.config.name == "syned_raw":
            return {idx: [*paraphrases[idx], text] for idx, text in instructions.items()}
        cleaned = {idx: clean(paraphrases[idx], text) for idx, text in instructions.items()}
        return {
            idx: result.kept if result.instruction_stands_in else [*result.kept, instructions[idx]]
            for idx, result in cleaned.items()
        }

    def notes(self) -> list[str]:
        """Return a line with the number of test paraphrases that each cleaning rule removed or changed."""
        if self.config.name == "syned_raw" or "test" not in self.raw_splits():
            return []
        paraphrases, instructions = read_paraphrases(self.root / PARAPHRASES), self.split_instructions("test")
        counts = report(clean(paraphrases.get(idx, []), text) for idx, text in instructions.items())
        listed = ", ".join(f"{rule} {count}" for rule, count in counts.items() if count)
        return [f"test paraphrases by cleaning rule: {listed or 'none'}"]

    def count_pairs(self, split: str) -> int:
        ids = set(self.split_instructions(split))
        return len(ids) + (len(read_further_edits(self.root / EDITS, ids)) if split == "train" else 0)

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        instructions = self.split_instructions(split)
        further: dict[int, list[FurtherEdit]] = {}
        for edit in read_further_edits(self.root / EDITS, set(instructions)) if split == "train" else ():
            if isinstance(edit, BrokenEntry):
                yield edit
            else:
                further.setdefault(edit[0], []).append(edit[1])
        references = self.references(instructions) if split == "test" else {}
        for edit in read_edits(shards(self.root, split), instructions):
            captions = references.get(edit.idx, [instructions[edit.idx]])
            yield edit_pair(f"{split}-{edit.idx}", edit, captions)
            for number, extra in enumerate(further.get(edit.idx, []), start=1):
                yield further_pair(f"{split}-{edit.idx}-{number}", edit, extra, captions)


def further_pair(pair_id: str, edit: Edit, extra: FurtherEdit, captions: list[str]) -> RawPair:
    """Return the pair of a train image and a further edit of it."""
    return RawPair(
        pair_id=pair_id,
        before=named_image(f"{pair_id}-before", edit.before),
        after=extra.after,
        captions=extra.captions or captions,
        change_type=edit.change_type,
        provenance=edit.provenance | extra.provenance,
    )
