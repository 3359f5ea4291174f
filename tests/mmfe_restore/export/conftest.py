"""Small networks and their inputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mmfe_cache.embeddings import Embeddings
from mmfe_restore import Restorer
from mmfe_restore.recipes.schema import ModelConfig

TINY = {
    "width": 8,
    # Alike at every level: mmfe-small, which is exported too, has them everywhere.
    "num_blocks": (1, 0, 0, 1),
    "num_refinement_blocks": 0,
    "num_experts": 3,
    "guidance_dim": 12,
}


@pytest.fixture
def tiny() -> Callable[..., Restorer]:
    """Makes a small network whose every weight is random, in float64 unless told otherwise."""

    def make(dtype: torch.dtype = torch.float64, **changes: object) -> Restorer:
        torch.manual_seed(0)
        restorer = Restorer(ModelConfig(**{**TINY, **changes}))
        for parameter in restorer.parameters():
            parameter.data += torch.randn_like(parameter) * 0.05
        return restorer.to(dtype).eval()

    return make


@pytest.fixture
def guidance() -> Callable[..., Embeddings]:
    def make(batch: int = 1, tokens: int = 16, dim: int = 12) -> Embeddings:
        torch.manual_seed(1)
        shape = (batch, tokens, dim)
        answer = torch.randn(batch, dim, dtype=torch.float64)
        return Embeddings(torch.randn(shape).double(), torch.randn(shape).double(), answer)

    return make
