"""Raw files from the Hub into a benchmark's data folder: pinned, checked, resumed, archives unpacked.

Nothing is overwritten and nothing is written half: a file or an unpacked archive appears under its name when it is
whole. What is under way lies in `.fetching` of the data folder, so that a stopped fetch goes on where it ended.
"""

import gzip
import hashlib
import json
import os
import posixpath
import re
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from lzma import LZMAError
from pathlib import Path
from typing import IO

from huggingface_hub import HfApi, RepoFile, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HTTPError  # HTTPError: of the HTTP library the client uses
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers, filter_repo_objects, tqdm

from common_idc.atomic_files import write_text
from common_idc.hub_access import describe_error

from .annotations import inside
from .pair_builder import Mirror, PairBuilder
from .pairs import DataError

WORKPLACE = ".fetching"
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ATTEMPTS = 5  # connections without a single new byte before a mirror is given up
PAUSE = 1.0  # seconds before the second attempt, twice as long before each further one
TRANSIENT = (408, 429, 500, 502, 503, 504)
DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, LZMAError, EOFError),
    *(NotImplementedError, RuntimeError),  # a compression that is not known here; a password
)


class ArchiveError(DataError):
    """An archive that is damaged or would write outside its folder."""


@dataclass(frozen=True)
class FetchReport:
    """What `fetch` did.

    Args:
        files: the mirror's files, relative to `root`.
        downloaded: those that were not there before.
        unpacked: archives unpacked now.
        failures: why the mirrors before this one did not work, one line each.
    """

    root: Path
    mirror: Mirror
    files: tuple[str, ...]
    downloaded: tuple[str, ...]
    unpacked: tuple[str, ...]
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Member:
    """Part of an archive. A link has a target, a path in the archive; neither it nor a folder has content."""

    path: str
    content: IO[bytes] | None = None
    target: str | None = None


def fetch(builder: PairBuilder, root: Path | None = None) -> FetchReport:
    """The files of the first of the builder's mirrors that works.

    Args:
        root: data folder; by default the builder's.

    Raises: DataError, with the reason for each mirror and BY_HAND, where none works.
    """
    root = builder.root if root is None else root
    failures: list[str] = []
    for mirror in builder.MIRRORS:
        try:
            return fetch_mirror(mirror, root, failures)
        except (DataError, OSError, HTTPError) as error:
            failures.append(f"{mirror.repo_id} at {mirror.revision[:12]}: {describe_error(error)}")
    problem = "none of its mirrors works" if failures else "there is no mirror of it on the Hub"
    lines = [f"{builder.dataset_name}: {problem}", *(f"  {failure}" for failure in failures), builder.BY_HAND]
    raise DataError("\n".join(line for line in lines if line))


def fetch_mirror(mirror: Mirror, root: Path, failures: list[str]) -> FetchReport:
    """Raises: DataError, OSError or HTTPError where this mirror does not work."""
    mirror = pinned(mirror, root)
    files = list_files(mirror)
    targets = {file.path: inside(root, file.path) for file in files}
    # all are looked at before the first is fetched: a file in the way is said before hours of downloading
    wanted = [file for file in files if not is_unpacked(file, targets[file.path], root)]
    missing = [file.path for file in wanted if not is_here(file, targets[file.path])]
    for file in wanted:
        if file.path in missing:
            download(mirror, file, targets[file.path], root)
        if is_archive(file.path):
            unpack_file(file, targets[file.path], root)
    unpacked = [file.path for file in wanted if is_archive(file.path)]
    note = {"repo_id": mirror.repo_id, "commit": mirror.revision}
    write_text(root / WORKPLACE / "mirror.json", json.dumps(note, indent=2))
    return FetchReport(root, mirror, tuple(targets), tuple(missing), tuple(unpacked), tuple(failures))


def pinned(mirror: Mirror, root: Path) -> Mirror:
    """The mirror at a commit: its own, or the one that its branch stood at when it was first fetched into `root`."""
    if re.fullmatch("[0-9a-f]{40}", mirror.revision):
        return mirror
    book = root / WORKPLACE / "revisions.json"
    commits = json.loads(book.read_text(encoding="utf-8")) if book.exists() else {}
    name = f"{mirror.repo_id}@{mirror.revision}"
    if name not in commits:
        info = HfApi().repo_info(mirror.repo_id, revision=mirror.revision, repo_type=mirror.repo_type)
        commits[name] = info.sha
        write_text(book, json.dumps(commits, indent=2))
    return replace(mirror, revision=commits[name])


