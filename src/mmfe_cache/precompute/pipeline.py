"""From missing shards to written ones: batches are prepared, encoded, collected and written.

Pipeline → prefetched (threads read and prepare) → Encoder (the guide) → ShardBuffer → CacheWriter
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.embeddings import ARRAY_NAMES, ArrayName, embedding_shape
from mmfe_cache.errors import CacheError, DataError
from mmfe_cache.precompute.encode import Batch, Encoder, Prepared, Rows, Started, prefetched
from mmfe_cache.progress import Progress, Task
from mmfe_cache.samples import SampleSet
from mmfe_cache.store.sample_table import DIGEST_BYTES, absent_rows
from mmfe_cache.store.writer import CacheWriter
from mmfe_cache.views import View

OnError = Literal["fail", "skip"]
"""Whether a sample that cannot be read ends the build or is left out."""


class ShardBuffer:
    """Collects one shard's rows at every view that lacks it, then writes them.

    Args:
        writer: the store.
        number: K, which shard.
        views: the views to compute.
        on_error: what a sample that cannot be read does.
        sizes: how many samples the guide may encode together, by the view's name.

    Attributes:
        number: K.
        sizes: as given.
        incomplete: views whose batches had to become smaller midway, and how many samples were
            encoded by then: they are not written, and must be computed again, because a shard
            records one batch size.
    """

    def __init__(
        self,
        writer: CacheWriter,
        number: int,
        views: Sequence[View],
        on_error: OnError,
        sizes: Mapping[str, int],
    ) -> None:
        self.number, self.sizes = number, sizes
        self.incomplete: dict[View, int] = {}
        self._used = dict[str, int]()
        self._encoded = {view.name: 0 for view in views}
        self._writer, self._views, self._on_error = writer, views, on_error
        count = writer.metadata.count(number)
        self._digests = np.zeros((count, DIGEST_BYTES), np.uint8)
        self._known = writer.read_digests(number)
        self._rows: dict[str, dict[ArrayName, NDArray[np.float16]]] = {
            view.name: {
                name: np.zeros((count, *embedding_shape(name, writer.metadata.dim)), np.float16)
                for name in ARRAY_NAMES
            }
            for view in views
        }
        self._added = 0
        self._expected = 0

    @property
    def full(self) -> bool:
        """Whether every sample of the shard has been added and all its rows are there."""
        return self._added == len(self._digests) and not self._expected

    def add(self, batch: Batch, prepared: Sequence[Prepared | None]) -> dict[int, Prepared]:
        """Take in one batch's pixel digests.

        Returns:
            The samples to encode, by their places in the shard.

        Raises:
            DataError: a sample could not be read, and that ends the build.
            CacheError: a sample's pixels are not those that the store was begun with.
        """
        readable: dict[int, Prepared] = {}
        for place, item in enumerate(prepared, start=batch.start):
            if item is None:
                continue
            if item.problem is not None:
                if self._known is not None:
                    raise self._not_left_out(item.problem)
                if self._on_error == "fail":
                    raise item.problem
                continue
            self._digests[place] = np.frombuffer(bytes.fromhex(item.digest or ""), np.uint8)
            self._check_digest(place, item)
            readable[place] = item
        self._added += len(prepared)
        return readable

    def expect(self, view: View, count: int, batch_size: int) -> None:
        """Note that ``count`` samples are being encoded at ``view``; `put` brings their rows."""
        if self._used.setdefault(view.name, batch_size) != batch_size:
            self.incomplete[view] = self._encoded[view.name] + count
        self._encoded[view.name] += count
        self._expected += 1

    def put(self, view: str, places: Sequence[int], rows: Rows) -> None:
        """Take in the rows of the samples at ``places``."""
        for name, values in rows.items():
            self._rows[view][name][list(places)] = values
        self._expected -= 1

    def write(self) -> None:
        """Write the pixel digests, where they are new, and every view's shard."""
        if self._known is None or not np.array_equal(self._known, self._digests):
            self._writer.write_digests(self.number, self._digests)
        for view in self._views:
            if view in self.incomplete:
                continue
            self._writer.write_shard(
                view.group,
                view.name,
                self.number,
                self._rows[view.name],
                self._digests,
                self._used.get(view.name, self.sizes[view.name]),
            )
        self._rows.clear()

    def _not_left_out(self, problem: DataError) -> DataError:
        """Once a view holds a sample, the other views cannot leave it out."""
        error = DataError(
            problem.problem,
            got=problem.got,
            expected=problem.expected or f"an image as in the other views of {self._writer.path}",
            remedy="mend the image, leave this view out, or build all views at once in another "
            "place with --out and --on-error skip",
        )
        error.__cause__ = problem
        return error

    def _check_digest(self, place: int, item: Prepared) -> None:
        # No digest is known of a sample that was left out and is taken in now.
        if self._known is not None and self._known[place].any():
            check_pixels(item, self._known[place], self._writer.path)


