"""``--set key=value``: one change to a recipe, written as its path and a YAML value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from mmfe_cache.errors import UsageError
from mmfe_cache.parsing import parse_yaml
from mmfe_restore.recipes.checks import check_key_path

SHORTHANDS = {"guide": "guide.name"}
"""Whole parts that may be set by one word."""


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Turn ``["model.num_experts=4", "guide=scene"]`` into the nested values of a recipe.

    Setting the guide drops a ``model.guidance_dim`` from below, unless that is set as well:
    the recipe then takes the new guide's width.

    Raises:
        UsageError: no ``=``, an unknown key (with suggestions), or a value that is not YAML.
    """
    values: dict[str, Any] = {}
    for text in overrides:
        key, equals, raw = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UsageError(
                "wrong override", got=repr(text), expected="KEY=VALUE, such as model.num_experts=4"
            )
        path = SHORTHANDS.get(key, key).split(".")
        check_key_path(path)
        try:
            value = parse_yaml(raw, f"--set {key}") if raw.strip() else None
        except yaml.YAMLError as problem:
            raise UsageError(f"the value of {key} is not YAML", got=str(problem)) from None
        place = values
        for part in path[:-1]:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise UsageError(
                    f"{key} is set inside what another override made a single value",
                    got=repr(place),
                    expected=f"a mapping of {part}, or one of the two overrides alone",
                )
        place[path[-1]] = value
    return values


def repeated_keys(overrides: Sequence[str]) -> list[str]:
    """The keys that ``overrides`` set more than once; `parse_overrides` takes their last value."""
    keys = [text.partition("=")[0].strip() for text in overrides]
    keys = [SHORTHANDS.get(key, key) for key in keys]
    return sorted({key for key in keys if keys.count(key) > 1})
