"""The two protocols: "standard", and "paper", which repeats what BLIP2IDC's published evaluation did.

"standard" scores the rows as they are. "paper" drops the pairs of the last incomplete batch; and if a prediction and
one of its references are both in a fixed list of sentences that deny a change, it replaces the prediction by a random
reference. The gain depends on the references. With half the pairs unchanged and nine in ten of them answered by
one correct sentence it was 3 points of CIDEr with LEVIR-CC's references, which are the same five for each such pair,
but 73 points with five references per pair drawn from the list.
"""

import random
from typing import Any

PROTOCOLS = ("standard", "paper")
# The list in BLIP2IDC's evaluation code, with its spelling: CLEVR-Change's sentences for unchanged pairs.
NO_CHANGE_SENTENCES = (
    "the scene remains the same",
    "nothing has changed",
    "nothing was modified",
    "the two scenes seem identical",
    "the scene is the same as before",
    "no change was made",
    "no change has occured",
    "there is no change",
)


def apply_protocol(
    rows: list[dict[str, Any]], protocol: str, batch_size: int, seed: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows to score, and the signature's entries about the protocol.

    Raises: ValueError for an unknown protocol, or if it drops all pairs.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; choose from {list(PROTOCOLS)}")
    if protocol == "standard":
        return rows, {"protocol": protocol}
    if batch_size < 1:
        raise ValueError(f"paper_batch_size must be at least 1, got {batch_size}")
    kept = rows[: len(rows) // batch_size * batch_size]
    if not kept:
        raise ValueError(
            f"the paper protocol drops the last incomplete batch, which is all of these {len(rows)} pairs at "
            f"paper_batch_size={batch_size}; give a smaller one or use the protocol 'standard'"
        )
    rewritten = [_rewritten(row, seed) for row in kept]
    changed = sum(old["prediction"] != new["prediction"] for old, new in zip(kept, rewritten, strict=True))
    return rewritten, {
        "protocol": protocol,
        "paper_protocol": {
            "batch_size": batch_size,
            "pairs_dropped": len(rows) - len(kept),
            "predictions_replaced_by_references": changed,
            "controls": "scored as they are, none replaced",
            "seed": seed,
        },
    }


def _rewritten(row: dict[str, Any], seed: int) -> dict[str, Any]:
    listed = [_plain(text) in NO_CHANGE_SENTENCES for text in (row["prediction"], *row["references"])]
    if not (listed[0] and any(listed[1:])):
        return row
    # seeded per pair, so that the draw does not depend on the other rows
    return row | {"prediction": random.Random(f"{seed}-{row['pair_id']}").choice(row["references"])}


def _plain(sentence: str) -> str:
    return " ".join(sentence.lower().split()).strip(" .")
