"""Write rows for other programs: Parquet with a card for the Hub, COCO references, and the CLEVR-Change layout."""

from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import DatasetCard, DatasetCardData

from common_idc.atomic_files import atomic_folder, write_json, write_text

from .pair_builder import PairBuilder
from .pairs import DataError, decode_image

TEMPLATE = Path(__file__).with_name("dataset_card.md")
MARK = "<!-- Made by `python -m dataset_syned`"  # begins the template's text
HUB_LICENSES = ("mit", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0")  # as the Hub writes them


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
    write_text(folder / "README.md", str(card))


def make_card(
    builder: PairBuilder, data: DatasetCardData, counts: dict[str, dict[str, int]], place: str
) -> DatasetCard:
    """Return the card of a data set in Parquet, with the builder's facts.

    Args:
        data: the metadata of the existing card, which stays.
        counts: pairs by config and split.
        place: the folder or Hub id for `load_dataset`.
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
    """Return the Hub's name for a licence."""
    if not stated or stated.startswith("none stated"):
        return "unknown"
    return stated.lower() if stated.lower() in HUB_LICENSES else "other"


def size_category(pairs: int) -> str:
    """Return the Hub's name for a number of rows."""
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for bound, name in bounds if pairs < bound), "1M<n<10M")


def coco_references(rows: datasets.Dataset) -> dict[str, Any]:
    """Return the references of a split as the COCO caption scorers read them."""
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
    """Write SPLIT.json for each split."""
    with atomic_folder(folder) as unfinished:
        for split, rows in splits.items():
            write_json(unfinished / f"{split}.json", coco_references(rows))


def export_clevr(splits: datasets.DatasetDict, folder: Path) -> None:
    """Write the layout that change captioning code reads (that of CLEVR-DC in DIRL and NCT).

    images/NUMBER.png (before), sc_images/NUMBER.png (after), change_captions.json, splits.json, type_mapping.json
    (change type -> names, "change" where the type is unknown), and pair_ids.json (name -> pair_id).

    Raises: DataError that names the pair and the image that cannot be decoded.
    """
    captions, numbers, change_types, pair_ids = {}, {}, {}, {}
    raw = datasets.Image(decode=False)
    with atomic_folder(folder) as unfinished:
        for name in ("images", "sc_images"):
            (unfinished / name).mkdir()
        for split, rows in splits.items():
            for row in rows.cast_column("before", raw).cast_column("after", raw):
                number = len(captions)
                name = f"{number:06d}.png"
                save_png(row, "before", unfinished / "images" / name)
                save_png(row, "after", unfinished / "sc_images" / name)
                captions[name] = row["captions"]
                numbers.setdefault({"validation": "val"}.get(split, split), []).append(number)
                change_types.setdefault(row["change_type"] or "change", []).append(name)
                pair_ids[name] = row["pair_id"]
        write_json(unfinished / "change_captions.json", captions)
        write_json(unfinished / "splits.json", numbers)
        write_json(unfinished / "type_mapping.json", change_types)
        write_json(unfinished / "pair_ids.json", pair_ids)


def save_png(row: dict[str, Any], side: str, path: Path) -> None:
    """Write one image of a row as RGB PNG, as training would see it."""
    try:
        decode_image(row[side]).save(path)
    except DataError as error:
        raise DataError(f"pair {row['pair_id']!r}: {error}") from error


def export(builder: PairBuilder, splits: datasets.DatasetDict, folder: Path, form: str, max_shard_size: str) -> None:
    """Write the splits in one of the forms "parquet", "coco" and "clevr"."""
    if form == "parquet":
        export_parquet(builder, splits, folder, max_shard_size)
    elif form == "coco":
        export_coco(splits, folder)
    else:
        export_clevr(splits, folder)
