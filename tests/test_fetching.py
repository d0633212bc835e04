"""Fetching from a loopback Hub: mirrors, resumed downloads, checked files, archives that stay inside the folder."""

import hashlib
import io
import json
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from kill_points import after_kills
from loopback_hub import TOKEN, LoopbackHub
from PIL import Image
from test_emu_edit import row, write_parquet

from common_idc.folder_lock import LOCK, folder_lock
from dataset_syned import benchmark_builder
from dataset_syned.fetching import ArchiveError, fetch, fetched_from, unpack
from dataset_syned.pairs import DataError

NOWHERE = "0" * 40
CLIENT = """
import json, sys
from pathlib import Path
from common_idc import hub_access
from dataset_syned import benchmark_builder
from dataset_syned.fetching import fetch
from dataset_syned.pair_builder import Mirror
from dataset_syned.pairs import DataError

hub_access.DELAYS = (0.05, 0.1)
for line in sys.stdin:
    root, mirrors = json.loads(line)
    builder = benchmark_builder("toy", root=Path(root))
    builder.MIRRORS = [Mirror(repo, revision, ("*.txt", "*.zip", "*.tar*", "*.bin")) for repo, revision in mirrors]
    builder.BY_HAND = "Get all.zip from the authors' page."
    try:
        report = fetch(builder)
        answer = [report.mirror.repo_id, report.files, report.downloaded, report.unpacked, report.failures]
    except DataError as error:
        answer = str(error)
    print(json.dumps(answer), flush=True)
"""


class Client:
    """A process that fetches on request, shared by all tests because it takes a second to start."""

    def __init__(self, hub: LoopbackHub, home: Path, **more: str):
        command = [sys.executable, "-c", CLIENT]
        environment = hub.environment(home, **more)
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __call__(self, root: Path, mirrors: list[tuple[str, str]]) -> list | str:
        """Return the report's fields, or the error's text."""
        self.process.stdin.write(json.dumps([str(root), mirrors]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


@pytest.fixture(scope="module")
def served():
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture
def hub(served: LoopbackHub):
    yield served
    for state in (served.repos, served.large, served.requests, served.listed_sizes, served.faults):
        state.clear()


@pytest.fixture(scope="module")
def fetched(served: LoopbackHub, tmp_path_factory: pytest.TempPathFactory):
    client = Client(served, tmp_path_factory.mktemp("home"))
    yield client
    client.close()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], links: dict[str, str] | None = None, hard: bool = False) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE if hard else tarfile.SYMTYPE, target
            file.addfile(info)
    return buffer.getvalue()


def zipped_link(name: str, target: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        info = zipfile.ZipInfo(name)
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, target)
    return buffer.getvalue()


