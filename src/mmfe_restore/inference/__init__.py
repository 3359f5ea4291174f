"""Restoring photographs: in memory, from file to file, with the guide beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from mmfe_restore.inference.files import (
        Restored as Restored,
        RestoreReport as RestoreReport,
        restore_files as restore_files,
    )
    from mmfe_restore.inference.guide import (
        PhotographGuide as PhotographGuide,
        guide_for as guide_for,
    )
    from mmfe_restore.inference.image import restore_image as restore_image


# Imported when asked for: a wrong path is said before torch is imported.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "files": ["RestoreReport", "Restored", "restore_files"],
        "guide": ["PhotographGuide", "guide_for"],
        "image": ["restore_image"],
    },
)
