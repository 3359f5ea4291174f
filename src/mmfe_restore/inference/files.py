"""Restoring photographs from files to files."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mmfe_cache.errors import DataError, MmfeError, UsageError
from mmfe_cache.images import IMAGE_SUFFIXES, read_rgb8, write_png
from mmfe_cache.progress import Progress, SilentProgress
from mmfe_restore.inference.waiting import share_of

if TYPE_CHECKING:
    from mmfe_restore.inference.guide import PhotographGuide
    from mmfe_restore.inference.image import Tile
    from mmfe_restore.model import Restorer


@dataclass(frozen=True)
class Job:
    """One photograph to restore, and where it goes."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Restored:
    """One photograph that was restored, its size in pixels and the time it took."""

    source: Path
    target: Path
    height: int
    width: int
    seconds: float


@dataclass(frozen=True)
class RestoreReport:
    """What became of the inputs.

    Attributes:
        restored: in the order of the inputs.
        failed: the inputs that were not, each with its error; the others went on.
    """

    restored: tuple[Restored, ...]
    failed: tuple[tuple[Path, MmfeError], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return {
            "restored": [
                {
                    "input": str(one.source),
                    "output": str(one.target),
                    "height": one.height,
                    "width": one.width,
                    "seconds": round(one.seconds, 3),
                }
                for one in self.restored
            ],
            "failed": [{"input": str(path), "error": str(error)} for path, error in self.failed],
        }


def plan(inputs: Sequence[Path], out: Path) -> list[Job]:
    """Pair every photograph with the file that its restoration goes to.

    Args:
        inputs: files, and folders that are searched with all their subfolders.
        out: a ``.png`` file for a single photograph; else a folder, in which files keep their
            names (and folders their structure) with the ending ``.png``.

    Raises:
        UsageError: nothing to do, an ``out`` that cannot hold the result, or two inputs that
            would become one file.
    """
    found: list[tuple[Path, Path]] = []  # (source, its path below the output folder)
    for path in inputs:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise UsageError(
                    f"there is no photograph in {path}",
                    expected=f"files ending in {', '.join(sorted(IMAGE_SUFFIXES))}",
                )
            found += [(photo, photo.relative_to(path)) for photo in inside]
        else:
            found.append((path, Path(path.name)))
    if not found:
        raise UsageError("nothing to restore", expected="photographs, or folders of them")
    if out.suffix and not out.is_dir():
        return [Job(found[0][0], _single(found, inputs, out))]
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file", expected="a folder, or a new name ending in .png")
    jobs = [Job(source, out / below.with_suffix(".png")) for source, below in found]
    taken: dict[Path, Path] = {}
    for job in jobs:
        other = taken.setdefault(job.target, job.source)
        if other is not job.source:
            raise UsageError(
                f"two inputs would become {job.target}",
                got=f"{other} and {job.source}",
                expected="different names",
                remedy="restore them into different folders",
            )
    return jobs


def _single(found: list[tuple[Path, Path]], inputs: Sequence[Path], out: Path) -> Path:
    if len(found) > 1 or inputs[0].is_dir():
        raise UsageError(
            f"{len(found)} photographs do not fit into one file",
            got=f"-o {out}",
            expected="a folder",
        )
    if out.suffix.lower() != ".png":
        raise UsageError(
            "restored photographs are written as PNG, which loses nothing",
            got=f"-o {out}",
            expected=f"-o {out.with_suffix('.png')}, or a folder",
        )
    return out


def restore_files(
    inputs: Sequence[Path],
    out: Path,
    restorer: Restorer,
    guide: PhotographGuide | None,
    *,
    force: bool = False,
    tile: Tile = "auto",
    precision: Literal["32", "bf16", "16"] = "32",
    progress: Progress | None = None,
) -> RestoreReport:
    """Restore photographs; one that fails is named in the report and the rest goes on.

    Args:
        inputs: files and folders.
        out: as for `plan`.
        restorer: in evaluation mode.
        guide: what tells the restorer what is wrong with a photograph; None takes the null
            guidance, or is right for an unguided network.
        force: write over files that are there; an input is never written over.
        tile: as for `restore_image`.
        precision: as for `restore_image`.
        progress: who watches.

    Raises:
        UsageError: as for `plan`.
    """
    from mmfe_restore.inference.image import restore_image  # plans and reports need no torch

    progress = progress or SilentProgress()
    jobs = plan(inputs, out)
    sources = {os.path.realpath(job.source) for job in jobs}
    restored: list[Restored] = []
    failed: list[tuple[Path, MmfeError]] = []
    with progress.task("restoring", len(jobs), "photographs") as task:
        for job in jobs:
            started = time.perf_counter()
            try:
                _check_target(job, sources, force)
                image = read_rgb8(job.source)
                embeddings = None if guide is None else guide.look(image)
                with share_of(progress, job.source.name, image) as watch:
                    result = restore_image(
                        restorer, image, embeddings, tile=tile, precision=precision, watch=watch
                    )
                write_png(job.target, result)
            except MmfeError as error:
                failed.append((job.source, error))
                progress.warn(f"{job.source} was not restored: {error}")
            else:
                seconds = time.perf_counter() - started
                height, width = image.shape[:2]
                restored.append(Restored(job.source, job.target, height, width, seconds))
            task.advance()
    return RestoreReport(tuple(restored), tuple(failed))


def _check_target(job: Job, sources: set[str], force: bool) -> None:
    if os.path.realpath(job.target) in sources:  # Path.resolve fails on links in a circle
        raise DataError(
            f"{job.target} is one of the inputs, which are never written over",
            remedy="choose another folder with -o",
        )
    if job.target.is_dir():
        raise DataError(f"{job.target} is a folder", expected="a file or nothing")
    if job.target.exists() and not force:
        raise DataError(f"{job.target} exists", remedy="add --force, or choose another -o")
