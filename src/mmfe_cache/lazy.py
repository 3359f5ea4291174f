"""Public names of a package that are imported at their first use (PEP 562).

`mmfe --help`, reading a recipe and saying that a file is missing must not wait for torch, and
restoring a photograph must not wait for what evaluation needs. In a module of its own, because
every package with such names needs the same two functions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import ModuleType


def lazy_names(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of ``package``, whose ``__all__`` is set.

    Args:
        package: its ``__name__``.
        homes: module of the package, such as ``"registry"``, to the public names it defines.
    """
    modules = {name: f"{package}.{home}" for home, names in homes.items() for name in names}

    def find(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    sys.modules[package].__dict__["__all__"] = sorted(modules)
    named_alike = modules.keys() & homes.keys()

    class Package(ModuleType):
        def __setattr__(self, name: str, value: object) -> None:
            # Importing `training.train` binds the module to its package, where the function
            # `training.train` is public.
            if name not in named_alike or not isinstance(value, ModuleType):
                super().__setattr__(name, value)

    if named_alike:
        sys.modules[package].__class__ = Package
    return find, lambda: sorted(modules)
