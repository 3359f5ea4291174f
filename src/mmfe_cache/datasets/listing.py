"""Which image files a folder holds: sorted, each once, whatever else lies there named."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmfe_cache.errors import DataError
from mmfe_cache.images import IMAGE_SUFFIXES


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
        """A line for each kind of thing that is no image, with names."""
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
            raise DataError(f"folder {folder} does not exist") from None
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


def stem_of(path: Path) -> str:
    """The file's name without its ending, as one sequence of code points on every file system.

    Some file systems give ``é`` back as ``e`` and an accent: pairs, ids and the noise that is
    drawn from them must not depend on that.

    Raises:
        DataError: the name is no text, so that no list of samples can hold it.
    """
    try:
        path.stem.encode()
    except UnicodeEncodeError:
        raise DataError(
            "a file's name is no text",
            got=shown(path),
            expected="a name in UTF-8",
            remedy="rename the file",
        ) from None
    return unicodedata.normalize("NFC", path.stem)


def shown(path: Path) -> str:
    """A path that can be printed, whatever bytes it is made of."""
    return str(path).encode(errors="backslashreplace").decode()


def left_out(ignored: Sequence[Path], loops: Sequence[Path]) -> tuple[str, ...]:
    """A line for each kind of thing that was left out, with names."""
    kinds = (
        (ignored, "files that are no images, or folders, left out"),
        (loops, "links that lead in a circle or nowhere, left out"),
    )
    return tuple(
        f"{len(paths)} {what}: {some([path.name for path in paths])}"
        for paths, what in kinds
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


def some(names: list[str] | tuple[str, ...], limit: int = 5) -> str:
    """The first few names, and how many more there are, for a message."""
    first = ", ".join(shown(Path(name)) for name in names[:limit])
    return first if len(names) <= limit else f"{first} and {len(names) - limit} more"
