"""Export rows to files that others read: Parquet with a card for the Hub, COCO references, CLEVR-Change's layout."""

import io
import json
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import DatasetCard, DatasetCardData
from PIL import Image

from common_idc.atomic_files import atomic_folder

from .pair_builder import PairBuilder
from .pairs import DataError, decode_image

TEMPLATE = Path(__file__).with_name("dataset_card.md")
MARK = "<!-- Made by `python -m dataset_syned`"  # at the head of the template's text
HUB_LICENSES = ("mit", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0")  # the Hub's names of those that occur


def export_parquet(
    builder: PairBuilder, splits: datasets.DatasetDict, folder: Path, max_shard_size: str = "500MB"
) -> None:
    """Write a folder that `load_dataset` and the Hub's viewer read: data/CONFIG/SPLIT-*.parquet and README.md.

    Args:
        splits: the prepared splits of the builder.
    """
    config = builder.config.name
    limit = datasets.utils.py_utils.convert_file_size_to_int(max_shard_size)
    with atomic_folder(folder) as unfinished:
        data = unfinished / "data" / config
        data.mkdir(parents=True)
        for split, rows in splits.items():
            shards = min(len(rows), -(-rows.data.nbytes // limit)) or 1
            for index in range(shards):
                part = rows.shard(num_shards=shards, index=index, contiguous=True)
                part.to_parquet(data / f"{split}-{index:05d}-of-{shards:05d}.parquet")
        write_card(builder, splits, unfinished)


def write_card(builder: PairBuilder, splits: datasets.DatasetDict, folder: Path) -> None:
    """Write README.md with the `configs:` that the Hub's viewer needs."""
    config = builder.config.name
    files = [{"split": split, "path": f"data/{config}/{split}-*.parquet"} for split in splits]
    data = DatasetCardData(configs=[{"config_name": config, "data_files": files, "default": True}])
    card = make_card(builder, data, {config: {split: len(rows) for split, rows in splits.items()}}, "PATH_OR_ID")
    (folder / "README.md").write_text(str(card), encoding="utf-8")


def make_card(
    builder: PairBuilder, data: DatasetCardData, counts: dict[str, dict[str, int]], place: str
) -> DatasetCard:
    """Return the card of a data set in Parquet, made of the builder's facts.

    Args:
        data: metadata that the card already has, which is kept.
        counts: pairs by config and split.
        place: what `load_dataset` takes.
    """
    facts = {
        "pretty_name": builder.dataset_name,
        "license": hub_license(builder.LICENSE),
        "task_categories": ["image-to-text"],
    }
    for name, value in facts.items():
        data[name] = data.get(name) or value
    data["tags"] = list(dict.fromkeys([*(data.get("tags") or []), "image-difference-captioning"]))
    data["size_categories"] = [size_category(max(sum(splits.values()) for splits in counts.values()))]
    return DatasetCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=builder.dataset_name,
        description=builder.DESCRIPTION,
        homepage=builder.HOMEPAGE,
        license_text=builder.LICENSE,
        citation=builder.CITATION,
        counts=counts,
        place=place,
        example=(builder.config.name, next(iter(counts[builder.config.name]))),
    )


def hub_license(stated: str) -> str:
    """Return the Hub's name of a licence."""
    if not stated or stated.startswith("none stated"):
        return "unknown"
    return stated.lower() if stated.lower() in HUB_LICENSES else "other"


def size_category(pairs: int) -> str:
    """Return the Hub's name for a number of rows."""
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for bound, name in bounds if pairs < bound), "1M<n<10M")


def coco_references(rows: datasets.Dataset) -> dict[str, Any]:
    """Return the references of a split as the field's scorers read them."""
    table = rows.select_columns(["pair_id", "captions"])
    annotations = [{"image_id": row["pair_id"], "caption": caption} for row in table for caption in row["captions"]]
    return {
        "info": {"description": "image difference captioning references"},
        "licenses": [],
        "type": "captions",
        "images": [{"id": pair_id, "filename": pair_id} for pair_id in table["pair_id"]],
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations)],
    }


def export_coco(splits: datasets.DatasetDict, folder: Path) -> None:
    """Write SPLIT.json per split."""
    with atomic_folder(folder) as unfinished:
        for split, rows in splits.items():
            text = json.dumps(coco_references(rows), ensure_ascii=False)
            (unfinished / f"{split}.json").write_text(text, encoding="utf-8")


def export_clevr(splits: datasets.DatasetDict, folder: Path) -> None:
    """Write the layout that change captioning code reads (that of CLEVR-DC in DIRL and NCT).

    images/NUMBER.png (before), sc_images/NUMBER.png (after), change_captions.json, splits.json, type_mapping.json, and
    pair_ids.json, which says which pair became which number.
    """
    captions, numbers, change_types, pair_ids = {}, {}, {}, {}
    with atomic_folder(folder) as unfinished:
        for name in ("images", "sc_images"):
            (unfinished / name).mkdir()
        for split, rows in splits.items():
            for row in rows.cast_column("before", datasets.Image(decode=False)).cast_column(
                "after", datasets.Image(decode=False)
            ):
                number = len(captions)
                name = f"{number:06d}.png"
                for side, images in (("before", "images"), ("after", "sc_images")):
                    try:
                        save_png(row[side]["bytes"], unfinished / images / name)
                    except ValueError as error:
                        raise DataError(f"pair {row['pair_id']!r}, {side} image: {error}") from error
                captions[name] = row["captions"]
                numbers.setdefault({"validation": "val"}.get(split, split), []).append(number)
                change_types.setdefault(row["change_type"] or "change", []).append(name)
                pair_ids[name] = row["pair_id"]
        for name, content in {
            "change_captions": captions,
            "splits": numbers,
            "type_mapping": change_types,
            "pair_ids": pair_ids,
        }.items():
            (unfinished / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def save_png(data: bytes, path: Path) -> None:
    """Write the image as the network sees it, as PNG; a file that is one already is copied."""
    with Image.open(io.BytesIO(data)) as image:
        as_it_is = image.format == "PNG" and image.mode == "RGB" and not image.has_transparency_data
    if as_it_is:
        path.write_bytes(data)
    else:
        decode_image(data).save(path)


EXPORTS = ("parquet", "coco", "clevr")


def export(
    builder: PairBuilder, splits: datasets.DatasetDict, folder: Path, format: str, max_shard_size: str = "500MB"
) -> None:
    """Write the prepared splits in one of EXPORTS.

    Args:
        folder: new or empty.
        max_shard_size: of a Parquet file.

    Raises: FileExistsError if the folder contains files; DataError for an image that cannot be read.
    """
    if format == "parquet":
        export_parquet(builder, splits, folder, max_shard_size)
    elif format == "coco":
        export_coco(splits, folder)
    else:
        export_clevr(splits, folder)
