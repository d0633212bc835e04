"""Two images in, one sentence out: from Python and from the command line.

python -m captioner_idc.captioning before.png after.png --model DIR_OR_ID
python -m captioner_idc.captioning --pairs pairs.csv --model DIR_OR_ID --output predictions.jsonl
"""

import argparse
import contextlib
import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.utils import logging as hub_logging
from PIL import Image
from tqdm import tqdm
from transformers import AutoConfig, AutoProcessor
from transformers.utils import find_adapter_config_file, logging

from modeling_blip2idc import Blip2IdcForConditionalGeneration, Blip2IdcProcessor, ImageError, load_image
from modeling_blip2idc.processing_blip2idc import load_named_image, settings_of_model

from .adapters import load_adapter

DEFAULT_MODEL = "gautierevn/blip2idc"

Pair = tuple[Any, Any]  # before, after: whatever the processor accepts as an image


class CommandError(Exception):
    """What the user can put right; `main` prints it as one line."""


def load(
    model_id_or_dir: str | os.PathLike,
    adapter: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    adapter_revision: str | None = None,
) -> tuple[Any, Blip2IdcProcessor]:
    """Model and processor from a folder or Hub id: ours, a plain BLIP-2, or an adapter, which names its base itself.

    With an adapter the model is a `PeftModel`. Processor files beside the adapter win over the base's: they say what
    the network saw in training. The dtype is bfloat16 on a GPU and float32 elsewhere unless given.

    Args:
        revision: of `model_id_or_dir` on the Hub; `adapter_revision` of `adapter`.
    """
    _check_place(str(model_id_or_dir))
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    base, adapter = str(model_id_or_dir), None if adapter is None else str(adapter)
    config_file = find_adapter_config_file(base, revision=revision)
    if config_file is not None:
        if adapter is None:
            adapter, adapter_revision = base, revision
        base, revision = _base_of_adapter(config_file)
    try:
        model = _load_base(base, dtype, revision)
    except OSError as error:
        if config_file is None:
            raise
        raise OSError(
            f"{config_file!r} names the base model {base!r}, which is neither a folder (relative paths start at "
            f"{os.getcwd()!r}) nor a Hub model at hand: change the directory, or pass base and adapter both."
        ) from error
    if adapter is not None and _holds_processor(adapter, adapter_revision):
        processor = _load_processor(adapter, adapter_revision, model)
    else:
        processor = _load_processor(base, revision, model)
    if adapter is not None:
        model = load_adapter(model, adapter, adapter_revision)
    return model.to(device).eval(), processor


def _check_place(model: str) -> None:
    """A path that is not there would be taken for a Hub id, with an error that talks about ids."""
    looks_like_path = model.startswith((".", "/", "~")) or model.count("/") > 1 or model.endswith("/")
    if looks_like_path and not os.path.isdir(model):
        raise OSError(f"the folder {model!r} does not exist (relative paths start at {os.getcwd()!r})")


