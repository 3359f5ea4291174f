"""What the network is guided by: checked embeddings, or the learned null guidance."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mmfe_cache.embeddings import ArrayName, Embeddings
from mmfe_cache.errors import ModelError

if TYPE_CHECKING:
    from mmfe_restore.recipes.schema import ModelConfig


def check_embeddings(
    embeddings: Embeddings, config: ModelConfig, batch: int, *, values: bool
) -> None:
    """Refuse embeddings that do not fit the network.

    Args:
        embeddings: what the caller gave.
        config: which kinds the network reads, and D.
        batch: B, the number of images.
        values: also look for NaN and infinity, which costs a pass and, on CUDA, a wait.

    Raises:
        ModelError: a missing kind; another batch size, width, number of axes or a dtype that
            is not floating-point; a non-finite value where ``values`` asks for it.
    """
    for name in config.reads:
        tensor = getattr(embeddings, name)
        tokens = "" if name == "answer" else "T, "
        expected = f"{name} of shape ({batch}, {tokens}{config.guidance_dim})"
        if tensor is None:
            raise ModelError(
                f"the network reads the embedding `{name}`, which is missing",
                got=", ".join(embeddings.present()) or "no embedding at all",
                expected=", ".join(config.reads),
                remedy=f'ask the guide or the cache for arrays=("{name}", ...) too',
            )
        if not tensor.is_floating_point():
            raise ModelError(
                f"the embedding `{name}` is not floating-point",
                got=tensor.dtype,
                expected="float16, bfloat16, float32 or float64",
            )
        wanted = 2 if name == "answer" else 3
        if tensor.dim() == wanted and tensor.shape[-1] != config.guidance_dim:
            raise ModelError(
                f"the embedding `{name}` has another width than this network was made for",
                got=f"D = {tensor.shape[-1]}",
                expected=f"D = {config.guidance_dim} (model.guidance_dim)",
                remedy="use the guide of the network's recipe, or train with `--set guide=NAME`",
            )
        if tensor.dim() != wanted or len(tensor) != batch or 0 in tensor.shape:
            raise ModelError(
                f"the embedding `{name}` does not fit the batch of images",
                got=tuple(tensor.shape),
                expected=expected,
            )
        if values and not bool(tensor.isfinite().all()):
            raise ModelError(
                f"the embedding `{name}` holds NaN or infinity",
                expected="finite numbers",
                remedy="mmfe cache verify PATH",
            )


class NullGuidance(nn.Module):
    """One learned D-vector per kind of embedding, for samples without guidance.

    Args:
        kinds: the kinds of embedding that the network reads.
        guidance_dim: D.
    """

    def __init__(self, kinds: tuple[ArrayName, ...], guidance_dim: int) -> None:
        super().__init__()
        for kind in kinds:
            self.register_parameter(kind, nn.Parameter(torch.zeros(guidance_dim)))

    def forward(self, embeddings: Embeddings | None, keep: Tensor | None, batch: int) -> Embeddings:
        """Replace what is not kept.

        Args:
            embeddings: the guide's; None means that no sample has any.
            keep: (B,) bool, False where the null guidance takes a sample's place; None keeps all.
            batch: B.

        Returns:
            Embeddings of B samples. In training every null vector is in the graph, whatever
            ``keep`` says, so that distributed training sees a gradient for it at every step.
        """
        vectors = dict(self.named_parameters())
        if embeddings is None:
            shapes = {name: (batch, 1, -1) if name != "answer" else (batch, -1) for name in vectors}
            return Embeddings(**{n: v.expand(shapes[n]) for n, v in vectors.items()})
        if keep is None:
            if not self.training:
                return embeddings
            device = next(iter(vectors.values())).device
            keep = torch.ones(batch, dtype=torch.bool, device=device)
        mixed: dict[str, Tensor] = {}
        for name, vector in vectors.items():
            tensor = getattr(embeddings, name)
            mask = keep.view(-1, *(1,) * (tensor.dim() - 1))
            mixed[name] = torch.where(mask, tensor, vector.to(tensor.dtype))
        return replace(embeddings, **mixed)
