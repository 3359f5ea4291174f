"""How the network's parts are run on whole maps, eager or compiled, and how work is counted.

Work is counted, for whoever waits for a large photograph, in numbers that pass a convolution in
strips: a pass over H × W pixels with K channels counts H · W · K. That is near enough to the time
that it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmfe_restore.model.mgfb import MGFB
from mmfe_restore.model.mofe import MoFE
from mmfe_restore.model.restormer import (
    ALIGNED,
    GDFN,
    Downsample,
    TransformerBlock,
    Upsample,
    pointwise,
)

Map = TypeVar("Map")
"""What a runner's parts take and give: tensors, or the names of an exported graph's values."""

Compiled = Mapping[type[nn.Module], Callable[..., Tensor]]
"""By the class of a part, a function of the part and its inputs."""


class Runner(Protocol[Map]):
    """Runs one part after the other on (B, H, W, C) maps; it may write over its input."""

    def block(self, block: TransformerBlock, x: Map) -> Map:
        """One Transformer block."""
        ...

    def fuse(self, mgfb: MGFB, x: Map, guidance: Map) -> Map:
        """One MGFB; ``guidance`` is (B, T, D)."""
        ...

    def mix(self, mofe: MoFE, x: Map, bands: Map, answer: Map) -> Map:
        """One MoFE."""
        ...

    def down(self, down: Downsample, x: Map) -> tuple[Map, Map]:
        """To the next level of the encoder.

        Returns:
            The next level's map, and what `up` is to be given as ``skip``: ``x``, or what takes
            its place. ``x`` itself may be used up.
        """
        ...

    def up(self, up: Upsample, x: Map, skip: Map, reduce: nn.Conv2d | None) -> Map:
        """To the next level of the decoder: enlarge, join the skip, reduce the channels.

        It may write over ``skip``.
        """
        ...


class WholeMaps:
    """Calls the modules as they are, or what `compile_parts` made of them.

    Args:
        checkpointing: recompute each part in the backward pass instead of storing its maps.
        compiled: by the class of a part, what runs it; a class that is missing runs eagerly.
    """

    def __init__(self, checkpointing: bool = False, compiled: Compiled | None = None) -> None:
        self._checkpointing = checkpointing
        self._compiled: Compiled = {} if compiled is None else compiled

    def block(self, block: TransformerBlock, x: Tensor) -> Tensor:
        """One Transformer block."""
        return self._call(block, x)

    def fuse(self, mgfb: MGFB, x: Tensor, guidance: Tensor) -> Tensor:
        """One MGFB; ``guidance`` is (B, T, D)."""
        return self._call(mgfb, x, guidance)

    def mix(self, mofe: MoFE, x: Tensor, bands: Tensor, answer: Tensor) -> Tensor:
        """One MoFE."""
        return self._call(mofe, x, bands, answer)

    def down(self, down: Downsample, x: Tensor) -> tuple[Tensor, Tensor]:
        """To the next level of the encoder."""
        return down(x), x

    def up(self, up: Upsample, x: Tensor, skip: Tensor, reduce: nn.Conv2d | None) -> Tensor:
        """To the next level of the decoder."""
        joined = torch.cat([up(x), skip], dim=-1)
        return joined if reduce is None else pointwise(joined, reduce)

    def _call(self, module: nn.Module, *inputs: Tensor) -> Tensor:
        compiled = self._compiled.get(type(module))
        run = module if compiled is None else partial(compiled, module)
        if not self._checkpointing:
            return run(*inputs)
        kept = checkpoint(run, *inputs, use_reentrant=False)
        assert isinstance(kept, Tensor)
        return kept


Watch = Callable[[float], None]
"""Called with the share of an image that is done, which rises from 0 to 1."""


class Meter:
    """Adds up the work that is done and reports its share.

    Args:
        total: the whole work.
        watch: what to call; None calls nothing.
    """

    def __init__(self, total: int = 0, watch: Watch | None = None) -> None:
        self.done = 0
        self._total, self._watch = total, watch

    def add(self, rows: int, width: int, channels: int) -> None:
        """Count ``rows`` × ``width`` pixels of ``channels`` channels as done."""
        self.done += rows * width * channels
        if self._watch is not None:
            self._watch(min(1.0, self.done / self._total))


class CountedWork:
    """A runner that computes nothing and counts what `Strips` will report.

    Its maps are on the meta device, where a tensor is a shape.

    Attributes:
        meter: holds the sum.
    """

    def __init__(self) -> None:
        self.meter = Meter()

    def block(self, block: TransformerBlock, x: Tensor) -> Tensor:
        """One Transformer block: Q and K, V, and the feed-forward network."""
        self._pass(x, 3 * x.shape[-1] + hidden_channels(block.ffn))
        return x

    def fuse(self, mgfb: MGFB, x: Tensor, guidance: Tensor) -> Tensor:
        """One MGFB: the queries, and the feed-forward network."""
        self._pass(x, x.shape[-1] + hidden_channels(mgfb.ffn))
        return x

    def mix(self, mofe: MoFE, x: Tensor, bands: Tensor, answer: Tensor) -> Tensor:
        """One MoFE: the experts, Q and K, and V."""
        self._pass(bands, mofe.experts.expand.out_channels)
        self._pass(x, 3 * x.shape[-1])
        return x

    def down(self, down: Downsample, x: Tensor) -> tuple[Tensor, Tensor]:
        """To the next level of the encoder."""
        batch, height, width, channels = x.shape
        self._pass(x, channels)
        return x.new_empty((batch, height // 2, width // 2, 2 * channels)), x

    def up(self, up: Upsample, x: Tensor, skip: Tensor, reduce: nn.Conv2d | None) -> Tensor:
        """To the next level of the decoder."""
        self._pass(x, 2 * x.shape[-1])
        channels = skip.shape[-1] * (1 if reduce is not None else 2)
        return skip.new_empty((*skip.shape[:-1], channels))

    def _pass(self, x: Tensor, channels: int) -> None:
        self.meter.add(x.shape[0] * x.shape[1], x.shape[2], channels)


def hidden_channels(ffn: GDFN) -> int:
    """The channels of the feed-forward network's widest map in strips; see `GDFN.aligned`."""
    half = ffn.project_out.in_channels
    return 2 * (half + -half % ALIGNED)


_GRAPHS = 64
"""Graphs that one ``forward`` may have: 5 shapes at every one of the stages' sizes.

PyTorch's own limit is 8, beyond which it runs eagerly without a word.
"""


def compile_parts(activation_memory: float = 1.0, **options: Any) -> Compiled:
    """Compile the parts, for static sizes; nothing happens before they are first called.

    The whole network as one graph takes minutes to compile, or never ends, and takes them anew for
    every stage's size of crop. Its parts repeat: Figure 2 at full size has 60 Transformer blocks,
    MGFBs and MoFEs, and 13 shapes of them. So each of their ``forward`` methods is compiled by
    itself; two blocks of one shape share a graph, and what lies between (six convolutions that
    halve or double) runs eagerly.

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
