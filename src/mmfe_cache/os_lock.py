"""The operating system's own lock on an open file; it ends with its process, however that dies."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def try_lock(handle: int, path: Path) -> Callable[[], None] | None:
    """Lock an open file without waiting.

    Where there is `flock`, the file itself is locked, and closing it gives the lock back. Elsewhere
    filelock locks a file beside it: Windows would let nobody read a locked file.

    Args:
        handle: the open file.
        path: where it lies.

    Returns:
        What gives the lock back, to be called after the file is closed; None where another process
        has the lock. A file system without locks always gives it.

    Raises:
        OSError: the file cannot be locked for another reason.
    """
    if fcntl is None:
        return _lock_beside(path)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        if problem.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        if problem.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL):
            raise
    return _nothing


def _nothing() -> None:
    pass


def _lock_beside(path: Path) -> Callable[[], None] | None:
    from filelock import FileLock, Timeout

    beside = FileLock(path.with_name(path.name + ".held"), timeout=0)
    try:
        beside.acquire()
    except Timeout:
        return None

    def release() -> None:
        beside.release()
        Path(beside.lock_file).unlink(missing_ok=True)

    return release
