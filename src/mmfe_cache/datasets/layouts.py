"""Layouts: where the pairs of one degradation may lie, what was found there, and its samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Literal

from mmfe_cache.errors import DataError
from mmfe_cache.images import FileSource, read_size
from mmfe_cache.names import first_few
from mmfe_cache.samples import Sample, SampleSet

from .pairing import FilePair, Pairing, PairingRule, by_name, rain_key
from .photographs import Listing, left_out, list_images, similar_folder
from .sources import NoisySource, WindowSource

Maker = Literal["files", "noise", "windows"]
"""How samples come from pairs: as they lie, with Gaussian noise, or cut into windows."""

Counted = Literal["published", "recorded"]
"""Who says how many files there are: the publication, or the record of `write_synth`."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One published arrangement of folders.

    Attributes:
        name: who arranges them so, as the report names it.
        degraded: folders of degraded files under the root, ``*`` allowed; all are read.
        clean: folders of clean files; all are read.
        pairing: which belongs to which.
        bases: folders under the root in which the whole arrangement may lie.
        published: how many degraded (for denoising: clean) files this layout holds when
            complete; None where that is not known.
        maker: how samples come from its pairs.
        counted: who says how many: ``"published"``, or ``"recorded"`` by `write_synth`.
    """

    name: str
    degraded: tuple[str, ...]
    clean: tuple[str, ...]
    pairing: PairingRule = by_name
    bases: tuple[str, ...] = ("",)
    published: int | None = None
    maker: Maker = "files"
    counted: Counted = "published"


@dataclass(frozen=True, slots=True)
class Part:
    """The pairs of one degradation in one split.

    Attributes:
        name: what the report calls it.
        labels: the class of its samples; denoising has one for every noise level.
        layouts: the arrangements it may lie in, most specific first.
        clean_alone_is_fine: whether clean files without degraded ones are expected.
        names: the published pairs' stems, where they follow from a rule or are few; a complete
            copy has them all, whatever its layout. Empty where only their number is known.
    """

    name: str
    labels: tuple[str, ...]
    layouts: tuple[Layout, ...]
    clean_alone_is_fine: bool = False
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundPart:
    """A part as it lies on the disk.

    Attributes:
        part: what was looked for.
        layout: which arrangement was recognised.
        base: the folder it lies in.
        pairing: pairs and what found no partner.
        ignored: files that are not images, and folders inside the part's own.
        loops: links that lead in a circle or nowhere.
    """

    part: Part
    layout: Layout
    base: Path
    pairing: Pairing
    ignored: tuple[Path, ...] = ()
    loops: tuple[Path, ...] = ()

    @property
    def pairs(self) -> tuple[FilePair, ...]:
        """The pairs, sorted by stem."""
        return self.pairing.pairs

    def absent(self) -> tuple[str, ...]:
        """Published or recorded pairs of which no file is there, by name.

        None are named of a published set whose files mostly bear other names: a renamed copy.
        """
        paths = (*self.pairing.unpaired_degraded, *self.pairing.unpaired_clean)
        there, names = {pair.stem for pair in self.pairs}, set(self.part.names)
        few = 2 * len(there & names) < min(len(there), len(names))
        if few and self.layout.counted == "published":
            return ()
        half = {rain_key(path) for path in paths}  # any other name's key is its stem
        return tuple(name for name in self.part.names if name not in there | half)

    def warnings(self) -> tuple[str, ...]:
        """What a user should know about this part, one line each."""
        lines: list[str] = []
        found, published = len(self.pairs), self.layout.published
        counted = self.layout.counted
        if published is not None and found != published:
            few = "fewer" if found < published else "more"
            lines.append(f"{self.part.name}: {found} found, {few} than the {published} {counted}")
        for paths, what in (
            (self.pairing.unpaired_degraded, "degraded without a clean partner, left out"),
            (
                () if self.part.clean_alone_is_fine else self.pairing.unpaired_clean,
                "clean without a degraded partner, left out",
            ),
        ):
            if paths:
                names = first_few([path.name for path in paths])
                lines.append(f"{self.part.name}: {len(paths)} {what}: {names}")
        notes = (*left_out(self.ignored, self.loops), *self.pairing.notes)
        lines += [f"{self.part.name}: {note}" for note in notes]
        return tuple(lines)


@dataclass
class FolderCache:
    """Listings already made, so that CDD11's clear folder is read once and not eleven times."""

    listings: dict[Path, Listing] = field(default_factory=dict[Path, Listing])

    def list(self, folder: Path) -> Listing:
        """The folder's listing, read at the first call."""
        if folder not in self.listings:
            self.listings[folder] = list_images(folder)
        return self.listings[folder]


