"""Fetch raw files from the Hub into a benchmark's data folder: pinned, checked, resumed, archives unpacked.

Nothing is overwritten, and a file or an unpacked archive gets its name only when it is complete. Unfinished files are
in `.fetching` of the data folder, so that an interrupted fetch continues where it ended.
"""

import gzip
import json
import os
import posixpath
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from lzma import LZMAError
from pathlib import Path
from typing import IO

from huggingface_hub import HfApi, RepoFile, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers, filter_repo_objects, tqdm

from common_idc.atomic_files import named_errors, write_json
from common_idc.folder_lock import LOCK, folder_lock
from common_idc.hub_access import describe_error, with_retries
from common_idc.provenance import file_sha256

from .annotations import inside
from .pair_builder import Mirror, PairBuilder
from .pairs import DataError

WORKPLACE = ".fetching"
BLOCK = 4096  # bytes; a file takes whole blocks of a disk
LONGEST_PATH = 4096  # bytes
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, LZMAError, EOFError),
    *(NotImplementedError, RuntimeError),  # an unknown compression; a password
)


class ArchiveError(DataError):
    """An archive that is damaged or would write outside its folder."""


@dataclass(frozen=True)
class FetchReport:
    """The result of `fetch`.

    Args:
        files: the mirror's files, relative to `root`.
        downloaded: files that were missing before.
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
    """Part of an archive. A link has a target, a path in the archive; neither it nor a folder has content to open."""

    path: str
    size: int = 0
    open: Callable[[], IO[bytes]] | None = None
    target: str | None = None


def fetch(builder: PairBuilder) -> FetchReport:
    """Fetch the files of the first of the builder's mirrors that works into the builder's data folder.

    Raises: DataError, with the reason for each mirror and BY_HAND, if none works.
    """
    failures: list[str] = []
    for mirror in builder.MIRRORS:
        try:
            return replace(fetch_mirror(mirror, builder.root), failures=tuple(failures))
        except (DataError, OSError) as error:
            failures.append(f"{mirror.repo_id} at {mirror.revision[:12]}: {describe_error(error, 'fetch from')}")
    problem = "none of its mirrors works" if failures else "there is no mirror of it on the Hub"
    lines = [f"{builder.dataset_name}: {problem}", *(f"  {failure}" for failure in failures), builder.BY_HAND]
    raise DataError("\n".join(line for line in lines if line))


def fetch_mirror(mirror: Mirror, root: Path) -> FetchReport:
    """Fetch the files of one mirror. Raises: DataError or OSError if it does not work."""
    mirror = pinned(mirror, root)
    files = list_files(mirror)
    targets = {file.path: inside(root, file.path) for file in files}
    # all are checked before the first is fetched: a file in the way is reported before hours of downloading
    wanted = [file for file in files if not is_unpacked(file, targets[file.path], root)]
    missing = [file.path for file in wanted if not is_here(file, targets[file.path])]
    with folder_lock(root, root / WORKPLACE / LOCK):
        for file in wanted:
            if file.path in missing:
                download(mirror, file, targets[file.path], root)
            if is_archive(file.path):
                unpack_file(file, targets[file.path], root)
        note = {"repo_id": mirror.repo_id, "commit": mirror.revision}
        write_json(root / WORKPLACE / "mirror.json", note)
    unpacked = [file.path for file in wanted if is_archive(file.path)]
    return FetchReport(root, mirror, tuple(targets), tuple(missing), tuple(unpacked))


def pinned(mirror: Mirror, root: Path) -> Mirror:
    """Return the mirror at a commit: its own, or the commit of its branch when it was first fetched into `root`."""
    if re.fullmatch("[0-9a-f]{40}", mirror.revision):
        return mirror
    book = root / WORKPLACE / "revisions.json"
    commits = json.loads(book.read_text(encoding="utf-8")) if book.exists() else {}
    name = f"{mirror.repo_id}@{mirror.revision}"
    if name not in commits:
        found = with_retries(
            lambda: HfApi().repo_info(mirror.repo_id, revision=mirror.revision, repo_type=mirror.repo_type),
            mirror.repo_id,
            "fetch from",
        )
        commits[name] = found.sha
        write_json(book, commits)
    return replace(mirror, revision=commits[name])


def fetched_from(root: Path) -> str | None:
    """Return `REPOSITORY@COMMIT` of the mirror that was last fetched into a data folder; None if there was none."""
    note = root / WORKPLACE / "mirror.json"
    return "{repo_id}@{commit}".format(**json.loads(note.read_text(encoding="utf-8"))) if note.is_file() else None


# downloading


def list_files(mirror: Mirror) -> list[RepoFile]:
    """Return the files of the mirror that match its patterns, with their sizes."""
    place = {"repo_id": mirror.repo_id, "repo_type": mirror.repo_type, "revision": mirror.revision}
    tree = with_retries(lambda: list(HfApi().list_repo_tree(recursive=True, **place)), mirror.repo_id, "fetch from")
    files = [entry for entry in tree if isinstance(entry, RepoFile)]
    wanted = list(filter_repo_objects(files, allow_patterns=list(mirror.patterns), key=lambda file: file.path))
    if not wanted:
        raise DataError(f"it has no file that matches {', '.join(mirror.patterns)}")
    return wanted


def is_here(file: RepoFile, target: Path) -> bool:
    """Return whether the file is present. Raises: DataError for another file of that name, which must stay."""
    if not target.exists():
        return False
    size = target.stat().st_size
    if size == file.size:
        return True
    raise DataError(f"{str(target)!r} has {size} bytes, the mirror's has {file.size}: move it away and fetch again")


def download(mirror: Mirror, file: RepoFile, target: Path, root: Path) -> None:
    """Download a file and check it; `target` exists only if it is complete.

    Not by `hf_hub_download`: since huggingface_hub 2 it starts again what another process left unfinished.
    """
    unfinished = root / WORKPLACE / f"{file.blob_id}.incomplete"  # named after the content: only that is continued
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    url = hf_hub_url(mirror.repo_id, file.path, repo_type=mirror.repo_type, revision=mirror.revision)
    with named_errors(unfinished), unfinished.open("ab") as stream:
        if stream.tell() < file.size:
            receive(url, stream, file, mirror.repo_id)
    try:
        check_content(file, unfinished)
    except DataError:
        unfinished.unlink()
        raise
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(unfinished, target)


def receive(url: str, stream: IO[bytes], file: RepoFile, repo_id: str) -> None:
    """Receive the rest of the file; after a broken connection continue where it ended."""

    def receive_rest() -> None:
        with named_errors(Path(stream.name)):
            http_get(
                url,
                stream,
                resume_size=stream.tell(),
                headers=build_hf_headers(),
                expected_size=None,  # ours says which file it was
                displayed_filename=file.path,
            )

    with_retries(receive_rest, repo_id, "fetch from", progress=stream.tell)


def check_content(file: RepoFile, path: Path) -> None:
    """Raise DataError if the size is wrong, or the hash, which the listing has for large files."""
    size = path.stat().st_size
    if size != file.size:
        raise DataError(f"{file.path!r} arrived with {size} bytes, the listing says {file.size}")
    if file.lfs is None:
        return
    if file_sha256(path) != file.lfs.sha256:
        raise DataError(f"{file.path!r} arrived with a SHA-256 that is not that of the listing")


# unpacking


def is_archive(name: str) -> bool:
    """Return whether a file is unpacked after its download."""
    return name.lower().endswith((".zip", *TAR_SUFFIXES))


def marker(file: RepoFile, root: Path) -> Path:
    """Return the file that exists once an archive has been unpacked and lists the names at its top."""
    return root / WORKPLACE / f"{file.blob_id}.unpacked.json"


def is_unpacked(file: RepoFile, target: Path, root: Path) -> bool:
    """Return whether an archive's content is present; the archive itself may have been removed to save space."""
    if not marker(file, root).exists():
        return False
    names = json.loads(marker(file, root).read_text(encoding="utf-8"))
    return all((target.parent / name).exists() for name in names)


