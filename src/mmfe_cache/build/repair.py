"""Bringing a damaged store back: exactly what is damaged is written again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmfe_cache.build.builder import build_cache
from mmfe_cache.build.mend import Mending
from mmfe_cache.guides.protocol import Guide
from mmfe_cache.lock import locked
from mmfe_cache.progress import Progress, SilentProgress
from mmfe_cache.samples import SampleSet
from mmfe_cache.store.findings import Damage, VerifyReport
from mmfe_cache.store.location import true_place
from mmfe_cache.store.reader import open_cache
from mmfe_cache.store.verify import verify


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What one call of `repair_cache` did.

    Attributes:
        path: the store.
        damages: what was wrong.
        revived: samples that were skipped and whose images can be read now.
        encodings: sample-views the guide computed again.
        after: what a verification found afterwards.
    """

    path: Path
    damages: tuple[Damage, ...]
    revived: tuple[str, ...]
    encodings: int
    after: VerifyReport


def repair_cache(
    path: str | Path,
    samples: SampleSet,
    guide: Guide,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> RepairReport:
    """Verify the store at ``path`` and write again exactly what is damaged or missing.

    Samples that were skipped are taken in where their images have been mended.

    Metadata and the sample table follow from the samples, the guide and what is left of the
    store; a damaged shard of a finished view is computed again. Unfinished views are left to
    `build_cache`.

    Args:
        path: the store's folder.
        samples: the split it was built from.
        guide: the guide it was built with.
        workers: threads that read and prepare images.
        progress: where progress and messages go.

    Raises:
        CacheError: the samples or the guide are not those of the store, or its pixels changed.
        DataError: an image cannot be read any more.
    """
    path, sink = true_place(path), progress or SilentProgress()
    before = verify(path, progress=sink)
    if before.intact and not open_cache(path).skipped:
        return RepairReport(path, (), (), 0, before)
    with locked(path):
        mending = Mending(path, samples, guide)
        mending.root()
        mending.tables()
        views = mending.views()
        # Only now can every shard be judged: some may have been hidden by damaged metadata.
        mending.data(verify(path, progress=sink).damages)
        revived = mending.revive()
    # The lock is free again: the build takes it itself.
    encodings = 0
    for view in views:
        report = build_cache(
            samples,
            guide,
            [view.view],
            path,
            batch_size=view.batch_size,
            workers=workers,
            on_error="skip",
            progress=sink,
            shard_batches=mending.shard_batches,
        )
        encodings += report.encodings
    return RepairReport(path, before.damages, revived, encodings, verify(path, progress=sink))
