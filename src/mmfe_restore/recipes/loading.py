"""From names, files and overrides to a validated `Recipe`, and back to plain values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import TypeAdapter, ValidationError

from mmfe_cache.errors import UsageError
from mmfe_cache.parsing import parse_yaml
from mmfe_restore.recipes.checks import (
    FREE_KEYS,
    check_key_path,
    check_recipe,
    out_of_range,
    suggestion,
    unknown_key,
)
from mmfe_restore.recipes.schema import OutOfRangeError, Recipe

SUFFIX = ".yaml"
PACKAGE = "mmfe_restore.recipes"


def recipe_names() -> tuple[str, ...]:
    """The names of all shipped recipes, sorted, such as ``table4a/mofe``."""
    root = resources.files(PACKAGE) / "files"
    found: list[str] = []
    for entry in root.iterdir():
        if entry.is_dir():
            found += [f"{entry.name}/{name}" for name in _yaml_stems(entry.iterdir())]
    return tuple(sorted(found + _yaml_stems(root.iterdir())))


def _yaml_stems(entries: Iterable[Any]) -> list[str]:
    return [e.name.removesuffix(SUFFIX) for e in entries if e.name.endswith(SUFFIX)]


def read_recipe(
    name_or_path: str | Path, above: tuple[str, ...] = ()
) -> tuple[str, dict[str, Any]]:
    """Read a recipe and the recipes it is based on into one dictionary.

    Args:
        name_or_path: a shipped recipe's name, or the path of a YAML file. A ``base`` that is a
            path is looked for beside the file that names it, then from the working directory.
        above: the recipes that are based on this one: shipped names and absolute paths.

    Returns:
        the recipe's name, and what it says over all its bases; ``base`` is gone.

    Raises:
        UsageError: there is no such recipe, it is no YAML mapping, or its bases go in a circle.
    """
    name, file, text = _find(name_or_path)
    where = name if file is None else str(file)
    # A file may bear the name of a shipped recipe, its base among them.
    itself = name if file is None else str(file.resolve())
    if itself in above:
        raise UsageError("a recipe is based on itself", got=" -> ".join((*above, itself)))
    try:
        content = parse_yaml(text, where)
    except yaml.YAMLError as problem:
        raise UsageError(f"recipe is not YAML: {where}", got=str(problem)) from None
    if not isinstance(content, dict) or not all(isinstance(k, str) for k in cast("Any", content)):
        raise UsageError(f"recipe is not a mapping of names to values: {where}")
    values = cast("dict[str, Any]", content)
    base = values.pop("base", None)
    if base is None:
        return name, values
    if not isinstance(base, str):
        raise UsageError(f"base is not the name of a recipe: {where}", got=repr(base))
    _, under = read_recipe(_beside(file, base) or base, (*above, itself))
    return name, lay_over(under, values)


def _beside(file: Path | None, base: str) -> Path | None:
    """The file that ``base`` names beside ``file``; None where there is none."""
    if file is None or not _is_file_name(base):
        return None
    found = file.parent / base
    return found if found.is_file() else None


def _is_file_name(name: str) -> bool:
    return name.endswith((SUFFIX, ".yml"))


def _find(name_or_path: str | Path) -> tuple[str, Path | None, str]:
    """(name, file, text) of a recipe; a shipped one has no file of its own."""
    text_name = str(name_or_path)
    if isinstance(name_or_path, Path) or _is_file_name(text_name):
        path = Path(name_or_path)
        try:
            return path.stem, path, path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise UsageError(
                f"cannot read recipe {path}", got=str(problem), expected="a file of YAML in UTF-8"
            ) from None
    names = recipe_names()
    if text_name not in names:
        raise UsageError(
            "unknown recipe",
            got=repr(text_name),
            expected=suggestion(text_name, names) or ", ".join(names),
            remedy="name one of them, or give the path of a .yaml file",
        )
    file = resources.files(PACKAGE).joinpath("files", *f"{text_name}{SUFFIX}".split("/"))
    return text_name, None, file.read_text(encoding="utf-8")


def lay_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`merge` two recipes: another guide brings its own width, another network no printed count.

    A ``model.guidance_dim`` from below belongs to the guide from below; it goes where ``over``
    names a guide and no width. ``published_parameters`` likewise belongs to the network below, and
    a ``guide.prompt`` to what was asked below: a list of prompts replaces it.
    """
    merged = merge(under, over)
    guide, model = over.get("guide"), over.get("model")
    names_guide = isinstance(guide, Mapping) and "name" in guide
    names_width = isinstance(model, Mapping) and "guidance_dim" in model
    if isinstance(guide, Mapping) and "prompts" in guide and "prompt" not in guide:
        merged["guide"] = {k: v for k, v in merged["guide"].items() if k != "prompt"}
    if names_guide and not names_width and isinstance(merged.get("model"), Mapping):
        merged["model"] = {k: v for k, v in merged["model"].items() if k != "guidance_dim"}
    if (names_guide or model) and "published_parameters" not in over:
        merged.pop("published_parameters", None)
    return merged


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``under`` with ``over``'s values; mappings merge, everything else is replaced.

    ``repeats`` is replaced whole: a recipe that lists repeats means these and no others.
    """
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and key != "repeats":
            merged[key] = merge(cast("Mapping[str, Any]", below), cast("Mapping[str, Any]", value))
        else:
            merged[key] = value
    return merged


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe by name or path and change it by ``overrides``.

    Args:
        name_or_path: such as ``"cdd11"``, ``"table4a/mofe"`` or ``"my.yaml"``.
        overrides: ``"model.num_experts=4"`` each; the value is YAML. ``guide=scene`` sets the
            guide and, with it, the width of the embeddings. ``data.repeats.rain=60`` sets one
            label's repeats beside the recipe's others, ``data.repeats={rain: 60}`` all of them.

    Raises:
        UsageError: an unknown recipe or key (with the nearest known ones), a value of a wrong
            type or out of range.
    """
    name, values = read_recipe(name_or_path)
    changes = parse_overrides(overrides, values)
    return recipe_from_dict({"name": name, **lay_over(values, changes)})


