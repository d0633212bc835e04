"""What the command `blip2idc` does once its arguments are checked: load the captioner, caption, print or write."""

import argparse
import codecs
import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from huggingface_hub.utils import logging as hub_logging
from tqdm import tqdm
from transformers.utils import logging

from common_idc.commands import CommandError, discard_output
from modeling_blip2idc.image_fusion import ImageError, check_file

from .adapters import merged
from .bulk import Captioner, Counts, caption_into, caption_records, check_output, get_workers, record_line
from .captioning import caption, describe_empty, length_limit
from .loading import SHIPPED, load, load_processor, processor_fingerprint, weights_sha256
from .pair_lists import PairList
from .server_client import API_KEY_ENV, PairRefused, Server, ServerError, ask_server, connect

# What it has learned: the change types of the benchmark photo_edits; its card has the shares.
SHIPPED_NOTE = (
    "using the small captioner that ships: it tells changes of the whole picture (light, colors, sharpness, noise, "
    "mirroring, rotation, cropping), added, removed, moved, recolored or covered parts and text, and where, but often "
    "gets the names of things wrong; for more name a large model: --model Qwen/Qwen3-VL-2B-Instruct"
)


def _connect(arguments: argparse.Namespace) -> Server:
    """Return the server that is asked instead of a model."""
    try:
        processor = None if arguments.processor is None else load_processor(arguments.processor)
        return connect(arguments.server, arguments.model, processor, arguments.api_key_env or API_KEY_ENV)
    except ServerError:
        raise
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error


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


def run(arguments: argparse.Namespace, pairs: PairList | None) -> bool:
    """Print or write the sentences of the pair or the list; return whether each pair has one.

    Args:
        arguments: checked, except the device.
        pairs: those of --pairs; None for the pair of the arguments.

    Raises: CommandError, PairListError or OSError, whose message says what to correct.
    """
    try:
        # The one test that works for every kind of device.
        torch.empty(0, device=arguments.device)
    except (RuntimeError, AssertionError) as error:
        raise CommandError(f"--device {arguments.device} cannot be used here; try --device cpu.") from error
    settings = {"batch_size": arguments.batch_size, "text": arguments.text}
    settings |= {name: vars(arguments)[name] for name in ("max_new_tokens", "num_beams") if vars(arguments)[name]}
    with _quiet_libraries():
        if pairs is not None:
            return _caption_list(arguments, pairs, settings)
        try:
            _caption_pair(arguments, settings)
        except ImageError as error:
            raise CommandError(str(error)) from error
    return True


def _caption_pair(arguments: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Print the sentence for BEFORE and AFTER."""
    for file in (arguments.before, arguments.after):  # before the model, which takes longer
        check_file(file)
    captioner = _captioner(arguments, settings)
    pair = captioner.load_pair(arguments.before, arguments.after, "the pair")
    _say_if_shipped(arguments)
    [sentence] = captioner.caption([pair])
    if isinstance(sentence, PairRefused):
        raise sentence
    _print(sentence)
    _warn_of_empty(int(not sentence), 1)


def _caption_list(arguments: argparse.Namespace, pairs: PairList, settings: dict[str, Any]) -> bool:
    """Caption --pairs; return whether each pair has a sentence."""
    workers = get_workers()
    if arguments.output is not None:
        check_output(arguments.output)
    elif workers.count > 1:
        raise CommandError("several processes need an --output to write into; name one.")
    captioner = _captioner(arguments, settings)
    if not workers.index:
        _say_if_shipped(arguments)
    if arguments.output is not None:
        counts = caption_into(arguments.output, pairs, captioner, arguments.batch_size, workers)
    else:
        counts = _print_records(pairs, captioner, arguments.batch_size)
    if counts is not None:  # in the first process
        _report(counts)
    return counts is None or not counts.failed


def _captioner(arguments: argparse.Namespace, settings: dict[str, Any]) -> Captioner:
    if arguments.server is not None:
        return _remote_captioner(_connect(arguments), settings)
    model, processor = _load_for(arguments)
    generation = model.generation_config.to_diff_dict()
    generation.pop("transformers_version", None)
    chosen = {name: value for name, value in settings.items() if name not in ("batch_size", "text")}
    fingerprint = {
        "model": weights_sha256(model),
        "processor": processor_fingerprint(processor),
        "dtype": str(model.dtype),
        "prompt": settings["text"],
        "decoding": {**generation, **length_limit(model, processor, chosen), **chosen},
    }
    model = merged(model)  # after the hash of its weights, which would depend on the rounding of this machine
    return Captioner(processor.load_pair, lambda pairs: caption(model, processor, pairs, **settings), fingerprint)


def _remote_captioner(server: Server, settings: dict[str, Any]) -> Captioner:
    fingerprint = {
        **{"server": server.url, "model": server.model, "processor": server.processor.settings},
        **{"prompt": settings["text"], "max_new_tokens": settings.get("max_new_tokens")},
    }
    return Captioner(server.processor.load_pair, lambda pairs: ask_server(server, pairs, **settings), fingerprint)


def _print_records(pairs: PairList, captioner: Captioner, batch_size: int) -> Counts:
    # JSON is UTF-8; in any other encoding, only its escapes are safe
    ascii_only = codecs.lookup(sys.stdout.encoding or "utf-8").name != "utf-8"
    counts = Counts()
    # disable=None: a bar on a terminal, none in a log. Closed also by errors, so that these get their own line.
    with tqdm(total=pairs.count, unit="pair", disable=None, file=sys.stderr) as bar:
        for record in caption_records(pairs, captioner, batch_size):
            _print(record_line(record, ascii_only).rstrip("\n"))
            counts.add(record)
            bar.update()
    if counts.failed == counts.pairs:
        raise CommandError("no pair has a sentence; correct what is named above.")
    return counts


def _report(counts: Counts) -> None:
    """Say on standard error what is wrong with the sentences."""
    _warn_of_empty(counts.empty, counts.pairs)
    if counts.failed:
        print(
            f"{counts.failed} of {counts.pairs} pairs have no sentence but a reason in `error`; correct what is named "
            "above and run the same command again",
            file=sys.stderr,
        )


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
    if not (arguments.model or arguments.adapter or arguments.server):
        print(SHIPPED_NOTE, file=sys.stderr)


def _warn_of_empty(empty: int, sentences: int) -> None:
    if described := describe_empty(empty, sentences):
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
