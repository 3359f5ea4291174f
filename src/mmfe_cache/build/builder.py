"""Building a cache: every missing shard of every wanted view, and no sample twice."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from mmfe_cache.build.check import (
    check_rendering,
    check_same,
    check_space,
    rendering,
    wanted_metadata,
)
from mmfe_cache.build.encode import Encoder
from mmfe_cache.build.passes import Pass
from mmfe_cache.build.ranks import Alone, Ranks
from mmfe_cache.build.shard import OnError
from mmfe_cache.errors import CacheError, UsageError
from mmfe_cache.guides.protocol import Guide
from mmfe_cache.lock import locked
from mmfe_cache.progress import Progress, SilentProgress
from mmfe_cache.samples import SampleSet
from mmfe_cache.store.location import true_place
from mmfe_cache.store.metadata import StoreMetadata, ViewMetadata
from mmfe_cache.store.reader import open_cache
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
    shard_batches: Mapping[tuple[str, int], int] | None = None,
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
        shard_batches: how many samples were encoded together for shards that are computed again,
            by view and number, where no file of the shard is left to say so.

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
    build = _Build(
        samples=samples,
        guide=guide,
        views=tuple(dict.fromkeys(View.parse(name) for name in views)),
        path=true_place(path),
        batch_size=batch_size,
        shard_samples=shard_samples,
        on_error=on_error,
        workers=workers or min(8, 2 * (os.cpu_count() or 1)),
        ranks=ranks or Alone(),
        progress=progress or SilentProgress(),
        shard_batches=shard_batches or {},
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
    shard_batches: Mapping[tuple[str, int], int]

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
            missing = self.ranks.broadcast(
                {view.name: writer.missing_shards(view.group, view.name) for view in self.views}
            )
            counts = self.ranks.gather(self._write(writer, about, missing))
            if first:
                self._finish(writer)
            self.ranks.barrier()
        encodings, wasted = (sum(column) for column in zip(*counts, strict=True))
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
            reused=there - (encodings - wasted),
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
        missing: dict[str, list[int]],
    ) -> tuple[int, int]:
        """Compute this process's share of the missing shards.

        Returns:
            How many sample-views were encoded, and how many of these more than once.
        """
        encodings = wasted = 0
        metadata = writer.metadata
        encoder = Encoder(self.guide, self.progress)
        title = f"{self.samples.dataset}/{self.samples.split} {self.guide.name}"
        by_size = sorted(self.views, key=lambda view: about[view.name].batch_size)
        for size, group in groupby(by_size, key=lambda view: about[view.name].batch_size):
            views = tuple(group)
            numbers = sorted({k for view in views for k in missing[view.name]})
            mine = set(numbers[self.ranks.rank :: self.ranks.size])
            todo = {view: mine.intersection(missing[view.name]) for view in views}
            # A second time only where memory ran out in the middle of a shard.
            while any(todo.values()):
                one = Pass(
                    self.samples,
                    writer,
                    encoder,
                    todo,
                    batch_size=size,
                    on_error=self.on_error,
                    shard_batches=self.shard_batches,
                    progress=self.progress,
                )
                total = sum(metadata.count(k) for numbers in todo.values() for k in numbers)
                with self.progress.task(title, total, "embeddings") as task:
                    one.run(self.workers, task)
                encodings, wasted = encodings + one.encodings, wasted + one.wasted
                todo = one.again
        return encodings, wasted

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
            if not known[view.name].complete:
                writer.finish_view(view.group, known[view.name])
        writer.clear_aside()
