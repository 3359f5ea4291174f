"""Where a store's bytes come from: a local folder, or an address that fsspec knows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.errors import CacheError
from mmfe_cache.store.mapping import map_file

Bytes = NDArray[np.uint8]


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
        with self._said(name):
            return Path(self._root, name).read_bytes()

    def tail(self, name: str, count: int) -> tuple[Bytes, int]:
        """A file's end and its size."""
        with self._said(name):
            handle = os.open(f"{self._root}/{name}", os.O_RDONLY)
            try:
                size = os.fstat(handle).st_size
                data = os.pread(handle, count, max(0, size - count))
            finally:
                os.close(handle)
        return np.frombuffer(data, np.uint8), size

    def whole(self, name: str) -> Bytes:
        """Map a whole file; no handle stays open."""
        with self._said(name):
            return map_file(f"{self._root}/{name}")

    def local(self, name: str) -> str | None:
        """The file's path."""
        return f"{self._root}/{name}"

    def ranges(self, wanted: list[tuple[str, int, int]]) -> list[Bytes]:
        """Parts of files, read without mapping."""
        parts: list[Bytes] = []
        for name, start, stop in wanted:
            with self._said(name), Path(self._root, name).open("rb") as file:
                file.seek(start)
                parts.append(np.frombuffer(file.read(stop - start), np.uint8))
        return parts

    def folders(self) -> list[str]:
        """The names of the folders at the top, sorted."""
        with self._said(""):
            return sorted(entry.name for entry in os.scandir(self._root) if entry.is_dir())

    @contextlib.contextmanager
    def _said(self, name: str) -> Generator[None]:
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
    from mmfe_cache.store.remote import RemoteStorage

    return RemoteStorage(str(path))
