"""Reading, rendering and preparing images in threads while the guide's device works."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from mmfe_cache.errors import DataError
from mmfe_cache.guides.protocol import Guide
from mmfe_cache.images import pixel_digest
from mmfe_cache.samples import Sample
from mmfe_cache.views import View

AHEAD = 3
"""Batches that are prepared ahead of the one the guide works on."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """One sample, ready for the guide.

    Attributes:
        sample: the sample.
        digest: its pixel digest, in hexadecimal; None where it could not be read.
        inputs: what `Guide.prepare` made of each view, by the view's name.
        problem: why it could not be read.
    """

    sample: Sample
    digest: str | None
    inputs: dict[str, Any] = field(default_factory=dict[str, Any])
    problem: DataError | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples that the guide encodes together; the same ones in every build.

    Attributes:
        shard: the shard they belong to.
        start: the first sample's place in the shard.
        samples: the samples, or None in the place of one that an earlier build skipped.
        views: what is to be computed of them.
    """

    shard: int
    start: int
    samples: tuple[Sample | None, ...]
    views: tuple[View, ...]


def prepare(sample: Sample, views: Sequence[View], guide: Guide) -> Prepared:
    """Read one sample's image once and make every view of it ready."""
    try:
        image = sample.degraded.read()
    except DataError as problem:
        return Prepared(sample, None, problem=problem)
    inputs: dict[str, Any] = {}
    if guide.reads == "pixels":
        inputs = {view.name: guide.prepare(view.render(image)) for view in views}
    return Prepared(sample, pixel_digest(image), inputs)


def prefetched(
    batches: Iterable[Batch], guide: Guide, workers: int
) -> Iterator[tuple[Batch, list[Prepared | None]]]:
    """Prepare batches in ``workers`` threads, in order, a few ahead of the consumer.

    Yields:
        Each batch and its prepared samples, None in a skipped sample's place.
    """
    waiting: deque[tuple[Batch, list[Future[Prepared] | None]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="mmfe-prepare")

    def results(
        batch: Batch, futures: list[Future[Prepared] | None]
    ) -> tuple[Batch, list[Prepared | None]]:
        return batch, [None if future is None else future.result() for future in futures]

    try:
        for batch in batches:
            waiting.append(
                (
                    batch,
                    [
                        None if sample is None else pool.submit(prepare, sample, batch.views, guide)
                        for sample in batch.samples
                    ],
                )
            )
            if len(waiting) > AHEAD:
                yield results(*waiting.popleft())
        while waiting:
            yield results(*waiting.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
