"""push: a benchmark goes to a loopback Hub and comes back in another process, elsewhere, without this package."""

import json
from pathlib import Path

import pytest
from loopback_hub import TOKEN, LoopbackHub

from dataset_syned import benchmark_builder
from dataset_syned.pair_builder import DataError
from dataset_syned.pushing import PushError, push

PUSH = """
import json
from dataset_syned import benchmark_builder, prepare, pushing
pushing.PAUSE = 0.1
try:
    for config, seed in {configs!r}:
        splits = prepare(benchmark_builder("toy", train=4, validation=2, test=2, seed=seed))
        address, train = pushing.push(splits, "tester/toy", config), splits["train"]
        print(json.dumps([address, list(train["pair_id"]), list(train["captions"])]))
except pushing.PushError as error:
    print(json.dumps(str(error)))
"""
LOAD = """
import hashlib, json, sys
sys.path = [entry for entry in sys.path if entry != {root!r}]
from datasets import load_dataset
rows = []
for config in {configs!r}:
    for streaming in (False, True):
        splits = load_dataset("tester/toy", config, streaming=streaming)
        train = list(splits["train"])
        assert train[0]["before"].size == (128, 64)
        rows.append([sorted(splits), [row["pair_id"] for row in train], [row["captions"] for row in train],
            hashlib.sha256(b"".join(row["before"].tobytes() + row["after"].tobytes() for row in train)).hexdigest()])
assert "dataset_syned" not in sys.modules
print(json.dumps(rows))
"""


@pytest.fixture
def hub():
    with LoopbackHub() as hub:
        yield hub


def pushed(hub: LoopbackHub, home: Path, configs: tuple = (("default", 0),), **more: str | None) -> list:
    done = hub.run(PUSH.format(configs=configs), home, **more)
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_is_pushed_loads_elsewhere_row_by_row(hub: LoopbackHub, tmp_path: Path, root: Path) -> None:
    first, second = pushed(hub, tmp_path / "mine", (("default", 0), ("seed_1", 1)))
    assert first[0] == f"{hub.endpoint}/datasets/tester/toy"
    (tmp_path / "elsewhere").mkdir()
    code = LOAD.format(configs=("default", "seed_1"), root=str(root))
    done = hub.run(code, tmp_path / "theirs", tmp_path / "elsewhere", token=None)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    for row, expected in zip(loaded, (first, first, second, second), strict=True):
        assert row[0] == ["test", "train", "validation"] and row[1:3] == expected[1:]
    assert loaded[0][3] == loaded[1][3] != loaded[2][3] == loaded[3][3]
    card = hub.files("tester/toy", "dataset")["README.md"].decode()
    assert "config_name: default" in card and "config_name: seed_1" in card
    for name, content in hub.files("tester/toy", "dataset").items():
        assert TOKEN.encode() not in content and str(tmp_path).encode() not in content, name


def test_a_failed_commit_is_repeated_without_a_second_upload(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.fail("POST .*/commit/main", status=503, times=2)
    assert pushed(hub, tmp_path)[0][0].endswith("/datasets/tester/toy")
    commits = [line.split()[-1] for line in hub.asked("POST .*/commit/main")]
    assert commits == ["503", "503", "200"]
    assert len(hub.asked("PUT /lfs/")) == 3  # one file for each split


def test_a_cut_upload_is_repeated(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.cut("PUT /lfs/", after=5000, times=2, reset=True)
    assert pushed(hub, tmp_path)[0][0].endswith("/datasets/tester/toy")
    assert len(hub.asked("PUT /lfs/.* cut")) == 2 and len(hub.asked("PUT /lfs/.* 200")) == 3


def test_commits_that_go_on_failing_end_with_one_clear_error(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.fail("POST .*/commit/main", status=503, times=99)
    assert pushed(hub, tmp_path)[0].startswith("'tester/toy' could not be pushed after 5 attempts: HTTP 503")


@pytest.mark.parametrize("token", ["hf_wrong", "hf_\x01wrong", None])
def test_without_the_right_token_one_clear_error(hub: LoopbackHub, tmp_path: Path, token: str | None) -> None:
    [message] = pushed(hub, tmp_path, token=token)
    assert "`hf auth login`" in message or "(token)" in message
    assert "wrong" not in message and "\n" not in message
    assert not hub.repos


def test_a_repository_of_somebody_else_is_refused_at_once(hub: LoopbackHub, tmp_path: Path) -> None:
    code = PUSH.format(configs=(("default", 0),)).replace("tester/toy", "other/toy")
    done = hub.run(code, tmp_path)
    message = json.loads(done.stdout)
    assert message.startswith("'other/toy' could not be pushed: HTTP 403") and "rights" in message


def test_what_cannot_be_pushed_is_refused_before_the_network() -> None:
    toy = benchmark_builder("toy", train=1, validation=1, test=1, seed=99)
    with pytest.raises(PushError, match="write <user>/<name>"):
        push(toy, "toy")
    with pytest.raises(DataError, match="prepare toy"):
        push(toy, "tester/toy")
