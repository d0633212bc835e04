"""How cost grows: pairs per second, CPU time per pair and peak memory of each stage, for more and more pairs.

    python measurements/growth.py                                        # 1,000 and 10,000 pairs, a few minutes
    python measurements/growth.py --sizes 1000 10000 100000 --output docs/results/growth/growth.json \
        --page docs/speed.md                                             # hours

The pairs are JPEG files of 48x32 pixels and the model of `evaluate` is as small as one can be, so that what is
measured is the rest: lists, files, hashes, tables. The stages, each in a process of its own and without its imports:

    prepare      a folder of pairs to prepared rows (`datasets`)
    train input  prepared rows to batches of tensors in the order of an epoch, without a model
    predict      a list of pairs to sentences in one file, as `blip2idc --pairs --output` writes it, without a model
    evaluate     the whole of evaluate.py, imports included: sentences, BLEU and CIDEr, report
    score        predictions to all scores, with two references per pair
    report       scores to one page, with pictures
    synthesize   images and instructions to new pairs, with the editor that needs no model

Where cost grows as the work does, each further pair takes as long as the pairs before it: `growth` is then about 1, or
less where something is done once. Memory may grow where all sentences are needed at once.
"""

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench import machine
from preparing import write_folder
from tqdm import tqdm

from common_idc.atomic_files import write_json
from metric_idc.comparison import renew_table

ROOT = Path(__file__).resolve().parents[1]
SIZE = (48, 32)  # pixels of an image
BATCH = 32  # pairs
REFERENCES = 2  # per pair
MARKS = ("<!-- growth: generated -->", "<!-- growth: end -->")

Row = dict[str, Any]


