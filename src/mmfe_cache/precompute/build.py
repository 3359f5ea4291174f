"""Building a cache: every missing shard of every wanted view, and no sample twice."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from mmfe_cache.datasets.same_pixels import check_same_pixels
from mmfe_cache.errors import CacheError, MmfeError, UsageError
from mmfe_cache.guides.base import Guide
from mmfe_cache.guides.lineage import differing_keys
from mmfe_cache.io import format_bytes, free_bytes
from mmfe_cache.lock import locked
from mmfe_cache.machine import check_workers
from mmfe_cache.precompute.distributed import Ranks
from mmfe_cache.precompute.encode import Encoder
from mmfe_cache.precompute.pipeline import OnError, Pipeline
from mmfe_cache.progress import Progress
from mmfe_cache.samples import SampleSet
from mmfe_cache.store.format import StoreMetadata, ViewMetadata
from mmfe_cache.store.info import measure
from mmfe_cache.store.location import true_place
from mmfe_cache.store.reader import open_cache
from mmfe_cache.store.sample_table import DIGEST_BYTES, check_ids, id_files, ids_digest
from mmfe_cache.store.writer import CacheWriter
from mmfe_cache.views import View

SHARD_SAMPLES = 256
"""Samples of a shard: what a killed build may have to compute again."""


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What one call of `build_cache` did.

    Attributes:
        path: the store.
        views: the views that were asked for; all are finished now.
        samples: N, the samples of the split.
        encodings: sample-views that the guide computed now.
        reused: sample-views that were already in the store.
        skipped: ids of samples whose image could not be read.
        seconds: wall-clock time.
    """

    path: Path
    views: tuple[str, ...]
    samples: int
    encodings: int
    reused: int
    skipped: tuple[str, ...]
    seconds: float


def build_cache(
    samples: SampleSet,
    guide: Guide,
    views: Sequence[str],
    path: str | Path,
    *,
    batch_size: int = 32,
    shard_samples: int = SHARD_SAMPLES,
    on_error: OnError = "fail",
    workers: int | None = None,
    ranks: Ranks | None = None,
    progress: Progress | None = None,
    again: Mapping[str, Collection[int]] | None = None,
    taken_in: Collection[str] = (),
) -> BuildReport:
    """Write what is missing of ``views`` to the store at ``path``.

    A store is created where there is none; finished shards are kept. The bytes depend on the
    samples, the guide, ``batch_size`` and ``shard_samples`` only.

    Args:
        samples: the split.
        guide: the guide.
        views: the views' names.
        path: the store's folder.
        batch_size: samples the guide encodes together; a view that was begun keeps its own.
        shard_samples: samples of one shard; an existing store keeps its own.
        on_error: whether a sample whose image cannot be read ends the build or is left out.
        workers: threads that read and prepare images; None picks by the machine.
        ranks: the processes that share this build; None for this one alone.
        progress: where progress and messages go.
        again: shards to compute although they are there, by the view's name: each stays until
            what replaces it has been written.
        taken_in: the ids of samples that the store leaves out and that are computed now, in
            shards of ``again``.

    Raises:
        CacheError: the store was built from something else, or another process writes it.
        DataError: a sample cannot be read and ``on_error`` is ``fail``.
        GuideError: the guide gave values that are not finite.
        MmfeError: no space, or the place cannot be written.
    """
    if batch_size < 1 or shard_samples < 1:
        raise UsageError(
            "batches and shards hold at least one sample",
            got=f"batch size {batch_size}, shard size {shard_samples}",
        )
    check_workers(workers)
    build = _Build(
        samples=samples,
        guide=guide,
        views=tuple(dict.fromkeys(View.parse(name) for name in views)),
        path=true_place(path),
        batch_size=batch_size,
        shard_samples=shard_samples,
        on_error=on_error,
        workers=workers or min(8, 2 * (os.cpu_count() or 1)),
        ranks=ranks or Ranks(),
        progress=progress or Progress(),
        again=again or {},
        taken_in=taken_in,
    )
    return build.run()


