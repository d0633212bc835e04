"""The command: two images in, one sentence out.

blip2idc before.png after.png                                  # the captioner that ships, offline
blip2idc before.png after.png --model gautierevn/blip2idc
blip2idc --pairs pairs.csv --adapter runs/toy --output predictions.jsonl
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import logging as hub_logging
from tqdm import tqdm
from transformers.utils import logging

from common_idc.commands import run_command
from modeling_blip2idc.image_fusion import ImageError, load_image

from .captioning import caption
from .loading import SHIPPED, load
from .pair_lists import PairListError, load_pair, read_pairs, write_predictions

SHIPPED_NOTE = "using the captioner that ships, which knows drawn scenes only: for photographs give --model"


class CommandError(Exception):
    """A mistake the user can correct; `main` prints it as one line."""


def _parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="blip2idc",
        description="Say in one sentence what changed between two images.",
    )
    parser.add_argument("before", nargs="?", metavar="BEFORE", help="image file")
    parser.add_argument("after", nargs="?", metavar="AFTER", help="image file")
    parser.add_argument("--model", metavar="DIR_OR_ID", help="captioner or adapter; default: the one that ships")
    parser.add_argument("--adapter", metavar="DIR_OR_ID", help="LoRA adapter; without --model it names its base")
    parser.add_argument(
        "--pairs", type=Path, metavar="FILE", help=".csv or .jsonl with before, after and optionally pair_id"
    )
    parser.add_argument(
        "--output", type=Path, metavar="OUT.jsonl", help="JSON lines for --pairs; default: standard output"
    )
    parser.add_argument("--batch_size", type=int, default=8, metavar="N")
    parser.add_argument("--max_new_tokens", type=int, metavar="N")
    parser.add_argument("--num_beams", type=int, metavar="N")
    parser.add_argument("--text", metavar="PROMPT", help="use this prompt instead of the one saved with the model")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, ...; default: a GPU if there is one")
    return parser.parse_args(argv)


def _check_arguments(arguments: argparse.Namespace) -> None:
    if arguments.pairs is not None and arguments.before is not None:
        raise CommandError("give either BEFORE and AFTER or --pairs, not both.")
    if arguments.pairs is None and arguments.after is None:
        raise CommandError("give two image files, BEFORE and AFTER, or a list of pairs with --pairs FILE.")
    if arguments.output is not None and arguments.pairs is None:
        raise CommandError("--output goes with --pairs; the sentence for one pair is printed.")
    if arguments.output is not None and not arguments.output.resolve().parent.is_dir():
        raise CommandError(f"the folder of --output {arguments.output} does not exist; create it first.")
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
        print(SHIPPED_NOTE, file=sys.stderr)
        return load(SHIPPED, device=arguments.device)
    try:
        return load(model, arguments.adapter if arguments.model else None, device=arguments.device)
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


def _run(arguments: argparse.Namespace) -> None:
    _check_arguments(arguments)
    settings = {"batch_size": arguments.batch_size, "text": arguments.text}
    settings |= {name: vars(arguments)[name] for name in ("max_new_tokens", "num_beams") if vars(arguments)[name]}
    if arguments.pairs is None:
        pair = load_image(arguments.before), load_image(arguments.after)  # before the model, which takes longer
        model, processor = _load_for(arguments)
        print(" ".join(caption(model, processor, [pair], **settings)[0].split()))
        return
    rows = read_pairs(arguments.pairs)
    model, processor = _load_for(arguments)
    # disable=None: a bar on a terminal, none in a log. Closed also by errors, so that these get their own line.
    with tqdm(rows, unit="pair", disable=None, file=sys.stderr) as bar:
        sentences = caption(model, processor, (load_pair(arguments.pairs, row) for row in bar), **settings)
    write_predictions(arguments.output, rows, sentences)


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Disable loading bars and advice, so that only the sentence and errors are printed."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_verbosity = hub_logging.get_verbosity()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()  # it reports every retry when there is no network
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if bars:
            logging.enable_progress_bar()


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = _parse_arguments(argv)
    with _quiet_transformers():
        return run_command(lambda: _run(arguments), CommandError, PairListError, ImageError)


if __name__ == "__main__":
    sys.exit(main())