class Clock:
    """Wall-clock time, CPU time of this process and its children, and the peak memory of the largest of them."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), self._cpu()

    def stop(self) -> Row:
        """Return `seconds`, `cpu_seconds` and `peak_mib` since the clock was made; the peak is that of all time."""
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        cpu = self._cpu() - self.cpu
        return {"seconds": time.perf_counter() - self.wall, "cpu_seconds": cpu, "peak_mib": peak / 1024}

    @staticmethod
    def _cpu() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in used)


def prepare(folder: Path, pairs: int, processes: int) -> Row:
    from dataset_syned import benchmark_builder
    from dataset_syned import prepare as prepare_rows
    from modeling_blip2idc.image_fusion import load_image  # noqa: F401  what `prepare` imports at its first image

    clock = Clock()
    rows = prepare_rows(benchmark_builder("folder", data_dir=str(folder / "pairs")), num_proc=processes)
    assert len(rows["train"]) == pairs
    return clock.stop()


def train_input(folder: Path, pairs: int, processes: int) -> Row:
    import torch
    from full_size import make_processor

    from dataset_syned import load_benchmark, undecoded
    from dataset_syned.epoch_order import PairOrder, TrainingPairs
    from modeling_blip2idc import Blip2IdcProcessor

    torch.set_num_threads(1)
    processor = Blip2IdcProcessor.from_blip2(make_processor(tiny_config()))

    def collate(examples: list[Row]) -> Any:
        images = [processor.load_pair(row["before"], row["after"], row["pair_id"]) for row in examples]
        befores, afters = zip(*images, strict=True)
        return processor(before=befores, after=afters, captions=[row["caption"] for row in examples])

    clock = Clock()
    rows = undecoded(load_benchmark("folder", "train", data_dir=str(folder / "pairs")))
    order = PairOrder([len(rows)], [1.0], seed=0, batch_size=BATCH)
    workers = processes if processes > 1 else 0  # 0: none besides this process
    loader = torch.utils.data.DataLoader(
        TrainingPairs(rows, seed=0), batch_sampler=order, collate_fn=collate, num_workers=workers
    )
    assert sum(len(batch["input_ids"]) for batch in loader) == pairs
    return clock.stop()


def predict(folder: Path, pairs: int, processes: int) -> Row:
    from captioner_idc.bulk import Workers, caption_into

    listed, output = folder / "pairs.jsonl", folder / f"sentences-{processes}.jsonl"
    with listed.open("w") as lines:
        for number in range(pairs):
            names = {side: f"pairs/train/{side}-{number}.jpg" for side in ("before", "after")}
            lines.write(json.dumps({"pair_id": str(number), **names}) + "\n")

    def caption(index: int) -> None:
        workers = Workers(index, processes, barrier.wait)
        caption_into(output, *scripted_captioner(listed), BATCH, workers)

    barrier = multiprocessing.Barrier(processes)
    clock = Clock()
    others = [multiprocessing.get_context("fork").Process(target=caption, args=(i,)) for i in range(1, processes)]
    for process in others:
        process.start()
    caption(0)
    for process in others:
        process.join()
    assert sum(1 for _ in output.open()) == pairs
    return clock.stop()


def scripted_captioner(listed: Path) -> tuple[Any, Any]:
    """Return the pairs of a list, and a captioner that loads the images and gives every pair a sentence."""
    from captioner_idc.bulk import Captioner
    from captioner_idc.pair_lists import read_pairs
    from modeling_blip2idc.image_fusion import load_image

    def load_pair(before: Any, after: Any, name: str) -> tuple[Any, Any]:
        return load_image(before), load_image(after)

    return read_pairs(listed), Captioner(load_pair, lambda pairs: ["the car has left" for _ in pairs], {})


def evaluate(folder: Path, pairs: int, processes: int) -> Row:
    from full_size import make_checkpoint

    if not (folder / "model").is_dir():
        make_checkpoint(folder / "model", tiny_config())
    options = {
        "--model": folder / "model",
        "--benchmark": "folder",
        "--benchmark_options": json.dumps({"data_dir": str(folder / "pairs")}),
        "--split": "train",
        "--output_dir": folder / f"evaluation-{processes}",
        "--batch_size": 256,
        "--max_new_tokens": 2,
        "--input_controls": False,
    }
    words = [str(word) for option in options.items() for word in option]
    clock = Clock()
    command = [sys.executable, "evaluate.py", *words, "--metrics", "BLEU", "CIDEr"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return clock.stop()


def score(folder: Path, pairs: int, processes: int) -> Row:
    from scoring import make_rows

    from metric_idc import score_rows, write_predictions, write_results

    rows = make_rows(pairs, REFERENCES)
    clock = Clock()
    result = score_rows(rows)
    measured = clock.stop()
    (folder / "scores").mkdir(exist_ok=True)
    write_predictions(rows, folder / "scores" / "predictions.jsonl")
    write_results(folder / "scores", result)
    return measured


def report(folder: Path, pairs: int, processes: int) -> Row:
    from PIL import Image

    from run_idc.report import write_report

    if not (folder / "scores").is_dir():
        score(folder, pairs, processes)

    def images() -> Iterable[tuple[Image.Image, Image.Image]]:
        for number in range(pairs):
            files = [folder / "pairs" / "train" / f"{side}-{number}.jpg" for side in ("before", "after")]
            yield tuple(Image.open(file).convert("RGB") for file in files)

    clock = Clock()
    write_report(folder / "scores", images())
    return clock.stop()


def synthesize(folder: Path, pairs: int, processes: int) -> Row:
    clock = Clock()
    context = multiprocessing.get_context("spawn")
    shares = [context.Process(target=synthesize_share, args=(folder, pairs, i, processes)) for i in range(processes)]
    for share in shares:
        share.start()
    for share in shares:
        share.join()
    assert not any(share.exitcode for share in shares)
    return clock.stop()


def synthesize_share(folder: Path, pairs: int, process: int, processes: int) -> None:
    from dataset_syned.synthesis.settings import SynthesisConfig
    from dataset_syned.synthesis.stages import synthesize as run_stages

    os.environ |= {"RANK": str(process), "WORLD_SIZE": str(processes)}
    drawn = {"look": "studio", "wording": "instruction", "train": pairs}
    run_stages(
        SynthesisConfig(
            output_dir=str(folder / f"synthesis-{processes}"),
            benchmark="toy",
            benchmark_options=drawn,
            editor="drawing",
            pairs=pairs,
            candidates=1,
            top_k=1,
        )
    )


STAGES: dict[str, tuple[Callable[[Path, int, int], Row], tuple[int, ...]]] = {
    # name -> (function, numbers of processes); scoring uses all cores by itself, the report one
    "prepare": (prepare, (1, 2)),
    "train input": (train_input, (1, 2)),
    "predict": (predict, (1, 2)),
    "evaluate": (evaluate, (1,)),
    "score": (score, (1,)),
    "report": (report, (1,)),
    "synthesize": (synthesize, (1, 2)),
}


def tiny_config() -> Any:
    """Return the config of a BLIP-2 that costs next to nothing."""
    from transformers import Blip2Config, OPTConfig

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = OPTConfig(
        hidden_size=16,
        word_embed_proj_dim=16,
        ffn_dim=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        vocab_size=50272,
        max_position_embeddings=256,
        bos_token_id=2,
        pad_token_id=1,
        eos_token_id=2,
    )
    return Blip2Config(
        vision_config={**small, "image_size": 32, "patch_size": 16},
        qformer_config={**small, "encoder_hidden_size": 16},
        text_config=text,
        num_query_tokens=2,
        image_token_index=50265,
    )


def measured(stage: str, folder: Path, pairs: int, processes: int) -> Row:
    """Return the row of a stage, measured in a fresh process. Raises: RuntimeError if it fails."""
    task = [stage, str(folder), str(pairs), str(processes)]
    # `prepare` with two processes must not find what one has prepared; the others use the latter
    cache = folder / ("cache-2" if stage == "prepare" and processes > 1 else "cache")
    environment = {**os.environ, "HF_DATASETS_CACHE": str(cache), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["MALLOC_MMAP_THRESHOLD_"] = "65536"  # freed memory goes back to the system, instead of being counted
    done = subprocess.run([sys.executable, __file__, "--task", *task], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{stage} of {pairs} pairs by {processes} processes failed: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return {
        "stage": stage,
        "processes": processes,
        "pairs": pairs,
        "pairs_per_second": pairs / found["seconds"],
        "cpu_ms_per_pair": 1000 * found["cpu_seconds"] / pairs,
        "peak_mib": found["peak_mib"],
    }


def with_growth(rows: list[Row]) -> list[Row]:
    """Return the rows with `cpu_ms_per_further_pair`, compared with the next smaller size, and `growth`.

    `growth` is this cost divided by that of the size before; of the first step, by the cost per pair of the fewest
    pairs, which includes what has to be done once.
    """
    before: dict[tuple[str, int], tuple[Row, float]] = {}
    found = []
    for row in sorted(rows, key=lambda row: row["pairs"]):
        key = row["stage"], row["processes"]
        further = growth = None
        if key in before:
            smaller, cost = before[key]
            used, less = (entry["cpu_ms_per_pair"] * entry["pairs"] for entry in (row, smaller))
            further = (used - less) / (row["pairs"] - smaller["pairs"])
            growth = further / cost
        before[key] = row, row["cpu_ms_per_pair"] if further is None else further
        found.append(row | {"cpu_ms_per_further_pair": further, "growth": growth})
    return found


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table, by stage."""
    lines = ["| stage | processes | pairs | pairs/s | CPU ms per pair | per further pair | growth | peak MiB |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in sorted(rows, key=lambda row: (list(STAGES).index(row["stage"]), row["processes"], row["pairs"])):
        step = ("", "") if row["growth"] is None else (f"{row['cpu_ms_per_further_pair']:.3g}", f"{row['growth']:.2f}")
        lines.append(
            f"| {row['stage']} | {row['processes']} | {row['pairs']:,} | {row['pairs_per_second']:,.0f} | "
            f"{row['cpu_ms_per_pair']:.3g} | {step[0]} | {step[1]} | {row['peak_mib']:,.0f} |"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000], metavar="PAIRS")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write the rows here; others in it stay")
    parser.add_argument("--page", type=Path, metavar="FILE.md", help="renew the table between its marks")
    parser.add_argument("--task", nargs=4, metavar=("STAGE", "FOLDER", "PAIRS", "PROCESSES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.task:
        stage, folder, *numbers = arguments.task
        print(json.dumps(STAGES[stage][0](Path(folder), *map(int, numbers))))
        return
    rows = read_rows(arguments.output)
    wanted = [(stage, processes) for stage in arguments.stages for processes in STAGES[stage][1]]
    for pairs in sorted(arguments.sizes):
        with tempfile.TemporaryDirectory() as folder:
            write_folder(Path(folder) / "pairs", pairs, SIZE)
            for stage, processes in tqdm(wanted, desc=f"{pairs:,} pairs", disable=None):
                row = measured(stage, Path(folder), pairs, processes)
                rows = [*(other for other in rows if key_of(other) != key_of(row)), row]
                if arguments.output:  # after each, because the largest take long
                    write_rows(arguments.output, rows)
    print(table(with_growth(rows)))
    if arguments.page:
        renew_table(arguments.page, table(with_growth(rows)), MARKS)


def key_of(row: Row) -> tuple[str, int, int]:
    return row["stage"], row["processes"], row["pairs"]


def read_rows(file: Path | None) -> list[Row]:
    """Return the rows of an earlier call, which may have measured other stages or sizes."""
    return json.loads(file.read_text(encoding="utf-8"))["rows"] if file and file.is_file() else []


def write_rows(file: Path, rows: list[Row]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {**machine(), "rows": with_growth(rows)})


if __name__ == "__main__":
    main()
