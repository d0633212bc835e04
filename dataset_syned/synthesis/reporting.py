"""What a run made: the data set's metadata and card, statistics, the pairs that failed, and a contact sheet."""

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from common_idc.atomic_files import TEMPORARY, write_atomically, write_json, write_text

from .contact_sheet import Panel, draw_sheet
from .rows import DATASET, METADATA, image_after, join_lines
from .selection import ACCEPTED, THRESHOLDS
from .settings import STAGE_NAMES, SynthesisConfig, public_name
from .shards import Row, ShardReader, StageFolder, seed_of

TEMPLATE = Path(__file__).with_name("synthesis_card.md")
REASONS = ("not_finite", *(reason for *_, reason in THRESHOLDS))
SAMPLED = 10_000  # scores that deciles are taken from: within about half a percentage point of all scores' deciles


def category_of(reason: str) -> str:
    """Return a reason without its numbers and names, so that equal reasons are counted together."""
    head = reason.split(": ")[0]
    if head in REASONS:  # what follows are scores
        return head
    return re.sub(r"\d+", "N", re.sub(r"'[^']*'|\"[^\"]*\"", "…", reason))[:80]


class Sample:
    """Up to SAMPLED of all values that were added, each with the same chance (reservoir sampling)."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.added, self.random = 0, random.Random(0)

    def add(self, value: float) -> None:
        self.added += 1
        if len(self.values) < SAMPLED:
            self.values.append(value)
        elif (place := self.random.randrange(self.added)) < SAMPLED:
            self.values[place] = value


@dataclass
class Statistics:
    """Counts over all pairs, and deciles of their scores; memory does not grow with the pairs."""

    problems: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    verdicts: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    captions: Counter[int] = field(default_factory=Counter)
    change_types: Counter[str] = field(default_factory=Counter)
    alterations: Counter[str] = field(default_factory=Counter)
    distractors: Counter[str] = field(default_factory=Counter)
    scores: dict[str, dict[str, Sample]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(Sample)))
    pairs: int = 0
    rows: int = 0

    def add(self, pairs: list[dict[str, Row]]) -> None:
        for inputs in pairs:
            self.pairs += 1
            stage, problem = where_it_failed(inputs)
            if problem:
                self.problems[stage][category_of(problem)] += 1
            for verdict, score in zip(
                inputs["selection"].get("verdicts", ()), inputs["scores"].get("scores", ()), strict=True
            ):
                self.verdicts[category_of(verdict)] += 1
                for name, value in (score or {}).items():
                    if value is not None:
                        self.scores[name]["accepted" if verdict == ACCEPTED else "rejected"].add(value)
            for tried in inputs["paraphrases"].get("tries", ()):
                self.answers[tried["rule"]] += 1

    def add_lines(self, rows: list[Row]) -> None:
        for row in rows:
            line = row["line"]
            self.rows += 1
            self.change_types[line["change_type"] or "unknown"] += 1
            self.captions[len(line["captions"])] += 1
            for name, counts in (("no_change", self.alterations), ("distractor", self.distractors)):
                if name in line["provenance"]:
                    counts[line["provenance"][name]["alteration"]] += 1

    def as_dict(self) -> dict[str, Any]:
        def ordered(counts: Counter[Any]) -> dict[str, int]:
            return {str(name): count for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))}

        return {
            "source_pairs": self.pairs,
            "pairs": self.rows,
            "no_change_pairs": sum(self.alterations.values()),
            "failed_pairs": {stage: ordered(self.problems[stage]) for stage in STAGE_NAMES if stage in self.problems},
            "candidates": ordered(self.verdicts),
            "paraphrase_answers": ordered(self.answers),
            "captions_per_pair": ordered(self.captions),
            "change_types": ordered(self.change_types),
            "no_change": ordered(self.alterations),
            "distractors": ordered(self.distractors),
            "scores": {
                name: {verdict: deciles_of(sample.values) for verdict, sample in sorted(groups.items())}
                for name, groups in sorted(self.scores.items())
            },
        }


def deciles_of(values: list[float]) -> dict[str, float]:
    if len(values) == 1:
        values = values * 2
    deciles = quantiles(values, n=10, method="inclusive")
    return {name: round(deciles[place], 4) for name, place in (("10 %", 0), ("median", 4), ("90 %", 8))}


def where_it_failed(inputs: dict[str, Row]) -> tuple[str, str]:
    """Return the first stage with a problem, and the problem; an unreadable image belongs to the first stage."""
    for stage, row in inputs.items():
        if row["problem"]:
            return ("instructions" if stage == "sources" else stage), row["problem"]
    return "", ""


def write_problems(path: Path, shards: list[int], read: Callable[[int], ShardReader]) -> Statistics:
    """Write problems.jsonl, one line per failed pair, and return the counts for the statistics."""
    statistics = Statistics()

    def write(unfinished: Path) -> None:
        with unfinished.open("w", encoding="utf-8") as file:
            for shard in shards:
                pairs = read(shard).light
                statistics.add(pairs)
                for inputs in pairs:
                    stage, problem = where_it_failed(inputs)
                    if problem:
                        entry = {"pair_id": inputs["sources"]["pair_id"], "stage": stage, "problem": problem}
                        file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    write_atomically(path, write)
    return statistics


def panels(config: SynthesisConfig, shards: list[int], read: Callable[[int], ShardReader]) -> Iterator[Panel]:
    """Yield panels of random candidates, accepted and rejected."""
    rng = random.Random(seed_of(config.seed, "contact sheet"))
    missing = {True: config.sheet_pairs, False: config.sheet_pairs}
    for shard in rng.sample(shards, len(shards)):
        if not any(missing.values()):
            return
        reader = read(shard)
        found = [
            (position, number, verdict == ACCEPTED)
            for position, inputs in enumerate(reader.light)
            for number, verdict in enumerate(inputs["selection"].get("verdicts", ()))
        ]
        for position, number, accepted in rng.sample(found, len(found)):
            if missing[accepted]:
                missing[accepted] -= 1
                yield panel(config, reader.pairs([position])[0], number, accepted)


def panel(config: SynthesisConfig, inputs: dict[str, Row], number: int, accepted: bool) -> Panel:
    """Return the panel of a candidate; an accepted one as the data set has it, with its distractor."""
    image = inputs["edits"]["candidates"][number]["image"]
    return Panel(
        before=inputs["sources"]["image"]["bytes"],
        after=image_after(config, inputs, number)[0] if accepted else image and image["bytes"],
        accepted=accepted,
        captions=inputs["paraphrases"].get("captions") or [inputs["instructions"]["instruction"]],
        verdict=inputs["selection"]["verdicts"][number],
        scores=inputs["scores"]["scores"][number] or {},
    )


def public_settings(config: SynthesisConfig) -> dict[str, Any]:
    """Return the settings without this machine's folders, as JSON."""
    public = {
        name: value for name, value in config.made_from(STAGE_NAMES[-1]).items() if value not in (None, "", [], {})
    }
    for name in ("image_folder", "paraphrase_rules"):
        public.pop(name, None)
    for name in ("editor_model", "clip", "chat_model", "embedding_model"):
        if name in public:
            public[name] = public_name(public[name])
    if "benchmark_options" in public:
        public["benchmark_options"] = {
            key: value for key, value in public["benchmark_options"].items() if key != "data_dir"
        }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in public.items()}


