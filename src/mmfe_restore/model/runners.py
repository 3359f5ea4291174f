"""How the network's parts are run: on whole maps, as autograd needs it."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmfe_restore.model.block import Downsample, TransformerBlock, Upsample
from mmfe_restore.model.layers import pointwise
from mmfe_restore.model.mgfb import MGFB
from mmfe_restore.model.mofe import MoFE


class Runner(Protocol):
    """Runs one part after the other on (B, H, W, C) maps; it may write over its input."""

    def block(self, block: TransformerBlock, x: Tensor) -> Tensor:
        """One Transformer block."""
        ...

    def fuse(self, mgfb: MGFB, x: Tensor, guidance: Tensor) -> Tensor:
        """One MGFB; ``guidance`` is (B, T, D)."""
        ...

    def mix(self, mofe: MoFE, x: Tensor, bands: Tensor, answer: Tensor) -> Tensor:
        """One MoFE."""
        ...

    def down(self, down: Downsample, x: Tensor) -> Tensor:
        """To the next level of the encoder; ``x`` is kept as it is, for the skip."""
        ...

    def up(self, up: Upsample, x: Tensor, skip: Tensor, reduce: nn.Conv2d | None) -> Tensor:
        """To the next level of the decoder: enlarge, join the skip, reduce the channels.

        It may write over ``skip``.
        """
        ...


class WholeMaps:
    """Calls the modules as they are.

    Args:
        checkpointing: recompute each part in the backward pass instead of storing its maps.
    """

    def __init__(self, checkpointing: bool = False) -> None:
        self._checkpointing = checkpointing

    def block(self, block: TransformerBlock, x: Tensor) -> Tensor:
        """One Transformer block."""
        return self._call(block, x)

    def fuse(self, mgfb: MGFB, x: Tensor, guidance: Tensor) -> Tensor:
        """One MGFB; ``guidance`` is (B, T, D)."""
        return self._call(mgfb, x, guidance)

    def mix(self, mofe: MoFE, x: Tensor, bands: Tensor, answer: Tensor) -> Tensor:
        """One MoFE."""
        return self._call(mofe, x, bands, answer)

    def down(self, down: Downsample, x: Tensor) -> Tensor:
        """To the next level of the encoder."""
        return down(x)

    def up(self, up: Upsample, x: Tensor, skip: Tensor, reduce: nn.Conv2d | None) -> Tensor:
        """To the next level of the decoder."""
        joined = torch.cat([up(x), skip], dim=-1)
        return joined if reduce is None else pointwise(joined, reduce)

    def _call(self, module: nn.Module, *inputs: Tensor) -> Tensor:
        if not self._checkpointing:
            return module(*inputs)
        kept = checkpoint(module, *inputs, use_reentrant=False)
        assert isinstance(kept, Tensor)
        return kept
