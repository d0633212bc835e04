"""Write rows for other programs.

Parquet with a card for the Hub, COCO references, the CLEVR-Change layout, and conversations for trainers of
vision-language models.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import DatasetCard, DatasetCardData

from common_idc.atomic_files import atomic_folder, named_errors, write_json, write_text

from .pair_builder import PairBuilder
from .pairs import DataError, decode_image
from .preparing import undecoded

TEMPLATE = Path(__file__).with_name("dataset_card.md")
MARK = "<!-- Made by `python -m dataset_syned`"  # begins the template's text
HUB_LICENSES = ("mit", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0")  # as the Hub writes them
SIDES = ("before", "after")
PROMPT = "What changed between the two images?"
PLACEHOLDERS = ("<image>", "<video>", "<audio>")  # LLaMA-Factory and ms-swift put a file in place of each
TURNS = [
    {"role": datasets.Value("string"), "content": [{name: datasets.Value("string") for name in ("type", "text")}]}
]
PROMPT_COMPLETION = datasets.Features({"prompt": TURNS, "completion": TURNS, "images": [datasets.Image()]})
ROW_GROUP = 32_000_000  # bytes of images, counted once per caption


def export_parquet(
    builder: PairBuilder, splits: datasets.DatasetDict, folder: Path, max_shard_size: str = "500MB"
) -> None:
    """Write a folder that `load_dataset` and the Hub's viewer read: data/CONFIG/SPLIT-*.parquet and README.md.

    Args:
        splits: the prepared splits of the builder.
    """
    with atomic_folder(folder) as unfinished:
        for file, rows in shards(splits, unfinished / "data" / builder.config.name, max_shard_size):
            with named_errors(file):
                rows.to_parquet(file)
        write_card(builder, splits, unfinished)


def shards(splits: datasets.DatasetDict, folder: Path, max_shard_size: str) -> Iterator[tuple[Path, datasets.Dataset]]:
    """Yield each Parquet file of a new folder, with its rows: at most `max_shard_size` of them, or one."""
    limit = datasets.utils.py_utils.convert_file_size_to_int(max_shard_size)
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        count = min(len(rows), -(-rows.data.nbytes // limit)) or 1
        for index in range(count):
            file = folder / f"{split}-{index:05d}-of-{count:05d}.parquet"
            yield file, rows.shard(num_shards=count, index=index, contiguous=True)


def stored_rows(rows: datasets.Dataset, name: str) -> Iterator[dict[str, Any]]:
    """Yield rows with image files as they are stored; a progress bar shows `name`."""
    yield from datasets.utils.tqdm(undecoded(rows), desc=name, unit=" pairs")


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
        description=builder.info.description,
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
    with atomic_folder(folder) as unfinished:
        for name in ("images", "sc_images"):
            (unfinished / name).mkdir()
        for split, rows in splits.items():
            for row in stored_rows(rows, split):
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
        with named_errors(path):
            decode_image(row[side]).save(path)
    except DataError as error:
        raise DataError(f"pair {row['pair_id']!r}: {error}") from error


def export_messages(builder: PairBuilder, splits: datasets.DatasetDict, folder: Path, prompt: str = PROMPT) -> None:
    """Write conversations that TRL, ms-swift and LLaMA-Factory read: SPLIT.jsonl with one line for each caption.

    images/SPLIT/NUMBER-before.* and -after.* are the raw image files. TRL and ms-swift read `messages` and `images`.
    LLaMA-Factory needs the text `<image>` for each image, but TRL adds its own and would find four in `messages`:
    for LLaMA-Factory, dataset_info.json names `instruction` and `output` instead.

    Raises: DataError for a text that contains such a placeholder.
    """
    check_prompt(prompt)
    columns = {"prompt": "instruction", "response": "output", "images": "images"}
    with atomic_folder(folder) as unfinished:
        for split, rows in splits.items():
            (unfinished / "images" / split).mkdir(parents=True)
            file = unfinished / f"{split}.jsonl"
            with named_errors(file), file.open("w", encoding="utf-8", newline="\n") as lines:
                for number, row in enumerate(stored_rows(rows, split)):
                    images = [save_raw(row[side], unfinished, f"images/{split}/{number:06d}-{side}") for side in SIDES]
                    for record in message_records(row, images, prompt):
                        lines.write(json.dumps(record, ensure_ascii=False) + "\n")
        info = {
            f"{builder.dataset_name}_{split}": {"file_name": f"{split}.jsonl", "columns": columns} for split in splits
        }
        write_json(unfinished / "dataset_info.json", info)


def message_records(row: dict[str, Any], images: list[str], prompt: str) -> Iterator[dict[str, Any]]:
    """Yield what `export_messages` writes for each caption of a row."""
    for question, answer in conversations(row, prompt):
        yield {
            "pair_id": row["pair_id"],
            "messages": [question, answer],
            "images": images,
            "instruction": "<image>" * len(images) + prompt,
            "output": answer["content"][0]["text"],
        }


def conversations(row: dict[str, Any], prompt: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the question and the answer for each caption of a row, as turns of a chat.

    Raises: DataError for a caption that contains one of PLACEHOLDERS.
    """
    question = [*({"type": "image"} for _ in SIDES), {"type": "text", "text": prompt}]
    for caption in row["captions"]:
        check_placeholders(f"pair {row['pair_id']!r}: caption", caption)
        answer = [{"type": "text", "text": caption}]
        yield {"role": "user", "content": question}, {"role": "assistant", "content": answer}


