"""The sample table: ids as one UTF-8 text with offsets, and a pixel digest per sample."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.errors import CacheError, DataError
from mmfe_cache.store.format import SAMPLES, Json, StoreMetadata, missing_file, plain_array
from mmfe_cache.store.shards import CRC_BYTES, crc
from mmfe_cache.store.storage import Storage

DIGEST_BYTES = 16
"""Bytes of one pixel digest; all zero marks a sample that was skipped."""


def ids_digest(ids: Iterable[str]) -> str:
    """One digest of all ids in order."""
    state = hashlib.blake2b(digest_size=16)
    for name in ids:
        state.update(name.encode() + b"\n")
    return state.hexdigest()


def check_ids(ids: Sequence[str]) -> None:
    """Refuse ids that a table cannot hold.

    Raises:
        DataError: there are none, two are equal, or one is empty, no Unicode text, or holds a line
            break.
    """
    if not ids:
        raise DataError("there are no samples to build a cache from", remedy="mmfe data check")
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(name for name in ids if name in seen or seen.add(name))
        raise DataError("two samples have the same id", got=repr(twice))
    wrong = next((name for name in ids if not name or "\n" in name), None)
    if wrong is not None:
        raise DataError("a sample id is empty or holds a line break", got=repr(wrong))
    for name in ids:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(
                "a sample id is not text",
                got=repr(name),
                expected="a file name that is valid UTF-8",
                remedy="rename the file",
            ) from None


def table_documents(ids: Sequence[str], shard_samples: int, store: str) -> dict[str, Json]:
    """The table arrays' `zarr.json`, by array name."""
    attributes: Json = {"mmfe-cache-table": {"store": store}}
    length = sum(len(name.encode()) + 1 for name in ids)
    count = len(ids)
    return {
        "ids": plain_array([length], [length], "uint8", attributes),
        "offsets": plain_array([count + 1], [count + 1], "uint64", attributes),
        "digests": plain_array(
            [count, DIGEST_BYTES], [shard_samples, DIGEST_BYTES], "uint8", attributes
        ),
    }


def id_files(ids: Sequence[str]) -> dict[str, bytes]:
    """The data files of ``ids`` (every id and a line feed, UTF-8) and ``offsets``."""
    encoded = [name.encode() + b"\n" for name in ids]
    offsets = np.zeros(len(ids) + 1, dtype="<u8")
    np.cumsum([len(item) for item in encoded], out=offsets[1:])
    text = b"".join(encoded)
    return {"ids/c.0": with_crc(text), "offsets/c.0": with_crc(offsets.tobytes())}


def absent_rows(digests: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(n,) True where a row of (n, 16) pixel digests marks a skipped sample."""
    return digests.max(axis=1) == 0


def pixels_digest(digests: NDArray[np.uint8]) -> bytes:
    """16 bytes over the (n, 16) pixel digests of one shard's samples; a shard carries them."""
    return hashlib.blake2b(np.ascontiguousarray(digests).tobytes(), digest_size=16).digest()


def with_crc(data: bytes) -> bytes:
    """``data`` and its crc32c: the content of an unsharded chunk's file."""
    return data + crc(data)


def without_crc(
    data: NDArray[np.uint8], where: str, length: int | None = None
) -> NDArray[np.uint8]:
    """Take the crc32c off again.

    Args:
        data: a chunk file's bytes.
        where: what an error message calls the file.
        length: the bytes it must hold without the checksum.

    Raises:
        CacheError: the checksum or the length is wrong.
    """
    body = data[:-CRC_BYTES]
    wrong_length = length is not None and len(body) != length
    if wrong_length or len(data) < CRC_BYTES or crc(body) != data[-CRC_BYTES:].tobytes():
        raise CacheError(
            f"{where} is damaged or truncated",
            got=f"{len(data)} bytes",
            remedy="mmfe cache repair on the store",
        )
    return body


class StoredIds:
    """The ids of a store, read when they are first needed.

    Args:
        storage: the store's files.
        count: N.

    Raises:
        CacheError: at their first use, that they are missing or damaged.
    """

    def __init__(self, storage: Storage, count: int) -> None:
        self._storage, self._count = storage, count
        self._positions: dict[str, int] | None = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> str:
        """The id of one sample."""
        text, offsets = self._table
        return text[int(offsets[index]) : int(offsets[index + 1]) - 1].tobytes().decode()

    def all(self) -> tuple[str, ...]:
        """Every id in order."""
        return tuple(self._table[0].tobytes().decode().split("\n")[:-1])

    def find(self, ids: Sequence[str]) -> list[int | None]:
        """Where each id is; None where it is not. A few are found without reading all."""
        if self._positions is None and len(ids) * 64 < len(self):
            found = [self._search(name) for name in ids]
            # A miss is either unknown or the table is not sorted: the whole table decides.
            if None not in found:
                return list(found)
        if self._positions is None:
            self._positions = {name: index for index, name in enumerate(self.all())}
        return [self._positions.get(name) for name in ids]

    def _search(self, name: str) -> int | None:
        place = bisect_left(self, name)
        return place if place < len(self) and self[place] == name else None

    @cached_property
    def _table(self) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
        """The bytes of the array ``ids``, and (N + 1,) where each id starts."""
        parts: list[NDArray[np.uint8]] = []
        for name, length in (("ids", None), ("offsets", 8 * (self._count + 1))):
            file = f"{SAMPLES}/{name}/c.0"
            where = f"{self._storage.location}/{file}"
            try:
                parts.append(without_crc(self._storage.whole(file), where, length))
            except FileNotFoundError:
                raise missing_file(where) from None
        return parts[0], parts[1].view("<u8")


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
        body = without_crc(np.frombuffer(data, np.uint8), where, size * DIGEST_BYTES)
        return body.reshape(size, -1)[: self._store.count(number)]

    def __getitem__(self, number: int) -> bytes:
        """The digest of all of a shard's digests, which each of its files must bear.

        Raises:
            CacheError: they are missing or damaged.
        """
        if number not in self._known:
            rows = self.rows(number)
            if rows is None:
                raise missing_file(f"{self._storage.location}/{_file(number)}")
            self._known[number] = pixels_digest(rows)
        return self._known[number]


def _file(number: int) -> str:
    return f"{SAMPLES}/digests/c.{number}.0"
