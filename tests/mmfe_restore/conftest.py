"""A small network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mmfe_restore import Restorer
from mmfe_restore.recipes.schema import ModelConfig

TINY = {
    "width": 8,
    "num_blocks": (1, 1, 1, 1),
    "num_refinement_blocks": 1,
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
