"""Score files of predictions and compare results, without model and images.

python -m metric_idc score predictions.jsonl --output_dir scores
python -m metric_idc score results.json --references references.json --output_dir scores     # COCO files
python -m metric_idc compare runs/toy/eval/toy-test runs/base/eval/toy-test
"""

import argparse
import sys
from pathlib import Path

from .comparison import compare, renew_table, results_table
from .controls import describe_controls, merge_signatures, previous_result, score_with_controls
from .predictions import read_coco, read_predictions
from .protocols import PROTOCOLS
from .result_files import PREDICTIONS, control_predictions, remove_results, write_result, write_rows
from .scoring import METRICS


def run_score(arguments: argparse.Namespace) -> None:
    """Score a file of predictions into a results folder, with what an earlier evaluation recorded next to the file."""
    folder, file = arguments.output_dir, arguments.file
    rows = read_coco(file, arguments.references) if arguments.references else read_predictions(file)
    previous = {} if arguments.references else previous_result(file.parent, rows)
    controls = previous.get("controls", {})
    result = score_with_controls(
        rows,
        controls,
        metrics=arguments.metrics,
        constant_caption=previous.get("constant_caption"),
        protocol=arguments.protocol,
        sentence_model=arguments.sentence_model,
    )
    result["signature"] = merge_signatures(previous.get("signature", {}), result["signature"])
    result["signature"]["predictions"] = file.name
    folder.mkdir(parents=True, exist_ok=True)
    remove_results(folder)
    if file.resolve() != (folder / PREDICTIONS).resolve():
        write_rows(folder / PREDICTIONS, rows)
    for name, predictions in controls.items():
        write_rows(folder / control_predictions(name), predictions)
    write_result(folder, result)
    print(results_table({str(file): result}))
    if lines := describe_controls(result["controls"]):
        print(lines)


def run_compare(arguments: argparse.Namespace) -> None:
    """Print the table of several results folders, and write it into a Markdown file if asked."""
    table = compare(arguments.folders, arguments.names or [str(folder) for folder in arguments.folders])
    if arguments.table_in:
        renew_table(arguments.table_in, table)
    print(table)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m metric_idc", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    text = "score a file of predictions: our JSON lines or COCO results"
    score = commands.add_parser("score", help=text, description=text)
    score.set_defaults(run=run_score)
    score.add_argument("file", type=Path, metavar="FILE", help="predictions.jsonl, or COCO results")
    score.add_argument("--references", type=Path, metavar="FILE", help="COCO references, for COCO results")
    score.add_argument("--output_dir", type=Path, required=True, metavar="DIR", help="gets metrics.json, pairs.jsonl")
    score.add_argument("--metrics", nargs="+", metavar="NAME", help=f"of {' '.join(METRICS)}; default: all")
    score.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="standard",
        help="paper: rewrite no-change sentences and drop the last pairs, as the paper's code did",
    )
    score.add_argument("--sentence_model", metavar="DIR", help="sentence-embedding model: adds SentenceSimilarity")
    text = "compare results folders: one table, gains, published scores"
    comparison = commands.add_parser("compare", help=text, description=text)
    comparison.set_defaults(run=run_compare)
    comparison.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="with predictions and metrics.json")
    comparison.add_argument("--names", nargs="+", metavar="NAME", help="names in the table; default: the folders")
    comparison.add_argument(
        "--table_in", type=Path, metavar="FILE", help="Markdown file: replace the table between its result marks"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = parse_arguments(argv)
    try:
        arguments.run(arguments)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
