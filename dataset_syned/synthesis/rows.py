"""Sixth stage: the data set folder, with no-change pairs among the others and every pair's provenance.

DIR/dataset/metadata.jsonl, images/    the benchmark `folder` reads it; further edits of `syned`, where it was made
                                       from that benchmark's train images, lie in its folder `edits` like this
DIR/dataset/README.md                  card
DIR/statistics.json, problems.jsonl    what happened to the pairs; every pair that failed, with its reason
DIR/contact_sheet.png                  random accepted and rejected pairs
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common_idc.atomic_files import write_atomically
from common_idc.provenance import library_versions

from ..pairs import NO_CHANGE, decode_image
from .no_change import ALTERATIONS, captions, wanted
from .settings import SynthesisConfig
from .shards import Row, ShardReader, StageFolder, seed_of

DATASET, METADATA = "dataset", "metadata.jsonl"
SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"GI": ".gif", b"RI": ".webp", b"II": ".tif", b"MM": ".tif"}


def suffix(data: bytes) -> str:
    return SUFFIXES.get(data[:2], ".img")


def write_image(root: Path, name: str, data: bytes) -> str:
    write_atomically(root / name, lambda unfinished: unfinished.write_bytes(data))
    return name


def line(pair_id: str, names: tuple[str, str], texts: list[str], change_type: str, provenance: dict[str, Any]) -> Row:
    """Return an entry of metadata.jsonl."""
    before, after = names
    entry = {
        "pair_id": pair_id,
        "before_file_name": before,
        "after_file_name": after,
        "captions": texts,
        "change_type": change_type,
        "provenance": provenance,
    }
    idx = provenance["source"].get("idx")
    return entry | ({"idx": idx, "file_name": after} if type(idx) is int else {})


def alter(image: Row, name: str, seed: int) -> tuple[bytes, dict[str, Any]]:
    """Return an image after one of ALTERATIONS, and what made it."""
    data = ALTERATIONS[name](decode_image(image), random.Random(seed))
    return data, {"alteration": name, "seed": seed, "versions": library_versions("pillow")}


def image_after(config: SynthesisConfig, inputs: dict[str, Row], number: int) -> tuple[bytes, dict[str, Any]]:
    """Return the image after of an accepted candidate, and the distractor in it, {} if there is none."""
    image = inputs["edits"]["candidates"][number]["image"]
    if not config.distractors:
        return image["bytes"], {}
    seed = seed_of(config.seed, inputs["sources"]["pair_id"], number, "distractor")
    return alter(image, random.Random(seed).choice(list(ALTERATIONS)), seed)


class Rows:
    """Last stage: the images of a shard as files, and its lines of metadata.jsonl."""

    def __init__(self, config: SynthesisConfig, root: Path):
        self.config, self.root = config, root

    def of_shard(self, shard: int, reader: ShardReader) -> list[Row]:
        lines, readable = [], []
        for position in range(len(reader)):
            (inputs,) = reader.pairs([position])
            lines += self.edited(shard, inputs)
            if not inputs["sources"]["problem"]:
                readable.append(position)
        return lines + self.unchanged(shard, readable, len(lines), reader)

    def before(self, shard: int, source: Row) -> str:
        data = source["image"]["bytes"]
        return write_image(self.root, f"images/{shard:05d}/{source['position']:04d}-before{suffix(data)}", data)

    def source(self, inputs: dict[str, Row]) -> dict[str, Any]:
        return {**json.loads(inputs["sources"]["provenance"]), "pair_id": inputs["sources"]["pair_id"]}

    def edited(self, shard: int, inputs: dict[str, Row]) -> Iterator[Row]:
        if inputs["paraphrases"]["problem"]:
            return
        source = inputs["sources"]
        before = self.before(shard, source)
        for rank, number in enumerate(inputs["selection"]["kept"], start=1):
            pair_id = f"{source['pair_id']}-{rank}"
            data, distractor = image_after(self.config, inputs, number)
            after_name = f"images/{shard:05d}/{source['position']:04d}-after-{rank}{suffix(data)}"
            after = write_image(self.root, after_name, data)
            provenance = self.provenance(inputs, number) | ({"distractor": distractor} if distractor else {})
            yield line(pair_id, (before, after), inputs["paraphrases"]["captions"], source["change_type"], provenance)

    def provenance(self, inputs: dict[str, Row], number: int) -> dict[str, Any]:
        row = inputs["instructions"]
        return {
            "source": self.source(inputs),
            "instruction": row["instruction"],
            "editor": json.loads(inputs["edits"]["editor"]),
            "candidate": {"number": number, **json.loads(inputs["edits"]["candidates"][number]["made"])},
            "scores": inputs["scores"]["scores"][number],
            "models": {**inputs["scores"]["models"], **inputs["paraphrases"]["models"]},
            **({"instruction_by": row["writer"]} if row["writer"] else {}),
            "seed": self.config.seed,
        }

    def unchanged(self, shard: int, readable: list[int], changed: int, reader: ShardReader) -> list[Row]:
        """Return no-change pairs of readable sources, as many as their share requires next to `changed` others."""
        rng = random.Random(seed_of(self.config.seed, "no_change", shard))
        possible = [(position, name) for position in readable for name in ALTERATIONS]
        rng.shuffle(possible)
        return [
            self.altered(shard, reader.pairs([position])[0], name)
            for position, name in possible[: wanted(changed, self.config.no_change_share, rng)]
        ]

    def altered(self, shard: int, inputs: dict[str, Row], name: str) -> Row:
        source = inputs["sources"]
        data, made = alter(source["image"], name, seed_of(self.config.seed, source["pair_id"], name))
        after_name = f"images/{shard:05d}/{source['position']:04d}-none-{name}{suffix(data)}"
        names = self.before(shard, source), write_image(self.root, after_name, data)
        chance = random.Random(seed_of(self.config.seed, source["pair_id"], name, "captions"))
        texts = captions(self.config.no_change_sentences, 1 + self.config.paraphrases, chance)
        provenance = {"source": self.source(inputs), "no_change": made}
        return line(f"{source['pair_id']}-none-{name}", names, texts, NO_CHANGE, provenance)


def join_lines(folder: StageFolder, shards: list[int], path: Path) -> None:
    """Write metadata.jsonl of all shards; it comes last, because a folder without it is not a data set."""

    def write(unfinished: Path) -> None:
        with unfinished.open("w", encoding="utf-8") as file:
            for shard in shards:
                for row in folder.read(shard):
                    file.write(json.dumps(row["line"], ensure_ascii=False, sort_keys=True) + "\n")

    write_atomically(path, write)
