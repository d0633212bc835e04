"""Results side by side, in Markdown: one table, the gains of the first result, and what peers published."""

import re
from pathlib import Path
from typing import Any

from .change_probability import describe_change_probability
from .judge import judged_differences
from .predictions import read_predictions
from .published_scores import published
from .results import METRICS, PAIRS, PREDICTIONS, read_pair_scores, read_result, write_text
from .scoring import HEADLINE, paired_differences, predictions_hash

WITH_INTERVAL = ("CIDEr", "Unit-Action-F1")  # in the table; metrics.json has all intervals
TABLE_MARKS = ("<!-- results: generated -->", "<!-- results: end -->")

Result = dict[str, Any]


def compare(folders: list[Path], names: list[str]) -> str:
    """Return the table of several results, the gains of the first over each of the others, and the peers.

    Args:
        folders: results folders; each contains predictions.jsonl and metrics.json.
        names: one per folder, for the table; all different.

    Raises: ValueError or OSError for results that cannot be read or compared.
    """
    if len(names) != len(folders):
        raise ValueError(f"{len(names)} names for {len(folders)} folders: give one name per folder")
    if len(set(names)) < len(names):
        raise ValueError(f"names must differ, got {' '.join(names)}")
    folder_of = dict(zip(names, folders, strict=True))
    results = {name: read_result(folder) for name, folder in folder_of.items()}
    scored = {name: _scored_rows(folder, results[name]) for name, folder in folder_of.items()}
    lines = [results_table(results), *_warnings(results)]
    first = names[0]
    for name in names[1:]:
        gains = paired_differences(scored[first], scored[name])
        if _chat_reads_units(results[first]) or _chat_reads_units(results[name]):
            gains = {score: gain for score, gain in gains.items() if not score.startswith("Unit")}
        judged = ""
        if _judge(results[first]) == _judge(results[name]) != "":
            pair_ids = [row["pair_id"] for row in scored[name]]
            judge_gains, both = judged_differences(
                *(_pair_scores(folder_of[each], pair_ids) for each in (first, name))
            )
            gains |= judge_gains
            judged = f"; Judge scores of the {both} pairs that both have" if both < len(pair_ids) else ""
        lines.append(
            f"\n{first} minus {name} (95 % interval of a paired bootstrap, p-value of a paired permutation test"
            f"{judged}):\n"
        )
        lines += [format_gain(score, gains[score]) for score in HEADLINE if score in gains]
    return "\n".join([*lines, *_peers_table(results[first]["signature"].get("benchmark"))])


def results_table(results: dict[str, Result]) -> str:
    """Return a Markdown table with a row per result, and the controls of the first."""
    columns = _columns([result["scores"] for result in results.values()])
    header = [f"{name} [95 %]" if name in WITH_INTERVAL else name for name in columns]
    lines = [f"| | {' | '.join(header)} | change type accuracy |", "|---" * (len(columns) + 2) + "|"]
    for name, result in results.items():
        intervals = result.get("intervals", {})
        lines.append(_table_row(name, columns, result["scores"], intervals, result.get("change_type_accuracy")))
    controls = next(iter(results.values()))["controls"]
    control = controls["constant_caption"]
    source = "" if control["chosen_from"] == "train" else " (the best of the scored references)"
    named = {f'constant caption: "{_cell(control["caption"])}"{source}': control}
    if "no_change" in controls:
        named[f'always "{controls["no_change"]["caption"]}"'] = controls["no_change"]
    if "same_image_twice" in controls:
        named["before image given twice"] = controls["same_image_twice"]
    return "\n".join([*lines, *(_table_row(name, columns, row["scores"]) for name, row in named.items())])


def describe_result(name: str, result: Result) -> str:
    """Return the table of one result, and what its file has beside scores, in sentences."""
    parts = (describe_controls(result["controls"]), describe_change_probability(result), describe_chats(result))
    return "\n".join(filter(None, (results_table({name: result}), *parts)))


def describe_controls(controls: dict[str, Any]) -> str:
    """Return a line per input control; "" if there are none."""
    lines = []
    if "swapped_images" in controls:
        swapped = controls["swapped_images"]
        share, pairs = swapped["sentence_differs"], swapped["pairs"]
        lines.append(f"images exchanged: the caption differs for {share:.1%} of {pairs} pairs (add or remove)")
    if "identical_images" in controls:
        same = controls["identical_images"]
        lines.append(
            f"before image given twice: {same['said_unchanged']:.1%} of {same['pairs']} captions deny a change"
        )
    return "\n".join(lines)


def describe_chats(result: Result) -> str:
    """Return lines about each chat model that judged or read units; "" if there is none."""
    lines = []
    if judge := result.get("judge"):
        lines.append(
            f"judge: {judge['judged_pairs']} pairs judged; not in its scores: {judge['failed_pairs']} without usable "
            f"answer, {judge['unknown_pairs']} whose change is unknown; asked again: {judge['retries']} times"
        )
        lines += _reasons(judge)
    if parser := result.get("unit_parser"):
        lines.append(
            f"units: {parser['sentences']} sentences read by the chat model, {parser['read_by_rules']} without a "
            f"usable answer read by rules; asked again: {parser['retries']} times"
        )
        lines += _reasons(parser)
    return "\n".join(lines)


