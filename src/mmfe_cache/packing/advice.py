"""Where a split's pack is written and looked for, and what it costs to do without."""

from __future__ import annotations

import time
from pathlib import Path

from mmfe_cache.datasets.sources import SyntheticSource
from mmfe_cache.errors import DataError
from mmfe_cache.images import FileSource
from mmfe_cache.samples import SampleSet

from .recipes import leaf_of

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


def unpacked_cost(samples: SampleSet, seconds: float = 0.5) -> str | None:
    """What reading crops from the unpacked files costs, measured on a few of them.

    Args:
        samples: the split that will be trained on.
        seconds: how long to measure.

    Returns:
        One line for a warning; None where nothing would be gained.
    """
    pictures = {
        leaf.name: leaf
        for sample in samples.samples[:: max(1, len(samples) // 16)]
        for source in (sample.degraded, sample.clean)
        if source is not None and isinstance(leaf := leaf_of(source), FileSource | SyntheticSource)
    }
    if not pictures:
        return None
    made = any(isinstance(source, SyntheticSource) for source in pictures.values())
    started, read = time.monotonic(), 0
    for source in pictures.values():
        try:
            source.read()
        except DataError:
            continue
        read += 1
        if time.monotonic() - started > seconds:
            break
    if read == 0:
        return None
    cost = (time.monotonic() - started) / read
    what = "decodes two whole pictures and makes one's weather" if made else "decodes two pictures"
    return (
        f"every training pair {what}, {2 * 1000 * cost:.0f} ms a pair on one core: "
        f"`mmfe data pack --dataset {samples.dataset} --root '{samples.root}'` avoids that"
    )
