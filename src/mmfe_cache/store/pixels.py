"""Which pixels a store was computed from, as its sample table says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.errors import CacheError
from mmfe_cache.store import table
from mmfe_cache.store.metadata import SAMPLES, StoreMetadata
from mmfe_cache.store.storage import Storage


class StoredPixels:
    """The pixel digests of a store, read shard by shard when they are first needed.

    Args:
        storage: the store's files.
        store: what the root says.
    """

    def __init__(self, storage: Storage, store: StoreMetadata) -> None:
        self._storage, self._store = storage, store
        self._known: dict[int, bytes] = {}

    def rows(self, number: int) -> NDArray[np.uint8] | None:
        """(n, 16) the digests of one shard's samples; None where none were written yet.

        Raises:
            CacheError: they are damaged.
        """
        try:
            data = self._storage.read(_file(number))
        except FileNotFoundError:
            return None
        size = self._store.shard_samples
        where = f"{self._storage.location}/{_file(number)}"
        body = table.unsealed(np.frombuffer(data, np.uint8), where, size * table.DIGEST_BYTES)
        return body.reshape(size, -1)[: self._store.count(number)]

    def __getitem__(self, number: int) -> bytes:
        """The digest of all of a shard's digests, which each of its files must bear.

        Raises:
            CacheError: they are missing or damaged.
        """
        if number not in self._known:
            rows = self.rows(number)
            if rows is None:
                raise CacheError(
                    f"{self._storage.location}/{_file(number)} is missing",
                    remedy="mmfe cache repair writes it again",
                )
            self._known[number] = table.pixels_digest(rows)
        return self._known[number]


def _file(number: int) -> str:
    return f"{SAMPLES}/digests/c.{number}.0"
