"""Reading every byte of a store and naming what is damaged."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.embeddings import ARRAY_NAMES
from mmfe_cache.errors import CacheError, DataError
from mmfe_cache.images import pixel_digest
from mmfe_cache.machine import check_workers
from mmfe_cache.progress import Progress, Task
from mmfe_cache.samples import Sample, SampleSet
from mmfe_cache.store.format import (
    METADATA_FILE,
    SAMPLES,
    OtherVersionError,
    StoreMetadata,
    ViewMetadata,
    group_document,
    serialise,
)
from mmfe_cache.store.location import no_root
from mmfe_cache.store.sample_table import (
    DIGEST_BYTES,
    absent_rows,
    id_files,
    ids_digest,
    pixels_digest,
    table_documents,
    with_crc,
    without_crc,
)
from mmfe_cache.store.shards import ShardPlace, chunk_intact, decode_index
from mmfe_cache.store.storage import Storage, exists, open_storage

Kind = Literal["data", "pixels", "source"]


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong with a store.

    Attributes:
        file: the file, relative to the store; the image's name where its pixels changed.
        problem: what is wrong, in words.
        samples: ids of the samples it touches; empty where it touches none or all.
        shard: the number of the shard whose data it spoils; None for metadata.
        group: the view's folder whose shard that is; None for the sample table.
        kind: ``"pixels"`` where the shard and the table name different pixels and either may be
            wrong, ``"source"`` for a source image, ``"data"`` for all else.
    """

    file: str
    problem: str
    samples: tuple[str, ...] = ()
    shard: int | None = None
    group: str | None = None
    kind: Kind = "data"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        path: the store.
        files: how many files were read.
        chunks: how many sample chunks were checked.
        bytes: how many bytes were read.
        pixels: how many source images were hashed again.
        damages: what is wrong, in the order of the files.
        unfinished: views that a build has still to finish; that is no damage.
    """

    path: str
    files: int
    chunks: int
    bytes: int
    pixels: int
    damages: tuple[Damage, ...]
    unfinished: tuple[str, ...]

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damages


def verify(
    path: str | Path | Storage,
    *,
    samples: SampleSet | None = None,
    workers: int = 2,
    progress: Progress | None = None,
) -> VerifyReport:
    """Read a whole store and check every checksum, shape and binding in it.

    Args:
        path: the store's folder or address, or its storage.
        samples: the split; where given, every source image is read and hashed again.
        workers: threads that hash images.
        progress: where progress goes.

    Raises:
        CacheError: there is no store, or another version of mmfe wrote it.
    """
    check_workers(workers)
    storage = open_storage(path) if isinstance(path, str | Path) else path
    return _Verification(storage, progress or Progress()).run(samples, workers)


class _Verification:
    """Reads a store and collects what it finds."""

    def __init__(self, storage: Storage, progress: Progress) -> None:
        self._storage, self._progress = storage, progress
        self._damages: list[Damage] = []
        self._files = self._bytes = self._chunks = self._pixels = 0
        self._unfinished: list[str] = []
        self._ids: tuple[str, ...] | None = None

    def run(self, samples: SampleSet | None, workers: int) -> VerifyReport:
        try:
            root = self._storage.read(METADATA_FILE)
        except FileNotFoundError:
            root = None
        except CacheError as problem:
            # Without the root, nothing else can be judged.
            self._add(METADATA_FILE, f"cannot be read: {problem.got}")
            return self._report()
        if root is None and SAMPLES not in _folders(self._storage):
            raise no_root(self._storage, self._storage.location)
        store = self._root(root)
        if store is not None:
            self._store = store
            self._table()
            self._pixels_of = self._read_digests()
            groups = [name for name in _folders(self._storage) if name != SAMPLES]
            total = len(groups) * len(ARRAY_NAMES) * store.num_shards
            with self._progress.task(f"reading {self._storage.location}", total, "shards") as task:
                for group in groups:
                    self._view(group, task)
            if samples is not None:
                self._check_pixels(samples, workers)
        return self._report()

    def _report(self) -> VerifyReport:
        counts = self._files, self._chunks, self._bytes, self._pixels
        found = tuple(self._damages), tuple(self._unfinished)
        return VerifyReport(self._storage.location, *counts, *found)

    def _add(
        self,
        file: str,
        problem: str,
        samples: tuple[str, ...] = (),
        *,
        shard: int | None = None,
        group: str | None = None,
        kind: Kind = "data",
    ) -> None:
        self._damages.append(Damage(file, problem, samples, shard, group, kind))

    def _count(self, data: bytes) -> None:
        self._files, self._bytes = self._files + 1, self._bytes + len(data)

    def _read(self, file: str) -> bytes:
        data = self._storage.read(file)
        self._count(data)
        return data

    def _read_or_note(self, file: str) -> bytes | None:
        """A file's content, or None (and a note) where it is missing or cannot be read."""
        try:
            return self._read(file)
        except FileNotFoundError:
            self._add(file, "missing")
        except CacheError as problem:
            self._add(file, f"cannot be read: {problem.got}")
        return None

    def _expect(self, file: str, content: bytes) -> None:
        """Note a file that is missing or does not hold ``content``."""
        found = self._read_or_note(file)
        if found is not None and found != content:
            self._add(file, "is not what mmfe wrote")

    def _sealed(self, file: str) -> NDArray[np.uint8] | None:
        """A chunk file's content, or None (and a note) where its checksum is wrong."""
        data = self._read_or_note(file)
        try:
            return None if data is None else without_crc(np.frombuffer(data, np.uint8), file)
        except CacheError:
            self._add(file, "its checksum is wrong")
            return None

    def _root(self, data: bytes | None) -> StoreMetadata | None:
        if data is None:
            self._add(METADATA_FILE, "missing")
            return None
        self._count(data)
        try:
            return StoreMetadata.read(data, self._storage.location)
        except OtherVersionError:
            raise
        except CacheError as problem:
            self._add(METADATA_FILE, problem.problem)
            return None

    def _table(self) -> None:
        store = self._store
        self._expect(f"{SAMPLES}/{METADATA_FILE}", serialise(group_document({})))
        text = self._sealed(f"{SAMPLES}/ids/c.0")
        offsets = self._sealed(f"{SAMPLES}/offsets/c.0")
        if text is not None:
            ids = tuple(text.tobytes().decode(errors="replace").split("\n")[:-1])
            if ids_digest(ids) != store.samples or len(ids) != store.num_samples:
                self._add(f"{SAMPLES}/ids/c.0", "holds the ids of another store")
            else:
                self._ids = ids
        if self._ids is None:
            # Only the lengths are missing for the expected metadata; they cannot be judged.
            return
        wanted = id_files(self._ids)["offsets/c.0"]
        if offsets is not None and with_crc(offsets.tobytes()) != wanted:
            self._add(f"{SAMPLES}/offsets/c.0", "does not fit the ids")
        for name, document in table_documents(self._ids, store.shard_samples, store.id).items():
            self._expect(f"{SAMPLES}/{name}/{METADATA_FILE}", serialise(document))

    def _read_digests(self) -> dict[int, NDArray[np.uint8] | None]:
        """Every shard's pixel digests; None where they are damaged, no key where none are."""
        found: dict[int, NDArray[np.uint8] | None] = {}
        for number in range(self._store.num_shards):
            with contextlib.suppress(FileNotFoundError):
                found[number] = self._digests(number)
        return found

    def _digests(self, number: int) -> NDArray[np.uint8] | None:
        """(n, 16) one shard's pixel digests, if they are there; None and a note if damaged."""
        name = f"{SAMPLES}/digests/c.{number}.0"
        length = self._store.shard_samples * DIGEST_BYTES
        try:
            body = without_crc(np.frombuffer(self._read(name), np.uint8), name, length)
        except CacheError as problem:
            self._add(name, f"{problem.problem} ({problem.got})", shard=number)
            return None
        return body.reshape(-1, DIGEST_BYTES)[: self._store.count(number)]

    def _view(self, group: str, task: Task) -> None:
        store = self._store
        if not self._is_view(group):
            return
        view, complete = self._view_metadata(group)
        if view is None:
            return
        try:
            view.check_folder(group, self._storage.location)
        except CacheError as problem:
            self._add(f"{group}/{METADATA_FILE}", problem.problem, group=group)
            return
        for name, document in view.array_documents(store).items():
            self._expect(f"{group}/{name}/{METADATA_FILE}", serialise(document))
        if complete is False:
            self._unfinished.append(view.view)
        for name in ARRAY_NAMES:
            for number in range(store.num_shards):
                place = store.place(view.view, name, number)
                self._shard(group, place, complete is not False)
                task.advance()

    def _is_view(self, group: str) -> bool:
        """Whether anything of a view is there; else the folder is not the store's."""
        names = [METADATA_FILE, *(f"{name}/{METADATA_FILE}" for name in ARRAY_NAMES)]
        names += [f"{name}/{self._store.place(group, name, 0).file}" for name in ARRAY_NAMES]
        return any(exists(self._storage, f"{group}/{name}") for name in names)

    def _view_metadata(self, group: str) -> tuple[ViewMetadata | None, bool | None]:
        """The view, from its own metadata or an array's; and whether it says to be complete."""
        own = f"{group}/{METADATA_FILE}"
        view: ViewMetadata | None = None
        complete: bool | None = None
        for name in (own, *(f"{group}/{array}/{METADATA_FILE}" for array in ARRAY_NAMES)):
            try:
                data = self._storage.read(name)
                found = ViewMetadata.read(data, name, self._store.id)
            except FileNotFoundError:
                if name == own:
                    self._add(name, "missing", group=group)
            except (CacheError, KeyError) as problem:
                if name == own:
                    self._add(name, str(getattr(problem, "problem", problem)), group=group)
            else:
                if name == own:
                    self._count(data)
                    complete = found.complete
                view = view or found
        return view, complete

    def _shard(self, group: str, place: ShardPlace, required: bool) -> None:
        file = f"{group}/{place.array}/{place.file}"
        shape = self._store.shape(place.array)

        def add(problem: str, slots: Sequence[int] | None = None, kind: Kind = "data") -> None:
            ids = self._names(place.number, slots)
            self._add(file, problem, ids, shard=place.number, group=group, kind=kind)

        try:
            data = np.frombuffer(self._read(file), np.uint8)
        except FileNotFoundError:
            if required:
                add("missing")
            return
        except CacheError as problem:
            add(f"cannot be read: {problem.got}")
            return
        try:
            tail = data[-shape.tail_bytes :]
            index = decode_index(shape, place, tail, len(data), file)
        except CacheError as problem:
            add(f"{problem.problem}" + (f" ({problem.got})" if problem.got else ""))
            return
        chunks = data[: place.count * shape.stride].reshape(place.count, shape.stride)
        bad = [
            slot
            for slot, (chunk, present) in enumerate(zip(chunks, index.present, strict=True))
            if not chunk_intact(shape, chunk, bool(present))
        ]
        self._chunks += int(index.present.sum())
        if bad:
            add(f"{len(bad)} damaged {'chunk' if len(bad) == 1 else 'chunks'}", bad)
        if place.number not in self._pixels_of:
            # A build may have written them since, before this shard.
            with contextlib.suppress(FileNotFoundError):
                self._pixels_of[place.number] = self._digests(place.number)
        known = self._pixels_of.get(place.number)
        if known is not None:
            same = np.array_equal(~absent_rows(known), index.present)
            if pixels_digest(known) != index.pixels or not same:
                add("was computed from other pixels than the sample table says", kind="pixels")
        elif place.number not in self._pixels_of:
            self._pixels_of[place.number] = None
            self._add(
                f"{SAMPLES}/digests/c.{place.number}.0",
                "missing",
                self._names(place.number, None),
                shard=place.number,
            )

    def _check_pixels(self, samples: SampleSet, workers: int) -> None:
        known: dict[str, str] = {}
        for number, rows in self._pixels_of.items():
            if rows is not None and self._ids is not None:
                first = number * self._store.shard_samples
                for slot in np.flatnonzero(~absent_rows(rows)).tolist():
                    known[self._ids[first + slot]] = rows[slot].tobytes().hex()
        wanted = [sample for sample in samples if sample.id in known]
        for name in sorted(known.keys() - {sample.id for sample in wanted}):
            self._add(name, "is not in the data set any more", (name,), kind="source")
        with (
            self._progress.task("hashing source images", len(wanted), "images") as task,
            ThreadPoolExecutor(workers) as pool,
        ):
            for sample, digest in zip(wanted, pool.map(_hash, wanted), strict=True):
                self._pixels += 1
                if digest is None:
                    self._add(
                        sample.degraded.name, "cannot be read any more", (sample.id,), kind="source"
                    )
                elif digest != known[sample.id]:
                    changed = "its pixels are not those the cache was built from"
                    self._add(sample.degraded.name, changed, (sample.id,), kind="source")
                task.advance()

    def _names(self, number: int, slots: Sequence[int] | None) -> tuple[str, ...]:
        if self._ids is None:
            return ()
        first = number * self._store.shard_samples
        chosen = range(self._store.count(number)) if slots is None else slots
        return tuple(self._ids[first + slot] for slot in chosen)


def _folders(storage: Storage) -> list[str]:
    try:
        return storage.folders()
    except FileNotFoundError:
        return []


def _hash(sample: Sample) -> str | None:
    try:
        return pixel_digest(sample.degraded.read())
    except DataError:
        return None
