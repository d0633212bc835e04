"""Preparing a data set of pairs: time and memory, as ratios.

    python measurements/preparing.py
    python measurements/preparing.py --pairs 500 --many 2000      # a quick look

1. `prepare` of a folder of pairs against rows of images opened by `Image.open(..).convert("RGB")`, which `datasets`
   has to encode again. (Opened and not converted, they go in as a bare path: fast, and unchecked.)
2. Peak memory of preparing ten times as many pairs, against the smaller number.
3. Streaming the Parquet export, against `imagefolder` streaming the same files.
Images are 480x320 JPEG files with noise. Each measurement is a process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (480, 320)


def write_folder(folder: Path, pairs: int, size: tuple[int, int]) -> None:
    """Write a folder benchmark of `pairs` pairs over 50 different pictures."""
    split = folder / "train"
    split.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(50):
        rough = Image.fromarray(random.integers(0, 255, (12, 18, 3), dtype=np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        rough.save(split / f"picture-{number}.jpg", quality=90)
    with (split / "metadata.jsonl").open("w") as lines:
        for number in range(pairs):
            names = (f"before-{number}.jpg", f"after-{number}.jpg")
            for shift, name in enumerate(names):
                (split / name).hardlink_to(split / f"picture-{(number + shift) % 50}.jpg")
            row = dict(zip(("before_file_name", "after_file_name"), names, strict=True))
            lines.write(json.dumps({**row, "captions": [f"caption {number}"], "pair_id": str(number)}) + "\n")
    for number in range(50):
        (split / f"picture-{number}.jpg").unlink()


def prepare_ours(folder: Path, cache: Path) -> None:
    from dataset_syned.benchmarks.folder import Folder

    Folder(dataset_name="folder", root=folder, cache_dir=str(cache)).download_and_prepare()


def prepare_opened(folder: Path, cache: Path) -> None:
    import datasets

    from dataset_syned.pairs import FEATURES

    def rows(path: str):
        for line in (Path(path) / "train" / "metadata.jsonl").open():
            row = json.loads(line)
            images = [
                Image.open(Path(path) / "train" / row[f"{side}_file_name"]).convert("RGB")
                for side in ("before", "after")
            ]
            values = {"pair_id": row["pair_id"], "captions": row["captions"], "change_type": "", "provenance": ""}
            yield {**values, "before": images[0], "after": images[1]}

    datasets.Dataset.from_generator(rows, features=FEATURES, gen_kwargs={"path": str(folder)}, cache_dir=str(cache))


def stream_ours(folder: Path, cache: Path) -> float:
    import datasets

    from dataset_syned.benchmarks.folder import Folder
    from dataset_syned.exporting import export

    builder = Folder(dataset_name="folder", root=folder, cache_dir=str(cache))
    builder.download_and_prepare()
    export(builder, builder.as_dataset(), cache / "export", "parquet", "500MB")
    started = time.perf_counter()
    for row in datasets.load_dataset(str(cache / "export"), split="train", streaming=True):
        row["before"].load(), row["after"].load()
    return time.perf_counter() - started


def stream_imagefolder(folder: Path, cache: Path) -> float:
    import datasets

    started = time.perf_counter()
    for row in datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", streaming=True):
        row["before"].load(), row["after"].load()
    return time.perf_counter() - started


TASKS = {task.__name__: task for task in (prepare_ours, prepare_opened, stream_ours, stream_imagefolder)}


def measure(task: str, folder: Path) -> dict[str, float]:
    """Return seconds (a task may return its own) and peak memory in MiB of a fresh process."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as cache:
        command = [sys.executable, __file__, "--task", task, str(folder), cache]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{task} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run_task(task: str, folder: Path, cache: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    started = time.perf_counter()
    seconds = TASKS[task](folder, cache)
    if seconds is None:
        seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=5000, help="for the timings")
    parser.add_argument("--many", type=int, default=100_000, help="for the memory, against a tenth of it")
    parser.add_argument("--task", nargs=3, metavar=("TASK", "FOLDER", "CACHE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.task:
        run_task(arguments.task[0], Path(arguments.task[1]), Path(arguments.task[2]))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pairs"
        write_folder(folder, arguments.pairs, SIZE)
        results = {task: measure(task, folder) for task in TASKS}
        seconds = {task: result["seconds"] for task, result in results.items()}
        print(f"{arguments.pairs} pairs of {SIZE[0]}x{SIZE[1]} JPEG files; seconds: {seconds}")
        print(
            f"prepare: {seconds['prepare_opened'] / seconds['prepare_ours']:.2f} times as fast as from opened images"
        )
        print(f"streaming: {seconds['stream_imagefolder'] / seconds['stream_ours']:.2f} times as fast as imagefolder")
        peaks = []
        for pairs in (arguments.many // 10, arguments.many):
            write_folder(Path(temporary) / str(pairs), pairs, (48, 32))
            peaks.append(measure("prepare_ours", Path(temporary) / str(pairs))["mib"])
        print(
            f"peak memory: {peaks[0]:.0f} MiB for {arguments.many // 10} pairs, {peaks[1]:.0f} MiB for "
            f"{arguments.many}: {peaks[1] / peaks[0]:.2f} times"
        )


if __name__ == "__main__":
    main()
