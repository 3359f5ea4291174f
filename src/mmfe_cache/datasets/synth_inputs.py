"""The photographs that a synthetic set is made from: chosen, split, and read before the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmfe_cache.degradations import CLEAR, PROCEDURAL, DegradationConfig, partial_classes
from mmfe_cache.degradations.light import same_proportions
from mmfe_cache.errors import DataError
from mmfe_cache.images import pixel_digest, read_noted, read_notes, read_size, shrink
from mmfe_cache.names import first_few
from mmfe_cache.progress import Progress
from mmfe_cache.samples import ImageArray
from mmfe_cache.seeds import generator

from .cdd11 import made_sets, sets_left_out
from .photographs import (
    Photograph,
    Split,
    find_photographs,
    not_photographs,
    photographs_below,
    split_photographs,
)
from .synth_live import seed_parts

MIN_SIDE = 16
"""Photographs with a shorter side than this, in pixels, teach nothing and are refused."""

LONGEST_NAME = 255
"""Bytes of a file's name that every file system takes; few take more."""


def choose_photographs(
    photos: Path | Sequence[Path],
    test_photos: Path | Sequence[Path] | None,
    test_share: float,
    seed: int,
    *,
    skip: Sequence[Path] = (),
) -> dict[Split, tuple[Photograph, ...]]:
    """The photographs of each split, outside of ``skip``; other arguments as for `write_synth`.

    Raises:
        DataError: there is no photograph, one lies in both, or there are too few scenes.
    """
    train = find_photographs(photos, skip=skip)
    if test_photos is None:
        return split_photographs(train, test_share, seed)
    test = find_photographs(test_photos, skip=skip)
    same = {p.path.resolve() for p in train} & {p.path.resolve() for p in test}
    if same:
        raise DataError(
            "a photograph is in train and in test",
            got=first_few(sorted(map(str, same))),
            expected="two folders without a common photograph",
        )
    return {"train": train, "test": test}


def clean_photographs(
    folder: Path, config: DegradationConfig = PROCEDURAL, progress: Progress | None = None
) -> list[Photograph]:
    """The photographs that a guide is trained or measured on, in the order of their paths.

    As for `write_synth`: masks, maps and sets of degraded pictures below the folder are none.

    Args:
        folder: searched with its subfolders.
        config: masks and maps that will be used.
        progress: where to warn of what is left out, and of what a file holds and is not read.

    Raises:
        DataError: there is none, two claim one name, or the folder is such a set itself.
    """
    made = made_sets(folder)
    skip = (*config.folders, *made)
    found = photographs_below(folder, skip=skip)
    if progress is not None:
        notes = [f"{one.path}: {note}" for one in found for note in read_notes(one.path)]
        for line in (*not_photographs(folder, skip=skip), *sets_left_out(made), *notes):
            progress.warn(line)
    return found


Partial = Mapping[Split, Mapping[str, list[str]]]
"""By split and class of partial targets, the names of the photographs that have one."""


def choose_partial(
    chosen: Mapping[Split, tuple[Photograph, ...]],
    classes: Sequence[str],
    share: float,
    seed: int,
) -> Partial:
    """Draw which pictures have a partial target, and what it keeps."""
    found: dict[Split, dict[str, list[str]]] = {}
    for split, photographs in chosen.items():
        drawn = found[split] = dict[str, list[str]]()
        for composition in classes:
            possible = partial_classes(composition) if composition != CLEAR else ()
            for photograph in photographs if possible else ():
                parts = seed_parts(f"{composition}/{photograph.name}", split, seed)
                random = generator("partial", *parts)
                if random.random() < share:
                    name = possible[int(random.integers(len(possible)))]
                    drawn.setdefault(name, []).append(photograph.name)
    return found


