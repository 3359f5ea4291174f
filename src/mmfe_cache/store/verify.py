"""Reading every byte of a store and naming what is damaged."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.embeddings import ARRAY_NAMES
from mmfe_cache.errors import CacheError, DataError
from mmfe_cache.images import pixel_digest
from mmfe_cache.progress import Progress, SilentProgress, Task
from mmfe_cache.samples import Sample, SampleSet
from mmfe_cache.store.findings import Findings, Kind, VerifyReport
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
    storage = open_storage(path) if isinstance(path, str | Path) else path
    return _Verification(storage, progress or SilentProgress()).run(samples, workers)


class _Verification:
    def __init__(self, storage: Storage, progress: Progress) -> None:
        self._storage, self._progress = storage, progress
        self._found = Findings(storage)
        self._ids: tuple[str, ...] | None = None

    def run(self, samples: SampleSet | None, workers: int) -> VerifyReport:
        try:
            root = self._storage.read(METADATA_FILE)
        except FileNotFoundError:
            root = None
        except CacheError as problem:
            # Without the root, nothing else can be judged.
            self._found.add(METADATA_FILE, f"cannot be read: {problem.got}")
            return self._found.report()
        if root is None and SAMPLES not in _folders(self._storage):
            raise no_root(self._storage, self._storage.location)
        store = self._root(root)
        if store is not None:
            self._table(store)
            digests = self._digests(store)
            groups = [name for name in _folders(self._storage) if name != SAMPLES]
            total = len(groups) * len(ARRAY_NAMES) * store.num_shards
            with self._progress.task(f"reading {self._storage.location}", total, "shards") as task:
                for group in groups:
                    self._view(store, group, digests, task)
            if samples is not None:
                self._check_pixels(store, samples, digests, workers)
        return self._found.report()

    def _root(self, data: bytes | None) -> StoreMetadata | None:
        if data is None:
            self._found.add(METADATA_FILE, "missing")
            return None
        self._found.count(data)
        try:
            return StoreMetadata.read(data, self._storage.location)
        except OtherVersionError:
            raise
        except CacheError as problem:
            self._found.add(METADATA_FILE, problem.problem)
            return None

    def _table(self, store: StoreMetadata) -> None:
        self._found.expect(f"{SAMPLES}/{METADATA_FILE}", serialise(group_document({})))
        text = self._found.sealed(f"{SAMPLES}/ids/c.0")
        offsets = self._found.sealed(f"{SAMPLES}/offsets/c.0")
        if text is not None:
            ids = tuple(text.tobytes().decode(errors="replace").split("\n")[:-1])
            if ids_digest(ids) != store.samples or len(ids) != store.num_samples:
                self._found.add(f"{SAMPLES}/ids/c.0", "holds the ids of another store")
            else:
                self._ids = ids
        if self._ids is None:
            # Only the lengths are missing for the expected metadata; they cannot be judged.
            return
        if offsets is not None and id_files(self._ids)["offsets/c.0"] != with_crc(
            offsets.tobytes()
        ):
            self._found.add(f"{SAMPLES}/offsets/c.0", "does not fit the ids")
        wanted = table_documents(self._ids, store.shard_samples, store.id)
        for name, document in wanted.items():
            self._found.expect(f"{SAMPLES}/{name}/{METADATA_FILE}", serialise(document))

    def _digests(self, store: StoreMetadata) -> dict[int, NDArray[np.uint8] | None]:
        """Every shard's pixel digests; None where they are damaged, no key where none are."""
        found: dict[int, NDArray[np.uint8] | None] = {}
        length = store.shard_samples * DIGEST_BYTES
        for number in range(store.num_shards):
            name = f"{SAMPLES}/digests/c.{number}.0"
            try:
                data = self._found.read(name)
            except FileNotFoundError:
                continue
            except CacheError as problem:
                self._found.add(name, f"cannot be read: {problem.got}", shard=number)
                found[number] = None
                continue
            try:
                body = without_crc(np.frombuffer(data, np.uint8), name, length)
            except CacheError as problem:
                self._found.add(name, problem.problem, shard=number)
                found[number] = None
            else:
                rows = body.reshape(-1, DIGEST_BYTES)
                found[number] = rows[: store.count(number)]
        return found

    def _view(
        self,
        store: StoreMetadata,
        group: str,
        digests: dict[int, NDArray[np.uint8] | None],
        task: Task,
    ) -> None:
        if not self._is_view(store, group):
            return
        view, complete = self._view_metadata(store, group)
        if view is None:
            return
        try:
            view.check_folder(group, self._storage.location)
        except CacheError as problem:
            self._found.add(f"{group}/{METADATA_FILE}", problem.problem, group=group)
            return
        for name, document in view.array_documents(store).items():
            self._found.expect(f"{group}/{name}/{METADATA_FILE}", serialise(document))
        if complete is False:
            self._found.unfinished.append(view.view)
        for name in ARRAY_NAMES:
            for number in range(store.num_shards):
                place = store.place(view.view, name, number)
                self._shard(store, group, place, complete is not False, digests)
                task.advance()

    def _is_view(self, store: StoreMetadata, group: str) -> bool:
        """Whether anything of a view is there; else the folder is not the store's."""
        names = [METADATA_FILE, *(f"{name}/{METADATA_FILE}" for name in ARRAY_NAMES)]
        names += [f"{name}/{store.place(group, name, 0).file}" for name in ARRAY_NAMES]
        return any(exists(self._storage, f"{group}/{name}") for name in names)

    def _view_metadata(
        self, store: StoreMetadata, group: str
    ) -> tuple[ViewMetadata | None, bool | None]:
        """The view, from its own metadata or an array's; and whether it says to be complete."""
        own = f"{group}/{METADATA_FILE}"
        view: ViewMetadata | None = None
        complete: bool | None = None
        for name in (own, *(f"{group}/{array}/{METADATA_FILE}" for array in ARRAY_NAMES)):
            try:
                data = self._storage.read(name)
                found = ViewMetadata.read(data, name, store.id)
            except FileNotFoundError:
                if name == own:
                    self._found.add(name, "missing", group=group)
            except (CacheError, KeyError) as problem:
                if name == own:
                    self._found.add(name, str(getattr(problem, "problem", problem)), group=group)
            else:
                if name == own:
                    self._found.count(data)
                    complete = found.complete
                view = view or found
        return view, complete

    def _shard(
        self,
        store: StoreMetadata,
        group: str,
        place: ShardPlace,
        required: bool,
        digests: dict[int, NDArray[np.uint8] | None],
    ) -> None:
        file = f"{group}/{place.array}/{place.file}"
        shape = store.shape(place.array)

        def add(problem: str, slots: Sequence[int] | None = None, kind: Kind = "data") -> None:
            ids = self._names(store, place.number, slots)
            self._found.add(file, problem, ids, shard=place.number, group=group, kind=kind)

        try:
            data = np.frombuffer(self._found.read(file), np.uint8)
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
        self._found.chunks += int(index.present.sum())
        if bad:
            add(f"{len(bad)} damaged {'chunk' if len(bad) == 1 else 'chunks'}", bad)
        known = digests.get(place.number)
        if known is not None:
            same = np.array_equal(~absent_rows(known), index.present)
            if pixels_digest(known) != index.pixels or not same:
                add("was computed from other pixels than the sample table says", kind="pixels")
        elif place.number not in digests:
            digests[place.number] = None
            self._found.add(
                f"{SAMPLES}/digests/c.{place.number}.0",
                "missing",
                self._names(store, place.number, None),
                shard=place.number,
            )

    def _check_pixels(
        self,
        store: StoreMetadata,
        samples: SampleSet,
        digests: dict[int, NDArray[np.uint8] | None],
        workers: int,
    ) -> None:
        known: dict[str, str] = {}
        for number, rows in digests.items():
            if rows is not None and self._ids is not None:
                first = number * store.shard_samples
                for slot in np.flatnonzero(~absent_rows(rows)).tolist():
                    known[self._ids[first + slot]] = rows[slot].tobytes().hex()
        wanted = [sample for sample in samples if sample.id in known]
        for name in sorted(known.keys() - {sample.id for sample in wanted}):
            self._found.add(name, "is not in the data set any more", (name,), kind="source")
        with (
            self._progress.task("hashing source images", len(wanted), "images") as task,
            ThreadPoolExecutor(workers) as pool,
        ):
            for sample, digest in zip(wanted, pool.map(_hash, wanted), strict=True):
                self._found.pixels += 1
                if digest is None:
                    self._found.add(
                        sample.degraded.name, "cannot be read any more", (sample.id,), kind="source"
                    )
                elif digest != known[sample.id]:
                    problem = "its pixels are not those the cache was built from"
                    self._found.add(sample.degraded.name, problem, (sample.id,), kind="source")
                task.advance()

    def _names(
        self, store: StoreMetadata, number: int, slots: Sequence[int] | None
    ) -> tuple[str, ...]:
        if self._ids is None:
            return ()
        first = number * store.shard_samples
        chosen = range(store.count(number)) if slots is None else slots
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
