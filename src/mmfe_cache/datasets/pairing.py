"""Which clean image belongs to which degraded one: by name, by each layout's own rule."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmfe_cache.errors import DataError
from mmfe_cache.images import read_size
from mmfe_cache.names import composed, first_few, stem_of


@dataclass(frozen=True, slots=True)
class FilePair:
    """A degraded file and its ground truth.

    Attributes:
        stem: the sample's name within its part.
        scene: the clean photograph's name, or that of the sequence which a frame is of.
        degraded: the degraded file; None where it is made from the clean one.
        clean: the clean file; None where there is none.
    """

    stem: str
    scene: str
    degraded: Path | None
    clean: Path | None


@dataclass(frozen=True, slots=True)
class Pairing:
    """What pairing two listings gave.

    Attributes:
        pairs: sorted by stem.
        unpaired_degraded: degraded files without ground truth.
        unpaired_clean: clean files without any degraded picture.
        notes: what else is odd, such as names that differ in case only.
    """

    pairs: tuple[FilePair, ...]
    unpaired_degraded: tuple[Path, ...]
    unpaired_clean: tuple[Path, ...]
    notes: tuple[str, ...] = ()


PairingRule = Callable[[Sequence[Path], Sequence[Path]], Pairing]
"""Degraded files and clean files, both sorted, to pairs."""


def by_name(degraded: Sequence[Path], clean: Sequence[Path]) -> Pairing:
    """Equal names, endings aside: ``0001.jpg`` and ``0001.png`` are a pair."""
    return _by_keys(degraded, clean, stem_of, stem_of)


def by_clean_name(degraded: Sequence[Path], clean: Sequence[Path]) -> Pairing:
    """Equal names, where many degraded files are meant to have no answer among these."""
    answered = {stem_of(path) for path in clean}
    return by_name([path for path in degraded if stem_of(path) in answered], clean)


def by_sequence(degraded: Sequence[Path], clean: Sequence[Path]) -> Pairing:
    """GoPro as published, ``SEQ/blur/N.png`` and ``SEQ/sharp/N.png``: sequence and name agree."""

    def key(path: Path) -> str:
        return f"{path.parent.parent.name}-{stem_of(path)}"

    found = _by_keys(degraded, clean, key, key)
    sequences = {key(path): composed(path.parent.parent.name) for path in degraded}
    pairs = [replace(pair, scene=sequences[pair.stem]) for pair in found.pairs]
    return replace(found, pairs=tuple(pairs))


def by_frame(degraded: Sequence[Path], clean: Sequence[Path]) -> Pairing:
    """GoPro's frames, or crops of them, in one folder: equal names, whose sequence is the scene."""
    found = by_name(degraded, clean)
    pairs = [replace(pair, scene=sequence_of(pair.scene)) for pair in found.pairs]
    return replace(found, pairs=tuple(pairs))


def sequence_of(name: str) -> str:
    """``GOPR0372_07_00`` for its frame ``GOPR0372_07_00-000047`` and that one's crop ``…-s012``.

    Any other name is its own scene: neighbouring frames show the same, so that what is held out
    of training must not be frames of what is trained on.
    """
    frame = re.fullmatch(r"(GOPR\d+_\d+_\d+)[-_]\d+(?:-s\d+)?", name)
    return frame[1] if frame else name


def by_rain_number(degraded: Sequence[Path], clean: Sequence[Path]) -> Pairing:
    """Rain100L as published, ``rain-12.png`` and ``norain-12.png``; equal names pair too."""
    if degraded != clean:
        return _by_keys(degraded, clean, rain_key, rain_key)
    # Both kinds lie in one folder; the prefix tells them apart.
    kinds = {
        prefix: [path for path in degraded if path.stem.startswith(prefix)]
        for prefix in ("rain-", "norain-")
    }
    found = _by_keys(kinds["rain-"], kinds["norain-"], rain_key, rain_key)
    others = [path.name for path in degraded if not any(path in kind for kind in kinds.values())]
    if not others:
        return found
    note = (
        f"{len(others)} images that are neither rain-N nor norain-N, left out: {first_few(others)}"
    )
    return replace(found, notes=(*found.notes, note))


