"""Restoring photographs from file to file; a large one shows how far it has come."""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.degradations import check_kinds
from mmfe_cache.errors import DataError, MmfeError, UsageError
from mmfe_cache.images import check_colours, encode_photograph, read_photograph
from mmfe_cache.io import counted, explained, is_full, write_file
from mmfe_cache.machine import Precision
from mmfe_cache.names import composed, first_few
from mmfe_cache.progress import Progress
from mmfe_restore.inference.jobs import (
    NAMED,
    Job,
    LeftOut,
    OutputFormat,
    Plan,
    file_keys,
    name_left_out,
    plan,
)

if TYPE_CHECKING:
    import torch

    from mmfe_restore.inference.guide import PhotographGuide
    from mmfe_restore.inference.image import Tile
    from mmfe_restore.model import Restorer
    from mmfe_restore.model.runners import Watch


LARGE = 2_000_000
"""Pixels from which one photograph gets a bar of its own: some seconds on two cores."""


@contextmanager
def share_of(
    progress: Progress, name: str, image: NDArray[np.generic]
) -> Generator[Watch | None, None, None]:
    """Open a task of 100 percent for one photograph.

    Args:
        progress: who watches.
        name: of the photograph.
        image: (H, W, 3); smaller ones than `LARGE` open nothing.

    Yields:
        What `restore_image` takes as ``watch``; None for a small photograph.
    """
    if image.shape[0] * image.shape[1] < LARGE:
        yield None
        return
    with progress.task(name, 100, "%") as task:
        shown = 0

        def watch(share: float) -> None:
            nonlocal shown
            percent = int(100 * share)
            if percent > shown:
                task.advance(percent - shown)
                shown = percent

        yield watch
        task.advance(100 - shown)


@dataclass(frozen=True)
class Restored:
    """One photograph that was restored, its size in pixels and the time it took.

    Attributes:
        notes: what the new file does not have of the old one; a sentence each.
        seen: what the guide saw: severity by label; None for a guide that names none.
        scores: name to its value (before, after), where scores were asked for.
    """

    source: Path
    target: Path
    height: int
    width: int
    seconds: float
    notes: tuple[str, ...] = ()
    seen: Mapping[str, float] | None = None
    scores: Mapping[str, tuple[float, float]] | None = None


@dataclass(frozen=True)
class RestoreReport:
    """What became of the inputs.

    Attributes:
        restored: in the order of the inputs.
        failed: the inputs that were not, each with its error; the others went on.
        skipped: the inputs whose restoration is there already.
        left_out: what folders hold beyond photographs that are read.
    """

    restored: tuple[Restored, ...]
    failed: tuple[tuple[Path, MmfeError], ...]
    skipped: tuple[Job, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

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
                    "notes": list(one.notes),
                    "seen": None if one.seen is None else dict(one.seen),
                    **({} if one.scores is None else {"scores": _scores_json(one.scores)}),
                }
                for one in self.restored
            ],
            "failed": [{"input": str(path), "error": str(error)} for path, error in self.failed],
            "skipped": [
                {"input": str(job.source), "output": str(job.target)} for job in self.skipped
            ],
            "left_out": [one.to_json() for one in self.left_out],
        }


def _scores_json(scores: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, float]]:
    return {name: {"before": pair[0], "after": pair[1]} for name, pair in scores.items()}


