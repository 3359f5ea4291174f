"""Names of files and folders, as one sequence of code points on every file system.

Some file systems give ``é`` back as ``e`` and an accent: pairs, ids, maps and the noise that is
drawn from names must not depend on that.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from mmfe_cache.errors import DataError


def composed(name: str) -> str:
    """A name in NFC, in which ``é`` is one code point."""
    return unicodedata.normalize("NFC", name)


def stem_of(path: Path) -> str:
    """The file's name without its ending, `composed`.

    Raises:
        DataError: the name is not text, so that no list of samples can hold it.
    """
    return _text(path.stem, path, "a file's name is not text", "rename the file")


def folders_of(path: Path) -> tuple[str, ...]:
    """The names of the folders that a path leads through, `composed`; they may hold dots.

    Raises:
        DataError: as for `stem_of`.
    """
    return tuple(
        _text(name, path, "a folder's name is not text", "rename the folder")
        for name in path.parts[:-1]
    )


def _text(name: str, path: Path, problem: str, remedy: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(
            problem, got=printable(path), expected="a name in UTF-8", remedy=remedy
        ) from None
    return composed(name)


def printable(path: Path) -> str:
    """A path that can be printed, whatever bytes it is made of."""
    return str(path).encode(errors="backslashreplace").decode()


def first_few(names: Sequence[str], limit: int = 5) -> str:
    """The first few names, printable, and how many more there are, for a message."""
    first = ", ".join(printable(Path(name)) for name in names[:limit])
    return first if len(names) <= limit else f"{first} and {len(names) - limit} more"
