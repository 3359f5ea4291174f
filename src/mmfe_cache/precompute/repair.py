"""Bringing a damaged store back: exactly what is damaged is written again."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmfe_cache.embeddings import ARRAY_NAMES
from mmfe_cache.errors import CacheError, DataError
from mmfe_cache.guides.base import Guide
from mmfe_cache.guides.lineage import spellings
from mmfe_cache.images import pixel_digest
from mmfe_cache.io import explained, write_file
from mmfe_cache.lock import locked
from mmfe_cache.precompute.build import (
    build_cache,
    check_same,
    wanted_metadata,
)
from mmfe_cache.progress import Progress
from mmfe_cache.samples import SampleSet
from mmfe_cache.store.format import (
    METADATA_FILE,
    SAMPLES,
    OtherVersionError,
    StoreMetadata,
    ViewMetadata,
    group_document,
    parse_document,
    serialise,
)
from mmfe_cache.store.location import true_place
from mmfe_cache.store.reader import open_cache
from mmfe_cache.store.sample_table import (
    DIGEST_BYTES,
    absent_rows,
    id_files,
    pixels_digest,
    table_documents,
)
from mmfe_cache.store.shards import ShardIndex, read_index
from mmfe_cache.store.storage import Storage
from mmfe_cache.store.verify import Damage, VerifyReport, verify
from mmfe_cache.store.writer import CacheWriter, aside_folder


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What one call of `repair_cache` did.

    Attributes:
        path: the store.
        damages: what was wrong.
        recovered: samples that were skipped and whose images can be read now.
        encodings: sample-views the guide computed again.
        after: what a verification found afterwards.
    """

    path: Path
    damages: tuple[Damage, ...]
    recovered: tuple[str, ...]
    encodings: int
    after: VerifyReport


