"""Embeddings for small networks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mmfe_cache.embeddings import Embeddings


@pytest.fixture
def guidance() -> Callable[..., Embeddings]:
    def make(batch: int = 1, tokens: int = 16, dim: int = 12) -> Embeddings:
        torch.manual_seed(1)
        shape = (batch, tokens, dim)
        answer = torch.randn(batch, dim, dtype=torch.float64)
        return Embeddings(torch.randn(shape).double(), torch.randn(shape).double(), answer)

    return make
