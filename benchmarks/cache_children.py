"""Builds in forked children that the fault experiments disturb."""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist

from benchmarks.cache_support import TinyGuide, sample_set, tree
from mmfe_cache.embeddings import Embeddings
from mmfe_cache.errors import MmfeError
from mmfe_cache.precompute import build_cache
from mmfe_cache.precompute.distributed import Ranks
from mmfe_cache.store.format import StoreMetadata
from mmfe_cache.store.writer import CacheWriter

VIEWS = ("whole@16", "crop@8")
COUNT, BATCH, SHARD = 26, 2, 4


class SharedCount:
    """A number that forked processes raise together."""

    def __init__(self, slots: int = 4) -> None:
        self._cells = np.frombuffer(mmap.mmap(-1, 8 * slots), np.int64)

    def add(self, slot: int, amount: int) -> None:
        """Raise one process's cell."""
        self._cells[slot] += amount

    @property
    def total(self) -> int:
        """The sum of all cells."""
        return int(self._cells.sum())


class CountingGuide(TinyGuide):
    """A tiny guide whose calls are counted across processes."""

    def __init__(self, counter: SharedCount, slot: int = 0, seconds: float = 0.0) -> None:
        super().__init__(seconds=seconds)
        self._counter, self._slot = counter, slot

    def encode_prepared(self, prepared: Sequence[Any]) -> Embeddings:
        """Encode and count."""
        found = super().encode_prepared(prepared)
        self._counter.add(self._slot, len(prepared))
        return found


def run_build(path: Path, guide: TinyGuide, ranks: Ranks | None = None) -> Any:
    """The one build that all experiments disturb."""
    return build_cache(
        sample_set(COUNT),
        guide,
        VIEWS,
        path,
        batch_size=BATCH,
        shard_samples=SHARD,
        workers=2,
        ranks=ranks,
    )


def in_child(work: Callable[[], None]) -> int:
    """Start ``work`` in a forked child that ends with it, and return its process id.

    The child exits with 0, or an `MmfeError`'s code plus 100, or 99 for any other error.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        work()
        code = 0
    except MmfeError as problem:
        code = 100 + problem.exit_code
    except BaseException as problem:
        print(f"child: {type(problem).__name__}: {problem}", file=sys.stderr)
    finally:
        os._exit(code)


def wait(pid: int) -> int:
    """A child's exit code; minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def start_ranks(path: Path, size: int, guides: Sequence[TinyGuide], meeting: Path) -> list[int]:
    """Start ``size`` processes that build ``path`` together; they meet in a file."""

    def member(rank: int) -> None:
        store = dist.FileStore(str(meeting), size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
        run_build(path, guides[rank], Ranks(rank, size, "cpu"))
        dist.destroy_process_group()

    return [in_child(lambda rank=rank: member(rank)) for rank in range(size)]


def reference(folder: Path) -> tuple[dict[str, bytes], float]:
    """An undisturbed store's files, and the seconds it took."""
    began = time.monotonic()
    run_build(folder / "reference.zarr", TinyGuide(seconds=0.002))
    return tree(folder / "reference.zarr"), time.monotonic() - began


def missing_encodings(path: Path) -> int:
    """Sample-views that a resumed build has to compute."""
    if not (path / "zarr.json").exists():
        return COUNT * len(VIEWS)
    metadata = StoreMetadata.read((path / "zarr.json").read_bytes(), str(path))
    writer = CacheWriter(path, metadata)
    return sum(
        metadata.count(number)
        for view in VIEWS
        for number in writer.missing_shards(view.replace("@", "-"), view)
    )
