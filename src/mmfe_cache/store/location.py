"""Where a cache lies when nobody says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

DEFAULT_PROMPT = "What kinds of degradation in this image?"
"""The paper's question (Section 3); another prompt makes another store."""

CACHE_ROOT = Path("cache")
"""The folder of all caches, relative to the working directory."""


def store_path(
    dataset: str,
    split: str,
    guide: str,
    prompt: str | None = None,
    root: str | Path | None = None,
) -> Path:
    """The default place of a store: ``cache/<dataset>/<split>/<guide>.zarr``.

    Args:
        dataset: the dataset's name.
        split: ``"train"`` or ``"test"``.
        guide: a guide's name, or a checkpoint's directory or file: its name and a short hash of
            what is in it then name the store.
        prompt: what the guide is asked; None for the default. Any other adds a short hash.
        root: the folder that takes the place of ``cache/<dataset>``.
    """
    folder = CACHE_ROOT / dataset if root is None else Path(root)
    asked = None if prompt is None or prompt == DEFAULT_PROMPT else prompt
    checkpoint = Path(guide)
    is_directory = checkpoint.is_dir() and (checkpoint / "config.json").is_file()
    is_local = is_directory or checkpoint.is_file()
    name = guide.replace("/", "-")
    if is_directory:
        name = checkpoint.resolve().name
    elif is_local:
        name = checkpoint.stem
    if is_local or asked is not None:
        about = {"directory": _identity(checkpoint) if is_local else None, "prompt": asked}
        text = json.dumps(about, sort_keys=True).encode()
        name = f"{name}-{hashlib.blake2b(text, digest_size=4).hexdigest()}"
    return folder / split / f"{name}.zarr"


def true_place(path: str | Path) -> Path:
    """Where a store really lies: two names of one store must share its lock and its file system.

    Only a link that is the store itself is followed, and only a path without a name of its own,
    such as ``.``, is spelled out; any other stays as it was given.
    """
    given = Path(path)
    return given.resolve() if given.is_symlink() or given.name in ("", "..") else given


def _identity(directory: Path) -> list[list[str | int]]:
    if directory.is_file():  # a `scene` of one's own: two megabytes
        return [["file", hashlib.blake2b(directory.read_bytes(), digest_size=8).hexdigest()]]
    # Names, sizes and the configuration, not the weights: the path must cost nothing. The
    # guide's fingerprint, which does read the weights, decides whether a store fits.
    files = sorted(path for path in directory.iterdir() if path.is_file())
    listed: list[list[str | int]] = [[path.name, path.stat().st_size] for path in files]
    config = directory / "config.json"
    return [*listed, ["config", hashlib.blake2b(config.read_bytes(), digest_size=8).hexdigest()]]
