"""`blip2idc --pairs`: no sentence is lost by a broken image, a full disk, Ctrl-C or a kill, and none is mixed up."""

import io
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from tiny_models import save_tiny

from captioner_idc import bulk, command
from captioner_idc.__main__ import main
from captioner_idc.pair_lists import Entry, PairListError, read_pairs
from common_idc.folder_lock import folder_lock

ROOT = Path(__file__).resolve().parents[1]
COUNT = 7  # pairs of the list, in batches of 2


def draw(path: Path, seed: int) -> None:
    blocks = np.random.default_rng(seed).integers(0, 2, (4, 4, 3), dtype=np.uint8) * 255
    Image.fromarray(blocks).resize((32, 32), Image.Resampling.NEAREST).save(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), max_caption_length=6)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder with images and pairs.csv."""
    folder = tmp_path / "data"
    folder.mkdir()
    for index in range(COUNT + 1):
        draw(folder / f"{index}.png", index)
    lines = [f"{index}.png,{index + 1}.png" for index in range(COUNT)]
    (folder / "pairs.csv").write_text("\n".join(["before,after", *lines]) + "\n")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return the path of an output in an empty folder."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "out.jsonl"


@pytest.fixture(autouse=True)
def shards_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "SHARD", 2)


@pytest.fixture
def arguments(model: Path, data: Path, out: Path) -> list[str]:
    options = {"--pairs": data / "pairs.csv", "--model": model, "--output": out, "--batch_size": 2, "--device": "cpu"}
    return [str(word) for option in options.items() for word in option]


@pytest.fixture
def unbroken(arguments: list[str], out: Path, capsys: pytest.CaptureFixture) -> str:
    """Return the output of a run that nothing interrupts; the folder is empty again."""
    assert main(arguments) == 0
    assert capsys.readouterr() == ("", "") and listing(out) == ["out.jsonl"]
    text = out.read_text(encoding="utf-8")
    assert len({json.loads(line)["prediction"] for line in text.splitlines()}) > 1
    out.unlink()
    return text


def listing(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir())


@contextmanager
def caption_replaced(replacement: Callable) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "caption", replacement)
        yield


class Interrupting:
    """`caption` that raises an error in place of its last call."""

    def __init__(self, calls: int, error: BaseException | None = None):
        self.calls, self.error, self.sizes, self.caption = calls, error, [], command.caption

    def __call__(self, model: object, processor: object, pairs: list, **options: object) -> list[str]:
        self.sizes.append(len(pairs))
        if len(self.sizes) == self.calls:
            raise self.error
        return self.caption(model, processor, pairs, **options)


def test_an_interrupted_list_continues_in_the_same_batches(
    unbroken: str, arguments: list[str], out: Path, capsys: pytest.CaptureFixture
) -> None:
    with caption_replaced(Interrupting(3, KeyboardInterrupt())):
        assert main(arguments) == 130
    assert capsys.readouterr().err.endswith("interrupted: run the same command again to continue\n")
    assert listing(out) == [".out.jsonl.parts"]
    with caption_replaced(Interrupting(2, KeyboardInterrupt())):  # after one batch more
        assert main(arguments) == 130
    assert capsys.readouterr().err.startswith(f"continuing after 4 of {COUNT} pairs\n")
    counted = Interrupting(0)
    with caption_replaced(counted):
        assert main(arguments) == 0
    assert counted.sizes == [1]
    assert capsys.readouterr().err == f"continuing after 6 of {COUNT} pairs\n"
    assert out.read_text(encoding="utf-8") == unbroken and listing(out) == ["out.jsonl"]


def test_a_damaged_shard_is_captioned_again(unbroken: str, arguments: list[str], out: Path) -> None:
    with caption_replaced(Interrupting(4, KeyboardInterrupt())):
        assert main(arguments) == 130
    shards = sorted((out.parent / ".out.jsonl.parts").glob("0*.jsonl"))
    shards[0].write_bytes(shards[0].read_bytes()[:-30])
    shards[1].write_text("")
    counted = Interrupting(0)
    with caption_replaced(counted):
        assert main(arguments) == 0
    assert counted.sizes == [2, 2, 1] and out.read_text(encoding="utf-8") == unbroken


def test_the_batch_size_may_differ_from_that_of_a_shard(unbroken: str, arguments: list[str], out: Path) -> None:
    with caption_replaced(Interrupting(3, KeyboardInterrupt())):
        assert main(arguments) == 130
    counted = Interrupting(0)
    with caption_replaced(counted):
        assert main([*arguments, "--batch_size", "3"]) == 0, "a smaller or larger batch is no other setting"
    assert counted.sizes == [2, 1] and out.read_text(encoding="utf-8") == unbroken
    with caption_replaced(counted):
        assert main([*arguments, "--batch_size", "3"]) == 0
    assert counted.sizes == [2, 1, 3, 3, 1], "a new output has shards of at least a batch"


# For each n: a process is killed before its n-th change in the output's folder, then another one continues.
KILLS = """
import os, signal, sys
from pathlib import Path
from captioner_idc import command  # imported once; nothing is computed before the forks
from captioner_idc.__main__ import main
out, arguments = Path(sys.argv[1]), sys.argv[2:]
def run(kill_before):
    def kill(event, values):
        nonlocal kill_before
        opened = event == "open" and isinstance(values[2], int) and values[2] & (os.O_WRONLY | os.O_RDWR)
        changed = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
        if (opened or changed) and str(values[0]).startswith(str(out.parent)):
            kill_before -= 1
            if not kill_before:
                os.kill(os.getpid(), signal.SIGKILL)
    child = os.fork()
    if not child:
        sys.addaudithook(kill)
        os._exit(main(arguments))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
