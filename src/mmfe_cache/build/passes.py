"""One pass over the missing shards of views that share a batch size."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

import numpy as np

from mmfe_cache.build.encode import Encoder
from mmfe_cache.build.prefetch import Batch, prefetched
from mmfe_cache.build.shard import OnError, Running, ShardBuffer
from mmfe_cache.errors import DataError
from mmfe_cache.progress import Progress, Task
from mmfe_cache.samples import SampleSet
from mmfe_cache.store.table import absent_rows
from mmfe_cache.store.writer import CacheWriter
from mmfe_cache.views import View


class Pass:
    """Computes shards and writes each when it is whole.

    A GPU is always given the next batch before the last one is waited for, so it works while
    rows are checked and shards are written.

    Args:
        samples: the split.
        writer: the store.
        encoder: runs the guide.
        todo: the shards that each view lacks.
        batch_size: samples that the guide encodes together.
        on_error: what a sample that cannot be read does.
        shard_batches: how many samples were encoded together for shards that are computed again,
            by view and number, where no file of the shard is left to say so.
        progress: is told of every sample that is left out.

    Attributes:
        encodings: sample-views that were encoded.
        wasted: how many of these in vain, because memory ran out in the middle of their shard.
        again: the shards that must be computed again for it.
    """

    def __init__(
        self,
        samples: SampleSet,
        writer: CacheWriter,
        encoder: Encoder,
        todo: Mapping[View, set[int]],
        *,
        batch_size: int,
        on_error: OnError,
        shard_batches: Mapping[tuple[str, int], int],
        progress: Progress,
    ) -> None:
        self.encodings = self.wasted = 0
        self.again = {view: set[int]() for view in todo}
        self._samples, self._writer, self._encoder, self._todo = samples, writer, encoder, todo
        self._batch_size = batch_size
        self._on_error: OnError = on_error
        self._progress = progress
        self._shard_batches = shard_batches
        self._running: deque[Running] = deque()

    def run(self, workers: int, task: Task) -> None:
        """Compute everything.

        Args:
            workers: threads that read and prepare images.
            task: is told of every sample-view.
        """
        shard: ShardBuffer | None = None
        for batch, prepared in prefetched(self._batches(), self._encoder.guide, workers):
            if shard is None or shard.number != batch.shard:
                sizes = {view.name: self._size(view, batch.shard) for view in batch.views}
                shard = ShardBuffer(self._writer, batch.shard, batch.views, self._on_error, sizes)
            self._running.extend(shard.start(batch, prepared, self._encoder))
            for item in prepared:
                if item is not None and item.problem is not None:
                    self._progress.warn(f"{item.sample.id} is left out: {_line(item.problem)}")
            self._write_if_full(shard)
            self._settle(self._encoder.ahead, task)
        self._settle(0, task)

    def _settle(self, ahead: int, task: Task) -> None:
        """Take in what the guide was given, but for the last ``ahead``."""
        while len(self._running) > ahead:
            item = self._running.popleft()
            count = item.shard.finish(item, self._encoder)
            task.advance(count)
            self.encodings += count
            self._write_if_full(item.shard)

    def _write_if_full(self, shard: ShardBuffer) -> None:
        if shard.full:
            shard.write()
            for view, lost in shard.spoilt.items():
                self.again[view].add(shard.number)
                self.wasted += lost

    def _size(self, view: View, number: int) -> int:
        """How many samples may be encoded together: as many as before, where that is known."""
        known = self._shard_batches.get((view.name, number))
        known = known or self._writer.shard_batch(view.group, view.name, number)
        return min(self._batch_size, known or self._batch_size)

    def _batches(self) -> Iterator[Batch]:
        for number in sorted(set[int]().union(*self._todo.values())):
            first = number * self._writer.metadata.shard_samples
            members = self._samples.samples[first : first + self._writer.metadata.count(number)]
            digests = self._writer.read_digests(number)
            gone = np.zeros(len(members), bool) if digests is None else absent_rows(digests)
            views = tuple(view for view in self._todo if number in self._todo[view])
            for start in range(0, len(members), self._batch_size):
                part = members[start : start + self._batch_size]
                kept = tuple(
                    None if gone[start + place] else sample for place, sample in enumerate(part)
                )
                yield Batch(number, start, kept, views)


def _line(problem: DataError) -> str:
    return problem.problem if problem.got is None else f"{problem.problem} ({problem.got})"
