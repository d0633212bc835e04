"""Columns of the stages whose rows contain images; the rows of the others are JSON lines."""

import pyarrow as pa

# large: an ordinary column ends at 2 GiB, which candidates of 32 large photographs exceed
IMAGE = pa.struct({"bytes": pa.large_binary(), "path": pa.string()})

SOURCES = pa.schema(
    {
        "position": pa.int64(),
        "pair_id": pa.string(),
        "image": IMAGE,  # null where there is a problem
        "width": pa.int64(),  # as people see it: upright
        "height": pa.int64(),
        "captions": pa.list_(pa.string()),  # instructions of one edit
        "image_caption": pa.string(),
        "edited_caption": pa.string(),
        "change_type": pa.string(),
        "provenance": pa.string(),
        "problem": pa.string(),
    }
)
EDITS = pa.schema(
    {
        "position": pa.int64(),
        "candidates": pa.list_(
            pa.struct(
                {
                    "image": IMAGE,  # null where there is a problem
                    "made": pa.string(),  # JSON: seed, guidance
                    "problem": pa.string(),
                }
            )
        ),
        "editor": pa.string(),  # JSON: model, revision, settings, versions
        "problem": pa.string(),
    }
)
SCHEMAS = {"sources": SOURCES, "edits": EDITS}
