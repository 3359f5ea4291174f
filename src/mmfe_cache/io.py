"""Files and folders that are there whole or not at all.

Everything is written to a draft beside its place, flushed to the disk, and renamed. A draft's name
is short, whatever the final name is, so that every name which the file system allows can be
written. Drafts are made as any other file is, so their permissions follow the umask.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

from mmfe_cache.errors import MmfeError

Buffer = bytes | bytearray | memoryview

BLOCK_BYTES = 16 << 20
"""What is written in one go: Linux then keeps the file in huge pages, which read faster."""

_DRAFT = re.compile(r"\.[0-9a-f]{8}\.part")


def write_file(
    path: Path, content: str | Buffer | Iterable[Buffer], *, drafts: Path | None = None
) -> None:
    """Write a file; one that is there is replaced.

    Args:
        path: where the file belongs.
        content: text, which is written as UTF-8 with its line ends as they are, or bytes, or
            parts that follow one another.
        drafts: a folder on the same file system for the unfinished file. None is the file's own
            folder, which is then made where it is missing.

    Raises:
        OSError: it cannot be written, such as on a full disk. ``filename`` or ``filename2`` is
            ``path``, what lay there before still does, and no draft is left.
    """
    if isinstance(content, str):
        content = content.encode()
    parts = [content] if isinstance(content, Buffer) else content
    with draft_file(path, drafts=drafts) as draft, draft.open("xb", buffering=0) as file:
        block = bytearray()
        for part in parts:
            block += part
            if len(block) >= BLOCK_BYTES:
                rest = block[BLOCK_BYTES:]
                _write_all(file, memoryview(block)[:BLOCK_BYTES])
                block = rest
        _write_all(file, memoryview(block))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON; what JSON does not know is written as its text."""
    write_file(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


@contextlib.contextmanager
def draft_file(path: Path, *, drafts: Path | None = None) -> Generator[Path]:
    """A free path that the block writes to; it becomes ``path`` when the block ends well.

    Args:
        path: where the file belongs.
        drafts: as for `write_file`.

    Raises:
        OSError: as for `write_file`.
    """
    draft = (drafts or path.parent) / _draft_name()
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    except BaseException as problem:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        # The system names no file where a write fails, and a draft's name helps nobody.
        if isinstance(problem, OSError) and problem.filename in (None, str(draft)):
            problem.filename = str(path)
        raise


@contextlib.contextmanager
def draft_folder(path: Path) -> Generator[Path]:
    """A new empty folder that the block fills; it becomes ``path`` when the block ends well.

    A folder that is there is replaced; for a moment there is none.

    Raises:
        OSError: it cannot be written; what lay there before still does, and no draft is left.
    """
    draft = path.parent / _draft_name()
    try:
        draft.mkdir(parents=True)
        yield draft
        move_folder(draft, path, replace=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def move_folder(draft: Path, path: Path, *, replace: bool = False) -> None:
    """Flush every file of the folder ``draft`` and rename it to ``path``.

    Args:
        draft: the folder, on the file system of ``path``.
        path: where it belongs.
        replace: whether a folder that is there is replaced, instead of being an error.

    Raises:
        OSError: it cannot be moved; what lay at ``path`` before still does.
    """
    for folder, _, names in os.walk(draft):
        for name in names:
            with (Path(folder) / name).open("rb+") as file:
                os.fsync(file.fileno())
        sync_folder(Path(folder))
    path.parent.mkdir(parents=True, exist_ok=True)
    old = path.parent / _draft_name()
    if replace and path.exists():
        path.rename(old)
    try:
        draft.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_drafts(folder: Path) -> None:
    """Remove what killed processes left in ``folder``; only for who alone writes there."""
    if folder.is_dir():
        for entry in folder.iterdir():
            if _DRAFT.fullmatch(entry.name):
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    except OSError as problem:
        # Some network file systems cannot sync a folder; the rename itself stays atomic.
        if problem.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def check_writable(folder: Path) -> None:
    """Find out now, not after minutes of work, whether a file can be written to ``folder``.

    Args:
        folder: made where it is not there.

    Raises:
        OSError: it cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def _draft_name() -> str:
    return f".{secrets.token_hex(4)}.part"


def _write_all(file: io.FileIO, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


@contextlib.contextmanager
def explained(path: Path) -> Generator[None]:
    """Turn the operating system's refusal to write ``path`` into a message with a remedy.

    Raises:
        MmfeError: in place of the block's OSError.
    """
    try:
        yield
    except OSError as problem:
        raise explain(problem, path) from problem


def is_full(problem: BaseException | None) -> bool:
    """Whether a file could not be written because its disk, or its user's share of it, is full."""
    return isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT)


def explain(problem: OSError, path: Path) -> MmfeError:
    """The message, with a remedy, for a refusal of the operating system to write ``path``."""
    again = "; then run the same command again, it goes on where it stopped"
    if is_full(problem) or problem.errno == errno.EFBIG:
        free = free_bytes(path)
        return MmfeError(
            f"no space left to write {path}",
            got=f"{problem.strerror} ({'unknown' if free is None else format_bytes(free)} free)",
            remedy=f"free some space, or choose another place{again}",
        )
    if problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return MmfeError(
            f"cannot write {path}",
            got=problem.strerror,
            expected="a folder this user may write to",
            remedy=f"change its permissions, or choose another place{again}",
        )
    if problem.errno in (errno.ENOTDIR, errno.EEXIST):  # the latter where it was to be made
        return MmfeError(
            f"cannot write {path}",
            got="a file where one of its folders should be",
            remedy="choose another place",
        )
    if problem.errno in (errno.ENOENT, errno.ESTALE):
        return MmfeError(
            f"the folder of {path} has gone",
            got=problem.strerror,
            remedy="run the same command again to build what was removed",
        )
    return MmfeError(f"cannot write {path}", got=problem.strerror or str(problem))


def look_there(path: Path) -> str:
    """The remedy where there is no ``path``; it says where a relative one begins."""
    return "check the path" if path.is_absolute() else f"check the path; it begins in {Path.cwd()}"


def format_bytes(count: float) -> str:
    """A number of bytes for people, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def counted(count: int, noun: str) -> str:
    """A number with its noun, whose plural takes an s: "1 epoch", "1,200 epochs"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def free_bytes(path: Path) -> int | None:
    """Free bytes on the file system that holds, or would hold, ``path``; None if unknown."""
    for folder in (path, *path.absolute().parents):
        if folder.exists():
            try:
                return shutil.disk_usage(folder).free
            except OSError:
                return None
    return None