def unpack_file(file: RepoFile, target: Path, root: Path) -> None:
    """Unpack a downloaded archive; remove it if it is damaged."""
    try:
        unpack(target, root / WORKPLACE / f"{file.blob_id}.unpacking", marker(file, root))
    except ArchiveError:
        target.unlink()  # otherwise another mirror's archive could not be fetched
        raise


def unpack(archive: Path, workplace: Path, done: Path) -> None:
    """Unpack an archive into `workplace`, move the files next to the archive, then write `done`.

    Raises: ArchiveError that names the member, with nothing left behind; DataError if other files have these names.
    """
    shutil.rmtree(workplace, ignore_errors=True)  # left by a killed fetch
    workplace.mkdir(parents=True)
    try:
        extract(archive, workplace)
        names = sorted(path.name for path in workplace.iterdir())
        move_in(workplace, archive.parent)
    finally:
        shutil.rmtree(workplace)
    write_json(done, names)


def extract(archive: Path, folder: Path) -> None:
    """Write the members of an archive; a link to one of its files becomes a copy, any other link is refused."""
    links: list[Member] = []
    try:
        check_room(archive, folder)
        with closing(read_members(archive)) as members:
            for member in tqdm(members, desc=f"unpacking {archive.name}", unit=" members"):
                if member.target is not None:
                    links.append(member)
                elif member.open is None:
                    (folder / member.path).mkdir(parents=True, exist_ok=True)
                else:
                    write_member(folder / member.path, member.open())
    except DAMAGED as error:
        raise ArchiveError(f"archive {archive.name!r} cannot be unpacked ({describe_error(error)})") from error
    for link in links:
        source = folder / str(link.target)
        if not source.is_file():
            raise ArchiveError(
                f"member {link.path!r} of {archive.name!r} links to {link.target!r}, which is not a file in it"
            )
        with source.open("rb") as content:
            write_member(folder / link.path, content)


