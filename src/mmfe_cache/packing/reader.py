"""Finding a pack and reading it: crops from the file's memory map, in any number of processes.

HDF5 opens the file once to check it and to say where the tiles lie; after that no lock of HDF5
is taken, so threads and forked workers read side by side.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from mmfe_cache.errors import DataError
from mmfe_cache.images import check_crop, pixel_digest
from mmfe_cache.progress import Progress
from mmfe_cache.samples import ImageArray, SampleSet

from .codec import (
    PLAIN,
    STORED_AS,
    TILE,
    TILE_BYTES,
    add_green,
    cut_tiles,
    inflate_rows,
    join_tiles,
    num_tiles,
)
from .samples import load_json, load_samples

FORMAT = "mmfe-pack"
"""Root attribute ``format`` of a pack."""

VERSION = 2
"""Root attribute ``version``."""

ARRAYS = ("tiles", "height", "width", "first_tile", "digest", "name", "bytes", "about", "samples")
"""The datasets of every pack."""

_FOREIGN = (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError, IndexError)
"""What h5py and NumPy raise where a file is damaged or holds other types than a pack."""

_REMEDY = "remove it and run `mmfe data pack` again"


class PackReader:
    """An open pack.

    Args:
        path: the HDF5 file.

    Attributes:
        names: each picture's path in its data set.
        bytes: (N,) each picture's file size when it was packed.
        about: the data set's name, split, layout and warnings, and the images in each folder.

    Raises:
        DataError: missing, unfinished, foreign, damaged, made of links to other files, or not to be
            opened at the moment, such as without the right to read it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with h5py.File(path, "r") as file:
                self._check(file)
                self._read_index(file)
            self._map = np.memmap(path, np.uint8, "r")
        except FileNotFoundError:
            raise DataError(f"pack {path} does not exist", remedy="mmfe data pack") from None
        except _FOREIGN as problem:
            raise _unreadable(path, problem) from problem

    def _check(self, file: h5py.File) -> None:
        attributes = dict[str, Any](file.attrs)
        known = attributes.get("format") == FORMAT
        if not known or attributes.get("version") != VERSION:
            raise DataError(
                f"{self.path} is not a pack of this version",
                got=f"format {attributes.get('format')!r}, version {attributes.get('version')}",
                expected=f"format {FORMAT!r}, version {VERSION}",
                remedy=_REMEDY if known else "move it away: it is another program's",
            )
        for name in file:
            link = file.get(name, getlink=True)
            if name not in (*ARRAYS, "location") or not _is_plain(file, name):
                raise DataError(
                    f"{self.path} holds what a pack does not hold",
                    got=f"{name}: {type(link).__name__}",
                    expected=f"plain datasets: {', '.join(ARRAYS)}",
                    remedy=_REMEDY,
                )
        missing = [name for name in ARRAYS if name not in file]
        if missing or not attributes.get("complete"):
            raise DataError(
                f"pack {self.path} is not finished",
                got=f"missing: {', '.join(missing)}" if missing else "no mark of completion",
                remedy="run the same `mmfe data pack` again",
            )

    def _read_index(self, file: h5py.File) -> None:
        self.compressed = bool(file.attrs["compressed"])
        self._height = _array(file, "height")
        self._width = _array(file, "width")
        self._first = _array(file, "first_tile")
        self._digest = _array(file, "digest")
        self.bytes = _array(file, "bytes")
        self.names: list[str] = [str(name) for name in _data(file, "name").asstr()[...]]
        self._samples = _array(file, "samples").tobytes()
        self.about: dict[str, Any] = load_json(_array(file, "about").tobytes())
        tiles = _data(file, "tiles")
        if tiles.shape[1:] != (TILE, TILE, 3) or tiles.dtype != np.uint8:
            raise ValueError(f"tiles are {tiles.shape} {tiles.dtype}")
        stored = file.attrs["stored_as"]
        if stored != (STORED_AS if self.compressed else PLAIN):
            raise ValueError(f"tiles are stored as {stored!r}")
        length = self.path.stat().st_size
        if int(cast("Any", file.attrs["file_bytes"])) != length:
            raise ValueError(f"{length} bytes, {file.attrs['file_bytes']} when it was written")
        self._check_index(file, tiles)
        self._offset = 0 if self.compressed else int(tiles.id.get_offset())
        self._locations = int(_data(file, "location").id.get_offset()) if self.compressed else 0

    def _check_index(self, file: h5py.File, tiles: Any) -> None:
        """What the index says must fit together: no crop may then read beside its picture."""
        count = len(self.names)
        columns = (self._height, self._width, self._first, self.bytes)
        if any(column.shape != (count,) or column.dtype.kind != "i" for column in columns):
            raise ValueError(f"the index does not list {count} pictures")
        if self._digest.shape != (count, 16) or self._digest.dtype != np.uint8:
            raise ValueError(f"digests are {self._digest.shape} {self._digest.dtype}")
        if count and min(self._height.min(), self._width.min()) < 1:
            raise ValueError("a picture is empty")
        rows, across = (-(-side.astype(np.int64) // TILE) for side in (self._height, self._width))
        first = np.concatenate([[0], np.cumsum(rows * across)])
        if not np.array_equal(first[:-1], self._first) or first[-1] != tiles.shape[0]:
            raise ValueError("pictures and tiles do not fit together")
        if tiles.chunks != ((1, TILE, TILE, 3) if self.compressed else None):
            raise ValueError(f"tiles lie in chunks of {tiles.chunks}")
        if self.compressed:
            places = _data(file, "location")
            if places.shape != (tiles.shape[0], 2) or places.dtype != np.dtype("<u8"):
                raise ValueError(f"places of tiles are {places.shape} {places.dtype}")
        if not {"dataset", "split", "layout", "warnings", "folders"} <= set(self.about):
            raise ValueError("it does not say what it was made from")

    def __len__(self) -> int:
        """How many pictures it holds."""
        return len(self.names)

    @property
    def made(self) -> bool:
        """Whether its pictures are made while reading where they are not packed."""
        return self.about["dataset"] == "synth"

    def size(self, number: int) -> tuple[int, int]:
        """(height, width) of a picture."""
        return int(self._height[number]), int(self._width[number])

    def digest(self, number: int) -> str:
        """The recorded `pixel_digest` of a picture."""
        return self._digest[number].tobytes().hex()

    def crop(self, number: int, top: int, left: int, height: int, width: int) -> ImageArray:
        """A window of a picture, (height, width, 3) uint8.

        Raises:
            DataError: it does not lie inside, or a compressed tile is damaged.
        """
        size = self.size(number)
        check_crop(self.names[number], size, top, left, height, width)
        first = int(self._first[number])
        if self.compressed:

            def fetch(tile: int, rows: int) -> NDArray[np.uint8]:
                return self._inflated(first + tile, rows)

            image = join_tiles(fetch, size, top, left, height, width)
            add_green(image)
            return image
        return cut_tiles(self._raw(first, num_tiles(*size)), size, top, left, height, width)

    def samples(self, root: Path) -> SampleSet:
        """The samples as `load_dataset` listed them when they were packed.

        Raises:
            DataError: their list is damaged.
        """
        path = self.path

        def picture(number: int) -> PackedSource:
            if not 0 <= number < len(self):
                raise IndexError(f"picture {number} of {len(self)}")
            return PackedSource(path, number)

        return SampleSet(
            self.about["dataset"],
            self.about["split"],
            root,
            f"{self.about['layout']} (packed)",
            load_samples(self._samples, picture),
            tuple(self.about["warnings"]),
        )

    def _raw(self, first: int, count: int) -> NDArray[np.uint8]:
        start = self._offset + first * TILE_BYTES
        return self._map[start : start + count * TILE_BYTES].reshape(count, TILE, TILE, 3)

    def _inflated(self, tile: int, rows: int) -> NDArray[np.uint8]:
        place = self._locations + 16 * tile
        start, length = (int(value) for value in self._map[place : place + 16].view("<u8"))
        try:
            return inflate_rows(self._map[start : start + length].data, rows)
        except ValueError as problem:
            raise self._damaged(tile, str(problem)) from problem

    def _damaged(self, tile: int, what: str) -> DataError:
        return DataError(f"tile {tile} of pack {self.path} is damaged", got=what, remedy=_REMEDY)

    def damaged(self, progress: Progress | None = None) -> tuple[str, ...]:
        """Read every picture; the names of those whose digest is not the recorded one."""
        bad: list[str] = []
        with (progress or Progress()).task("verifying", len(self), "pictures") as task:
            for number, name in enumerate(self.names):
                try:
                    image = self.crop(number, 0, 0, *self.size(number))
                    if pixel_digest(image) != self.digest(number):
                        bad.append(name)
                except DataError as problem:
                    bad.append(f"{name} ({problem.problem})")
                task.advance()
        return tuple(bad)


@dataclass(frozen=True, slots=True)
class PackedSource:
    """A picture in a pack; small to send to a worker, which opens the pack itself.

    Attributes:
        path: the pack.
        number: of the picture.
    """

    path: Path
    number: int

    @property
    def name(self) -> str:
        """The pack and the picture's path in its data set."""
        return f"{self.path}:{open_pack(self.path).names[self.number]}"

    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return open_pack(self.path).size(self.number)

    def read(self) -> ImageArray:
        """The whole picture, (H, W, 3) uint8."""
        pack = open_pack(self.path)
        return pack.crop(self.number, 0, 0, *pack.size(self.number))

    def read_crop(self, top: int, left: int, height: int, width: int) -> ImageArray:
        """The window that starts at (top, left), (height, width, 3) uint8."""
        return open_pack(self.path).crop(self.number, top, left, height, width)


@lru_cache(maxsize=16)
def open_pack(path: Path) -> PackReader:
    """Open a pack, once per process: one that is replaced meanwhile is read as it was.

    Raises:
        DataError: see `PackReader`.
    """
    return PackReader(path)


def forget_packs() -> None:
    """Close the packs of this process; one that was written anew is then read anew."""
    open_pack.cache_clear()


def _unreadable(path: Path, problem: Exception) -> DataError:
    # What the system refuses bears a number; what HDF5 finds wrong in a file does not.
    if isinstance(problem, OSError) and problem.errno is not None:
        return DataError(
            f"pack {path} cannot be opened",
            got=os.strerror(problem.errno),
            expected="a file that may be read, and that no other program is writing",
            remedy="see to that and run the same command again; nothing says that it is damaged",
        )
    return DataError(
        f"pack {path} cannot be read",
        got=str(problem),
        expected="a whole HDF5 file that `mmfe data pack` wrote",
        remedy=_REMEDY,
    )


def is_foreign(path: Path) -> bool:
    """Whether a file is an HDF5 file of another program; a damaged one counts as a pack."""
    try:
        with h5py.File(path, "r") as file:
            return bool(file.attrs.get("format") != FORMAT)
    except _FOREIGN:
        return False


def _is_plain(file: h5py.File, name: str) -> bool:
    """Whether it is a dataset in this very file; a link to another file is not followed."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return False
    item: Any = file[name]
    return isinstance(item, h5py.Dataset) and not item.external and not item.is_virtual


def _data(file: h5py.File, name: str) -> Any:
    return cast("Any", file[name])


def _array(file: h5py.File, name: str) -> NDArray[Any]:
    return np.asarray(_data(file, name)[...])


FOLDER = "packed"
"""The folder under a data set's root in which packs lie."""


def pack_path(root: Path, dataset: str, split: str, shared: bool = False) -> Path:
    """``root/packed/<split>.h5``.

    Args:
        root: the data set's root.
        dataset: its name.
        split: train or test.
        shared: for a root that serves several data sets: ``<dataset>-<split>.h5``.
    """
    return root / FOLDER / (f"{dataset}-{split}.h5" if shared else f"{split}.h5")


def pack_places(root: Path, dataset: str, split: str) -> tuple[Path, ...]:
    """Where a split's pack may lie, in the order in which it is looked for.

    Under ``root/packed``, else in ``root`` itself: a folder of packs is a data set's root too, so
    that packs may lie on another disk than the files they were made from.
    """
    written = [pack_path(root, dataset, split, shared) for shared in (True, False)]
    return (*written, *(root / path.name for path in written))
