"""One writer at a time: a lock file that says who writes a store or a run, and since when.

Why not filelock's `SoftFileLease`, which beats as well: tried, it gives the lock of a suspended
process away to a second writer on the same machine, and takes over another machine's dead lock only
after watching it for the whole lease. The operating system's lock does neither, and its `FileLock`
leaves the file behind and says nothing of other machines.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmfe_cache.errors import CacheError, MmfeError
from mmfe_cache.io import explain
from mmfe_cache.progress import format_seconds

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

HEARTBEAT = 20.0
"""Seconds between two signs of life of a lock's holder."""

STALE = 300.0
"""Seconds without a sign of life after which another machine's lock is void."""


def lock_file(path: Path) -> Path:
    """The lock of the store at ``path``: beside it, so that the store itself bears no host."""
    return path.with_name(path.name + ".lock")


@dataclass(frozen=True)
class _Claim:
    """What is locked, as messages name it, and the error that a second claim gets."""

    path: Path
    work: str
    error: type[MmfeError]


_HANDLES: set[int] = set()
"""Open lock files of this process."""


def _forget_in_child() -> None:
    # A forked worker shares its parent's lock. Kept open there, it would outlive a parent that was
    # killed, and the next run would be refused until the worker has noticed.
    for handle in _HANDLES:
        with contextlib.suppress(OSError):
            os.close(handle)
    _HANDLES.clear()


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_forget_in_child)


@contextlib.contextmanager
def locked(
    path: Path,
    *,
    file: Path | None = None,
    work: str = "build",
    error: type[MmfeError] = CacheError,
) -> Generator[str | None]:
    """Hold the only right to write what stands at ``path``.

    The operating system's own file lock decides between processes of one machine: it ends with
    its process, however that dies, and no clock is asked. Between machines that share a folder
    without sharing such locks, and where a file system has none, signs of life decide, timed by
    the file system's clock.

    Args:
        path: the store or the run's folder.
        file: the lock file; None puts it beside ``path``.
        work: what the holder does, for messages, such as ``"build"``.
        error: what a second writer gets.

    Yields:
        What to report of a stale lock that was taken over; None where there was none.

    Raises:
        MmfeError: another process is writing (then of the kind ``error``), or the place cannot be
            written.
    """
    file = lock_file(path) if file is None else file
    handle, release, stale = _acquire(file, _Claim(path, work, error))
    _HANDLES.add(handle)
    own, process = _read(handle), os.getpid()
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(handle, file, stop), daemon=True)
    beat.start()
    try:
        yield stale
    finally:
        if os.getpid() == process:  # a forked child that unwinds holds nothing
            stop.set()
            beat.join()
            # Where someone removed the file or took it over meanwhile, it is another's now.
            ours = same_file(file, handle) and _read(handle) == own
            _HANDLES.discard(handle)
            if os.name == "nt":  # an open file cannot be removed there
                os.close(handle)
            if ours:
                file.unlink(missing_ok=True)
            if os.name != "nt":
                os.close(handle)
            release()


def _acquire(file: Path, claim: _Claim) -> tuple[int, Callable[[], None], str | None]:
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as problem:
            raise explain(problem, file) from problem
        release = None
        try:
            release = try_lock(handle, file)
            owner = _read(handle)
            if release is None or _gives_signs(file, handle, owner, release is not no_lock):
                raise _refusal(file, handle, owner, claim)  # noqa: TRY301
            # The holder may have removed the file between our opening and locking it.
            if not same_file(file, handle):
                os.close(handle)
                release()
                continue
            stale = None if owner is None else _describe(owner, _age(file, handle))
            _write(handle)
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(handle)
            if release is not None:
                release()
            raise
        return handle, release, stale


def _gives_signs(file: Path, handle: int, owner: dict[str, Any] | None, held: bool) -> bool:
    """Whether there is an owner who lives although we have the lock, or would if there were one."""
    if owner is None or (held and owner.get("host") == socket.gethostname()):
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
        os.lseek(handle, 0, os.SEEK_SET)
        found = json.loads(os.read(handle, 4096))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None  # pyright: ignore[reportUnknownVariableType]


def _write(handle: int) -> None:
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": int(time.time())}
    data = json.dumps(owner).encode()
    try:
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, data)
    except OSError as problem:
        raise MmfeError("cannot write the lock", got=problem.strerror) from problem


def same_file(file: Path, handle: int) -> bool:
    """Whether the open file ``handle`` is still what lies at ``file``."""
    try:
        return os.path.samestat(file.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _beat(handle: int, file: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT):
        with contextlib.suppress(OSError):
            os.utime(handle if os.utime in os.supports_fd else file)


def _describe(owner: dict[str, Any], age: float) -> str:
    started = max(0, int(time.time()) - int(owner.get("since", 0)))
    return (
        f"process {owner.get('pid')} on {owner.get('host')}, which began "
        f"{format_seconds(started)} ago and last gave a sign of life {format_seconds(age)} ago"
    )


def _refusal(file: Path, handle: int, owner: dict[str, Any] | None, claim: _Claim) -> MmfeError:
    return claim.error(
        f"another {claim.work} is writing {claim.path}",
        got="its owner is not known"
        if owner is None
        else f"a lock of {_describe(owner, _age(file, handle))}",
        expected="one writer at a time",
        remedy=f"wait for that {claim.work}, or stop it and run this command again "
        f"(a dead owner's lock is recognised; {file} need not be removed)",
    )


def try_lock(handle: int, path: Path) -> Callable[[], None] | None:
    """Lock an open file without waiting.

    Where there is `flock`, the file itself is locked, and closing it gives the lock back. Elsewhere
    filelock locks a file beside it: Windows would let nobody read a locked file.

    Args:
        handle: the open file.
        path: where it lies.

    Returns:
        What gives the lock back, to be called after the file is closed; None where another process
        has the lock. It is `no_lock` where the file system has none: then others get it as well.

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
        return no_lock
    return _nothing


def _nothing() -> None:
    pass


def no_lock() -> None:
    """Gives nothing back: the file system has no locks."""


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
