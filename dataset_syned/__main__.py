"""Image difference captioning data from the command line.

python -m dataset_syned list
python -m dataset_syned fetch syned
python -m dataset_syned prepare syned          # then load_dataset("syned") works from any directory
python -m dataset_syned check spot_the_diff --data_dir data/spot_the_diff --report report.json
python -m dataset_syned export syned ./syned   # then load_dataset("./syned") works
python -m dataset_syned push syned user/syned
python -m dataset_syned synthesize --config configs/synthesis/toy.yaml
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from . import BENCHMARKS, PairBuilder, benchmark_builder, prepare
from .checking import check
from .exporting import EXPORTS, export
from .fetching import fetch
from .pushing import push


def builder_of(arguments: argparse.Namespace, **extra: Any) -> PairBuilder:
    return benchmark_builder(arguments.benchmark, config=arguments.config, root=arguments.data_dir, **extra)


def run_list(_: argparse.Namespace) -> int:
    """A table: name, config, splits with their published counts, licence, where it is, ready or not."""
    rows = [("benchmark", "config", "pairs (train/validation/test)", "licence", "raw files", "prepared")]
    for name, builder in BENCHMARKS.items():
        for config in builder.BUILDER_CONFIGS:
            made = benchmark_builder(name, config=config.name)
            counts = builder.EXPECTED.get(config.name, {})
            shown = "/".join(str(counts.get(split, "-")) for split in ("train", "validation", "test"))
            where = str(made.root) if made.root.is_dir() else "-"
            ready = "ready" if os.path.isdir(made.cache_dir) else "-"
            rows.append((name, config.name, shown if counts else "any", builder.LICENSE or "-", where, ready))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def run_fetch(arguments: argparse.Namespace) -> int:
    builder = builder_of(arguments)
    report = fetch(builder)
    source = f"{report.mirror.repo_id} at {report.mirror.revision[:12]}"
    print(f"{arguments.benchmark}: {len(report.files)} files from {source} lie in {report.root}")
    splits = builder.raw_splits()  # an error that says what is missing, where a mirror does not hold all
    print(f"splits that are whole: {', '.join(splits)}")
    return 0


def run_prepare(arguments: argparse.Namespace) -> int:
    skip_log = None
    if arguments.on_error == "skip":
        skip_log = Path(f"{arguments.benchmark}-skipped.jsonl").resolve()
    builder = builder_of(arguments, skip_log=skip_log)
    started = time.time()
    splits = prepare(builder, arguments.num_proc if arguments.num_proc > 1 else None)
    counts = ", ".join(f"{len(rows)} {split}" for split, rows in splits.items())
    config = "" if builder.config.name == builder.DEFAULT_CONFIG_NAME else f', "{builder.config.name}"'
    print(f'{arguments.benchmark}: {counts}; ready for load_dataset("{arguments.benchmark}"{config})')
    made = os.path.getmtime(os.path.join(builder.cache_dir, "dataset_info.json"))
    if made < started:
        same = "from the same raw files" if builder.root.is_dir() else f"no raw files to compare in {builder.root}"
        print(f"nothing had to be done: prepared on {datetime.fromtimestamp(made):%Y-%m-%d %H:%M}, {same}")
    for note in builder.notes() if builder.root.is_dir() else ():
        print(note)
    if skip_log and skip_log.exists():
        lines = skip_log.read_text(encoding="utf-8").splitlines()
        print(f"{len(lines)} pairs were left out, listed with their reasons in {skip_log}")
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    report = check(builder_of(arguments))
    print(report.summary())
    if arguments.report:
        unfinished = arguments.report.with_name(arguments.report.name + ".tmp")
        unfinished.write_text(json.dumps(report.as_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(unfinished, arguments.report)
    return 1 if report.problems else 0


def run_export(arguments: argparse.Namespace) -> int:
    builder = builder_of(arguments)
    export(builder, prepare(builder), arguments.folder, arguments.format, arguments.max_shard_size)
    print(f"{arguments.benchmark}: written to {arguments.folder}")
    return 0


def run_push(arguments: argparse.Namespace) -> int:
    builder = builder_of(arguments)
    prepare(builder)
    place = push(builder, arguments.repo_id, arguments.private or None)
    print(f"{arguments.benchmark}: pushed to {place}")
    return 0


def run_synthesize(arguments: argparse.Namespace) -> int:
    from .synthesis.settings import parse_config  # the other commands need none of its libraries
    from .synthesis.stages import synthesize

    config = parse_config(arguments.settings)
    if synthesize(config):
        print(f"{config.output_dir}/dataset: made")
    elif config.stage == "all":
        print(f"{config.output_dir}: this process's share is done; the last of the others makes the data set")
    else:
        print(f"{config.output_dir}: {config.stage} done")
    return 0


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], str]] = {
    "list": (run_list, "the benchmarks: counts, licence, where they are, ready or not"),
    "fetch": (run_fetch, "get the raw files from a Hub mirror, or say where they come from"),
    "prepare": (run_prepare, "check all images and write the rows into the cache of `datasets`"),
    "check": (run_check, "compare the raw files with the published counts and look for broken pairs"),
    "export": (run_export, "write Parquet with a card, COCO references, or the CLEVR-Change layout"),
    "push": (run_push, "push the rows to a data set on the Hub"),
    "synthesize": (run_synthesize, "from images and edit instructions to clean training pairs"),
}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dataset_syned", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    parsers = {
        name: commands.add_parser(name, help=text, description=text, add_help=name != "synthesize")
        for name, (_, text) in COMMANDS.items()
    }
    for name, command in parsers.items():
        if name in ("list", "synthesize"):
            continue
        command.add_argument("benchmark", help="its name, see list")
        command.add_argument("--config", help="one of its configs; default: the first that `list` shows")
        command.add_argument("--data_dir", type=Path, help="folder of the raw files; default: data/BENCHMARK")
    parsers["prepare"].add_argument("--num_proc", type=int, default=1, help="processes")
    parsers["prepare"].add_argument(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="at a broken pair: stop, or leave it out and list it",
    )
    parsers["check"].add_argument("--report", type=Path, help="also write the findings to this JSON file")
    parsers["export"].add_argument("folder", type=Path, help="new or empty folder")
    parsers["export"].add_argument("--format", choices=EXPORTS, default="parquet")
    parsers["export"].add_argument("--max_shard_size", default="500MB", help="of a Parquet file")
    parsers["push"].add_argument("repo_id", help="USER/NAME")
    parsers["push"].add_argument("--private", action="store_true")
    arguments, settings = parser.parse_known_args(argv)
    if settings and arguments.command != "synthesize":
        parser.error(f"unrecognized arguments: {' '.join(settings)}")
    arguments.settings = settings  # of synthesis, which has a parser of its own
    return arguments


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    try:
        status = COMMANDS[arguments.command][0](arguments)
        sys.stdout.flush()  # a reader that has gone is noticed here, and not at the end of the process
        return status
    except BrokenPipeError:  # `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as of a program that SIGPIPE ends
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
