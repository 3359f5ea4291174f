"""Stage one of mmfe: samples, views, guides and the cache of what guides see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from mmfe_cache.embeddings import Embeddings as Embeddings
    from mmfe_cache.guides import load_guide as load_guide
    from mmfe_cache.store.reader import open_cache as open_cache


# Imported when asked for (PEP 562), so that `mmfe --help` and a folder listing stay fast.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "embeddings": ["Embeddings"],
        "guides": ["load_guide"],
        "store.reader": ["open_cache"],
    },
)
