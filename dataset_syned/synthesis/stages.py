"""The six stages in order, each from files to files, each alone if it is asked for.

    DIR/sources/       before images, with what the source tells about them      (made with the first stage)
    DIR/instructions/  one instruction per image
    DIR/edits/         candidates for the after image
    DIR/scores/        how good each candidate is
    DIR/selection/     which are kept, and why not the others
    DIR/paraphrases/   captions
    DIR/rows/          lines of the data set in DIR/dataset/

A shard that is there is not made again. What was made from other settings is not mixed with new files: an error names
the folders to remove.
"""

import dataclasses
import json
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from tqdm import tqdm

from .settings import STAGES, SettingsError, SynthesisConfig
from .shards import Row, Share, StageFolder, batched, write_text
from .sources import SCHEMA as SOURCES
from .sources import count_pairs, write_sources

SETTINGS = "settings.json"
Inputs = dict[str, Row]  # of one pair: stage -> row


def worker(config: SynthesisConfig, stage: str) -> Any:
    """What computes a stage's rows. Imported here, because torch and diffusers take seconds and not all need them."""
    if stage == "instructions":
        from .instructions import Instructions as Worker
    elif stage == "edits":
        from .editing import Editing as Worker
    elif stage == "scores":
        from .ranking import Ranking as Worker
    elif stage == "selection":
        from .selection import Selection as Worker
    else:
        from .paraphrasing import Paraphrasing as Worker
    return Worker(config)


def schema_of(stage: str) -> pa.Schema | None:
    if stage == "sources":
        return SOURCES
    if stage == "edits":
        from .editing import SCHEMA

        return SCHEMA
    return None


def folder_of(config: SynthesisConfig, stage: str) -> StageFolder:
    return StageFolder(Path(config.output_dir) / stage, schema_of(stage))


def claim(config: SynthesisConfig, stage: str) -> None:
    """Writes a stage's settings beside its files. Raises: SettingsError where its files were made from others."""
    path = Path(config.output_dir) / stage / SETTINGS
    now = json.loads(json.dumps(config.made_from(stage)))
    if path.is_file():
        then = json.loads(path.read_text(encoding="utf-8"))
        other = sorted(name for name in {*now, *then} if now.get(name) != then.get(name))
        if other:
            after = ["sources"] * (stage == "instructions") + list(STAGES[STAGES.index(stage) :])
            raise SettingsError(
                f"{str(path.parent)!r} was made with {other[0]}={then.get(other[0])!r}, now it is "
                f"{now.get(other[0])!r}: remove {', '.join(after)} and dataset there, or name another output_dir"
            )
    else:
        write_text(path, json.dumps(now, indent=2, ensure_ascii=False) + "\n")


def first_problem(inputs: Inputs) -> str:
    return next((row["problem"] for row in inputs.values() if row["problem"]), "")


def attempt(work: Callable[[list[Inputs]], list[Row]], batch: list[Inputs]) -> list[Row]:
    """The rows of a batch. Where it fails, each pair is tried alone, so that only the guilty one keeps the reason."""
    try:
        return work(batch)
    except SettingsError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: out of memory, too
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if len(batch) == 1:
        return [{"problem": reason}]
    return [row for inputs in batch for row in attempt(work, [inputs])]


def batches(stage: Any, pairs: list[Inputs]) -> list[list[Inputs]]:
    """Pairs that are computed together: of one group, where the stage has groups."""
    group = getattr(stage, "group", lambda _: 0)
    ordered = sorted(pairs, key=group)
    return [batch for _, same in groupby(ordered, key=group) for batch in batched(list(same), stage.batch_size)]


