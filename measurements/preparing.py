"""Preparing a data set of pairs: CPU time and memory, as ratios.

    python measurements/preparing.py
    python measurements/preparing.py --pairs 50 --many 500      # a quick look

1. `prepare` of a folder of pairs against rows of images opened by `Image.open(..).convert("RGB")`, which `datasets`
   has to encode again. (Opened and not converted, they go in as a bare path: fast, and unchecked.)
2. Streaming the Parquet export, against `imagefolder` streaming the same files.
3. Peak memory of preparing ten times as many pairs, against the smaller number, each in a process of its own.
Images are 480x320 JPEG files with noise; for the memory, 48x32. growth.py has up to 100,000 pairs.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from paired import REPEATS, Row, compare, ratio_row, run_measurement
from PIL import Image
from tqdm import tqdm

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


def prepare_ours(folder: Path, cache: Path) -> Any:
    """Return the rows as this project prepares them."""
    from dataset_syned.benchmarks.folder import Folder

    builder = Folder(dataset_name="folder", root=folder, cache_dir=str(cache))
    builder.download_and_prepare()
    return builder.as_dataset(split="train")


def prepare_opened(folder: Path, cache: Path) -> Any:
    """Return the rows of a generator that opens the images."""
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

    return datasets.Dataset.from_generator(
        rows, features=FEATURES, gen_kwargs={"path": str(folder)}, cache_dir=str(cache)
    )


def export_ours(folder: Path, cache: Path) -> Path:
    """Prepare a folder and return that of its Parquet export."""
    from dataset_syned.benchmarks.folder import Folder
    from dataset_syned.exporting import export

    builder = Folder(dataset_name="folder", root=folder, cache_dir=str(cache))
    builder.download_and_prepare()
    export(builder, builder.as_dataset(), cache / "export", "parquet", "500MB")
    return cache / "export"


def streamed(path: str, **options: Any) -> int:
    """Stream all rows of a data set, decode both images of each, and return the number of rows."""
    import datasets

    count = 0
    for row in datasets.load_dataset(path, split="train", streaming=True, **options):
        row["before"].load(), row["after"].load()
        count += 1
    return count


def check_rows(ours: Any, theirs: Any) -> None:
    """Raise RuntimeError unless both have the same captions and, in the first and the last row, the same pixels."""
    same = len(ours) == len(theirs) and ours["captions"][:] == theirs["captions"][:]
    for row in (0, -1):
        for side in ("before", "after"):
            pictures = [np.asarray(rows[row][side].convert("RGB")) for rows in (ours, theirs)]
            same = same and np.array_equal(*pictures)
    if not same:
        raise RuntimeError("the two ways of preparing gave different rows")


def compare_times(folder: Path, pairs: int, new_folder: Callable[[], Path]) -> list[Row]:
    """Return the rows of preparing and of streaming; `new_folder` returns an empty folder at each call."""
    check_rows(prepare_ours(folder, new_folder()), prepare_opened(folder, new_folder()))
    prepared = compare(
        f"{pairs} pairs of {SIZE[0]}x{SIZE[1]} JPEG files to prepared rows",
        "rows of opened images",
        lambda: prepare_opened(folder, new_folder()),
        lambda: prepare_ours(folder, new_folder()),
    )
    export = str(export_ours(folder, new_folder()))
    if {streamed(export), streamed("imagefolder", data_dir=str(folder))} != {pairs}:
        raise RuntimeError(f"not all of the {pairs} pairs were streamed")
    stream = compare(
        f"{pairs} pairs streamed and decoded",
        "`imagefolder` on the same files",
        lambda: streamed("imagefolder", data_dir=str(folder)),
        lambda: streamed(export),
    )
    return [prepared, stream]


def peak_memory(folder: Path, cache: Path) -> float:
    """Return the peak memory in MiB of a process that prepares a folder."""
    command = [sys.executable, __file__, "--task", str(folder), str(cache)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"preparing failed: {done.stderr[-2000:]}")
    return float(done.stdout.splitlines()[-1])


def compare_memory(root: Path, many: int, new_folder: Callable[[], Path]) -> Row:
    """Return the row of the memory for `many` pairs, against a tenth of them."""
    for pairs in (many // 10, many):
        write_folder(root / str(pairs), pairs, (48, 32))
    peaks = [
        tuple(peak_memory(root / str(pairs), new_folder()) for pairs in (many // 10, many))
        for _ in tqdm(range(REPEATS), desc="peak memory", leave=False)
    ]
    what = f"peak memory of preparing {many} pairs"
    return ratio_row(what, f"the same for {many // 10} pairs", peaks, unit="MiB", at_most=1.1)


def measure(arguments: argparse.Namespace) -> list[Row]:
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_folder(root / "pairs", arguments.pairs, SIZE)

        def new_folder() -> Path:
            return Path(tempfile.mkdtemp(dir=root))

        times = compare_times(root / "pairs", arguments.pairs, new_folder)
        return [*times, compare_memory(root, arguments.many, new_folder)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=60, help="for the times")
    parser.add_argument("--many", type=int, default=5000, help="for the memory, against a tenth of it")
    parser.add_argument("--task", nargs=2, metavar=("FOLDER", "CACHE"), help=argparse.SUPPRESS)
    if "--task" in sys.argv:  # one preparation, for its memory
        prepare_ours(*map(Path, parser.parse_args().task))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return 0
    return run_measurement(measure, parser)


if __name__ == "__main__":
    sys.exit(main())
