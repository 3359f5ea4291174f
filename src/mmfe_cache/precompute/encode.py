"""Images read and prepared in threads, and encoded by the guide batch by batch.

A batch is started and finished in two calls: between them a GPU works, and the CPU may start the
next one, check and cast the one before, or write a shard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmfe_cache.degradations import split_class
from mmfe_cache.embeddings import ArrayName, Embeddings, embedding_shape
from mmfe_cache.errors import DataError, GuideError
from mmfe_cache.guides.base import AsksOnly, AsyncCopy, AsyncGuide, Guide
from mmfe_cache.images import pixel_digest
from mmfe_cache.machine import is_out_of_memory
from mmfe_cache.progress import Progress
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
        problem: why it could not be read, or not be prepared for the guide.
    """

    sample: Sample
    digest: str | None
    inputs: dict[str, Any] = field(default_factory=dict[str, Any])
    problem: DataError | None = None

    @property
    def reason(self) -> str:
        """Why the sample is left out, in one line; empty where there is no problem."""
        if self.problem is None:
            return ""
        got = self.problem.got
        return self.problem.problem if got is None else f"{self.problem.problem} ({got})"


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
        for view in views:
            try:
                inputs[view.name] = guide.prepare(view.render(image))
            except GuideError as problem:
                return Prepared(sample, None, problem=_named(sample, view, problem))
    return Prepared(sample, pixel_digest(image), inputs)


def _named(sample: Sample, view: View, problem: GuideError) -> DataError:
    """What a guide says of a picture, with the picture's name: it knows none."""
    error = DataError(
        f"{sample.degraded.name} cannot be encoded at the view {view.name}: {problem.problem}",
        got=problem.got,
        expected=problem.expected,
        remedy=f"{problem.remedy or 'leave the image out'}, or add --on-error skip",
    )
    error.__cause__ = problem
    return error


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


Rows = dict[ArrayName, NDArray[np.float16]]


@dataclass(frozen=True, slots=True)
class Started:
    """Samples of one view that the guide has been given.

    Attributes:
        view: the view's name.
        parts: the samples in batches of one size, each with what the guide makes of it.
    """

    view: str
    parts: tuple[tuple[Sequence[Prepared], AsyncCopy], ...]


class Encoder:
    """Runs the guide; halves its batches where the device's memory runs out.

    Args:
        guide: the guide.
        progress: where to warn when a batch had to be halved.

    Attributes:
        guide: the guide.
        limit: the largest batch that fits, per view; a view that is not in it has no limit.
    """

    def __init__(self, guide: Guide, progress: Progress) -> None:
        self.guide = guide
        self._progress = progress
        self.limit: dict[str, int] = {}

    @property
    def ahead(self) -> int:
        """How many batches are worth starting before the first is finished."""
        return self.guide.ahead if isinstance(self.guide, AsyncGuide) else 0

    def start(self, view: str, batch: Sequence[Prepared], most: int) -> Started:
        """Give the guide B prepared samples at one view, all of them in batches of one size.

        Args:
            view: the view's name.
            batch: the samples.
            most: how many the guide may encode together.
        """
        parts: list[tuple[Sequence[Prepared], AsyncCopy]] = []
        start = 0
        while start < len(batch):
            part = batch[start : start + self.size(view, most)]
            try:
                pending = self._call(view, part)
            except (RuntimeError, MemoryError) as problem:
                if not is_out_of_memory(problem) or len(part) == 1:
                    raise
                self.limit[view] = len(part) // 2
                self._progress.warn(
                    f"memory ran out with {len(part)} images of {view}; "
                    f"going on with batches of {len(part) // 2} (the store will say so)"
                )
                # From the beginning: the store records one size for all batches of a shard.
                parts, start = [], 0
                continue
            parts.append((part, pending))
            start += len(part)
        return Started(view, tuple(parts))

    def finish(self, started: Started) -> Rows:
        """Wait for what was started.

        Returns:
            float16 ``image`` (B, 17, D), ``joint`` (B, 17, D), ``answer`` (B, D).

        Raises:
            GuideError: a value is not finite, or a shape is wrong.
        """
        parts = [
            self._cast(started.view, part, pending.result()) for part, pending in started.parts
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def size(self, view: str, most: int) -> int:
        """How many samples the guide now encodes together, where it may take ``most``."""
        return min(most, self.limit.get(view, most))

    def _call(self, view: str, part: Sequence[Prepared]) -> AsyncCopy:
        if self.guide.reads == "severities":
            return AsyncCopy(self.guide.encode_samples([item.sample for item in part]))
        inputs = [item.inputs[view] for item in part]
        if isinstance(self.guide, AsyncGuide):
            return self.guide.start(inputs)
        return AsyncCopy(self.guide.encode_prepared(inputs))

    def _asked(self, part: Sequence[Prepared], found: Embeddings) -> Embeddings:
        """The embeddings of samples with a partial target ask for what is to be taken away."""
        if self.guide.reads == "severities":
            return found  # recorded are those of what is to be taken away
        groups: dict[tuple[str, ...], list[int]] = {}
        for place, item in enumerate(part):
            _, kinds = split_class(item.sample.label)
            if kinds is not None:
                groups.setdefault(kinds, []).append(place)
        for kinds, places in groups.items():
            if not isinstance(self.guide, AsksOnly):
                raise GuideError(
                    f"the guide {self.guide.name} cannot ask for some degradations alone",
                    got=f"samples with partial targets, such as {part[places[0]].sample.id!r}",
                    expected="the guide scene, or a set without them",
                    remedy="write the set without --partial-share",
                )
            edited = self.guide.only(found.map(lambda t, at=places: t[at]), kinds).present()
            at = torch.tensor(places)
            found = Embeddings.of(
                {
                    name: tensor.index_copy(0, at, edited[name].to(tensor))
                    for name, tensor in found.present().items()
                }
            )
        return found

    def _cast(self, view: str, part: Sequence[Prepared], found: Embeddings) -> Rows:
        rows: Rows = {}
        found = self._asked(part, found)
        for name, tensor in found.present().items():
            shape = (len(part), *embedding_shape(name, self.guide.dim))
            if tuple(tensor.shape) != shape:
                raise GuideError(
                    f"the guide {self.guide.name} returned {name} embeddings of a wrong shape",
                    got=tuple(tensor.shape),
                    expected=shape,
                )
            values = tensor.detach().cpu().float().numpy()
            with np.errstate(over="ignore"):
                cast = values.astype(np.float16)
            bad = ~np.isfinite(cast.reshape(len(part), -1)).all(axis=1)
            if bad.any():
                index = int(np.flatnonzero(bad)[0])
                kind = "too large for float16" if np.isfinite(values[index]).all() else "not finite"
                raise GuideError(
                    f"the guide {self.guide.name} gave an embedding ({name}) that is {kind}",
                    got=f"sample {part[index].sample.id!r} at {view}",
                    expected="finite values below 65504",
                    remedy="look at that image; with an MLLM, try --precision float32",
                )
            rows[name] = cast
        if len(rows) != 3:
            raise GuideError(
                f"the guide {self.guide.name} left out embeddings",
                got=", ".join(rows),
                expected="image, joint and answer",
            )
        return rows