def fetched_from(root: Path) -> str | None:
    """`REPOSITORY@COMMIT` of the mirror whose files were last fetched into a data folder; None if none were."""
    note = root / WORKPLACE / "mirror.json"
    return "{repo_id}@{commit}".format(**json.loads(note.read_text(encoding="utf-8"))) if note.is_file() else None


# downloading


def list_files(mirror: Mirror) -> list[RepoFile]:
    """The files of the mirror that match its patterns, with their sizes."""
    tree = HfApi().list_repo_tree(mirror.repo_id, recursive=True, revision=mirror.revision, repo_type=mirror.repo_type)
    files = [entry for entry in tree if isinstance(entry, RepoFile)]
    wanted = list(filter_repo_objects(files, allow_patterns=list(mirror.patterns), key=lambda file: file.path))
    if not wanted:
        raise DataError(f"it has no file that matches {', '.join(mirror.patterns)}")
    return wanted


def is_here(file: RepoFile, target: Path) -> bool:
    """Raises: DataError for another file of that name, which is not ours to overwrite."""
    if not target.exists():
        return False
    size = target.stat().st_size
    if size == file.size:
        return True
    raise DataError(f"{str(target)!r} has {size} bytes, the mirror's has {file.size}: move it away and fetch again")


def download(mirror: Mirror, file: RepoFile, target: Path, root: Path) -> None:
    """Whole and checked, or not at all.

    Not by `hf_hub_download`: since huggingface_hub 2 it starts anew what another process left unfinished.
    """
    unfinished = root / WORKPLACE / f"{file.blob_id}.incomplete"  # named after the content: only that is continued
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    url = hf_hub_url(mirror.repo_id, file.path, repo_type=mirror.repo_type, revision=mirror.revision)
    with unfinished.open("ab") as stream:
        if stream.tell() < file.size:
            receive(url, stream, file)
    try:
        check_content(file, unfinished)
    except DataError:
        unfinished.unlink()
        raise
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(unfinished, target)


def receive(url: str, stream: IO[bytes], file: RepoFile) -> None:
    """The rest of the file. A connection that breaks is opened again where it ended."""
    failed = 0
    while True:
        start = stream.tell()
        try:
            return http_get(
                url,
                stream,
                resume_size=start,
                headers=build_hf_headers(),
                expected_size=None,  # ours says which file it was
                displayed_filename=file.path,
            )
        except HTTPError as error:
            status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
            stream.flush()
            failed = 1 if stream.tell() > start else failed + 1
            if (status and status not in TRANSIENT) or failed == ATTEMPTS:
                raise
            time.sleep(PAUSE * 2 ** (failed - 1))


def check_content(file: RepoFile, path: Path) -> None:
    """Size, and hash where the listing has one. Raises: DataError."""
    size = path.stat().st_size
    if size != file.size:
        raise DataError(f"{file.path!r} came with {size} bytes, the listing says {file.size}")
    if file.lfs is None:
        return
    hashed = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            hashed.update(block)
    if hashed.hexdigest() != file.lfs.sha256:
        raise DataError(f"{file.path!r} came with another SHA-256 than the listing says")


# unpacking


def is_archive(name: str) -> bool:
    return name.lower().endswith((".zip", *TAR_SUFFIXES))


def mark(file: RepoFile, root: Path) -> Path:
    """Exists once this archive has been unpacked; lists the names at its top."""
    return root / WORKPLACE / f"{file.blob_id}.unpacked.json"


def is_unpacked(file: RepoFile, target: Path, root: Path) -> bool:
    """Also where the archive itself was removed to save room, as long as what came out of it is there."""
    if not mark(file, root).exists():
        return False
    names = json.loads(mark(file, root).read_text(encoding="utf-8"))
    return all((target.parent / name).exists() for name in names)


def unpack_file(file: RepoFile, target: Path, root: Path) -> None:
    try:
        unpack(target, root / WORKPLACE / f"{file.blob_id}.unpacking", mark(file, root))
    except ArchiveError:
        target.unlink()  # otherwise it would be in the way of another mirror's
        raise


