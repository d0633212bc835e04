"""The command: two images in, one sentence out.

blip2idc before.png after.png                                  # the captioner that ships, offline
blip2idc before.png after.png --model gautierevn/blip2idc
blip2idc --pairs pairs.csv --adapter runs/mine --output predictions.jsonl
accelerate launch --module captioner_idc --pairs pairs.csv --output predictions.parquet   # several processes
blip2idc --pairs pairs.csv --server http://127.0.0.1:8000 --processor served   # asks e.g. vLLM
"""

import argparse
import contextlib
import os
import sys
from pathlib import Path

from common_idc.commands import CommandError, lasting_output, run_command

from .pair_lists import PairListError, read_pairs

SOME_SKIPPED = 1  # exit code
CONTINUING = (
    "A pair whose images cannot be read is named on standard error, and its record has `error` in place of a "
    f"sentence; the exit code is then {SOME_SKIPPED}, after other errors 2. With --output, the sentences are kept in "
    "the folder .OUT.parts until each pair has one: to continue after an interruption, or with corrected images, run "
    "the same command again. Several processes or machines share the work after `accelerate launch --module "
    "captioner_idc`."
)


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
        "--api_key_env",
        metavar="NAME",
        help="environment variable with the key for --server; default: OPENAI_API_KEY",
    )
    return parser.parse_args(argv)


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))


def _check_arguments(arguments: argparse.Namespace) -> None:
    """Raise CommandError for what is wrong with the arguments alone."""
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
    for file in (arguments.before, arguments.after):
        if file is not None and not os.path.exists(file):
            raise CommandError(f"{file!r} does not exist; check the path (relative paths start at {os.getcwd()!r}).")
    _check_server_options(arguments)
    for name in ("batch_size", "max_new_tokens", "num_beams"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise CommandError(f"--{name} must be at least 1, got {value}.")


def _check_server_options(arguments: argparse.Namespace) -> None:
    local, remote = ("adapter", "allow_pickle", "num_beams", "device"), ("processor", "api_key_env")
    for option in local if arguments.server is not None else remote:
        if getattr(arguments, option):
            goes = "does not go with" if arguments.server is not None else "goes with"
            raise CommandError(f"--{option} {goes} --server; leave one of them out or see --help.")


def _run(arguments: argparse.Namespace) -> int:
    """Return the exit code."""
    _check_arguments(arguments)
    pairs = None if arguments.pairs is None else read_pairs(arguments.pairs)
    from .command import run  # only here, because importing torch and transformers takes seconds

    is_complete = run(arguments, pairs)
    return 0 if is_complete else SOME_SKIPPED


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = _parse_arguments(argv)
    again = "run the same command again" + (" to continue" if arguments.output else "")
    # With --output, a reader of the messages that ends, e.g. a killed `tee`, ends nothing.
    with lasting_output() if arguments.output else contextlib.nullcontext():
        return run_command(lambda: _run(arguments), PairListError, OSError, interrupted=again)


if __name__ == "__main__":
    sys.exit(main())
