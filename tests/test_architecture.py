"""No module imports, at any depth of its code, what imports it again."""

import ast
from functools import cache
from pathlib import Path

SRC = Path(__file__).parents[1] / "src"


def modules():
    return {
        ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(SRC.rglob("*.py"))
    }


@cache
def imports():
    """Every module of `src/` and those of it that its code imports, in functions as well.

    A package's own file only passes names on, so what is imported from a package is looked up
    there. Imports for the type checker alone are left out: nothing runs them.
    """
    known = modules()
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in known.items()}
    return {
        name: {
            target
            for module, names in _statements(name, known[name], trees[name])
            for target in _targets(module, names, known, trees)
        }
        - {name}
        for name in known
    }


def _statements(name, path, tree):
    """(module, imported names) of every import that can run."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    left = list(ast.iter_child_nodes(tree))
    while left:
        node = left.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            left += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            yield base, tuple(alias.name for alias in node.names)
        left += ast.iter_child_nodes(node)


def _targets(module, names, known, trees):
    if module not in known:
        return
    if not names:
        yield module
    for name in names:
        if f"{module}.{name}" in known:
            yield f"{module}.{name}"
        elif known[module].name != "__init__.py":
            yield module
        else:
            found = [
                target
                for inner, passed in _statements(module, known[module], trees[module])
                if name in passed
                for target in _targets(inner, (name,), known, trees)
            ]
            yield from found or [module]


def cycles(graph):
    """Sets of modules that reach each other (Tarjan's algorithm)."""
    order, low, stack, found = {}, {}, [], []

    def visit(node):
        order[node] = low[node] = len(order)
        stack.append(node)
        for target in sorted(graph[node]):
            if target not in order:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], order[target])
        if low[node] == order[node]:
            members = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(members) > 1:
                found.append(tuple(sorted(members)))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return sorted(found)


def test_no_module_imports_what_imports_it():
    assert cycles(imports()) == []


def test_the_search_finds_cycles_and_only_these():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set(), "f": {"f", "d"}}
    assert cycles(graph) == [("a", "b", "c")]


def test_imports_in_functions_and_through_packages_are_seen():
    seen = imports()
    assert "mmfe_cache.store.reader" in seen["mmfe_cache.store.writer"]
    # `load_guide` imports its registry through the package, a demo's data in a function.
    assert "mmfe_cache.guides.registry" in seen["mmfe_cache.guides"]
    assert "mmfe_cache.store.reader" in seen["mmfe_cache.precompute.build"]
    assert "mmfe_cache.guides.base" not in seen["mmfe_cache.guides"]  # for the type checker alone
