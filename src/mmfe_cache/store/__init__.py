"""The store: a sharded Zarr v3 cache of embeddings, read at the speed of memory."""

from mmfe_cache.store.location import store_path
from mmfe_cache.store.reader import CacheReader, open_cache

__all__ = ["CacheReader", "open_cache", "store_path"]
