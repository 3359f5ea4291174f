"""A progress bar within one large photograph, beside the bar of all photographs in `files`."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mmfe_cache.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mmfe_restore.model.work import Watch

LARGE = 2_000_000
"""Pixels from which one photograph gets a bar of its own: some seconds on two cores."""


@contextmanager
def share_of(
    progress: Progress, name: str, image: NDArray[np.generic]
) -> Generator[Watch | None, None, None]:
    """Open a task of 100 percent for one photograph.

    Args:
        progress: who watches.
        name: of the photograph.
        image: (H, W, 3); smaller ones than `LARGE` open nothing.

    Yields:
        What `restore_image` takes as ``watch``; None for a small photograph.
    """
    if image.shape[0] * image.shape[1] < LARGE:
        yield None
        return
    with progress.task(name, 100, "%") as task:
        shown = 0

        def watch(share: float) -> None:
            nonlocal shown
            percent = int(100 * share)
            if percent > shown:
                task.advance(percent - shown)
                shown = percent

        yield watch
        task.advance(100 - shown)
