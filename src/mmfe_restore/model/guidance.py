"""The learned null guidance, for samples without embeddings."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from mmfe_cache.embeddings import ArrayName, Embeddings


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
            return Embeddings.of({n: v.expand(shapes[n]) for n, v in vectors.items()})
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
