"""One shard file: the chunks of many samples, an identity record, and the index of the chunks.

The layout is the ``sharding_indexed`` codec of the Zarr v3 specification with the index at the
end. The identity record lies in bytes that the index does not mention, where the specification
lets a writer leave anything; it tells a shard of another store, view or place apart from ours.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from mmfe_cache.embeddings import ArrayName, embedding_shape
from mmfe_cache.errors import CacheError
from mmfe_cache.store.storage import Storage

ABSENT = 2**64 - 1
"""Offset and length of a chunk that is not there, as the Zarr specification writes it."""

CRC_BYTES = 4
ALIGNMENT = 64
IDENTITY_BYTES = 64
_MAGIC = b"mmfeshrd"
_IDENTITY = struct.Struct("<8sIQ16s16sI4x")


@dataclass(frozen=True, slots=True)
class ShardPlace:
    """Which shard a file must be.

    Attributes:
        store: the store's id.
        view: the view's name.
        array: the kind of embedding.
        number: K, the shard that holds samples K * shard_samples onwards.
        count: how many samples those are.
    """

    store: str
    view: str
    array: ArrayName
    number: int
    count: int

    @property
    def file(self) -> str:
        """The file's name inside its array's folder."""
        return f"c.{self.number}.0" if self.array == "answer" else f"c.{self.number}.0.0"

    @property
    def binding(self) -> bytes:
        """16 bytes that no other array of no other store shares."""
        text = "\n".join((self.store, self.view, self.array))
        return hashlib.blake2b(text.encode(), digest_size=16).digest()

    def __str__(self) -> str:
        """For messages: view, array and number."""
        return f"shard {self.number} of {self.view}/{self.array}"


@dataclass(frozen=True, slots=True)
class ShardShape:
    """How many bytes lie where in a shard file.

    Attributes:
        array: the kind of embedding.
        dim: D, the width of an embedding.
        slots: chunks a whole shard has room for (``shard_samples``).
    """

    array: ArrayName
    dim: int
    slots: int

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one sample's float16 values, without the checksum."""
        return 2 * int(np.prod(embedding_shape(self.array, self.dim)))

    @property
    def sealed_bytes(self) -> int:
        """Bytes of one sample's values and their checksum: a chunk, as Zarr sees it."""
        return self.chunk_bytes + CRC_BYTES

    @property
    def index_bytes(self) -> int:
        """Bytes of the index with its own checksum."""
        return 16 * self.slots + CRC_BYTES

    @property
    def stride(self) -> int:
        """Bytes between the beginnings of two samples' chunks."""
        # Chunks begin at multiples of a cache line: copying them is then some 5 % faster.
        return -(-self.sealed_bytes // ALIGNMENT) * ALIGNMENT

    @property
    def tail_bytes(self) -> int:
        """Bytes of the identity record and the index: the end of every shard file."""
        return IDENTITY_BYTES + self.index_bytes

    def file_bytes(self, count: int) -> int:
        """Bytes of a shard file with places for ``count`` samples."""
        return count * self.stride + self.tail_bytes


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """What the tail of a shard file says.

    Attributes:
        present: (count,) False for a sample that was skipped: zeros lie in its place.
        pixels: the digest of the samples' pixel digests.
        batch: how many samples the guide encoded together for this shard.
    """

    present: NDArray[np.bool_]
    pixels: bytes
    batch: int


def encode(
    shape: ShardShape,
    place: ShardPlace,
    rows: NDArray[np.float16],
    present: NDArray[np.bool_],
    pixels: bytes,
    batch: int,
) -> list[bytes]:
    """The content of a shard file.

    Args:
        shape: the layout.
        place: which shard it is.
        rows: (count, ...) the samples' embeddings.
        present: (count,) False where a sample has none: the index leaves its chunk out, and
            zeros keep its place, so that every sample's place follows from its number.
        pixels: the 16-byte digest of the pixel digests of these samples.
        batch: how many samples the guide encoded together for this shard.
    """
    parts: list[bytes] = []
    index = np.full((shape.slots, 2), ABSENT, dtype="<u8")
    for slot in range(place.count):
        if present[slot]:
            data = np.ascontiguousarray(rows[slot], dtype="<f2").tobytes()
            index[slot] = slot * shape.stride, shape.sealed_bytes
            parts += (data, crc(data), bytes(shape.stride - shape.sealed_bytes))
        else:
            parts.append(bytes(shape.stride))
    identity = _IDENTITY.pack(_MAGIC, 1, place.number, place.binding, pixels, batch)
    table = index.tobytes()
    return [*parts, identity, crc(identity), table, crc(table)]


def crc(data: bytes | NDArray[np.uint8]) -> bytes:
    """The little-endian crc32c of ``data``."""
    return google_crc32c.value(data).to_bytes(CRC_BYTES, "little")  # pyright: ignore[reportArgumentType]


def chunk_intact(shape: ShardShape, chunk: NDArray[np.uint8], present: bool) -> bool:
    """Whether one sample's place, ``shape.stride`` bytes, is as it was written."""
    if not present:
        return not chunk.any()
    size = shape.chunk_bytes
    sealed = chunk[size : shape.sealed_bytes].tobytes()
    return crc(chunk[:size]) == sealed and not chunk[shape.sealed_bytes :].any()


def read_index(storage: Storage, shape: ShardShape, place: ShardPlace, folder: str) -> ShardIndex:
    """Read and check the tail of the shard file at ``place`` in its array's ``folder``.

    Raises:
        CacheError: the file is truncated, damaged, or another shard's.
        FileNotFoundError: it is not there.
    """
    file = f"{folder}/{place.file}"
    tail, size = storage.tail(file, shape.tail_bytes)
    return decode_index(shape, place, tail, size, f"{storage.location}/{file}")


def decode_index(
    shape: ShardShape, place: ShardPlace, tail: NDArray[np.uint8], size: int, where: str
) -> ShardIndex:
    """Check a shard's tail and read where its chunks lie.

    Args:
        shape: the layout.
        place: which shard the file must be.
        tail: the file's last ``shape.tail_bytes`` bytes.
        size: the whole file's size in bytes.
        where: what an error message calls the file.

    Raises:
        CacheError: the file is truncated, damaged, or another shard's.
    """
    identity, table = tail[:IDENTITY_BYTES], tail[IDENTITY_BYTES:]
    damaged = CacheError(
        f"{where} is damaged or truncated: {place} has no valid index",
        got=f"{size} bytes",
        remedy="mmfe cache repair recomputes this shard",
    )
    if len(tail) != shape.tail_bytes:
        raise damaged
    for block in (identity, table):
        if crc(block[:-CRC_BYTES]) != block[-CRC_BYTES:].tobytes():
            raise damaged
    magic, _, number, binding, pixels, batch = _IDENTITY.unpack(identity[:-CRC_BYTES].tobytes())
    if (magic, number, binding) != (_MAGIC, place.number, place.binding):
        raise CacheError(
            f"{where} is not {place} of this store",
            got=f"shard {number} of this array"
            if binding == place.binding
            else "a shard of another array, view or store",
            expected=f"{place} of store {place.store}",
            remedy="mmfe cache repair recomputes this shard",
        )
    entries = table[:-CRC_BYTES].view("<u8").reshape(-1, 2)
    present = entries[:, 0] != ABSENT
    expected = np.full_like(entries, ABSENT)
    expected[present, 0] = np.flatnonzero(present) * shape.stride
    expected[present, 1] = shape.sealed_bytes
    if (
        size != shape.file_bytes(place.count)
        or not np.array_equal(entries, expected)
        or present[place.count :].any()
    ):
        raise damaged
    return ShardIndex(present[: place.count], pixels, batch)
