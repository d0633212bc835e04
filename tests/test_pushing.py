"""Pushing a benchmark to a loopback Hub, and loading it in another process and folder, without this package."""

import json
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard
from loopback_hub import TOKEN, LoopbackHub

from common_idc.hub_access import HubError
from dataset_syned import benchmark_builder
from dataset_syned.pairs import DataError
from dataset_syned.pushing import push

PUSH = """
import json
from common_idc import hub_access
from dataset_syned import benchmark_builder, prepare, pushing
hub_access.DELAYS = (0.1, 0.1)
try:
    builder = benchmark_builder("toy", train=4, validation=2, test=2)
    train = prepare(builder)["train"]
    address = pushing.push(builder, "tester/toy")
    print(json.dumps([address, list(train["pair_id"]), list(train["captions"])]))
except hub_access.HubError as error:
    print(json.dumps(str(error)))
"""
LOAD = """
import hashlib, json, sys
sys.path = [entry for entry in sys.path if entry != {root!r}]
from datasets import load_dataset
for arguments in {loads!r}:
    for streaming in (False, True):
        splits = load_dataset(*arguments, streaming=streaming)
        print(json.dumps({{split: [
            [row["pair_id"], row["captions"], row["before"].size, hashlib.sha256(row["after"].tobytes()).hexdigest()]
            for row in rows
        ] for split, rows in splits.items()}}))
assert "dataset_syned" not in sys.modules
"""


@pytest.fixture
def hub():
    with LoopbackHub() as hub:
        yield hub


ENCODED_TOKEN = TOKEN.replace("_", "%5f")


def pushed(hub: LoopbackHub, home: Path, **more: str | None) -> list:
    done = hub.run(PUSH, home, **more)
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return json.loads(done.stdout)


def loaded(hub: LoopbackHub, folder: Path, root: Path, *loads: tuple[str, ...]) -> list[dict[str, list]]:
    """Return what `load_dataset` gives another user for each of these arguments, without and with streaming."""
    folder.mkdir()
    done = hub.run(LOAD.format(loads=loads, root=str(root)), folder / "home", folder, token=None)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_is_pushed_loads_elsewhere_row_by_row(hub: LoopbackHub, tmp_path: Path, root: Path) -> None:
    address, ids, captions = pushed(hub, tmp_path / "mine")
    assert address == f"{hub.endpoint}/datasets/tester/toy"
    plain, streamed, named, _ = loaded(hub, tmp_path / "theirs", root, ("tester/toy",), ("tester/toy", "default"))
    assert plain == streamed == named and sorted(plain) == ["test", "train", "validation"]
    assert [row[:3] for row in plain["train"]] == [[i, c, [128, 64]] for i, c in zip(ids, captions, strict=True)]
    assert len({row[3] for row in plain["train"]}) == 4
    for name, content in hub.files("tester/toy", "dataset").items():
        assert TOKEN.encode() not in content and str(tmp_path).encode() not in content, name


def test_the_card_combines_metadata_of_datasets_and_of_the_builder(hub: LoopbackHub, tmp_path: Path) -> None:
    pushed(hub, tmp_path)
    first = hub.files("tester/toy", "dataset")
    card = DatasetCard(first["README.md"].decode())
    assert card.data.license == "mit" and card.data.size_categories == ["n<1K"]
    assert card.data.tags == ["image-difference-captioning"]
    assert [entry["config_name"] for entry in card.data.configs] == ["default"]
    assert [split["num_examples"] for split in card.data.dataset_info["splits"]] == [4, 2, 2]
    assert (
        "| default | train | 4 |" in card.text and 'load_dataset("tester/toy", "default", split="train")' in card.text
    )
    pushed(hub, tmp_path)
    assert hub.files("tester/toy", "dataset") == first