@dataclass(frozen=True)
class _Build:
    samples: SampleSet
    guide: Guide
    views: tuple[View, ...]
    path: Path
    batch_size: int
    shard_samples: int
    on_error: OnError
    workers: int
    ranks: Ranks
    progress: Progress
    again: Mapping[str, Collection[int]]
    taken_in: Collection[str]

    def run(self) -> BuildReport:
        started = time.monotonic()
        first = self.ranks.rank == 0
        with locked(self.path) if first else nullcontext() as stale:
            if stale:
                self.progress.message(f"took over the lock of a build that died: {stale}")
            metadata = wanted_metadata(self.samples, self.guide, self.shard_samples)
            if first:
                metadata = self._open(metadata)
            metadata = self.ranks.broadcast(metadata)
            writer = CacheWriter(self.path, metadata)
            about = self._view_metadata(metadata)
            todo = self.ranks.broadcast(
                {
                    view.name: {
                        *writer.missing_shards(view.group, view.name),
                        *self.again.get(view.name, ()),
                    }
                    for view in self.views
                }
            )
            counts = self.ranks.gather(self._write(writer, about, todo))
            if first:
                self._finish(writer)
            self.ranks.barrier()
        encodings, discarded = (sum(column) for column in zip(*counts, strict=True))
        reader = open_cache(self.path)
        skipped = reader.skipped
        if skipped and first:
            self.progress.message(
                f"{len(skipped)} samples are left out; once their images are mended: "
                f"mmfe cache repair {self.path}"
            )
        there = (len(self.samples) - len(skipped)) * len(self.views)
        return BuildReport(
            path=self.path,
            views=tuple(view.name for view in self.views),
            samples=len(self.samples),
            encodings=encodings,
            reused=there - (encodings - discarded),
            skipped=skipped,
            seconds=time.monotonic() - started,
        )

    def _open(self, wanted: StoreMetadata) -> StoreMetadata:
        """Create the store and its views where they are missing; rank 0 only."""
        writer = CacheWriter(self.path, wanted)
        writer.clear_aside()
        if writer.exists:
            reader = open_cache(self.path)
            check_same(reader.metadata, wanted, self.path, reader.ids, self.samples.ids)
            check_same_pixels(self.samples, reader)
            wanted = reader.metadata
            writer = CacheWriter(self.path, wanted)
            known = reader.view_metadata
        else:
            known = {}
        check_space(writer, self.views, self.samples.ids)
        if not writer.exists:
            writer.create(self.samples.ids)
        for view in self.views:
            if view.name not in known:
                writer.create_view(
                    view.group, ViewMetadata(wanted.id, view.name, self.batch_size, rendering(view))
                )
                continue
            check_rendering(known[view.name], view, self.path)
            writer.restore_arrays(view.group, known[view.name])
            if known[view.name].batch_size != self.batch_size:
                self.progress.message(
                    f"{view.name} was begun with batches of {known[view.name].batch_size}; "
                    "that is kept"
                )
        return wanted

    def _view_metadata(self, metadata: StoreMetadata) -> dict[str, ViewMetadata]:
        known = open_cache(self.path).view_metadata
        return {view.name: known[view.name] for view in self.views}

    def _write(
        self,
        writer: CacheWriter,
        about: dict[str, ViewMetadata],
        wanted: dict[str, set[int]],
    ) -> tuple[int, int]:
        """Compute this process's share of the wanted shards.

        Returns:
            How many sample-views were encoded, and how many of these more than once.
        """
        encodings = discarded = 0
        metadata = writer.metadata
        encoder = Encoder(self.guide, self.progress)
        title = f"{self.samples.dataset}/{self.samples.split} {self.guide.name}"
        by_size = sorted(self.views, key=lambda view: about[view.name].batch_size)
        for size, group in groupby(by_size, key=lambda view: about[view.name].batch_size):
            views = tuple(group)
            numbers = sorted({k for view in views for k in wanted[view.name]})
            mine = set(numbers[self.ranks.rank :: self.ranks.size])
            todo = {view: mine.intersection(wanted[view.name]) for view in views}
            # A second time only where memory ran out in the middle of a shard.
            while any(todo.values()):
                pipeline = Pipeline(
                    self.samples,
                    writer,
                    encoder,
                    todo,
                    batch_size=size,
                    on_error=self.on_error,
                    taken_in=self.taken_in,
                    progress=self.progress,
                )
                total = sum(metadata.count(k) for numbers in todo.values() for k in numbers)
                with self.progress.task(title, total, "embeddings") as task:
                    pipeline.run(self.workers, task)
                encodings += pipeline.encodings
                discarded += pipeline.discarded
                todo = pipeline.retry
        return encodings, discarded

    def _finish(self, writer: CacheWriter) -> None:
        known = open_cache(self.path).view_metadata
        for view in self.views:
            left = writer.missing_shards(view.group, view.name)
            if left:
                raise CacheError(
                    f"{view.name} is not whole after the build",
                    got=f"{len(left)} missing shards, the first is {left[0]}",
                    remedy="run the same command again",
                )
            # A repair that takes samples in makes what was measured before unsaid.
            if not known[view.name].complete or known[view.name].statistics is None:
                found = statistics_of(self.path, view.name)
                writer.finish_view(view.group, known[view.name], found)
        writer.clear_aside()