def check_pixels(item: Prepared, known: NDArray[np.uint8], path: Path) -> None:
    """Refuse a sample that has other pixels than those that a store was built from.

    Args:
        item: the sample, which could be read.
        known: (16,) the digest in the store.
        path: the store.

    Raises:
        CacheError: names both digests.
    """
    if item.digest == known.tobytes().hex():
        return
    raise CacheError(
        f"the pixels of {item.sample.id!r} have changed since {path} was built",
        got=f"{item.sample.degraded.name} with digest {item.digest}",
        expected=f"digest {known.tobytes().hex()}",
        remedy="put the image back as it was, or build a new cache in another place (--out)",
    )


@dataclass(frozen=True, slots=True)
class _InFlight:
    """Samples of one view that the guide works on.

    Attributes:
        shard: the shard that waits for their rows.
        places: where in it the rows go.
        started: what the guide was given.
    """

    shard: ShardBuffer
    places: tuple[int, ...]
    started: Started


class Pipeline:
    """Computes the missing shards of views that share a batch size; writes each when it is full.

    A GPU is always given the next batch before the last one is waited for, so it works while
    rows are checked and shards are written.

    Args:
        samples: the split.
        writer: the store.
        encoder: runs the guide.
        todo: the shards that each view lacks.
        batch_size: samples that the guide encodes together.
        on_error: what a sample that cannot be read does.
        taken_in: the ids of samples that the store leaves out and that are computed now.
        progress: where to warn of every sample that is left out.

    Attributes:
        encodings: sample-views that were encoded.
        discarded: how many of these in vain, because memory ran out in the middle of their shard.
        retry: the shards that must be computed again for it.
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
        taken_in: Collection[str],
        progress: Progress,
    ) -> None:
        self.encodings = self.discarded = 0
        self.retry = {view: set[int]() for view in todo}
        self._samples, self._writer, self._encoder, self._todo = samples, writer, encoder, todo
        self._batch_size = batch_size
        self._on_error: OnError = on_error
        self._progress = progress
        self._taken_in = frozenset(taken_in)
        self._in_flight: deque[_InFlight] = deque()

    def run(self, workers: int, task: Task) -> None:
        """Compute everything.

        Args:
            workers: threads that read and prepare images.
            task: counts every sample-view.
        """
        shard: ShardBuffer | None = None
        for batch, prepared in prefetched(self._batches(), self._encoder.guide, workers):
            if shard is None or shard.number != batch.shard:
                sizes = {view.name: self._size(view, batch.shard) for view in batch.views}
                shard = ShardBuffer(self._writer, batch.shard, batch.views, self._on_error, sizes)
            self._start(shard, batch, prepared)
            for item in prepared:
                if item is not None and item.problem is not None:
                    self._progress.warn(f"{item.sample.id} is left out: {item.reason}")
            self._write_if_full(shard)
            self._collect(self._encoder.ahead, task)
        self._collect(0, task)

    def _start(self, shard: ShardBuffer, batch: Batch, prepared: list[Prepared | None]) -> None:
        """Give one batch to the guide, view by view."""
        readable = shard.add(batch, prepared)
        for view in batch.views:
            if readable and view not in shard.incomplete:
                most = shard.sizes[view.name]
                started = self._encoder.start(view.name, list(readable.values()), most)
                shard.expect(view, len(readable), self._encoder.size(view.name, most))
                self._in_flight.append(_InFlight(shard, tuple(readable), started))

    def _collect(self, ahead: int, task: Task) -> None:
        """Wait for what the guide was given, but for the last ``ahead``."""
        while len(self._in_flight) > ahead:
            item = self._in_flight.popleft()
            item.shard.put(item.started.view, item.places, self._encoder.finish(item.started))
            task.advance(len(item.places))
            self.encodings += len(item.places)
            self._write_if_full(item.shard)

    def _write_if_full(self, shard: ShardBuffer) -> None:
        if shard.full:
            shard.write()
            for view, count in shard.incomplete.items():
                self.retry[view].add(shard.number)
                self.discarded += count

    def _size(self, view: View, number: int) -> int:
        """How many samples may be encoded together: as many as before, where that is known."""
        known = self._writer.shard_batch(view.group, view.name, number)
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
                    None if gone[start + place] and sample.id not in self._taken_in else sample
                    for place, sample in enumerate(part)
                )
                yield Batch(number, start, kept, views)
