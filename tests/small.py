"""What many tests need small: pictures in memory and a network that is made in a moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmfe_cache.samples import ImageArray
from mmfe_restore.recipes import Recipe, recipe_from_dict


@dataclass(frozen=True)
class ArraySource:
    """A picture that is an array already, (H, W, 3) uint8."""

    name: str
    pixels: ImageArray

    def size(self) -> tuple[int, int]:
        return self.pixels.shape[0], self.pixels.shape[1]

    def read(self) -> ImageArray:
        return self.pixels

    def read_crop(self, top: int, left: int, height: int, width: int) -> ImageArray:
        return self.pixels[top : top + height, left : left + width]


def small_recipe(guide: str = "scene", view: str | None = None, **model: Any) -> Recipe:
    """A recipe whose network has one block a level; ``model`` changes its settings."""
    blocks = {"num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "num_heads": [1, 1, 1, 1]}
    return recipe_from_dict(
        {
            "name": "small",
            "guide": {"name": guide},
            "model": {"width": 8, **blocks, "num_experts": 2, **model},
            **({} if view is None else {"eval": {"view": view}}),
        }
    )
