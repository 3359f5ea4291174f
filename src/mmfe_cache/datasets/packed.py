"""A split that was packed: its samples come from the pack, and the folder is not listed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmfe_cache.errors import DataError
from mmfe_cache.samples import SampleSet

from .cdd11 import UNFINISHED_FILE
from .listing import some
from .splits import Split

if TYPE_CHECKING:
    from mmfe_cache.packing import PackReader

_PROBES = 64
"""How many of the packed files are compared with those in the folder."""


def load_packed(name: str, split: Split, root: Path) -> SampleSet | None:
    """The samples of ``root``'s pack of this split; None when there is none of this data set.

    Raises:
        DataError: the pack is damaged, or the files beside it have changed since.
    """
    from mmfe_cache.packing import open_pack, pack_path

    if (root / UNFINISHED_FILE).exists():
        return None
    foreign: list[str] = []
    for path in (pack_path(root, name, split, shared=True), pack_path(root, name, split)):
        if not path.exists():
            continue
        pack = open_pack(path)
        described = pack.describe()
        if (described["dataset"], described["split"]) != (name, split):
            foreign.append(f"{path} holds {described['dataset']}, {described['split']}")
            continue
        _check_fresh(pack, root)
        samples = pack.samples(root)
        return replace(samples, warnings=(*samples.warnings, *foreign))
    return None


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