count = 1
while code := run(count):
    leftovers = sorted(os.listdir(out.parent))
    again, same = run(0), out.read_bytes() == Path(f"{out.parent}.txt").read_bytes()
    print(code, again, same, leftovers, os.listdir(out.parent))
    out.unlink()
    count += 1
print("unbroken:", code)
"""


def test_a_kill_before_any_file_operation_loses_nothing(unbroken: str, arguments: list[str], out: Path) -> None:
    Path(f"{out.parent}.txt").write_text(unbroken)
    done = subprocess.run(
        [sys.executable, "-c", KILLS, out, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    *killed, last = done.stdout.splitlines()
    assert last == "unbroken: 0"
    for line in killed:
        assert line.startswith("-9 0 True ") and line.endswith(" ['out.jsonl']"), line
    left = [line.split("True ")[1] for line in killed]
    assert len(killed) >= 20, done.stdout  # lock, settings, four shards and the output, with their names, the end
    assert any(".tmp'" in line for line in left) and any(".parts', 'out.jsonl'" in line for line in left)


def test_pairs_whose_images_cannot_be_read_get_their_reason(
    unbroken: str, arguments: list[str], data: Path, out: Path, capsys: pytest.CaptureFixture
) -> None:
    good = {name: (data / name).read_bytes() for name in ("1.png", "6.png")}
    (data / "1.png").unlink()
    (data / "6.png").write_bytes(good["6.png"][:60])
    assert main(arguments) == 1
    absent, also_absent, cut, also_cut, last = capsys.readouterr().err.splitlines()
    assert absent.startswith(f"skipped: {data}/pairs.csv, line 2: after image of pair '0': '{data}/1.png' does not")
    assert also_absent.startswith(f"skipped: {data}/pairs.csv, line 3: before image of pair '1': '{data}/1.png'")
    assert cut.startswith(f"skipped: {data}/pairs.csv, line 7: after image of pair '5': '{data}/6.png' cannot be read")
    assert also_cut.startswith(f"skipped: {data}/pairs.csv, line 8: before image of pair '6': '{data}/6.png' cannot")
    assert last.startswith(f"4 of {COUNT} pairs have no sentence but a reason in `error`; correct what is")
    records, expected = map(records_in, (out.read_text(encoding="utf-8"), unbroken))
    assert records[2:5] == expected[2:5]
    for index in (0, 1, 5, 6):
        assert records[index] == expected[index] | {"prediction": None, "error": records[index]["error"]}
    for name, content in good.items():
        (data / name).write_bytes(content)
    counted = Interrupting(0)
    with caption_replaced(counted):
        assert main(arguments) == 0
    assert counted.sizes == [2, 2, 1], "only the shards with a missing sentence"
    assert out.read_text(encoding="utf-8") == unbroken and listing(out) == ["out.jsonl"]


def records_in(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_bad_pairs_get_their_reason_on_standard_output_too(
    unbroken: str, arguments: list[str], data: Path, capsys: pytest.CaptureFixture
) -> None:
    (data / "7.png").write_text("no image")
    without_output = [word for word in arguments if word != "--output" and not word.endswith("out.jsonl")]
    assert main(without_output) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[:6] == unbroken.splitlines()[:6]
    assert "'7.png" in (last := records_in(printed.out)[6])["error"] or "7.png'" in last["error"]
    assert "line 8: after image of pair '6'" in printed.err and "1 of 7 pairs have no sentence" in printed.err


def test_lines_that_are_no_pair_get_their_reason(
    unbroken: str, arguments: list[str], data: Path, out: Path, capsys: pytest.CaptureFixture
) -> None:
    lines = ['{"before": "0.png", "after": "1.png"}', '{"before"', "[1]", '{"before": "1.png"}', '{"before": 1}']
    lines.append('{"before": "0.png", "after": "1.png", "before": "2.png", "pair_id": "x"}')
    (data / "bad.jsonl").write_text("\n".join(lines))
    assert main([*arguments, "--pairs", str(data / "bad.jsonl")]) == 1
    first, *bad = records_in(out.read_text(encoding="utf-8"))
    assert first == records_in(unbroken)[0]
    assert [record["pair_id"] for record in bad] == ["1", "2", "3", "4", "5"]
    for record, reason in zip(
        bad,
        ("not valid JSON", "not an object", "'after' is missing", "'before' is missing", "given 2 times"),
        strict=True,
    ):
        assert record["prediction"] is None and reason in record["error"]
    assert f"skipped: {data}/bad.jsonl, line 2: not valid JSON" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "no image"])
def test_a_list_without_any_readable_pair_writes_nothing(
    content: str | None,
    arguments: list[str],
    data: Path,
    out: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    out.write_text("of an earlier run")
    for path in data.glob("*.png"):
        path.unlink() if content is None else path.write_text(content)
    assert main(arguments) == 2
    *skipped, last = capsys.readouterr().err.splitlines()
    assert len(skipped) == COUNT and last.startswith("error: ") and "correct what is" in last
    assert listing(out) == ["out.jsonl"] and out.read_text() == "of an earlier run"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--text", "what changed?"], "prompt"),
        (["--num_beams", "2"], "decoding"),
        (["--model", "OTHER"], "model"),
        (["--model", "HORIZONTAL"], "processor"),
        (["--pairs", "LIST"], "list of pairs"),
    ],
)
def test_sentences_of_other_settings_are_never_mixed(
    change: list[str],
    named: str,
    unbroken: str,
    arguments: list[str],
    data: Path,
    out: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    with caption_replaced(Interrupting(3, KeyboardInterrupt())):
        assert main(arguments) == 130
    capsys.readouterr()
    parts = out.with_name(".out.jsonl.parts")
    kept = {file.name: file.read_bytes() for file in parts.iterdir()}
    (data / "other.csv").write_bytes((data / "pairs.csv").read_bytes())
    made = {
        "OTHER": lambda: save_tiny(tmp_path / "other", seed=1, max_caption_length=6),
        "HORIZONTAL": lambda: save_tiny(tmp_path / "other", layout="horizontal", max_caption_length=6),
        "LIST": lambda: data / "other.csv",
    }
    changed = [*arguments, change[0], str(made.get(change[1], lambda: change[1])())]
    assert main(changed) == 2
    printed = capsys.readouterr().err
    assert f"contains sentences of an interrupted run with another {named};" in printed and printed.count("\n") == 1
    assert kept == {file.name: file.read_bytes() for file in parts.iterdir()} and listing(out) == [parts.name]


def test_a_pair_whose_image_has_changed_is_captioned_again(arguments: list[str], data: Path, out: Path) -> None:
    with caption_replaced(Interrupting(3, KeyboardInterrupt())):
        assert main(arguments) == 130
    draw(data / "1.png", 99)
    os.utime(data / "1.png", ns=(0, 0))
    counted = Interrupting(0)
    with caption_replaced(counted):
        assert main(arguments) == 0
    assert counted.sizes == [2, 2, 1], "the first shard, which has the image, and those that were missing"
    continued = out.read_text()
    out.unlink()
    assert main(arguments) == 0 and out.read_text() == continued


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Let every write beyond this many bytes of a file fail, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_output_that_cannot_be_written_is_found_before_the_model_is_loaded(
    arguments: list[str], out: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "load", None)
    with files_limited_to(1000):
        assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: --output {out} cannot be written (File too large); name another file.\n"
    for path in (out.parent, "/dev/null"):
        assert main([*arguments, "--output", str(path)]) == 2
        assert f"--output {path} is not a regular file; leave --output out" in capsys.readouterr().err
    assert listing(out) == [] and Path("/dev/null").is_char_device()


def test_a_disk_that_becomes_full_loses_no_sentence(
    unbroken: str, arguments: list[str], out: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caption_replaced(Interrupting(2, KeyboardInterrupt())):
        assert main(arguments) == 130
    capsys.readouterr()
    monkeypatch.setattr(command, "check_output", lambda path: None)  # there was room at the beginning
    with files_limited_to(100):
        assert main(arguments) == 2
    *_, error = capsys.readouterr().err.splitlines()
    parts = out.with_name(".out.jsonl.parts")
    assert error.startswith(f"error: '{parts / '00000001.jsonl'}' cannot be written (File too large);")
    assert error.endswith("run the same command again to continue.")
    assert main(arguments) == 0
    assert f"continuing after 2 of {COUNT} pairs" in capsys.readouterr().err
    assert out.read_text(encoding="utf-8") == unbroken and listing(out) == ["out.jsonl"]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8"])
def test_standard_output_of_any_encoding(
    encoding: str, arguments: list[str], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(2):
        draw(data / f"größer 变 {index}.png", index)
    row = {"before": "größer 变 0.png", "after": "größer 变 1.png", "pair_id": "\udce4"}
    (data / "pairs.jsonl").write_text(json.dumps(row))
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(command, "caption", lambda *_, **__: ["größer 变"])
    arguments = [word for word in arguments if word != "--output" and not word.endswith("out.jsonl")]
    assert main([*arguments, "--pairs", str(data / "pairs.jsonl")]) == 0
    assert main([*arguments[2:], str(data / row["before"]), str(data / row["after"])]) == 0
    line, sentence = output.buffer.getvalue().splitlines()
    assert json.loads(line.decode("utf-8")) == row | {
        "prediction": "größer 变"
    }  # JSON is UTF-8, whatever the terminal
    assert sentence.decode(encoding) == ("größer 变" if encoding == "utf-8" else "größer \\u53d8")
    assert ("größer".encode() in line) == (encoding == "utf-8")


def test_a_full_standard_output_is_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [word for word in arguments if word != "--output" and not word.endswith("out.jsonl")]
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(arguments) == 2
        full.flush()  # as Python does when it ends
    assert capsys.readouterr().err == "error: standard output cannot be written (No space left on device).\n"


def test_a_dead_reader_of_the_messages_ends_no_run(
    unbroken: str, arguments: list[str], data: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "7.png").write_text("no image")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        assert main(arguments) == 1
    assert out.read_text(encoding="utf-8").splitlines()[:6] == unbroken.splitlines()[:6]


def test_a_byte_order_mark_is_not_part_of_json(data: Path) -> None:
    row = {"pair_id": "a", "before": "0.png", "after": "1.png"}
    (data / "bom.jsonl").write_text(json.dumps(row), encoding="utf-8-sig")
    [entry] = read_pairs(data / "bom.jsonl").entries()
    images = (data / "0.png", data / "1.png")
    assert entry == Entry(0, **row, where=f"{data}/bom.jsonl, line 1", images=images)


def test_the_number_0_is_a_pair_id(data: Path) -> None:
    ids = ({"pair_id": 7}, {"pair_id": 0}, {}, {"pair_id": ""})
    rows = [{"before": "0.png", "after": "1.png", **pair_id} for pair_id in ids]
    (data / "ids.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [entry.pair_id for entry in read_pairs(data / "ids.jsonl").entries()] == ["7", "0", "2", "3"]


def test_the_home_folder_is_expanded_in_options_and_lists(
    unbroken: str, arguments: list[str], data: Path, out: Path, model: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").symlink_to(model)
    images = [(f"~/data/{index}.png", str(data / f"{index + 1}.png")) for index in range(COUNT)]
    rows = [{"before": before, "after": after} for before, after in images]
    (data / "home.jsonl").write_text("\n".join(map(json.dumps, rows)))
    home = [*arguments, "--pairs", "~/data/home.jsonl", "--output", "~/out/out.jsonl", "--model", "~/model"]
    assert main(home) == 0
    predictions = [json.loads(line)["prediction"] for line in out.read_text().splitlines()]
    expected = [json.loads(line)["prediction"] for line in unbroken.splitlines()]
    assert predictions == expected
    capsys.readouterr()
    assert main(["~/data/0.png", "~/data/1.png", "--model", "~/model", "--device", "cpu"]) == 0
    assert capsys.readouterr().out == expected[0] + "\n"


def test_two_runs_do_not_write_into_one_output(arguments: list[str], out: Path, capsys: pytest.CaptureFixture) -> None:
    with folder_lock(out, out.with_name(".out.jsonl.lock")):
        assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: another process is writing into '{out}'")
    assert listing(out) == []


@pytest.fixture
def folders(data: Path) -> Path:
    """Return a folder with the folders before and after, whose pairs are those of the list."""
    for index in range(COUNT):
        for side, number in (("before", index), ("after", index + 1)):
            (data / "pairs" / side).mkdir(parents=True, exist_ok=True)
            shutil.copy(data / f"{number}.png", data / "pairs" / side / f"{index}.png")
    return data / "pairs"


def test_two_sibling_folders_are_a_list(
    folders: Path, unbroken: str, arguments: list[str], out: Path, capsys: pytest.CaptureFixture
) -> None:
    (folders / "after" / "5.png").rename(folders / "after" / "5.JPG")
    (folders / "before" / "6.png").unlink()
    (folders / "before" / "notes.txt").write_text("no image")
    assert main([*arguments, "--pairs", str(folders)]) == 1
    *records, last = records_in(out.read_text(encoding="utf-8"))
    expected = records_in(unbroken)[:6]
    assert [record["prediction"] for record in records] == [record["prediction"] for record in expected]
    assert (records[5]["pair_id"], records[5]["before"], records[5]["after"]) == ("5", "before/5.png", "after/5.JPG")
    reason = {"prediction": None, "error": "the folder before has no image of this name."}
    assert last == {"pair_id": "6", "before": None, "after": "after/6.png", **reason}
    (folders / "before").rename(folders / "A")
    (folders / "after").rename(folders / "B")
    assert [entry.before for entry in read_pairs(folders).entries()] == [*(f"A/{n}.png" for n in range(6)), None]
    (folders / "A" / "5.bmp").touch()
    capsys.readouterr()
    assert main([*arguments, "--pairs", str(folders)]) == 2
    assert "A contains two images of the same name; rename one of them" in capsys.readouterr().err


def test_data_sets_in_parquet_are_a_list(
    data: Path, unbroken: str, arguments: list[str], out: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = {
        side: [
            {"bytes": (data / f"{index + step}.png").read_bytes(), "path": f"{index + step}.png"}
            for index in range(COUNT)
        ]
        for side, step in (("before", 0), ("after", 1))
    }
    rows["pair_id"] = [str(index) for index in range(COUNT)]
    table = datasets.Dataset.from_dict(
        rows,
        datasets.Features(
            {"before": datasets.Image(), "after": datasets.Image(), "pair_id": datasets.Value("string")}
        ),
    )
    (tmp_path / "set").mkdir()
    table.select(range(4)).to_parquet(tmp_path / "set" / "0.parquet", batch_size=3)
    table.select(range(4, COUNT)).to_parquet(tmp_path / "set" / "1.parquet")
    for source in (tmp_path / "set", tmp_path / "all.parquet"):
        table.to_parquet(tmp_path / "all.parquet")
        assert main([*arguments, "--pairs", str(source)]) == 0
        assert out.read_text(encoding="utf-8") == unbroken
    table.remove_columns("after").to_parquet(tmp_path / "all.parquet")
    (data / "text.parquet").write_text("no table")
    for name, message in ((tmp_path / "all.parquet", "'after' is missing"), (data / "text.parquet", "not a Parquet")):
        assert main([*arguments, "--pairs", str(name)]) == 2
        assert message in capsys.readouterr().err


def test_sentences_in_parquet(unbroken: str, arguments: list[str], data: Path, out: Path) -> None:
    output = out.with_suffix(".parquet")
    (data / "6.png").write_text("no image")
    assert main([*arguments, "--output", str(output)]) == 1
    rows = datasets.Dataset.from_parquet(str(output), cache_dir=str(data)).to_list()
    assert [list(row) for row in rows] == [["pair_id", "before", "after", "prediction", "error"]] * COUNT
    assert [row["prediction"] for row in rows[:5]] == [record["prediction"] for record in records_in(unbroken)[:5]]
    assert rows[0]["error"] is None and "6.png" in rows[5]["error"] and rows[5]["prediction"] is None


@pytest.mark.parametrize("name", ["out.csv", "out"])
def test_an_output_of_another_kind_is_refused(name: str, arguments: list[str], out: Path, capsys) -> None:
    assert main([*arguments, "--output", str(out.with_name(name))]) == 2
    assert "must end in .jsonl or .parquet; rename it" in capsys.readouterr().err


def test_processes_share_the_work_and_write_one_output(unbroken: str, arguments: list[str], out: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, "--module", "captioner_idc", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=out.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert records_in(out.read_text(encoding="utf-8")) == records_in(unbroken) and listing(out) == ["out.jsonl"]
    without_output = [word for word in command if word != "--output" and not word.endswith("out.jsonl")]
    done = subprocess.run(without_output, cwd=out.parent, env=environment, capture_output=True, text=True)
    assert done.returncode and "several processes need an --output to write into" in done.stderr


def test_each_process_takes_its_shards_and_the_first_one_joins_them(data: Path, out: Path) -> None:
    pairs = read_pairs(data / "pairs.csv")
    seen: dict[int, list] = {0: [], 1: []}

    def captioner(index: int) -> bulk.Captioner:
        def caption(loaded: list) -> list[str]:
            seen[index].extend(loaded)
            return [str(pair) for pair in loaded]

        return bulk.Captioner(lambda before, after, name: name, caption, {})

    waits = iter(["begun", "done"])

    def wait() -> None:
        if next(waits) == "done":  # the other process works meanwhile
            assert bulk.caption_into(out, pairs, captioner(1), 2, bulk.Workers(1, 2)) is None

    counts = bulk.caption_into(out, pairs, captioner(0), 2, bulk.Workers(0, 2, wait))
    assert (counts.pairs, counts.failed, counts.empty) == (COUNT, 0, 0)
    assert seen == {0: [f"pair '{n}'" for n in (0, 1, 4, 5)], 1: [f"pair '{n}'" for n in (2, 3, 6)]}
    assert [record["prediction"] for record in records_in(out.read_text())] == [f"pair '{n}'" for n in range(COUNT)]


def test_a_shard_that_no_process_has_written_is_reported(data: Path, out: Path) -> None:
    captioner = bulk.Captioner(lambda *_: None, lambda loaded: ["x"] * len(loaded), {})
    with pytest.raises(PairListError, match="2 of 4 shards of .* are missing"):
        bulk.caption_into(out, read_pairs(data / "pairs.csv"), captioner, 2, bulk.Workers(0, 2))