def find_part(root: Path, part: Part, cache: FolderCache) -> FoundPart | None:
    """Recognise ``part`` under ``root``; None when no layout is there.

    Raises:
        DataError: two files claim one name, or a folder may not be read.
    """
    for layout in part.layouts:
        for base in layout.bases:
            found = _try_layout(root / base, part, layout, cache)
            if found is not None:
                return found
    return None


def _try_layout(base: Path, part: Part, layout: Layout, cache: FolderCache) -> FoundPart | None:
    degraded = _gather(base, layout.degraded, cache)
    clean = _gather(base, layout.clean, cache)
    if clean is None or degraded is None or not clean.images:
        return None
    if layout.degraded and not degraded.images:
        return None
    pairing = layout.pairing(degraded.images, clean.images)
    # Clear pictures are shared by all classes of a set: count what is odd there once.
    return FoundPart(
        part,
        layout,
        base,
        pairing,
        tuple(dict.fromkeys(degraded.ignored + clean.ignored)),
        tuple(dict.fromkeys(degraded.loops + clean.loops)),
    )


def _gather(base: Path, patterns: tuple[str, ...], cache: FolderCache) -> Listing | None:
    images: list[Path] = []
    ignored: list[Path] = []
    loops: list[Path] = []
    for pattern in patterns:
        folders = _folders(base, pattern)
        if not folders:
            return None
        ignored += _other_case(base, pattern)
        for folder in folders:
            listing = cache.list(folder)
            images += listing.images
            ignored += listing.ignored
            loops += listing.loops
    return Listing(tuple(images), tuple(ignored), tuple(loops))


def _folders(base: Path, pattern: str) -> list[Path]:
    if "*" in pattern:
        return sorted(path for path in base.glob(pattern) if path.is_dir())
    folder = base / pattern
    return [folder] if folder.is_dir() else []


def _other_case(base: Path, pattern: str) -> list[Path]:
    """Folders that a pattern with ``*`` misses by the case of their own name only."""
    if "*" not in pattern:
        return []
    above, _, last = pattern.rpartition("/")
    return sorted(
        child
        for folder in _folders(base, above)
        for child in folder.iterdir()
        if child.is_dir()
        and fnmatchcase(child.name.lower(), last.lower())
        and not fnmatchcase(child.name, last)
    )


def missing_part(root: Path, part: Part, remedy: str) -> DataError:
    """The error for a part that lies in no known layout: where it was looked for."""
    looked: list[str] = []
    near: list[str] = []
    dead: dict[str, None] = {}
    for layout in part.layouts:
        for base in layout.bases[:1]:
            folders = [*layout.degraded, *layout.clean]
            looked.append(f"{layout.name}: {' + '.join(str(Path(base) / f) for f in folders)}")
            for folder in folders:
                for piece in (Path(base) / folder, *(Path(base) / folder).parents):
                    other = similar_folder(root / piece) if piece.name else None
                    if other is not None and str(other) not in near:
                        near.append(str(other))
                    if (root / piece).is_symlink() and not (root / piece).exists():
                        dead[str(root / piece)] = None
    got = f"none of them under {root}"
    half = half_layout(root, part)
    if half is not None:
        got = f"half of one under {root}: {half}"
    if near:
        got += f"; names that differ in case only: {first_few(near)}"
    if dead:
        got += f"; links that lead in a circle or nowhere: {first_few(list(dead))}"
    return DataError(
        f"the {part.name} part is not there",
        got=got,
        expected="one of these layouts:\n    " + "\n    ".join(looked),
        remedy=remedy,
    )


