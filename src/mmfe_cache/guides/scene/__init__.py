"""The guide ``scene``: degradations seen by a small network that comes with the package.

`guide` is what encodes pictures and how its weights lie on disk, `network` what it runs; `data` and
`training` make its weights, `evaluation` measures any guide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from mmfe_cache.guides.scene.guide import SceneEstimate, SceneGuide

__all__ = ["SceneEstimate", "SceneGuide"]

# Imported when asked for: a wrong path is said before torch is imported.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "guide": ["SceneEstimate", "SceneGuide"],
    },
)
