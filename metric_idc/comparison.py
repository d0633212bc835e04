"""Results side by side: one table, gains with intervals and p-values, and what peers published."""

import re
from pathlib import Path
from typing import Any

from .published_scores import published
from .result_files import read_result, read_scored_predictions, write_whole
from .scoring import HEADLINE, paired_differences

TABLE_MARKS = ("<!-- results: generated -->", "<!-- results: end -->")


def compare(folders: list[Path], names: list[str]) -> str:
    """Return a Markdown table of several results, the gain of the first over each other one, and published scores.

    Args:
        folders: results folders of the same pairs, each with predictions.jsonl and metrics.json.
        names: what the table calls them.

    Raises: ValueError for names that are not unique, or results that cannot be compared; FileNotFoundError.
    """
    if len(names) != len(folders) or len(set(names)) < len(names):
        raise ValueError(f"{len(folders)} folders need {len(folders)} different names, got {' '.join(names)}")
    results = {name: read_result(folder) for name, folder in zip(names, folders, strict=True)}
    lines = [results_table(results), *describe_protocols(results)]
    first, *others = (
        read_scored_predictions(folder, result) for folder, result in zip(folders, results.values(), strict=True)
    )
    for name, rows in zip(names[1:], others, strict=True):
        gains = paired_differences(first, rows)
        lines.append(
            f"\n{names[0]} minus {name} (95 % interval of a paired bootstrap, p-value of a paired permutation test):\n"
        )
        lines += [describe_gain(score, gains[score]) for score in HEADLINE if score in gains]
    lines += peers_table(next(iter(results.values()))["signature"].get("benchmark"))
    return "\n".join(lines)


def table_row(
    name: str, scores: dict[str, float], interval: list[float] | None = None, accuracy: float | None = None
) -> str:
    """Return a row of the table."""
    cells = [f"{scores[score]:.3f}" if score in scores else "" for score in HEADLINE]
    if interval:
        cells[-1] += f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    return f"| {name} | {' | '.join(cells)} | {'' if accuracy is None else f'{accuracy:.1%}'} |"


def in_cell(text: str) -> str:
    """Return a text for a cell of a Markdown table: in one line, pipes escaped."""
    return " ".join(text.split()).replace("|", "\\|")


def results_table(results: dict[str, dict[str, Any]]) -> str:
    """Return a Markdown table with a row per result, and the controls of the first."""
    lines = [f"| | {' | '.join(HEADLINE)} [95 %] | right change type |", "|---" * (len(HEADLINE) + 2) + "|"]
    for name, result in results.items():
        interval = result.get("intervals", {}).get("CIDEr")
        lines.append(table_row(name, result["scores"], interval, result.get("change_type_accuracy")))
    controls = next(iter(results.values()))["controls"]
    control = controls["constant_caption"]
    origin = "" if control["chosen_from"] == "train" else " (the best of the scored references)"
    lines.append(table_row(f'constant caption: "{in_cell(control["caption"])}"{origin}', control["scores"]))
    if "copy" in controls:
        lines.append(table_row("before image given twice", controls["copy"]["scores"]))
    return "\n".join(lines)


def describe_gain(score: str, gain: dict[str, float]) -> str:
    """Return a gain with interval and p-value as a list item."""
    interval = f"[{gain['low']:+.3f}, {gain['high']:+.3f}]"
    return f"- {score} {gain['difference']:+.3f} {interval}, p = {gain['p_value']:.3f}"


def describe_protocols(results: dict[str, dict[str, Any]]) -> list[str]:
    """Return warnings about different protocols, and about gains that are not of the scores in the table."""
    protocols = {name: result["signature"].get("protocol", "standard") for name, result in results.items()}
    lines = []
    if len(set(protocols.values())) > 1:
        described = ", ".join(f"{name}: {protocol}" for name, protocol in protocols.items())
        lines.append(f"\nThese scores cannot be compared, their protocols differ ({described}).")
    if len(results) > 1 and set(protocols.values()) != {"standard"}:
        lines.append("\nThe gains below use all predictions as they are, whatever the protocol of the scores above.")
    return lines


def peers_table(benchmark: str | None) -> list[str]:
    """Return a Markdown table of what was published for a benchmark, in per cent as papers give it."""
    peers = published(benchmark) if benchmark else []
    if not peers:
        return []
    lines = [f"\nPublished for {benchmark}, in per cent; splits and protocols may differ:\n"]
    lines += [f"| | {' | '.join(HEADLINE)} | confidence | source |", "|---" * (len(HEADLINE) + 3) + "|"]
    for peer in peers:
        cells = [f"{peer['scores'][score]:.1f}" if score in peer["scores"] else "" for score in HEADLINE]
        source = ": ".join(filter(None, (peer["source"], peer["note"])))
        lines.append(f"| {peer['model']} | {' | '.join(cells)} | {peer['confidence']} | {source} |")
    return lines


def renew_table(file: Path, table: str) -> None:
    """Replace the text between the two result marks of a Markdown file.

    Raises: ValueError unless the file contains each mark once.
    """
    text = file.read_text(encoding="utf-8")
    start, end = TABLE_MARKS
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"{file} must contain the lines {start} and {end} once each")
    pattern = re.escape(start) + ".*" + re.escape(end)
    renewed = re.sub(pattern, lambda _: f"{start}\n{table}\n{end}", text, flags=re.DOTALL)
    write_whole(file, lambda unfinished: unfinished.write_text(renewed, encoding="utf-8"))
