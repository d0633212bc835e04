"""SPOT-THE-SHIFT: photographs of one street, years apart, with what was built, removed or altered, or with nothing.

    python -m dataset_syned prepare spot_the_shift        # raw files in data/spot_the_shift, see BY_HAND

No file of the set has been seen. From its paper: a pair has a list of changes, each with the thing (`type`), what
happened (`action`: added, removed or modified) and the place (`location`); pairs without one are distractors. This
reads Parquet files, into which the Hub turns any set, with these columns, and `check` names the first that differs:

    {"image_1": {"bytes": b".."}, "image_2": .., "changes": [{"type": "stop sign", "action": "removed",
     "location": "at the corner"}]}

Boxes and masks are not read. Each change is a reference, in the paper's short form ("stop sign removed").
"""

from typing import Any

from ..annotations import NO_CHANGE_CAPTION, required_text
from ..pairs import NO_CHANGE, RawPair
from ..parquet_pairs import ParquetPairs, Row

ACTIONS = {"added": "add", "removed": "remove", "modified": "change"}  # the paper's word -> that of our units
CHANGE_TYPES = {"add": "add", "remove": "remove", "change": "local"}


def read_unit(change: dict[str, Any]) -> dict[str, str]:
    """Return a change as thing, action and place. Raises: ValueError for an unknown action."""
    if change["action"] not in ACTIONS:
        raise ValueError(f"action={change['action']!r}, use one of {', '.join(ACTIONS)}")
    place = change.get("location") or ""
    return {"thing": required_text(change["type"], "type"), "action": ACTIONS[change["action"]], "place": place}


def change_type_of(units: list[dict[str, str]]) -> str:
    """Return the change type of all units."""
    found = {CHANGE_TYPES[unit["action"]] for unit in units}
    return found.pop() if len(found) == 1 else "multiple" if found else NO_CHANGE


class SpotTheShift(ParquetPairs):
    DESCRIPTION = "SPOT-THE-SHIFT: photographs of streets in 15 cities, years apart, with each lasting change."
    LICENSE = "CC-BY-SA-4.0 (the photographs, of Mapillary); none seen for the annotations"
    HOMEPAGE = "https://github.com/bliberatori/Spot-the-shift"
    CITATION = """@misc{liberatori2026spot,
  title={Spot-the-shift: Evaluating Grounded Image Difference Captioning of Long-term Changes},
  author={Liberatori, Benedetta and Samet, Nermin and Rota, Paolo and Cord, Matthieu and Ricci, Elisa and
          Bursuc, Andrei and Wysocza{\\'n}ska, Monika},
  year={2026},
  eprint={2609.10356},
  archivePrefix={arXiv}
}"""
    BY_HAND = (
        "Put the Parquet files of https://huggingface.co/datasets/benedettaliberatori/spot-the-shift there, of its "
        "branch refs/convert/parquet if its main branch has none."
    )
    EXPECTED = {"default": {"test": 939}}
    SHARDS = {"test": ("data/*.parquet", "default/*/*.parquet", "*.parquet")}
    COLUMNS = {
        "before": ("image_1", "image1", "before"),
        "after": ("image_2", "image2", "after"),
        "changes": ("changes", "difference_units", "units"),
        "id": ("id", "pair_id"),
    }
    OPTIONAL = frozenset({"id"})

    def row_pair(self, row: Row, row_id: str) -> RawPair:
        pair_id = row_id if row["id"] is None else str(row["id"])
        changes = row["changes"] or []
        units = [read_unit(change) for change in changes]
        captions = [f"{change['type']} {change['action']}" for change in changes] or [NO_CHANGE_CAPTION]
        images = self.row_images(row, pair_id)
        return RawPair(pair_id, *images, captions, change_type_of(units), {"units": units} if units else {})