def check_prompt(prompt: str) -> None:
    """Raise DataError for a prompt without text, or with one of PLACEHOLDERS."""
    if not prompt.strip():
        raise DataError("the prompt is empty: write the question that the captions answer")
    check_placeholders("prompt", prompt)


def check_placeholders(name: str, text: str) -> None:
    """Raise DataError for a text with one of PLACEHOLDERS, because trainers would miss a file for it."""
    for placeholder in PLACEHOLDERS:
        if placeholder in text:
            raise DataError(f"{name} {text!r} contains {placeholder!r}, which trainers replace with a file: remove it")


def save_raw(image: dict[str, Any], folder: Path, name: str) -> str:
    """Write an image file as it is stored; return its name in `folder`, with its own suffix."""
    name += Path(image["path"]).suffix
    path = folder / name
    with named_errors(path):
        path.write_bytes(image["bytes"])
    return name


def export_prompt_completion(
    splits: datasets.DatasetDict, folder: Path, prompt: str = PROMPT, max_shard_size: str = "500MB"
) -> None:
    """Write conversations for TRL, one row for each caption, that `load_dataset` reads: data/SPLIT-*.parquet.

    Raises: DataError for a text that contains one of PLACEHOLDERS.
    """
    check_prompt(prompt)
    with atomic_folder(folder) as unfinished:
        for file, rows in shards(splits, unfinished / "data", max_shard_size):
            with named_errors(file):
                write_prompt_completion(rows, file, prompt)


def write_prompt_completion(rows: datasets.Dataset, file: Path, prompt: str) -> None:
    """Write the Parquet file of some rows.

    A dictionary in each row group keeps every image once, though each caption repeats it.
    """
    schema, records, size = PROMPT_COMPLETION.arrow_schema, [], 0
    with pq.ParquetWriter(file, schema, dictionary_pagesize_limit=2**30) as writer:
        for row in stored_rows(rows, file.name):
            images = [row[side] for side in SIDES]
            for question, answer in conversations(row, prompt):
                records.append({"prompt": [question], "completion": [answer], "images": images})
                size += sum(len(image["bytes"]) for image in images)
            if size > ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(records, schema))
                records, size = [], 0
        if records:
            writer.write_table(pa.Table.from_pylist(records, schema))


def export(
    builder: PairBuilder,
    splits: datasets.DatasetDict,
    folder: Path,
    form: str,
    max_shard_size: str,
    prompt: str = PROMPT,
) -> None:
    """Write the splits in one of the forms "parquet", "coco", "clevr", "messages" and "prompt_completion"."""
    if form == "parquet":
        export_parquet(builder, splits, folder, max_shard_size)
    elif form == "coco":
        export_coco(splits, folder)
    elif form == "clevr":
        export_clevr(splits, folder)
    elif form == "messages":
        export_messages(builder, splits, folder, prompt)
    else:
        export_prompt_completion(splits, folder, prompt, max_shard_size)