def recipe_from_dict(values: Mapping[str, Any]) -> Recipe:
    """Validate plain values, such as a saved recipe's.

    A ``model.guidance_dim`` that is left out becomes the width of the recipe's guide, and a
    ``guide.prompt`` beside ``guide.prompts`` the first of them.

    Raises:
        UsageError: as for `load_recipe`.
    """
    filled = merge({"name": "unnamed", "guide": {}, "model": {}}, values)
    guide, model = filled["guide"], filled["model"]
    if isinstance(guide, dict) and isinstance(model, dict):  # or it is refused below
        if "guidance_dim" not in model:
            model["guidance_dim"] = _guide_dim(cast("Mapping[str, Any]", guide))
        prompts = cast("Mapping[str, Any]", guide).get("prompts")
        if isinstance(prompts, list) and prompts and guide.get("prompt") is None:
            filled["guide"] = {**guide, "prompt": prompts[0]}
    judged = filled.get("eval")
    if isinstance(judged, dict) and judged.get("tile", ...) is None:
        # Checkouts between two releases had such a key, which nothing used.
        filled["eval"] = {key: value for key, value in judged.items() if key != "tile"}
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


EXECUTION_KEYS = (
    "train.accumulate",
    "train.activation_checkpointing",
    "train.activation_memory",
    "train.compile",
    "train.kernels",
    "train.num_workers",
    "train.checkpoint_every",
    "train.log_every",
)
"""How a step is computed, saved and told, but not what it computes: a run that does not fit a GPU,
or does not compile there, goes on with others. The model is the same but for rounding."""


