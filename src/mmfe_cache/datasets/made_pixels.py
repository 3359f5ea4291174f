"""Whether pictures that are made while reading are still those of a cache or a pack.

Ids tell a picture by its photograph and class. What is drawn over it also depends on settings,
masks and the version of the degradations, and nobody reads the pictures of a finished view or of a
pack again: so a few are made once more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from mmfe_cache.errors import CacheError, DataError
from mmfe_cache.images import pixel_digest
from mmfe_cache.packing.reader import PackedSource, PackReader, open_pack
from mmfe_cache.samples import PixelSource, SampleSet

from .sources import SyntheticSource
from .synth_live import made_sources

if TYPE_CHECKING:
    from mmfe_cache.store.reader import CacheReader

EACH = 2
"""Pictures of each way of drawing a degradation that are made again."""

LOOKED_AT = 4096
"""Samples, spread over the set, that these are chosen from: to draw costs a little, too."""

_WHY = "the photograph, degradations.yaml, a mask or map, or the version of the degradations"


def check_made_pixels(samples: SampleSet, cache: CacheReader) -> None:
    """Compare a cache's record of pixels with pictures that are made while reading.

    Those of a pack are all compared, by its own record; of others a few are made again.

    Args:
        samples: the split; pictures that lie in files, and packs of these, are let pass.
        cache: it holds these samples.

    Raises:
        CacheError: the first that differs, or a sample is not in the cache.
    """
    sources = [sample.degraded for sample in samples]
    if not any(isinstance(s, SyntheticSource) or _packed_digest(s) is not None for s in sources):
        return
    rows = cache.pixel_digests[cache.index_of(samples.ids)]

    def known(index: int) -> str | None:
        return rows[index].tobytes().hex() if rows[index].any() else None

    for index, found in _changed(sources, known):
        name = samples.samples[index].id
        raise CacheError(
            f"the pixels of {name!r} have changed since {cache.path} was built",
            got=f"{sources[index].name} with digest {found}",
            expected=f"digest {known(index)}",
            remedy=f"{_WHY} is another: mmfe cache build --dataset {samples.dataset} in a new "
            "place (--out), or remove the old cache first",
        )


_CHECKED: WeakKeyDictionary[PackReader, set[Path]] = WeakKeyDictionary()
"""Packs that were compared in this process, with the roots: data sets are loaded more than once."""


def check_made_pack(pack: PackReader, root: Path) -> None:
    """Make a few pictures of a pack again and compare them; once per process and pack.

    Args:
        pack: one of pictures in files is let pass.
        root: of the data set; what is no longer there is not compared.

    Raises:
        DataError: the first that differs.
    """
    if not pack.made or root in _CHECKED.get(pack, ()):
        return
    live = made_sources("train" if pack.about["split"] == "train" else "test", root)
    packed = {
        sample.id: sample.degraded.number
        for sample in pack.samples(root)
        if isinstance(sample.degraded, PackedSource)
    }
    ids = [name for name in live if name in packed]
    sources = [live[name] for name in ids]

    def known(index: int) -> str:
        return pack.digest(packed[ids[index]])

    for index, found in _changed(sources, known):
        raise DataError(
            f"the pixels of {ids[index]!r} have changed since {pack.path} was made",
            got=f"{sources[index].name} with digest {found}",
            expected=f"digest {known(index)}",
            remedy=f"{_WHY} is another: rm '{pack.path}', then mmfe data pack",
        )
    _CHECKED.setdefault(pack, set()).add(root)


def _changed(
    sources: Sequence[PixelSource], known: Callable[[int], str | None]
) -> Iterator[tuple[int, str]]:
    """The places and digests of pictures whose pixels are not those that are ``known``.

    Args:
        sources: of a set.
        known: the digest of the picture at a place; None where there is none.
    """
    for index, source in enumerate(sources):
        digest = _packed_digest(source)
        if digest is not None and known(index) not in (None, digest):
            yield index, digest
    for index in _probes(sources, known):
        try:
            digest = pixel_digest(sources[index].read())
        except DataError:
            continue  # a cache and a pack may well outlive the photographs
        if digest != known(index):
            yield index, digest


def _packed_digest(source: PixelSource) -> str | None:
    """Of a picture that was made and packed; None for any other."""
    if not isinstance(source, PackedSource):
        return None
    pack = open_pack(source.path)
    return pack.digest(source.number) if pack.made else None


def _probes(sources: Sequence[PixelSource], known: Callable[[int], str | None]) -> Iterator[int]:
    seen = Counter[tuple[str, bool, bool]]()
    for index in range(0, len(sources), max(1, len(sources) // LOOKED_AT)):
        source = sources[index]
        if not isinstance(source, SyntheticSource) or known(index) is None:
            continue
        ways = source.ways()
        if any(seen[way] < EACH for way in ways):
            seen.update(ways)
            yield index
