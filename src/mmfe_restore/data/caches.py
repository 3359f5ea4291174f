"""Which store a recipe reads, whose embeddings it must hold, and the command that builds it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmfe_cache.errors import MmfeError, UsageError
from mmfe_cache.guides.registry import find_guide
from mmfe_cache.store import store_path
from mmfe_restore.recipes import Recipe

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/")
"""The beginning of an address that fsspec knows, such as s3://bucket."""


def is_store(path: Path) -> bool:
    """Whether ``path`` means one store, and not the folder of a data set's stores."""
    return path.suffix == ".zarr" or (path / "zarr.json").is_file()


def find_store(recipe: Recipe, dataset: str, split: str, cache: Path | None) -> Path:
    """Where the store of a split lies.

    Args:
        recipe: names the guide.
        dataset: the data set's name.
        split: ``"train"`` or ``"test"``.
        cache: the store itself, or the folder of the data set's stores; None for its default
            place.

    Raises:
        UsageError: ``cache`` is an address: stores are read here by memory map.
    """
    if cache is not None and (address := _ADDRESS.match(str(cache))):
        # As a path, an address has lost one of its two slashes.
        there = f"{address[1]}://{str(cache)[address.end() :].lstrip('/')}"
        store = there if there.endswith(".zarr") else f"{there}/{split}/{recipe.guide.name}.zarr"
        raise UsageError(
            "a cache at an address is not read in training or evaluation: every step would wait",
            got=there,
            expected="a local folder",
            remedy=f"mmfe cache pull {store} cache/{dataset}/{split}/{recipe.guide.name}.zarr",
        )
    if cache is not None and is_store(cache):
        return cache
    return store_path(dataset, split, recipe.guide.name, root=cache)


def build_command(
    recipe: Recipe,
    dataset: str,
    split: str,
    views: Sequence[str],
    *,
    root: Path | None = None,
    cache: Path | None = None,
) -> str:
    """The command that builds the store that `find_store` looks for.

    A store at a place of its own cannot be asked for: the command then builds the default one.
    """
    words = ["mmfe", "cache", "build", "--dataset", dataset, "--split", split]
    words += ["--guide", recipe.guide.name, "--views", ",".join(views)]
    if root is not None:
        words += ["--root", str(root)]
    if cache is not None and is_store(cache):
        above = cache.parent.parent
        cache = (
            above if store_path(dataset, split, recipe.guide.name, root=above) == cache else None
        )
    if cache is not None:
        words += ["--out", str(cache)]
    return shlex.join(words)


def guide_name(recipe: Recipe) -> str:
    """What a store calls the recipe's guide: a registry name, or its folder's or file's."""
    try:
        return find_guide(recipe.guide.name).name
    except MmfeError:
        # The guide's own files need not lie on a training machine.
        return Path(recipe.guide.name).stem if "/" in recipe.guide.name else recipe.guide.name


def guide_fingerprint(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a store's fingerprint that says how its guide sees: equal for all splits."""
    return {key: value for key, value in fingerprint.items() if key.startswith("guide.")}
