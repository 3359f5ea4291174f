"""Reading a cache: open it once, gather embeddings by the batch at the speed of memory."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmfe_cache.embeddings import ARRAY_NAMES, ArrayName, Embeddings, Tokens
from mmfe_cache.errors import CacheError, UsageError
from mmfe_cache.names import first_few
from mmfe_cache.store import shards
from mmfe_cache.store.array_reader import CHECKS, ArrayReader, Check
from mmfe_cache.store.format import (
    METADATA_FILE,
    SAMPLES,
    StoreMetadata,
    ViewMetadata,
    missing_file,
)
from mmfe_cache.store.location import no_root
from mmfe_cache.store.sample_table import DIGEST_BYTES, StoredIds, StoredPixels, absent_rows
from mmfe_cache.store.storage import Storage, exists, open_storage
from mmfe_cache.views import group_name

if TYPE_CHECKING:
    import torch


class CacheReader:
    """One opened store.

    Safe to share between threads, to inherit by fork and to send to a spawned process (which
    opens the store anew).

    Args:
        storage: where the bytes are.
        path: what the store is called in messages.

    Attributes:
        path: the store's path or address.
        metadata: what the root says.
        view_metadata: every view's metadata by name, unfinished views included.
    """

    def __init__(self, storage: Storage, path: str | Path) -> None:
        self.path = path
        self._storage = storage
        try:
            root = storage.read(METADATA_FILE)
        except FileNotFoundError:
            raise no_root(storage, path) from None
        self.metadata = StoreMetadata.read(root, str(path))
        self.view_metadata: dict[str, ViewMetadata] = {}
        self._groups: dict[str, str] = {}
        self._nameless: set[str] = set()
        for name in storage.folders():
            if name != SAMPLES:
                self._open_view(name)
        self._names = StoredIds(storage, len(self))
        self._arrays: dict[tuple[str, ArrayName], ArrayReader] = {}
        self._pixels = StoredPixels(storage, self.metadata)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by place: maps do not travel between processes."""
        return (open_cache, (self.path,))

    def __len__(self) -> int:
        """N, the samples of the split, skipped ones included."""
        return self.metadata.num_samples

    @property
    def views(self) -> tuple[str, ...]:
        """The finished views."""
        return tuple(name for name, view in self.view_metadata.items() if view.complete)

    @property
    def dim(self) -> int:
        """D, the width of the embeddings."""
        return self.metadata.dim

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return self.metadata.dataset

    @property
    def split(self) -> str:
        """The split: ``"train"`` or ``"test"``."""
        return self.metadata.split

    @property
    def guide(self) -> str:
        """The guide's name."""
        return self.metadata.guide

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that changes this store's embeddings, as flat dotted names."""
        return self.metadata.identity()

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Every sample's id, in the order of the indices."""
        return self._names.all()

    @cached_property
    def pixel_digests(self) -> NDArray[np.uint8]:
        """(N, 16) blake2b of every sample's pixels; zero where it was skipped or not yet read."""
        size = self.metadata.shard_samples
        digests = np.zeros((len(self), DIGEST_BYTES), np.uint8)
        for number in range(self.metadata.num_shards):
            rows = self._pixels.rows(number)
            if rows is not None:
                digests[number * size : (number + 1) * size] = rows
        return digests

    def pixel_digests_of(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, 16) rows of `pixel_digests`, without reading those of other shards."""
        found = np.zeros((len(indices), DIGEST_BYTES), np.uint8)
        numbers, slots = np.divmod(indices, self.metadata.shard_samples)
        for number in np.unique(numbers).tolist():
            rows, here = self._pixels.rows(number), numbers == number
            if rows is not None:
                found[here] = rows[slots[here]]
        return found

    @cached_property
    def skipped(self) -> tuple[str, ...]:
        """Ids of samples that could not be read when the cache was built."""
        if not self.views:
            return ()
        return tuple(self.ids[i] for i in np.flatnonzero(absent_rows(self.pixel_digests)))

    def index_of(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Where samples are.

        Args:
            ids: B sample ids.

        Returns:
            (B,) indices for `gather`.

        Raises:
            CacheError: some are not in this store. Those that were skipped when it was built are:
                `skipped` lists them, and `gather` refuses them.
        """
        found = self._names.find(ids)
        missing = [name for name, index in zip(ids, found, strict=True) if index is None]
        if missing:
            raise CacheError(
                f"the cache {self.path} does not hold {len(missing)} of these {len(ids)} samples",
                got=first_few([repr(name) for name in missing], 3),
                expected=f"samples of {self.dataset}/{self.split}, such as {self._names[0]!r}",
                remedy=f"mmfe cache build --dataset {self.dataset} --split {self.split}"
                " in a new place, or give the cache that belongs to this data",
            )
        return np.array(found, dtype=np.int64)

    def gather(
        self,
        indices: ArrayLike,
        view: str,
        arrays: Sequence[ArrayName] = ARRAY_NAMES,
        tokens: Tokens = "grid",
        check: Check = "first",
        pin: bool = False,
    ) -> Embeddings:
        """Copy the embeddings of B samples into fresh tensors.

        Args:
            indices: (B,) sample indices in any order, repeats allowed.
            view: the view's name, such as ``"whole@128"``.
            arrays: which kinds to read; the others stay None.
            tokens: which of the 17 stored tokens of ``image`` and ``joint`` to read.
            check: compare each chunk's crc32c the ``first`` time this process reads it,
                ``always``, or ``never``.
            pin: put the tensors into page-locked memory, for asynchronous copies to a GPU.

        Returns:
            float16 CPU tensors ``image`` (B, T, D), ``joint`` (B, T, D), ``answer`` (B, D),
            T = 16 for ``grid``, 1 for ``mean``, 17 for ``all``; and their ``view``.

        Raises:
            CacheError: the view is not (completely) there, a chunk is damaged, a sample was
                skipped, or the store changed under the reader.
            UsageError: an index, array or token selection does not exist.
        """
        try:
            where = np.asarray(indices)
        except ValueError:  # Lists of different lengths.
            where = np.asarray(indices, object)
        if where.dtype != np.int64 or where.ndim != 1:
            where = _as_indices(where)
        if check not in CHECKS:
            raise UsageError("no such check", got=repr(check), expected=", ".join(CHECKS))
        result: dict[str, torch.Tensor] = {}
        for name in arrays:
            array = self._arrays.get((view, name)) or self._array(view, name)
            result[name] = array.gather(where, tokens, check, pin)
        return Embeddings.of(result, view)

    def _array(self, view: str, name: ArrayName) -> ArrayReader:
        if name not in ARRAY_NAMES:
            raise UsageError("no such array", got=name, expected=", ".join(ARRAY_NAMES))
        group = self.group(view)
        found = ArrayReader(
            self._storage,
            self.metadata,
            self.view_metadata[view],
            group,
            name,
            self._names.__getitem__,
            self._pixels.__getitem__,
        )
        return self._arrays.setdefault((view, name), found)

    def group(self, view: str) -> str:
        """The folder of a finished view, inside the store.

        Raises:
            CacheError: the view is not there, not finished, or has lost its metadata.
        """
        known = self.view_metadata.get(view)
        if known is not None and known.complete:
            return self._groups[view]
        if (folder := group_name(view)) in self._nameless:
            raise missing_file(f"{self.path}/{folder}/{METADATA_FILE}")
        state = "is not finished in" if known is not None else "is not in"
        raise CacheError(
            f"the view {view} {state} the cache {self.path}",
            got=f"finished views: {', '.join(self.views) or 'none'}",
            expected=view,
            remedy=f"mmfe cache build --dataset {self.dataset} --split {self.split} "
            f"--guide {self.guide} --views {view}",
        )

    def shard_batches(self, view: str) -> dict[int, int]:
        """How many samples the guide encoded together, by shard; reads every shard's index.

        Fewer than the view's ``batch_size`` where memory ran out. Shards that are not there, or
        damaged, are left out.
        """
        found: dict[int, int] = {}
        shape, folder = self.metadata.shape("answer"), f"{self._groups[view]}/answer"
        for number in range(self.metadata.num_shards):
            place = self.metadata.place(view, "answer", number)
            with contextlib.suppress(CacheError, FileNotFoundError):
                found[number] = shards.read_index(self._storage, shape, place, folder).batch
        return found

    def _open_view(self, group: str) -> None:
        name = f"{group}/{METADATA_FILE}"
        try:
            data = self._storage.read(name)
        except FileNotFoundError:
            # One that has lost its metadata, or a folder that someone else put there.
            arrays = (f"{group}/{name}/{METADATA_FILE}" for name in ARRAY_NAMES)
            if any(exists(self._storage, file) for file in arrays):
                self._nameless.add(group)
            return
        view = ViewMetadata.read(data, f"{self.path}/{name}", self.metadata.id)
        view.check_folder(group, str(self.path))
        self.view_metadata[view.view] = view
        self._groups[view.view] = group


def open_cache(path: str | Path) -> CacheReader:
    """Open the store at ``path``.

    Args:
        path: a local folder, or an address that fsspec knows, such as ``s3://bucket/a.zarr``.

    Raises:
        CacheError: there is none, it is damaged, or another version of mmfe wrote it.
    """
    return CacheReader(open_storage(path), path)


def _as_indices(given: NDArray[Any]) -> NDArray[np.int64]:
    # An empty list becomes an array of floats; any other float, or a mask, is a mistake.
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise UsageError(
            "sample indices are out of range: they are not a list of whole numbers",
            got=f"{given.dtype} of shape {given.shape}",
            expected="integers of shape (B,)",
        )
    if given.size and given.max() > np.iinfo(np.int64).max:
        raise UsageError("sample indices are out of range", got=f"{given.max()}")
    return given.astype(np.int64)
