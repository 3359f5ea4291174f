"""Qwen2.5-VL as a guide (Bai et al., 2025): the paper's own."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from qwen_vl_utils import fetch_image  # pyright: ignore[reportAttributeAccessIssue]
from qwen_vl_utils.vision_process import MAX_RATIO, smart_resize
from torch import Tensor
from transformers import Qwen2_5_VLModel, Qwen2_5_VLProcessor
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_position_ids,
    get_vision_window_index,
)

from mmfe_cache.errors import GuideError
from mmfe_cache.guides.base import check_image
from mmfe_cache.guides.mllm import MAX_LAYOUTS, Layout, MllmGuide
from mmfe_cache.guides.segment_attention import Plans, plan_segments, remember_plans, speed_up
from mmfe_cache.samples import ImageArray


class QwenGuide(MllmGuide):
    """See `MllmGuide` for the arguments.

    qwen-vl-utils brings a picture to a size whose sides are multiples of 28 under the checkpoint's
    pixel budget, in a worker process where the caller wants that; the checkpoint's own image
    processor normalises and cuts it into patches, a batch at a time, on the device.
    """

    network_class = Qwen2_5_VLModel
    processor_class = Qwen2_5_VLProcessor
    turn_tokens = 21

    @classmethod
    def image_tokens(
        cls, processor: Any | None, config: Mapping[str, Any], height: int, width: int
    ) -> int:
        """One for every 28×28 pixels of the resized image; see `MllmGuide.image_tokens`."""
        if processor is None:
            vision = config.get("vision_config") or {}
            factor = int(vision.get("patch_size", 14)) * int(vision.get("spatial_merge_size", 2))
            budget = PUBLISHED_BUDGET
        else:
            of_images = processor.image_processor
            factor = int(of_images.patch_size) * int(of_images.merge_size)
            budget = pixel_budget(of_images)
        narrow = narrow_size(height, width, factor, budget)
        rows, columns = narrow or smart_resize(height, width, factor, **budget)
        return (rows // factor) * (columns // factor)

    def _set_up(self) -> None:
        super()._set_up()
        speed_up(self._network.visual)
        self._plans: dict[Hashable, VisionPlan] = {}
        self._budget = pixel_budget(self._processor.image_processor)

    def prepare(self, image: ImageArray) -> ImageArray:
        """Resize one image as qwen-vl-utils does, (H, W, 3) uint8, sides multiples of 28.

        Raises:
            GuideError: it is not a picture, or more than 200 times as long as wide.
        """
        picture = Image.fromarray(check_image(image))
        processor = self._processor.image_processor
        factor = int(processor.patch_size) * int(processor.merge_size)
        size = narrow_size(picture.height, picture.width, factor, self._budget)
        if size is not None:
            return np.asarray(picture.resize((size[1], size[0])))
        request: dict[str, Any] = {"image": picture, **self._budget}
        return np.asarray(fetch_image(request))

    def replace_network(self, network: Qwen2_5_VLModel) -> None:
        """Run ``network`` instead of the checkpoint's: for timing sizes that nobody downloaded.

        Args:
            network: a base model of any width with the same special tokens, on the same device.
        """
        self._network = network.eval().requires_grad_(False)
        self._plans.clear()
        self.dim = int(network.config.get_text_config().hidden_size)
        speed_up(self._network.visual)

    def _shape(self, prepared: ImageArray) -> tuple[int, int]:
        return prepared.shape[0], prepared.shape[1]

    def _lay_out(self, tokens: Tensor, inputs: Mapping[str, Any]) -> tuple[Tensor | None, int, int]:
        grid: Tensor = inputs["image_grid_thw"]
        merge = int(self._processor.image_processor.merge_size)
        positions, _ = self._network.get_rope_index(
            input_ids=tokens,
            mm_token_type_ids=inputs["mm_token_type_ids"],
            image_grid_thw=grid,
        )
        return positions, int(grid[0, 1]) // merge, int(grid[0, 2]) // merge

    def _hidden(self, layout: Layout, prepared: Sequence[ImageArray]) -> Tensor:
        """What ``Qwen2_5_VLModel.forward`` computes, without its detours; see `_sequence`."""
        assert layout.positions is not None
        batch, network = len(prepared), self._network
        plan = self._plan(layout, batch)
        projection = network.visual.patch_embed
        processor = self._processor.image_processor
        frames = int(getattr(projection, "frames", processor.temporal_patch_size))
        patches = cut_patches(self._to_device(prepared), processor, frames)
        with remember_plans(plan.segments):
            seen = network.visual(
                patches.to(self.dtype), grid_thw=plan.grid, **plan.given
            ).pooler_output
        sequence = self._sequence(layout, seen.unflatten(0, (batch, -1)))
        return network.language_model(
            inputs_embeds=sequence, position_ids=layout.positions, use_cache=False
        ).last_hidden_state

    def _plan(self, layout: Layout, batch: int) -> VisionPlan:
        key = (layout.rows, layout.columns, batch)
        known = self._plans.get(key)
        if known is None:
            if len(self._plans) >= MAX_LAYOUTS:
                self._plans.clear()
            merge = int(self._processor.image_processor.merge_size)
            rows, columns = merge * layout.rows, merge * layout.columns
            known = plan_vision(self._network.visual, rows, columns, batch, self.device)
            self._plans[key] = known
        return known


PUBLISHED_BUDGET = {"min_pixels": 56 * 56, "max_pixels": 16384 * 28 * 28}
"""The pixels that a resized picture has at least and at most, by the published checkpoints."""


def pixel_budget(processor: Any) -> dict[str, int]:
    """What an image processor brings a picture's pixels to, at least and at most."""
    size = processor.size
    return {"min_pixels": int(size["shortest_edge"]), "max_pixels": int(size["longest_edge"])}


def narrow_size(
    height: int, width: int, factor: int, budget: Mapping[str, int]
) -> tuple[int, int] | None:
    """(height, width) for a picture that qwen-vl-utils would shrink away; None for all others.

    Under a small budget it rounds the short side of a narrow picture down to nothing, or to so
    little that the sides differ by more than the model takes. One image token is the least.

    Args:
        height: of the picture, in pixels.
        width: likewise.
        factor: pixels on a side of one image token.
        budget: see `pixel_budget`.

    Raises:
        GuideError: the picture is more than 200 times as long as wide.
    """
    try:
        rows, columns = smart_resize(height, width, factor, **budget)
    except ValueError as problem:
        raise GuideError(
            "Qwen2.5-VL cannot take an image of this shape",
            got=f"{width}×{height} pixels",
            expected=f"sides that differ by a factor of {MAX_RATIO} at most",
            remedy="use a view such as whole@224",
        ) from problem
    short, long = max(min(rows, columns), factor), max(rows, columns)
    longest = MAX_RATIO * short
    if min(rows, columns) >= factor and long <= longest:
        return None
    longest = min(longest, budget["max_pixels"] // short // factor * factor)
    long = max(factor, min(long, longest))
    return (short, long) if rows < columns else (long, short)


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
