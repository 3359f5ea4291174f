"""The pairs of a test set as an evaluation reads them: cropped, one ahead, batched by size."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

from mmfe_cache.errors import DataError
from mmfe_cache.samples import ImageArray, Sample, SampleSet


@dataclass(frozen=True)
class Pair:
    """A degraded image and its ground truth, both (H, W, 3) uint8 after the protocol's crop."""

    position: int
    sample: Sample
    degraded: ImageArray
    clean: ImageArray


def read_pairs(samples: SampleSet, positions: Iterable[int], crop: int) -> Generator[Pair]:
    """Read test pairs, one ahead of the network.

    Args:
        samples: the test set.
        positions: of the pairs to read, in this order.
        crop: images are centre-cropped to a multiple of this; 1 keeps them whole.

    Raises:
        DataError: an image is unreadable, or a pair's two differ in size.
    """
    with ThreadPoolExecutor(1) as reader:
        waiting = None
        for position in positions:
            coming = reader.submit(_read, position, samples.samples[position], crop)
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()


def _read(position: int, sample: Sample, crop: int) -> Pair:
    assert sample.clean is not None
    degraded, clean = sample.degraded.read(), sample.clean.read()
    if degraded.shape != clean.shape:
        raise DataError(
            f"the two images of {sample.id} differ in size",
            got=f"{_size(degraded)} ({sample.degraded.name})",
            expected=f"{_size(clean)} ({sample.clean.name})",
            remedy="mmfe data check shows the layout that is expected",
        )
    return Pair(position, sample, centre_crop(degraded, crop), centre_crop(clean, crop))


def _size(image: ImageArray) -> str:
    return f"{image.shape[1]}×{image.shape[0]} pixels"


def centre_crop(image: ImageArray, multiple: int) -> ImageArray:
    """The centre of ``image`` whose sides are multiples of ``multiple``; at least one multiple.

    Raises:
        DataError: the image is smaller than ``multiple``.
    """
    if multiple == 1:
        return image
    height, width = image.shape[:2]
    rows, columns = height - height % multiple, width - width % multiple
    if not rows or not columns:
        raise DataError(
            "a test image is smaller than the protocol's crop",
            got=_size(image),
            expected=f"at least {multiple}×{multiple} pixels",
            remedy="--protocol onerestore or restormer keeps images whole",
        )
    top, left = (height - rows) // 2, (width - columns) // 2
    return image[top : top + rows, left : left + columns]


def batches(pairs: Iterable[Pair], batch_size: int) -> Generator[list[Pair]]:
    """Runs of neighbours of one size and label, ``batch_size`` at most."""
    for _, group in groupby(pairs, key=lambda pair: (pair.clean.shape, pair.sample.label)):
        batch: list[Pair] = []
        for pair in group:
            batch.append(pair)
            if len(batch) == batch_size:
                yield batch
                batch = []
        if batch:
            yield batch