def half_layout(root: Path, part: Part) -> str | None:
    """What is there and what is not of the first layout that is there in part."""
    for layout in part.layouts:
        for base in layout.bases:
            there: list[str] = []
            absent: list[str] = []
            for pattern in (*layout.degraded, *layout.clean):
                folders = _folders(root / base, pattern)
                filled = any(list_images(folder).images for folder in folders)
                name = str(Path(base) / pattern)
                (there if filled else absent).append(
                    name if filled or not folders else f"{name} (without an image)"
                )
            if there and absent:
                return f"{' + '.join(there)}, without {' + '.join(absent)}"
    return None


WINDOW = 512
"""Side of GoPro's training windows, in pixels (MoCE-IR)."""

WINDOW_STEP = 256
"""Distance of neighbouring windows, in pixels (MoCE-IR)."""


def samples_of(
    found: FoundPart, severities: Mapping[str, Mapping[str, float]] | None = None
) -> Iterator[Sample]:
    """The samples of a part.

    Args:
        found: the part as it lies on the disk.
        severities: recorded severities by sample id.
    """
    for pair in found.pairs:
        if found.layout.maker == "noise":
            yield from _noisy(found, pair)
        elif found.layout.maker == "windows":
            yield from _windows(found, pair)
        else:
            label = found.part.labels[0]
            name = f"{label}/{pair.stem}"
            yield Sample(
                name,
                FileSource(_there(pair.degraded)),
                FileSource(_there(pair.clean)),
                label,
                pair.scene,
                severities.get(name) if severities else None,
            )


def _noisy(found: FoundPart, pair: FilePair) -> Iterator[Sample]:
    clean = FileSource(_there(pair.clean))
    for label in found.part.labels:
        sigma = float(label.removeprefix("noise-"))
        name = f"{label}/{pair.stem}"
        degraded = NoisySource(clean, sigma, name)
        yield Sample(name, degraded, clean, label, pair.scene, noise_sigma=sigma)


def _windows(found: FoundPart, pair: FilePair) -> Iterator[Sample]:
    degraded, clean = _there(pair.degraded), _there(pair.clean)
    label = found.part.labels[0]
    for top, left, height, width in windows(*read_size(degraded)):
        yield Sample(
            f"{label}/{pair.stem}-{top:04d}-{left:04d}",
            WindowSource(FileSource(degraded), top, left, height, width),
            WindowSource(FileSource(clean), top, left, height, width),
            label,
            pair.scene,
        )


def windows(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """(top, left, height, width) of the training windows of a frame: eight for 1280x720.

    The last window of each axis is pushed back inside; a smaller frame is one window.
    """
    rows, columns = _starts(height), _starts(width)
    side_h, side_w = min(WINDOW, height), min(WINDOW, width)
    return [(top, left, side_h, side_w) for top in rows for left in columns]


def _starts(length: int) -> list[int]:
    last = max(0, length - WINDOW)
    starts = list(range(0, last, WINDOW_STEP))
    return [*starts, last]


def _there(path: Path | None) -> Path:
    if path is None:
        raise DataError("a pair lacks a file that its layout must have")
    return path


def sample_set(
    name: str,
    split: str,
    root: Path,
    layout: str,
    samples: list[Sample],
    warnings: list[str],
) -> SampleSet:
    """Sort samples by id and make sure that they are some, and distinct.

    Raises:
        DataError: no sample, or two of one id.
    """
    if not samples:
        raise DataError(
            f"no pair was found for {name!r}, split {split}",
            got="; ".join(warnings) or f"nothing under {root}",
            expected="pairs of image files, or photographs",
            remedy=f"mmfe data check --dataset {name} --root '{root}'",
        )
    samples.sort(key=lambda sample: sample.id)
    for first, second in pairwise(samples):
        if first.id == second.id:
            raise DataError(
                f"two samples have the id {first.id!r}",
                got=f"{first.degraded.name} and {second.degraded.name}",
                remedy="rename one of the files",
            )
    return SampleSet(name, split, root, layout, tuple(samples), tuple(warnings))
