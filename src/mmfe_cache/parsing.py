"""YAML and JSON as people write them: a key that stands twice is refused, with its line.

Both formats' parsers keep the last of two equal keys and drop the first without a word, so a
setting that its writer sees in the file would not be in force.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from mmfe_cache.errors import UsageError


class DuplicateKeyError(UsageError):
    """A mapping that has one of its keys twice."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars: ``2e-4`` and ``010`` are numbers, ``on``, ``1:30`` and dates words.

    And ``100_000`` is a number, as people write it.
    """

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        twice = next(_duplicates(node), None)
        if twice is not None:
            raise _duplicate_key(self.name, *twice)
        return super().construct_mapping(node, deep=deep)


def _construct_int(loader: _Loader, node: ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 0 if text.startswith(("0o", "0x")) else 10)


_OTHERS = (":bool", ":int", ":float", ":timestamp")
"""Types whose scalars YAML 1.1, which PyYAML reads, writes in other ways."""

_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if not tag.endswith(_OTHERS)]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^(?:[-+]?(?:\d+|\d{1,3}(?:_\d{3})+)|0o[0-7]+|0x[0-9a-fA-F]+)$", re.ASCII),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        re.ASCII,
    ),
    list("-+.0123456789"),
)


def parse_yaml(text: str, where: object = "the text") -> Any:
    """Read one YAML document.

    Args:
        text: the document.
        where: what messages call it, such as its path.

    Raises:
        yaml.YAMLError: the text is not YAML.
        DuplicateKeyError: a key stands twice in one mapping.
    """
    loader = _Loader(text)
    loader.name = str(where)
    try:
        return loader.get_single_data()
    except ValueError as problem:  # such as `!!int word`, or more digits than Python reads
        raise yaml.YAMLError(str(problem)) from problem
    finally:
        loader.dispose()


def parse_json(text: str | bytes, where: object = "the text") -> Any:
    """Read one JSON document.

    Args:
        text: the document; bytes are UTF-8, and a byte-order mark in front is let pass.
        where: what messages call it, such as its path.

    Raises:
        ValueError: the text is not JSON.
        DuplicateKeyError: a key stands twice in one object.
    """

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise _duplicate_key(str(where), *_in_json(plain, twice))
        return found

    plain = text.decode("utf-8-sig") if isinstance(text, bytes) else text.removeprefix("\ufeff")
    return json.loads(plain, object_pairs_hook=build)


def _duplicates(node: Node) -> Iterator[tuple[str, int | None, int | None]]:
    """(key, line of the first, line of the second) of keys that stand twice in ``node`` itself."""
    seen: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        # `<<` lays other mappings under this one, any number of times.
        if not isinstance(key, ScalarNode) or key.tag.endswith(":merge"):
            continue
        name, line = (key.tag, key.value), key.start_mark.line + 1
        if name in seen:
            yield key.value, seen[name], line
        seen[name] = line


def _in_json(text: str, key: str) -> tuple[str, int | None, int | None]:
    """Where ``key`` stands twice. JSON's parser knows no lines, but JSON is YAML, and that does."""
    try:
        waiting: list[Node] = [yaml.compose(text, Loader=yaml.SafeLoader)]
        while waiting:
            node = waiting.pop()
            if isinstance(node, MappingNode):
                for found in _duplicates(node):
                    if found[0] == key:
                        return found
                waiting += [value for _, value in node.value]
            elif isinstance(node, SequenceNode):
                waiting += node.value
    except yaml.YAMLError:  # such as tabs, which JSON allows
        pass
    return key, None, None


def _duplicate_key(
    where: str, key: str, first: int | None, second: int | None
) -> DuplicateKeyError:
    lines = "" if first is None else f", in line {first} and in line {second}"
    return DuplicateKeyError(
        f"{where} has the key {key} twice{lines}",
        got=f"two values of {key}",
        expected="every key once in its block",
        remedy="join the two, or remove one: the first would be dropped without a word",
    )


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            flat |= flatten(item, f"{name}.")
        else:
            flat[name] = item
    return flat
