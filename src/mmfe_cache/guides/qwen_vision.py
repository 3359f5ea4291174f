"""What Qwen2.5-VL's vision tower is given: patches, and what it derives from the pictures' grid.

A batch holds pictures of one size, so windows, borders and positions are the same for every batch
of that size and number: they are computed once, and no batch makes a GPU wait for the CPU to
read a number back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_position_ids,
    get_vision_window_index,
)

from mmfe_cache.guides.segments import Plans, plan_segments


@dataclass(frozen=True, slots=True)
class VisionPlan:
    """All that follows from B pictures of one size.

    Attributes:
        grid: (B, 3) frames, rows and columns of patches of every picture; on the CPU.
        given: the keyword arguments by which the tower takes what it would else compute.
        segments: the plans of its attention.
    """

    grid: Tensor
    given: Mapping[str, Any]
    segments: Plans


def plan_vision(
    tower: Any, rows: int, columns: int, batch: int, device: torch.device
) -> VisionPlan:
    """Compute what the tower needs for ``batch`` pictures.

    Args:
        tower: a Qwen2.5-VL vision tower.
        rows: of patches, in one picture.
        columns: of patches, in one picture.
        batch: B.
        device: where the tower is.
    """
    # By transformers' own functions and on the CPU: they loop over the pictures in Python.
    grid = torch.tensor([[1, rows, columns]]).expand(batch, -1)
    whole = get_vision_cu_seqlens(grid)
    index, windows = get_vision_window_index(
        grid,
        spatial_merge_size=tower.spatial_merge_size,
        window_size=tower.window_size,
        patch_size=tower.patch_size,
    )
    given = {
        "position_ids": get_vision_position_ids(grid, tower.spatial_merge_size).to(device),
        "cu_seqlens": whole.to(device),
        "max_seqlen": int(whole.diff().max()),
        "window_index": index.to(device),
        "cu_window_seqlens": windows.to(device),
        "max_window_seqlen": int(windows.diff().max()),
    }
    segments = {len(borders): plan_segments(borders, device) for borders in (whole, windows)}
    return VisionPlan(grid, given, segments)


def cut_patches(batch_BHWC: Tensor, processor: Any, frames: int) -> Tensor:
    """Cut pictures into patches and normalise them, bit for bit as the processor does.

    The processor normalises, doubles and then moves floats; bytes are moved here, which is a
    quarter of the traffic, and doubled last.

    Args:
        batch_BHWC: (B, H, W, 3) uint8, sides multiples of ``patch_size * merge_size``.
        processor: a ``Qwen2VLImageProcessor``.
        frames: how often every patch is repeated, as the frames of a still film: the
            processor's ``temporal_patch_size``, or 1 for a projection that needs no repetition.

    Returns:
        (B · patches, 3 · frames · patch_size²) float32, in the tower's order.
    """
    batch, height, width, channels = batch_BHWC.shape
    patch, merge = processor.patch_size, processor.merge_size
    blocks = (height // (patch * merge), merge, patch, width // (patch * merge), merge, patch)
    cut = batch_BHWC.reshape(batch, *blocks, channels).permute(0, 1, 4, 2, 5, 7, 3, 6)
    scaled = processor.rescale_and_normalize(
        cut.reshape(-1, channels, patch, patch),
        processor.do_rescale,
        processor.rescale_factor,
        processor.do_normalize,
        processor.image_mean,
        processor.image_std,
    )
    return scaled.flatten(2).repeat(1, 1, frames).flatten(1) if frames > 1 else scaled.flatten(1)
