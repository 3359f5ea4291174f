"""Finding samples by id."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.errors import CacheError
from mmfe_cache.store import table
from mmfe_cache.store.metadata import SAMPLES
from mmfe_cache.store.storage import Storage


class StoredIds:
    """The ids of a store, read when they are first needed.

    Args:
        storage: the store's files.
        count: N.
    """

    def __init__(self, storage: Storage, count: int) -> None:
        self._storage, self._count = storage, count

    def __getitem__(self, index: int) -> str:
        """The id of one sample."""
        return self.table[index]

    @cached_property
    def table(self) -> IdTable:
        """All ids.

        Raises:
            CacheError: they are missing or damaged.
        """
        parts: list[NDArray[np.uint8]] = []
        for name in ("ids", "offsets"):
            file = f"{SAMPLES}/{name}/c.0"
            where = f"{self._storage.location}/{file}"
            try:
                whole = self._storage.whole(file)
            except FileNotFoundError:
                raise CacheError(
                    f"{where} is missing", remedy="mmfe cache repair writes it again"
                ) from None
            length = 8 * (self._count + 1) if name == "offsets" else None
            parts.append(table.unsealed(whole, where, length))
        return IdTable(parts[0], parts[1].view("<u8"))


class IdTable:
    """Finds samples by id without reading all ids where they are sorted.

    Args:
        text: the bytes of the array ``ids``.
        offsets: (N + 1,) where each id starts.
    """

    def __init__(self, text: NDArray[np.uint8], offsets: NDArray[np.uint64]) -> None:
        self._text = text
        self._offsets = offsets
        self._positions: dict[str, int] | None = None

    def __len__(self) -> int:
        """N."""
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> str:
        """The id of one sample."""
        start, stop = int(self._offsets[index]), int(self._offsets[index + 1])
        return self._text[start : stop - 1].tobytes().decode()

    def all(self) -> tuple[str, ...]:
        """Every id in order."""
        return tuple(self._text.tobytes().decode().split("\n")[:-1])

    def find(self, ids: Sequence[str]) -> list[int | None]:
        """Where each id is; None where it is not."""
        if self._positions is None and len(ids) * 64 < len(self):
            found = [self._search(name) for name in ids]
            # A miss is either unknown or the table is not sorted: the whole table decides.
            if None not in found:
                return list(found)
        if self._positions is None:
            self._positions = {name: index for index, name in enumerate(self.all())}
        return [self._positions.get(name) for name in ids]

    def _search(self, name: str) -> int | None:
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self[middle] < name:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self) and self[low] == name else None
