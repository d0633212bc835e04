"""An in-memory Hub, served over HTTP on this machine, for huggingface_hub, datasets and transformers as clients.

    with LoopbackHub() as hub:
        commit = hub.add_repo("tester/raw", {"data.zip": content}, repo_type="dataset")
        hub.fail("POST .*/commit/", times=1)                   # the next commit is answered with 503
        hub.cut("GET .*data.zip", after=1000)                  # the next download ends after 1000 bytes
        hub.run("from huggingface_hub import ...", home=tmp_path)

huggingface_hub reads its environment when it is imported, so clients run in separate processes: use `run`, or start
one with `environment()`. Files above REGULAR_LIMIT, binaries and Parquet use LFS and are served through a redirect, as
on the Hub; Xet is not supported.
"""

import base64
import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml

ROOT = Path(__file__).resolve().parents[1]
USER = "tester"
TOKEN = "hf_loopback"
REGULAR_LIMIT = 1_000_000
LFS_SUFFIXES = {".parquet", ".arrow", ".safetensors", ".bin", ".pt", ".zip", ".gz", ".tgz", ".tar", ".xz", ".bz2"}
DATE = "2026-01-01T00:00:00.000Z"
REPO_ID = r"[\w.-]+/[\w.-]+"
REPO_TYPES = {"models": "model", "datasets": "dataset", "spaces": "space"}
PREFIX = {"model": "", "dataset": "datasets/", "space": "spaces/"}