def caption(
    model: Any,
    processor: Blip2IdcProcessor,
    pairs: Iterable[Pair],
    batch_size: int = 8,
    text: str | None = None,
    **generate_kwargs: Any,
) -> list[str]:
    """One sentence per (before, after), in order; greedy unless the generation config or a keyword says otherwise."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    generate_kwargs = {**length_limit(model, processor, generate_kwargs), **generate_kwargs}
    # Loaded one by one: pairs may come from a generator, and an error counts from the first pair, not the batch's.
    images = (
        (load_named_image(before, "before", index), load_named_image(after, "after", index))
        for index, (before, after) in enumerate(pairs)
    )
    sentences = []
    with _evaluation_mode(model):
        while batch := list(islice(images, batch_size)):
            sentences += _caption_batch(model, processor, batch, text, generate_kwargs)
    return sentences


@torch.inference_mode()
def _caption_batch(
    model: Any, processor: Blip2IdcProcessor, batch: list[Pair], text: str | None, generate_kwargs: dict[str, Any]
) -> list[str]:
    befores, afters = zip(*batch, strict=True)
    inputs = processor(before=befores, after=afters, text=text).to(model.device)
    tokens = model.generate(**inputs, **generate_kwargs)
    if len(tokens) != len(batch):
        raise ValueError(f"{len(tokens)} sentences came out for {len(batch)} pairs: leave num_return_sequences at 1.")
    return [sentence.strip() for sentence in processor.batch_decode(tokens, skip_special_tokens=True)]


def length_limit(model: Any, processor: Blip2IdcProcessor, generate_kwargs: dict[str, Any]) -> dict[str, int]:
    """Without any limit transformers stops after 20 tokens, in the middle of a longer sentence."""
    config = model.generation_config
    limited = config.max_new_tokens is not None or config.max_length not in (None, 20)
    if limited or {"max_new_tokens", "max_length", "generation_config"} & generate_kwargs.keys():
        return {}
    return {"max_new_tokens": processor.max_caption_length}


@contextlib.contextmanager
def _evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():  # one by one: a frozen part may have been in evaluation mode before
            module.training = training


def _load_base(base: str, dtype: torch.dtype, revision: str | None) -> Blip2IdcForConditionalGeneration:
    model_type = AutoConfig.from_pretrained(base, revision=revision).model_type
    if model_type not in ("blip-2", "blip2idc"):
        raise ValueError(f"{base!r} holds a model of type {model_type!r}, not BLIP-2.")
    model, report = Blip2IdcForConditionalGeneration.from_pretrained(
        base, dtype=dtype, revision=revision, output_loading_info=True
    )
    if report["missing_keys"]:  # such a model would speak at random
        raise ValueError(f"{base!r} lacks weights: {sorted(report['missing_keys'])[:3]} ...")
    return model


def _load_processor(folder: str, revision: str | None, model: Blip2IdcForConditionalGeneration) -> Blip2IdcProcessor:
    processor = AutoProcessor.from_pretrained(folder, revision=revision)
    if not isinstance(processor, Blip2IdcProcessor):
        processor = Blip2IdcProcessor.from_blip2(processor, **settings_of_model(model.config))
    if processor.decoder_only != model.config.use_decoder_only_language_model:
        raise ValueError(
            f"The processor in {folder!r} has decoder_only={processor.decoder_only}, which does not fit the model's "
            f"{model.config.text_config.model_type!r} language model: make it anew with Blip2IdcProcessor.from_blip2."
        )
    model.must_interpolate(*processor.canvas)  # refuses a canvas that does not fit
    # BLIP-2 checkpoints older than the `<image>` token do not name its id, and T5's differs from OPT's.
    model.config.image_token_index = processor.image_token_id
    if processor.image_token_id >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(processor.image_token_id + 1)
    return processor


def _holds_processor(folder: str, revision: str | None) -> bool:
    if os.path.isdir(folder):
        return os.path.isfile(os.path.join(folder, "processor_config.json"))
    try:
        hf_hub_download(folder, "processor_config.json", revision=revision)
    except EntryNotFoundError:
        return False
    return True


def _base_of_adapter(config_file: str) -> tuple[str, str | None]:
    config = json.loads(Path(config_file).read_text(encoding="utf-8"))
    base = config.get("base_model_name_or_path")
    if not base:
        raise ValueError(f"{config_file!r} names no base model: pass the base as model and this as adapter.")
    return base, config.get("revision")


def read_pairs(path: Path) -> list[dict[str, str]]:
    """Rows `line, pair_id, before, after` of a CSV or JSON lines file; `pair_id` is the row's number if absent."""
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl}
    if path.suffix.lower() not in readers:
        raise CommandError(f"{path}: pairs are read from .csv or .jsonl files, rename or convert this one.")
    rows = []
    try:
        for line, values in readers[path.suffix.lower()](path):
            rows.append(_pair_row(path, line, values, number=len(rows)))
    except FileNotFoundError as error:
        raise CommandError(f"{path} does not exist; check the path of --pairs.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CommandError(f"{path} cannot be read ({error}); save it as UTF-8 text.") from error
    if not rows:
        raise CommandError(f"{path} holds no pairs; write one per line, with before and after.")
    return rows


def _read_csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:  # Excel begins its files with a byte order mark
        reader = csv.DictReader(file)
        missing = [name for name in ("before", "after") if name not in (reader.fieldnames or [])]
        if missing:
            raise CommandError(
                f"{path}, line 1: column {missing[0]!r} is missing, found {reader.fieldnames or []}; "
                "the first line must name the columns before and after."
            )
        for row in reader:
            yield reader.line_num, row


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise CommandError(f"{path}, line {number}: no JSON ({error.msg}); correct the line.") from error
            if not isinstance(row, dict):
                raise CommandError(f"{path}, line {number}: not an object; write {{'before': ..., 'after': ...}}.")
            yield number, row


def _pair_row(path: Path, line: int, values: dict[str, Any], number: int) -> dict[str, Any]:
    row = {"line": line, "pair_id": str(values.get("pair_id") or number)}
    for side in ("before", "after"):
        name = values.get(side)
        if not isinstance(name, str) or not name.strip():
            raise CommandError(f"{path}, line {line}: {side!r} is missing; give the path of an image.")
        if not (path.parent / name).is_file():
            raise CommandError(
                f"{path}, line {line}: {side} image {name!r} does not exist; paths start at the folder of {path.name}."
            )
        row[side] = name
    return row


def _load_pair(path: Path, row: dict[str, Any]) -> tuple[Image.Image, Image.Image]:
    try:
        return tuple(load_image(path.parent / row[side]) for side in ("before", "after"))
    except ImageError as error:
        raise CommandError(f"{path}, line {row['line']}: {error}") from error


def _write_predictions(path: Path | None, rows: list[dict[str, Any]], sentences: list[str]) -> None:
    lines = "".join(
        json.dumps(
            {"pair_id": row["pair_id"], "before": row["before"], "after": row["after"], "prediction": sentence},
            ensure_ascii=False,
        )
        + "\n"
        for row, sentence in zip(rows, sentences, strict=True)
    )
    if path is None:
        sys.stdout.write(lines)
        return
    unfinished = path.with_name(path.name + ".tmp")  # renamed when whole, so that OUT never holds half a result
    unfinished.write_text(lines, encoding="utf-8")
    os.replace(unfinished, path)


def _parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m captioner_idc.captioning",
        description="Say in one sentence what changed between two images.",
    )
    parser.add_argument("before", nargs="?", metavar="BEFORE", help="image file")
    parser.add_argument("after", nargs="?", metavar="AFTER", help="image file")
    parser.add_argument("--model", metavar="DIR_OR_ID", help=f"ours, a BLIP-2 or an adapter; default {DEFAULT_MODEL}")
    parser.add_argument("--adapter", metavar="DIR_OR_ID", help="LoRA adapter; names its base unless --model is given")
    parser.add_argument(
        "--pairs", type=Path, metavar="FILE", help=".csv or .jsonl with before, after and maybe pair_id"
    )
    parser.add_argument(
        "--output", type=Path, metavar="OUT.jsonl", help="where --pairs writes; default standard output"
    )
    parser.add_argument("--batch_size", type=int, default=8, metavar="N")
    parser.add_argument("--max_new_tokens", type=int, metavar="N")
    parser.add_argument("--num_beams", type=int, metavar="N")
    parser.add_argument("--text", metavar="PROMPT", help="instead of the prompt saved with the model")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, ...; default: a GPU if there is one")
    return parser.parse_args(argv)


