"""The sample table: ids as one UTF-8 text with offsets, and a pixel digest per sample."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.errors import CacheError, DataError
from mmfe_cache.store import documents
from mmfe_cache.store.documents import Json
from mmfe_cache.store.shards import CRC_BYTES, crc

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
                "a sample id is no text",
                got=repr(name),
                expected="a file name that is valid UTF-8",
                remedy="rename the file",
            ) from None


def documents_of(ids: Sequence[str], shard_samples: int, store: str) -> dict[str, Json]:
    """The table arrays' `zarr.json`, by array name."""
    attributes: Json = {"mmfe-cache-table": {"store": store}}
    length = sum(len(name.encode()) + 1 for name in ids)
    count = len(ids)
    return {
        "ids": documents.plain_array([length], [length], "uint8", attributes),
        "offsets": documents.plain_array([count + 1], [count + 1], "uint64", attributes),
        "digests": documents.plain_array(
            [count, DIGEST_BYTES], [shard_samples, DIGEST_BYTES], "uint8", attributes
        ),
    }


def id_files(ids: Sequence[str]) -> dict[str, bytes]:
    """The data files of ``ids`` (every id and a line feed, UTF-8) and ``offsets``."""
    encoded = [name.encode() + b"\n" for name in ids]
    offsets = np.zeros(len(ids) + 1, dtype="<u8")
    np.cumsum([len(item) for item in encoded], out=offsets[1:])
    text = b"".join(encoded)
    return {"ids/c.0": sealed(text), "offsets/c.0": sealed(offsets.tobytes())}


def absent_rows(digests: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(n,) True where a row of (n, 16) pixel digests marks a skipped sample."""
    return digests.max(axis=1) == 0


def pixels_digest(digests: NDArray[np.uint8]) -> bytes:
    """16 bytes over the (n, 16) pixel digests of one shard's samples; a shard carries them."""
    return hashlib.blake2b(np.ascontiguousarray(digests).tobytes(), digest_size=16).digest()


def sealed(data: bytes) -> bytes:
    """``data`` and its crc32c: the content of an unsharded chunk's file."""
    return data + crc(data)


def unsealed(data: NDArray[np.uint8], where: str, length: int | None = None) -> NDArray[np.uint8]:
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