@dataclass(frozen=True)
class Blob:
    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def git_oid(self) -> str:
        """Return the git id of the content, or of the pointer file that git contains instead."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        data = pointer.encode() if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.git_oid


@dataclass
class Repo:
    repo_type: str
    repo_id: str
    private: bool = False
    refs: dict[str, str] = field(default_factory=dict)  # refs/heads/NAME or refs/tags/NAME -> commit
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)  # in order
    titles: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, Blob], title: str, branch: str = "main") -> str:
        seed = f"{self.repo_type} {self.repo_id} {len(self.commits)} {title}"
        oid = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[oid], self.titles[oid] = files, title
        self.refs[f"refs/heads/{branch}"] = oid
        return oid

    def resolve(self, revision: str) -> str:
        """Return the commit of a branch, a tag or a commit. Raises: Refusal."""
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if name in self.refs:
                return self.refs[name]
        if revision not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return revision


@dataclass
class InjectedFault:
    """A failure of the next `times` requests whose "METHOD /path" matches."""

    pattern: str
    times: int
    status: int = 0  # sent instead of the real one; 0: cut the connection
    after: int = 0  # bytes of the body to let through before the cut
    reset: bool = False
    spared: int = 0  # matching requests to let through first
    message: str = ""  # the server's, sent with the status


class Refusal(Exception):
    def __init__(self, status: int, message: str, code: str = "", commit: str = ""):
        super().__init__(message)
        self.status, self.message, self.code, self.commit = status, message, code, commit


class Cut(Exception):
    """An upload whose connection was closed on purpose."""


@dataclass
class Answer:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def json_answer(content: Any, status: int = 200) -> Answer:
    return Answer(json.dumps(content).encode(), status, {"Content-Type": "application/json"})


class LoopbackHub:
    """An in-memory Hub: its repositories, the faults to inject, and the server (a context manager)."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.large: dict[str, bytes] = {}  # sha256 -> content of large files, as it is served
        self.requests: list[str] = []  # "METHOD /path status", in the order of answers
        self.listed_sizes: dict[str, int] = {}  # path -> size in listings instead of the true one
        self.faults: list[InjectedFault] = []
        self.card_warnings: list[str] = []  # sent after each check of a card
        self.lock = threading.RLock()
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.hub = self

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def storage(self) -> str:
        """Return the URL for large files: another host name, as on the Hub, to which no token may be sent."""
        return f"http://localhost:{self.server.server_address[1]}"

    def __enter__(self) -> "LoopbackHub":
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    # used by tests

    def add_repo(self, repo_id: str, files: dict[str, bytes], repo_type: str = "model", private: bool = False) -> str:
        """Add a repository, or a commit to an existing one, without a client; return the commit."""
        with self.lock:
            repo = self.repos.get((repo_type, repo_id)) or self.create(repo_type, repo_id, private)
            blobs = {path: Blob(content, is_large(path, content, len(content))) for path, content in files.items()}
            return repo.commit(self.blobs(repo) | blobs, "Add files")

    def files(self, repo_id: str, repo_type: str = "model", revision: str = "main") -> dict[str, bytes]:
        repo = self.repos[repo_type, repo_id]
        return {path: blob.content for path, blob in self.blobs(repo, revision).items()}

    def fail(self, pattern: str, status: int = 503, times: int = 1, spared: int = 0, message: str = "") -> None:
        """Answer `times` requests whose "METHOD /path" matches (re.search), after the next `spared`, with `status`."""
        self.faults.append(InjectedFault(pattern, times, status, spared=spared, message=message))

    def cut(self, pattern: str, after: int, times: int = 1, reset: bool = False) -> None:
        """Close the connection after that many bytes of a download's answer or of an upload's body.

        Large files are downloaded from /cdn/SHA256/NAME and uploaded to /lfs/SHA256.

        Args:
            reset: close with TCP RST, for which clients report a different error.
        """
        self.faults.append(InjectedFault(pattern, times, after=after, reset=reset))

    def asked(self, pattern: str) -> list[str]:
        """Return the matching requests so far, "METHOD /path status"."""
        with self.lock:
            return [line for line in self.requests if re.search(pattern, line)]

    def environment(self, home: Path, token: str | None = TOKEN, **more: str) -> dict[str, str]:
        """Return the environment of a client's process; `home` is its HF_HOME, a new one for each user."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        ours = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        return inherited | ours | ({"HF_TOKEN": token} if token else {}) | more

    def run(
        self, code: str, home: Path, cwd: Path | None = None, token: str | None = TOKEN, **more: str
    ) -> subprocess.CompletedProcess:
        """Run Python code as a client and capture its output; check `returncode` for success."""
        home.mkdir(parents=True, exist_ok=True)
        environment = self.environment(home, token, **more)
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=environment, cwd=cwd or home, capture_output=True, text=True)

    # used by the handler

    def create(self, repo_type: str, repo_id: str, private: bool) -> Repo:
        repo = self.repos[repo_type, repo_id] = Repo(repo_type, repo_id, private)
        repo.commit(
            {".gitattributes": Blob(b"*.parquet filter=lfs diff=lfs merge=lfs -text\n", False)}, "Initial commit"
        )
        return repo

    def blobs(self, repo: Repo, revision: str = "main") -> dict[str, Blob]:
        return repo.commits[repo.resolve(revision)]

    def fault(self, request: str) -> InjectedFault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and re.search(fault.pattern, request):
                    if fault.spared:
                        fault.spared -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None

    def entry(self, path: str, blob: Blob, expand: bool) -> dict[str, Any]:
        size = self.listed_sizes.get(path, len(blob.content))
        entry = {"type": "file", "path": path, "oid": blob.git_oid, "size": size}
        if blob.lfs:
            entry["lfs"] = {"oid": blob.sha256, "size": size, "pointerSize": 130}
        if expand:
            entry["lastCommit"] = {"id": "0" * 40, "title": "commit", "date": DATE}
        return entry


def is_large(path: str, sample: bytes, size: int) -> bool:
    return size > REGULAR_LIMIT or Path(path).suffix in LFS_SUFFIXES or b"\0" in sample


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore killed clients; anything else is a bug in this file."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def hub(self) -> LoopbackHub:
        return self.server.hub

    def log_message(self, *_: object) -> None:
        """Print nothing: `hub.requests` records the requests."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.raw_path, self.query = url.path, parse_qs(url.query)
        request = f"{self.command} {unquote(self.raw_path)}"
        fault = self.hub.fault(request)
        try:
            body = self.read_body(fault)
            if fault and fault.status:
                raise Refusal(fault.status, fault.message)
            answer = self.answer(body)
        except Refusal as refusal:
            answer = json_answer({"error": refusal.message} if refusal.message else {}, refusal.status)
            answer.headers |= {"X-Error-Message": refusal.message} if refusal.message else {}
            answer.headers |= {"X-Error-Code": refusal.code} if refusal.code else {}
            answer.headers |= {"X-Repo-Commit": refusal.commit} if refusal.commit else {}
        except Cut:
            self.log(f"{request} cut")
            return
        self.log(f"{request} {answer.status}{' cut' if fault and not fault.status else ''}")
        self.reply(answer, fault)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def log(self, line: str) -> None:
        with self.hub.lock:
            self.hub.requests.append(line)

    # HTTP

    def read_body(self, fault: InjectedFault | None) -> bytes:
        """Return the body of a request. Raises: Cut."""
        if self.command == "PUT" and fault and not fault.status:
            self.rfile.read(fault.after)
            self.hang_up(fault.reset)
            raise Cut
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def reply(self, answer: Answer, fault: InjectedFault | None) -> None:
        self.send_response(answer.status)
        for name, value in ({"Content-Length": str(len(answer.body))} | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault and not fault.status:
            self.wfile.write(answer.body[: fault.after])
            self.hang_up(fault.reset)
        else:
            self.wfile.write(answer.body)

    def hang_up(self, reset: bool) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())  # only closing the last reference resets
        else:
            self.connection.shutdown(socket.SHUT_RDWR)

    # access

    def signed_in(self) -> bool:
        """Return whether a token was sent. Raises: Refusal for a wrong one, as on the Hub even if none is needed."""
        header = self.headers.get("Authorization")
        if header and header != f"Bearer {TOKEN}":
            raise Refusal(401, "Invalid credentials in Authorization header")
        return header is not None

    def need_token(self) -> None:
        if not self.signed_in():
            raise Refusal(401, "Invalid username or password.")

    def repo(self, repo_type: str, repo_id: str, write: bool = False) -> Repo:
        signed_in = self.signed_in()
        repo = self.hub.repos.get((repo_type, unquote(repo_id)))
        if repo is None or (repo.private and not signed_in):
            raise Refusal(404 if signed_in else 401, "Repository not found", "RepoNotFound")
        if write:
            self.need_token()
            if repo.repo_id.split("/")[0] != USER:
                raise Refusal(403, "You don't have the rights to write to this repository")
        return repo

    # routes

    def answer(self, body: bytes) -> Answer:
        for pattern, method in ROUTES:
            if match := re.fullmatch(pattern, f"{self.command} {self.raw_path}"):
                with self.hub.lock:
                    return method(self, body, *match.groups())
        raise Refusal(404, f"The loopback Hub has no {self.command} {self.raw_path}")

    def whoami(self, body: bytes) -> Answer:
        self.need_token()
        access = {"accessToken": {"displayName": "test", "role": "write"}}
        return json_answer({"type": "user", "name": USER, "fullname": "Tester", "orgs": [], "auth": access})

    def create(self, body: bytes) -> Answer:
        self.need_token()
        payload = json.loads(body)
        repo_type, owner = payload.get("type", "model"), payload.get("organization") or USER
        repo_id = f"{owner}/{payload['name']}"
        created = {"url": f"{self.hub.endpoint}/{PREFIX[repo_type]}{repo_id}", "name": repo_id}
        if (repo_type, repo_id) in self.hub.repos:
            return json_answer(created | {"error": f"You already created this {repo_type} repo"}, 409)
        if owner != USER:
            raise Refusal(403, f"You don't have the rights to create a {repo_type} under the namespace {owner!r}")
        self.hub.create(repo_type, repo_id, bool(payload.get("private")) or payload.get("visibility") == "private")
        return json_answer(created)

    def delete(self, body: bytes) -> Answer:
        payload = json.loads(body)
        repo_type, repo_id = payload.get("type", "model"), f"{payload.get('organization') or USER}/{payload['name']}"
        self.repo(repo_type, repo_id, write=True)
        del self.hub.repos[repo_type, repo_id]
        return json_answer({})

    def validate_yaml(self, body: bytes) -> Answer:
        """Apply those checks of the Hub that a generated card can fail."""
        try:
            found = re.match(r"---\n(.*?)\n---\n", json.loads(body)["content"], re.DOTALL)
            header = yaml.safe_load(found.group(1)) if found else {}
            bases = header.get("base_model") or []
            wrong = [
                base for base in ([bases] if isinstance(bases, str) else bases) if not re.fullmatch(REPO_ID, base)
            ]
            errors = [f'"base_model" with value {base!r} is not valid. Use a model id' for base in wrong]
            for result in (result for model in header.get("model-index") or [] for result in model["results"]):
                complete = result["task"]["type"] and result["dataset"]["type"] and result["dataset"]["name"]
                if not complete or not all(metric["type"] and "value" in metric for metric in result["metrics"]):
                    errors.append('"model-index" lacks a type, a name or a value')
        except (yaml.YAMLError, LookupError, AttributeError) as error:
            errors = [f"Invalid metadata: {error!r}"]
        errors = [{"message": message} for message in errors]
        warnings = [{"message": message} for message in self.hub.card_warnings]
        return json_answer({"errors": errors, "warnings": warnings}, 400 if errors else 200)

    def preupload(self, body: bytes, plural: str, repo_id: str, revision: str) -> Answer:
        blobs = self.hub.blobs(self.repo(REPO_TYPES[plural], repo_id, write=True), unquote(revision))
        modes = []
        for file in json.loads(body)["files"]:
            large = is_large(file["path"], base64.b64decode(file["sample"]), file["size"])
            existing = blobs.get(file["path"])
            modes.append(
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if large else "regular",
                    "shouldIgnore": False,
                    "oid": existing.etag if existing else None,
                }
            )
        return json_answer({"files": modes})

    def lfs_batch(self, body: bytes, prefix: str | None, repo_id: str) -> Answer:
        self.repo(REPO_TYPES.get((prefix or "").strip("/"), "model"), repo_id, write=True)
        objects = json.loads(body)["objects"]
        for entry in objects:
            if entry["oid"] not in self.hub.large:  # stored objects are not uploaded again
                url = f"{self.hub.endpoint}/lfs/{entry['oid']}"
                entry["actions"] = {"upload": {"href": url}, "verify": {"href": f"{url}/verify"}}
        return json_answer({"transfer": "basic", "objects": objects})

    def lfs_put(self, body: bytes, oid: str) -> Answer:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refusal(400, "The content does not have this SHA-256")
        self.hub.large[oid] = body
        return Answer()

    def lfs_verify(self, body: bytes, oid: str) -> Answer:
        if len(self.hub.large.get(oid, b"")) != json.loads(body)["size"]:
            raise Refusal(400, "The object was not uploaded")
        return json_answer({})

    def commit(self, body: bytes, plural: str, repo_id: str, revision: str) -> Answer:
        repo, branch = self.repo(REPO_TYPES[plural], repo_id, write=True), unquote(revision)
        files, title = dict(self.hub.blobs(repo, branch)), ""
        for line in map(json.loads, body.splitlines()):
            key, value = line["key"], line["value"]
            if key == "header":
                title = value["summary"]
                if value.get("parentCommit") not in (None, repo.resolve(branch)):
                    raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            elif key == "lfsFile":
                if value["oid"] not in self.hub.large:
                    raise Refusal(400, f"LFS object {value['oid']} was not uploaded")
                files[value["path"]] = Blob(self.hub.large[value["oid"]], True)
            elif key == "deletedFile":
                del files[value["path"]]
            elif key == "deletedFolder":
                folder = value["path"].rstrip("/") + "/"
                files = {path: blob for path, blob in files.items() if not path.startswith(folder)}
            else:
                raise Refusal(400, f"The loopback Hub does not support the operation {key!r}")
        oid = repo.commit(files, title, branch)
        url = f"{self.hub.endpoint}/{PREFIX[repo.repo_type]}{repo.repo_id}/commit/{oid}"
        return json_answer({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})

    def new_ref(self, body: bytes, plural: str, repo_id: str, ref_type: str, name: str) -> Answer:
        """Add the branch in the path, or a tag on the revision in the path."""
        repo, payload = self.repo(REPO_TYPES[plural], repo_id, write=True), json.loads(body or b"{}")
        if ref_type == "branch":
            ref, start = f"refs/heads/{unquote(name)}", payload.get("startingPoint") or "main"
        else:
            ref, start = f"refs/tags/{payload['tag']}", unquote(name)
        if ref in repo.refs:
            raise Refusal(409, f"Reference already exists: {ref}")
        repo.refs[ref] = repo.resolve(start)
        return json_answer({})

    def info(self, body: bytes, plural: str, repo_id: str, revision: str | None) -> Answer:
        repo = self.repo(REPO_TYPES[plural], repo_id)
        commit = repo.resolve(unquote(revision or "main"))
        siblings = []
        for path, blob in sorted(repo.commits[commit].items()):
            entry = self.hub.entry(path, blob, expand=False)
            siblings.append({"rfilename": path, "blobId": entry["oid"], "size": entry["size"]})
            siblings[-1] |= {"lfs": entry["lfs"] | {"sha256": blob.sha256}} if blob.lfs else {}
        facts = {"_id": "0" * 24, "id": repo.repo_id, "sha": commit, "private": repo.private, "siblings": siblings}
        facts |= {"author": repo.repo_id.split("/")[0], "lastModified": DATE, "createdAt": DATE, "tags": []}
        return json_answer(facts | {"downloads": 0, "likes": 0, "gated": False, "disabled": False})

    def tree(self, body: bytes, plural: str, repo_id: str, revision: str, folder: str | None) -> Answer:
        repo = self.repo(REPO_TYPES[plural], repo_id)
        commit = repo.resolve(unquote(revision))
        folder = unquote(folder or "").strip("/")
        start = f"{folder}/" if folder else ""
        recursive = self.query.get("recursive", [""])[0].lower() == "true"
        expand = self.query.get("expand", [""])[0].lower() == "true"
        entries: dict[str, dict[str, Any]] = {}
        for path, blob in sorted(repo.commits[commit].items()):
            if not path.startswith(start):
                continue
            parts = path[len(start) :].split("/")
            for depth in range(1, len(parts)):
                name = start + "/".join(parts[:depth])
                if recursive or depth == 1:
                    entries[name] = {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
            if recursive or len(parts) == 1:
                entries[path] = self.hub.entry(path, blob, expand)
        if folder and not entries:
            raise Refusal(404, f"{folder} does not exist on {revision}", "EntryNotFound", commit)
        return json_answer(list(entries.values()))

    def paths_info(self, body: bytes, plural: str, repo_id: str, revision: str) -> Answer:
        blobs = self.hub.blobs(self.repo(REPO_TYPES[plural], repo_id), unquote(revision))
        if self.headers.get("Content-Type", "").startswith("application/json"):
            payload = json.loads(body)
        else:
            payload = parse_qs(body.decode())
        entries = []
        for path in payload["paths"]:
            if path in blobs:
                entries.append(self.hub.entry(path, blobs[path], expand=False))
            elif any(name.startswith(f"{path}/") for name in blobs):
                entries.append({"type": "directory", "path": path, "oid": "0" * 40, "size": 0})
        return json_answer(entries)

    def refs(self, body: bytes, plural: str, repo_id: str) -> Answer:
        repo = self.repo(REPO_TYPES[plural], repo_id)
        refs = [(ref, ref.split("/", 2), commit) for ref, commit in repo.refs.items()]
        folders = {"branches": "heads", "tags": "tags", "converts": "convert"}
        return json_answer(
            {
                name: [
                    {"name": parts[2], "ref": ref, "targetCommit": oid}
                    for ref, parts, oid in refs
                    if parts[1] == folder
                ]
                for name, folder in folders.items()
            }
        )

    def commits(self, body: bytes, plural: str, repo_id: str, revision: str) -> Answer:
        repo = self.repo(REPO_TYPES[plural], repo_id)
        repo.resolve(unquote(revision))
        newest_first = reversed(repo.titles.items())
        return json_answer(
            [{"id": i, "title": t, "message": "", "authors": [], "date": DATE} for i, t in newest_first]
        )

    def resolve(self, body: bytes, prefix: str | None, repo_id: str, revision: str, path: str) -> Answer:
        repo, path = self.repo(REPO_TYPES.get((prefix or "").strip("/"), "model"), repo_id), unquote(path)
        commit = repo.resolve(unquote(revision))
        blob = repo.commits[commit].get(path)
        if blob is None:
            raise Refusal(404, "Entry not found", "EntryNotFound", commit)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{blob.git_oid}"', "Accept-Ranges": "bytes"}
        if not blob.lfs:
            return self.part(blob.content, headers)
        self.hub.large.setdefault(blob.sha256, blob.content)
        headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.content))}
        location = f"{self.hub.storage}/cdn/{blob.sha256}/{quote(Path(path).name)}"
        return Answer(b"", 302, headers | {"Location": location})

    def cdn(self, body: bytes, oid: str) -> Answer:
        if self.headers.get("Authorization"):
            raise Refusal(400, "A token was sent to the storage")
        if oid not in self.hub.large:
            raise Refusal(404, "Not found")
        return self.part(self.hub.large[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})

    def part(self, content: bytes, headers: dict[str, str]) -> Answer:
        """Return the file, or the requested range of it."""
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if match is None:
            return Answer(content, 200, headers)
        first, last = match.groups()
        start = int(first) if first else max(0, len(content) - int(last))
        stop = min(int(last) + 1, len(content)) if first and last else len(content)
        if start >= len(content):
            return Answer(b"", 416, headers | {"Content-Range": f"bytes */{len(content)}"})
        headers |= {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        return Answer(content[start:stop], 206, headers)


API = r"/api/(models|datasets|spaces)/([^/]+/[^/]+)"
PAGE = r"/(datasets/|spaces/)?([^/]+/[^/]+)"
ROUTES: list[tuple[str, Callable[..., Answer]]] = [
    (r"GET /api/whoami-v2", Handler.whoami),
    (r"POST /api/repos/create", Handler.create),
    (r"DELETE /api/repos/delete", Handler.delete),
    (r"POST /api/validate-yaml", Handler.validate_yaml),
    (rf"POST {API}/preupload/([^/]+)", Handler.preupload),
    (rf"POST {PAGE}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    (r"PUT /lfs/(\w+)", Handler.lfs_put),
    (r"POST /lfs/(\w+)/verify", Handler.lfs_verify),
    (rf"POST {API}/commit/([^/]+)", Handler.commit),
    (rf"POST {API}/(branch|tag)/(.+)", Handler.new_ref),
    (rf"GET {API}(?:/revision/([^/]+))?", Handler.info),
    (rf"GET {API}/tree/([^/]+)(/.*)?", Handler.tree),
    (rf"POST {API}/paths-info/([^/]+)", Handler.paths_info),
    (rf"GET {API}/refs", Handler.refs),
    (rf"GET {API}/commits/([^/]+)", Handler.commits),
    (rf"(?:GET|HEAD) {PAGE}/resolve/([^/]+)/(.+)", Handler.resolve),
    (r"(?:GET|HEAD) /cdn/(\w+)/.*", Handler.cdn),
]
