"""A node for ComfyUI: restore photographs with mmfe, guided by what they suffer from.

Link or copy this folder into ComfyUI's `custom_nodes`. A link into a clone of mmfe finds mmfe
there; elsewhere it has to be installed (requirements.txt).
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_SOURCE = _HERE.parents[1] / "src"
if importlib.util.find_spec("mmfe_restore") is None and (_SOURCE / "mmfe_restore").is_dir():
    sys.path.append(str(_SOURCE))

from .nodes import RestorePhotographs  # noqa: E402

NODE_CLASS_MAPPINGS = {"MmfeRestore": RestorePhotographs}
NODE_DISPLAY_NAME_MAPPINGS = {"MmfeRestore": "Restore photographs (mmfe)"}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
