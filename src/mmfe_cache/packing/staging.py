"""A pack on its way: tiles appended to one file, a journal of what is whole, then HDF5."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import h5py
import numpy as np

from mmfe_cache.errors import DataError
from mmfe_cache.io import write_file
from mmfe_cache.lock import same_file, try_lock

from .codec import LEVEL, PLAIN, STORED_AS, TILE, TILE_BYTES, num_tiles
from .reader import FORMAT, VERSION

_SYNC_EVERY = 32
"""Pictures between two flushes to the disk: what a power cut can cost."""


@dataclass(frozen=True, slots=True)
class Record:
    """One picture, ready to be written.

    Attributes:
        number: of the picture.
        digest: its `pixel_digest`.
        lengths: bytes of each tile; empty where tiles are not compressed.
        content: the tiles' bytes, one after another.
    """

    number: int
    digest: str
    lengths: list[int]
    content: bytes


class Staging:
    """The tiles written so far, appended to one file, and the journal of what is whole there.

    The tiles are appended as they come; HDF5 is written last, in one go, because an HDF5 file
    that is killed while it is written cannot be trusted.
    """

    def __init__(self, path: Path, plan: dict[str, Any], compress: bool) -> None:
        self._part = path.with_name(path.name + ".part")
        self._tiles = path.with_name(path.name + ".part.tiles")
        self._journal = path.with_name(path.name + ".part.journal")
        self._plan = plan
        self._compress = compress
        self.done: dict[int, dict[str, Any]] = {}
        self._pending: list[str] = []
        self._file, self._release = _open_locked(self._tiles, path)
        try:
            self._resume()
            self._end = max((e["start"] + e["length"] for e in self.done.values()), default=0)
            self._file.truncate(self._end)
        except BaseException:
            self.close()
            raise

    def _resume(self) -> None:
        head = json.dumps({"plan": zlib.crc32(json.dumps(self._plan).encode())})
        # What a power cut leaves of the journal need not be text.
        text = self._journal.read_bytes() if self._journal.exists() else b""
        lines = text.decode(errors="replace").splitlines()
        if not lines or lines[0] != head:
            # Another set, other settings or other files: what lies there is of no use.
            write_file(self._journal, head + "\n")
            return
        length = self._tiles.stat().st_size
        whole = [head]
        for line in lines[1:]:
            try:
                entry = json.loads(line)
                if entry["start"] + entry["length"] > length:
                    break
                self.done[entry["number"]] = entry
            except (ValueError, TypeError, KeyError):
                break
            whole.append(line)
        write_file(self._journal, "\n".join(whole) + "\n")

    def add(self, record: Record) -> None:
        """Append one picture's tiles."""
        self._file.write(record.content)
        entry = {
            "number": record.number,
            "start": self._end,
            "length": len(record.content),
            "digest": record.digest,
            "lengths": record.lengths,
        }
        self.done[record.number] = entry
        self._end += len(record.content)
        self._pending.append(json.dumps(entry) + "\n")
        if len(self._pending) >= _SYNC_EVERY:
            self.flush()

    def flush(self) -> None:
        """Bring tiles, then their journal entries, to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.writelines(self._pending)
            journal.flush()
            os.fsync(journal.fileno())
        self._pending.clear()

    def close(self) -> None:
        """Close the file of tiles, whatever could still be written of it, and give up the lock."""
        with suppress(OSError):
            self._file.close()
        self._release()

    def assemble(self, about: bytes, samples: bytes) -> Path:
        """Write the HDF5 file from the flushed tiles; it is whole and on the disk on return.

        The lock is kept: until the file has its name, no other run may write one in its place.
        """
        # A new file each time: HDF5 would not truncate one that a failed attempt left open.
        self._part.unlink(missing_ok=True)
        try:
            self._write(about, samples)
        except BaseException:
            self._part.unlink(missing_ok=True)  # the tiles are enough to make it again
            raise
        return self._part

    def _write(self, about: bytes, samples: bytes) -> None:
        sizes: list[tuple[int, int]] = self._plan["sizes"]
        counts = [num_tiles(*size) for size in sizes]
        first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        total = int(first[-1])
        digests = [self.done[number]["digest"] for number in range(len(sizes))]
        with _new_file(self._part) as file:
            file.attrs["format"] = FORMAT
            file.attrs["version"] = VERSION
            file.attrs["compressed"] = self._compress
            file.attrs["stored_as"] = STORED_AS if self._compress else PLAIN
            file.attrs["tile"] = TILE
            file["height"] = np.array([size[0] for size in sizes], np.int32)
            file["width"] = np.array([size[1] for size in sizes], np.int32)
            file["first_tile"] = first[:-1]
            file["bytes"] = np.array(self._plan["bytes"], np.int64)
            file["digest"] = np.array([list(bytes.fromhex(d)) for d in digests], np.uint8)
            file.create_dataset("name", data=self._plan["names"], dtype=h5py.string_dtype())
            file["about"] = np.frombuffer(about, np.uint8)
            file["samples"] = np.frombuffer(samples, np.uint8)
            if self._compress:
                self._write_deflated(file, total, first)
            else:
                self._make_raw(file, total)
        if not self._compress:
            self._fill_raw(first)
        with h5py.File(self._part, "r+", libver="latest") as file:
            file.attrs["complete"] = True
            file.attrs["file_bytes"] = 0
        # The length is known only after the last change of the metadata; writing it into an
        # attribute that is already there does not change the length again.
        length = self._part.stat().st_size
        with h5py.File(self._part, "r+", libver="latest") as file:
            file.attrs.modify("file_bytes", length)
        if self._part.stat().st_size != length:
            raise DataError(f"{self._part} changed its length while it was finished")
        with self._part.open("rb") as file:
            os.fsync(file.fileno())

    def _make_raw(self, file: h5py.File, total: int) -> None:
        # One contiguous block: tile n lies at a known place, which is what a memory map needs.
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_layout(h5py.h5d.CONTIGUOUS)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        layout.set_obj_track_times(False)  # nothing in a pack bears a time
        space = h5py.h5s.create_simple((total, TILE, TILE, 3))
        h5py.h5d.create(file.id, b"tiles", h5py.h5t.STD_U8LE, space, layout)

    def _fill_raw(self, first: np.ndarray[Any, Any]) -> None:
        with h5py.File(self._part, "r") as file:
            offset = int(cast("Any", file["tiles"]).id.get_offset())
        with self._tiles.open("rb") as tiles, self._part.open("r+b") as part:
            for number, entry in sorted(self.done.items()):
                tiles.seek(entry["start"])
                part.seek(offset + int(first[number]) * TILE_BYTES)
                part.write(tiles.read(entry["length"]))

    def _write_deflated(self, file: h5py.File, total: int, first: np.ndarray[Any, Any]) -> None:
        data = file.create_dataset(
            "tiles",
            (total, TILE, TILE, 3),
            np.uint8,
            chunks=(1, TILE, TILE, 3),
            compression="gzip",
            compression_opts=LEVEL,
        )
        with self._tiles.open("rb") as tiles:
            for number, entry in sorted(self.done.items()):
                tiles.seek(entry["start"])
                for index, length in enumerate(entry["lengths"]):
                    where = (int(first[number]) + index, 0, 0, 0)
                    data.id.write_direct_chunk(where, tiles.read(length))
        places = np.zeros((total, 2), "<u8")

        def note(chunk: Any) -> None:
            places[chunk.chunk_offset[0]] = chunk.byte_offset, chunk.size

        file.flush()
        data.id.chunk_iter(note)
        file["location"] = places

    def remove(self) -> None:
        """Remove what only a stopped run needs, and what it made of it; `close` is still due."""
        if os.name == "nt":  # an open file cannot be removed there, and the lock lies beside it
            self._file.close()
        self._part.unlink(missing_ok=True)
        self._tiles.unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)


def _open_locked(tiles: Path, path: Path) -> tuple[BinaryIO, Callable[[], None]]:
    """Open the file of tiles for appending and lock it; the file, and what gives the lock back."""
    while True:
        file = tiles.open("ab")
        try:
            release = _lock(file, path)
            # A run that ended between our opening and locking it has removed it.
            if same_file(tiles, file.fileno()):
                return file, release
        except BaseException:
            file.close()
            raise
        file.close()
        release()


def _lock(file: BinaryIO, path: Path) -> Callable[[], None]:
    """Keep a second run away from the same pack; the lock ends with the process, however it ends.

    Returns:
        What gives the lock back.

    Raises:
        DataError: another process is writing it.
    """
    try:
        release = try_lock(file.fileno(), Path(file.name))
    except OSError:
        return lambda: None  # a file system without locks
    if release is None:
        raise DataError(
            f"another process is writing the pack {path}",
            remedy="wait until it is done, or stop it: the next run goes on where it stopped",
        )
    return release


def _new_file(path: Path) -> h5py.File:
    """A new HDF5 file for writing, whose root group bears no time: before HDF5 2 it would."""
    created = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    created.set_obj_track_times(False)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_LATEST, h5py.h5f.LIBVER_LATEST)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)  # as h5py.File does
    return h5py.File(h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, created, access))
