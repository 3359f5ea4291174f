"""Memory handed back to the system early: rows of a map that was used up, and free blocks.

A map of a large photograph is written and read from the top to the bottom. What the system has
handed out and nobody has written takes no memory, so where one map is made of another row by row,
both together need only as much as the larger one, if the rows that were read go back at once.
Other systems than Linux keep them until their tensor is gone.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from typing import Any

from torch import Tensor

_MADV_DONTNEED = 4
"""Linux's number; `mmap.MADV_DONTNEED` is missing where Python was built without it."""


def give_back(rows: Tensor) -> None:
    """Hand back the memory of rows that nobody will read again, as far as it is whole pages.

    Args:
        rows: a contiguous part of a map; its numbers are lost.
    """
    libc = _libc()
    if libc is None or rows.device.type != "cpu" or not rows.numel():
        return
    assert rows.is_contiguous()
    start = -(-rows.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (rows.data_ptr() + rows.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > start:
        # A system that refuses keeps the memory until the tensor is gone: nothing else changes.
        libc.madvise(start, end - start, _MADV_DONTNEED)


def give_back_free() -> None:
    """Hand back what was freed and the C library keeps for later; where it can be asked to."""
    libc = _libc()
    if libc is not None and hasattr(libc, "malloc_trim"):  # glibc alone has it
        libc.malloc_trim(0)


@cache
def _libc() -> Any:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return libc
