"""Stores behind an address: object stores and web servers, through fsspec."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.errors import CacheError, UsageError
from mmfe_cache.io import explained, move_folder, write_file
from mmfe_cache.progress import Progress, SilentProgress
from mmfe_cache.store import documents
from mmfe_cache.store.metadata import SAMPLES

Bytes = NDArray[np.uint8]
T = TypeVar("T")


class RemoteStorage:
    """A store at an address; implements `Storage`.

    Args:
        address: such as ``s3://bucket/caches/train.zarr``.

    Raises:
        UsageError: fsspec, or its driver for such addresses, is not installed.
    """

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        try:
            import fsspec  # pyright: ignore[reportMissingTypeStubs]

            self._system: Any
            self._system, self._root = fsspec.core.url_to_fs(self._address)
        except (ImportError, ValueError) as problem:
            raise UsageError(
                f"cannot open {address}",
                got=str(problem),
                remedy="in mmfe's checkout: pip install -c constraints.txt '.[remote]'",
            ) from problem

    @property
    def location(self) -> str:
        """The address."""
        return self._address

    def read(self, name: str) -> bytes:
        """A whole file."""
        return self._try(lambda: self._system.cat_file(f"{self._root}/{name}"))

    def tail(self, name: str, count: int) -> tuple[Bytes, int]:
        """A file's end and its size."""
        path = f"{self._root}/{name}"
        size = int(self._try(lambda: self._system.size(path)))
        data = self._try(lambda: self._system.cat_file(path, start=max(0, size - count), end=size))
        return np.frombuffer(data, np.uint8), size

    def whole(self, name: str) -> Bytes:
        """A whole file, fetched."""
        return np.frombuffer(self.read(name), np.uint8)

    def local(self, name: str) -> str | None:
        """Nothing here can be mapped."""
        return None

    def ranges(self, wanted: list[tuple[str, int, int]]) -> list[Bytes]:
        """Parts of files, fetched together where the driver can."""
        parts = self._try(
            lambda: self._system.cat_ranges(
                [f"{self._root}/{name}" for name, _, _ in wanted],
                [start for _, start, _ in wanted],
                [stop for _, _, stop in wanted],
                on_error="raise",
            )
        )
        return [np.frombuffer(part, np.uint8) for part in parts]

    def folders(self) -> list[str]:
        """The names of the folders at the top, sorted."""
        listed = self._try(lambda: self._system.ls(self._root, detail=True))
        return sorted(
            entry["name"].rstrip("/").rsplit("/", 1)[-1]
            for entry in listed
            if entry["type"] == "directory"
        )

    def files(self) -> dict[str, int]:
        """Every file's size in bytes, by name."""
        found = self._try(lambda: self._system.find(self._root, detail=True))
        prefix = len(self._root.rstrip("/")) + 1
        return {path[prefix:]: int(entry["size"]) for path, entry in sorted(found.items())}

    def _try(self, fetch: Callable[[], T]) -> T:
        try:
            return fetch()
        except FileNotFoundError:
            raise
        except Exception as problem:
            # Every driver has errors of its own: no narrower class covers them.
            raise CacheError(
                f"cannot read {self._address}",
                got=f"{type(problem).__name__}: {problem}",
                remedy="check the address, the network and the credentials",
            ) from problem


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
    from mmfe_cache.store.reader import CacheReader

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
        if name.split("/", 1)[0] in (documents.NAME, SAMPLES, *groups)
    }
    draft = path.with_name(f"{path.name}.pulling")
    with sink.task(f"copying {address}", sum(wanted.values()), "bytes") as task:
        # What says which store this is comes first, and anew each time.
        told = {name: _fetch(storage, name, wanted[name]) for name in wanted if _identifies(name)}
        _clear_foreign(draft, told, wanted)
        fetched = 0
        for name in (*told, *(name for name in wanted if name not in told)):
            file, size = draft / name, wanted[name]
            if name in told or not file.is_file() or file.stat().st_size != size:
                _put(draft, name, told.get(name) or _fetch(storage, name, size))
                fetched += size
            task.advance(size)
    shutil.rmtree(draft / ".aside", ignore_errors=True)
    with explained(path):
        move_folder(draft, path)
    return fetched


def _identifies(name: str) -> bool:
    """Whether a file says which store it is of: metadata, ids, or pixel digests."""
    return name.startswith(f"{SAMPLES}/") or name.rsplit("/", 1)[-1] == documents.NAME


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


def _put(draft: Path, name: str, data: bytes) -> None:
    file = draft / name
    with explained(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, data, drafts=draft / ".aside")


def _clear_foreign(draft: Path, told: Mapping[str, bytes], wanted: Mapping[str, int]) -> None:
    """Remove what a stopped copy left of another store, or of views not asked for any more."""
    there = {name: draft / name for name in told if (draft / name).is_file()}
    if any(file.read_bytes() != told[name] for name, file in there.items()):
        # Of another address, or of what lay at this one before.
        shutil.rmtree(draft, ignore_errors=True)
    for file in sorted(draft.rglob("*"), reverse=True):
        if file.is_dir():
            with contextlib.suppress(OSError):
                file.rmdir()
        elif file.relative_to(draft).as_posix() not in wanted:
            file.unlink()
