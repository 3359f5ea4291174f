"""Read-only memory maps that keep no file handle open, one file or many side by side."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import weakref
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

MAX_MAPS = 48_000
"""Files this process keeps mapped at most; Linux allows 65,530 maps by default."""

HUGE = 2 << 20
"""Where a file's beginning lies at a multiple of this, the system can map it by huge pages."""

_FAILED = ctypes.c_void_p(-1).value
_MAP_FIXED = 0x10  # The same on Linux, macOS and the BSDs; Python's mmap module lacks it.
_mapped = 0


class Region:
    """A stretch of addresses with one equal place for each of many files.

    Files are mapped into their places when they are first needed; one array then spans them all,
    so that samples from any number of files are gathered by one NumPy call. `mmap.mmap` cannot
    do this, and it keeps a duplicate of the file's handle until Python 3.13.

    Args:
        places: how many files.
        place_bytes: how much of each file is mapped at most.

    Attributes:
        stride: bytes between the beginnings of two places.

    Raises:
        OSError: the system has not so many addresses, or no such maps.
    """

    def __init__(self, places: int, place_bytes: int) -> None:
        if os.name != "posix":
            raise OSError("no fixed maps on this system")
        self._place_bytes = place_bytes
        # Huge pages are worth a fifth of the time to copy a batch that lies all over a store. A
        # small file has none, and should not take the addresses of one.
        unit = HUGE if place_bytes >= HUGE else mmap.PAGESIZE
        self.stride = -(-max(1, place_bytes) // unit) * unit
        size = max(1, places) * self.stride + unit
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
        # No access and no reservation: this takes addresses, not memory.
        start = _map(None, size, 0, flags, -1)
        self._first = -start % unit
        self._address = start + self._first
        self._buffer = (ctypes.c_ubyte * size).from_address(start)
        self._held = [0]
        weakref.finalize(self._buffer, _unmap, start, size, self._held).atexit = False

    def put(self, place: int, path: str, size: int) -> bool:
        """Map the file at ``path``, or its beginning, into its place.

        Args:
            place: which place.
            path: the file.
            size: bytes it must have: reading past the end of a map would end the process.

        Returns:
            False if no more files can be mapped.

        Raises:
            OSError: the file cannot be opened, or has another size.
        """
        global _mapped
        if _mapped >= MAX_MAPS:
            return False
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _expect(handle, size, path)
            address = self._address + place * self.stride
            length = min(size, self._place_bytes)
            _map(address, length, mmap.PROT_READ, mmap.MAP_SHARED | _MAP_FIXED, handle)
        except OSError as problem:
            if problem.errno == errno.ENOMEM:  # The system allows fewer maps than usual.
                return False
            raise
        finally:
            os.close(handle)
        _mapped += 1
        self._held[0] += 1
        return True

    def view(
        self, dtype: DTypeLike, shape: tuple[int, ...], strides: tuple[int, ...], offset: int
    ) -> NDArray[Any]:
        """An array from byte ``offset`` on; only mapped places of it may be touched."""
        data = np.ndarray(shape, dtype, memoryview(self._buffer), self._first + offset, strides)
        data.flags.writeable = False
        return data


def map_file(path: str) -> NDArray[np.uint8]:
    """Map one whole file; it is unmapped with the last array that views it.

    Where it cannot be mapped, as an empty file cannot, it is read into memory.

    Raises:
        OSError: it cannot be opened or read.
    """
    with contextlib.suppress(OSError):
        size = os.stat(path).st_size  # noqa: PTH116
        region = Region(1, size)
        if region.put(0, path, size):
            return region.view(np.uint8, (size,), (1,), 0)
    return np.fromfile(path, np.uint8)


def _expect(handle: int, size: int, path: str) -> None:
    found = os.fstat(handle).st_size
    if found != size:
        raise OSError(f"{path} has {found} bytes, {size} were expected")


def _map(address: int | None, size: int, access: int, flags: int, handle: int) -> int:
    found = _libc().mmap(address, size, access, flags, handle, 0)
    if found is None or found == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(found)


def _unmap(address: int, size: int, held: list[int]) -> None:
    global _mapped
    _libc().munmap(address, size)
    _mapped -= held[0]


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int64,
    )
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return libc