def tree(folder: Path) -> dict[str, bytes]:
    """Return the files of a data folder, without the internal ones of `fetch`."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".fetching" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_files_arrive_pinned_and_archives_are_unpacked_once(hub: LoopbackHub, fetched: Client, tmp_path: Path) -> None:
    archive, second = zipped({"images/a.png": b"A", "./empty/": b""}), tarred({"images/b.png": b"B"})
    files = {"notes.txt": b"hello", "data/all.zip": archive, "data/more.tar.gz": second, "unasked.json": b"{}"}
    pinned = hub.add_repo("tester/raw", files, "dataset")
    hub.add_repo("tester/raw", {"notes.txt": b"changed since"}, "dataset")
    first, again = (fetched(tmp_path / "raw", [("tester/raw", pinned)]) for _ in range(2))
    names = ["data/all.zip", "data/more.tar.gz", "notes.txt"]
    assert first == ["tester/raw", names, names, names[:2], []]
    assert again == ["tester/raw", names, [], [], []]
    assert fetched_from(tmp_path / "raw") == f"tester/raw@{pinned}" and fetched_from(tmp_path) is None
    assert tree(tmp_path / "raw") == {
        "notes.txt": b"hello",
        "data/all.zip": archive,
        "data/more.tar.gz": second,
        "data/images/a.png": b"A",
        "data/images/b.png": b"B",
    }
    (tmp_path / "raw/data/all.zip").unlink()  # to save disk space
    assert fetched(tmp_path / "raw", [("tester/raw", pinned)])[2:4] == [[], []]
    (tmp_path / "raw/data/images/a.png").unlink()
    (tmp_path / "raw/data/images/b.png").unlink()
    (tmp_path / "raw/data/images").rmdir()
    assert fetched(tmp_path / "raw", [("tester/raw", pinned)])[2:4] == [names[:1], names[:2]]
    assert tree(tmp_path / "raw")["data/images/a.png"] == b"A"


def test_mirrors_are_tried_in_turn(hub: LoopbackHub, fetched: Client, tmp_path: Path) -> None:
    commit = hub.add_repo("tester/raw", {"notes.txt": b"hello"}, "dataset")
    other = hub.add_repo("tester/other", {"notes.json": b"{}"}, "dataset")
    mirrors = [("tester/gone", NOWHERE), ("tester/raw", NOWHERE), ("tester/other", other), ("tester/raw", commit)]
    repo, *_, failures = fetched(tmp_path / "raw", mirrors)
    assert repo == "tester/raw"
    assert failures == [
        "tester/gone at 000000000000: HTTP 404, Repository not found",
        f"tester/raw at 000000000000: HTTP 404, Invalid rev id: {NOWHERE}",
        f"tester/other at {other[:12]}: it has no file that matches *.txt, *.zip, *.tar*, *.bin",
    ]


@pytest.mark.parametrize("what", ["revision/main", "tree/", "resolve/.*/notes.txt", "cdn/.*big.bin"])
def test_a_server_in_trouble_is_asked_three_times(
    hub: LoopbackHub, fetched: Client, tmp_path: Path, what: str
) -> None:
    hub.add_repo("tester/raw", {"notes.txt": b"hello", "big.bin": b"12"}, "dataset")
    hub.fail(f"GET .*{what}", status=503, times=2)
    assert fetched(tmp_path / "raw", [("tester/raw", "main")])[2] == ["big.bin", "notes.txt"]
    assert tree(tmp_path / "raw") == {"notes.txt": b"hello", "big.bin": b"12"}


@pytest.mark.parametrize("what", ["revision/main", "tree/", "resolve/.*/notes.txt", "cdn/.*big.bin"])
@pytest.mark.parametrize("status", [403, 401, 404])
def test_a_refusal_is_shown_without_the_token_and_says_nothing_of_writing(
    hub: LoopbackHub, fetched: Client, tmp_path: Path, what: str, status: int
) -> None:
    hub.add_repo("tester/raw", {"notes.txt": b"hello", "big.bin": b"12"}, "dataset")
    hub.fail(f"GET .*{what}", status, times=99, message=f"bad {TOKEN}, sent as {TOKEN.replace('_', '%5F')}")
    message = fetched(tmp_path / "raw", [("tester/raw", "main")])
    assert f"HTTP {status}, bad (token), sent as (token)" in message
    assert "write" not in message and ("ask for access" in message) == (status == 403)
    assert len(hub.asked(f"GET .*{what}")) == 1  # not repeated


def test_a_second_fetch_into_the_same_folder_is_refused(hub: LoopbackHub, fetched: Client, tmp_path: Path) -> None:
    commit = hub.add_repo("tester/raw", {"notes.txt": b"hello"}, "dataset")
    with folder_lock(tmp_path, tmp_path / ".fetching" / LOCK):
        message = fetched(tmp_path, [("tester/raw", commit)])
    assert f"another process is writing into {str(tmp_path)!r}" in message and tree(tmp_path) == {}
    assert fetched(tmp_path, [("tester/raw", commit)])[2] == ["notes.txt"]


FETCH = """
from dataset_syned import benchmark_builder
from dataset_syned.fetching import fetch
from dataset_syned.pair_builder import Mirror

def command(folder):
    builder = benchmark_builder("toy", root=folder / "raw")
    builder.MIRRORS = [Mirror("tester/raw", "main", ("*.txt", "*.zip"))]
    fetch(builder)