def rain_key(path: Path) -> str:
    """``rain-012`` for Rain100L's ``rain-12``, ``norain-12`` and ``rain-012x2``."""
    number = re.fullmatch(r"(?:no)?rain-0*(\d+)(?:x2)?", stem_of(path))
    return f"rain-{int(number[1]):03d}" if number else stem_of(path)


def by_haze_id(degraded: Sequence[Path], clean: Sequence[Path]) -> Pairing:
    """RESIDE, ``0025_0.8_0.1.jpg`` and ``0025.png``: one clean photograph, many hazy ones."""
    answers = _unique(clean, stem_of)
    pairs: list[FilePair] = []
    unpaired: list[Path] = []
    used: set[str] = set()
    _unique(degraded, stem_of)
    for path in degraded:
        scene = stem_of(path).split("_")[0]
        if scene in answers:
            pairs.append(FilePair(stem_of(path), scene, path, answers[scene]))
            used.add(scene)
        else:
            unpaired.append(path)
    alone = tuple(path for scene, path in answers.items() if scene not in used)
    return Pairing(_sorted(pairs), tuple(unpaired), alone, _case_notes(unpaired, alone, stem_of))


def by_order(degraded: Sequence[Path], clean: Sequence[Path]) -> Pairing:
    """MoCE-IR's rule for Rain100L: the n-th of one folder and the n-th of the other.

    Names decide where they can; order decides only where no name agrees, between equally many
    files, and only when the two pictures of every pair are of one size.

    Raises:
        DataError: order would pair pictures of different sizes.
    """
    named = by_rain_number(degraded, clean)
    if not named.unpaired_degraded and not named.unpaired_clean:
        return named
    if len(degraded) != len(clean) or named.pairs:
        return named
    pairs = [
        FilePair(stem_of(path), stem_of(answer), path, answer)
        for path, answer in zip(degraded, clean, strict=True)
    ]
    for path, answer in zip(degraded, clean, strict=True):
        if read_size(path) != read_size(answer):
            raise DataError(
                "sort order pairs pictures of different sizes, so it cannot be trusted",
                got=f"{path.name} and {answer.name}",
                expected="equal names, or pictures of equal size at equal places",
                remedy="rename the files so that both folders use the same names",
            )
    note = f"{len(pairs)} pairs by sort order, as this layout has it; their sizes agree"
    return Pairing(_sorted(pairs), (), (), (note,))


def clean_only(degraded: Sequence[Path], clean: Sequence[Path]) -> Pairing:
    """Photographs that are degraded by a formula: there is no degraded file."""
    del degraded
    answers = _unique(clean, stem_of)
    return Pairing(_sorted([FilePair(s, s, None, path) for s, path in answers.items()]), (), ())


def _by_keys(
    degraded: Sequence[Path],
    clean: Sequence[Path],
    degraded_key: Callable[[Path], str],
    clean_key: Callable[[Path], str],
) -> Pairing:
    inputs, answers = _unique(degraded, degraded_key), _unique(clean, clean_key)
    pairs = [
        FilePair(key, key, path, answers[key]) for key, path in inputs.items() if key in answers
    ]
    unpaired = tuple(path for key, path in inputs.items() if key not in answers)
    alone = tuple(path for key, path in answers.items() if key not in inputs)
    return Pairing(_sorted(pairs), unpaired, alone, _case_notes(unpaired, alone, degraded_key))


def _unique(paths: Sequence[Path], key: Callable[[Path], str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        name = key(path)
        if name in found:
            raise DataError(
                f"two files claim the name {name!r}",
                got=f"{found[name]} and {path}",
                expected="one file a name",
                remedy="move one of them away",
            )
        found[name] = path
    return found


def _sorted(pairs: list[FilePair]) -> tuple[FilePair, ...]:
    return tuple(sorted(pairs, key=lambda pair: pair.stem))


def _case_notes(
    degraded: Sequence[Path], clean: Sequence[Path], key: Callable[[Path], str]
) -> tuple[str, ...]:
    by_case = {key(path).casefold(): path.name for path in clean}
    odd = [
        f"{path.name} / {by_case[key(path).casefold()]}"
        for path in degraded
        if key(path).casefold() in by_case
    ]
    return (f"names that differ in case only are not paired: {first_few(odd)}",) if odd else ()
