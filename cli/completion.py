"""What the shell completes: names of recipes, guides, tables and data sets; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def datasets(incomplete: str) -> list[str]:
    """Data sets of the registry."""
    from mmfe_cache.datasets import DATASETS

    return _beginning(DATASETS, incomplete)


def guides(incomplete: str) -> list[str]:
    """Named guides."""
    from mmfe_cache.guides.registry import GUIDES

    return _beginning(GUIDES, incomplete)


def recipes(incomplete: str) -> list[str]:
    """Shipped recipes."""
    from mmfe_restore.recipes.loading import recipe_names

    return _beginning(recipe_names(), incomplete)


def tables(incomplete: str) -> list[str]:
    """Tables whose rows are recipes."""
    from mmfe_restore.recipes.loading import recipe_names

    found = dict.fromkeys(name.split("/")[0] for name in recipe_names() if "/" in name)
    return _beginning(found, incomplete)
