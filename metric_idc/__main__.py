"""Score files of predictions, compare results and scores, write tasks for lmms-eval; without images.

python -m metric_idc score predictions.jsonl --output_dir scores
python -m metric_idc score results.json --references references.json --output_dir scores      (COCO files)
python -m metric_idc agreement judged.jsonl             (sentences that people judged)
python -m metric_idc lmms_task spot_the_diff --data ./spot_the_diff     (a task for lmms-eval)
python -m metric_idc compare runs/mine/eval/photo_edits-test runs/base/eval/photo_edits-test --names ours base
"""

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from .agreement import EXAMPLES, agreement, agreement_table
from .comparison import compare, describe_result, renew_table
from .controls import EarlierResult, earlier_result
from .lmms_task import write_task
from .predictions import read_coco, read_predictions
from .protocols import PROTOCOLS
from .results import CHAT_ANSWERS, PREDICTIONS, control_predictions, remove_results, write_predictions, write_results
from .scoring import METRICS, score_rows

CHAT_PLACE = "a folder, or a server such as http://127.0.0.1:8000 (its key is read from OPENAI_API_KEY)"


def score_file(file: Path, folder: Path, references: Path | None = None, **scoring: Any) -> dict[str, Any]:
    """Score a file of predictions and write the results folder; a failure adds only the answers of chat models.

    If the file's own folder contains scores of these predictions, their signature and controls are used again, so
    that the result equals the recorded one.

    Args:
        references: COCO references, if `file` is a COCO results file.
        scoring: keywords of `score_rows`.
    """
    rows = read_coco(file, references) if references else read_predictions(file)
    earlier = EarlierResult() if references else earlier_result(file.parent, rows)
    result = score_rows(
        rows,
        constant_caption=earlier.constant_caption,
        same_image_twice=earlier.same_image_twice,
        chat_answers=folder / CHAT_ANSWERS,
        **scoring,
    )
    result["controls"] |= earlier.controls_for(rows, result)
    result["signature"] |= earlier.facts_beyond(result["signature"]) or {"predictions": file.name}
    remove_results(folder)
    if file.resolve() != (folder / PREDICTIONS).resolve():
        write_predictions(rows, folder / PREDICTIONS)
    for name, predictions in earlier.predictions.items():
        write_predictions(predictions, folder / control_predictions(name))
    write_results(folder, result)
    return result


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the arguments of one of the commands, `score`, `compare`, `agreement` or `lmms_task`."""
    parser = argparse.ArgumentParser(
        prog="python -m metric_idc", description=__doc__.split("\n")[0], allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    score = commands.add_parser("score", help="score a file of predictions", allow_abbrev=False)
    score.add_argument("file", type=Path, help="predictions as JSON lines, or a COCO results file")
    score.add_argument("--references", type=Path, help="COCO references of a COCO results file")
    score.add_argument(
        "--output_dir", type=Path, required=True, help="folder for predictions.jsonl, pairs.jsonl, metrics.json"
    )
    score.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="standard",
        help="paper: rewrite no-change sentences and drop the last batch, as the paper's code does",
    )
    score.add_argument(
        "--paper_batch_size", type=int, default=16, help="batch size of the paper protocol (default: %(default)s)"
    )
    score.add_argument("--unit_parser", help=f"chat model that reads difference units in place of rules: {CHAT_PLACE}")
    comparison = commands.add_parser("compare", help="print one table of several results", allow_abbrev=False)
    comparison.add_argument("folders", nargs="+", type=Path, help="results folders")
    comparison.add_argument("--names", nargs="+", help="a name per folder; default: the folders")
    comparison.add_argument(
        "--table_in", type=Path, help="Markdown file whose table between the result marks is replaced"
    )
    people = commands.add_parser("agreement", help="compare scores with people's judgements", allow_abbrev=False)
    people.add_argument("file", type=Path, help=f"JSON lines such as {EXAMPLES[0]} or {EXAMPLES[1]}")
    task = commands.add_parser("lmms_task", help="write a benchmark as a task for lmms-eval", allow_abbrev=False)
    task.add_argument("name", help="of the benchmark; the task is idc_NAME")
    task.add_argument("--data", help="folder or Hub id of its Parquet export; default: NAME, as prepared there")
    task.add_argument("--config", help="of the data, if it has several")
    task.add_argument("--split", default="test", help="default: %(default)s")
    task.add_argument("--output_dir", type=Path, help="default: lmms_tasks/idc_NAME")
    for command in (score, people, task):
        command.add_argument(
            "--metrics", nargs="+", metavar="NAME", help=f"some of {' '.join(METRICS)}; default: all available"
        )
    for command in (score, people):
        command.add_argument(
            "--sentence_model",
            help="folder of a sentence-embedding model: adds similarities of sentences and of the things that changed",
        )
        command.add_argument("--judge", help=f"chat model that judges the predictions: {CHAT_PLACE}")
        command.add_argument(
            "--judge_model",
            help="its name at the server, default: the first there; kept answers of a named one need no server",
        )
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> None:
    """Run the command and print its table."""
    if arguments.command == "compare":
        table = compare(arguments.folders, arguments.names or list(map(str, arguments.folders)))
        if arguments.table_in:
            renew_table(arguments.table_in, table)
        print(table)
        return
    if arguments.command == "agreement":
        options = {name: getattr(arguments, name) for name in ("metrics", "sentence_model", "judge", "judge_model")}
        kept = arguments.file.with_suffix(f".{CHAT_ANSWERS}")
        found = agreement(arguments.file, chat_answers=kept, **options)
        print(agreement_table(found.scores))
        if found.chats:
            print(found.chats)
        return
    if arguments.command == "lmms_task":
        options = (arguments.output_dir, arguments.data, arguments.config, arguments.split, arguments.metrics)
        folder = write_task(arguments.name, *options)
        if arguments.data is None:
            print(f"it reads what `python -m dataset_syned prepare {arguments.name}` has prepared")
        print(f"{folder}: lmms-eval --include_path {folder.parent} --tasks idc_{arguments.name} --model ...")
        return
    names = ("metrics", "protocol", "paper_batch_size", "sentence_model", "judge", "unit_parser", "judge_model")
    scoring = {name: getattr(arguments, name) for name in names}
    result = score_file(arguments.file, arguments.output_dir, arguments.references, **scoring)
    print(describe_result(str(arguments.file), result))
    print(f"For a page to look at: python -m run_idc.report {arguments.output_dir}")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    try:
        run(parse_arguments(argv))
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command again", file=sys.stderr)
        return 128 + signal.SIGINT  # as a shell reports it
    return 0


if __name__ == "__main__":
    sys.exit(main())