def _check_arguments(arguments: argparse.Namespace) -> None:
    if arguments.pairs is not None and arguments.before is not None:
        raise CommandError("give either BEFORE and AFTER or --pairs, not both.")
    if arguments.pairs is None and arguments.after is None:
        raise CommandError("give two image files, BEFORE and AFTER, or a list of them with --pairs FILE.")
    if arguments.output is not None and arguments.pairs is None:
        raise CommandError("--output goes with --pairs; the sentence for one pair is printed.")
    if arguments.output is not None and not arguments.output.resolve().parent.is_dir():
        raise CommandError(f"the folder of --output {arguments.output} does not exist; make it first.")
    for name in ("batch_size", "max_new_tokens", "num_beams"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise CommandError(f"--{name} must be at least 1, got {value}.")
    try:
        # An allocation is the one test that holds for every kind of device.
        torch.empty(0, device=arguments.device)
    except (RuntimeError, AssertionError) as error:
        raise CommandError(f"--device {arguments.device} cannot be used here; try --device cpu.") from error


def _load_for(arguments: argparse.Namespace) -> tuple[Any, Blip2IdcProcessor]:
    model = arguments.model or arguments.adapter or DEFAULT_MODEL
    try:
        return load(model, arguments.adapter if arguments.model else None, device=arguments.device)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CommandError(
            f"cannot load model {model!r}"
            + (f" with adapter {arguments.adapter!r}" if arguments.adapter else "")
            + "; give --model a folder with config.json and weights, or a Hub id that is reachable or in the cache"
            + f" ({reason[:300]})"
        ) from error


def _run(arguments: argparse.Namespace) -> None:
    _check_arguments(arguments)
    settings = {"batch_size": arguments.batch_size, "text": arguments.text}
    settings |= {name: vars(arguments)[name] for name in ("max_new_tokens", "num_beams") if vars(arguments)[name]}
    if arguments.pairs is None:
        try:  # before the model, which takes longer to load
            pair = (load_image(arguments.before), load_image(arguments.after))
        except ImageError as error:
            raise CommandError(str(error)) from error
        model, processor = _load_for(arguments)
        sys.stdout.write(" ".join(caption(model, processor, [pair], **settings)[0].split()) + "\n")
        return
    rows = read_pairs(arguments.pairs)
    model, processor = _load_for(arguments)
    # disable=None: a bar on a terminal, nothing in a log. Closed on errors too, so that these have their own line.
    with tqdm(rows, unit="pair", disable=None, file=sys.stderr) as bar:
        pairs = (_load_pair(arguments.pairs, row) for row in bar)
        sentences = caption(model, processor, pairs, **settings)
    _write_predictions(arguments.output, rows, sentences)


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Loading bars and advice off: the terminal belongs to the sentence and to our own errors."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_verbosity = hub_logging.get_verbosity()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()  # it would report every retry when there is no network
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if bars:
            logging.enable_progress_bar()


def main(argv: list[str] | None = None) -> int:
    arguments = _parse_arguments(argv)
    try:
        with _quiet_transformers():
            _run(arguments)
    except CommandError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