def card(config: SynthesisConfig, statistics: dict[str, Any]) -> str:
    data = DatasetCardData(
        license="other",
        task_categories=["image-to-text"],
        tags=["image-difference-captioning", "synthetic"],
        pretty_name=f"Synthetic edits of {config.benchmark or Path(config.image_folder).name}",
    )
    filled = DatasetCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=data.pretty_name,
        config=public_settings(config),
        statistics=statistics,
    )
    return str(filled)


def finish(
    config: SynthesisConfig, shards: list[int], folder: StageFolder, read: Callable[[int], ShardReader]
) -> None:
    """Join everything; several processes may do it at once, since all write the same.

    Raises: ValueError if no pair was accepted.
    """
    root = Path(config.output_dir)
    statistics = write_problems(root / "problems.jsonl", shards, read)
    for shard in shards:
        statistics.add_lines(folder.read(shard))
    counted = statistics.as_dict()
    write_json(root / "statistics.json", counted)
    sheet = draw_sheet(list(panels(config, shards, read)))
    if sheet is not None:
        write_atomically(root / "contact_sheet.png", lambda unfinished: sheet.save(unfinished, "PNG"))
    if not statistics.rows:
        reasons = counted["candidates"] or {
            name: count for part in counted["failed_pairs"].values() for name, count in part.items()
        }
        raise ValueError(
            f"no pair was accepted: {json.dumps(reasons, ensure_ascii=False)}; see {root / 'problems.jsonl'}"
        )
    for unfinished in (root / DATASET / "images").rglob(f".*{TEMPORARY}"):  # of a process that was killed
        unfinished.unlink(missing_ok=True)
    write_text(root / DATASET / "README.md", card(config, counted))
    join_lines(folder, shards, root / DATASET / METADATA)
