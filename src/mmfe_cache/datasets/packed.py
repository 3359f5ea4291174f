"""A split that was packed: its samples come from the pack, and the folder is not listed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

from mmfe_cache.errors import DataError
from mmfe_cache.packing.locate import pack_places
from mmfe_cache.packing.reader import PackReader, open_pack
from mmfe_cache.samples import SampleSet

from .cdd11 import UNFINISHED_FILE
from .listing import list_images, some
from .splits import Split

_PROBES = 64
"""How many of the packed files are compared with those in the folder."""


def load_packed(name: str, split: Split, root: Path) -> SampleSet | None:
    """The samples of ``root``'s pack of this split; None when there is none of this data set.

    Raises:
        DataError: the pack is damaged, or the files beside it have changed since.
    """
    pack, foreign = find_pack(name, split, root)
    if pack is None:
        return None
    _check_fresh(pack, root)
    samples = pack.samples(root)
    newer = _newer_files(pack, root)
    return replace(samples, warnings=(*samples.warnings, *foreign, *newer))


def find_pack(name: str, split: Split, root: Path) -> tuple[PackReader | None, tuple[str, ...]]:
    """The pack of a split, and a line for each pack of another set that lies in its place.

    Raises:
        DataError: what lies there is damaged or no pack.
    """
    foreign: list[str] = []
    if (root / UNFINISHED_FILE).exists():
        return None, ()
    for path in pack_places(root, name, split):
        if not path.exists():
            continue
        pack = open_pack(path)
        described = pack.about
        if (described["dataset"], described["split"]) == (name, split):
            return pack, tuple(foreign)
        foreign.append(f"{path} holds {described['dataset']}, {described['split']}")
    return None, tuple(foreign)


def packed_splits(name: str, folder: Path) -> tuple[Split, ...]:
    """The splits whose packs lie in ``folder`` itself, as `mmfe data pack --out` writes them."""
    splits: tuple[Split, ...] = get_args(Split)
    return tuple(
        split
        for split in splits
        if any(p.parent == folder and p.exists() for p in pack_places(folder, name, split))
    )


def _check_fresh(pack: PackReader, root: Path) -> None:
    step = max(1, len(pack) // _PROBES)
    changed: list[str] = []
    for number in range(0, len(pack), step):
        path = root / pack.names[number]
        # A pack may well outlive the folder it was made from: files that are gone are fine.
        if path.is_file() and path.stat().st_size != int(pack.bytes[number]):
            changed.append(pack.names[number])
    if changed:
        raise DataError(
            f"the files under {root} have changed since they were packed",
            got=f"other sizes: {some(changed)}",
            expected=f"the files that {pack.path} was made from",
            remedy=f"rm '{pack.path}', then mmfe data pack",
        )


def _newer_files(pack: PackReader, root: Path) -> tuple[str, ...]:
    """A line where the folders hold more images than they did when they were packed."""
    more: list[str] = []
    for name, count in pack.about["folders"].items():
        folder = root / name
        now = len(list_images(folder).images) if folder.is_dir() else 0
        if now > count:
            more.append(f"{name}: {now} images, {count} when it was packed")
    if not more:
        return ()
    return (f"the pack {pack.path} lacks newer files ({some(more)}): rm it, then mmfe data pack",)
