"""Which files of what is given are restored, and where each restoration goes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmfe_cache.datasets.photographs import Listing, list_images
from mmfe_cache.errors import DataError, UsageError
from mmfe_cache.images.encoding import SUFFIXES, Format, format_of
from mmfe_cache.images.opening import (
    HEIC_SUFFIXES,
    IMAGE_SUFFIXES,
    OTHER_SUFFIXES,
    RAW_SUFFIXES,
    VIDEO_SUFFIXES,
    why_not_read,
)
from mmfe_cache.names import first_few

OutputFormat = Literal["keep"] | Format
"""``keep`` writes every photograph in its own format, or PNG where that cannot be written."""

DEFAULT_OUT = "restored"
"""The folder that photographs are restored into where none is named."""

_PICTURES = IMAGE_SUFFIXES | HEIC_SUFFIXES | RAW_SUFFIXES | VIDEO_SUFFIXES | OTHER_SUFFIXES


@dataclass(frozen=True)
class Job:
    """One photograph to restore, and where it goes.

    Attributes:
        source: the photograph.
        target: the file that its restoration becomes.
        format: what that file is written as, a key of `mmfe_cache.images.encoding.SUFFIXES`.
    """

    source: Path
    target: Path
    format: str


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that was found and is not restored, and why."""

    path: Path
    reason: str

    def to_json(self) -> dict[str, str]:
        """Plain values for ``--json``."""
        return {"path": str(self.path), "reason": self.reason}


NAMED = 20
"""How many files of a kind a message names; the report has all of them."""


def name_left_out(left_out: Sequence[LeftOut]) -> list[str]:
    """A line for each reason, with names."""
    reasons: dict[str, list[str]] = {}
    for one in left_out:
        reasons.setdefault(one.reason, []).append(one.path.name)
    return [f"left out, {reason}: {first_few(names, NAMED)}" for reason, names in reasons.items()]


