"""Reads recipe files: YAML with a ``base`` that a file changes in a few places."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, cast

import yaml

from mmfe_cache.errors import UsageError
from mmfe_cache.parsing import parse_yaml

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


def read_recipe(name_or_path: str | Path) -> tuple[str, dict[str, Any]]:
    """Read a recipe and the recipes it is based on into one dictionary.

    Args:
        name_or_path: a shipped recipe's name, or the path of a YAML file.

    Returns:
        the recipe's name, and what it says over all its bases; ``base`` is gone.

    Raises:
        UsageError: there is no such recipe, it is no YAML mapping, or its bases go in a circle.
    """
    return _read(name_or_path, ())


def _read(name_or_path: str | Path, above: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    name, where, text = _find(name_or_path)
    if name in above:
        raise UsageError("a recipe is based on itself", got=" -> ".join((*above, name)))
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
        raise UsageError(f"base is no recipe name: {where}", got=repr(base))
    _, under = _read(base, (*above, name))
    return name, lay_over(under, values)


def _find(name_or_path: str | Path) -> tuple[str, str, str]:
    """(name, what messages call it, text) of a recipe."""
    text_name = str(name_or_path)
    if isinstance(name_or_path, Path) or text_name.endswith((SUFFIX, ".yml")):
        path = Path(name_or_path)
        try:
            return path.stem, str(path), path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise UsageError(f"cannot read recipe {path}", got=str(problem)) from None
    names = recipe_names()
    if text_name not in names:
        raise UsageError(
            "unknown recipe",
            got=repr(text_name),
            expected=suggestion(text_name, names) or ", ".join(names),
            remedy="name one of them, or give the path of a .yaml file",
        )
    file = resources.files(PACKAGE).joinpath("files", *f"{text_name}{SUFFIX}".split("/"))
    return text_name, text_name, file.read_text(encoding="utf-8")


def lay_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`merge` two recipes: another guide brings its own width, another network no printed count.

    A ``model.guidance_dim`` from below belongs to the guide from below; it goes where ``over``
    names a guide and no width. ``published_parameters`` likewise belongs to the network below.
    """
    merged = merge(under, over)
    guide, model = over.get("guide"), over.get("model")
    names_guide = isinstance(guide, Mapping) and "name" in guide
    names_width = isinstance(model, Mapping) and "guidance_dim" in model
    if names_guide and not names_width and isinstance(merged.get("model"), Mapping):
        merged["model"] = {k: v for k, v in merged["model"].items() if k != "guidance_dim"}
    if (names_guide or model) and "published_parameters" not in over:
        merged.pop("published_parameters", None)
    return merged


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``under`` with ``over``'s values; mappings merge, everything else is replaced.

    ``repeats`` is replaced whole: an override that lists repeats means these and no others.
    """
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and key != "repeats":
            merged[key] = merge(cast("Mapping[str, Any]", below), cast("Mapping[str, Any]", value))
        else:
            merged[key] = value
    return merged


def suggestion(word: str, words: Iterable[str]) -> str | None:
    """``did you mean a, b?`` for the known ``words`` close to ``word``; None where none is."""
    close = difflib.get_close_matches(word, list(words), n=3, cutoff=0.5)
    return f"did you mean {', '.join(close)}?" if close else None