def inspect_photographs(
    chosen: Mapping[Split, tuple[Photograph, ...]],
    max_side: int | None,
    dark: Mapping[str, Path],
    progress: Progress,
) -> dict[str, dict[str, str]]:
    """Read every photograph once, before anything is written.

    Args:
        chosen: by split.
        max_side: as for `write_synth`.
        dark: low-light photographs that will be used, by the photograph's name.
        progress: where to report, and to warn of what a file holds and is not read.

    Returns:
        Pixel digests by split and name.

    Raises:
        DataError: names every photograph that cannot be used, and why.
    """
    found = _Inspection(max_side, dark, progress)
    total = sum(map(len, chosen.values()))
    with progress.task("reading photographs", total, "photographs") as task:
        for split, photographs in chosen.items():
            found.digests[split] = {}
            for photograph in photographs:
                found.take(split, photograph)
                task.advance()
    bad = found.bad
    if bad:
        raise DataError(
            f"{len(bad)} photographs cannot be used; nothing was written",
            got="\n    ".join(["", *bad[:20], *(["..."] if len(bad) > 20 else [])]),
            expected=f"whole image files of at least {MIN_SIDE}x{MIN_SIDE} pixels, "
            "each in one split only",
            remedy=", or ".join([*found.remedies, "move these files away"])
            + ", and run the command again",
        )
    return found.digests


class _Inspection:
    """What was found while photographs were read.

    Attributes:
        digests: by split and name.
        bad: a line for each photograph that cannot be used: why.
        remedies: what else helps than to do without these photographs.
    """

    def __init__(self, max_side: int | None, dark: Mapping[str, Path], progress: Progress) -> None:
        self._max_side, self._dark, self._progress = max_side, dark, progress
        self._seen: dict[str, tuple[Split, Photograph]] = {}
        self.digests: dict[str, dict[str, str]] = {}
        self.bad: list[str] = []
        self.remedies: dict[str, None] = {}

    def take(self, split: Split, photograph: Photograph) -> None:
        """Read a photograph and note what is wrong with it."""
        path = photograph.path
        try:
            whole, notes = read_noted(path)
        except DataError as problem:
            self.bad.append(problem.problem)
            return
        for note in notes:
            self._progress.warn(f"{path}: {note}")
        image = prepare(whole, self._max_side)
        digest = pixel_digest(image)
        self.digests[split][photograph.name] = digest
        reasons = [
            *self._too_small(whole.shape, image.shape),
            *self._too_long(photograph.name),
            *self._other_shape(photograph.name, image.shape),
        ]
        other = self._seen.setdefault(digest, (split, photograph))
        if other[0] != split:
            reasons.append(f"shows what {other[1].path} of {other[0]} shows")
        if reasons:
            self.bad.append(f"{path} {'; it '.join(reasons)}")

    def _too_small(self, whole: tuple[int, ...], shown: tuple[int, ...]) -> Iterator[str]:
        if min(whole[:2]) < MIN_SIDE:
            yield f"is {_size(whole)} pixels"
        elif min(shown[:2]) < MIN_SIDE:
            yield f"is {_size(whole)} pixels, and {_size(shown)} with --max-side {self._max_side}"
            self.remedies["take a larger --max-side"] = None

    def _too_long(self, name: str) -> Iterator[str]:
        length = len(f"{name}.png".encode())
        if length > LONGEST_NAME:
            yield (
                f"would be written to a file whose name has {length} bytes, more than the "
                f"{LONGEST_NAME} that file systems take"
            )
            self.remedies["rename files of long names, or their folders"] = None

    def _other_shape(self, name: str, shown: tuple[int, ...]) -> Iterator[str]:
        path = self._dark.get(name)
        if path is not None and not same_proportions(size := read_size(path), shown):
            yield f"is {_size(shown)} pixels, and its low-light photograph {path} {_size(size)}"
            self.remedies["cut low-light photographs as their scenes"] = None


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"


def prepare(image: ImageArray, max_side: int | None) -> ImageArray:
    """Shrink so that the longer side is at most ``max_side`` pixels; None leaves it as it is."""
    return image if max_side is None else shrink(image, max_side)
