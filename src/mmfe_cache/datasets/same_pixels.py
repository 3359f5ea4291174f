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
from mmfe_cache.names import composed, first_few
from mmfe_cache.packing.reader import PackedSource, PackReader, open_pack
from mmfe_cache.samples import PixelSource, SampleSet

from .photographs import is_image_name, list_images
from .sources import SyntheticSource
from .synth_live import CONFIG_FILE, made_sources, settings_digest, settings_files

if TYPE_CHECKING:
    from mmfe_cache.store.reader import CacheReader

EACH = 2
"""Pictures of each way of drawing a degradation that are made again."""

LOOKED_AT = 4096
"""Samples, spread over the set, that these are chosen from: to draw costs a little, too."""

FILES = 8
"""Pictures in files, spread over the set, that are read again, beside one of every class."""

PROBES = 64
"""Packed files, spread over the pack, whose sizes are compared with those in their folder."""

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


def compare_files(pack: PackReader, root: Path) -> tuple[str, ...]:
    """Compare a pack with the files under ``root`` that it was made from.

    A pack may well outlive that folder: files that are gone are fine.

    Args:
        pack: the pack.
        root: of the data set.

    Returns:
        A line for people where folders hold images that came after they were packed.

    Raises:
        DataError: files have changed since.
    """
    changed: list[str] = []
    for number in range(0, len(pack), max(1, -(-len(pack) // PROBES))):
        path = root / pack.names[number]
        if path.is_file() and path.stat().st_size != int(pack.bytes[number]):
            changed.append(pack.names[number])
    if changed:
        raise DataError(
            f"the files under {root} have changed since they were packed",
            got=f"other sizes: {first_few(changed)}",
            expected=f"the files that {pack.path} was made from",
            remedy=f"rm '{pack.path}', then mmfe data pack",
        )
    _compare_settings(pack, root)
    more = _newer(pack, root)
    if not more:
        return ()
    lacking = f"the pack {pack.path} lacks newer files ({first_few(more)})"
    return (f"{lacking}: rm it, then mmfe data pack",)


def _newer(pack: PackReader, root: Path) -> list[str]:
    """What came into each folder since: by name, or only how many where it cannot be told."""
    packed: dict[str, set[str]] = {}
    for name in pack.names:
        folder, _, file = composed(name).rpartition("/")
        packed.setdefault(folder or ".", set()).add(file)
    lines: list[str] = []
    for name, count in pack.about["folders"].items():
        folder = root / name
        now = [composed(p.name) for p in list_images(folder).images] if folder.is_dir() else []
        known = {file for file in packed.get(composed(name), ()) if is_image_name(Path(file))}
        if len(known) == count:
            if new := [file for file in now if file not in known]:
                lines.append(f"{name}: {first_few(new)}")
        elif len(now) > count:  # some that lay there without a partner were not packed
            lines.append(f"{name}: {len(now)} images, {count} when it was packed")
    return lines


def _compare_settings(pack: PackReader, root: Path) -> None:
    """Compare what pictures that are made while reading, as those of `synth`, depend on."""
    known = pack.about.get("settings")  # None in packs of files, and in those of before
    if known is None or not _has_photographs(pack, root):
        return  # a folder of packs alone has no settings either
    if (found := settings_digest(root)) != known:
        raise DataError(
            f"{root / CONFIG_FILE} has changed since {pack.path} was made by it",
            got=f"digest {found[:12]}",
            expected=f"digest {known[:12]}",
            remedy=f"rm '{pack.path}', then mmfe data pack",
        )
    before, now = pack.about.get("settings_files"), settings_files(root)
    if before is not None and now is not None and now != before:
        other = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        raise DataError(
            f"masks or maps have changed since {pack.path} was made with them",
            got=f"other files or sizes: {first_few(other)}",
            expected=f"those that {root / CONFIG_FILE} named then",
            remedy=f"rm '{pack.path}', then mmfe data pack",
        )


def _has_photographs(pack: PackReader, root: Path) -> bool:
    folders = [root / name for name in pack.about["folders"]]
    return any(folder.is_dir() and list_images(folder).images for folder in folders)


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
