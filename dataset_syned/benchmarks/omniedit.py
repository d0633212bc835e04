"""OmniEdit: photographs edited by models that each know one task, with several instructions per edit.

    python -m dataset_syned fetch omniedit && python -m dataset_syned prepare omniedit    # fetches validation only

A raw annotation is a row of a Parquet file (shortened; read in code of people who use it):

    {"omni_edit_id": "task_obj_remove_12", "task": "removal", "src_img": {"bytes": b".."}, "edited_img": ..,
     "edited_prompt_list": ["remove the dog", "take away the dog that sits on the stairs"], "sc_score_1": 9.0, ..}

All instructions are captions. Of the tasks `swap`, `env` and `attribute_modification` no single change type follows.
"""

from ..annotations import are_texts
from ..pair_builder import Mirror
from ..pairs import DataError, RawPair
from ..parquet_pairs import ParquetPairs, Row

SOURCE = "TIGER-Lab/OmniEdit-Filtered-1.2M"
# The authors' tasks that a change type names.
CHANGE_TYPES = {
    "addition": "add",
    "removal": "remove",
    "style": "style",
    "object_swap": "replace",
    "background_swap": "background",
}


class OmniEdit(ParquetPairs):
    DESCRIPTION = "OmniEdit: photographs edited by specialist models, with several instructions for each edit."
    LICENSE = "MIT (the collection; each photograph has its own)"
    HOMEPAGE = f"https://huggingface.co/datasets/{SOURCE}"
    CITATION = """@article{wei2024omniedit,
  title={OmniEdit: Building Image Editing Generalist Models Through Specialist Supervision},
  author={Wei, Cong and Xiong, Zheyang and Ren, Weiming and Du, Xinrun and Zhang, Ge and Chen, Wenhu},
  journal={arXiv preprint arXiv:2411.07199},
  year={2024}
}"""
    MIRRORS = (Mirror(SOURCE, "main", ("data/dev-*.parquet",)),)
    BY_HAND = f"Put data/dev-*.parquet of {HOMEPAGE} there, and as many of data/train-*.parquet (2.9 TB) as you like."
    EXPECTED = {"default": {"validation": 700}}  # about 1.2 million in train; the page rounds
    SHARDS = {"train": ("data/train-*.parquet",), "validation": ("data/dev-*.parquet",)}
    COLUMNS = {
        "id": ("omni_edit_id",),
        "task": ("task",),
        "before": ("src_img",),
        "after": ("edited_img",),
        "texts": ("edited_prompt_list",),
    }

    def row_pair(self, row: Row, row_id: str) -> RawPair:
        texts = [text.strip() for text in row["texts"] if text.strip()] if are_texts(row["texts"]) else []
        if not texts:
            raise DataError("no text in 'edited_prompt_list'")
        images, task = self.row_images(row, str(row["id"])), str(row["task"])
        return RawPair(str(row["id"]), *images, texts, CHANGE_TYPES.get(task, ""), {"task": task})
