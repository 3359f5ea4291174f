"""Where a split's pack is written and looked for."""

from __future__ import annotations

from pathlib import Path

FOLDER = "packed"
"""The folder under a data set's root in which packs lie."""


def pack_path(root: Path, dataset: str, split: str, shared: bool = False) -> Path:
    """``root/packed/<split>.h5``.

    Args:
        root: the data set's root.
        dataset: its name.
        split: train or test.
        shared: for a root that serves several data sets: ``<dataset>-<split>.h5``.
    """
    return root / FOLDER / (f"{dataset}-{split}.h5" if shared else f"{split}.h5")


def pack_places(root: Path, dataset: str, split: str) -> tuple[Path, ...]:
    """Where a split's pack may lie, in the order in which it is looked for.

    Under ``root/packed``, else in ``root`` itself: a folder of packs is a data set's root too, so
    that packs may lie on another disk than the files they were made from.
    """
    written = [pack_path(root, dataset, split, shared) for shared in (True, False)]
    return (*written, *(root / path.name for path in written))