def restore_files(
    inputs: Sequence[Path],
    out: Path | str,
    restorer: Restorer,
    guide: PhotographGuide | None,
    *,
    force: bool = False,
    tile: Tile = "auto",
    precision: Precision = "32",
    format: OutputFormat = "keep",
    suffix: str = "",
    strength: float = 1.0,
    only: Collection[str] | None = None,
    scores: Sequence[str] = (),
    progress: Progress | None = None,
) -> RestoreReport:
    """Restore photographs; one that fails is named in the report and the rest goes on.

    A photograph keeps its colour profile, EXIF, XMP, transparency and depth as far as its format
    holds them. One whose restoration is there already is skipped. Once there is no space left, the
    rest fail without being tried.

    Args:
        inputs: files and folders.
        out: as for `plan`.
        restorer: in evaluation mode.
        guide: what tells the restorer what is wrong with a photograph; None takes the null
            guidance, or is right for an unguided network.
        force: write over files that are there; an input is never written over.
        tile: as for `restore_image`.
        precision: as for `restore_image`.
        format: as for `plan`.
        suffix: as for `plan`.
        strength: as for `restore_image`.
        only: take away these degradations alone; see `PhotographGuide.read`. None is for all.
        scores: names of `mmfe_restore.metrics.no_reference.SCORES` to judge both pictures by.
        progress: who watches.

    Raises:
        UsageError: as for `plan`; unknown degradations, or no guide that can ask for some alone.
        MmfeError: a score's weights cannot be loaded.
    """
    progress = progress or Progress()
    if only is not None:
        only = check_only(only, guide)
    planned = plan(inputs, out, format=format, suffix=suffix)
    _load_scores(scores, restorer)
    for line in name_left_out(planned.left_out):
        progress.warn(line)
    sources = _sources(planned)
    if force:  # a restoration that was named beside its photograph is an input too
        sources.update(*(file_keys(path) for path in inputs if not path.is_dir()))
    spelled: dict[str, Path] = {}
    restored: list[Restored] = []
    failed: list[tuple[Path, MmfeError]] = []
    skipped: list[Job] = []
    not_tried: list[Job] = []
    full = False
    with progress.task("restoring", len(planned.jobs), "photographs") as task:
        for job in planned.jobs:
            try:
                _check_spelling(job, spelled)
                if _is_finished(job, sources, force):
                    skipped.append(job)
                elif full:
                    not_tried.append(job)
                else:
                    done = _restore(
                        job, restorer, guide, tile, precision, strength, only, scores, progress
                    )
                    restored.append(done)
                    for note in done.notes:
                        progress.warn(f"{job.source}: {note}")
            except Exception as problem:  # decoders, encoders and networks raise anything
                error = _named(job, problem)
                failed.append((job.source, error))
                progress.warn(f"not restored: {error.about(job.source)}")
                # What comes next would be computed for nothing.
                full = full or is_full(error.__cause__)
            task.advance()
    if not_tried:
        error = DataError(
            f"not tried, since there was no space left: {counted(len(not_tried), 'photograph')}",
            remedy="free some space, or choose another place with -o; then run the same command "
            "again, it goes on where it stopped",
        )
        failed += [(job.source, error) for job in not_tried]
        progress.warn(str(error))
    if skipped:
        progress.warn(_are_there(skipped, planned))
    return RestoreReport(tuple(restored), tuple(failed), tuple(skipped), planned.left_out)


def nothing_left(planned: Plan, progress: Progress) -> RestoreReport | None:
    """What `restore_files` would report where every restoration is there; needs no network.

    Args:
        planned: by `plan`.
        progress: who watches.

    Returns:
        The report, after its warnings; None where there is something to restore or to refuse.
    """
    sources = _sources(planned)
    spelled: dict[str, Path] = {}
    try:
        for job in planned.jobs:
            _check_spelling(job, spelled)
        finished = all(_is_finished(job, sources, force=False) for job in planned.jobs)
    except DataError:
        return None
    if not finished:
        return None
    for line in name_left_out(planned.left_out):
        progress.warn(line)
    progress.warn(_are_there(planned.jobs, planned))
    return RestoreReport((), (), planned.jobs, planned.left_out)


def _sources(planned: Plan) -> set[object]:
    return {key for job in planned.jobs for key in file_keys(job.source)}


def _are_there(skipped: Sequence[Job], planned: Plan) -> str:
    named = first_few([str(job.target) for job in skipped], NAMED)
    return (
        f"{len(skipped)} of {len(planned.jobs)} are there already and were skipped: {named}; "
        "--force restores them again"
    )


def check_only(only: Collection[str], guide: PhotographGuide | None) -> tuple[str, ...]:
    """The degradations that are to be taken away alone, in their order.

    Raises:
        UsageError: one is unknown, or no guide can ask for some alone.
    """
    if guide is None:
        raise UsageError(
            "some degradations alone cannot be taken away without a guide",
            got=f"--only {','.join(only)} and no guide",
            expected="a network that is guided by scene, with its guide",
            remedy="leave --only out, or --guide none",
        )
    guide.require_only()
    return check_kinds(only)


