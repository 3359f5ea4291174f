"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` aside, flush it to the disk, then rename it to ``path``.

    Raises:
        OSError: it cannot be written, such as on a full disk; ``filename`` is ``path``, and what
            lay there before still does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(aside).chmod(0o666 & ~umask)
        Path(aside).replace(path)
    except BaseException as problem:
        Path(aside).unlink(missing_ok=True)
        if isinstance(problem, OSError) and problem.filename is None:
            problem.filename = str(path)  # the system names no file where a write fails
        raise
