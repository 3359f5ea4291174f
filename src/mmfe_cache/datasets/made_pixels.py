"""Whether pictures that are made while reading are still those that a cache was built from.

Ids tell a picture by its photograph and class. What is drawn over it also depends on settings,
masks and the version of the degradations, and nobody reads the pictures of a finished view again:
so a few are made once more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.errors import CacheError, DataError
from mmfe_cache.images import pixel_digest
from mmfe_cache.samples import SampleSet
from mmfe_cache.store.reader import CacheReader
from mmfe_cache.store.sample_table import absent_rows

from .sources import SyntheticSource

EACH = 2
"""Pictures of each way of drawing a degradation that are made again."""

LOOKED_AT = 4096
"""Samples, spread over the set, that these are chosen from: to draw costs a little, too."""


def check_made_pixels(samples: SampleSet, cache: CacheReader) -> None:
    """Make a few synthetic pictures and compare them with a cache's record of their pixels.

    Args:
        samples: the split; pictures that lie in files are let pass.
        cache: it holds these samples.

    Raises:
        CacheError: the first that differs, or a sample is not in the cache.
    """
    if not any(isinstance(sample.degraded, SyntheticSource) for sample in samples):
        return
    digests = cache.pixel_digests[cache.index_of(samples.ids)]
    for index in _probes(samples, digests):
        sample = samples.samples[index]
        try:
            found = pixel_digest(sample.degraded.read())
        except DataError:
            continue  # the cache may well outlive its photographs
        known = digests[index].tobytes().hex()
        if found != known:
            raise CacheError(
                f"the pixels of {sample.id!r} have changed since {cache.path} was built",
                got=f"{sample.degraded.name} with digest {found}",
                expected=f"digest {known}",
                remedy=f"the photograph, degradations.yaml or the version of the degradations is "
                f"another: mmfe cache build --dataset {samples.dataset} in a new place (--out), or "
                "remove the old cache first",
            )


def _probes(samples: SampleSet, digests: NDArray[np.uint8]) -> Iterator[int]:
    absent = absent_rows(digests)
    seen = Counter[tuple[str, bool, bool]]()
    for index in range(0, len(samples), max(1, len(samples) // LOOKED_AT)):
        source = samples.samples[index].degraded
        if not isinstance(source, SyntheticSource) or absent[index]:
            continue
        ways = source.ways()
        if any(seen[way] < EACH for way in ways):
            seen.update(ways)
            yield index
