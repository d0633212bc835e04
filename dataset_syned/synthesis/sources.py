"""Where images and instructions come from: a benchmark's before images, or a folder of images with metadata.jsonl."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from common_idc.atomic_files import write_text

from ..annotations import inside, json_object, numbered_lines
from ..pairs import (
    CHANGE_TYPES,
    NO_CHANGE,
    DataError,
    ImageSource,
    RawPair,
    read_image,
)
from ..preparing import benchmark_builder
from .settings import SynthesisConfig
from .shards import Row, Share, StageFolder

LEAST_SIDE, MOST_ASPECT = 32, 8  # outside of these, an editor of photographs cannot use an image


@dataclass(frozen=True)
class Source:
    """An image to edit, before its file is read."""

    pair_id: str
    image: ImageSource
    captions: list[str] = field(default_factory=list)
    image_caption: str = ""
    edited_caption: str = ""
    change_type: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)


def benchmark_source(pair: RawPair) -> Source:
    """Return a pair's before image as a source, with the captions that it was generated from, if any."""
    made = {name: str(pair.provenance.get(name) or "") for name in ("input", "output")}
    return Source(
        pair.pair_id, pair.before, pair.captions, made["input"], made["output"], pair.change_type, pair.provenance
    )


def benchmark_sources(config: SynthesisConfig) -> Iterator[Source]:
    options = dict(config.benchmark_options)
    root = options.pop("data_dir", None)
    builder = benchmark_builder(config.benchmark, options.pop("config", None), root and Path(str(root)), **options)
    if config.split not in builder.raw_splits():
        raise ValueError(
            f"benchmark {config.benchmark!r} has no split {config.split!r}, it has: {', '.join(builder.raw_splits())}"
        )
    # An unchanged pair asks for no edit.
    return (benchmark_source(pair) for pair in builder.raw_pairs(config.split) if pair.change_type != NO_CHANGE)


def text_of(row: Row, name: str, place: str) -> str:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{place}: {name}={value!r}, which should be a text")
    try:
        (value or "").encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{place}: {name} is not valid Unicode ({error.reason})") from error
    return value or ""


def folder_sources(folder: Path) -> Iterator[Source]:
    path = folder / "metadata.jsonl"
    if not path.is_file():
        raise DataError(f"{str(path)!r} is missing: one line per image, {{file_name, instruction}}")
    seen: set[int] = set()
    for place, (number, line) in numbered_lines(path):
        try:
            row = json_object(line)
        except DataError as error:
            raise DataError(f"{place}: {error}") from error
        name = text_of(row, "file_name", place)
        if not name:
            raise DataError(f"{place}: no text in field 'file_name'")
        pair_id = text_of(row, "pair_id", place) or f"{number:06d}"
        if hash(pair_id) in seen:
            raise DataError(f"{place}: duplicate pair_id {pair_id!r}")
        seen.add(hash(pair_id))
        texts = {key: text_of(row, key, place) for key in ("instruction", "caption", "edited_caption", "change_type")}
        # An empty instruction is reported, not written by the chat model.
        if texts["change_type"] not in ("", *CHANGE_TYPES):
            raise DataError(
                f"{place}: unknown change_type {texts['change_type']!r}: use one of {', '.join(CHANGE_TYPES)}, or none"
            )
        captions = [texts["instruction"]] if row.get("instruction") is not None else []
        provenance = {"file_name": name}
        yield Source(
            pair_id,
            inside(folder, name),
            captions,
            texts["caption"],
            texts["edited_caption"],
            texts["change_type"],
            provenance,
        )


def all_sources(config: SynthesisConfig) -> Iterator[Source]:
    sources = benchmark_sources(config) if config.benchmark else folder_sources(Path(config.image_folder))
    return islice(sources, config.pairs)


def size_problem(width: int, height: int) -> str:
    if min(width, height) < LEAST_SIDE:
        return f"image of {width}x{height} pixels: needs at least {LEAST_SIDE} on each side"
    if max(width, height) > MOST_ASPECT * min(width, height):
        return f"image of {width}x{height} pixels: longer than {MOST_ASPECT} times its other side"
    return ""


def read_source(source: Source, position: int) -> Row:
    """Return the row of a source, with the raw bytes of its image if it can be decoded."""
    width = height = None
    try:
        image, picture = read_image(source.image)
        width, height = picture.size
        problem = size_problem(width, height)
    except (DataError, OSError, ValueError) as error:
        image, problem = None, str(error)
    return {
        "position": position,
        "pair_id": source.pair_id,
        "image": None if problem else image,
        "width": width,
        "height": height,
        "captions": source.captions,
        "image_caption": source.image_caption,
        "edited_caption": source.edited_caption,
        "change_type": source.change_type,
        "provenance": json.dumps(source.provenance, sort_keys=True, ensure_ascii=False),
        "problem": problem,
    }


def count_file(folder: StageFolder) -> Path:
    return folder.folder / "pairs.json"


def count_pairs(folder: StageFolder) -> int | None:
    """Return the number of pairs, or None before all are listed."""
    path = count_file(folder)
    return json.loads(path.read_text())["pairs"] if path.is_file() else None


def write_sources(config: SynthesisConfig, folder: StageFolder, share: Share) -> int:
    """Write this process's shards of the sources, reading no other images; return the number of all pairs."""
    total = count_pairs(folder)
    if total is not None and all(
        folder.has(shard) for shard in range(-(-total // config.shard_pairs)) if shard in share
    ):
        return total
    folder.sweep(share)
    sources, total = all_sources(config), 0
    while chunk := list(islice(sources, config.shard_pairs)):
        shard = total // config.shard_pairs
        total += len(chunk)
        if shard in share and not folder.has(shard):
            folder.write_whole(shard, [read_source(source, position) for position, source in enumerate(chunk)])
    if not total:
        raise ValueError(f"no pair in {config.benchmark or config.image_folder!r} that asks for an edit")
    write_text(count_file(folder), json.dumps({"pairs": total}))
    return total
