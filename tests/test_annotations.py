"""Reading authors' files: byte order marks, repeated keys, pipes, and names of images inside the data folder."""

import errno
import io
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import benchmark_contract
import pytest
from pyarrow import parquet

from dataset_syned import BENCHMARKS, benchmark_builder
from dataset_syned.__main__ import main
from dataset_syned.annotations import inside, numbered_lines, read_json
from dataset_syned.pairs import DataError, RawPair, read_file

READ_FROM_FILES = [name for name in BENCHMARKS if name not in ("toy", "photo_edits")]  # those are drawn


def read_all(name: str, root: Path) -> list[RawPair]:
    """Return the pairs of all splits; a broken one is an error."""
    builder = benchmark_builder(name, root=root)
    return [pair for split in builder.raw_splits() for pair in builder.raw_pairs(split)]


def text_files(root: Path) -> list[Path]:
    found = [path for path in root.rglob("*") if path.suffix in (".json", ".jsonl", ".csv", ".txt", ".tsv")]
    return sorted(found)


@pytest.mark.parametrize("name", READ_FROM_FILES)
def test_text_files_of_every_benchmark_may_begin_with_a_byte_order_mark(name: str, tmp_path: Path) -> None:
    benchmark_contract.write_tiny(name, tmp_path / "raw")
    pairs = read_all(name, tmp_path / "raw")
    for path in text_files(tmp_path / "raw"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_all(name, tmp_path / "raw") == pairs


@contextmanager
def pipe_in_place_of(path: Path) -> Iterator[None]:
    """Replace a file with a named pipe, which ends at once for whoever opens it, so that no test waits for ever."""
    content = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    done = False

    def write() -> None:
        while not done:
            path.open("wb").close()  # waits until someone reads

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        yield
    finally:
        done = True
        reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        writer.join()
        os.close(reading)
        path.unlink()
        path.write_bytes(content)


@pytest.mark.parametrize("name", READ_FROM_FILES)
def test_a_pipe_among_the_files_of_every_benchmark_is_refused(name: str, tmp_path: Path) -> None:
    benchmark_contract.write_tiny(name, tmp_path / "raw")
    raw = tmp_path / "raw"
    for path in (path for path in (*text_files(raw), *raw.rglob("*.parquet"))):
        with pipe_in_place_of(path), pytest.raises(DataError, match=f"{path.name}' is a pipe, a socket or a device"):
            read_all(name, tmp_path / "raw")


def test_a_pipe_or_a_folder_in_place_of_an_image_is_refused(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(b"")
    (tmp_path / "link.png").symlink_to(image)
    with pipe_in_place_of(image):
        for path in (image, tmp_path / "link.png"):
            with pytest.raises(DataError, match=f"image '{path}' is a pipe, a socket or a device: replace it"):
                read_file(path)
    with pytest.raises(DataError, match=f"image '{tmp_path}' is a folder: replace it with a file"):
        read_file(tmp_path)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("levir_cc", "LevirCCcaptions.json"),
        ("clevr_change", "change_captions.json"),
        ("image_editing_request", "train.json"),
        ("magicbrush", "edit_sessions.json"),
        ("instruct_pix2pix", "prompt.json"),
        ("syned", "gt_augmented_test_clean.json"),
    ],
)
def test_a_key_that_is_given_twice_is_refused(name: str, file: str, tmp_path: Path) -> None:
    benchmark_contract.write_tiny(name, tmp_path / "raw")
    path = next((tmp_path / "raw").rglob(file))
    text = path.read_text()
    start = text.index("{") + 1
    key = json.JSONDecoder().raw_decode(text[start:].lstrip())[0]
    path.write_text(f"{text[:start]}{json.dumps(key)}: 0, {text[start:]}")
    with pytest.raises(DataError, match=f"{file}' cannot be read as JSON .the key '{key}' is given 2 times"):
        read_all(name, tmp_path / "raw")


def test_a_key_given_twice_in_a_line_is_refused_with_the_line(tmp_path: Path) -> None:
    good = '{"before_file_name": "1.png", "after_file_name": "2.png", "captions": ["a dog"]}'
    lines = [good, good.replace("}", ', "captions": ["a cat"]}')]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match="jsonl', line 2: not valid JSON .the key 'captions' is given 2 times"):
        read_all("folder", tmp_path)


def test_a_text_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}", encoding="utf-16")
    with pytest.raises(DataError, match="x.json' cannot be read as JSON .*'utf-8' codec"):
        read_json(tmp_path / "x.json")


def test_absolute_names_inside_the_data_folder_are_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "data")
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    image = tmp_path / "data" / "a.png"
    for root in (tmp_path / "data", Path("data"), Path("link"), tmp_path / "link"):
        assert inside(root, str(image)) == image
    for name in (f"{tmp_path}/data/../b.png", f"{tmp_path}/database/b.png", f"{tmp_path}"):
        with pytest.raises(DataError, match="leads out of the folder"):
            inside(Path("data"), name)


def test_a_file_that_the_system_cannot_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class BrokenDisk(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

        __next__ = readinto = read1 = read

    for name in ("x.json", "x.jsonl"):
        (tmp_path / name).touch()
    monkeypatch.setattr(Path, "open", lambda *_, **__: BrokenDisk())
    with pytest.raises(DataError, match="x.json' cannot be read .*Input/output error"):
        read_json(tmp_path / "x.json")
    with pytest.raises(DataError, match="x.jsonl' cannot be read .*Input/output error"):
        list(numbered_lines(tmp_path / "x.jsonl"))


@pytest.mark.parametrize("name", READ_FROM_FILES)
def test_annotations_without_an_entry_are_an_error_of_every_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    benchmark_contract.write_tiny(name, tmp_path / "raw")
    for path in text_files(tmp_path / "raw"):
        content = {".json": "[]" if path.read_text().startswith("[") else "{}", ".jsonl": "", ".txt": ""}
        header = path.read_text().splitlines(keepends=True)[0]
        path.write_text(content.get(path.suffix, header))
    for path in (tmp_path / "raw").rglob("*.parquet"):
        parquet.write_table(parquet.read_schema(path).empty_table(), path)
    for command, codes in (("check", (1, 2)), ("prepare", (2,))):
        assert main([command, name, "--data_dir", str(tmp_path / "raw")]) in codes
        assert "no problem found" not in capsys.readouterr().out
