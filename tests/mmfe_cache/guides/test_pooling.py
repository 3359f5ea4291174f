"""Pooling: token 0 the exact mean, tokens 1 to 16 the pooled grid or runs."""

import numpy as np
import pytest
import torch

from mmfe_cache.guides.pooling import pool_grid, pool_sequence


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 3), (4, 4), (5, 5), (8, 8), (26, 39)])
def test_grids_equal_numpy_windows(slow, rows, columns):
    raster = np.random.default_rng(0).normal(size=(2, rows, columns, 6)).astype(np.float32)
    ours = pool_grid(torch.from_numpy(raster)).numpy()
    np.testing.assert_allclose(ours, [slow.raster(one) for one in raster], atol=1e-5)


@pytest.mark.parametrize("length", [1, 7, 16, 93, 1043])
def test_runs_equal_numpy_windows(slow, length):
    sequence = np.random.default_rng(0).normal(size=(2, length, 6)).astype(np.float32)
    ours = pool_sequence(torch.from_numpy(sequence)).numpy()
    np.testing.assert_allclose(ours, [slow.run(one) for one in sequence], atol=1e-5)


def test_half_precision_is_summed_in_float32():
    # 2049 ones: bfloat16 or float16 sums would stop counting.
    tokens = torch.ones(1, 2049, 1, dtype=torch.bfloat16)
    assert pool_sequence(tokens).dtype == torch.float32
    assert pool_sequence(tokens)[0, 0, 0] == 1