def repair_cache(
    path: str | Path,
    samples: SampleSet,
    guide: Guide,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> RepairReport:
    """Verify the store at ``path`` and write again exactly what is damaged or missing.

    Samples that were skipped are taken in where their images can be read now, and finished views
    of which nothing was measured are measured.

    Metadata and the sample table follow from the samples, the guide and what is left of the
    store; a damaged shard of a finished view is computed again. Unfinished views are left to
    `build_cache`.

    Args:
        path: the store's folder.
        samples: the split it was built from.
        guide: the guide it was built with.
        workers: threads that read and prepare images.
        progress: where progress and messages go.

    Raises:
        CacheError: the samples or the guide are not those of the store, or its pixels changed.
        DataError: an image cannot be read any more.
    """
    path, sink = true_place(path), progress or Progress()
    before = verify(path, progress=sink)
    if before.intact and not _unsettled(path):
        return RepairReport(path, (), (), 0, before)
    with locked(path):
        repair = _Repair(path, samples, guide)
        repair.restore_root()
        repair.restore_sample_table()
        views = repair.restore_views()
        # Only now can every shard be judged: some may have been hidden by damaged metadata.
        repair.remove_damaged_shards(verify(path, progress=sink).damages)
        recovered = repair.recover_skipped()
    # The lock is free again: the build takes it itself.
    encodings = 0
    for view in views:
        report = build_cache(
            samples,
            guide,
            [view.view],
            path,
            batch_size=view.batch_size,
            workers=workers,
            on_error="skip",
            progress=sink,
            shard_batches=repair.shard_batches,
        )
        encodings += report.encodings
    return RepairReport(path, before.damages, recovered, encodings, verify(path, progress=sink))


def _unsettled(path: Path) -> bool:
    """Whether an intact store may gain by a repair: samples were skipped, a view not measured."""
    reader = open_cache(path)
    unmeasured = any(reader.view_metadata[name].statistics is None for name in reader.views)
    return unmeasured or bool(reader.skipped)


class _Repair:
    """The steps of a repair in place, to be called in their order.

    Args:
        path: the store's folder.
        samples: the split it was built from.
        guide: the guide it was built with.

    Attributes:
        shard_batches: how many samples were encoded together for the shards that are removed,
            by view and number.
    """

    def __init__(self, path: Path, samples: SampleSet, guide: Guide) -> None:
        self._path, self._samples = path, samples
        self._store = wanted_metadata(samples, guide, shard_samples=1)
        self._views: dict[str, ViewMetadata] = {}
        self.shard_batches: dict[tuple[str, int], int] = {}

    def restore_root(self) -> None:
        """Write the root again if it is damaged and the other files agree on what it said.

        Raises:
            CacheError: the store was built from something else.
        """
        try:
            old = StoreMetadata.read(self._file(METADATA_FILE).read_bytes(), str(self._path))
        except OtherVersionError:
            raise
        except (CacheError, OSError):
            self._store = self._root_from_other_files()
            self._put(METADATA_FILE, serialise(self._store.document()))
        else:
            check_same(old, self._store, self._path, None, self._samples.ids)
            self._store = old

    def restore_sample_table(self) -> None:
        """Write the sample table again, all but the pixel digests."""
        ids = self._samples.ids
        self._put(f"{SAMPLES}/{METADATA_FILE}", serialise(group_document({})))
        wanted = table_documents(ids, self._store.shard_samples, self._store.id)
        for name, document in wanted.items():
            self._put(f"{SAMPLES}/{name}/{METADATA_FILE}", serialise(document))
        for name, data in id_files(ids).items():
            self._put(f"{SAMPLES}/{name}", data)

    def restore_views(self) -> list[ViewMetadata]:
        """Write the views' metadata again.

        Returns:
            The views that are to be whole after the repair.
        """
        for group in self._groups():
            self._views[group] = self._view(group)
        writer = CacheWriter(self._path, self._store)
        wanted: list[ViewMetadata] = []
        for group, view in self._views.items():
            own = self._file(f"{group}/{METADATA_FILE}")
            try:
                known = ViewMetadata.read(own.read_bytes(), str(own), self._store.id)
            except (CacheError, OSError):
                complete = not writer.missing_shards(group, view.view)
                known = replace(view, complete=complete)
                wanted.append(known)
            else:
                wanted += [known] if known.complete else []
            self._views[group] = known
            self._put(f"{group}/{METADATA_FILE}", serialise(known.document()))
            for name, document in view.array_documents(self._store).items():
                self._put(f"{group}/{name}/{METADATA_FILE}", serialise(document))
        return wanted

    def remove_damaged_shards(self, damages: Sequence[Damage]) -> None:
        """Correct the pixel digests and remove damaged shards, for a build to compute again.

        Raises:
            CacheError: the pixels are not those that the store was built from.
            DataError: an image cannot be read any more.
        """
        doubtful = {d.shard for d in damages if d.shard is not None and d.group is None}
        doubtful |= {d.shard for d in damages if d.shard is not None and d.kind == "pixels"}
        for damage in damages:
            if damage.shard is not None:
                # Damaged pixel digests concern every view's shard.
                groups = self._views if damage.group is None else [damage.group]
                self._note_batches(damage.shard, groups)
        for damage in damages:
            if damage.group is not None and damage.shard is not None and damage.kind == "data":
                self._remove(damage.file)
        for number in sorted(doubtful):
            self._digests(number)

    def recover_skipped(self) -> tuple[str, ...]:
        """Take samples in whose images were skipped and can be read now.

        A shard's files bear the digests of all its pixels, so every view's file of it goes, for
        a build to compute again. What was measured of the views goes before, so that whoever
        ends a repair that was killed measures them again.

        Returns:
            the samples' ids.
        """
        writer = CacheWriter(self._path, self._store)
        recovered: list[str] = []
        for number in range(self._store.num_shards):
            rows = writer.read_digests(number)
            if rows is None:
                continue
            rows, first = rows.copy(), number * self._store.shard_samples
            ids: list[str] = []
            for slot in np.flatnonzero(absent_rows(rows)).tolist():
                sample = self._samples.samples[first + slot]
                try:
                    digest = pixel_digest(sample.degraded.read())
                except DataError:
                    continue
                rows[slot] = np.frombuffer(bytes.fromhex(digest), np.uint8)
                ids.append(sample.id)
            if ids:
                self._note_batches(number, self._views)
                for group, view in self._views.items():
                    if view.statistics is not None:
                        self._views[group] = replace(view, statistics=None)
                        writer.update_view(group, self._views[group])
                    for name in ARRAY_NAMES:
                        place = self._store.place(view.view, name, number)
                        self._remove(f"{group}/{name}/{place.file}")
                writer.write_digests(number, rows)
                recovered += ids
        return tuple(recovered)

    def _note_batches(self, number: int, groups: Iterable[str]) -> None:
        """Before its files go: the batches of a shard, so that its bytes come back."""
        writer = CacheWriter(self._path, self._store)
        for group in groups:
            view = self._views[group].view
            known = writer.shard_batch(group, view, number)
            if known is not None:
                self.shard_batches[view, number] = known

    def _digests(self, number: int) -> None:
        """Decide by the images themselves who is wrong: the table or a shard."""
        indices = dict(self._indices(number))
        any_index = next(iter(indices.values()), None)
        count = self._store.count(number)
        absent = np.zeros(count, bool) if any_index is None else ~any_index.present
        first = number * self._store.shard_samples
        members = self._samples.samples[first : first + len(absent)]
        rows = np.zeros((len(absent), DIGEST_BYTES), np.uint8)
        for slot, sample in enumerate(members):
            if not absent[slot]:
                digest = pixel_digest(sample.degraded.read())
                rows[slot] = np.frombuffer(bytes.fromhex(digest), np.uint8)
        writer = CacheWriter(self._path, self._store)
        true = pixels_digest(rows)
        try:
            known = writer.read_digests(number)
        except CacheError:
            known = None
        if known is None or not np.array_equal(known, rows):
            if indices and all(index.pixels != true for index in indices.values()):
                raise CacheError(
                    f"the images of shard {number} are not those that {self._path} was built from",
                    got=f"samples {members[0].id!r} to {members[-1].id!r}",
                    remedy="put the images back as they were, or build a new cache (--out)",
                )
            writer.write_digests(number, rows)
        for file, index in indices.items():
            if index.pixels != true:
                self._remove(file)

    def _indices(self, number: int) -> Iterator[tuple[str, ShardIndex]]:
        """The readable indices of every view's and array's shard ``number``."""
        storage = Storage(self._path)
        for group, view in self._views.items():
            for name in ARRAY_NAMES:
                place, shape = self._store.place(view.view, name, number), self._store.shape(name)
                folder = f"{group}/{name}"
                with contextlib.suppress(CacheError, OSError):
                    yield f"{folder}/{place.file}", read_index(storage, shape, place, folder)

    def _view(self, group: str) -> ViewMetadata:
        """A view as its own metadata or that of any of its arrays tells it."""
        for name in ("", *(f"{array}/" for array in ARRAY_NAMES)):
            file = self._file(f"{group}/{name}{METADATA_FILE}")
            try:
                view = ViewMetadata.read(file.read_bytes(), str(file), self._store.id)
            except (CacheError, OSError, KeyError):
                continue
            view.check_folder(group, str(self._path))
            return view
        raise CacheError(
            f"nothing in {self._path / group} says any more which view it holds",
            remedy=f"remove the folder {self._path / group} and build that view again",
        )

    def _root_from_other_files(self) -> StoreMetadata:
        """The root that the samples and the guide ask for, if the other files agree."""
        sizes: set[int] = set()
        stores: set[str] = set()
        for file in self._path.rglob(METADATA_FILE):
            try:
                document = parse_document(file.read_bytes(), str(file))
            except (CacheError, OSError):  # From Python 3.12 on, links in a circle are listed too.
                continue
            stores |= set(_stores(document["attributes"]))
            if document["node_type"] == "array" and file.parent.name in (*ARRAY_NAMES, "digests"):
                sizes.add(document["chunk_grid"]["configuration"]["chunk_shape"][0])
        for size, one in itertools.product(sorted(sizes), spellings(self._store.fingerprint)):
            wanted = replace(self._store, shard_samples=size, fingerprint=one)
            if wanted.id in stores:
                return wanted
        raise CacheError(
            f"the root of {self._path} is damaged, and the rest was not built from this",
            got=f"{self._store.dataset}/{self._store.split} with the guide {self._store.guide}",
            expected="the data set, split and guide that the store was built from",
            remedy="give --dataset, --split, --root and --guide as when it was built",
        )

    def _groups(self) -> list[str]:
        return sorted(
            entry.name
            for entry in self._path.iterdir()
            if entry.is_dir()
            and entry.name != SAMPLES
            and any((entry / name).is_dir() for name in ARRAY_NAMES)
        )

    def _put(self, name: str, content: bytes) -> None:
        file = self._file(name)
        try:
            same = file.read_bytes() == content
        except OSError:  # Missing, or on a bad sector: written anew.
            same = False
        if not same:
            with explained(file):
                file.parent.mkdir(parents=True, exist_ok=True)
                write_file(file, content, drafts=aside_folder(self._path))

    def _remove(self, name: str) -> None:
        file = self._file(name)
        with explained(file):
            file.unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self._path / name


def _stores(attributes: dict[str, Any]) -> list[str]:
    found = json.loads(json.dumps(attributes)).values()
    return [value["store"] for value in found if isinstance(value, dict) and "store" in value]
