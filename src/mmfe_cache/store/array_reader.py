"""Gathering from one array of a store: map a shard once, then copy samples out of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import google_crc32c
import numpy as np
from numpy.typing import DTypeLike, NDArray

from mmfe_cache.embeddings import TOKEN_SLICES, ArrayName, Tokens
from mmfe_cache.errors import CacheError, UsageError
from mmfe_cache.machine import has_gpu
from mmfe_cache.store.format import (
    METADATA_FILE,
    StoreMetadata,
    ViewMetadata,
    missing_file,
    parse_document,
    serialise,
)
from mmfe_cache.store.location import repair_command
from mmfe_cache.store.shards import CRC_BYTES, ShardIndex, read_index
from mmfe_cache.store.storage import Region, Storage

if TYPE_CHECKING:
    import torch

Check = Literal["first", "always", "never"]
"""When a chunk's crc32c is compared: once per process, at every read, or never."""

CHECKS: tuple[Check, ...] = get_args(Check)

# What is known of a sample's chunk. The order matters: `_MAPPED` and above can be copied.
_UNKNOWN, _ABSENT, _REMOTE, _MAPPED, _CHECKED = range(5)


@dataclass(frozen=True, slots=True)
class _Layout:
    """One selection of tokens: one sample's shape, its columns, and every sample's values.

    Attributes:
        item: (T, D), or (D,) for ``answer``.
        columns: the window in a chunk's values.
        values: (shards, slots, *item) over the mapped region; None where nothing can be mapped.
    """

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
        pixels_of: the digest of the pixels that a shard must have been computed from.

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
        pixels_of: Callable[[int], bytes],
    ) -> None:
        self._storage, self._store = storage, store
        self._id_of, self._pixels_of = id_of, pixels_of
        self._view, self._folder = view.view, f"{group}/{name}"
        self._name: ArrayName = name
        self._shape = store.shape(name)
        self._layouts: dict[Tokens, _Layout] = {}
        file = f"{self._folder}/{METADATA_FILE}"
        where = f"{storage.location}/{file}"
        try:
            found = storage.read(file)
        except FileNotFoundError:
            raise missing_file(where) from None
        parse_document(found, where)
        if found != serialise(view.array_documents(store)[name]):
            raise CacheError(
                f"{where} does not belong to this store", remedy="mmfe cache repair rewrites it"
            )
        self._state = np.zeros(store.num_samples, np.uint8)
        self._region: Region | None = None
        self._chunks: NDArray[np.uint8] | None = None
        if storage.local(file) is not None:
            # Too few addresses (a limit such as `ulimit -v`): read by ranges instead.
            with contextlib.suppress(OSError):
                self._region = Region(store.num_shards, store.shard_samples * self._shape.stride)
                self._chunks = self._over(self._region, np.uint8, (self._shape.stride,))

    def gather(
        self,
        indices: NDArray[np.int64],
        tokens: Tokens,
        check: Check,
        pin: bool,
    ) -> torch.Tensor:
        """Copy B samples into a fresh tensor; see `CacheReader.gather`.

        Args:
            indices: (B,) sample indices.
            tokens: which tokens; ``answer`` has only one.
            check: when to compare checksums.
            pin: whether to use page-locked memory, where a GPU is there to profit.

        Returns:
            float16 (B, T, D), or (B, D) for ``answer``.

        Raises:
            CacheError: a chunk is damaged, or a sample was skipped.
            UsageError: an index or a selection of tokens does not exist.
        """
        import torch  # not above: whoever only asks what a cache is does not wait for it

        # Between two batches, megabytes of embeddings drive this code out of the CPU's caches.
        # So what matters here is how few functions a batch runs through, not how much they do.
        layout = self._layouts.get(tokens) or self._layout(tokens)
        if check != "first" or not self._all_checked(indices):
            self._prepare(indices, check)
            if layout.values is None or self._state.take(indices).min(initial=_CHECKED) < _MAPPED:
                return self._fetch(indices, layout, check)
        if layout.values is None:
            return self._fetch(indices, layout, check)
        if pin and has_gpu():
            shape = (len(indices), *layout.item)
            tensor = torch.empty(shape, dtype=torch.float16, pin_memory=True)
            for row, index in zip(tensor.numpy(), indices.tolist(), strict=True):
                row[:] = layout.values[divmod(index, self._shape.slots)]
            return tensor
        # One NumPy call for the whole batch, whichever shards it comes from. Torch's own
        # `index_select` would use threads, which do not survive a fork.
        return torch.from_numpy(layout.values[divmod(indices, self._shape.slots)])

    def _all_checked(self, indices: NDArray[np.int64]) -> bool:
        """Whether every index exists and its chunk is mapped and was compared before."""
        try:
            known = self._state.take(indices).tobytes()
        except IndexError:
            return False
        # A negative index would count from the end.
        return known.count(_CHECKED) == len(known) and np.minimum.reduce(indices, initial=0) == 0

    def _layout(self, tokens: Tokens) -> _Layout:
        if tokens not in TOKEN_SLICES:
            raise UsageError("no such tokens", got=repr(tokens), expected=", ".join(TOKEN_SLICES))
        window = slice(0, 1) if self._name == "answer" else TOKEN_SLICES[tokens]
        count, width = window.stop - window.start, self._store.dim
        columns = slice(window.start * width, window.stop * width)
        item = (width,) if self._name == "answer" else (count, width)
        values = None
        if self._region is not None:
            values = self._over(self._region, np.float16, item, 2 * columns.start)
        return self._layouts.setdefault(tokens, _Layout(item, columns, values))

    def _over(
        self, region: Region, dtype: DTypeLike, item: tuple[int, ...], offset: int = 0
    ) -> NDArray[Any]:
        """(shards, slots, *item): every sample's place, from a byte of its chunk on."""
        return region.view(
            dtype,
            (self._store.num_shards, self._shape.slots, *item),
            (region.stride, self._shape.stride, *np.empty(item, dtype).strides),
            offset,
        )

    def _prepare(self, indices: NDArray[np.int64], check: Check) -> None:
        """Open the shards of a batch and compare the checksums that are due."""
        # As unsigned numbers, negative indices are too large as well.
        if indices.view(np.uint64).max(initial=0) >= self._store.num_samples:
            raise UsageError(
                "sample indices are out of range",
                got=f"{indices.min()} to {indices.max()}",
                expected=f"values 0 to {self._store.num_samples - 1}",
            )
        unknown = indices[self._state[indices] == _UNKNOWN]
        for number in np.unique(unknown // self._shape.slots).tolist():
            self._open(number)
        known = self._state[indices]
        if (known == _ABSENT).any():
            index = int(indices[known == _ABSENT][0])
            raise CacheError(
                f"{self._id_of(index)!r} was skipped when {self._storage.location} was built",
                expected="a sample with embeddings; the reader's `skipped` lists those without",
                remedy="repair its image, then: mmfe cache repair PATH; or leave the sample out",
            )
        if check == "never" or self._chunks is None:
            return
        due = known >= _MAPPED if check == "always" else known == _MAPPED
        for index in np.unique(indices[due]).tolist():
            self._compare(self._chunks[divmod(index, self._shape.slots)], index)
            self._state[index] = _CHECKED

    def _open(self, number: int) -> None:
        """Check one shard's tail and map it; note what is known of its samples."""
        place = self._store.place(self._view, self._name, number)
        file = f"{self._folder}/{place.file}"
        where = f"{self._storage.location}/{file}"
        try:
            index = read_index(self._storage, self._shape, place, self._folder)
            self._check_pixels(number, index, where)
            size = self._shape.file_bytes(place.count)
            path = self._storage.local(file)
            mapped = (
                self._region is not None
                and path is not None
                and self._region.put(number, path, size)
            )
        except FileNotFoundError:
            raise missing_file(where) from None
        except OSError as problem:
            raise CacheError(
                f"cannot read {where}",
                got=problem.strerror or str(problem),
                remedy=f"check the disk and the permissions; mmfe cache verify "
                f"{self._storage.location} reads everything",
            ) from problem
        start = number * self._shape.slots
        self._state[start : start + place.count] = np.where(
            index.present, _MAPPED if mapped else _REMOTE, _ABSENT
        )

    def _check_pixels(self, number: int, index: ShardIndex, where: str) -> None:
        # A store of the same samples and guide has the same id, whatever its pictures were.
        expected = self._pixels_of(number)
        if index.pixels != expected:
            raise CacheError(
                f"{where} was computed from other pixels than the sample table says",
                got=f"pixels {index.pixels.hex()}",
                expected=f"pixels {expected.hex()}",
                remedy="mmfe cache repair decides by the images which of the two is right",
            )

    def _fetch(self, indices: NDArray[np.int64], layout: _Layout, check: Check) -> torch.Tensor:
        """Read chunks that cannot be mapped: all in one request."""
        import torch

        stride, slots = self._shape.stride, self._shape.slots
        wanted: list[tuple[str, int, int]] = []
        for index in indices.tolist():
            number, slot = divmod(index, slots)
            file = self._store.place(self._view, self._name, number).file
            wanted.append((f"{self._folder}/{file}", slot * stride, (slot + 1) * stride))
        rows = np.empty((len(indices), *layout.item), np.float16)
        chunks = self._storage.ranges(wanted) if wanted else []
        for row, index, chunk in zip(rows, indices.tolist(), chunks, strict=True):
            # What was fetched just now was never compared before.
            if check != "never":
                self._compare(chunk, index)
            values = chunk[: self._shape.chunk_bytes].view(np.float16)
            row[:] = values[layout.columns].reshape(layout.item)
        return torch.from_numpy(rows)

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
                remedy=repair_command(self._storage.location),
            )
