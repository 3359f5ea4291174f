"""Writing a pack: one HDF5 file a split, resumable picture by picture, verified by digest."""

from __future__ import annotations

import errno
import os
import shutil
import time
import zlib
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmfe_cache.errors import DataError
from mmfe_cache.images import FileSource, pixel_digest
from mmfe_cache.io import format_bytes
from mmfe_cache.names import first_few
from mmfe_cache.progress import Progress
from mmfe_cache.samples import PixelSource, SampleSet

from .codec import TILE_BYTES, deflate_tiles, num_tiles, split_tiles
from .reader import VERSION, PackReader, forget_packs
from .samples import PictureList, dump_about, dump_samples
from .staging import Record, Staging


@dataclass(frozen=True, slots=True)
class PackReport:
    """What `pack` did.

    Attributes:
        path: the pack.
        samples: how many samples it serves.
        pictures: how many pictures it holds.
        reused: pictures that an earlier, stopped run had written.
        source_bytes: bytes of the packed files.
        pack_bytes: bytes of the pack.
        seconds: how long it took.
    """

    path: Path
    samples: int
    pictures: int
    reused: int
    source_bytes: int
    pack_bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        ratio = self.pack_bytes / max(1, self.source_bytes)
        return {**asdict(self), "path": str(self.path), "ratio": ratio}