def test_text_and_metadata_of_an_existing_card_are_kept(hub: LoopbackHub, tmp_path: Path) -> None:
    own = "---\nlicense: cc-by-4.0\ntags:\n- mine\n---\n\n# My words\n"
    hub.add_repo("tester/toy", {"README.md": own.encode()}, "dataset")
    pushed(hub, tmp_path)
    card = DatasetCard(hub.files("tester/toy", "dataset")["README.md"].decode())
    assert card.text.strip() == "# My words" and card.data.license == "cc-by-4.0" and card.data.configs
    assert card.data.tags == ["mine", "image-difference-captioning"]


def test_a_failed_commit_is_repeated_without_a_second_upload(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.fail("POST .*/commit/main", status=503, times=2)
    assert pushed(hub, tmp_path)[0].endswith("/datasets/tester/toy")
    commits = [line.split()[-1] for line in hub.asked("POST .*/commit/main")]
    assert commits == ["503", "503", "200", "200"]  # the last two: rows, card
    assert len(hub.asked("PUT /lfs/")) == 3  # one file for each split


def test_a_failed_commit_of_the_card_is_repeated_too(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.fail("POST .*/commit/main", status=503, times=2, spared=1)
    pushed(hub, tmp_path)
    commits = [line.split()[-1] for line in hub.asked("POST .*/commit/main")]
    assert commits == ["200", "503", "503", "200"]
    assert b"license: mit" in hub.files("tester/toy", "dataset")["README.md"]


def test_a_cut_upload_is_repeated(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.cut("PUT /lfs/", after=5000, times=2, reset=True)
    assert pushed(hub, tmp_path)[0].endswith("/datasets/tester/toy")
    assert len(hub.asked("PUT /lfs/.* cut")) == 2 and len(hub.asked("PUT /lfs/.* 200")) == 3


@pytest.mark.parametrize(
    ("request_pattern", "status"),
    [("GET /api/whoami", 400), ("POST .*/commit/main", 503), ("POST .*/commit/main", 403), ("POST .*/preupload", 400)],
)
def test_an_answer_that_quotes_the_token_is_shown_without_it(
    hub: LoopbackHub, tmp_path: Path, request_pattern: str, status: int
) -> None:
    hub.fail(request_pattern, status, times=99, message=f"bad {TOKEN}, sent as {ENCODED_TOKEN}")
    done = hub.run(PUSH, tmp_path)
    assert f"HTTP {status}, bad (token), sent as (token)" in json.loads(done.stdout)
    assert not any(secret in done.stdout + done.stderr for secret in (TOKEN, ENCODED_TOKEN))


def test_a_warning_of_the_hub_is_shown_without_the_token(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.card_warnings = [f"odd card of {TOKEN}"]
    done = hub.run(PUSH, tmp_path)
    assert "odd card of (token)" in done.stderr and TOKEN not in done.stdout + done.stderr


def test_commits_that_keep_failing_end_with_one_clear_error(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.fail("POST .*/commit/main", status=503, times=99)
    assert pushed(hub, tmp_path).startswith("could not push to 'tester/toy' after 3 attempts: HTTP 503")


@pytest.mark.parametrize("token", ["hf_wrong", "hf_\x01wrong", None])
def test_a_missing_or_wrong_token_gives_one_clear_error(hub: LoopbackHub, tmp_path: Path, token: str | None) -> None:
    message = pushed(hub, tmp_path, token=token)
    assert "`hf auth login`" in message or "correct HF_TOKEN" in message
    assert "wrong" not in message and "\n" not in message
    assert not hub.repos


def test_a_repository_of_somebody_else_is_refused_at_once(hub: LoopbackHub, tmp_path: Path) -> None:
    done = hub.run(PUSH.replace("tester/toy", "other/toy"), tmp_path)
    message = json.loads(done.stdout)
    assert message.startswith("could not push to 'other/toy': HTTP 403") and "rights" in message


def test_what_cannot_be_pushed_is_refused_before_the_network() -> None:
    toy = benchmark_builder("toy", train=1, validation=1, test=1, seed=99)
    with pytest.raises(HubError, match="use <user>/<name>"):
        push(toy, "toy")
    with pytest.raises(DataError, match="prepare toy"):
        push(toy, "tester/toy")
