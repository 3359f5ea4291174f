"""Photographs: the image files of a folder, distinguished by scene, split by scene, or bundled."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmfe_cache.errors import DataError, UsageError
from mmfe_cache.images import IMAGE_SUFFIXES
from mmfe_cache.io import look_there
from mmfe_cache.names import first_few, folders_of, stem_of
from mmfe_cache.seeds import seed_of


@dataclass(frozen=True, slots=True)
class Listing:
    """A folder's content.

    Attributes:
        images: image files, sorted by their path.
        ignored: other files that lie there, and folders that were not looked into, sorted.
        loops: symbolic links that lead back to a folder already seen, or nowhere.
        hidden: files and folders that a system keeps for itself: names that start with a dot
            (such as the ``._a.jpg`` that macOS writes beside ``a.jpg``), and ``__MACOSX``.
        skipped: folders that the caller wanted left out.
        unreadable: subfolders that may not be read, where the caller goes on without them.
    """

    images: tuple[Path, ...]
    ignored: tuple[Path, ...]
    loops: tuple[Path, ...]
    hidden: tuple[Path, ...] = ()
    skipped: tuple[Path, ...] = ()
    unreadable: tuple[Path, ...] = ()

    def left_out(self) -> tuple[str, ...]:
        """A line for each kind of thing that is not an image, with names."""
        return left_out(self.ignored, self.loops)


def is_image_name(path: Path) -> bool:
    """Whether a file's ending says that it is an image, as data sets hold them."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def list_images(
    folder: Path,
    recursive: bool = False,
    *,
    wanted: Callable[[Path], bool] = is_image_name,
    skip: Sequence[Path] = (),
    go_on: bool = False,
) -> Listing:
    """List the image files of ``folder``: the one way in which every command looks into folders.

    Args:
        folder: where to look.
        recursive: look into subfolders too, each once, however links lead there.
        wanted: tells by a file's name whether it is an image.
        skip: folders that are not looked into, however links lead there.
        go_on: a subfolder that may not be read is listed and the rest is searched.

    Raises:
        DataError: the folder is missing, is a file, or may not be read.
    """
    walk = _Walk(recursive, wanted, frozenset(filter(None, map(_identity, skip))), go_on)
    walk.into(folder, first=True)
    found = (
        walk.images, walk.ignored, walk.loops, walk.hidden, walk.skipped, walk.unreadable,
    )  # fmt: skip
    return Listing(*(tuple(sorted(paths)) for paths in found))


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class _Walk:
    """One search through a folder; what it finds lies in its lists."""

    def __init__(
        self,
        recursive: bool,
        wanted: Callable[[Path], bool],
        skip: frozenset[tuple[int, int]],
        go_on: bool,
    ) -> None:
        self._recursive, self._wanted, self._skip, self._go_on = recursive, wanted, skip, go_on
        self._seen: set[tuple[int, int]] = set()
        self.images: list[Path] = []
        self.ignored: list[Path] = []
        self.loops: list[Path] = []
        self.hidden: list[Path] = []
        self.skipped: list[Path] = []
        self.unreadable: list[Path] = []

    def into(self, folder: Path, first: bool = False) -> None:
        try:
            status = folder.stat()
            identity = status.st_dev, status.st_ino
            if identity in self._skip and not first:
                self.skipped.append(folder)
                return
            if identity in self._seen:
                self.loops.append(folder)
                return
            self._seen.add(identity)
            with os.scandir(folder) as entries:
                children = sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            raise DataError(
                f"folder {folder} does not exist", expected="a folder of images"
            ) from None
        except NotADirectoryError:
            raise DataError(f"{folder} is not a folder", expected="a folder of images") from None
        except PermissionError:
            if self._go_on and not first:
                self.unreadable.append(folder)
                return
            raise DataError(
                f"folder {folder} may not be read", remedy=f"chmod u+rx '{folder}'"
            ) from None
        for child in children:
            self._take(folder / child.name, child)

    def _take(self, path: Path, child: os.DirEntry[str]) -> None:
        if child.name.startswith(".") or child.name == "__MACOSX":
            self.hidden.append(path)
            return
        try:
            if child.is_file():
                (self.images if self._wanted(path) else self.ignored).append(path)
            elif child.is_dir():
                if self._recursive:
                    self.into(path)
                else:
                    self.ignored.append(path)
            elif child.is_symlink():
                self.loops.append(path)
            else:
                self.ignored.append(path)  # a pipe or a device
        except OSError:
            self.loops.append(path)


def left_out(ignored: Sequence[Path], loops: Sequence[Path]) -> tuple[str, ...]:
    """A line for each kind of thing that was left out, with names."""
    kinds = (
        (ignored, "file that is not an image, or folder", "files that are not images, or folders"),
        (
            loops,
            "link that leads in a circle or nowhere",
            "links that lead in a circle or nowhere",
        ),
    )
    return tuple(
        f"{len(paths)} {one if len(paths) == 1 else several}, left out: "
        f"{first_few([path.name for path in paths])}"
        for paths, one, several in kinds
        if paths
    )


