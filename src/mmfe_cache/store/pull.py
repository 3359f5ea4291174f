"""Copying a remote store to a local folder."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmfe_cache.errors import CacheError
from mmfe_cache.io import explained, move_folder, write_file
from mmfe_cache.progress import Progress, SilentProgress
from mmfe_cache.store.format import METADATA_FILE, SAMPLES
from mmfe_cache.store.reader import CacheReader
from mmfe_cache.store.storage import RemoteStorage


def pull(
    address: str,
    path: str | Path,
    *,
    views: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> int:
    """Copy a remote store to a local folder; a stopped copy goes on where it stopped.

    The copy appears at ``path`` only when all of it is there.

    Args:
        address: of the store.
        path: where the copy is to lie; nothing may be there yet.
        views: the views to copy; None for all.
        progress: where progress goes.

    Returns:
        How many bytes were fetched now.

    Raises:
        CacheError: there is no store at the address, or something lies at ``path``.
        MmfeError: the place cannot be written or is full.
    """
    path, sink = Path(path), progress or SilentProgress()
    storage = RemoteStorage(address)
    reader = CacheReader(storage, address)
    if path.exists():
        raise CacheError(
            f"{path} exists already",
            expected="a path that does not exist yet",
            remedy="remove it, or choose another place",
        )
    groups = {reader.group(view) for view in (reader.views if views is None else views)}
    wanted = {
        name: size
        for name, size in storage.files().items()
        if name.split("/", 1)[0] in (METADATA_FILE, SAMPLES, *groups)
    }
    draft = path.with_name(f"{path.name}.pulling")
    with sink.task(f"copying {address}", sum(wanted.values()), "bytes") as task:
        # What says which store this is comes first, and anew each time.
        identity = {
            name: _fetch(storage, name, wanted[name]) for name in wanted if _identifies(name)
        }
        _remove_foreign(draft, identity, wanted)
        fetched = 0
        for name in (*identity, *(name for name in wanted if name not in identity)):
            file, size = draft / name, wanted[name]
            if name in identity or not file.is_file() or file.stat().st_size != size:
                _write(draft, name, identity.get(name) or _fetch(storage, name, size))
                fetched += size
            task.advance(size)
    shutil.rmtree(draft / ".aside", ignore_errors=True)
    with explained(path):
        move_folder(draft, path)
    return fetched


def _identifies(name: str) -> bool:
    """Whether a file says which store it is of: metadata, ids, or pixel digests."""
    return name.startswith(f"{SAMPLES}/") or name.rsplit("/", 1)[-1] == METADATA_FILE


def _fetch(storage: RemoteStorage, name: str, size: int) -> bytes:
    data = storage.read(name)
    if len(data) != size:
        raise CacheError(
            f"{storage.location}/{name} did not arrive whole",
            got=f"{len(data)} bytes",
            expected=f"{size} bytes",
            remedy="run the same command again, it goes on where it stopped",
        )
    return data


def _write(draft: Path, name: str, data: bytes) -> None:
    file = draft / name
    with explained(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, data, drafts=draft / ".aside")


def _remove_foreign(draft: Path, identity: Mapping[str, bytes], wanted: Mapping[str, int]) -> None:
    """Remove what a stopped copy left of another store, or of views not asked for any more."""
    there = {name: draft / name for name in identity if (draft / name).is_file()}
    if any(file.read_bytes() != identity[name] for name, file in there.items()):
        # Of another address, or of what lay at this one before.
        shutil.rmtree(draft, ignore_errors=True)
    for file in sorted(draft.rglob("*"), reverse=True):
        if file.is_dir():
            with contextlib.suppress(OSError):
                file.rmdir()
        elif file.relative_to(draft).as_posix() not in wanted:
            file.unlink()
