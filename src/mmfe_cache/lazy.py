"""Public names of a package that are imported at their first use (PEP 562).

`mmfe --help`, reading a recipe and saying that a file is missing must not wait for torch, and
restoring a photograph must not wait for what evaluation needs. In a module of its own, because
every package with such names needs the same two functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of ``package``.

    Args:
        package: its ``__name__``.
        homes: public name to the module that defines it.
    """

    def find(name: str) -> object:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(home), name)

    return find, lambda: sorted(homes)
