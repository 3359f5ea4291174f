"""How much memory a training step needs, estimated without running one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from mmfe_cache.embeddings import Embeddings
from mmfe_restore.losses import fourier_loss, l1_loss
from mmfe_restore.model import Restorer
from mmfe_restore.recipes.schema import Recipe

ADAM_BYTES = 16
"""Per parameter: weight, gradient and Adam's two moments, float32 each."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes that one training step needs on one device.

    Attributes:
        parameters: weights, gradients and optimiser state.
        activations: what the forward pass keeps for the backward pass, for one micro-batch.
    """

    parameters: int
    activations: int

    @property
    def total(self) -> int:
        """Both together; the framework's own workspace comes on top."""
        return self.parameters + self.activations


def estimate(recipe: Recipe, resolution: int, batch: int, precision: str) -> StepMemory:
    """Trace a step on tensors without storage and add up what autograd keeps.

    Args:
        recipe: its model, loss and activation checkpointing.
        resolution: side of the crops, in pixels.
        batch: samples of one micro-batch on one device.
        precision: Lightning's name; mixed precision halves what is kept of most activations,
            which is counted as a half of all of them.

    Returns:
        an estimate: eager kernels; `torch.compile` keeps less.
    """
    with torch.device("meta"):
        restorer = Restorer(recipe.model)
    restorer.activation_checkpointing = recipe.train.activation_checkpointing
    count = sum(p.numel() for p in restorer.parameters())
    decay = 4 if recipe.train.ema_decay is not None else 0
    kept = _kept_bytes(restorer, recipe, resolution, batch)
    scale = {"16-mixed": 0.5, "bf16-mixed": 0.5, "64-true": 2.0}.get(precision, 1.0)
    weights = 2 * ADAM_BYTES if precision == "64-true" else ADAM_BYTES
    return StepMemory(count * (weights + decay), int(kept * scale))


def _kept_bytes(restorer: Restorer, recipe: Recipe, resolution: int, batch: int) -> int:
    seen: dict[int, int] = {}
    holders: list[torch.Tensor] = []
    own = {id(p) for p in restorer.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in own:
            storage = tensor.untyped_storage()
            seen[storage._cdata] = storage.nbytes()  # pyright: ignore[reportPrivateUsage]
            holders.append(tensor)  # keep it alive, so that no later storage gets its address
        return tensor

    def unpack(tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    image = torch.empty(batch, 3, resolution, resolution, device="meta")
    tokens = 1 if recipe.guide.tokens == "mean" else 16
    shapes: dict[str, Any] = {
        "image": (batch, tokens, recipe.model.guidance_dim),
        "joint": (batch, tokens, recipe.model.guidance_dim),
        "answer": (batch, recipe.model.guidance_dim),
    }
    present = {name: torch.empty(shapes[name], device="meta") for name in recipe.model.reads}
    embeddings = Embeddings.of(present) if present else None
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        restored = restorer(image, embeddings)
        loss = l1_loss(restored, image)
        if recipe.loss.fourier > 0:
            loss = loss + fourier_loss(restored, image)
    return sum(seen.values()) + loss.element_size()
