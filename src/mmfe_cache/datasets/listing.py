"""Which image files a folder holds: sorted, each once, whatever else lies there named."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmfe_cache.errors import DataError
from mmfe_cache.images import IMAGE_SUFFIXES


@dataclass(frozen=True, slots=True)
class Listing:
    """A folder's content.

    Attributes:
        images: image files, sorted by their path.
        ignored: other files that lie there, and folders that were not looked into, sorted; hidden
            ones are not even listed.
        loops: symbolic links that lead back to a folder already seen, or nowhere.
    """

    images: tuple[Path, ...]
    ignored: tuple[Path, ...]
    loops: tuple[Path, ...]

    def left_out(self) -> tuple[str, ...]:
        """A line for each kind of thing that is no image, with names."""
        return left_out(self.ignored, self.loops)


def list_images(folder: Path, recursive: bool = False) -> Listing:
    """List the image files of ``folder``.

    Args:
        folder: where to look.
        recursive: look into subfolders too, each once, however links lead there.

    Raises:
        DataError: the folder is missing, is a file, or may not be read.
    """
    images: list[Path] = []
    ignored: list[Path] = []
    loops: list[Path] = []
    for path in _walk(folder, recursive, set(), loops, ignored):
        (images if path.suffix.lower() in IMAGE_SUFFIXES else ignored).append(path)
    return Listing(tuple(sorted(images)), tuple(sorted(ignored)), tuple(sorted(loops)))


def _walk(
    folder: Path,
    recursive: bool,
    seen: set[tuple[int, int]],
    loops: list[Path],
    unvisited: list[Path],
) -> Iterator[Path]:
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            loops.append(folder)
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            children = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        raise DataError(f"folder {folder} does not exist") from None
    except NotADirectoryError:
        raise DataError(f"{folder} is not a folder", expected="a folder of images") from None
    except PermissionError:
        raise DataError(
            f"folder {folder} may not be read", remedy=f"chmod u+rx '{folder}'"
        ) from None
    for child in children:
        if child.name.startswith("."):
            continue
        path = folder / child.name
        try:
            if child.is_file():
                yield path
            elif child.is_dir():
                if recursive:
                    yield from _walk(path, recursive, seen, loops, unvisited)
                else:
                    unvisited.append(path)
            elif child.is_symlink():
                loops.append(path)
            else:
                unvisited.append(path)  # a pipe or a device
        except OSError:
            loops.append(path)


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
