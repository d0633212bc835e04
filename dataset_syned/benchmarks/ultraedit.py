"""UltraEdit: generated variants of photographs, with the instruction and captions of both pictures.

    python -m dataset_syned prepare ultraedit        # raw files in data/ultraedit, see BY_HAND

A raw annotation is a row of a Parquet file (shortened; read in the authors' training code and in that of others):

    {"source_image": {"bytes": b".."}, "edited_image": .., "edit_prompt": "add a moon in the sky",
     "source_caption": "a lake at night", "target_caption": "a lake at night under the moon"}

No change type is stated. Rows have no id: it is the file's name and the row.
"""

from ..annotations import required_text
from ..pairs import RawPair
from ..parquet_pairs import ParquetPairs, Row


class UltraEdit(ParquetPairs):
    DESCRIPTION = "UltraEdit: generated variants of photographs, one instruction each."
    LICENSE = "CC-BY-4.0"
    HOMEPAGE = "https://ultra-editing.github.io"
    CITATION = """@inproceedings{zhao2024ultraedit,
  title={UltraEdit: Instruction-based Fine-Grained Image Editing at Scale},
  author={Zhao, Haozhe and Ma, Xiaojian and Chen, Liang and Si, Shuzheng and Wu, Rujie and An, Kaikai and Yu, Peiyu and
          Zhang, Minjia and Li, Qing and Chang, Baobao},
  booktitle={Advances in Neural Information Processing Systems},
  year={2024}
}"""
    BY_HAND = (
        "Put as many of data/FreeForm-*.parquet of https://huggingface.co/datasets/BleachNick/UltraEdit_500k there as "
        "you like, or of data/RegionBase-*.parquet of https://huggingface.co/datasets/BleachNick/"
        "UltraEdit_Region_Based_100k."
    )
    # About 500,000 and 100,000 rows; the pages round.
    SHARDS = {"train": ("data/FreeForm*.parquet", "data/RegionBase*.parquet")}
    COLUMNS = {
        "before": ("source_image",),
        "after": ("edited_image",),
        "text": ("edit_prompt",),
        "input": ("source_caption",),
        "output": ("target_caption",),
    }
    OPTIONAL = frozenset({"input", "output"})

    def row_pair(self, row: Row, row_id: str) -> RawPair:
        text = required_text(row["text"], "edit_prompt")
        known = {name: row[name] for name in ("input", "output") if row[name]}
        return RawPair(row_id, *self.row_images(row, row_id), [text], provenance=known)
