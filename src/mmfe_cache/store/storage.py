"""Where a store's bytes come from: a local folder, or an address that fsspec knows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.errors import CacheError, UsageError
from mmfe_cache.store.mmap import map_file

Bytes = NDArray[np.uint8]
T = TypeVar("T")


class Storage(Protocol):
    """Read-only access to the files of one store; file names use forward slashes."""

    @property
    def location(self) -> str:
        """The path or address, for messages."""
        ...

    def read(self, name: str) -> bytes:
        """A whole file.

        Raises:
            FileNotFoundError: it is not there.
        """
        ...

    def tail(self, name: str, count: int) -> tuple[Bytes, int]:
        """A file's last ``count`` bytes (fewer if it is shorter), and its size.

        Raises:
            FileNotFoundError: it is not there.
        """
        ...

    def whole(self, name: str) -> Bytes:
        """A whole file, mapped into memory where that is possible.

        Raises:
            FileNotFoundError: it is not there.
        """
        ...

    def local(self, name: str) -> str | None:
        """The file's path, where it has one and can be mapped."""
        ...

    def ranges(self, wanted: list[tuple[str, int, int]]) -> list[Bytes]:
        """Parts of files, each given as name, first byte and end, in the order asked for."""
        ...

    def folders(self) -> list[str]:
        """The names of the folders at the top, sorted."""
        ...


class LocalStorage:
    """A store in a local folder.

    Args:
        root: the store's folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    @property
    def location(self) -> str:
        """The store's folder."""
        return self._root

    def read(self, name: str) -> bytes:
        """A whole file."""
        with self._errors_named(name):
            return Path(self._root, name).read_bytes()

    def tail(self, name: str, count: int) -> tuple[Bytes, int]:
        """A file's end and its size."""
        with self._errors_named(name):
            handle = os.open(f"{self._root}/{name}", os.O_RDONLY)
            try:
                size = os.fstat(handle).st_size
                data = os.pread(handle, count, max(0, size - count))
            finally:
                os.close(handle)
        return np.frombuffer(data, np.uint8), size

    def whole(self, name: str) -> Bytes:
        """Map a whole file; no handle stays open."""
        with self._errors_named(name):
            return map_file(f"{self._root}/{name}")

    def local(self, name: str) -> str | None:
        """The file's path."""
        return f"{self._root}/{name}"

    def ranges(self, wanted: list[tuple[str, int, int]]) -> list[Bytes]:
        """Parts of files, read without mapping."""
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


class RemoteStorage:
    """A store at an address; implements `Storage`.

    Args:
        address: such as ``s3://bucket/caches/train.zarr``.

    Raises:
        UsageError: fsspec, or its driver for such addresses, is not installed.
    """

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        try:
            import fsspec  # pyright: ignore[reportMissingTypeStubs]

            self._system: Any
            self._system, self._root = fsspec.core.url_to_fs(self._address)
        except (ImportError, ValueError) as problem:
            raise UsageError(
                f"cannot open {address}",
                got=str(problem),
                remedy="in mmfe's checkout: pip install -c constraints.txt '.[remote]'",
            ) from problem

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
        return np.frombuffer(data, np.uint8), size

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
        return [np.frombuffer(part, np.uint8) for part in parts]

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
        found = self._try(lambda: self._system.find(self._root, detail=True))
        prefix = len(self._root.rstrip("/")) + 1
        return {path[prefix:]: int(entry["size"]) for path, entry in sorted(found.items())}

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
        return LocalStorage(Path(path))
    return RemoteStorage(str(path))
