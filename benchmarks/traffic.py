"""Counts the bytes that operations and compiled graphs move and keep: benchmarks/count_traffic.py.

An operation that is no view reads its inputs and writes its outputs; of a graph, all that lies
between two products or convolutions is one kernel. Caches are not modelled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmfe_restore.model import mofe

HEIGHT, WIDTH, CELL = 22, 26, 11 * 13
"""Where blocks are traced. What has a multiple of 11 · 13 elements is a map; all else (weights,
matrices between channels, tokens) does not grow with the image and is not counted."""

_OPAQUE = ("convolution", "mm", "addmm", "baddbmm", "upsample_bilinear2d")
_VIEWS = ("view", "permute", "transpose", "expand", "slice", "select", "split", "unsqueeze", "t",
          "squeeze", "as_strided", "alias", "detach", "getitem", "reshape", "unbind")  # fmt: skip


class Bytes(TorchDispatchMode):
    """Adds up what operations that are no views read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func`` and count it."""
        out = func(*args, **(kwargs or {}))
        made = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if made and not _is_view(func):
            self.kinds[func._opname] += size_of([*given, *made])
        return out

    @property
    def total(self) -> int:
        """Bytes of all operations."""
        return sum(self.kinds.values())


_FREE = {"detach", "alias", "empty", "empty_like", "new_empty", "empty_strided", "_unsafe_view"}


def _is_view(func: Any) -> bool:
    return func.is_view or func._opname in _FREE


def size_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of ``tensors``, each once; of an expanded one what lies in memory."""
    seen: dict[int, int] = {}
    for tensor in tensors:
        sizes = zip(tensor.shape, tensor.stride(), strict=True)
        elements = 1
        for length, stride in sizes:
            elements *= length if stride else 1
        seen[id(tensor)] = elements * tensor.element_size()
    return sum(seen.values())


@contextmanager
def kept_bytes(own: Iterable[Tensor]) -> Generator[dict[int, int]]:
    """Collect the storages that autograd saves inside the block; ``own`` are not counted."""
    weights = {t.untyped_storage()._cdata for t in own}
    found: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            found[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


@contextmanager
def without_storage() -> Generator[None]:
    """Make tensors that are shapes; the wavelet's filters, which are remembered, are made anew."""
    mofe._transform.cache_clear()
    try:
        with FakeTensorMode():
            yield
    finally:
        mofe._transform.cache_clear()


def _name(node: torch.fx.Node) -> str:
    return str(getattr(node.target, "_opname", getattr(node.target, "__name__", node.target)))


def _is_opaque(node: torch.fx.Node) -> bool:
    name = _name(node)
    return node.op == "call_function" and (
        name in _OPAQUE or name.startswith(("convolution", "bmm"))
    )


def _node_bytes(node: torch.fx.Node) -> int:
    tensors = [t for t in tree_leaves(node.meta.get("val")) if isinstance(t, Tensor)]
    return size_of(t for t in tensors if t.numel() % CELL == 0)


def convolved_bytes(graph: torch.fx.Graph) -> int:
    """What of `graph_bytes` the convolutions of a ``graph`` read and write."""
    found = [node for node in graph.nodes if _name(node).startswith("convolution")]
    return sum(_node_bytes(one) for node in found for one in (node, *node.all_input_nodes))


def _origin(node: torch.fx.Node) -> torch.fx.Node:
    """What ``node`` is a view of."""
    while node.op == "call_function" and _name(node) in _VIEWS:
        node = node.all_input_nodes[0]
    return node


def graph_bytes(graph: torch.fx.Graph) -> int:
    """What a compiled ``graph`` moves.

    A product or convolution is a kernel of its own. All other work is fused as far as it hangs
    together without one of these between: nodes with the same number of kernels before them that
    feed each other are one kernel, which reads what comes from outside and writes what is used
    outside.
    """
    depth: dict[torch.fx.Node, int] = {}
    group: dict[torch.fx.Node, torch.fx.Node] = {}

    def leader(node: torch.fx.Node) -> torch.fx.Node:
        while group[node] is not node:
            node = group[node]
        return node

    work: list[torch.fx.Node] = []
    for node in graph.nodes:
        depth[node] = max((depth[i] + _is_opaque(i) for i in node.all_input_nodes), default=0)
    for node in reversed(graph.nodes):  # what is needed later only is computed later
        if node.op == "call_function" and not _is_opaque(node) and node.users:
            depth[node] = max(depth[node], min(depth[user] for user in node.users))
    for node in graph.nodes:
        if node.op != "call_function" or _name(node) in _VIEWS:
            continue
        work.append(node)
        group[node] = node
        if _is_opaque(node):
            continue
        for origin in map(_origin, node.all_input_nodes):
            if origin in group and not _is_opaque(origin) and depth[origin] == depth[node]:
                group[leader(origin)] = leader(node)
    reads: dict[tuple[torch.fx.Node, torch.fx.Node], dict[Any, int]] = {}
    written: set[torch.fx.Node] = set()
    for node in work:
        for given in node.all_input_nodes:
            origin = _origin(given)
            if origin not in group or leader(origin) is not leader(node):
                # Of a map that was split, a kernel reads its own part only.
                part = getattr(given.meta.get("val"), "storage_offset", lambda: 0)()
                reads.setdefault((leader(node), origin), {})[part] = _node_bytes(given)
                written.add(origin)
    outputs = next(node for node in graph.nodes if node.op == "output")
    written.update(map(_origin, outputs.all_input_nodes))
    moved = sum(_node_bytes(node) for node in written if node in group)
    for (_, origin), parts in reads.items():
        moved += min(sum(parts.values()), _node_bytes(origin))
    return moved