def similar_folder(path: Path) -> Path | None:
    """A folder beside ``path`` whose name differs in case only, to point a user to it."""
    try:
        siblings = sorted(path.parent.iterdir())
    except OSError:
        return None
    wanted = path.name.casefold()
    for sibling in siblings:
        if sibling.name != path.name and sibling.name.casefold() == wanted and sibling.is_dir():
            return sibling
    return None


Split = Literal["train", "test"]

_STEREO = re.compile(r"[-_ .](left|right|l|r)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Photograph:
    """A clean photograph of a folder.

    Attributes:
        name: unique in its set, also where case does not count; the file's stem, with its folder's
            where stems repeat.
        path: the file.
        scene: what it shows: photographs of one scene never lie in two splits.
    """

    name: str
    path: Path
    scene: str


def find_photographs(
    where: Path | Sequence[Path], *, skip: Sequence[Path] = ()
) -> tuple[Photograph, ...]:
    """All photographs of a folder and its subfolders, or of a list of files and folders.

    Args:
        where: the folder, or the list.
        skip: folders below them that are not looked into.

    Raises:
        DataError: there is none, a folder is missing, or two claim one name.
    """
    places = [where] if isinstance(where, Path) else list(where)
    files: list[tuple[Path, Path]] = []
    for place in places:
        if place.is_file():
            files.append((place, Path(place.name)))
        elif not place.exists():
            raise DataError(
                f"{place} does not exist",
                expected="a photograph or a folder",
                remedy=look_there(place),
            )
        else:
            files += [
                (path, path.relative_to(place))
                for path in list_images(place, recursive=True, skip=skip).images
            ]
    if not files:
        raise DataError(
            "there is no photograph",
            got=f"no image file in {', '.join(map(str, places)) or 'an empty list'}",
            expected="at least one .png, .jpg, .bmp, .tif, .webp or .ppm file",
        )
    # Names become files of one folder: where case does not count, one would replace another.
    times = Counter(stem_of(path).casefold() for path, _ in files)
    photographs: dict[str, Photograph] = {}
    for path, inside in files:
        name = stem_of(path)
        if times[name.casefold()] > 1:
            name = "-".join((*folders_of(inside), stem_of(inside)))
        # Of one stem in one folder, such as a camera's JPEG and what was made of it: one scene.
        scene = scene_of(name)
        if name.casefold() in photographs:
            name = f"{name}-{path.suffix[1:].lower()}"
        key = name.casefold()
        if key in photographs:
            raise DataError(
                f"two photographs claim the name {name!r}",
                got=f"{photographs[key].path} and {path}",
                expected="names that differ in more than upper and lower case",
                remedy="rename one of them",
            )
        photographs[key] = Photograph(name, path, scene)
    return tuple(sorted(photographs.values(), key=lambda photograph: photograph.name))


def not_photographs(
    where: Path | Sequence[Path], *, skip: Sequence[Path] = (), known: Collection[Path] = ()
) -> tuple[str, ...]:
    """What `find_photographs` leaves out of the same folders, a line for each kind.

    Args:
        where: as for `find_photographs`.
        skip: likewise.
        known: files that have another use, and are no news.
    """
    folders = [place for place in ([where] if isinstance(where, Path) else where) if place.is_dir()]
    lines: list[str] = []
    for folder in folders:
        listing = list_images(folder, recursive=True, skip=skip)
        others = [path for path in listing.ignored if path not in known]
        lines += [f"{folder}: {line}" for line in left_out(others, listing.loops)]
    return tuple(lines)


def scene_of(name: str) -> str:
    """The scene that a photograph shows: the two halves of a stereo pair show the same one."""
    return _STEREO.sub("", name) or name


def scenes_of(names: Iterable[str]) -> dict[str, str]:
    """The scene of each photograph, by the names that `find_photographs` gave.

    Of files of one stem in one folder, all but the first have their ending in their names:
    ``IMG_4`` and ``IMG_4-png`` show one scene.
    """
    known = set(names)
    return {name: scene_of(_first_of_its_stem(name, known)) for name in known}


def _first_of_its_stem(name: str, known: Collection[str]) -> str:
    stem, _, ending = name.rpartition("-")
    return stem if stem in known and f".{ending}" in IMAGE_SUFFIXES else name


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
        {photograph.scene for photograph in photographs},
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
        "train": tuple(p for p in photographs if p.scene not in chosen),
        "test": tuple(p for p in photographs if p.scene in chosen),
    }


def photographs_below(folder: Path, *, skip: Sequence[Path] = ()) -> list[Photograph]:
    """All photographs below ``folder`` in the order of their paths, named by `find_photographs`.

    Args:
        folder: where to look; hidden files and folders are left out.
        skip: folders below it that are not looked into.

    Raises:
        DataError: there is no such folder, no image in it, or two claim one name.
    """
    if not folder.is_dir():
        raise DataError("no such folder of photographs", got=folder, expected="a folder of images")
    if not list_images(folder, recursive=True, skip=skip).images:
        raise DataError(
            "no photographs in this folder",
            got=folder,
            expected=f"files ending in {', '.join(sorted(IMAGE_SUFFIXES))}",
        )
    found = find_photographs(folder, skip=skip)
    return sorted(found, key=lambda photograph: photograph.path)
