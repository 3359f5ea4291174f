"""Restoring photographs: in memory, from file to file, with the guide beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from mmfe_restore.inference.files import Restored, RestoreReport, restore_files
    from mmfe_restore.inference.guide import PhotographGuide, guide_for
    from mmfe_restore.inference.image import restore_image

__all__ = [
    "PhotographGuide",
    "RestoreReport",
    "Restored",
    "guide_for",
    "restore_files",
    "restore_image",
]

# Imported when asked for: a wrong path is said before torch is imported.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "files": ["RestoreReport", "Restored", "restore_files"],
        "guide": ["PhotographGuide", "guide_for"],
        "image": ["restore_image"],
    },
)
