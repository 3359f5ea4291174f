"""Students: small networks that give another guide's embeddings from the picture alone.

`network` is what they compute, `guide` how one lies on disk and encodes pictures, `training` how it
learns from a teacher's cache, `agreement` how near it comes.
"""

from __future__ import annotations

from .guide import StudentGuide

__all__ = ["StudentGuide"]
