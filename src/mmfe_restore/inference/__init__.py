"""Restoring photographs: in memory, from file to file, with the guide beside."""

from __future__ import annotations

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
