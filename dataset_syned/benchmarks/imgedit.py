"""ImgEdit: photographs edited by models, in one step or in several turns.

    python -m dataset_syned prepare imgedit        # raw files in data/imgedit, see BY_HAND

A raw annotation is a row of Parquet/<task>_part<n>.parquet, or a turn of its `data` (read in code of its users):

    {"input_images": ["results_remove_part0/12/original.png"], "output_images": [".."], "prompt": "remove the dog"}
    {"data": [{"input_images": [".."], "output_images": [".."], "prompt": ".."}, ..]}

Image names may be lists of lists; they are relative to the data folder, or to Singleturn/ or Multiturn/ in it. Rows
and turns that have not exactly one image before and one after, e.g. with a further reference image, are not pairs.
An instruction is not always what was done. The change type is that of the file's task.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..annotations import Located, inside, read_each, required_text
from ..pair_builder import PairBuilder
from ..pairs import BrokenEntry, RawPair
from ..parquet_pairs import column_names, read_rows

# Tasks, with which the names of files begin, that a change type names.
CHANGE_TYPES = {"add": "add", "remove": "remove", "replace": "replace", "background": "background", "style": "style"}
FOLDERS = ("", "Singleturn", "Multiturn")
ONE_STEP = {name: (name,) for name in ("input_images", "output_images", "prompt")}
SEVERAL_TURNS = {"data": ("data",)}


def flat_names(cell: Any) -> list[str]:
    """Return the names in a cell that is a text, or a list of such cells."""
    return [name for part in cell for name in flat_names(part)] if isinstance(cell, list) else [cell] if cell else []


def read_edits(path: Path) -> Iterator[Located]:
    """Yield the place of each row or turn of a file, and the end of its id with its fields."""
    columns = SEVERAL_TURNS if "data" in column_names(path) else ONE_STEP
    for number, row in enumerate(read_rows(path, columns)):
        place = f"{str(path)!r}, row {number}"
        if columns is ONE_STEP:
            yield place, (f"{number}", row)
        for turn, fields in enumerate(row.get("data") or [], start=1):
            yield f"{place}, turn {turn}", (f"{number}-{turn}", fields)


class ImgEdit(PairBuilder):
    """ImgEdit's pairs: 1.2 million, the exact number is not published."""

    DESCRIPTION = "ImgEdit: photographs edited by models, in one step or in several turns."
    LICENSE = "Apache-2.0, as others quote it"
    HOMEPAGE = "https://github.com/PKU-YuanGroup/ImgEdit"
    CITATION = """@article{ye2025imgedit,
  title={ImgEdit: A Unified Image Editing Dataset and Benchmark},
  author={Ye, Yang and He, Xianyi and Li, Zongjian and Lin, Bin and Yuan, Shenghai and Yan, Zhiyuan and Hou, Bohan and
          Yuan, Li},
  journal={arXiv preprint arXiv:2505.20275},
  year={2025}
}"""
    BY_HAND = (
        "Put files of Parquet/ of https://huggingface.co/datasets/sysuyy/ImgEdit there (any will do), and next to it "
        "what their archives contain: join results_*.tar.split.* of Singleturn/ and Multiturn/ with cat and unpack "
        "them in the folder they came from."
    )

    def files(self) -> list[Path]:
        """Return the files of annotations that are there."""
        return sorted((self.root / "Parquet").glob("*.parquet"))

    def raw_splits(self) -> list[str]:
        if not self.files():
            raise self.missing("Parquet/*.parquet")
        return ["train"]

    def image(self, name: str) -> Path:
        """Return the file of an image, in the first of FOLDERS that has it."""
        paths = [inside(self.root / folder, name) for folder in FOLDERS]
        return next((path for path in paths if path.is_file()), paths[0])

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        for path in self.files():
            pairs = read_each(read_edits(path), lambda edit, stem=path.stem: self.read_edit(stem, *edit))
            yield from (pair for pair in pairs if pair is not None)

    def read_edit(self, stem: str, number: str, edit: dict[str, Any]) -> RawPair | None:
        """Return the pair of a row or turn of the file `stem`; None unless it has one image before and one after."""
        before, after = flat_names(edit["input_images"]), flat_names(edit["output_images"])
        if len(before) != 1 or len(after) != 1:
            return None
        caption, task = required_text(edit["prompt"], "prompt"), stem.split("_")[0]
        images = self.image(before[0]), self.image(after[0])
        return RawPair(f"{stem}-{number}", *images, [caption], CHANGE_TYPES.get(task, ""))
