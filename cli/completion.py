"""Names that the shell completes: data sets, guides, recipes, tables and networks.

Imports no torch. Where no name begins with what was typed, the shell completes paths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import get_args

from . import choices


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _one_of(*names: str) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return _beginning(names, incomplete)

    return complete


def _last_of(names: Iterable[str], incomplete: str) -> list[str]:
    """The last of several, separated by commas; none that stands there already."""
    before, comma, last = incomplete.rpartition(",")
    there = before.split(",")
    return [f"{before}{comma}{name}" for name in _beginning(names, last) if name not in there]


def datasets(incomplete: str) -> list[str]:
    """Data sets of the registry."""
    from mmfe_cache.datasets import DATASETS

    return _beginning(DATASETS, incomplete)


def guides(incomplete: str) -> list[str]:
    """Named guides."""
    from mmfe_cache.guides.registry import GUIDES

    return _beginning(GUIDES, incomplete)


def guides_of_photographs(incomplete: str) -> list[str]:
    """Named guides that see pictures, and ``none``, the null guidance."""
    from mmfe_cache.guides.registry import GUIDES

    seeing = [name for name, info in GUIDES.items() if info.reads == "pixels"]
    return _beginning([*seeing, "none"], incomplete)


def checkpoints(incomplete: str) -> list[str]:
    """Networks that come with the package, and finished runs."""
    from mmfe_restore.model.folders import finished_runs, shipped_models

    return _beginning([*shipped_models(), *map(str, finished_runs())], incomplete)


def runs(incomplete: str) -> list[str]:
    """Finished runs."""
    from mmfe_restore.model.folders import finished_runs

    return _beginning(map(str, finished_runs()), incomplete)


def lists_of_recipes(incomplete: str) -> list[str]:
    """The last of several tables or recipes, separated by commas."""
    return _last_of([*tables(""), *recipes("")], incomplete)


def recipes(incomplete: str) -> list[str]:
    """Shipped recipes."""
    from mmfe_restore.recipes.loading import recipe_names

    return _beginning(recipe_names(), incomplete)


def tables(incomplete: str) -> list[str]:
    """Tables whose rows are recipes."""
    from mmfe_restore.recipes.loading import recipe_names

    found = dict.fromkeys(name.split("/")[0] for name in recipe_names() if "/" in name)
    return _beginning(found, incomplete)


def kinds(incomplete: str) -> list[str]:
    """The last of several degradations, separated by commas."""
    from mmfe_cache.degradations import KINDS

    return _last_of(KINDS, incomplete)


inspecting_guides = _one_of("scene")
"""Named guides that name degradations."""

splits = _one_of(*get_args(choices.Split))

devices = _one_of("auto", "cpu", "cuda", "mps")
"""What computes; a further GPU is cuda:N."""

guide_devices = _one_of("auto", "cpu", "cuda")
"""What trains and runs guides."""

resumptions = _one_of("auto", "none")
"""From where a training goes on, beside the path of a checkpoint."""

wholes = _one_of("auto", "off")
"""What ``--tile`` and ``--window`` take beside a number of pixels."""