@dataclass(frozen=True)
class Plan:
    """What is to be done, and what of the folders is not."""

    jobs: tuple[Job, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class _Found:
    source: Path
    below: Path  # its path below the output folder
    root: Path | None  # the folder that was given; None for a file


def default_out(inputs: Sequence[Path]) -> Path:
    """The folder `restored` in the photographs' own folder, where no other is named.

    Raises:
        UsageError: they lie in several folders.
    """
    # The shell names the output folder of an earlier call too where it completes a star.
    given = [path for path in inputs if path.name != DEFAULT_OUT] or list(inputs)
    folders = list(dict.fromkeys(path if path.is_dir() else path.parent for path in given))
    if len(folders) > 1:
        raise UsageError(
            "photographs of several folders have no folder in common to be restored into",
            got=f"{folders[0]} and {folders[1]}",
            remedy="name the folder with -o",
        )
    return folders[0] / DEFAULT_OUT


def plan(
    inputs: Sequence[Path],
    out: Path | str,
    *,
    format: OutputFormat = "keep",
    suffix: str = "",
) -> Plan:
    """Pair every photograph with the file that its restoration goes to.

    Args:
        inputs: files, and folders that are searched with all their subfolders.
        out: for a single photograph a file that ends as a picture does, or a folder, in which
            files keep their names (and folders their structure); a slash at the end of a string
            says that it is a folder.
        format: of the files.
        suffix: what is added to every file's name, before its ending.

    Raises:
        UsageError: nothing to do, an ``out`` that cannot hold the result, or two inputs that
            would become one file; a folder's restorations beside its photographs without a suffix,
            which a second run could not tell from photographs.
    """
    _check_suffix(suffix)
    target = Path(out)
    if len(inputs) == 1 and not suffix and inputs[0].is_dir() and _is_same(inputs[0], target):
        raise UsageError(
            "a folder's restorations would lie among its photographs and be taken for some",
            got=f"-o {out}, the folder of the photographs",
            expected="another folder, or a suffix that tells them apart",
            remedy="leave -o out, for the folder 'restored' in there; or --suffix _restored",
        )
    found, left_out = _find(inputs, target)
    if not found:
        raise UsageError("nothing to restore", expected="photographs, or folders of them")
    if _is_file(out):
        return Plan((_single(found, target, format, suffix),), tuple(left_out))
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file", expected="a folder, or a new picture's name")
    jobs = _name(found, target, format, suffix)
    return _without_own_outputs(found, jobs, left_out, suffix)


def find(inputs: Sequence[Path]) -> tuple[list[Path], list[LeftOut]]:
    """The photographs that `plan` would restore, and what else the folders hold.

    Args:
        inputs: files, and folders that are searched with all their subfolders.

    Raises:
        UsageError: a folder holds no photograph, or may not be read.
    """
    found, left_out = _find(inputs, None)
    return list(dict.fromkeys(one.source for one in found)), left_out


def _check_suffix(suffix: str) -> None:
    if "/" in suffix or os.sep in suffix or "\0" in suffix:
        raise UsageError(
            "a suffix is part of a file's name", got=f"--suffix {suffix}", expected="no slash"
        )


def _find(inputs: Sequence[Path], out: Path | None) -> tuple[list[_Found], list[LeftOut]]:
    found: list[_Found] = []
    left_out: list[LeftOut] = []
    known: set[tuple[str, Path]] = set()
    for path in inputs:
        if len(inputs) > 1 and path.is_dir() and _is_same(path, out):
            left_out.append(LeftOut(path, "the output folder"))
            continue
        if not path.is_dir():
            inside = [_Found(path, Path(path.name), None)]
        else:
            try:
                skip = [] if out is None else _outs(path, out)
                listing = list_images(
                    path, recursive=True, wanted=_is_photograph, skip=skip, go_on=True
                )
            except DataError as problem:  # it is there and may not be read
                raise UsageError(problem.problem, remedy=problem.remedy) from problem
            aside = _left_out(listing)
            if not listing.images:
                named = "; ".join(f"{one.path.name}: {one.reason}" for one in aside[:5])
                raise UsageError(
                    f"there is no photograph in {path}",
                    got=named or None,
                    expected=f"files ending in {', '.join(sorted(IMAGE_SUFFIXES))}",
                )
            left_out += aside
            inside = [_Found(photo, photo.relative_to(path), path) for photo in listing.images]
        for one in inside:
            key = (os.path.realpath(one.source), one.below)  # the same file, given twice
            if key not in known:
                known.add(key)
                found.append(one)
    return found, left_out


def file_keys(path: Path) -> tuple[object, ...]:
    """What tells a file or folder from others: two paths that share a key mean the same one.

    Its real path; and, where it is there, its number on its file system. The real path alone does
    not tell: of a bind mount, of a share that is mounted twice, and in another letter case, one
    file has several.
    """
    real = os.path.realpath(path)  # Path.resolve fails on links in a circle
    try:
        status = path.stat()
    except OSError:
        return (real,)
    return (real, (status.st_dev, status.st_ino)) if status.st_ino else (real,)


def _is_same(folder: Path, out: Path | None) -> bool:
    return out is not None and not set(file_keys(folder)).isdisjoint(file_keys(out))


def _outs(folder: Path, out: Path) -> list[Path]:
    """The output folder; where it is the folder's own, those of its subfolders too."""
    if out != folder / DEFAULT_OUT:
        return [out]
    return [out, *(path for path in folder.rglob(DEFAULT_OUT) if path.is_dir())]


def _is_photograph(path: Path) -> bool:
    return why_not_read(path) is None


def _left_out(listing: Listing) -> list[LeftOut]:
    kinds = (
        (listing.loops, "a link that leads in a circle or nowhere"),
        (listing.hidden, "hidden"),
        (listing.skipped, "the output folder"),
        (listing.unreadable, "it may not be read"),
    )
    ignored = [LeftOut(path, why_not_read(path) or "not a file") for path in listing.ignored]
    return ignored + [LeftOut(path, reason) for paths, reason in kinds for path in paths]


def _is_file(out: Path | str) -> bool:
    """Whether ``out`` names a picture file and not a folder."""
    text = os.fspath(out)
    path = Path(out)
    return (
        path.suffix.lower() in _PICTURES
        and not path.is_dir()
        and not (isinstance(out, str) and text.endswith(("/", os.sep)))
    )


def _single(found: list[_Found], out: Path, format: OutputFormat, suffix: str) -> Job:
    if len(found) > 1 or found[0].root is not None:
        raise UsageError(
            f"{len(found)} photographs do not fit into one file",
            got=f"-o {out}",
            expected="a folder",
        )
    name = format_of(out.suffix) if out.suffix.lower() not in RAW_SUFFIXES else None
    if name is None:
        raise UsageError(
            f"photographs cannot be written as {out.suffix}",
            got=f"-o {out}",
            expected=f"a name ending in {', '.join(e[0] for e in SUFFIXES.values())}, or a folder",
        )
    if format not in ("keep", name):
        raise UsageError(
            "the file's name and the format contradict each other",
            got=f"-o {out} --format {format}",
            expected=f"-o {out.with_suffix(SUFFIXES[format][0])}",
        )
    if suffix:
        raise UsageError(
            "a file's name is whole: --suffix is for folders",
            got=f"-o {out} --suffix {suffix}",
            remedy="leave --suffix out, or name a folder with -o",
        )
    return Job(found[0].source, out, name)


def _name(found: list[_Found], out: Path, format: OutputFormat, suffix: str) -> list[Job]:
    """A target for each; ``a.jpg`` beside ``a.png`` both come out, in whatever format."""
    endings = [_ending(one.source, format) for one in found]
    # Who keeps its ending keeps its name too; of the others, who comes first.
    order = sorted(
        range(len(found)), key=lambda i: endings[i][0].lower() != found[i].source.suffix.lower()
    )
    taken: dict[Path, Path] = {}
    jobs: dict[int, Job] = {}
    for i in order:
        below, (ending, name) = found[i].below, endings[i]
        target = out / below.with_name(f"{below.stem}{suffix}{ending}")
        if target in taken and taken[target].name != below.name:
            target = out / below.with_name(f"{below.name}{suffix}{ending}")
        other = taken.setdefault(target, found[i].source)
        if other is not found[i].source:
            raise UsageError(
                f"two inputs would become {target}",
                got=f"{other} and {found[i].source}",
                expected="different names",
                remedy="restore them into different folders",
            )
        jobs[i] = Job(found[i].source, target, name)
    return [jobs[i] for i in range(len(found))]


def _ending(source: Path, format: OutputFormat) -> tuple[str, str]:
    """The ending and the format of a source's target."""
    own = source.suffix
    if format == "keep":
        name = format_of(own) or "png"
        return (own if own.lower() in SUFFIXES[name] else SUFFIXES[name][0]), name
    return (own if own.lower() in SUFFIXES[format] else SUFFIXES[format][0]), format


def _without_own_outputs(
    found: list[_Found], jobs: list[Job], left_out: list[LeftOut], suffix: str
) -> Plan:
    """Leave out what an earlier run wrote beside its inputs.

    That is a file of a folder that is the target of another file of the same folder; and a file
    that was named, as by a star, and is the target of another that was, by the suffix at its end.
    """
    targets: dict[tuple[Path | None, object], Path] = {
        (one.root, key): job.source
        for one, job in zip(found, jobs, strict=True)
        for key in file_keys(job.target)
    }
    kept: list[Job] = []
    for one, job in zip(found, jobs, strict=True):
        keys = ((one.root, key) for key in file_keys(job.source))
        origin = next((targets[key] for key in keys if key in targets), None)
        marked = bool(suffix) and job.source.stem.endswith(suffix)
        if origin is None or origin == job.source or (one.root is None and not marked):
            kept.append(job)
        else:
            left_out.append(LeftOut(job.source, f"the restoration of {origin.name}"))
    return Plan(tuple(kept), tuple(left_out))


def check_width(guide: str, width: int, wanted: int) -> None:
    """Refuse a guide whose embeddings are not as wide as those that the network was trained with.

    Args:
        guide: its name.
        width: D of its embeddings.
        wanted: the network's ``guidance_dim``.

    Raises:
        UsageError: they differ.
    """
    if width != wanted:
        raise UsageError(
            f"the guide {guide} does not fit this network",
            got=f"embeddings of width {width}",
            expected=f"width {wanted}",
            remedy="leave --guide out, so that the network's own guide is used",
        )