def check_room(archive: Path, folder: Path) -> None:
    """Raise DataError if the files of an archive need more space than is free; a compressed tar file is read once."""
    sizes: dict[str, int] = {}
    links: list[Member] = []
    with closing(read_members(archive)) as members:
        for member in members:
            if member.target is not None:
                links.append(member)
            else:
                sizes[member.path] = member.size
    for link in links:  # which become copies
        sizes[link.path] = sizes.get(str(link.target), 0)
    needed = sum(-(-size // BLOCK) * BLOCK for size in sizes.values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"archive {archive.name!r} needs {needed / 1e9:,.3f} GB when unpacked, but {free / 1e9:,.3f} GB are free "
            f"in {str(archive.parent)!r}: make room and fetch again"
        )


def write_member(path: Path, content: IO[bytes]) -> None:
    """Write the content of a member and close it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with named_errors(path), content, path.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)


def read_members(archive: Path) -> Iterator[Member]:
    """Yield the members in the archive's order. Raises: ArchiveError for a member that leads out of it."""
    return read_zip(archive) if archive.name.lower().endswith(".zip") else read_tar(archive)


def read_zip(archive: Path) -> Iterator[Member]:
    """Yield the members of a zip file."""
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            path = member_path(archive, info.filename, info.filename)
            if info.is_dir():
                yield Member(path)
            elif stat.S_ISLNK(info.external_attr >> 16):
                if info.file_size > LONGEST_PATH:
                    raise ArchiveError(f"the target of the link {info.filename!r} in {archive.name!r} is too long")
                target = os.fsdecode(file.read(info))
                yield Member(path, target=link_path(archive, info.filename, path, target))
            else:
                yield Member(path, info.file_size, partial(file.open, info))


def read_tar(archive: Path) -> Iterator[Member]:
    """Yield the members of a tar file, compressed or not."""
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
                yield Member(path, info.size, partial(file.extractfile, info))
            else:
                raise ArchiveError(f"member {info.name!r} of {archive.name!r} is not a file, folder or link")


def link_path(archive: Path, member: str, path: str, target: str) -> str:
    """Return the target of a symbolic link at `path`, as a path in the archive."""
    return member_path(archive, member, posixpath.join(posixpath.dirname(path), target))


def member_path(archive: Path, member: str, name: str) -> str:
    """Return `name`, normalised. Raises: ArchiveError for an absolute name or one that leads out."""
    path = posixpath.normpath(name.replace("\\", "/"))  # archives made on Windows contain backslashes
    if path.startswith("/") or path.split("/")[0] == ".." or re.match("[A-Za-z]:", path) or "\0" in path:
        raise ArchiveError(f"member {member!r} of {archive.name!r} leads out of the folder")
    return path


def move_in(source: Path, folder: Path) -> None:
    """Move the tree `source` into `folder`; existing files of the same size are taken as equal.

    Raises: DataError, before anything is moved, if a different file has the name of one of these.
    """
    paths = [path for path in source.rglob("*") if not path.is_dir()]
    for path in paths:
        place = folder / path.relative_to(source)
        if place.exists() and (place.is_dir() or place.stat().st_size != path.stat().st_size):
            raise DataError(f"{str(place)!r} is not the archive's file of that name: move it away and fetch again")
    for path in sorted(source.iterdir()):
        place = folder / path.name
        if not place.exists():
            os.replace(path, place)  # a whole new folder at once
        elif path.is_dir():
            move_in(path, place)
