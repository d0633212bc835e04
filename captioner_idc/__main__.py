"""The command: two images in, one sentence out.

blip2idc before.png after.png                                  # the captioner that ships, offline
blip2idc before.png after.png --model gautierevn/blip2idc
blip2idc --pairs pairs.csv --adapter runs/mine --output predictions.jsonl
"""

import argparse
import codecs
import contextlib
import hashlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import logging as hub_logging
from tqdm import tqdm
from transformers.utils import logging

from common_idc.commands import discard_output, lasting_output, run_command
from modeling_blip2idc.image_fusion import ImageError, check_file

from .captioning import caption, describe_empty, length_limit
from .loading import SHIPPED, load, processor_fingerprint
from .pair_lists import (
    PairListError,
    PartialOutput,
    check_output,
    image_state,
    load_pair,
    prediction_line,
    read_pairs,
)

# What it has learned: the change types of the benchmark photo_edits; its card has the shares.
SHIPPED_NOTE = (
    "using the small captioner that ships: it tells changes of the whole picture (light, colors, sharpness, noise, "
    "mirroring, rotation, cropping), added, removed, moved, recolored or covered parts and text, and where, but often "
    "gets the names of things wrong; for more name a large model: --model Qwen/Qwen3-VL-2B-Instruct"
)
SOME_SKIPPED = 1  # exit code
CONTINUING = (
    "A pair whose image cannot be read is named on standard error and skipped; the exit code is then "
    f"{SOME_SKIPPED}, after other errors 2. With --output, the sentences are also kept in .OUT.jsonl.partial until "
    "each pair has one: to continue after an interruption, or with corrected images, run the same command again."
)


class CommandError(Exception):
    """A mistake the user can correct; `main` prints it as one line."""


def _parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="blip2idc", description="Say in one sentence what changed between two images.", epilog=CONTINUING
    )
    name = os.path.expanduser  # no shell expands the ~ of --model=~/runs/toy
    parser.add_argument("before", type=name, nargs="?", metavar="BEFORE", help="image file")
    parser.add_argument("after", type=name, nargs="?", metavar="AFTER", help="image file")
    parser.add_argument(
        "--model", type=name, metavar="DIR_OR_ID", help="captioner or adapter; default: the one that ships"
    )
    parser.add_argument(
        "--adapter", type=name, metavar="DIR_OR_ID", help="LoRA adapter; without --model it names its base"
    )
    parser.add_argument(
        "--allow_pickle", action="store_true", help="load pickled weights (.bin): only from people you trust"
    )
    parser.add_argument(
        "--pairs", type=_path, metavar="FILE", help=".csv or .jsonl with before, after and optionally pair_id"
    )
    parser.add_argument(
        "--output", type=_path, metavar="OUT.jsonl", help="JSON lines for --pairs; default: standard output"
    )
    parser.add_argument("--batch_size", type=int, default=8, metavar="N")
    parser.add_argument("--max_new_tokens", type=int, metavar="N")
    parser.add_argument("--num_beams", type=int, metavar="N")
    parser.add_argument("--text", metavar="PROMPT", help="use this prompt instead of the one saved with the model")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, ...; default: a GPU if there is one")
    return parser.parse_args(argv)


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))


