"""What a verification found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.errors import CacheError
from mmfe_cache.store.sample_table import without_crc
from mmfe_cache.store.storage import Storage

Kind = Literal["data", "pixels", "source"]


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong with a store.

    Attributes:
        file: the file, relative to the store; the image's name where its pixels changed.
        problem: what is wrong, in words.
        samples: ids of the samples it touches; empty where it touches none or all.
        shard: the number of the shard whose data it spoils; None for metadata.
        group: the view's folder whose shard that is; None for the sample table.
        kind: ``"pixels"`` where the shard and the table name different pixels and either may be
            wrong, ``"source"`` for a source image, ``"data"`` for all else.
    """

    file: str
    problem: str
    samples: tuple[str, ...] = ()
    shard: int | None = None
    group: str | None = None
    kind: Kind = "data"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        path: the store.
        files: how many files were read.
        chunks: how many sample chunks were checked.
        bytes: how many bytes were read.
        pixels: how many source images were hashed again.
        damages: what is wrong, in the order of the files.
        unfinished: views that a build has still to finish; that is no damage.
    """

    path: str
    files: int
    chunks: int
    bytes: int
    pixels: int
    damages: tuple[Damage, ...]
    unfinished: tuple[str, ...]

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damages


class Findings:
    """Collects what a verification reads and finds.

    Args:
        storage: the store.

    Attributes:
        chunks: sample chunks checked so far.
        pixels: source images hashed so far.
        unfinished: views that are not complete.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._damages: list[Damage] = []
        self._files = self._bytes = 0
        self.chunks = self.pixels = 0
        self.unfinished: list[str] = []

    def report(self) -> VerifyReport:
        """Everything found."""
        return VerifyReport(
            path=self._storage.location,
            files=self._files,
            chunks=self.chunks,
            bytes=self._bytes,
            pixels=self.pixels,
            damages=tuple(self._damages),
            unfinished=tuple(self.unfinished),
        )

    def add(
        self,
        file: str,
        problem: str,
        samples: tuple[str, ...] = (),
        *,
        shard: int | None = None,
        group: str | None = None,
        kind: Kind = "data",
    ) -> None:
        """Note one damage; see `Damage`."""
        self._damages.append(Damage(file, problem, samples, shard, group, kind))

    def count(self, data: bytes) -> None:
        """Note that a file was read."""
        self._files, self._bytes = self._files + 1, self._bytes + len(data)

    def read(self, file: str) -> bytes:
        """Read a file of the store.

        Raises:
            CacheError: it cannot be read.
            FileNotFoundError: it is not there.
        """
        data = self._storage.read(file)
        self.count(data)
        return data

    def expect(self, file: str, content: bytes) -> None:
        """Note a file that is missing or does not hold ``content``."""
        try:
            found = self.read(file)
        except FileNotFoundError:
            self.add(file, "missing")
            return
        except CacheError as problem:
            self.add(file, f"cannot be read: {problem.got}")
            return
        if found != content:
            self.add(file, "is not what mmfe wrote")

    def sealed(self, file: str) -> NDArray[np.uint8] | None:
        """A chunk file's content, or None (and a note) where its checksum is wrong."""
        try:
            data = self.read(file)
        except FileNotFoundError:
            self.add(file, "missing")
            return None
        except CacheError as problem:
            self.add(file, f"cannot be read: {problem.got}")
            return None
        try:
            return without_crc(np.frombuffer(data, np.uint8), file)
        except CacheError:
            self.add(file, "its checksum is wrong")
            return None
