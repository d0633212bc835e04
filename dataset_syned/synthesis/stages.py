"""The six stages in order, each from files to files; each can run alone.

    DIR/sources/       before images, with what is known about them              (made with the first stage)
    DIR/instructions/  one instruction per image
    DIR/edits/         candidates for the after image
    DIR/scores/        how good each candidate is
    DIR/selection/     which are kept, and why not the others
    DIR/paraphrases/   captions
    DIR/rows/          lines of the data set in DIR/dataset/

An existing shard is not made again. Files made with other settings are not mixed with new ones: an error names the
folders to remove.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common_idc.atomic_files import write_json, write_text
from common_idc.folder_lock import LOCK, folder_lock
from common_idc.provenance import file_sha256
from common_idc.settings import as_yaml

from .meaning import Parser
from .schemas import SCHEMAS
from .settings import STAGE_NAMES, STAGES, SettingsError, SynthesisConfig
from .shards import Row, ShardReader, Share, StageFolder, batched
from .sources import count_pairs, write_sources

SETTINGS = "settings.json"
ERROR = re.compile(r"\w+: ")  # how `Attempts` records an error; other problems begin differently
FAILURES = 20  # errors in a row without a single success: then the cause is not the data
Inputs = dict[str, Row]  # of one pair: stage -> row
BEFORE_ROWS = ("sources", *STAGE_NAMES[:-1])


def stage_class(stage: str) -> Any:
    """Return the class that computes a stage.

    It has `inputs`, the stages whose rows it needs, `reads_images`, `batch_size` and `work(batch) -> rows`. Imported
    here, because torch and diffusers take seconds and not every stage needs them.
    """
    return getattr(import_module(f".{stage}", __package__), STAGES[stage])


def folder_of(config: SynthesisConfig, stage: str) -> StageFolder:
    return StageFolder(Path(config.output_dir) / stage, SCHEMAS.get(stage))


def check_settings_unchanged(config: SynthesisConfig, stage: str) -> None:
    """Write a stage's settings next to its files.

    Raises: SettingsError if its files were made with other settings.
    """
    path = Path(config.output_dir) / stage / SETTINGS
    now = json.loads(json.dumps(config.made_from(stage)))
    if stage == "instructions" and config.image_folder:
        metadata = Path(config.image_folder) / "metadata.jsonl"
        now["metadata.jsonl"] = file_sha256(metadata) if metadata.is_file() else None
    then = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if then is not None and then != now and not folder_of(config, stage).is_empty():
        other = next(name for name in sorted({*now, *then}) if now.get(name) != then.get(name))
        after = ["sources"] * (stage == "instructions") + list(STAGE_NAMES[STAGE_NAMES.index(stage) :])
        raise SettingsError(
            f"{str(path.parent)!r} was made with {other}={then.get(other)!r}, now it is {now.get(other)!r}: remove "
            f"{', '.join(after)} and dataset there, or name another output_dir"
        )
    if then != now:
        write_json(path, now)


def first_problem(inputs: Inputs) -> str:
    return next((row["problem"] for row in inputs.values() if row["problem"]), "")


class Attempts:
    """Computation of batches; a failing batch is retried pair by pair, so that only the faulty pair is marked."""

    def __init__(self, work: Callable[[list[Inputs]], list[Row]]):
        self.work, self.failed = work, 0

    def rows(self, batch: list[Inputs]) -> list[Row]:
        """Return the rows of a batch.

        Raises: SettingsError; RuntimeError after FAILURES failed pairs in a row.
        """
        try:
            rows = self.work(batch)
        except SettingsError:
            raise
        except Exception as error:  # of any library: one pair must not end a run of days
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        else:
            self.failed = 0
            return rows
        if len(batch) > 1:
            return [row for inputs in batch for row in self.rows([inputs])]
        self.failed += 1
        if self.failed == FAILURES:
            raise RuntimeError(f"{FAILURES} pairs in a row failed, so the cause is not the data: {reason}")
        return [{"problem": reason}]


def batches(stage: Any, pairs: dict[int, Inputs]) -> list[list[int]]:
    """Return the positions of pairs that are computed together, all of one group if the stage has groups."""

    def group(position: int) -> Any:
        return stage.group(pairs[position]) if hasattr(stage, "group") else 0

    ordered = sorted(pairs, key=group)
    return [batch for _, same in groupby(ordered, key=group) for batch in batched(list(same), stage.batch_size)]


def reader_of(config: SynthesisConfig, names: Sequence[str], shard: int) -> ShardReader:
    return ShardReader({name: folder_of(config, name) for name in names}, shard)


def make_shard(stage: Any, name: str, config: SynthesisConfig, shard: int, bar: tqdm, attempts: Attempts) -> None:
    folder = folder_of(config, name)
    reader = reader_of(config, stage.inputs, shard)
    pairs = dict(enumerate(reader.light))
    done = folder.done(shard)
    bar.update(len(done))
    broken = [position for position, inputs in pairs.items() if first_problem(inputs)]
    whole = {position: inputs for position, inputs in pairs.items() if position not in broken}
    # Batches of the whole shard, done or not: a batch that is made again is made of the same pairs.
    for batch in batches(stage, whole):
        batch = [position for position in batch if position not in done]
        if batch:
            rows = attempts.rows(
                reader.pairs(batch) if stage.reads_images else [pairs[position] for position in batch]
            )
            write(folder, shard, batch, rows, bar)
    broken = [position for position in broken if position not in done]
    if broken:  # an earlier stage could not make these
        write(folder, shard, broken, [{"problem": first_problem(pairs[position])} for position in broken], bar)
    folder.finish(shard, len(pairs))


def write(folder: StageFolder, shard: int, positions: list[int], rows: list[Row], bar: tqdm) -> None:
    folder.write_part(shard, [{**row, "position": position} for position, row in zip(positions, rows, strict=True)])
    bar.update(len(positions))


def my_shards(config: SynthesisConfig, share: Share) -> list[int]:
    total = count_pairs(folder_of(config, "sources"))
    if total is None:
        raise FileNotFoundError(
            f"{config.output_dir!r} contains no list of pairs yet: run the stage 'instructions' first"
        )
    return [shard for shard in range(-(-total // config.shard_pairs)) if shard in share]


def run_stage(config: SynthesisConfig, name: str, share: Share, **options: Any) -> None:
    """Make the missing shards of a share.

    Args:
        options: of the stage's class.
    """
    check_settings_unchanged(config, name)
    if name == "instructions":
        write_sources(config, folder_of(config, "sources"), share)
    folder = folder_of(config, name)
    folder.sweep(share)
    waiting = [shard for shard in my_shards(config, share) if not folder.has(shard)]
    if not waiting:
        return
    stage = stage_class(name)(config, **options)
    attempts = Attempts(stage.work)
    total, size = count_pairs(folder_of(config, "sources")), config.shard_pairs
    pairs = sum(min(size, total - shard * size) for shard in waiting)
    with tqdm(total=pairs, unit="pair", desc=f"{name:12}", disable=share.process > 0) as bar:
        for shard in waiting:
            make_shard(stage, name, config, shard, bar, attempts)


def reopen_failed(config: SynthesisConfig, share: Share) -> int:
    """Remove pairs that failed with an error from their shards, which are then finished again; return their number."""
    count = 0
    for shard in my_shards(config, share):
        for number, name in enumerate(STAGE_NAMES[:-1]):
            folder = folder_of(config, name)
            rows = folder.read(shard, light=True) if folder.has(shard) else []
            failed = [row["position"] for row in rows if ERROR.match(row["problem"])]
            if failed:
                for later in reversed(STAGE_NAMES[number + 1 :]):
                    folder_of(config, later).remove(shard)
                folder.reopen(shard, failed)
                count += len(failed)
                break  # later stages only passed them over
    return count


def run_rows(config: SynthesisConfig, share: Share) -> bool:
    """Write images and lines of this process's shards; the last process joins all lines and returns True."""
    from .reporting import finish
    from .rows import DATASET, Rows

    check_settings_unchanged(config, "rows")
    folder, root = folder_of(config, "rows"), Path(config.output_dir) / DATASET
    folder.sweep(share)
    maker, shards = Rows(config, root), my_shards(config, share)
    for shard in tqdm(shards, unit="shard", desc=f"{'rows':12}", disable=share.process > 0):
        if not folder.has(shard):
            lines = maker.of_shard(shard, reader_of(config, BEFORE_ROWS, shard))
            folder.write_whole(shard, [{"line": entry} for entry in lines])
    everyones = my_shards(config, Share())
    complete = all(folder.has(shard) for shard in everyones)
    if complete:
        finish(config, everyones, folder, lambda shard: reader_of(config, BEFORE_ROWS, shard))
    return complete


