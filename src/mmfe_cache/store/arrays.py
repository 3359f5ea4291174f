"""Gathering from one array of a store: map a shard once, then copy samples out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import google_crc32c
import numpy as np
import torch
from numpy.typing import NDArray

from mmfe_cache.embeddings import TOKEN_SLICES, ArrayName, Tokens
from mmfe_cache.errors import CacheError
from mmfe_cache.store import documents
from mmfe_cache.store.mapping import Region
from mmfe_cache.store.metadata import StoreMetadata, ViewMetadata
from mmfe_cache.store.shards import CRC_BYTES, decode_index
from mmfe_cache.store.storage import Storage

Check = Literal["first", "always", "never"]
"""When a chunk's crc32c is compared: once per process, at every read, or never."""

# What is known of a sample's chunk. The order matters: `_MAPPED` and above can be copied.
_UNKNOWN, _ABSENT, _REMOTE, _MAPPED, _CHECKED = range(5)


@dataclass(frozen=True, slots=True)
class _Layout:
    """One selection of tokens: its shape, its columns, and all of it in the mapped region."""

    item: tuple[int, ...]
    columns: slice
    values: NDArray[Any] | None


class ArrayReader:
    """Gathers from the shards of one array.

    No locks: a lock that another thread holds at a fork would never be released in the child.
    Two threads may do the same step twice, with the same result.

    Args:
        storage: the store's files.
        store: what the root says.
        view: what the view's group says.
        group: the view's folder.
        name: the kind of embedding.
        id_of: a sample's id, for messages.

    Raises:
        CacheError: the array's metadata is missing, damaged, or another store's.
    """

    def __init__(
        self,
        storage: Storage,
        store: StoreMetadata,
        view: ViewMetadata,
        group: str,
        name: ArrayName,
        id_of: Callable[[int], str],
    ) -> None:
        self._storage, self._store, self._id_of = storage, store, id_of
        self._view, self._folder = view.view, f"{group}/{name}"
        self._name: ArrayName = name
        self._shape = store.shape(name)
        self._layouts: dict[Tokens, _Layout] = {}
        file = f"{self._folder}/{documents.NAME}"
        where = f"{storage.location}/{file}"
        try:
            found = storage.read(file)
        except FileNotFoundError:
            raise gone(where) from None
        documents.parse(found, where)
        if found != documents.serialise(view.array_documents(store)[name]):
            raise CacheError(
                f"{where} does not belong to this store", remedy="mmfe cache repair rewrites it"
            )
        self._state = np.zeros(store.num_samples, np.uint8)
        self._region: Region | None = None
        if storage.local(file) is not None:
            try:
                size = self._shape.file_bytes(store.shard_samples)
                self._region = Region(store.num_shards, size)
            except OSError:
                # Too few addresses (a limit such as `ulimit -v`): read by ranges instead.
                self._region = None
        self._chunks = self._values = None
        if self._region is not None:
            strides = (self._region.stride, self._shape.stride)
            places = (store.num_shards, store.shard_samples)
            # Every chunk with its checksum, and its values alone.
            self._chunks = self._region.view(
                np.uint8, (*places, self._shape.stride), (*strides, 1), 0
            )
            self._values = self._region.view(
                np.float16, (*places, self._shape.chunk_bytes // 2), (*strides, 2), 0
            )

    def gather(
        self,
        indices: NDArray[np.int64],
        numbers: NDArray[np.int64],
        slots: NDArray[np.int64],
        tokens: Tokens,
        check: Check,
        pin: bool,
    ) -> torch.Tensor:
        """Copy B samples into a fresh tensor; see `CacheReader.gather`.

        Args:
            indices: (B,) sample indices, known to be in range.
            numbers: (B,) the shards they are in.
            slots: (B,) their places in the shards.
            tokens: which tokens; ``answer`` has only one.
            check: when to compare checksums.
            pin: whether to use page-locked memory, where a GPU is there to profit.

        Returns:
            float16 (B, T, D), or (B, D) for ``answer``.
        """
        layout = self._layouts.get(tokens)
        if layout is None:
            layout = self._layouts[tokens] = self._layout(tokens)
        known = int(self._state[indices].min(initial=_CHECKED))
        if check == "always" or known < (_MAPPED if check == "never" else _CHECKED):
            self._prepare(indices, numbers, check)
            known = int(self._state[indices].min(initial=_CHECKED))
        shape = (len(indices), *layout.item)
        if known < _MAPPED or layout.values is None:
            rows = self._fetch(indices, layout.columns, check)
        elif pin and torch.cuda.is_available():
            tensor = torch.empty(shape, dtype=torch.float16, pin_memory=True)
            places = zip(tensor.numpy().reshape(len(indices), -1), numbers, slots, strict=True)
            for row, number, slot in places:
                row[:] = layout.values[number, slot]
            return tensor
        else:
            # One NumPy call for the whole batch, whichever shards it comes from.
            rows = layout.values[numbers, slots]
        return torch.from_numpy(rows.reshape(shape))

    def _layout(self, tokens: Tokens) -> _Layout:
        window = slice(0, 1) if self._name == "answer" else TOKEN_SLICES[tokens]
        count, width = window.stop - window.start, self._store.dim
        columns = slice(window.start * width, window.stop * width)
        item = (width,) if self._name == "answer" else (count, width)
        return _Layout(item, columns, None if self._values is None else self._values[..., columns])

    def _prepare(
        self, indices: NDArray[np.int64], numbers: NDArray[np.int64], check: Check
    ) -> None:
        """Open the shards of a batch and compare the checksums that are due."""
        for number in np.unique(numbers[self._state[indices] == _UNKNOWN]).tolist():
            self._open(number)
        known = self._state[indices]
        if (known == _ABSENT).any():
            index = int(indices[known == _ABSENT][0])
            raise CacheError(
                f"{self._id_of(index)!r} was skipped when {self._storage.location} was built",
                expected="a sample with embeddings; the reader's `skipped` lists those without",
                remedy="mend its image and build the cache again, or leave the sample out",
            )
        if check == "never" or self._chunks is None:
            return
        due = known >= _MAPPED if check == "always" else known == _MAPPED
        for index in np.unique(indices[due]).tolist():
            number, slot = divmod(index, self._shape.slots)
            self._compare(self._chunks[number, slot], index)
            self._state[index] = _CHECKED

    def _open(self, number: int) -> None:
        """Check one shard's tail and map it; note what is known of its samples."""
        place = self._store.place(self._view, self._name, number)
        file = f"{self._folder}/{place.file}"
        where = f"{self._storage.location}/{file}"
        try:
            tail, size = self._storage.tail(file, self._shape.tail_bytes)
            present = decode_index(self._shape, place, tail, size, where).present
            path = self._storage.local(file)
            mapped = (
                self._region is not None and path is not None and self._region.put(number, path)
            )
        except FileNotFoundError:
            raise gone(where) from None
        start = number * self._shape.slots
        self._state[start : start + place.count] = np.where(
            present, _MAPPED if mapped else _REMOTE, _ABSENT
        )

    def _fetch(
        self, indices: NDArray[np.int64], columns: slice, check: Check
    ) -> NDArray[np.float16]:
        """Read chunks that cannot be mapped: all in one request."""
        stride, slots = self._shape.stride, self._shape.slots
        wanted: list[tuple[str, int, int]] = []
        for index in indices.tolist():
            number, slot = divmod(index, slots)
            file = self._store.place(self._view, self._name, number).file
            wanted.append((f"{self._folder}/{file}", slot * stride, (slot + 1) * stride))
        rows = np.empty((len(indices), columns.stop - columns.start), np.float16)
        chunks = self._storage.ranges(wanted) if wanted else []
        for row, index, chunk in zip(rows, indices.tolist(), chunks, strict=True):
            # What was fetched just now was never compared before.
            if check != "never":
                self._compare(chunk, index)
            row[:] = chunk[: self._shape.chunk_bytes].view(np.float16)[columns]
        return rows

    def _compare(self, chunk: NDArray[np.uint8], index: int) -> None:
        size = self._shape.chunk_bytes
        found = google_crc32c.value(chunk[:size])  # pyright: ignore[reportArgumentType]
        stored = int.from_bytes(chunk[size : size + CRC_BYTES].tobytes(), "little")
        if len(chunk) != self._shape.stride or found != stored:
            raise CacheError(
                f"the {self._name} embedding of {self._id_of(index)!r} at {self._view} "
                f"in {self._storage.location} is damaged",
                got=f"crc32c {found:08x}",
                expected=f"crc32c {stored:08x}",
                remedy=f"mmfe cache repair {self._storage.location}",
            )


def gone(where: str) -> CacheError:
    """The error for a file of a finished view that is not there."""
    return CacheError(f"{where} is missing", remedy="mmfe cache repair writes it again")
