"""Photographs, told apart by scene, and split into train and test by scene."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmfe_cache.errors import DataError, UsageError
from mmfe_cache.seeds import seed_of

from .listing import list_images, stem_of

Split = Literal["train", "test"]

_STEREO = re.compile(r"[-_ .](left|right|l|r)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Photograph:
    """A clean photograph of a folder.

    Attributes:
        name: unique in its set; the file's stem, with its folder's where stems repeat.
        path: the file.
    """

    name: str
    path: Path


def find_photographs(where: Path | Sequence[Path]) -> tuple[Photograph, ...]:
    """All photographs of a folder and its subfolders, or of a list of files and folders.

    Raises:
        DataError: there is none, or a folder is missing.
    """
    places = [where] if isinstance(where, Path) else list(where)
    files: list[tuple[Path, Path]] = []
    for place in places:
        if place.is_file():
            files.append((place, Path(place.name)))
        else:
            files += [
                (path, path.relative_to(place))
                for path in list_images(place, recursive=True).images
            ]
    if not files:
        raise DataError(
            "there is no photograph",
            got=f"no image file in {', '.join(map(str, places)) or 'an empty list'}",
            expected="at least one .png, .jpg, .bmp, .tif, .webp or .ppm file",
        )
    stems = [stem_of(path) for path, _ in files]
    repeated = (
        {stem for stem in stems if stems.count(stem) > 1}
        if len(set(stems)) < len(stems)
        else set[str]()
    )
    photographs: dict[str, Photograph] = {}
    for path, inside in files:
        name = stem_of(path)
        if name in repeated:
            name = "-".join((*inside.parts[:-1], stem_of(inside)))
        if name in photographs:
            name = f"{name}-{path.suffix[1:].lower()}"
        if name in photographs:
            raise DataError(
                f"two photographs claim the name {name!r}",
                got=f"{photographs[name].path} and {path}",
                remedy="rename one of them",
            )
        photographs[name] = Photograph(name, path)
    return tuple(sorted(photographs.values(), key=lambda photograph: photograph.name))


def not_photographs(where: Path | Sequence[Path]) -> tuple[str, ...]:
    """What `find_photographs` leaves out of the same folders, a line for each kind."""
    folders = [place for place in ([where] if isinstance(where, Path) else where) if place.is_dir()]
    return tuple(
        f"{folder}: {line}"
        for folder in folders
        for line in list_images(folder, recursive=True).left_out()
    )


def scene_of(name: str) -> str:
    """The scene that a photograph shows: the two halves of a stereo pair show the same one."""
    return _STEREO.sub("", name) or name


def split_photographs(
    photographs: Sequence[Photograph], test_share: float = 0.2, seed: int = 0
) -> dict[Split, tuple[Photograph, ...]]:
    """Split by scene; the same names always split the same way.

    Args:
        photographs: from `find_photographs`.
        test_share: part of the scenes that goes to test; strictly between 0 and 1 each split
            gets at least one, 0 leaves test empty and 1 train.
        seed: another seed, another split.

    Raises:
        DataError: fewer than two scenes.
        UsageError: the share is not inside [0, 1].
    """
    if not 0 <= test_share <= 1:
        raise UsageError("the test share is out of range", got=test_share, expected="0 to 1")
    if test_share in (0, 1):
        empty: tuple[Photograph, ...] = ()
        whole = tuple(photographs)
        return (
            {"train": whole, "test": empty} if test_share == 0 else {"train": empty, "test": whole}
        )
    scenes = sorted(
        {scene_of(photograph.name) for photograph in photographs},
        key=lambda scene: seed_of("split", seed, scene),
    )
    if len(scenes) < 2:
        raise DataError(
            "one scene cannot be split into train and test",
            got=", ".join(photograph.name for photograph in photographs),
            expected="at least two photographs of different scenes",
            remedy="add photographs, or name a second folder with --test-photos",
        )
    count = min(len(scenes) - 1, max(1, round(test_share * len(scenes))))
    chosen = set(scenes[:count])
    return {
        "train": tuple(p for p in photographs if scene_of(p.name) not in chosen),
        "test": tuple(p for p in photographs if scene_of(p.name) in chosen),
    }
