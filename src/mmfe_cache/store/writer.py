"""Writing a store: metadata first, then whole shards; or a local copy of a remote store."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.embeddings import ARRAY_NAMES, ArrayName
from mmfe_cache.errors import CacheError
from mmfe_cache.io import Buffer, explain, explained, move_folder, write_file
from mmfe_cache.progress import Progress
from mmfe_cache.store.format import (
    METADATA_FILE,
    SAMPLES,
    StoreMetadata,
    ViewMetadata,
    group_document,
    missing_file,
    serialise,
)
from mmfe_cache.store.location import no_root
from mmfe_cache.store.reader import CacheReader
from mmfe_cache.store.sample_table import (
    DIGEST_BYTES,
    StoredPixels,
    absent_rows,
    id_files,
    pixels_digest,
    table_documents,
    with_crc,
)
from mmfe_cache.store.storage import RemoteStorage, Storage

from . import shards


def aside_folder(path: Path) -> Path:
    """Where unfinished files of the store at ``path`` lie: beside it, never inside."""
    return path.with_name(path.name + ".partial")


class CacheWriter:
    """Writes the files of one store; opening creates nothing.

    Args:
        path: the store's folder.
        metadata: what its root says, or is to say.
    """

    def __init__(self, path: Path, metadata: StoreMetadata) -> None:
        self.path = path
        self.metadata = metadata
        self._aside = aside_folder(path)

    @property
    def exists(self) -> bool:
        """Whether the store's root is there."""
        return (self.path / METADATA_FILE).is_file()

    def create(self, ids: Sequence[str]) -> None:
        """Write the root and the sample table, in one rename.

        Raises:
            CacheError: something else lies at the path.
            MmfeError: the place cannot be written or is full.
        """
        self.check_place()
        folder = self._fresh(self.path.name)
        contents: dict[str, bytes] = {
            METADATA_FILE: serialise(self.metadata.document()),
            f"{SAMPLES}/{METADATA_FILE}": serialise(group_document({})),
        }
        arrays = table_documents(ids, self.metadata.shard_samples, self.metadata.id)
        for name, document in arrays.items():
            contents[f"{SAMPLES}/{name}/{METADATA_FILE}"] = serialise(document)
        for name, data in id_files(ids).items():
            contents[f"{SAMPLES}/{name}"] = data
        self._fill(folder, contents)
        if self.path.exists():
            self.path.rmdir()
        with explained(self.path):
            move_folder(folder, self.path)

    def check_place(self) -> None:
        """Refuse to begin a store where something else lies.

        Raises:
            CacheError: it is no cache, or one whose root is gone.
        """
        if (self.path / SAMPLES).is_dir():
            raise no_root(Storage(self.path), self.path)
        if self.path.exists() and not (self.path.is_dir() and not any(self.path.iterdir())):
            raise CacheError(
                f"{self.path} is in the way: it exists and is not an mmfe cache",
                expected="a path that does not exist yet, or a cache",
                remedy="remove it, or choose another place with --out",
            )

    def create_view(self, group: str, view: ViewMetadata) -> None:
        """Write a view's metadata and empty arrays, in one rename.

        Raises:
            CacheError: the view is there, but for its metadata.
        """
        if any((self.path / group / name).is_dir() for name in ARRAY_NAMES):
            raise missing_file(f"{self.path / group}/{METADATA_FILE}")
        folder = self._fresh(f"{self.path.name}.{group}")
        contents = {METADATA_FILE: serialise(view.document())}
        for name, document in view.array_documents(self.metadata).items():
            contents[f"{name}/{METADATA_FILE}"] = serialise(document)
        self._fill(folder, contents)
        with explained(self.path / group):
            move_folder(folder, self.path / group)

    def restore_arrays(self, group: str, view: ViewMetadata) -> None:
        """Write the metadata of those of a view's arrays whose folders have gone."""
        for name, document in view.array_documents(self.metadata).items():
            file = self.path / group / name / METADATA_FILE
            if not file.exists():
                with explained(file):
                    file.parent.mkdir(exist_ok=True)
                self._write(file, [serialise(document)])

    def update_view(self, group: str, view: ViewMetadata) -> None:
        """Replace a view's metadata."""
        data = serialise(view.document())
        self._write(self.path / group / METADATA_FILE, [data])

    def finish_view(
        self, group: str, view: ViewMetadata, statistics: Mapping[str, Any] | None = None
    ) -> ViewMetadata:
        """Say that every shard of a view is there, and what was measured of it."""
        finished = replace(view, complete=True, statistics=statistics)
        self.update_view(group, finished)
        return finished

    def missing_shards(self, group: str, view: str) -> list[int]:
        """The numbers of the shards of which some array's file is not there."""
        count = self.metadata.num_shards
        there: set[int] | None = None
        for name in ARRAY_NAMES:
            folder = self.path / group / name
            listed = _files(folder)
            suffix = self.metadata.place(view, name, 0).file.removeprefix("c.0")
            numbers = {k for k in range(count) if f"c.{k}{suffix}" in listed}
            there = numbers if there is None else there & numbers
        return [k for k in range(count) if k not in (there or ())]

    def write_shard(
        self,
        group: str,
        view: str,
        number: int,
        rows: Mapping[ArrayName, NDArray[np.float16]],
        digests: NDArray[np.uint8],
        batch: int,
    ) -> None:
        """Write one shard of a view: its three arrays, each by one rename.

        Args:
            group: the view's folder.
            view: the view's name.
            number: K, which shard.
            rows: float16 (n, ...) of every array.
            digests: (n, 16) the samples' pixel digests; zero rows are left out.
            batch: how many samples the guide encoded together.
        """
        present = ~absent_rows(digests)
        for name in ARRAY_NAMES:
            place = self.metadata.place(view, name, number)
            shape = self.metadata.shape(name)
            parts = shards.encode(shape, place, rows[name], present, pixels_digest(digests), batch)
            self._write(self.path / group / name / place.file, parts)

    def shard_batch(self, group: str, view: str, number: int) -> int | None:
        """How many samples were encoded together for a shard, as any of its files tells."""
        storage = Storage(self.path)
        for name in ARRAY_NAMES:
            place, shape = self.metadata.place(view, name, number), self.metadata.shape(name)
            with contextlib.suppress(CacheError, OSError):
                return shards.read_index(storage, shape, place, f"{group}/{name}").batch
        return None

    def read_digests(self, number: int) -> NDArray[np.uint8] | None:
        """(n, 16) the pixel digests of one shard's samples; None where none were written yet."""
        return StoredPixels(Storage(self.path), self.metadata).rows(number)

    def write_digests(self, number: int, digests: NDArray[np.uint8]) -> None:
        """Write the (n, 16) pixel digests of one shard's samples."""
        whole = np.zeros((self.metadata.shard_samples, DIGEST_BYTES), np.uint8)
        whole[: len(digests)] = digests
        path = self.path / SAMPLES / "digests" / f"c.{number}.0"
        self._write(path, [with_crc(whole.tobytes())])

    def clear_aside(self) -> None:
        """Remove what a killed build left unfinished."""
        shutil.rmtree(self._aside, ignore_errors=True)

    def _write(self, path: Path, parts: Iterable[Buffer]) -> None:
        with explained(path):
            write_file(path, parts, drafts=self._aside)

    def _fresh(self, name: str) -> Path:
        folder = self._aside / f"{name}.new"
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def _fill(self, folder: Path, contents: Mapping[str, bytes]) -> None:
        try:
            for name, data in contents.items():
                file = folder / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
        except OSError as problem:
            shutil.rmtree(folder, ignore_errors=True)
            raise explain(problem, self.path) from problem


def _files(folder: Path) -> set[str]:
    """Names of the files of a folder; what else bears a shard's name is not a shard."""
    if not folder.is_dir():
        return set()
    found: set[str] = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # a link in a circle
                found |= {entry.name} if entry.is_file() else set()
    return found


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
    path, sink = Path(path), progress or Progress()
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
