"""The command: two images in, one sentence out.

blip2idc before.png after.png                                  # the captioner that ships, offline
blip2idc before.png after.png --model gautierevn/blip2idc
blip2idc --pairs pairs.csv --adapter runs/mine --output predictions.jsonl
accelerate launch --module captioner_idc --pairs pairs.csv --output predictions.parquet   # several processes
blip2idc --pairs pairs.csv --server http://127.0.0.1:8000 --processor served   # asks e.g. vLLM
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

from .adapters import merged
from .bulk import Captioner, Counts, caption_into, caption_records, check_output, get_workers, record_line
from .captioning import caption, describe_empty, length_limit
from .loading import SHIPPED, load, load_processor, processor_fingerprint
from .pair_lists import PairList, PairListError, read_pairs
from .server_client import API_KEY_ENV, PairRefused, Server, ServerError, ask_server, connect

# What it has learned: the change types of the benchmark photo_edits; its card has the shares.
SHIPPED_NOTE = (
    "using the small captioner that ships: it tells changes of the whole picture (light, colors, sharpness, noise, "
    "mirroring, rotation, cropping), added, removed, moved, recolored or covered parts and text, and where, but often "
    "gets the names of things wrong; for more name a large model: --model Qwen/Qwen3-VL-2B-Instruct"
)
SOME_SKIPPED = 1  # exit code
CONTINUING = (
    "A pair whose images cannot be read is named on standard error, and its record has `error` in place of a "
    f"sentence; the exit code is then {SOME_SKIPPED}, after other errors 2. With --output, the sentences are kept in "
    "the folder .OUT.parts until each pair has one: to continue after an interruption, or with corrected images, run "
    "the same command again. Several processes or machines share the work after `accelerate launch --module "
    "captioner_idc`."
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
        "--pairs",
        type=_path,
        metavar="FILE_OR_FOLDER",
        help=".csv, .jsonl or .parquet with before, after and optionally pair_id; or a folder with the folders before "
        "and after (or A and B), whose images have equal names, or with Parquet files",
    )
    parser.add_argument(
        "--output", type=_path, metavar="OUT", help=".jsonl or .parquet for --pairs; default: JSON on standard output"
    )
    parser.add_argument("--batch_size", type=int, default=8, metavar="N")
    parser.add_argument("--max_new_tokens", type=int, metavar="N")
    parser.add_argument("--num_beams", type=int, metavar="N")
    parser.add_argument("--text", metavar="PROMPT", help="use this prompt instead of the one saved with the model")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, ...; default: a GPU if there is one")
    parser.add_argument(
        "--server",
        metavar="URL",
        help="ask this server of OpenAI's interface, --batch_size requests at a time, and load no model; --model is "
        "then a name there, default: the first that it lists",
    )
    parser.add_argument(
        "--processor",
        type=name,
        metavar="DIR_OR_ID",
        help="the captioner that --server serves, of which all but the weights is read: how to prepare the images; "
        "default: two images and a general question",
    )
    parser.add_argument(
        "--api_key_env", metavar="NAME", help=f"environment variable with the key for --server; default: {API_KEY_ENV}"
    )
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
    _check_server_options(arguments)
    for name in ("batch_size", "max_new_tokens", "num_beams"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise CommandError(f"--{name} must be at least 1, got {value}.")
    try:
        # The one test that works for every kind of device.
        torch.empty(0, device=arguments.device)
    except (RuntimeError, AssertionError) as error:
        raise CommandError(f"--device {arguments.device} cannot be used here; try --device cpu.") from error


def _check_server_options(arguments: argparse.Namespace) -> None:
    local, remote = ("adapter", "allow_pickle", "num_beams", "device"), ("processor", "api_key_env")
    for option in local if arguments.server is not None else remote:
        if getattr(arguments, option):
            goes = "does not go with" if arguments.server is not None else "goes with"
            raise CommandError(f"--{option} {goes} --server; leave one of them out or see --help.")


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


def _run(arguments: argparse.Namespace) -> int:
    """Return the exit code."""
    _check_arguments(arguments)
    settings = {"batch_size": arguments.batch_size, "text": arguments.text}
    settings |= {name: vars(arguments)[name] for name in ("max_new_tokens", "num_beams") if vars(arguments)[name]}
    if arguments.pairs is not None:
        return _caption_list(arguments, settings)
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
    return 0


def _caption_list(arguments: argparse.Namespace, settings: dict[str, Any]) -> int:
    """Caption --pairs; return the exit code."""
    pairs, workers = read_pairs(arguments.pairs), get_workers()
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
    return 0 if counts is None else _report(counts)


def _captioner(arguments: argparse.Namespace, settings: dict[str, Any]) -> Captioner:
    if arguments.server is not None:
        return _remote_captioner(_connect(arguments), settings)
    model, processor = _load_for(arguments)
    generation = model.generation_config.to_diff_dict()
    generation.pop("transformers_version", None)
    chosen = {name: value for name, value in settings.items() if name not in ("batch_size", "text")}
    fingerprint = {
        "model": _weights_sha256(model),
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


def _weights_sha256(model: Any) -> str:
    """Return the SHA-256 of all weights: a folder may have the name of another one, or other weights than before."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).cpu().numpy())
    return digest.hexdigest()


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


def _report(counts: Counts) -> int:
    """Say what is wrong with the sentences; return the exit code."""
    _warn_of_empty(counts.empty, counts.pairs)
    if not counts.failed:
        return 0
    print(
        f"{counts.failed} of {counts.pairs} pairs have no sentence but a reason in `error`; correct what is named "
        "above and run the same command again",
        file=sys.stderr,
    )
    return SOME_SKIPPED


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


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = _parse_arguments(argv)
    again = "run the same command again" + (" to continue" if arguments.output else "")
    # With --output, a reader of the messages that ends, e.g. a killed `tee`, ends nothing.
    with _quiet_libraries(), lasting_output() if arguments.output else contextlib.nullcontext():
        errors = (CommandError, PairListError, ImageError, OSError)
        return run_command(lambda: _run(arguments), *errors, interrupted=again)


if __name__ == "__main__":
    sys.exit(main())
