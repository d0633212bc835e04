"""The one row that every benchmark yields, and the builder class that all of them share."""

import json
from typing import Any

import datasets

FEATURES = datasets.Features(
    {
        "pair_id": datasets.Value("string"),
        "before": datasets.Image(),
        "after": datasets.Image(),
        "captions": datasets.List(datasets.Value("string")),
        "kind": datasets.Value("string"),
        "provenance": datasets.Value("string"),  # JSON of how a pair was made; empty for hand-made sets
    }
)


def image_bytes(name: str, data: bytes) -> dict[str, Any]:
    """An image as rows hold it: the raw file under its base name, so that no path of this machine travels with it."""
    return {"path": name, "bytes": data}


def pair_row(
    pair_id: str,
    before: dict[str, Any],
    after: dict[str, Any],
    captions: list[str],
    kind: str = "",
    provenance: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "pair_id": pair_id,
        "before": before,
        "after": after,
        "captions": captions,
        "kind": kind,
        "provenance": json.dumps(provenance, sort_keys=True) if provenance else "",
    }


class PairBuilder(datasets.GeneratorBasedBuilder):
    """A `datasets` builder of FEATURES; a benchmark adds its splits and one generator."""

    DESCRIPTION = ""
    LICENSE = ""
    HOMEPAGE = ""
    CITATION = ""

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description=self.DESCRIPTION,
            features=FEATURES,
            homepage=self.HOMEPAGE,
            license=self.LICENSE,
            citation=self.CITATION,
        )