def statistics_of(path: Path, view: str) -> dict[str, Any]:
    """Measure a view of which every shard is there, whether or not it is said to be complete."""
    reader = open_cache(path)
    reader.view_metadata[view] = replace(reader.view_metadata[view], complete=True)
    return measure(reader, view)


RENDERING = 1
"""Raised whenever `View.render` makes other pixels, so that caches of both kinds never mix."""


def wanted_metadata(samples: SampleSet, guide: Guide, shard_samples: int) -> StoreMetadata:
    """What the root of a cache of ``samples`` seen by ``guide`` says.

    Raises:
        DataError: there are no samples, or their ids cannot be stored.
    """
    check_ids(samples.ids)
    return StoreMetadata(
        dataset=samples.dataset,
        split=samples.split,
        guide=guide.name,
        dim=guide.dim,
        num_samples=len(samples),
        samples=ids_digest(samples.ids),
        shard_samples=shard_samples,
        # Through JSON, as it will be read back: a tuple there becomes a list.
        fingerprint=json.loads(json.dumps(dict(guide.fingerprint()))),
    )


def rendering(view: View) -> dict[str, Any]:
    """A view's own fingerprint: what changes the pixels that the guide sees."""
    return {"view": view.name, "rendering": RENDERING}


def check_rendering(known: ViewMetadata, view: View, path: Path) -> None:
    """Refuse to go on with a view that another version of the code rendered.

    Raises:
        CacheError: names what differs.
    """
    new = rendering(view)
    if known.fingerprint != new:
        raise CacheError(
            f"{view.name} in {path} was rendered in another way",
            got=known.fingerprint,
            expected=new,
            remedy="build the cache again in another place (--out)",
        )


def check_same(
    known: StoreMetadata,
    wanted: StoreMetadata,
    path: Path,
    old_ids: Sequence[str] | None,
    new_ids: Sequence[str],
) -> None:
    """Refuse to add to a store that was built from something else.

    Args:
        known: what the store's root says.
        wanted: what the build would write.
        path: the store.
        old_ids: the store's sample ids; None where they cannot be read.
        new_ids: the ids of the samples now.

    Raises:
        CacheError: names every field that differs, old and new.
    """
    old, new = known.identity(), wanted.identity()
    differing = differing_keys(old, new)
    if not differing:
        return
    lines = [
        f"{name}: {old.get(name, 'not there')} in the cache, {new.get(name, 'not there')} now"
        for name in differing
    ]
    if "samples.ids" in differing and old_ids is not None:
        pairs = zip_longest(old_ids, new_ids)
        place, (was, now) = next((i, p) for i, p in enumerate(pairs) if p[0] != p[1])
        lines.append(f"first difference at sample {place}: {was!r} in the cache, {now!r} now")
    raise CacheError(
        f"{path} was built from something else",
        got="\n            ".join(lines),
        expected="the same data, guide, prompt and settings",
        remedy="choose another place with --out, or remove the old cache",
    )


def missing_bytes(writer: CacheWriter, views: Sequence[View], ids: Sequence[str]) -> int:
    """Bytes that are still to be written: shards, and the sample table of a new store."""
    shards = sum(
        writer.metadata.bytes_of(writer.missing_shards(view.group, view.name)) for view in views
    )
    if writer.exists:
        return shards
    digests = writer.metadata.num_shards * writer.metadata.shard_samples * DIGEST_BYTES
    return shards + digests + sum(len(data) for data in id_files(ids).values())


def check_space(writer: CacheWriter, views: Sequence[View], ids: Sequence[str]) -> None:
    """Refuse a build that cannot fit, before anything is computed.

    Raises:
        MmfeError: says what it needs and what is free.
    """
    needed, free = missing_bytes(writer, views, ids), free_bytes(writer.path)
    if free is not None and needed > free:
        raise MmfeError(
            f"the cache does not fit on the disk of {writer.path}",
            got=f"{format_bytes(free)} free",
            expected=f"{format_bytes(needed)} for {', '.join(view.name for view in views)}",
            remedy="free some space, choose another place with --out, or fewer --views",
        )
