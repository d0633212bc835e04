"""A lock that keeps two programs from writing into one folder; it ends with its process, however that ends."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"  # in the locked folder; begins with a dot, so that nothing exports or pushes it
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # the answers of file systems without locks

logger = logging.getLogger(__name__)


@contextmanager
def folder_lock(folder: Path, file: Path | None = None) -> Iterator[None]:
    """Lock `folder` until the block ends; nothing of the lock is left then, nor a new folder that stayed empty.

    Args:
        file: the file that is locked, created with its parent folders; by default LOCK in `folder`.

    Raises: OSError if another process has locked it.
    """
    file = file or folder / LOCK
    existed = file.parent.exists()
    file.parent.mkdir(parents=True, exist_ok=True)
    # Never replaced by a file whose existence is the lock: that would outlive a killed process.
    lock = FileLock(file, timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise OSError(
            f"another process is writing into {str(folder)!r}: wait for its end, or name another folder"
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        logger.warning("the file system of %r has no locks: let no second program write there", str(folder))
        yield
        return
    try:
        yield
    finally:
        # Still locked: whoever has opened the file meanwhile sees that it has no name any more.
        file.unlink(missing_ok=True)
        if not existed:
            with suppress(OSError):  # it is not empty
                file.parent.rmdir()
        lock.release()