def defining_overrides(overrides: Sequence[str]) -> list[str]:
    """The ``KEY=VALUE`` that set none of `EXECUTION_KEYS`: they define which model is trained."""
    return [one for one in overrides if one.partition("=")[0].strip() not in EXECUTION_KEYS]


def recipe_settings(recipe: Recipe) -> dict[str, Any]:
    """`recipe_to_dict` without `LABELS` and `EXECUTION_KEYS`: equal where one model is trained.

    ``guide.prompt`` is what is asked: the paper's question is the one by default, named or not.
    """
    found = {key: value for key, value in recipe_to_dict(recipe).items() if key not in LABELS}
    found["guide"]["prompt"] = recipe.guide.asked
    for part, _, key in (name.partition(".") for name in EXECUTION_KEYS):
        del found[part][key]
    return found


def changed_settings(there: Recipe, here: Recipe) -> dict[str, Any]:
    """In which settings ``there`` trains otherwise than ``here``: ``part.key`` to its value."""
    theirs, ours = (
        {f"{part}.{key}": value for part in found for key, value in found[part].items()}
        for found in (recipe_settings(there), recipe_settings(here))
    )
    return {key: theirs[key] for key in sorted(theirs) if theirs[key] != ours[key]}


@cache
def _adapter() -> TypeAdapter[Recipe]:
    return TypeAdapter(Recipe)


def _guide_dim(guide: Mapping[str, Any]) -> int:
    from mmfe_cache.guides.registry import guide_dim

    name = guide.get("name", "qwen2.5-vl-3b")
    return guide_dim(name) if isinstance(name, str) else 0


def _usage_error(problem: ValidationError) -> UsageError:
    errors = problem.errors()
    first = next((e for e in errors if e["type"] == "unexpected_keyword_argument"), errors[0])
    # A stage's place in its list is not part of its key, nor is a number's in a tuple.
    key = ".".join(part for part in first["loc"] if isinstance(part, str)) or "recipe"
    if first["type"] == "unexpected_keyword_argument":
        return unknown_key(key)
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, OutOfRangeError):
        return out_of_range(key, first["input"], str(cause))
    told = "a mapping" if first["type"] == "dataclass_type" else first["msg"]
    return UsageError(
        f"wrong value in the recipe: {key}",
        got=repr(first["input"]),
        expected=told[:1].lower() + told[1:],
        remedy="mmfe train --print-config shows every key with its value",
    )


SHORTHANDS = {"guide": "guide.name"}
"""Whole parts that may be set by one word."""


def parse_overrides(overrides: Sequence[str], under: Mapping[str, Any]) -> dict[str, Any]:
    """Turn ``["model.num_experts=4", "guide=scene"]`` into the nested values of a recipe.

    Setting the guide drops a ``model.guidance_dim`` from below, unless that is set as well:
    the recipe then takes the new guide's width.

    Args:
        overrides: ``KEY=VALUE`` each.
        under: what they will be laid over: one key of `FREE_KEYS`, such as
            ``data.repeats.rain``, is set beside the others there, which `merge` would drop.

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
        place, below = values, under
        for depth, part in enumerate(path[:-1], 1):
            found = below.get(part)
            below = cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}
            free = ".".join(path[:depth]) in FREE_KEYS
            place = place.setdefault(part, dict(below) if free else {})
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
    keys = [_key_of(text) for text in overrides]
    return sorted({key for key in keys if keys.count(key) > 1})


def effective_overrides(overrides: Sequence[str]) -> list[str]:
    """Those that `parse_overrides` makes something of, sorted: none that a later one replaces."""
    kept: list[str] = []
    for text in overrides:
        key = _key_of(text)
        kept = [one for one in kept if not f"{_key_of(one)}.".startswith(f"{key}.")]
        kept.append(text)
    return sorted(kept)


def _key_of(override: str) -> str:
    key = override.partition("=")[0].strip()
    return SHORTHANDS.get(key, key)
