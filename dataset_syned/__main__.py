"""Prepare benchmarks from the command line.

python -m dataset_syned list
python -m dataset_syned prepare toy        # then load_dataset("toy") works from any directory
"""

import argparse
import sys

from . import BENCHMARKS, benchmark_builder


def list_benchmarks() -> str:
    return "\n".join(f"{name:24} {builder.DESCRIPTION}" for name, builder in BENCHMARKS.items())


def prepare(name: str, processes: int) -> str:
    builder = benchmark_builder(name)
    builder.download_and_prepare(num_proc=processes if processes > 1 else None)
    counts = ", ".join(f"{split.num_examples} {split.name}" for split in builder.info.splits.values())
    return f'{name}: {counts}; ready for load_dataset("{name}")'


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dataset_syned", description="Image difference captioning data.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the benchmarks and what they are")
    preparing = commands.add_parser("prepare", help="write a benchmark's rows into the cache of `datasets`")
    preparing.add_argument("benchmark", help="its name, see list")
    preparing.add_argument("--num_proc", type=int, default=1, help="processes")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "list":
            print(list_benchmarks())
        else:
            print(prepare(arguments.benchmark, arguments.num_proc))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