def _reasons(facts: dict[str, Any]) -> list[str]:
    """Return why answers of a chat model could not be used, and what helps."""
    if not facts["reasons"]:
        return []
    return [*(f"  {reason}" for reason in facts["reasons"]), "  the same command again asks about these only"]


def format_gain(score: str, gain: dict[str, float]) -> str:
    """Return a list item with one entry of `paired_differences`."""
    interval = f"[{gain['low']:+.3f}, {gain['high']:+.3f}]"
    return f"- {score} {gain['difference']:+.3f} {interval}, p = {gain['p_value']:.3f}"


def renew_table(file: Path, table: str, marks: tuple[str, str] = TABLE_MARKS) -> None:
    """Replace what is between two marks of a Markdown file.

    Raises: ValueError if the file does not contain each of the marks once.
    """
    text = file.read_text(encoding="utf-8")
    start, end = marks
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"{str(file)!r} must contain the lines {start} and {end} once each")
    pattern = re.escape(start) + ".*" + re.escape(end)
    write_text(file, re.sub(pattern, lambda _: f"{start}\n{table}\n{end}", text, flags=re.DOTALL))


def _columns(scores: list[dict[str, float]]) -> list[str]:
    """Return the headline scores, those of units and judges only if at least one of several results has them."""
    return [name for name in HEADLINE if not name.startswith(("Unit", "Judge")) or any(name in own for own in scores)]


def _table_row(
    name: str,
    columns: list[str],
    scores: dict[str, float],
    intervals: dict[str, list[float]] | None = None,
    accuracy: float | None = None,
) -> str:
    cells = [f"{scores[score]:.3f}" if score in scores else "" for score in columns]
    for number, score in enumerate(columns):
        if score in WITH_INTERVAL and score in (intervals or {}):
            cells[number] += " [{:.3f}, {:.3f}]".format(*intervals[score])
    return f"| {name} | {' | '.join(cells)} | {'' if accuracy is None else f'{accuracy:.1%}'} |"


def _cell(text: str) -> str:
    """Return any text as one line that does not end its cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _scored_rows(folder: Path, result: Result) -> list[dict[str, Any]]:
    rows = read_predictions(folder / PREDICTIONS)
    if result["signature"].get("predictions_sha256", "") not in ("", predictions_hash(rows)):
        raise ValueError(
            f"{str(folder / METRICS)!r} contains the scores of other predictions than {PREDICTIONS} next to it: "
            "score them again"
        )
    return rows


def _judge(result: Result) -> str:
    """Return what the signature says of the judge; "" if there was none."""
    return result["signature"].get("metrics", {}).get("Judge", "")


def _chat_reads_units(result: Result) -> bool:
    return "unit_parser" in result


def _pair_scores(folder: Path, pair_ids: list[str]) -> list[dict[str, float]]:
    scores = read_pair_scores(folder)
    missing = [pair_id for pair_id in pair_ids if pair_id not in scores]
    if missing:
        raise ValueError(f"{str(folder / PAIRS)!r} has no pair {missing[0]!r}: score the folder again")
    return [scores[pair_id] for pair_id in pair_ids]


def _warnings(results: dict[str, Result]) -> list[str]:
    """Return warnings if protocols or judges differ, or if the gains are not those of the scores in the table."""
    protocols = {name: result["signature"].get("protocol", "standard") for name, result in results.items()}
    lines = []
    if len(set(protocols.values())) > 1:
        described = ", ".join(f"{name}: {protocol}" for name, protocol in protocols.items())
        lines.append(f"\nThese scores cannot be compared, their protocols differ ({described}).")
    if len({*map(_judge, results.values())} - {""}) > 1:
        lines.append(
            "\nJudge scores cannot be compared: the judges' models or prompts, or what counts as true, differ."
        )
    if len(results) > 1 and any(map(_chat_reads_units, results.values())):
        lines.append("\nGains of units that a chat model has read are not computed.")
    if len(results) > 1 and set(protocols.values()) != {"standard"}:
        lines.append("\nThe gains below use the standard protocol, whatever the protocol of the scores above.")
    return lines


def _peers_table(benchmark: str | None) -> list[str]:
    """Return Markdown lines with what was published for a benchmark; scores in per cent, as in papers."""
    peers = published(benchmark) if benchmark else []
    if not peers:
        return []
    lines = [f"\nPublished for {benchmark}, in per cent; splits and protocols may differ:\n"]
    columns = _columns([peer["scores"] for peer in peers])
    lines += [f"| | {' | '.join(columns)} | confidence | source |", "|---" * (len(columns) + 3) + "|"]
    for peer in peers:
        cells = [f"{peer['scores'][score]:.1f}" if score in peer["scores"] else "" for score in columns]
        source = ": ".join(filter(None, (peer["source"], peer["note"])))
        lines.append(f"| {peer['model']} | {' | '.join(cells)} | {peer['confidence']} | {source} |")
    return lines
