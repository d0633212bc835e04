"""HQ-Edit: pictures that DALL-E 3 drew two by two, with the instruction from the first to the second and back.

    python -m dataset_syned prepare hq_edit        # raw files in data/hq_edit, see BY_HAND

A raw annotation is a row of a Parquet file (shortened):

    {"input": "a dog on a beach", "input_image": {"bytes": b".."}, "edit": "give the dog a hat",
     "inverse_edit": "take the hat off", "output": "a dog with a hat on a beach", "output_image": ..}

A row is two pairs: the second one shows the pictures in the other order, with the inverse instruction. No change type
is stated. Rows have no id: it is the file's name and the row.
"""

from collections.abc import Callable

from ..annotations import required_text
from ..pairs import RawPair
from ..parquet_pairs import ParquetPairs, Row

SOURCE = "UCSC-VLAA/HQ-Edit"


class HqEdit(ParquetPairs):
    DESCRIPTION = "HQ-Edit: drawn pictures, two by two, with the instruction there and back."
    LICENSE = "CC-BY-NC-4.0"
    HOMEPAGE = f"https://huggingface.co/datasets/{SOURCE}"
    CITATION = """@article{hui2024hqedit,
  title={HQ-Edit: A High-Quality Dataset for Instruction-based Image Editing},
  author={Hui, Mude and Yang, Siwei and Zhao, Bingchen and Shi, Yichun and Wang, Heng and Wang, Peng and
          Zhou, Yuyin and Xie, Cihang},
  journal={arXiv preprint arXiv:2404.09990},
  year={2024}
}"""
    BY_HAND = f"Put data/train-*.parquet of {HOMEPAGE} there (any files of them will do)."
    EXPECTED = {"default": {"train": 197_350}}  # 98,675 rows
    SHARDS = {"train": ("data/train-*.parquet",)}
    COLUMNS = {  # the last names are those of older revisions
        "before": ("input_image",),
        "after": ("output_image",),
        "text": ("edit", "edit_instruction"),
        "inverse": ("inverse_edit", "inverse-edit", "inverse_edit_instruction"),
        "input": ("input",),
        "output": ("output",),
    }

    def row_readers(self) -> tuple[Callable[[Row, str], RawPair], ...]:
        return self.row_pair, self.inverse_pair

    def row_pair(self, row: Row, row_id: str) -> RawPair:
        text = required_text(row["text"], "edit")
        known = {"input": row["input"] or "", "output": row["output"] or ""}
        return RawPair(row_id, *self.row_images(row, row_id), [text], provenance=known)

    def inverse_pair(self, row: Row, row_id: str) -> RawPair:
        """Return the pair from the second picture back to the first."""
        after, before = self.row_images(row, row_id)
        text = required_text(row["inverse"], "inverse_edit")
        known = {"input": row["output"] or "", "output": row["input"] or ""}
        return RawPair(f"{row_id}-inverse", before, after, [text], provenance=known)
