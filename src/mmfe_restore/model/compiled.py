"""The network's parts through `torch.compile`, each shape of a part by itself.

The whole network as one graph takes minutes to compile, or never ends, and takes them anew for
every stage's size of crop. Its parts repeat: Figure 2 at full size has 60 Transformer blocks, MGFBs
and MoFEs, and 13 shapes of them. So each of their ``forward`` methods is compiled by itself; two
blocks of one shape share a graph, and what lies between (six convolutions that halve or double)
runs eagerly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mmfe_restore.model.mgfb import MGFB
from mmfe_restore.model.mofe import MoFE
from mmfe_restore.model.restormer import TransformerBlock
from mmfe_restore.model.runners import Compiled

_GRAPHS = 64
"""Graphs that one ``forward`` may have: 5 shapes at every one of the stages' sizes.

PyTorch's own limit is 8, beyond which it runs eagerly without a word.
"""


def compile_parts(activation_memory: float = 1.0, **options: Any) -> Compiled:
    """Compile the parts, for static sizes; nothing happens before they are first called.

    Args:
        activation_memory: the share of a part's activations that its forward pass keeps, above 0
            up to 1; what is not kept is computed again in the backward pass, the cheapest first.
            It holds for all compilation in this process from now on.
        options: of `torch.compile`.

    Returns:
        By class, a function of the part and its inputs.
    """
    dynamo: Any = torch._dynamo.config  # pyright: ignore[reportPrivateUsage]
    functorch: Any = torch._functorch.config  # pyright: ignore[reportAttributeAccessIssue]
    dynamo.recompile_limit = max(dynamo.recompile_limit, _GRAPHS)
    functorch.activation_memory_budget = activation_memory
    if options.get("backend", "inductor") == "inductor" and "mode" not in options:
        # Every map is channels-last already; a part compiled alone would be given a copy.
        options["options"] = {"layout_optimization": False, **options.get("options", {})}
    parts: tuple[type[nn.Module], ...] = (TransformerBlock, MGFB, MoFE)
    return {part: _compile(part.forward, options) for part in parts}


def _compile(forward: Any, options: dict[str, Any]) -> Any:
    return torch.compile(forward, dynamic=False, **options)