def unpack(archive: Path, workplace: Path, done: Path) -> None:
    """The members go into `workplace` first and from there beside the archive; then `done` is written.

    Raises: ArchiveError that names the member, with nothing left behind; DataError where other files of these names
        are in the way.
    """
    shutil.rmtree(workplace, ignore_errors=True)  # of a fetch that was killed
    workplace.mkdir(parents=True)
    try:
        extract(archive, workplace)
        names = sorted(path.name for path in workplace.iterdir())
        move_in(workplace, archive.parent)
    finally:
        shutil.rmtree(workplace)
    write_text(done, json.dumps(names))


def extract(archive: Path, folder: Path) -> None:
    """No link is ever made: one to a file of the archive becomes a copy, any other is refused."""
    links: list[Member] = []
    try:
        with closing(read_members(archive)) as members:
            for member in tqdm(members, desc=f"unpacking {archive.name}", unit=" members"):
                if member.target is not None:
                    links.append(member)
                elif member.content is None:
                    (folder / member.path).mkdir(parents=True, exist_ok=True)
                else:
                    write_member(folder / member.path, member.content)
    except DAMAGED as error:
        raise ArchiveError(f"archive {archive.name!r} cannot be unpacked ({describe_error(error)})") from error
    for link in links:
        source = folder / str(link.target)
        if not source.is_file():
            raise ArchiveError(f"member {link.path!r} of {archive.name!r} links to {link.target!r}, no file in it")
        with source.open("rb") as content:
            write_member(folder / link.path, content)


def write_member(path: Path, content: IO[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with content, path.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)


def read_members(archive: Path) -> Iterator[Member]:
    """In the order of the archive. Raises: ArchiveError for a member that leads out of it."""
    return read_zip(archive) if archive.name.lower().endswith(".zip") else read_tar(archive)


def read_zip(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            path = member_path(archive, info.filename, info.filename)
            if info.is_dir():
                yield Member(path)
            elif stat.S_ISLNK(info.external_attr >> 16):
                target = os.fsdecode(file.read(info))
                yield Member(path, target=link_path(archive, info.filename, path, target))
            else:
                yield Member(path, file.open(info))


def read_tar(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive) as file:
        for info in file:
            path = member_path(archive, info.name, info.name)
            if info.isdir():
                yield Member(path)
            elif info.issym():
                yield Member(path, target=link_path(archive, info.name, path, info.linkname))
            elif info.islnk():
                yield Member(path, target=member_path(archive, info.name, info.linkname))
            elif info.isfile():
                yield Member(path, file.extractfile(info))
            else:
                raise ArchiveError(f"member {info.name!r} of {archive.name!r} is no file, folder or link")


def link_path(archive: Path, member: str, path: str, target: str) -> str:
    """What a symbolic link at `path` points to, as a path in the archive."""
    return member_path(archive, member, posixpath.join(posixpath.dirname(path), target))


def member_path(archive: Path, member: str, name: str) -> str:
    """Normalised. Raises: ArchiveError for an absolute name and for one that climbs out."""
    path = posixpath.normpath(name.replace("\\", "/"))  # archives made on Windows hold backslashes
    if path.startswith("/") or path.split("/")[0] == ".." or re.match("[A-Za-z]:", path) or "\0" in path:
        raise ArchiveError(f"member {member!r} of {archive.name!r} leads out of the folder")
    return path


def move_in(source: Path, folder: Path) -> None:
    """Adds the tree `source` to `folder`. Files of the same size are taken for the same.

    Raises: DataError, before anything is moved, where another file has the name of one of ours.
    """
    paths = [path for path in source.rglob("*") if not path.is_dir()]
    for path in paths:
        place = folder / path.relative_to(source)
        if place.exists() and (place.is_dir() or place.stat().st_size != path.stat().st_size):
            raise DataError(f"{str(place)!r} is not the one of the archive: move it away and fetch again")
    for path in sorted(source.iterdir()):
        place = folder / path.name
        if not place.exists():
            os.replace(path, place)  # a whole new folder at once
        elif path.is_dir():
            move_in(path, place)
