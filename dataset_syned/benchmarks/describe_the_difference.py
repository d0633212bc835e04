"""describe_the_difference: pairs of similar pictures with a description of what differs.

    python -m dataset_syned prepare describe_the_difference        # raw files in data/describe_the_difference

Only the number of rows, the name of the one split and those of its Parquet files have been seen, no column. This reads

    {"image_1": {"bytes": b".."}, "image_2": .., "caption": "the second picture has a boat"}

under these names or others that are usual, and `check` names the first that differs.
"""

from ..annotations import required_text
from ..pair_builder import Mirror
from ..pairs import RawPair
from ..parquet_pairs import ParquetPairs, Row

SOURCE = "taesiri/describe_the_difference"


class DescribeTheDifference(ParquetPairs):
    DESCRIPTION = "describe_the_difference: pairs of similar pictures, with a description of what differs."
    LICENSE = "none stated where it was looked for"
    HOMEPAGE = f"https://huggingface.co/datasets/{SOURCE}"
    CITATION = """@misc{taesiri2024describe,
  title={describe_the_difference},
  author={Taesiri, Mohammad Reza},
  howpublished={Hugging Face data set}
}"""
    MIRRORS = (Mirror(SOURCE, "refs/convert/parquet", ("default/training/*.parquet",)),)
    BY_HAND = f"Put default/training/*.parquet of the branch refs/convert/parquet of {HOMEPAGE} there."
    # About 8,780 rows; the page rounds.
    SHARDS = {"train": ("default/training/*.parquet", "data/train*.parquet")}
    COLUMNS = {
        "before": ("image_1", "image1", "first_image", "image_a", "source_image"),
        "after": ("image_2", "image2", "second_image", "image_b", "target_image"),
        "text": ("caption", "description", "difference", "text"),
    }

    def row_pair(self, row: Row, row_id: str) -> RawPair:
        return RawPair(row_id, *self.row_images(row, row_id), [required_text(row["text"], self.COLUMNS["text"][0])])
