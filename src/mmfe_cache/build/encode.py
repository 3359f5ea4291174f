"""One batch through the guide, checked and cast for the store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.build.prefetch import Prepared
from mmfe_cache.embeddings import ArrayName, Embeddings
from mmfe_cache.errors import GuideError
from mmfe_cache.guides.protocol import Guide
from mmfe_cache.progress import Progress
from mmfe_cache.store.documents import embedding_shape

Rows = dict[ArrayName, NDArray[np.float16]]


class Encoder:
    """Runs the guide; halves its batches where the device's memory runs out.

    Args:
        guide: the guide.
        progress: is told when a batch had to be halved.

    Attributes:
        limit: the largest batch that fits, per view; a view that is not in it has no limit.
    """

    def __init__(self, guide: Guide, progress: Progress) -> None:
        self._guide = guide
        self._progress = progress
        self.limit: dict[str, int] = {}

    def encode(self, view: str, batch: Sequence[Prepared], most: int) -> Rows:
        """Encode B prepared samples at one view, all of them in batches of one size.

        Args:
            view: the view's name.
            batch: the samples.
            most: how many the guide may encode together.

        Returns:
            float16 ``image`` (B, 17, D), ``joint`` (B, 17, D), ``answer`` (B, D).

        Raises:
            GuideError: a value is not finite, or a shape is wrong.
        """
        parts: list[Rows] = []
        start = 0
        while start < len(batch):
            part = batch[start : start + self.size(view, most)]
            try:
                found = self._call(view, part)
            except (RuntimeError, MemoryError) as problem:
                if not _out_of_memory(problem) or len(part) == 1:
                    raise
                self.limit[view] = len(part) // 2
                self._progress.warn(
                    f"memory ran out with {len(part)} images of {view}; "
                    f"going on with batches of {len(part) // 2} (the store will say so)"
                )
                # From the beginning: the store records one size for all batches of a shard.
                parts, start = [], 0
                continue
            parts.append(self._cast(view, part, found))
            start += len(part)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def size(self, view: str, most: int) -> int:
        """How many samples the guide now encodes together, where it may take ``most``."""
        return min(most, self.limit.get(view, most))

    def _call(self, view: str, part: Sequence[Prepared]) -> Embeddings:
        if self._guide.reads == "severities":
            return self._guide.encode_samples([item.sample for item in part])
        return self._guide.encode_prepared([item.inputs[view] for item in part])

    def _cast(self, view: str, part: Sequence[Prepared], found: Embeddings) -> Rows:
        rows: Rows = {}
        for name, tensor in found.present().items():
            shape = (len(part), *embedding_shape(name, self._guide.dim))
            if tuple(tensor.shape) != shape:
                raise GuideError(
                    f"the guide {self._guide.name} returned {name} embeddings of a wrong shape",
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
                    f"the guide {self._guide.name} gave a {name} embedding that is {kind}",
                    got=f"sample {part[index].sample.id!r} at {view}",
                    expected="finite values below 65504",
                    remedy="load the guide with precision 32, or leave the sample out",
                )
            rows[name] = cast
        if len(rows) != 3:
            raise GuideError(
                f"the guide {self._guide.name} left out embeddings",
                got=", ".join(rows),
                expected="image, joint and answer",
            )
        return rows


def _out_of_memory(problem: BaseException) -> bool:
    # torch.OutOfMemoryError is a RuntimeError; older and other back ends only say so in words.
    return isinstance(problem, MemoryError) or "out of memory" in str(problem).lower()
