"""What a student learns from: the pictures of its teacher's cache, and the embeddings in it."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmfe_cache.embeddings import ARRAY_NAMES, ArrayName, Embeddings
from mmfe_cache.errors import CacheError, DataError
from mmfe_cache.guides.scene.guide import to_scene_size
from mmfe_cache.guides.student.network import Basis, make_basis
from mmfe_cache.images import pixel_digest
from mmfe_cache.progress import Progress
from mmfe_cache.samples import ImageArray, Sample
from mmfe_cache.seeds import generator
from mmfe_cache.store import CacheReader
from mmfe_cache.views import View

PIXELS = 16 * 128 * 128
"""Pixels of one batch: the larger the view, the fewer pictures, but `LEAST` at least."""

LEAST = 8
"""Pictures of one batch: the relations between them are learnt too."""

LEAST_COMPARED = 2
"""Pictures on which a student can be compared with its teacher: one has no variance."""

BASIS_VECTORS = 2048
"""Pictures, each at one view, whose embeddings decide the bases."""

_AHEAD = 4
"""Batches that are read ahead."""

_KEPT_BYTES = 1 << 28
"""Rendered views that are kept in memory instead of being read again."""


class TeacherData:
    """Batches of pictures with the teacher's embeddings of them.

    Args:
        cache: the teacher's.
        samples: those to learn from, all of them in the cache.
        views: at which the student learns.
        seed: of the batches.
    """

    def __init__(
        self, cache: CacheReader, samples: Sequence[Sample], views: Sequence[View], *, seed: int
    ) -> None:
        self._cache, self._samples, self._views, self._seed = cache, samples, views, seed
        self._places = cache.index_of([sample.id for sample in samples])
        self._digests = cache.pixel_digests
        self._kept: dict[tuple[int, str], ImageArray] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._samples)

    def bases(self, variance: float, max_rank: int, report: Progress) -> dict[ArrayName, Basis]:
        """Principal axes of some of the training pictures' embeddings, all views among them.

        Args:
            variance: share of the variance that each basis must hold, in (0, 1].
            max_rank: axes of a basis at most, whatever they hold.
            report: where to report.

        Returns:
            The basis of ``image``, ``joint`` and ``answer``; see `make_basis`.
        """
        draw = generator("student-basis", self._seed)
        count = max(BASIS_VECTORS, len(self._views))
        pairs = draw.permutation(len(self._samples) * len(self._views))[:count]
        parts: dict[ArrayName, list[Tensor]] = {name: [] for name in ARRAY_NAMES}
        with report.task("finding the bases", len(self._views), "views") as task:
            for number, view in enumerate(self._views):
                mine = np.sort(pairs[pairs % len(self._views) == number] // len(self._views))
                if len(mine):
                    found = self._teacher(mine, view)
                    for name, tensor in found.present().items():
                        parts[name].append(tensor if tensor.ndim == 3 else tensor[:, None])
                task.advance()
        return {n: make_basis(torch.cat(rows), variance, max_rank) for n, rows in parts.items()}

    def _draw(self, step: int) -> tuple[View, NDArray[np.int64]]:
        """The view and the pictures of a step: a function of the seed and the step alone."""
        draw = generator("student-batch", self._seed, step)
        view = self._views[int(draw.integers(len(self._views)))]
        side = view.resolution or 384  # native pictures are of any size
        count = min(len(self._samples), max(LEAST, PIXELS // side**2))
        return view, draw.permutation(len(self._samples))[:count]

    def _render(self, place: int, view: View) -> ImageArray:
        """One picture at one view, as the student's network takes it."""
        key = (place, view.name)
        if key in self._kept:
            return self._kept[key]
        image = self._samples[place].degraded.read()
        check_picture(self._cache, self._digests[self._places[place]], self._samples[place], image)
        made = to_scene_size(view.render(image))
        if self._bytes + made.nbytes <= _KEPT_BYTES:
            self._kept[key] = made
            self._bytes += made.nbytes
        return made

    def batches(
        self, first: int, last: int, workers: int
    ) -> Iterator[tuple[list[ImageArray], Embeddings]]:
        """Pictures and the teacher's embeddings of steps ``first`` to ``last`` − 1, read ahead.

        Raises:
            CacheError: a picture is not the one that the cache was built from.
        """
        waiting: deque[tuple[View, NDArray[np.int64], list[Future[ImageArray]]]] = deque()
        pool = ThreadPoolExecutor(max(1, workers))
        try:
            for step in range(first, last + _AHEAD):
                if step < last:
                    view, chosen = self._draw(step)
                    read = [pool.submit(self._render, int(place), view) for place in chosen]
                    waiting.append((view, chosen, read))
                if waiting and (step >= last or len(waiting) > _AHEAD):
                    view, chosen, read = waiting.popleft()
                    yield [one.result() for one in read], self._teacher(chosen, view)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _teacher(self, chosen: NDArray[np.int64], view: View) -> Embeddings:
        found = self._cache.gather(self._places[chosen], view.name, tokens="all")
        return found.to(dtype=torch.float32)


def check_picture(
    cache: CacheReader, digest: NDArray[np.uint8], sample: Sample, image: ImageArray
) -> None:
    """Refuse a picture that is not the one that the teacher saw.

    Args:
        cache: the teacher's.
        digest: what it recorded of the sample's pixels.
        sample: whose picture it is.
        image: as it was read now.

    Raises:
        CacheError: names the picture.
    """
    if pixel_digest(image) != digest.tobytes().hex():
        raise CacheError(
            f"{cache.path} was built from other pixels than these",
            got=sample.degraded.name,
            expected="the set that the cache was built from",
            remedy="give its folder: --root DIR",
        )


def ids_learnt(samples: Sequence[Sample]) -> str:
    """How a student's file names the samples that it learnt from: 64 hexadecimal digits."""
    return hashlib.sha256("\n".join(sample.id for sample in samples).encode()).hexdigest()


def split_scenes(
    samples: Sequence[Sample], hold_out: float, seed: int
) -> tuple[list[Sample], list[Sample], list[str]]:
    """Set a share of the photographs aside, with all that was made of them.

    Args:
        samples: of a split.
        hold_out: the share, in [0, 1); 0 sets none aside, any other so many photographs at least
            that a student can be compared with its teacher on their pictures.
        seed: of the choice.

    Returns:
        The samples to learn from, those to measure on, and the latter's scenes.

    Raises:
        DataError: nothing would be left to learn from.
    """
    scenes = sorted({sample.scene for sample in samples})
    count = 0 if hold_out == 0 else max(1, round(hold_out * len(scenes)))
    order = generator("student-held-out", seed).permutation(len(scenes))
    aside = {scenes[int(place)] for place in order[:count]}
    if count and sum(sample.scene in aside for sample in samples) < LEAST_COMPARED:
        aside.update(scenes[int(place)] for place in order[count : count + 1])
    learnt = [sample for sample in samples if sample.scene not in aside]
    if len(learnt) < 2:
        raise DataError(
            "too few photographs to set some aside",
            got=f"{len(scenes)} photographs, {len(samples)} pictures",
            expected="two pictures to learn from at least",
            remedy="a larger set, or --hold-out 0",
        )
    return learnt, [sample for sample in samples if sample.scene in aside], sorted(aside)
