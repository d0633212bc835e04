"""Image difference captioning data from the command line.

python -m dataset_syned list
python -m dataset_syned fetch syned
python -m dataset_syned prepare syned          # then load_dataset("syned") works from any directory
python -m dataset_syned check spot_the_diff --data_dir data/spot_the_diff --report report.json
python -m dataset_syned export syned ./syned   # then load_dataset("./syned") works
python -m dataset_syned push syned user/syned
python -m dataset_syned synthesize --config configs/synthesis/toy.yaml
"""

# Each command imports what it needs, so that a missing package is one line and `--help` needs none.
import argparse
import glob
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

PATIENCE = 5  # seconds


def builder_of(arguments: argparse.Namespace, **extra: Any) -> Any:
    """Return the `PairBuilder` that the arguments of a command name."""
    from .preparing import benchmark_builder

    if vars(arguments).get("max_side") is not None:  # an option of the commands that prepare
        extra["max_side"] = arguments.max_side
    return benchmark_builder(arguments.benchmark, config=arguments.config, root=arguments.data_dir, **extra)


@contextmanager
def children_end_at_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C end this process, which then ends those that are forked inside the block.

    A terminal sends it to all of them: they ignore it, because each would print a traceback. `datasets` ends its
    processes with SIGTERM and may wait for ever for the lock of one of them: it is interrupted again after PATIENCE.
    """
    inside = True

    def ignore() -> None:
        if inside:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            sys.unraisablehook = lambda _: None  # a generator of `datasets` complains when its process is ended

    def interrupt(number: int, _: Any) -> None:
        signal.setitimer(signal.ITIMER_REAL, PATIENCE if number == signal.SIGINT else 0)
        raise KeyboardInterrupt

    os.register_at_fork(after_in_child=ignore)
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # by a process in the background of a script
    numbers = () if ignored else (signal.SIGINT, signal.SIGALRM)
    handlers = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        inside = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def run_list(_: argparse.Namespace) -> int:
    """Print a table: name, config, published counts, licence, folder of the raw files, prepared or not."""
    from .benchmarks import BENCHMARKS
    from .preparing import benchmark_builder

    rows = [("benchmark", "config", "pairs (train/validation/test)", "licence", "raw files", "prepared")]
    for name, builder in BENCHMARKS.items():
        for config in builder.BUILDER_CONFIGS:
            instance = benchmark_builder(name, config=config.name)
            counts = builder.EXPECTED.get(config.name, {})
            pairs = "/".join(str(counts.get(split, "-")) for split in ("train", "validation", "test"))
            folder = str(instance.root) if instance.root.is_dir() else "-"
            prepared = "ready" if os.path.isdir(instance.cache_dir) else "-"
            rows.append((name, config.name, pairs if counts else "any", builder.LICENSE or "-", folder, prepared))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def run_fetch(arguments: argparse.Namespace) -> int:
    """Fetch the raw files and print which splits are complete."""
    from .fetching import fetch

    builder = builder_of(arguments)
    report = fetch(builder)
    source = f"{report.mirror.repo_id} at {report.mirror.revision[:12]}"
    print(f"{arguments.benchmark}: {len(report.files)} files from {source} are in {report.root}")
    splits = builder.raw_splits()  # an error says what is missing if the mirror has only a part
    print(f"complete splits: {', '.join(splits)}")
    return 0


def run_prepare(arguments: argparse.Namespace) -> int:
    """Prepare the splits and print their counts, and what was left out."""
    from .preparing import prepare, prepared_from

    skip_log = None
    if arguments.on_error == "skip":
        skip_log = Path(f"{arguments.benchmark}-skipped.jsonl").resolve()
    builder = builder_of(arguments, skip_log=skip_log)
    started = time.time()
    with children_end_at_ctrl_c():
        splits = prepare(builder, arguments.num_proc if arguments.num_proc > 1 else None)
    counts = ", ".join(f"{len(rows)} {split}" for split, rows in splits.items())
    print(f"{arguments.benchmark}: {counts}; {describe_loading(builder)}")
    prepared_at = os.path.getmtime(os.path.join(builder.cache_dir, "dataset_info.json"))
    if prepared_at < started:
        origin = "the same raw files"
        if not builder.root.is_dir():
            folder = prepared_from(builder).get("folder")
            origin = f"{repr(folder) if folder else 'no raw files'}, with no raw files to compare in {builder.root}"
        print(f"nothing to do: prepared on {datetime.fromtimestamp(prepared_at):%Y-%m-%d %H:%M} from {origin}")
    for note in builder.notes() if builder.root.is_dir() else ():
        print(note)
    if skip_log and skip_log.exists():
        lines = skip_log.read_text(encoding="utf-8").splitlines()
        print(f"{len(lines)} pairs were left out, listed with their reasons in {skip_log}")
    return 0


def describe_loading(builder: Any) -> str:
    """Return how `load_dataset` finds the prepared rows, or why it does not."""
    if not glob.glob(builder.cache_dir):  # which is how it looks for them
        return (
            f"load_dataset cannot find them, because {builder.cache_dir!r} contains one of [ ] * ?: set HF_HOME to a "
            "folder without, or use load_benchmark of dataset_syned"
        )
    config = f', "{builder.config.name}"' if builder.config.name != builder.DEFAULT_CONFIG_NAME else ""
    data_dir = f", data_dir={json.dumps(builder.config.data_dir)}" if builder.config.data_dir else ""
    max_side = f", max_side={builder.config.max_side}" if builder.config.max_side else ""
    return f'ready for load_dataset("{builder.dataset_name}"{config}{data_dir}{max_side})'


def run_check(arguments: argparse.Namespace) -> int:
    """Check the raw files; print and optionally write the problems, of which any makes the status 1."""
    from common_idc.atomic_files import write_json

    from .checking import check

    report = check(builder_of(arguments))
    print(report.summary())
    if arguments.report:
        write_json(arguments.report, report.as_dict())
    return 1 if report.problems else 0


def run_export(arguments: argparse.Namespace) -> int:
    """Export the prepared splits."""
    from .exporting import export
    from .preparing import prepare

    builder = builder_of(arguments)
    options = {} if arguments.prompt is None else {"prompt": arguments.prompt}
    export(builder, prepare(builder), arguments.folder, arguments.format, arguments.max_shard_size, **options)
    print(f"{arguments.benchmark}: written to {arguments.folder}")
    return 0


def run_push(arguments: argparse.Namespace) -> int:
    """Push the prepared splits."""
    from .preparing import prepare
    from .pushing import push

    builder = builder_of(arguments)
    prepare(builder)
    address = push(builder, arguments.repo_id, arguments.private or None)
    print(f"{arguments.benchmark}: pushed to {address}")
    return 0


def run_synthesize(arguments: argparse.Namespace) -> int:
    """Synthesize training pairs with the settings that are left over from the other options."""
    from metric_idc import stated_units

    from .synthesis.settings import parse_config
    from .synthesis.stages import synthesize

    config = parse_config(arguments.settings)
    if synthesize(config, stated_units):
        print(f"{config.output_dir}/dataset: written")
    elif config.stage == "all":
        print(f"{config.output_dir}: this process's share is done; the last process writes the data set")
    else:
        print(f"{config.output_dir}: {config.stage} done")
    return 0


EXPORT_FORMATS = ("parquet", "coco", "clevr", "messages", "prompt_completion")
COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], str]] = {
    "list": (run_list, "the benchmarks: counts, licence, folder of the raw files, prepared or not"),
    "fetch": (run_fetch, "download the raw files from a Hub mirror, or say where to get them"),
    "prepare": (run_prepare, "check all images and write the rows into the cache of `datasets`"),
    "check": (run_check, "compare the raw files with the published counts and look for broken pairs"),
    "export": (run_export, "write the rows for the Hub, scorers, change captioning code, or trainers of other models"),
    "push": (run_push, "push the rows to a data set on the Hub"),
    "synthesize": (run_synthesize, "make training pairs from images and edit instructions"),
}
CONTINUED = ("fetch", "push", "synthesize")  # the others begin again


def user_path(text: str) -> Path:
    """Return the path of an option; the shell does not expand the `~` of `--option=~/folder`."""
    return Path(os.path.expanduser(text))


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the options of a command; `settings` are those that synthesis parses itself."""
    parser = argparse.ArgumentParser(prog="python -m dataset_syned", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    parsers = {
        name: commands.add_parser(name, help=text, description=text, add_help=name != "synthesize")
        for name, (_, text) in COMMANDS.items()
    }
    for name, command in parsers.items():
        if name in ("list", "synthesize"):
            continue
        command.add_argument("benchmark", help="its name, see `list`")
        command.add_argument("--config", help="one of its configs; default: the first in `list`")
        command.add_argument("--data_dir", type=user_path, help="folder of the raw files; default: data/BENCHMARK")
    for name in ("prepare", "export", "push"):
        parsers[name].add_argument(
            "--max_side",
            type=int,
            help="pixels: larger images are stored with a longer side of this many; default: the files as they are",
        )
    parsers["prepare"].add_argument("--num_proc", type=int, default=1, help="number of processes")
    parsers["prepare"].add_argument(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="at a broken pair: stop, or leave it out and list it in BENCHMARK-skipped.jsonl",
    )
    parsers["check"].add_argument("--report", type=user_path, help="also write the problems to this JSON file")
    parsers["export"].add_argument("folder", type=user_path, help="new or empty folder")
    parsers["export"].add_argument(
        "--format",
        choices=EXPORT_FORMATS,
        default="parquet",
        help="Parquet with a card (default), COCO references, the CLEVR-Change layout, JSON lines with image files "
        "for TRL, LLaMA-Factory and ms-swift, or Parquet for TRL",
    )
    parsers["export"].add_argument(
        "--prompt",
        help="question of messages and prompt_completion; default: What changed between the two images?",
    )
    parsers["export"].add_argument(
        "--max_shard_size", default="500MB", help="most bytes of a Parquet file; default: 500MB"
    )
    parsers["push"].add_argument("repo_id", help="<user>/<name> on the Hub")
    parsers["push"].add_argument("--private", action="store_true", help="if the repository has to be created")
    arguments, settings = parser.parse_known_args(argv)
    if settings and arguments.command != "synthesize":
        parser.error(f"unrecognized arguments: {' '.join(settings)}")
    arguments.settings = settings
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit status."""
    from common_idc.commands import lasting_output, run_command

    arguments = parse_arguments(argv)

    def command() -> int:
        try:
            status = COMMANDS[arguments.command][0](arguments)
        except ImportError as error:
            extra = "synthesis" if arguments.command == "synthesize" else "data"
            raise ImportError(f'{error}; install what this needs: pip install "blip2idc[{extra}]"') from error
        except Exception as error:
            if isinstance(error.__context__, KeyboardInterrupt):  # a library failed to end its processes after it
                raise error.__context__ from None
            raise
        sys.stdout.flush()  # notice here, not at exit, that the reader of a pipe has ended
        return status

    again = "run the same command again" + " to continue" * (arguments.command in CONTINUED)
    # The work of hours does not end with the reader of its messages, e.g. a `tee` that is killed.
    with lasting_output() if arguments.command not in ("list", "check") else nullcontext():
        return run_command(command, ImportError, ValueError, OSError, RuntimeError, interrupted=again)


if __name__ == "__main__":
    sys.exit(main())
