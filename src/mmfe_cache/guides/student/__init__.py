"""Students: small networks that give another guide's embeddings from the picture alone.

`network` is what they compute, `guide` how one lies on disk and encodes pictures, `data` what it
learns from, `training` how, `agreement` how near it comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from mmfe_cache.guides.student.guide import StudentGuide

__all__ = ["StudentGuide"]

# Imported when asked for: a wrong path is said before torch is imported.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "guide": ["StudentGuide"],
    },
)
