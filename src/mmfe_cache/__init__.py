"""Stage one of mmfe: samples, views, guides and the cache of what guides see."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmfe_cache.embeddings import Embeddings
    from mmfe_cache.guides import load_guide
    from mmfe_cache.store.reader import open_cache

__all__ = ["Embeddings", "load_guide", "open_cache"]

# Imported when asked for (PEP 562), so that `mmfe --help` and a folder listing stay fast.
_HOMES = {
    "Embeddings": "mmfe_cache.embeddings",
    "load_guide": "mmfe_cache.guides",
    "open_cache": "mmfe_cache.store.reader",
}


def __getattr__(name: str) -> object:
    """Import a public name from its home at its first use."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
