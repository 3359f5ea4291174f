"""From names, files and overrides to a validated `Recipe`, and back to plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import TypeAdapter, ValidationError

from mmfe_cache.errors import UsageError
from mmfe_cache.parsing import parse_yaml
from mmfe_restore.recipes.checks import check_key_path, check_keys, check_recipe
from mmfe_restore.recipes.reading import lay_over, merge, read_recipe
from mmfe_restore.recipes.schema import Recipe


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe by name or path and change it by ``overrides``.

    Args:
        name_or_path: such as ``"cdd11"``, ``"table4a/mofe"`` or ``"my.yaml"``.
        overrides: ``"model.num_experts=4"`` each; the value is YAML. ``guide=scene`` sets the
            guide and, with it, the width of the embeddings.

    Raises:
        UsageError: an unknown recipe or key (with the nearest known ones), a value of a wrong
            type or out of range.
    """
    name, values = read_recipe(name_or_path)
    changes = parse_overrides(overrides)
    return recipe_from_dict({"name": name, **lay_over(values, changes)})


def recipe_from_dict(values: Mapping[str, Any]) -> Recipe:
    """ValidationCallback plain values, such as a saved recipe's.

    A ``model.guidance_dim`` that is left out becomes the width of the recipe's guide.

    Raises:
        UsageError: as for `load_recipe`.
    """
    check_keys(values)
    filled = merge({"name": "unnamed", "guide": {}, "model": {}, "train": {}}, values)
    precision = filled["train"].get("precision")
    if isinstance(precision, int) and not isinstance(precision, bool):
        filled["train"]["precision"] = str(precision)  # YAML reads `precision: 32` as a number
    if "guidance_dim" not in filled["model"]:
        filled["model"]["guidance_dim"] = _guide_dim(filled["guide"])
    try:
        # JSON, because strict validation then still takes lists for tuples and ints for floats.
        recipe = _adapter().validate_json(json.dumps(filled), strict=True)
    except ValidationError as problem:
        raise _usage_error(problem) from None
    except TypeError as problem:
        raise UsageError("a recipe holds a value that YAML should not have", got=problem) from None
    check_recipe(recipe)
    return recipe


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """Plain values of every setting; `recipe_from_dict` reads them back to an equal recipe."""
    return cast("dict[str, Any]", json.loads(json.dumps(asdict(recipe))))


LABELS = ("name", "description", "published_parameters")
"""What a recipe says for people: two recipes that differ in nothing else train the same model."""


def recipe_settings(recipe: Recipe) -> dict[str, Any]:
    """`recipe_to_dict` without the `LABELS`: equal for recipes that train the same model."""
    return {key: value for key, value in recipe_to_dict(recipe).items() if key not in LABELS}


@cache
def _adapter() -> TypeAdapter[Recipe]:
    return TypeAdapter(Recipe)


def _guide_dim(guide: Mapping[str, Any]) -> int:
    from mmfe_cache.guides.registry import guide_dim

    name = guide.get("name", "qwen2.5-vl-3b")
    return guide_dim(name) if isinstance(name, str) else 0


def _usage_error(problem: ValidationError) -> UsageError:
    first = problem.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return UsageError(
        f"wrong value in the recipe: {place or 'recipe'}",
        got=repr(first["input"]),
        expected=first["msg"][:1].lower() + first["msg"][1:],
        remedy="mmfe train --print-config shows every key with its value",
    )


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
