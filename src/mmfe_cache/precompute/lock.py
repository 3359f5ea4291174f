"""One writer at a time: a lock file beside the store that says who holds it and since when.

Why not filelock's `SoftFileLease`, which beats as well: tried, it gives the lock of a suspended
process away to a second writer on the same machine, and takes over another machine's dead lock only
after watching it for the whole lease. The operating system's lock does neither, and its `FileLock`
leaves the file behind and says nothing of other machines.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from mmfe_cache.errors import CacheError, MmfeError
from mmfe_cache.io import explain

HEARTBEAT = 20.0
"""Seconds between two signs of life of a lock's holder."""

STALE = 300.0
"""Seconds without a sign of life after which another machine's lock is void."""


def lock_file(path: Path) -> Path:
    """The lock of the store at ``path``: beside it, so that the store itself bears no host."""
    return path.with_name(path.name + ".lock")


@contextlib.contextmanager
def locked(path: Path) -> Generator[str | None]:
    """Hold the only right to write the store at ``path``.

    The operating system's own file lock decides between processes of one machine: it ends with
    its process, however that dies, and no clock is asked. Between machines that share a folder
    without sharing such locks, signs of life decide, timed by the file system's clock.

    Yields:
        What is to be told of a stale lock that was taken over; None where there was none.

    Raises:
        CacheError: another process is writing.
        MmfeError: the place cannot be written.
    """
    file = lock_file(path)
    handle, stale = _acquire(file)
    own = _read(handle)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(handle, stop), daemon=True)
    beat.start()
    try:
        yield stale
    finally:
        stop.set()
        beat.join()
        # Where someone removed the file or took it over meanwhile, it is another build's now.
        if _same(file, handle) and _read(handle) == own:
            file.unlink(missing_ok=True)
        os.close(handle)


def _acquire(file: Path) -> tuple[int, str | None]:
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as problem:
            raise explain(problem, file) from problem
        try:
            held = _flock(handle)
            owner = _read(handle)
            if not held or _alive_elsewhere(file, handle, owner):
                raise _refusal(file, handle, owner)  # noqa: TRY301
            # The holder may have removed the file between our opening and locking it.
            if not _same(file, handle):
                os.close(handle)
                continue
            stale = None if owner is None else _describe(owner, _age(file, handle))
            _write(handle)
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(handle)
            raise
        return handle, stale


def _flock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        if problem.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if problem.errno in (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL):
            return True  # A file system without locks: the signs of life decide alone.
        raise
    return True


def _alive_elsewhere(file: Path, handle: int, owner: dict[str, Any] | None) -> bool:
    if owner is None or owner.get("host") == socket.gethostname():
        return False
    return _age(file, handle) < STALE


def _age(file: Path, handle: int) -> float:
    # Both times come from the file system's clock, so a wrong clock on either machine, or one
    # that jumps, does not matter.
    probe = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        probe.touch()
        now = probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
    return now - os.fstat(handle).st_mtime


def _read(handle: int) -> dict[str, Any] | None:
    try:
        found = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None  # pyright: ignore[reportUnknownVariableType]


def _write(handle: int) -> None:
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": int(time.time())}
    data = json.dumps(owner).encode()
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, data, 0)
    except OSError as problem:
        raise MmfeError("cannot write the lock", got=problem.strerror) from problem


def _same(file: Path, handle: int) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _beat(handle: int, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT):
        with contextlib.suppress(OSError):
            os.utime(handle)


def _describe(owner: dict[str, Any], age: float) -> str:
    started = max(0, int(time.time()) - int(owner.get("since", 0)))
    return (
        f"process {owner.get('pid')} on {owner.get('host')}, which began {_span(started)} ago "
        f"and last gave a sign of life {_span(age)} ago"
    )


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{max(0, int(seconds))} s"
    return f"{int(seconds / 60)} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _refusal(file: Path, handle: int, owner: dict[str, Any] | None) -> CacheError:
    return CacheError(
        f"another build is writing {file.with_suffix('')}",
        got="its owner is not known"
        if owner is None
        else f"a lock of {_describe(owner, _age(file, handle))}",
        expected="one writer at a time",
        remedy="wait for that build, or stop it and run this command again "
        f"(a dead owner's lock is recognised; {file} need not be removed)",
    )