"""


def test_a_fetch_that_is_killed_leaves_nothing_to_the_next(hub: LoopbackHub, tmp_path: Path) -> None:
    archive = zipped({"images/a.png": b"A", "images/b.png": b"B"})
    hub.add_repo("tester/raw", {"notes.txt": b"hello", "data/all.zip": archive}, "dataset")
    operations = ("os.rename", "os.mkdir", "os.rmdir", "os.remove")
    *killed, unbroken = after_kills(FETCH, tmp_path, operations, hub.environment(tmp_path / "home"))
    assert {"raw/notes.txt", "raw/data/images/b.png", "raw/.fetching/mirror.json"} < set(unbroken)
    assert len(killed) > 10 and all(listing == unbroken for listing in killed)


def test_without_a_working_mirror_the_error_explains_the_manual_download(
    hub: LoopbackHub, fetched: Client, tmp_path: Path
) -> None:
    assert fetched(tmp_path / "raw", [("tester/gone", NOWHERE)]) == (
        "toy: none of its mirrors works\n"
        "  tester/gone at 000000000000: HTTP 404, Repository not found\n"
        "Get all.zip from the authors' page."
    )
    offline = Client(hub, tmp_path, HF_HUB_OFFLINE="1")
    assert "offline mode is enabled" in offline(tmp_path / "raw", [("tester/gone", NOWHERE)])
    offline.close()


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_download_is_resumed(hub: LoopbackHub, fetched: Client, tmp_path: Path, reset: bool) -> None:
    content = bytes(range(256)) * 50_000  # 12.8 MB: the client writes blocks of 10 MB
    commit = hub.add_repo("tester/raw", {"big.bin": content}, "dataset")
    hub.cut("GET /cdn/.*big.bin", after=11_000_000, reset=reset)
    assert fetched(tmp_path / "raw", [("tester/raw", commit)])[2] == ["big.bin"]
    assert tree(tmp_path / "raw") == {"big.bin": content}
    answers = [line.split()[2] for line in hub.asked("GET /cdn")]
    assert answers == ["200", "206"] or reset  # a reset also throws away what had arrived but was not read


def test_another_process_resumes_an_interrupted_download(hub: LoopbackHub, fetched: Client, tmp_path: Path) -> None:
    content = bytes(range(256)) * 50_000
    commit = hub.add_repo("tester/raw", {"big.bin": content}, "dataset")
    hub.cut("GET /cdn/.*big.bin", after=11_000_000)
    hub.fail("GET /cdn/.*big.bin", status=403)
    assert "403" in fetched(tmp_path / "raw", [("tester/raw", commit)])
    assert tree(tmp_path / "raw") == {}
    hub.requests.clear()
    second = Client(hub, tmp_path)
    second(tmp_path / "raw", [("tester/raw", commit)])
    second.close()
    assert tree(tmp_path / "raw") == {"big.bin": content}
    assert [line.split()[2] for line in hub.asked("GET /cdn")] == ["206"]


def test_a_file_of_another_size_than_listed_is_refused(hub: LoopbackHub, fetched: Client, tmp_path: Path) -> None:
    commit = hub.add_repo("tester/raw", {"notes.txt": b"hello"}, "dataset")
    hub.listed_sizes["notes.txt"] = 6
    message = fetched(tmp_path / "raw", [("tester/raw", commit)])
    assert "'notes.txt' arrived with 5 bytes, the listing says 6" in message
    assert tree(tmp_path / "raw") == {} and not list(tmp_path.glob("raw/.fetching/*"))


def test_a_large_file_of_another_content_than_listed_is_refused(
    hub: LoopbackHub, fetched: Client, tmp_path: Path
) -> None:
    commit = hub.add_repo("tester/raw", {"x.bin": b"right"}, "dataset")
    hub.large[hashlib.sha256(b"right").hexdigest()] = b"wrong"
    assert "'x.bin' arrived with a SHA-256" in fetched(tmp_path / "raw", [("tester/raw", commit)])
    assert tree(tmp_path / "raw") == {}


def test_a_users_own_file_is_not_overwritten(hub: LoopbackHub, fetched: Client, tmp_path: Path) -> None:
    commit = hub.add_repo("tester/raw", {"notes.txt": b"hello", "all.zip": zipped({"a.png": b"A"})}, "dataset")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/notes.txt").write_bytes(b"my own")
    assert "has 6 bytes, the mirror's has 5: move it away" in fetched(tmp_path / "raw", [("tester/raw", commit)])
    assert tree(tmp_path / "raw") == {"notes.txt": b"my own"}
    (tmp_path / "raw/notes.txt").unlink()
    (tmp_path / "raw/a.png").write_bytes(b"mine")
    assert "a.png' is not the archive's file of that name: move it away" in fetched(
        tmp_path / "raw", [("tester/raw", commit)]
    )
    assert tree(tmp_path / "raw")["a.png"] == b"mine"


def test_an_archive_that_leaves_the_folder_is_removed_and_the_next_mirror_tried(
    hub: LoopbackHub, fetched: Client, tmp_path: Path
) -> None:
    bad = hub.add_repo("tester/bad", {"all.zip": zipped({"a.png": b"A", "../../evil.txt": b"!"})}, "dataset")
    good = hub.add_repo("tester/good", {"all.zip": zipped({"a.png": b"A"})}, "dataset")
    message = fetched(tmp_path / "raw", [("tester/bad", bad)])
    assert "member '../../evil.txt' of 'all.zip' leads out of the folder" in message
    assert tree(tmp_path / "raw") == {} and not list(tmp_path.rglob("evil.txt"))
    repo, *_, failures = fetched(tmp_path / "raw", [("tester/bad", bad), ("tester/good", good)])
    assert repo == "tester/good" and "evil.txt" in failures[0]
    assert tree(tmp_path / "raw")["a.png"] == b"A"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.zip", zipped({"a.png": b"A", "../evil.txt": b"!"})),
        ("x.zip", zipped({"a.png": b"A", "sub/../../evil.txt": b"!"})),
        ("x.zip", zipped({"a.png": b"A", "/evil.txt": b"!"})),
        ("x.zip", zipped({"a.png": b"A", "C:\\evil.txt": b"!"})),
        ("x.zip", zipped({"a.png": b"A", "..\\evil.txt": b"!"})),
        ("x.zip", zipped_link("evil.txt", "../secret")),
        ("x.zip", zipped_link("evil.txt", "/etc/passwd")),
        ("x.tar.gz", tarred({"a.png": b"A", "../evil.txt": b"!"})),
        ("x.tgz", tarred({"a.png": b"A", "/evil.txt": b"!"})),
        ("x.tar.gz", tarred({"a.png": b"A"}, {"evil.txt": "../secret"})),
        ("x.tar.gz", tarred({"a.png": b"A"}, {"sub/evil.txt": "/etc/passwd"})),
        ("x.tar.gz", tarred({"a.png": b"A"}, {"evil.txt": "../secret"}, hard=True)),
        ("x.tar.gz", tarred({"sub/a.png": b"A"}, {"evil.txt": "sub"})),
    ],
)
def test_no_member_leaves_the_folder_and_nothing_is_written(tmp_path: Path, name: str, content: bytes) -> None:
    root = tmp_path / "data" / "raw"
    root.mkdir(parents=True)
    (tmp_path / "data" / "secret").write_bytes(b"secret")
    (root / name).write_bytes(content)
    with pytest.raises(ArchiveError, match=f"evil.txt.*{name}"):
        unpack(root / name, root / ".fetching" / "x", root / ".fetching" / "done.json")
    assert tree(tmp_path) == {"data/secret": b"secret", f"data/raw/{name}": content}
    assert not list((root / ".fetching").iterdir())


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
def test_a_damaged_archive_is_named_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    whole = (zipped if name == "x.zip" else tarred)({f"{i}.png": bytes(range(256)) * 40 for i in range(20)})
    for content in (whole[: len(whole) // 2], whole[:300] + b"\xff" * 40 + whole[340:], b"<html>not found</html>"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ArchiveError, match=f"{name}' cannot be unpacked"):
            unpack(tmp_path / name, tmp_path / ".fetching" / "x", tmp_path / ".fetching" / "done.json")
        assert list(tree(tmp_path)) == [name]


def test_links_inside_an_archive_become_files(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(tarred({"a/x.png": b"X"}, {"b/y.png": "../a/x.png"}))
    unpack(tmp_path / "x.tar.gz", tmp_path / ".fetching" / "x", tmp_path / ".fetching" / "done.json")
    assert (tmp_path / "b/y.png").read_bytes() == b"X" and not (tmp_path / "b/y.png").is_symlink()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.zip", zipped({"a.png": b"A" * 5000, "b.png": b"B", "c.png": b"C"})),
        ("x.tar.gz", tarred({"a.png": b"A" * 5000, "b.png": b"B", "c.png": b"C"})),
        ("x.tar.gz", tarred({"a.png": b"A" * 5000}, {"b.png": "a.png"}, hard=True)),
    ],
    ids=["zip", "tar", "link"],
)
def test_an_archive_that_needs_more_space_than_is_free_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    usage = shutil.disk_usage(tmp_path)
    free = 3 * 4096  # a block less than the files take on a disk
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=free))
    archive = tmp_path / name
    archive.write_bytes(content)
    with pytest.raises(DataError, match=f"archive '{name}' needs 0.000 GB when unpacked, but 0.000 GB are free"):
        unpack(archive, tmp_path / ".fetching" / "x", tmp_path / ".fetching" / "done.json")
    assert list(tree(tmp_path)) == [name] and not list((tmp_path / ".fetching").iterdir()), "kept, to unpack it later"
    free += 4096
    unpack(archive, tmp_path / ".fetching" / "x", tmp_path / ".fetching" / "done.json")


def test_a_benchmark_without_mirrors_says_so_without_a_network(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="toy: there is no mirror"):
        fetch(benchmark_builder("toy", root=tmp_path))


def test_a_branch_stays_at_the_commit_of_the_first_fetch(hub: LoopbackHub, fetched: Client, tmp_path: Path) -> None:
    first = hub.add_repo("tester/branch", {"a.txt": b"one"}, "dataset")
    assert fetched(tmp_path, [("tester/branch", "main")])[1] == ["a.txt"]
    assert list(json.loads((tmp_path / ".fetching" / "revisions.json").read_text()).values()) == [first]
    hub.add_repo("tester/branch", {"a.txt": b"another", "b.txt": b"two"}, "dataset")
    (tmp_path / "a.txt").unlink()
    assert fetched(tmp_path, [("tester/branch", "main")])[1] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"one"


def test_documented_commands_lead_from_the_mirror_to_load_dataset(hub: LoopbackHub, tmp_path: Path) -> None:
    """Fetch emu_edit under its real Hub name, although the server fails once and a connection breaks once."""
    names = ["data/test-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"]
    noise = io.BytesIO()
    Image.effect_noise((4000, 3200), 99).save(noise, "PNG", compress_level=0)  # 12.8 MB, see above
    large = row(40, "a large one", image={"bytes": noise.getvalue(), "path": None})
    write_parquet(tmp_path, Path(names[0]).name, [row(idx, f"test {idx}") for idx in range(30)])
    write_parquet(tmp_path, Path(names[1]).name, [*(row(idx, f"validation {idx}") for idx in range(40)), large])
    files = {name: (tmp_path / name).read_bytes() for name in names}
    hub.add_repo("facebook/emu_edit_test_set_generations", {**files, "README.md": b"not asked for"}, "dataset")
    hub.fail("GET /cdn/.*/test-", status=503)
    hub.cut("GET /cdn/.*/validation-", after=11_000_000)
    (tmp_path / "user").mkdir()

    def output_of(*command: str, **more: str) -> str:
        environment = hub.environment(tmp_path / "home", None, **more)
        done = subprocess.run(
            [sys.executable, *command],
            env=environment,
            cwd=tmp_path / "user",
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "complete splits: validation, test" in output_of("-m", "dataset_syned", "fetch", "emu_edit")
    assert [line.split()[-1] for line in hub.asked("GET /cdn/.*/test-")] == ["503", "200"]
    broken, resumed = hub.asked("GET /cdn/.*/validation-")
    assert broken.endswith("200 cut") and resumed.endswith(" 206"), "only the missing part is downloaded"
    assert tree(tmp_path / "user" / "data" / "emu_edit") == files
    assert "emu_edit: 41 validation, 30 test; ready" in output_of("-m", "dataset_syned", "prepare", "emu_edit")
    load = """
from datasets import load_dataset
for streaming in (False, True):
    rows = list(load_dataset("emu_edit", split="test", streaming=streaming))
    print(len(rows), rows[29]["pair_id"], rows[29]["captions"], rows[29]["after"].size)
"""
    (tmp_path / "user" / "data").rename(tmp_path / "away")
    lines = output_of("-c", load, PYTHONPATH="", HF_HUB_OFFLINE="1").splitlines()
    assert lines == ["30 test-29 ['test 29'] (8, 8)"] * 2