def _restore(
    job: Job,
    restorer: Restorer,
    guide: PhotographGuide | None,
    tile: Tile,
    precision: Precision,
    strength: float,
    only: Collection[str] | None,
    scores: Sequence[str],
    progress: Progress,
) -> Restored:
    # Plans and reports need no torch.
    from mmfe_restore.inference.image import fill_transparent, restore_image

    started = time.perf_counter()
    photograph = read_photograph(job.source)
    check_colours(photograph, job.format)  # before anything is computed for nothing
    found = None if guide is None else guide.encode(photograph.seen())
    embeddings = None if guide is None or found is None else guide.read(found, only)
    pixels: Any = photograph.srgb
    alpha = photograph.stored.alpha
    seen = pixels if alpha is None else fill_transparent(pixels, alpha)
    with share_of(progress, job.source.name, pixels) as watch:
        result = restore_image(
            restorer,
            seen,
            embeddings,
            tile=tile,
            precision=precision,
            strength=strength,
            watch=watch,
        )
    if alpha is not None:
        result[alpha == 0] = pixels[alpha == 0]  # what nobody sees stays as it was
    # Before the file is there, so that one that cannot be judged is not restored, as is said.
    judged = _judge(scores, seen, result, restorer) if scores else None
    content, lost = encode_photograph(photograph, result, job.format)
    with explained(job.target):
        write_file(job.target, content)
    height, width = pixels.shape[:2]
    seconds = time.perf_counter() - started
    said = None if guide is None or found is None else guide.seen(found)
    notes = photograph.notes + lost
    return Restored(job.source, job.target, height, width, seconds, notes, said, judged)


def _load_scores(scores: Sequence[str], restorer: Restorer) -> None:
    """Load them before any photograph is restored: their weights may have to be downloaded."""
    if scores:
        from mmfe_restore.metrics.no_reference import load_score

        for name in scores:
            load_score(name, _score_device(restorer))


def _score_device(restorer: Restorer) -> torch.device:
    import torch

    return torch.device("cpu") if restorer.device.type == "mps" else restorer.device


def _judge(
    scores: Sequence[str], before: NDArray[Any], after: NDArray[Any], restorer: Restorer
) -> dict[str, tuple[float, float]]:
    """Both pictures' scores without ground truth, on 8 bits."""
    from mmfe_restore.metrics.no_reference import score_picture

    device = _score_device(restorer)
    pair = [
        one if one.dtype == np.uint8 else np.rint(one / 257).astype(np.uint8)
        for one in (before, after)
    ]
    found: dict[str, tuple[float, float]] = {}
    for name in scores:
        first, second = (score_picture(name, one, device) for one in pair)
        found[name] = (first, second)
    return found


def _named(job: Job, problem: Exception) -> MmfeError:
    """Any error as one that names its file and says what to do."""
    if isinstance(problem, MmfeError):
        return problem
    text = f"{type(problem).__name__}: {problem}".rstrip(": ")
    remedy = None
    if isinstance(problem, OSError) and problem.strerror:
        text = f"{problem.filename or job.target}: {problem.strerror}"
    elif isinstance(problem, MemoryError) or "out of memory" in text:
        remedy = "restore it in tiles, or in smaller ones, such as --tile 256"
    error = DataError(f"{job.source} could not be restored", got=text, remedy=remedy)
    error.__cause__ = problem
    return error


def _check_spelling(job: Job, spelled: dict[str, Path]) -> None:
    """Refuse a target that this file system takes for an earlier one, as macOS and Windows do.

    Args:
        job: whose target it is.
        spelled: the earlier targets, to which it is added.

    Raises:
        DataError: the two differ in letter case, or in how an accent is written, and are one file.
    """
    other = spelled.setdefault(composed(str(job.target)).casefold(), job.target)
    if other == job.target or not (other.exists() and job.target.exists()):
        return
    if other.samefile(job.target):
        raise DataError(
            f"two inputs would become {other}: {job.target} is the same file there",
            expected="names that differ in more than letter case",
            remedy="restore them into different folders",
        )


def _is_finished(job: Job, sources: set[object], force: bool) -> bool:
    """Whether the photograph's restoration is there; it was written whole, or not at all.

    Raises:
        DataError: something else lies where it would go.
    """
    if not sources.isdisjoint(file_keys(job.target)):
        raise DataError(
            f"{job.target} is one of the inputs, which are never written over",
            remedy="choose another folder with -o, or a --suffix; or leave it out of what you name",
        )
    if job.target.is_dir():
        raise DataError(
            f"{job.target} is a folder",
            expected="a file or nothing",
            remedy="choose another folder with -o, or a --suffix",
        )
    return job.target.exists() and not force
