"""Bringing a damaged store back: exactly what is damaged is written again."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.embeddings import ARRAY_NAMES
from mmfe_cache.errors import CacheError
from mmfe_cache.guides.base import Guide
from mmfe_cache.guides.lineage import spellings
from mmfe_cache.images import pixel_digest
from mmfe_cache.io import explained, write_file
from mmfe_cache.lock import locked
from mmfe_cache.machine import check_workers
from mmfe_cache.precompute.build import build_cache, check_same, wanted_metadata
from mmfe_cache.precompute.encode import prepare
from mmfe_cache.precompute.pipeline import check_pixels
from mmfe_cache.progress import Progress
from mmfe_cache.samples import Sample, SampleSet
from mmfe_cache.store.format import (
    METADATA_FILE,
    SAMPLES,
    OtherOriginError,
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
from mmfe_cache.views import View


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What one call of `repair_cache` did.

    Attributes:
        path: the store.
        damages: what was wrong.
        recovered: samples that were skipped and are there now.
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

    Samples that were skipped are taken in where their images can be read and encoded now, and
    finished views of which nothing was measured are measured.

    Metadata and the sample table follow from the samples, the guide and what is left of the
    store; a damaged shard of a finished view is computed again, and stays as it is until what
    replaces it has been written. Unfinished views are left to `build_cache`.

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
    check_workers(workers)
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
        repair.judge_shards(verify(path, progress=sink).damages)
        recovered = repair.recover_skipped(sink)
    # The lock is free again: the build takes it itself.
    encodings = 0
    views.sort(key=lambda view: view.batch_size)
    for size, group in groupby(views, key=lambda view: view.batch_size):
        # Together, so that all files of a shard that takes samples in change in one moment.
        report = build_cache(
            samples,
            guide,
            [view.view for view in group],
            path,
            batch_size=size,
            workers=workers,
            on_error="skip",
            progress=sink,
            again=repair.again,
            taken_in=recovered,
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

    Attributes:
        again: the shards that are to be computed again, by the name of a view that is to be whole.
    """

    def __init__(self, path: Path, samples: SampleSet, guide: Guide) -> None:
        self._path, self._samples, self._guide = path, samples, guide
        self._store = wanted_metadata(samples, guide, shard_samples=1)
        self._views: dict[str, ViewMetadata] = {}
        self._whole: set[str] = set()
        self.again: dict[str, set[int]] = {}

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
        for group, view in self._views.items():
            own = self._file(f"{group}/{METADATA_FILE}")
            try:
                known = ViewMetadata.read(own.read_bytes(), str(own), self._store.id)
            except (CacheError, OSError):
                complete = not writer.missing_shards(group, view.view)
                known = replace(view, complete=complete)
                self._whole.add(group)
            else:
                self._whole |= {group} if known.complete else set()
            self._views[group] = known
            self._put(f"{group}/{METADATA_FILE}", serialise(known.document()))
            for name, document in view.array_documents(self._store).items():
                self._put(f"{group}/{name}/{METADATA_FILE}", serialise(document))
        return [view for group, view in self._views.items() if group in self._whole]

    def judge_shards(self, damages: Sequence[Damage]) -> None:
        """Correct the pixel digests and note damaged shards, for a build to compute again.

        Raises:
            CacheError: the pixels are not those that the store was built from.
            DataError: an image cannot be read any more.
        """
        doubtful = {d.shard for d in damages if d.shard is not None and d.group is None}
        doubtful |= {d.shard for d in damages if d.shard is not None and d.kind == "pixels"}
        for damage in damages:
            if damage.group is not None and damage.shard is not None and damage.kind == "data":
                self._compute_again(damage.file, damage.group, damage.shard)
        for number in sorted(doubtful):
            self._digests(number)

    def recover_skipped(self, progress: Progress) -> tuple[str, ...]:
        """Find the samples that were skipped and can be taken in, and note their shards.

        A shard's files bear the digests of all its pixels, so every view's file of it is computed
        again: only where all its other pictures are there, as they were. What was measured of the
        views goes first, so that whoever ends a repair that was killed measures them again.

        Returns:
            the samples' ids; none where no view is finished.

        Raises:
            CacheError: another picture of such a shard has changed.
        """
        if not self._whole:
            return ()
        writer = CacheWriter(self._path, self._store)
        views = [View.parse(view.view) for view in self._views.values()]
        recovered: list[str] = []
        shards: list[int] = []
        for number in range(self._store.num_shards):
            if (rows := writer.read_digests(number)) is None:
                continue
            first = number * self._store.shard_samples
            members = self._samples.samples[first : first + len(rows)]
            able: list[str] = []
            for slot in np.flatnonzero(absent_rows(rows)).tolist():
                item = prepare(members[slot], views, self._guide)
                if item.problem is None:
                    able.append(item.sample.id)
                else:
                    progress.warn(f"{item.sample.id} is left out: {item.reason}")
            unreadable = self._unreadable(members, rows) if able else None
            if unreadable is not None:
                for name in able:
                    progress.warn(
                        f"{name} is left out, its shard cannot be computed again: {unreadable}"
                    )
            elif able:
                recovered += able
                shards.append(number)
        for group, view in self._views.items() if shards else ():
            if view.statistics is not None:
                self._views[group] = replace(view, statistics=None)
                writer.update_view(group, self._views[group])
            for place in (self._store.place(view.view, a, k) for a in ARRAY_NAMES for k in shards):
                self._compute_again(f"{group}/{place.array}/{place.file}", group, place.number)
        return tuple(recovered)

    def _unreadable(self, members: Sequence[Sample], rows: NDArray[np.uint8]) -> str | None:
        """Why a shard with these (n, 16) digests cannot be computed again; None where it can.

        Raises:
            CacheError: a picture has changed.
        """
        for sample, known in zip(members, rows, strict=True):
            if known.any():
                item = prepare(sample, (), self._guide)
                if item.problem is not None:
                    return item.reason
                check_pixels(item, known, self._path)
        return None

    def _compute_again(self, file: str, group: str, number: int) -> None:
        """Have a shard computed again, of which ``file`` is not right any more.

        Of a finished view it stays until another takes its place: it may be all that there is of
        pictures that have gone. Nobody can read an unfinished one; a build computes what it lacks.
        """
        if group in self._whole:
            self.again.setdefault(self._views[group].view, set()).add(number)
        else:
            with explained(self._file(file)):
                self._file(file).unlink(missing_ok=True)

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
                self._compute_again(file, file.partition("/")[0], number)

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
        raise OtherOriginError(
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
            and any((entry / name).exists() for name in (METADATA_FILE, *ARRAY_NAMES))
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

    def _file(self, name: str) -> Path:
        return self._path / name


def _stores(attributes: dict[str, Any]) -> list[str]:
    found = json.loads(json.dumps(attributes)).values()
    return [value["store"] for value in found if isinstance(value, dict) and "store" in value]
