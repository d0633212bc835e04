"""GPT-Image-Edit-1.5M: the pictures of HQ-Edit, OmniEdit and UltraEdit, edited anew by GPT-Image-1.

    python -m dataset_syned prepare gpt_image_edit        # raw files in data/gpt_image_edit, see BY_HAND

A raw annotation is an item of <set>/<task>/metadata/<name>.json (as the authors' card describes it):

    {"id": "omniedit_addition_00012", "dataset_source": "omniedit", "task": "addition", "input": "input/00012.png",
     "output": "output/00012.png", "instruction": "add a lamp", "instruction_type": "original",
     "input_description": "a room"}

Images are named relative to the folder of the task. Rewritten instructions say what the new output shows; the original
one is then in provenance. It is said that people often look like others after these edits.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..annotations import inside, read_each, read_json, required_text
from ..pair_builder import PairBuilder
from ..pairs import BrokenEntry, RawPair

# Tasks that a change type names: of OmniEdit, then of UltraEdit.
CHANGE_TYPES = {
    **{"addition": "add", "removal": "remove", "style": "style"},
    **{"object_swap": "replace", "background_swap": "background"},
    **{"add": "add", "replace": "replace", "change_color": "color"},
}
KNOWN = {"input_description": "input", "instruction_original": "original instruction"}  # field -> name in provenance


def read_item(item: dict[str, Any], folder: Path) -> RawPair:
    """Return the pair of an item of a task's folder."""
    kind = item["instruction_type"]
    # A rewritten instruction has the id of the original one.
    pair_id = item["id"] if kind == "original" else f"{item['id']}-{kind}"
    known = {name: item[field] for field, name in KNOWN.items() if item.get(field)}
    known |= {"source": item["dataset_source"], "task": item["task"], "instruction type": kind}
    images = inside(folder, item["input"]), inside(folder, item["output"])
    caption = required_text(item["instruction"], "instruction")
    return RawPair(pair_id, *images, [caption], CHANGE_TYPES.get(item["task"], ""), known)


class GptImageEdit(PairBuilder):
    DESCRIPTION = "GPT-Image-Edit-1.5M: pictures of three edit sets, edited anew by GPT-Image-1."
    LICENSE = "CC-BY-4.0"
    HOMEPAGE = "https://github.com/wyhlovecpp/GPT-Image-Edit"
    CITATION = """@misc{wang2025gptimageedit,
  title={GPT-IMAGE-EDIT-1.5M: A Million-Scale, GPT-Generated Image Dataset},
  author={Wang, Yuhan and Yang, Siwei and Zhao, Bingchen and Zhang, Letian and Liu, Qing and Zhou, Yuyin and
          Xie, Cihang},
  year={2025},
  eprint={2507.21033},
  archivePrefix={arXiv}
}"""
    BY_HAND = (
        "Unpack gpt-edit/ of https://huggingface.co/datasets/UCSC-VLAA/GPT-Image-Edit-1.5M there (5 TB; any tasks of "
        "it will do): gpt-edit/ultraedit/add/{input,output,metadata}/, .."
    )
    EXPECTED = {"default": {"train": 1_553_575}}
    SUBFOLDER = "gpt-edit"

    def files(self) -> list[Path]:
        """Return the files of annotations of all tasks that are there."""
        return sorted(self.folder.glob("*/*/metadata/*.json"))

    def raw_splits(self) -> list[str]:
        if not self.files():
            raise self.missing("gpt-edit/<set>/<task>/metadata/<name>.json")
        return ["train"]

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        for path in self.files():
            folder = path.parents[1]
            items = ((f"{str(path)!r}, item {number}", item) for number, item in enumerate(read_json(path, list)))
            yield from read_each(items, lambda item, folder=folder: read_item(item, folder))
