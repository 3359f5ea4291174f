"""Attention within many segments of one long sequence, a few calls instead of one per segment.

Qwen2.5-VL's vision tower packs the patches of a whole batch into one sequence and attends within
windows of 64 patches. Without flash-attn, transformers loops over the windows in Python: thousands
of tiny calls for a batch. Windows of one length are independent, so they are batched here:
the same numbers, in as many calls as there are lengths (one, at 224²).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface

# transformers hands the segments' borders over only to implementations with "flash" in the name.
_NAME = "mmfe_flash_segments"


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """Which positions form segments, grouped by length.

    Attributes:
        groups: one (segments, length) tensor of positions for each length.
        back: (S,) where each position's result lies in the groups' concatenation; None where
            the groups already are in order.
    """

    groups: tuple[Tensor, ...]
    back: Tensor | None


Plans = dict[int, SegmentPlan]
"""The plans of one batch shape, by the number of their segments' borders."""

_PLANS: ContextVar[Plans | None] = ContextVar("plans", default=None)


def plan_segments(borders: Tensor, device: torch.device | None = None) -> SegmentPlan:
    """Group segments by length.

    Args:
        borders: (segments + 1,) increasing positions, the first 0.
        device: where the plan is used; that of ``borders`` without it.
    """
    marks = borders.tolist()
    by_length: dict[int, list[int]] = {}
    for start, stop in pairwise(marks):
        by_length.setdefault(stop - start, []).append(start)
    groups = tuple(
        torch.tensor(starts)[:, None] + torch.arange(length)
        for length, starts in by_length.items()
        if length
    )
    order = torch.cat([group.flatten() for group in groups])
    in_order = bool((order == torch.arange(len(order))).all())
    device = borders.device if device is None else device
    back = None if in_order else torch.argsort(order).to(device)
    return SegmentPlan(tuple(group.to(device) for group in groups), back)


class PatchProjection(nn.Module):
    """A convolution whose kernel is its stride, as the matrix product that it is.

    Each patch is projected once, so the same weights give the same numbers; CPUs and GPUs alike
    run the product several times faster than the three-dimensional convolution.

    A picture is a film of equal frames: W·[x; x] = (W₀ + W₁)·x. In float32 that holds to the last
    digits and halves the product; in 16 bits the sum would be rounded anew, so there every frame
    is projected as the model does it.

    Args:
        convolution: the patch embedding's own; its weights are shared, not copied.

    Attributes:
        frames: how many equal frames a patch must hold: 1, or the kernel's own.
    """

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.proj = convolution
        weight = convolution.weight.detach()
        self.frames = 1 if weight.dtype == torch.float32 else int(weight.shape[2])
        self.still: Tensor
        self.register_buffer(
            "still", weight.sum(2).flatten(1) if self.frames == 1 else None, persistent=False
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Project (patches, values of ``frames`` frames) to (patches, width)."""
        weight = self.still if self.frames == 1 else self.proj.weight.flatten(1)
        return F.linear(patches.to(weight.dtype), weight, self.proj.bias)


@contextmanager
def remember_plans(plans: Plans) -> Generator[None, None, None]:
    """Look plans up in ``plans`` and keep new ones there; one dictionary per batch shape."""
    token = _PLANS.set(plans)
    try:
        yield
    finally:
        _PLANS.reset(token)


def speed_up(tower: Any) -> None:
    """Make a Qwen2.5-VL vision tower attend by segments and project patches by a product."""
    AttentionInterface.register(_NAME, _attend)
    tower.config._attn_implementation = _NAME
    kernel = getattr(tower.patch_embed, "proj", None)
    if isinstance(kernel, nn.Conv3d) and kernel.kernel_size == kernel.stride:
        tower.patch_embed = PatchProjection(kernel)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within segments; (1, heads, S, d) tensors to (1, S, heads, d)."""
    assert cu_seq_lens_q is not None and attention_mask is None
    plans = _PLANS.get()
    plan = None if plans is None else plans.get(len(cu_seq_lens_q))
    if plan is None:
        plan = plan_segments(cu_seq_lens_q)
        if plans is not None:
            plans[len(cu_seq_lens_q)] = plan
    parts: list[Tensor] = []
    for group in plan.groups:
        if plan.back is None and len(plan.groups) == 1:
            q, k, v = (_fold(packed, *group.shape) for packed in (query, key, value))
        else:
            q, k, v = (packed[0][:, group].transpose(0, 1) for packed in (query, key, value))
        seen = F.scaled_dot_product_attention(q, k, v, scale=scaling)
        parts.append(seen.transpose(1, 2).flatten(0, 1))
    merged = torch.cat(parts) if len(parts) > 1 else parts[0]
    if plan.back is not None:
        merged = merged[plan.back]
    return merged[None], None


def _fold(packed: Tensor, segments: int, length: int) -> Tensor:
    """(1, heads, S, d) to (segments, heads, length, d)."""
    heads, width = packed.shape[1], packed.shape[3]
    return packed.view(heads, segments, length, width).transpose(0, 1)
