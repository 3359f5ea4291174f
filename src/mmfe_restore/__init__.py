"""Stage two of mmfe: the guided restorer, its training, evaluation and use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmfe_restore.model.restorer import Restorer
    from mmfe_restore.recipes import load_recipe

__all__ = ["Restorer", "load_recipe"]

# Imported when asked for (PEP 562): reading a recipe must not load torch.
_HOMES = {
    "Restorer": "mmfe_restore.model.restorer",
    "load_recipe": "mmfe_restore.recipes",
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
