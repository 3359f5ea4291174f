"""Every key of a recipe with its type, default and meaning, read from the schema itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from mmfe_restore.recipes.schema import Range, Recipe, Stage

_BEFORE = """\
# Recipes: every key

A recipe is a YAML file. `base: NAME` takes everything from another recipe and changes what the file
says; without it a key has the default of these tables, the paper's composite setting.
`--set KEY=VALUE` changes one key; the value is YAML: `--set train.accumulate=2`,
`--set 'train.stages=[{epochs: 3, resolution: 64, batch_size: 8}]'`. `--set guide=NAME` is short for
`guide.name`. `mmfe train --print-config --recipe NAME` shows a recipe in full.

This page is what `mmfe train --explain-config` prints, made from
`src/mmfe_restore/recipes/schema.py`.
"""


@dataclass(frozen=True)
class Key:
    """One key of a recipe.

    Attributes:
        name: as ``--set`` takes it.
        kind: what a value may be, and its range.
        default: the default in YAML's spelling; empty where the key must be given.
        meaning: from the schema's docstring.
    """

    name: str
    kind: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Section:
    """The keys of one part of a recipe.

    Attributes:
        title: the part's name in YAML; empty for the recipe itself.
        about: one sentence.
        keys: in the schema's order.
    """

    title: str
    about: str
    keys: tuple[Key, ...]


def recipe_reference() -> tuple[Section, ...]:
    """Every section of a recipe, the recipe's own keys first and a stage's last."""
    hints = get_type_hints(Recipe)
    parts = [(f.name, hints[f.name]) for f in fields(Recipe) if is_dataclass(hints[f.name])]
    return (
        _section("", Recipe),
        *(_section(name, schema) for name, schema in parts),
        _section("train.stages", Stage),
    )


def recipe_reference_markdown() -> str:
    """`recipe_reference` as the page docs/recipes.md."""
    lines = [_BEFORE]
    for section in recipe_reference():
        lines += [f"## {f'`{section.title}`' if section.title else 'The recipe itself'}", ""]
        lines += [section.about, "", "| key | type | default | meaning |", "|---|---|---|---|"]
        lines += [
            f"| `{key.name}` | {key.kind} | {_code(key.default)} | {key.meaning} |"
            for key in section.keys
        ]
        lines.append("")
    return "\n".join(lines)


def _section(title: str, schema: type[Any]) -> Section:
    about, meanings = _documented(schema)
    hints, ranged = get_type_hints(schema), get_type_hints(schema, include_extras=True)
    kinds = {name: _kind(hint, ranged[name]) for name, hint in hints.items() if name in meanings}
    # A stage is one entry of a list: --set gives the list whole.
    prefix = f"{title}." if title and schema is not Stage else ""
    keys = tuple(
        Key(f"{prefix}{f.name}", kinds[f.name], _default(f), meanings[f.name])
        for f in fields(schema)
        if not is_dataclass(hints[f.name])
    )
    return Section(title, about, keys)


def _documented(schema: type[Any]) -> tuple[str, dict[str, str]]:
    """The first sentence of a class's docstring, and what it says of each attribute."""
    about, _, rest = (inspect.getdoc(schema) or "").partition("\n")
    _, _, block = rest.partition("Attributes:\n")
    entries = re.split(r"\n(?= {4}\S)", "\n" + block.rstrip())
    split = (entry.strip().partition(": ") for entry in entries if entry.strip())
    # The schema speaks of Python's None, a recipe of YAML's null.
    return about, {
        name: re.sub(r"\bNone\b", "null", " ".join(text.split())).replace("``", "`")
        for name, _, text in split
    }


_WORDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    NoneType: "null",
    tuple[str, ...]: "list of texts",
    dict[str, int]: "label to number",
    tuple[int, int, int, int]: "four numbers",
    tuple[float, float]: "two numbers",
    tuple[Stage, ...]: "list of stages",
}


def _kind(hint: Any, ranged: Any) -> str:
    """A type in words, then its range.

    Args:
        hint: a field's type.
        ranged: the same with its `Range`.
    """
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    ranges = dict.fromkeys(_ranges(ranged))
    kinds = [_WORDS[part] if part in _WORDS else _choice(part) for part in parts]
    if any(words.endswith("or null") for words in ranges):
        kinds.remove("null")
    return ", ".join([" or ".join(kinds), *ranges])


def _choice(literal: Any) -> str:
    *most, last = get_args(literal)
    return f"{', '.join(most)} or {last}"


def _ranges(ranged: Any) -> Iterator[str]:
    for part in get_args(ranged):
        if isinstance(part, Range):
            yield part.words
        else:
            yield from _ranges(part)


def _default(entry: Field[Any]) -> str:
    value: Any = entry.default
    if entry.default_factory is not MISSING:
        value = entry.default_factory()
    return "" if value is MISSING else "".join(_yaml(value))


def _yaml(value: Any) -> Iterator[str]:
    """A value in YAML's spelling, on one line."""
    if value is None or isinstance(value, bool):
        yield "null" if value is None else str(value).lower()
    elif isinstance(value, Stage):
        yield f"{{epochs: {value.epochs}, resolution: {value.resolution}, "
        yield f"batch_size: {value.batch_size}}}"
    elif isinstance(value, tuple):
        yield "[" + ", ".join("".join(_yaml(item)) for item in value) + "]"  # pyright: ignore[reportUnknownVariableType]
    elif value == "" or value == {}:
        yield '""' if value == "" else "{}"
    else:
        yield str(value)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""