@contextmanager
def share_lock(root: Path, share: Share) -> Iterator[None]:
    """Lock a share of a run's folder until the block ends.

    Raises: OSError if another process makes the same share, or belongs to a run with another number of processes.
    """
    with folder_lock(root, root / f"{LOCK}-{share.process}-of-{share.processes}"):
        for other in root.glob(f"{LOCK}-*-of-*"):
            if not other.name.endswith(f"-of-{share.processes}"):
                with folder_lock(root, other):  # nobody has it
                    pass
        yield


def write_config(config: SynthesisConfig) -> None:
    """Write the settings, enough to repeat the run."""
    write_text(Path(config.output_dir) / "synthesis_config.yaml", as_yaml(config))


def synthesize(config: SynthesisConfig, parser: Parser | None = None) -> bool:
    """Run all stages, or the one that the config names, for this process's share of the pairs.

    Args:
        parser: reads the changes that a sentence states; without one, only the words of paraphrases are checked.

    Returns: whether the data set is there now; False while other processes are at work, or after an earlier stage.

    Raises: ValueError, OSError, RuntimeError that say what to do.
    """
    config.check()
    share, complete = Share.of_this_process(), False
    with share_lock(Path(config.output_dir), share):
        if config.retry_failed:
            tqdm.write(f"{reopen_failed(config, share)} failed pairs are made again")
        write_config(dataclasses.replace(config, stage="all", retry_failed=False))
        for name in STAGE_NAMES if config.stage == "all" else (config.stage,):
            if name == "rows":
                complete = run_rows(config, share)
            else:
                run_stage(config, name, share, **({"parser": parser} if name == "paraphrases" else {}))
    return complete
