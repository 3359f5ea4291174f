"""Where a store's bytes come from: mapped local files, or an address that fsspec knows."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import sys
import weakref
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mmfe_cache.errors import CacheError, UsageError

Bytes = NDArray[np.uint8]
T = TypeVar("T")


class Storage:
    """Read-only access to the files of one store; file names use forward slashes.

    This one is of a local folder; `RemoteStorage` is of an address.

    Args:
        root: the store's folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    @property
    def location(self) -> str:
        """The path or address, for messages."""
        return self._root

    def read(self, name: str) -> bytes:
        """A whole file.

        Raises:
            FileNotFoundError: it is not there.
        """
        with self._errors_named(name):
            return Path(self._root, name).read_bytes()

    def tail(self, name: str, count: int) -> tuple[Bytes, int]:
        """A file's last ``count`` bytes (fewer if it is shorter), and its size.

        Raises:
            FileNotFoundError: it is not there.
        """
        path = Path(self._root, name)
        with self._errors_named(name), path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - count))
            data = file.read(count)
        return np.frombuffer(data, np.uint8), size

    def whole(self, name: str) -> Bytes:
        """A whole file, mapped into memory where that is possible; no handle stays open.

        Raises:
            FileNotFoundError: it is not there.
        """
        with self._errors_named(name):
            return map_file(f"{self._root}/{name}")

    def local(self, name: str) -> str | None:
        """The file's path, where it has one and can be mapped."""
        return f"{self._root}/{name}"

    def ranges(self, wanted: list[tuple[str, int, int]]) -> list[Bytes]:
        """Parts of files, each given as name, first byte and end, in the order asked for.

        They are read without mapping.
        """
        parts: list[Bytes] = []
        for name, start, stop in wanted:
            with self._errors_named(name), Path(self._root, name).open("rb") as file:
                file.seek(start)
                parts.append(np.frombuffer(file.read(stop - start), np.uint8))
        return parts

    def folders(self) -> list[str]:
        """The names of the folders at the top, sorted."""
        with self._errors_named(""):
            return sorted(entry.name for entry in os.scandir(self._root) if entry.is_dir())

    @contextlib.contextmanager
    def _errors_named(self, name: str) -> Generator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except NotADirectoryError as problem:
            # A file lies where one of its folders should be: it is not there either.
            raise FileNotFoundError(problem.errno, problem.strerror, name) from problem
        except OSError as problem:
            raise CacheError(
                f"cannot read {self._root}/{name}".rstrip("/"),
                got=problem.strerror or str(problem),
                remedy="check the disk and the permissions; mmfe cache verify reads everything",
            ) from problem


class RemoteStorage(Storage):
    """A store at an address.

    Args:
        address: such as ``s3://bucket/caches/train.zarr``.

    Raises:
        UsageError: fsspec, or its driver for such addresses, is not installed.
    """

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        self._connect()

    def _connect(self) -> None:
        self._process = os.getpid()
        try:
            import fsspec  # pyright: ignore[reportMissingTypeStubs]

            self._driver: Any
            self._driver, self._root = fsspec.core.url_to_fs(self._address)
        except (ImportError, ValueError) as problem:
            raise UsageError(
                f"cannot open {self._address}",
                got=str(problem),
                remedy="in mmfe's checkout: pip install -c constraints.txt -e '.[remote]'",
            ) from problem

    @property
    def _system(self) -> Any:
        # Many drivers work in a thread of their own, which a forked process does not inherit.
        if self._process != os.getpid():
            self._connect()
        return self._driver

    @property
    def location(self) -> str:
        """The address."""
        return self._address

    def read(self, name: str) -> bytes:
        """A whole file."""
        return self._try(lambda: self._system.cat_file(f"{self._root}/{name}"))

    def tail(self, name: str, count: int) -> tuple[Bytes, int]:
        """A file's end and its size."""
        path = f"{self._root}/{name}"
        size = int(self._try(lambda: self._system.size(path)))
        data = self._try(lambda: self._system.cat_file(path, start=max(0, size - count), end=size))
        return np.frombuffer(data, np.uint8)[-count:], size

    def whole(self, name: str) -> Bytes:
        """A whole file, fetched."""
        return np.frombuffer(self.read(name), np.uint8)

    def local(self, name: str) -> str | None:
        """Nothing here can be mapped."""
        return None

    def ranges(self, wanted: list[tuple[str, int, int]]) -> list[Bytes]:
        """Parts of files, fetched together where the driver can."""
        parts = self._try(
            lambda: self._system.cat_ranges(
                [f"{self._root}/{name}" for name, _, _ in wanted],
                [start for _, start, _ in wanted],
                [stop for _, _, stop in wanted],
                on_error="raise",
            )
        )
        # Some web servers know no ranges, and send the whole file.
        return [
            np.frombuffer(part[start:stop] if len(part) > stop - start else part, np.uint8)
            for part, (_, start, stop) in zip(parts, wanted, strict=True)
        ]

    def folders(self) -> list[str]:
        """The names of the folders at the top, sorted."""
        listed = self._try(lambda: self._system.ls(self._root, detail=True))
        return sorted(
            entry["name"].rstrip("/").rsplit("/", 1)[-1]
            for entry in listed
            if entry["type"] == "directory"
        )

    def files(self) -> dict[str, int]:
        """Every file's size in bytes, by name."""

        def sizes() -> dict[str, int]:
            found = self._system.find(self._root, detail=True)
            listed = {path: entry.get("size") for path, entry in sorted(found.items())}
            # A web server's listing has none.
            lacking = [path for path, size in listed.items() if size is None]
            if lacking:
                listed |= zip(lacking, self._system.sizes(lacking), strict=True)
            prefix = len(self._root.rstrip("/")) + 1
            return {path[prefix:]: int(size) for path, size in listed.items()}

        return self._try(sizes)

    def _try(self, fetch: Callable[[], T]) -> T:
        try:
            return fetch()
        except FileNotFoundError:
            raise
        except Exception as problem:
            # Every driver has errors of its own: no narrower class covers them.
            raise CacheError(
                f"cannot read {self._address}",
                got=f"{type(problem).__name__}: {problem}",
                remedy="check the address, the network and the credentials",
            ) from problem


def exists(storage: Storage, name: str) -> bool:
    """Whether a file is there, readable or not."""
    try:
        storage.tail(name, 1)
    except FileNotFoundError:
        return False
    except CacheError:
        return True
    return True


def open_storage(path: str | Path) -> Storage:
    """The files of the store at a local path, or at an address such as ``s3://bucket/a.zarr``.

    Raises:
        UsageError: fsspec, or its driver for such addresses, is not installed.
    """
    if "://" not in str(path):
        return Storage(Path(path))
    return RemoteStorage(str(path))


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
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _no_reserve()
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
        handle = os.open(path, os.O_RDONLY)
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


def _no_reserve() -> int:
    # Python's mmap module lacks it before 3.13, and every system has a number of its own.
    numbers = {"linux": 0x4000, "darwin": 0x40}
    return getattr(mmap, "MAP_NORESERVE", numbers.get(sys.platform, 0))


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
