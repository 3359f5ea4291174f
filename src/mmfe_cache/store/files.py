"""Writing files so that each is there whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from mmfe_cache.errors import MmfeError

Buffer = bytes | bytearray | memoryview

BLOCK_BYTES = 16 << 20
"""What is written in one go: Linux then keeps the file in huge pages, which read faster."""


def write_whole(path: Path, parts: Iterable[Buffer], aside: Path) -> None:
    """Write ``parts`` to ``path``: aside first, fsynced, then renamed into place.

    Args:
        path: where the file belongs; one that is there is replaced.
        parts: its content in order.
        aside: a folder on the same file system that holds unfinished files.

    Raises:
        MmfeError: the disk is full or the place cannot be written.
    """
    draft = aside / f"{path.parent.parent.name}.{path.parent.name}.{path.name}.{os.getpid()}"
    try:
        aside.mkdir(parents=True, exist_ok=True)
        with draft.open("wb", buffering=0) as file:
            block = bytearray()
            for part in parts:
                block += part
                if len(block) >= BLOCK_BYTES:
                    rest = block[BLOCK_BYTES:]
                    _write_all(file, memoryview(block)[:BLOCK_BYTES])
                    block = rest
            _write_all(file, memoryview(block))
            os.fsync(file.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    except OSError as problem:
        draft.unlink(missing_ok=True)
        raise explain(problem, path) from problem


def _write_all(file: io.FileIO, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


def move_folder(draft: Path, path: Path) -> None:
    """Fsync every file of the folder ``draft`` and rename it to ``path``, which must not exist."""
    try:
        for folder, _, names in os.walk(draft):
            for name in names:
                with (Path(folder) / name).open("rb") as file:
                    os.fsync(file.fileno())
            sync_folder(Path(folder))
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.rename(path)
        sync_folder(path.parent)
    except OSError as problem:
        raise explain(problem, path) from problem


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as problem:
        # Some network file systems cannot sync a folder; the rename itself stays atomic.
        if problem.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def explain(problem: OSError, path: Path) -> MmfeError:
    """Turn an operating system's refusal to write into a message with a remedy."""
    again = "; then run the same command again, it goes on where it stopped"
    if problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return MmfeError(
            f"no space left to write {path}",
            got=f"{problem.strerror} ({_free(path)} free)",
            remedy=f"free some space, or choose another place with --out{again}",
        )
    if problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return MmfeError(
            f"cannot write {path}",
            got=problem.strerror,
            expected="a folder this user may write to",
            remedy=f"change its permissions, or choose another place with --out{again}",
        )
    if problem.errno == errno.ENOTDIR:
        return MmfeError(
            f"cannot write {path}",
            got="a file where one of its folders should be",
            remedy="choose another place with --out",
        )
    if problem.errno in (errno.ENOENT, errno.ESTALE):
        return MmfeError(
            f"the folder of {path} has gone",
            got=problem.strerror,
            remedy="run the same command again to build what was removed",
        )
    return MmfeError(f"cannot write {path}", got=problem.strerror or str(problem))


def human(count: float) -> str:
    """A number of bytes for people, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def free_bytes(path: Path) -> int | None:
    """Free bytes on the file system that holds, or would hold, ``path``; None if unknown."""
    for folder in (path, *path.absolute().parents):
        if folder.exists():
            try:
                return shutil.disk_usage(folder).free
            except OSError:
                return None
    return None


def _free(path: Path) -> str:
    count = free_bytes(path)
    return "unknown" if count is None else human(count)
