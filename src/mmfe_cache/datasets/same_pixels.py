"""Whether pictures are still those of a cache or a pack, although their ids are the same.

Ids tell a picture by its photograph and class. The file of that name may be another one, such as of
a set that was made anew with another seed; what is drawn while reading also depends on settings,
masks and the version of the degradations. Nobody reads the pictures of a finished view or of a pack
again: so a few are looked at once more.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
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

FILES = 8
"""Pictures in files, spread over the set, that are read again, beside one of every class."""

_MADE = "the photograph, degradations.yaml, a mask or map, or the version of the degradations"


def check_same_pixels(samples: SampleSet, cache: CacheReader) -> None:
    """Compare a cache's record of pixels with pictures that are read or made again.

    Of pictures in files and of those that are made while reading these are a few; of the latter in
    a pack it is all of them, by the pack's own record.

    Args:
        samples: the split.
        cache: it holds these samples.

    Raises:
        CacheError: the first that differs, or a sample is not in the cache.
    """
    sources = [sample.degraded for sample in samples]
    packed = {index: d for index, s in enumerate(sources) if (d := _packed_digest(s)) is not None}
    made = any(isinstance(source, SyntheticSource) for source in sources)
    places = [*packed] or list(_spread(len(sources), LOOKED_AT) if made else _of_each(samples))
    rows = cache.pixel_digests_of(cache.index_of([samples.samples[place].id for place in places]))
    # One of a sample that was skipped, or that a build has not come to, is zeros.
    known = {
        place: row.tobytes().hex() for place, row in zip(places, rows, strict=True) if row.any()
    }
    again = () if packed else _ways(sources, known) if made else known
    found = itertools.chain(packed.items(), _read_again(sources, again))
    for place, digest in found:
        if digest == known.get(place, digest):
            continue
        name, what = samples.samples[place].id, _MADE if made or packed else "the picture"
        raise CacheError(
            f"the pixels of {name!r} have changed since {cache.path} was built",
            got=f"{sources[place].name} with digest {digest}",
            expected=f"digest {known[place]}",
            remedy=f"{what} is another: give the set that the cache was built from (--root), mmfe "
            f"cache build --dataset {samples.dataset} in a new place (--out), or remove the old "
            "cache first",
        )


def few_pixels(samples: SampleSet) -> str:
    """A digest of a few degraded pictures, for who has no cache that says which they were.

    It is the same whether they lie in files, are made while reading or come from a pack.

    Args:
        samples: the split.

    Returns:
        32 hexadecimal digits.

    Raises:
        DataError: one of the pictures cannot be read.
    """
    sources = [samples.samples[place].degraded for place in _of_each(samples)]
    rows = [_packed_digest(source) or pixel_digest(source.read()) for source in sources]
    return hashlib.blake2b(bytes.fromhex("".join(rows)), digest_size=16).hexdigest()


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
    for place, digest in _read_again(sources, _ways(sources, _spread(len(ids), LOOKED_AT))):
        if digest == (known := pack.digest(packed[ids[place]])):
            continue
        raise DataError(
            f"the pixels of {ids[place]!r} have changed since {pack.path} was made",
            got=f"{sources[place].name} with digest {digest}",
            expected=f"digest {known}",
            remedy=f"{_MADE} is another: rm '{pack.path}', then mmfe data pack",
        )
    _CHECKED.setdefault(pack, set()).add(root)


def _read_again(sources: Sequence[PixelSource], places: Iterable[int]) -> Iterator[tuple[int, str]]:
    """The places and digests of pictures that can still be read."""
    for place in places:
        try:
            yield place, pixel_digest(sources[place].read())
        except DataError:
            continue  # a cache and a pack may well outlive the photographs


def _packed_digest(source: PixelSource) -> str | None:
    """Of a picture that was made and packed; None for any other."""
    if not isinstance(source, PackedSource):
        return None
    pack = open_pack(source.path)
    return pack.digest(source.number) if pack.made else None


def _spread(count: int, most: int) -> range:
    """At most ``most`` of ``count`` places, evenly apart."""
    return range(0, count, max(1, -(-count // most)))


def _of_each(samples: SampleSet) -> list[int]:
    """`FILES` places, evenly apart, and one of every class, each at another part of its own."""
    classes: dict[str, list[int]] = {}
    for place, sample in enumerate(samples):
        classes.setdefault(sample.label, []).append(place)
    chosen = set(_spread(len(samples), FILES))
    for number, (_, members) in enumerate(sorted(classes.items())):
        if chosen.isdisjoint(members):
            chosen.add(members[len(members) * number // len(classes)])
    return sorted(chosen)


def _ways(sources: Sequence[PixelSource], places: Iterable[int]) -> Iterator[int]:
    """Those of ``places`` that show `EACH` pictures of every way of drawing a degradation."""
    seen = Counter[tuple[str, bool, bool]]()
    for place in places:
        source = sources[place]
        if not isinstance(source, SyntheticSource):
            continue
        ways = source.ways()
        if any(seen[way] < EACH for way in ways):
            seen.update(ways)
            yield place
