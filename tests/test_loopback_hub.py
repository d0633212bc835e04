"""The loopback Hub with the real client: uploads can be downloaded, and requested failures happen."""

import json
from pathlib import Path

import pytest
from loopback_hub import LoopbackHub


@pytest.fixture
def hub():
    with LoopbackHub() as hub:
        yield hub


def printed(hub: LoopbackHub, code: str, home: Path, **more: str) -> dict:
    """Run this code with the client and return its last line of output, parsed as JSON."""
    done = hub.run("import json\n" + code, home, **more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_create_upload_and_download(hub: LoopbackHub, tmp_path: Path) -> None:
    folder = tmp_path / "up"
    (folder / "sub").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\nhello\n")
    (folder / "sub" / "weights.safetensors").write_bytes(bytes(range(256)) * 10)
    code = f"""
from pathlib import Path
from huggingface_hub import HfApi, snapshot_download
api = HfApi()
api.create_repo("tester/one", repo_type="dataset")
api.create_repo("tester/one", repo_type="dataset", exist_ok=True, private=True)
api.upload_file(path_or_fileobj=b"text", path_in_repo="a b/x.txt", repo_id="tester/one", repo_type="dataset")
api.upload_folder(folder_path={str(folder)!r}, repo_id="tester/one", repo_type="dataset")
api.delete_file("a b/x.txt", "tester/one", repo_type="dataset")
api.create_tag("tester/one", tag="v1", repo_type="dataset")
copy = Path(snapshot_download("tester/one", repo_type="dataset", revision="v1"))
names = sorted(p.relative_to(copy).as_posix() for p in copy.rglob("*") if p.is_file())
same = (copy / names[2]).read_bytes() == Path({str(folder)!r}, names[2]).read_bytes()
print(json.dumps([api.whoami()["name"], names, same, api.dataset_info("tester/one").private]))
"""
    assert printed(hub, code, tmp_path / "home") == [
        "tester",
        [".gitattributes", "README.md", "sub/weights.safetensors"],
        True,
        False,
    ]
    assert hub.files("tester/one", "dataset")["README.md"].endswith(b"hello\n")
    assert len(hub.asked("PUT /lfs/")) == 1 and len(hub.asked("POST .*/verify 200")) == 1
    assert hub.asked("POST /api/repos/create") == ["POST /api/repos/create 200", "POST /api/repos/create 409"]


def test_a_cut_download_is_resumed_with_a_range(hub: LoopbackHub, tmp_path: Path) -> None:
    content = bytes(range(256)) * 50_000  # 12.8 MB: the client writes blocks of 10 MB
    hub.add_repo("tester/two", {"w.bin": content}, "model")
    hub.cut("GET /cdn/.*w.bin", after=11_000_000)
    code = """
from huggingface_hub import hf_hub_url
from huggingface_hub.errors import HTTPError
from huggingface_hub.file_download import http_get
url = hf_hub_url("tester/two", "w.bin")
with open("w.bin", "wb") as file:
    try:
        http_get(url, file)
    except HTTPError:  # the client of huggingface_hub 1 leaves it to the caller
        file.flush()
        http_get(url, file, resume_size=file.tell())
print(json.dumps("fine"))
"""
    assert printed(hub, code, tmp_path) == "fine"
    assert (tmp_path / "w.bin").read_bytes() == content
    assert [line.split(" ", 2)[2] for line in hub.asked("GET /cdn")] == ["200 cut", "206"]


def test_a_cut_or_refused_upload_can_be_repeated(hub: LoopbackHub, tmp_path: Path) -> None:
    code = """
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("tester/three")
for attempt in range(5):
    try:
        api.upload_file(path_or_fileobj=bytes(3_000_000), path_in_repo="w.bin", repo_id="tester/three")
        break
    except Exception as error:
        print(type(error).__name__)
print(json.dumps(attempt))
"""
    hub.cut("PUT /lfs/", after=1000, reset=True)
    hub.fail("POST .*/commit/main", status=503)
    # newer clients repeat the upload themselves; none repeats the commit
    assert printed(hub, code, tmp_path) in (1, 2)
    assert hub.files("tester/three")["w.bin"] == bytes(3_000_000)
    assert len(hub.asked("PUT /lfs/.* 200")) == 1


def test_errors_are_those_of_the_hub(hub: LoopbackHub, tmp_path: Path) -> None:
    commit = hub.add_repo("tester/four", {"x.txt": b"x"}, "dataset", private=True)
    hub.add_repo("other/five", {"x.txt": b"x"}, "dataset")
    code = f"""
import os
from huggingface_hub import HfApi, hf_hub_download
api = HfApi()
def name(call, *args, **kwargs):
    try:
        return call(*args, **kwargs) and "fine"
    except Exception as error:
        status = getattr(error, "response", None)
        return [type(error).__name__, status.status_code if status is not None else 0]
print(json.dumps({{
    "file": name(hf_hub_download, "tester/four", "x.txt", repo_type="dataset", revision={commit!r}),
    "no file": name(hf_hub_download, "tester/four", "y.txt", repo_type="dataset"),
    "no revision": name(api.dataset_info, "tester/four", revision="gone"),
    "no repository": name(api.dataset_info, "tester/none"),
    "not mine": name(api.delete_file, "x.txt", "other/five", repo_type="dataset"),
    "wrong token": name(HfApi(token="hf_wrong").whoami),
    "stranger": name(HfApi(token=False).dataset_info, "tester/four"),
}}))
"""
    assert printed(hub, code, tmp_path) == {
        "file": "fine",
        "no file": ["RemoteEntryNotFoundError", 404],
        "no revision": ["RevisionNotFoundError", 404],
        "no repository": ["RepositoryNotFoundError", 404],
        "not mine": ["HfHubHTTPError", 403],
        "wrong token": ["HfHubHTTPError", 401],
        "stranger": ["RepositoryNotFoundError", 401],
    }


def test_a_cards_header_is_checked(hub: LoopbackHub, tmp_path: Path) -> None:
    code = """
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("tester/card")
answers = []
for header in ("base_model: tester/x", "base_model: /home/x", "a: [", "model-index: [{results: [{task: {}}]}]"):
    try:
        card = f"---\\n{header}\\n---\\n".encode()
        api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="tester/card")
        answers.append("fine")
    except ValueError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""
    answers = printed(hub, code, tmp_path)
    assert answers[0] == "fine" and all("Invalid metadata" in answer for answer in answers[1:]), answers
    assert "'/home/x' is not valid" in answers[1]
