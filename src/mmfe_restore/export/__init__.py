"""Networks for other programs: ONNX, one safetensors file with its guide, `torch.export`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from mmfe_restore.export.files import (
        Exported as Exported,
        check_target as check_target,
        export_model as export_model,
    )
    from mmfe_restore.export.guided import GuidedRestorer as GuidedRestorer


# Imported when asked for: a wrong path is said before torch is imported.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "files": ["Exported", "check_target", "export_model"],
        "guided": ["GuidedRestorer"],
    },
)
