"""DiffSpot: screenshots of web pages before and after one change of style, and pairs without any.

    python -m dataset_syned fetch diffspot && python -m dataset_syned prepare diffspot

A raw annotation is a row of test-00000-of-00001.parquet (shortened; read in the authors' code):

    {"id": "..", "image_before": {"bytes": b".."}, "image_after": .., "task_type": "visual_diff", "difficulty": "easy",
     "domain": "finance", "mutation_dicts_json": ['{"type": "font_size", ..}'], "ground_truth_diff": "The caption .."}

`task_type` "no_diff" are 500 renderings of one page twice: they have no sentence and get a fixed one. Their own score,
by a judge, counts a changed pair as found only if the change is described correctly, and an unchanged pair only if
nothing is invented.
"""

from typing import Any

from ..annotations import NO_CHANGE_CAPTION, json_object, required_text
from ..pair_builder import Mirror
from ..pairs import NO_CHANGE, RawPair
from ..parquet_pairs import ParquetPairs, Row

SOURCE = "tencent/DiffSpot"
UNCHANGED = "no_diff"
# The authors' operators that a change type names; the others, e.g. of fonts and borders, are "local".
CHANGE_TYPES = {"text": "text", "color": "color", "gradient": "color", "position": "move"}


def read_changes(cells: Any) -> list[dict[str, Any]]:
    """Return the structured descriptions of what was changed. Raises: DataError if one is not a JSON object."""
    return [json_object(cell.encode()) for cell in cells or []]


class DiffSpot(ParquetPairs):
    DESCRIPTION = "DiffSpot: screenshots of web pages that differ by one change of style, or not at all."
    LICENSE = "MIT (the authors' data card says CC-BY-NC-4.0)"
    HOMEPAGE = "https://github.com/Tencent/DiffSpot"
    CITATION = """@misc{zhang2026diffspot,
  title={DiffSpot: Can VLMs Spot Fine-Grained Visual Differences in Web Interfaces?},
  author={Zhang, Linhao and Liu, Aiwei and Liu, Yuan and Zhou, Xiao},
  year={2026},
  eprint={2605.29615},
  archivePrefix={arXiv}
}"""
    MIRRORS = (Mirror(SOURCE, "main", ("test-*.parquet",)),)
    BY_HAND = f"Put test-00000-of-00001.parquet (532 MB) of https://huggingface.co/datasets/{SOURCE} there."
    EXPECTED = {"default": {"test": 4400}}
    SHARDS = {"test": ("test-*.parquet", "data/test-*.parquet")}
    COLUMNS = {
        "id": ("id",),
        "before": ("image_before",),
        "after": ("image_after",),
        "task": ("task_type",),
        "difficulty": ("difficulty",),
        "domain": ("domain",),
        "changes": ("mutation_dicts_json",),
        "text": ("ground_truth_diff",),
    }

    def row_pair(self, row: Row, row_id: str) -> RawPair:
        pair_id = str(row["id"])
        images = self.row_images(row, pair_id)
        # 28 unchanged pairs have the difficulty "unknown", so the task decides.
        if row["task"] == UNCHANGED:
            provenance = {"difficulty": UNCHANGED, "domain": row["domain"]}
            return RawPair(pair_id, *images, [NO_CHANGE_CAPTION], NO_CHANGE, provenance)
        changes = read_changes(row["changes"])
        operator = str(changes[0]["type"]) if changes else ""
        provenance = {"difficulty": row["difficulty"], "domain": row["domain"], "operator": operator}
        caption = required_text(row["text"], "ground_truth_diff")
        change_type = CHANGE_TYPES.get(operator, "local") if operator else ""
        return RawPair(pair_id, *images, [caption], change_type, provenance | {"changes": changes})
