"""The store: a sharded Zarr v3 cache of embeddings, read at the speed of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from mmfe_cache.store.location import store_path as store_path
    from mmfe_cache.store.reader import CacheReader as CacheReader, open_cache as open_cache


# Imported when asked for: the reader needs torch, and the command line reads the format's limits
# before it knows whether anything will be read.
__getattr__, __dir__ = lazy_names(
    __name__, {"reader": ["CacheReader", "open_cache"], "location": ["store_path"]}
)