def pack(
    samples: SampleSet,
    path: Path,
    compress: bool = False,
    progress: Progress | None = None,
    *,
    workers: int = 2,
    verify: bool = True,
) -> PackReport:
    """Pack every picture of a split into one HDF5 file.

    Each distinct picture is stored once, in tiles; noise, windows and synthetic weather stay
    recipes over it. Until everything is written and read back, ``path`` does not exist; a stopped
    run leaves ``path.part`` and its journal, from which the same call goes on.

    Args:
        samples: from `load_dataset` on the unpacked folder.
        path: the pack; an existing one is replaced when the new one is whole.
        compress: deflate the tiles' differences, losslessly (see `codec`).
        progress: where to report.
        workers: threads that decode and compress.
        verify: read every picture back and compare its digest.

    Raises:
        DataError: a picture cannot be read, two of a pair differ in size, there is no room for a
            plain pack, or what was written reads back differently.
        OSError: the disk is full; ``filename`` is the pack's. The same call goes on later.
    """
    started = time.monotonic()
    progress = progress or Progress()
    pictures = PictureList()
    description = dump_samples(samples, pictures)
    about = dump_about(samples, pictures)
    sources = pictures.sources
    names = [_name_in(samples.root, source) for source in sources]
    sizes = _sizes(sources, progress)
    _check_pairs(samples, pictures, sizes)
    files = [s.path.stat() if isinstance(s, FileSource) else None for s in sources]
    source_bytes = [0 if file is None else file.st_size for file in files]
    plan = {
        "version": VERSION,
        "compress": compress,
        "names": names,
        "sizes": sizes,
        "bytes": source_bytes,
        "changed": [0 if file is None else file.st_mtime_ns for file in files],
        "description": zlib.crc32(description + about),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(Staging(path, plan, compress)) as staging, _naming_a_full_disk(path):
        reused = len(staging.done)
        todo = [number for number in range(len(sources)) if number not in staging.done]
        if not compress:
            _check_room(path, sizes, todo)
        try:
            with progress.task("packing", len(sources), "pictures") as task:
                task.advance(reused)
                for record in _tiled(sources, todo, sizes, compress, workers):
                    staging.add(record)
                    task.advance()
        finally:
            # Also when it is stopped: what was tiled so far is what the next run starts from.
            staging.flush()
        part = staging.assemble(about, description)
        bad = PackReader(part).damaged(progress) if verify else ()
        if bad:
            # What lies there would spoil every further run as well.
            staging.remove()
            raise DataError(
                f"{len(bad)} pictures of {path} read back differently; nothing was kept",
                got=first_few(bad),
                expected="the pixels that were written",
                remedy="check the disk and run the same command again",
            )
        part.replace(path)
        staging.remove()
    forget_packs()
    return PackReport(
        path,
        len(samples),
        len(sources),
        reused,
        sum(source_bytes),
        path.stat().st_size,
        time.monotonic() - started,
    )


@contextmanager
def _naming_a_full_disk(path: Path) -> Generator[None]:
    """Neither the system nor HDF5 says in a way that is fit to print which file had no room."""
    try:
        yield
    except (OSError, RuntimeError) as problem:
        links: BaseException | None = problem
        while links is not None:
            if isinstance(links, OSError) and links.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OSError(links.errno, os.strerror(links.errno), str(path)) from problem
            links = links.__context__
        raise


def _check_room(path: Path, sizes: Sequence[tuple[int, int]], todo: Sequence[int]) -> None:
    """Refuse to start where a plain pack, whose size is known, cannot end."""
    tiles = [num_tiles(*size) * TILE_BYTES for size in sizes]
    needed = sum(tiles) + sum(tiles[number] for number in todo)
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise DataError(
            f"there is no room for the pack {path}",
            got=f"{format_bytes(free)} free",
            expected=f"{format_bytes(needed)}: its tiles are written aside before the file is made",
            remedy="free some space, name another folder with --out, or take --compress",
        )


def _tiled(
    sources: Sequence[PixelSource],
    numbers: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    compress: bool,
    workers: int,
) -> Iterator[Record]:
    def tile(number: int) -> Record:
        image = sources[number].read()
        if image.shape[:2] != sizes[number]:
            raise DataError(
                f"{sources[number].name} changed while it was packed",
                got=f"{image.shape[:2]}",
                expected=f"{sizes[number]}",
            )
        tiles = split_tiles(image)
        blobs = deflate_tiles(tiles) if compress else []
        return Record(
            number,
            pixel_digest(image),
            [len(blob) for blob in blobs],
            b"".join(blobs) if compress else tiles.tobytes(),
        )

    with ThreadPoolExecutor(max(1, workers)) as pool:
        # A bounded window of pictures in flight, so that memory does not grow with the set.
        waiting: list[Future[Record]] = []
        for number in numbers:
            waiting.append(pool.submit(tile, number))
            if len(waiting) > 2 * workers:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def _sizes(sources: Sequence[PixelSource], progress: Progress) -> list[tuple[int, int]]:
    bad: list[str] = []
    sizes: list[tuple[int, int]] = []
    with progress.task("reading sizes", len(sources), "pictures") as task:
        for source in sources:
            try:
                sizes.append(source.size())
            except DataError as problem:
                bad.append(problem.problem)
            task.advance()
    if bad:
        raise DataError(
            f"{len(bad)} pictures cannot be read; nothing was packed",
            got="\n    ".join(["", *bad[:20]]),
            remedy="mmfe data check names every one of them",
        )
    return sizes


def _check_pairs(
    samples: SampleSet, pictures: PictureList, sizes: Sequence[tuple[int, int]]
) -> None:
    odd: dict[str, None] = {}
    for sample in samples:
        if sample.clean is None:
            continue
        first, second = (pictures.number(s) for s in (sample.degraded, sample.clean))
        if sizes[first] != sizes[second]:
            names = [pictures.sources[number].name for number in (first, second)]
            odd[f"{names[0]}: {sizes[first]}, {names[1]}: {sizes[second]}"] = None
    if odd:
        raise DataError(
            f"{len(odd)} pairs differ in size; nothing was packed",
            got="\n    ".join(["", *list(odd)[:20]]),
            expected="a degraded picture and its ground truth of one (height, width)",
            remedy="mmfe data check names every one of them",
        )


def _name_in(root: Path, source: PixelSource) -> str:
    path = Path(source.name)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else source.name