def _check_arguments(arguments: argparse.Namespace) -> None:
    if arguments.pairs is not None and arguments.before is not None:
        raise CommandError("give either BEFORE and AFTER or --pairs, not both.")
    if arguments.pairs is None and arguments.after is None:
        raise CommandError("give two image files, BEFORE and AFTER, or a list of pairs with --pairs FILE.")
    if arguments.output is not None and arguments.pairs is None:
        raise CommandError("--output goes with --pairs; the sentence for one pair is printed.")
    if arguments.output is not None and not arguments.output.resolve().parent.is_dir():
        raise CommandError(f"the folder of --output {arguments.output} does not exist; create it first.")
    if arguments.output is not None and arguments.output.resolve() == arguments.pairs.resolve():
        raise CommandError(f"--output {arguments.output} would replace the list of pairs; name another file.")
    for name in ("batch_size", "max_new_tokens", "num_beams"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise CommandError(f"--{name} must be at least 1, got {value}.")
    try:
        # The one test that works for every kind of device.
        torch.empty(0, device=arguments.device)
    except (RuntimeError, AssertionError) as error:
        raise CommandError(f"--device {arguments.device} cannot be used here; try --device cpu.") from error


def _load_for(arguments: argparse.Namespace) -> tuple[Any, Any]:
    model = arguments.model or arguments.adapter
    if model is None:
        return load(SHIPPED, device=arguments.device)
    try:
        return load(
            model,
            arguments.adapter if arguments.model else None,
            device=arguments.device,
            allow_pickle=arguments.allow_pickle,
        )
    except ImportError as error:
        raise CommandError(str(error)) from error
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CommandError(
            f"cannot load model {model!r}"
            + (f" with adapter {arguments.adapter!r}" if arguments.adapter else "")
            + "; give --model a folder with config.json and weights, or a Hub id that is reachable or in the cache"
            + f" ({reason[:300]})"
        ) from error


def _run(arguments: argparse.Namespace) -> int:
    """Return the exit code."""
    _check_arguments(arguments)
    settings = {"batch_size": arguments.batch_size, "text": arguments.text}
    settings |= {name: vars(arguments)[name] for name in ("max_new_tokens", "num_beams") if vars(arguments)[name]}
    if arguments.pairs is not None:
        return _caption_list(arguments, settings)
    for file in (arguments.before, arguments.after):  # before the model, which takes longer
        check_file(file)
    model, processor = _load_for(arguments)
    pair = processor.load_pair(arguments.before, arguments.after, "the pair")
    _say_if_shipped(arguments)
    sentences = caption(model, processor, [pair], **settings)
    _print(sentences[0])
    _warn_of_empty(sentences)
    return 0


def _caption_list(arguments: argparse.Namespace, settings: dict[str, Any]) -> int:
    """Caption --pairs; return the exit code."""
    rows, size = _read_rows(arguments.pairs), arguments.batch_size
    if arguments.output is not None:
        check_output(arguments.output)
    model, processor = _load_for(arguments)
    _say_if_shipped(arguments)
    partial = _partial_output(arguments, model, processor, settings)
    earlier, save = ({}, _print_predictions) if partial is None else (dict(partial.sentences), partial.add)
    if done := sum(row["state"] in earlier for row in rows):
        print(f"continuing after {done} of {len(rows)} pairs", file=sys.stderr)
    sentences: dict[int, str] = {}  # by line
    # disable=None: a bar on a terminal, none in a log. Closed also by errors, so that these get their own line.
    with tqdm(total=len(rows), unit="pair", disable=None, file=sys.stderr) as bar:
        # A sentence may depend on its batch by rounding: the batches are the same when the command continues.
        for start in range(0, len(rows), size):
            batch = [row for row in rows[start : start + size] if row["state"]]
            if all(row["state"] in earlier for row in batch):
                new = [earlier[row["state"]] for row in batch]
            else:
                batch, new = _caption_rows(arguments.pairs, batch, model, processor, settings)
                save(batch, new)
            sentences |= {row["line"]: sentence for row, sentence in zip(batch, new, strict=True)}
            bar.update(min(size, len(rows) - start))
    return _finish_list(rows, sentences, partial)


def _read_rows(pairs: Path) -> list[dict[str, Any]]:
    """Return the rows of `read_pairs` with a `state`; it is None if an image does not exist, which is reported."""
    rows = read_pairs(pairs)
    for row in rows:
        row["state"] = None
        try:
            row["state"] = image_state(pairs, row)
        except PairListError as error:
            _say_skipped(error)
    if not any(row["state"] for row in rows):
        raise CommandError(f"{pairs} contains no pair whose images exist; correct the paths named above.")
    return rows


def _partial_output(
    arguments: argparse.Namespace, model: Any, processor: Any, settings: dict[str, Any]
) -> PartialOutput | None:
    """Return the sentences of an interrupted run and where they are kept; None without --output."""
    if arguments.output is None:
        return None
    generation = model.generation_config.to_diff_dict()
    generation.pop("transformers_version", None)
    chosen = {name: value for name, value in settings.items() if name not in ("batch_size", "text")}
    fingerprint = {
        "list of pairs": str(arguments.pairs.resolve()),
        "model": _weights_sha256(model),
        "processor": processor_fingerprint(processor),
        "dtype": str(model.dtype),
        "prompt": settings["text"],
        "decoding": {**generation, **length_limit(model, processor, chosen), **chosen},
    }
    return PartialOutput(arguments.output, fingerprint)


def _weights_sha256(model: Any) -> str:
    """Return the SHA-256 of all weights: a folder may have the name of another one, or other weights than before."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).cpu().numpy())
    return digest.hexdigest()


def _caption_rows(
    pairs: Path, rows: list[dict[str, Any]], model: Any, processor: Any, settings: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows whose images can be read, and their sentences; report the others."""
    readable, cells = [], []
    for row in rows:
        try:
            cells.append(load_pair(processor, pairs, row))
            readable.append(row)
        except PairListError as error:
            _say_skipped(error)
    return readable, caption(model, processor, cells, **settings)


def _finish_list(rows: list[dict[str, Any]], sentences: dict[int, str], partial: PartialOutput | None) -> int:
    """Write the output and say what is wrong with it; return the exit code."""
    skipped = len(rows) - len(sentences)
    if not sentences:
        raise CommandError("no pair could be captioned, and nothing was written; correct the images named above.")
    if partial is not None:
        lines = [prediction_line(row, sentences[row["line"]]) for row in rows if row["line"] in sentences]
        partial.finish("".join(lines), complete=not skipped)
    _warn_of_empty(list(sentences.values()))
    if not skipped:
        return 0
    print(
        f"skipped {skipped} of {len(rows)} pairs; correct the images named above and run the same command again",
        file=sys.stderr,
    )
    return SOME_SKIPPED


def _print_predictions(rows: list[dict[str, Any]], sentences: list[str]) -> None:
    # JSON is UTF-8; in any other encoding, only its escapes are safe
    ascii_only = codecs.lookup(sys.stdout.encoding or "utf-8").name != "utf-8"
    for row, sentence in zip(rows, sentences, strict=True):
        _print(prediction_line(row, sentence, ascii_only).rstrip("\n"))


def _print(line: str) -> None:
    """Print a line at once; characters that the encoding of standard output lacks become escapes.

    Raises: CommandError if it cannot be written, e.g. because the disk is full.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(line.encode(encoding, errors="backslashreplace").decode(encoding), flush=True)
    except BrokenPipeError:
        raise  # run_command's
    except OSError as error:
        discard_output(sys.stdout)
        raise CommandError(f"standard output cannot be written ({error.strerror}).") from error


def _say_if_shipped(arguments: argparse.Namespace) -> None:
    if not (arguments.model or arguments.adapter):
        print(SHIPPED_NOTE, file=sys.stderr)


def _say_skipped(error: Exception) -> None:
    tqdm.write(f"skipped: {' '.join(str(error).split())}", file=sys.stderr)


def _warn_of_empty(sentences: list[str]) -> None:
    if described := describe_empty(sentences):
        print(f"warning: {described}", file=sys.stderr)


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Disable loading bars and advice, so that only the sentence and errors are printed."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_verbosity = hub_logging.get_verbosity()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()  # it reports every retry when there is no network
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # on metadata and sizes, without the file's name
            yield
    finally:
        logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if bars:
            logging.enable_progress_bar()


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = _parse_arguments(argv)
    again = "run the same command again" + (" to continue" if arguments.output else "")
    # With --output, a reader of the messages that ends, e.g. a killed `tee`, ends nothing.
    with _quiet_libraries(), lasting_output() if arguments.output else contextlib.nullcontext():
        return run_command(lambda: _run(arguments), CommandError, PairListError, ImageError, interrupted=again)


if __name__ == "__main__":
    sys.exit(main())