def make_shard(stage: Any, name: str, config: SynthesisConfig, shard: int, bar: tqdm) -> None:
    folder = folder_of(config, name)
    rows = {before: folder_of(config, before).read(shard) for before in stage.needs}
    pairs = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
    done = folder.done(shard)
    bar.update(len(done))
    positions = {id(inputs): position for position, inputs in enumerate(pairs)}
    broken = [inputs for inputs in pairs if first_problem(inputs)]
    whole = [inputs for inputs in pairs if not first_problem(inputs)]
    # Batches of the whole shard, done or not: a batch that is made again is made of the same pairs.
    for batch, work in [*((b, stage.work) for b in batches(stage, whole)), (broken, passed_over)]:
        batch = [inputs for inputs in batch if positions[id(inputs)] not in done]
        if batch:
            made = attempt(work, batch)
            folder.write_part(
                shard, [{**row, "position": positions[id(inputs)]} for inputs, row in zip(batch, made, strict=True)]
            )
            bar.update(len(batch))
    folder.finish(shard, len(pairs))


def passed_over(batch: list[Inputs]) -> list[Row]:
    """Pairs that an earlier stage could not make."""
    return [{"problem": first_problem(inputs)} for inputs in batch]


def my_shards(config: SynthesisConfig, share: Share) -> list[int]:
    total = count_pairs(folder_of(config, "sources"))
    if total is None:
        raise FileNotFoundError(
            f"{config.output_dir!r} holds no list of pairs yet: run the stage 'instructions' first"
        )
    return [shard for shard in range(-(-total // config.shard_pairs)) if shard in share]


def run_stage(config: SynthesisConfig, name: str, share: Share) -> None:
    claim(config, name)
    if name == "instructions":
        write_sources(config, folder_of(config, "sources"), share)
    folder = folder_of(config, name)
    waiting = [shard for shard in my_shards(config, share) if not folder.has(shard)]
    for shard in set(my_shards(config, share)) - set(waiting):
        folder.remove_parts(shard)  # left by a kill between the last two steps of a shard
    if not waiting:
        return
    stage = worker(config, name)
    pairs = sum(pairs_in(config, shard) for shard in waiting)
    with tqdm(total=pairs, unit="pair", desc=f"{name:12}", disable=share.process > 0) as bar:
        for shard in waiting:
            make_shard(stage, name, config, shard, bar)


def pairs_in(config: SynthesisConfig, shard: int) -> int:
    return min(config.shard_pairs, count_pairs(folder_of(config, "sources")) - shard * config.shard_pairs)


def read_all(config: SynthesisConfig, shard: int) -> dict[str, list[Row]]:
    """The rows of all stages but the last, in order."""
    return {name: folder_of(config, name).read(shard) for name in ("sources", *STAGES[:-1])}


def run_rows(config: SynthesisConfig, share: Share) -> None:
    """Images and lines of this process's shards; the process that finishes last joins all lines."""
    from .reporting import finish
    from .rows import DATASET, Rows

    claim(config, "rows")
    folder, root = folder_of(config, "rows"), Path(config.output_dir) / DATASET
    maker, shards = Rows(config, root), my_shards(config, share)
    for shard in tqdm(shards, unit="shard", desc=f"{'rows':12}", disable=share.process > 0):
        if not folder.has(shard):
            lines = maker.of_shard(shard, read_all(config, shard))
            folder.write_whole(shard, [{"line": entry} for entry in lines])
    everyones = my_shards(config, Share())
    if all(folder.has(shard) for shard in everyones):
        finish(config, everyones, folder, lambda shard: read_all(config, shard))


def write_config(config: SynthesisConfig) -> None:
    entries = {name: dict(value) if isinstance(value, dict) else value for name, value in vars(config).items()}
    text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
    write_text(Path(config.output_dir) / "synthesis_config.yaml", text)


def synthesize(config: SynthesisConfig) -> None:
    """All stages, or the one that is asked for, of this process's share of the pairs.

    Raises: ValueError, OSError that say what to do.
    """
    config.check()
    share = Share.of_this_process()
    write_config(dataclasses.replace(config, stage="all"))
    for name in STAGES if config.stage == "all" else (config.stage,):
        if name == "rows":
            run_rows(config, share)
        else:
            run_stage(config, name, share)
