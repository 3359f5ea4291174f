"""Attention by segments: the same numbers as a loop over the segments."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmfe_cache.guides.segment_attention import (
    PatchProjection,
    _attend,
    plan_segments,
    remember_plans,
)


def loop(query, key, value, borders, scale):
    parts = []
    for start, stop in itertools.pairwise(borders):
        q, k, v = (t[:, :, start:stop] for t in (query, key, value))
        parts.append(F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2))
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize(
    "lengths", [[64] * 8, [64, 16, 16, 4] * 3, [7], [3, 3, 9, 3], [1, 2, 1, 2, 2]]
)
def test_equals_the_loop(lengths):
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, sum(lengths), 8) for _ in range(3))
    borders = np.cumsum([0, *lengths])
    expected = loop(query, key, value, borders, 0.3)
    plans = {}
    for _ in range(2):  # the second time from the remembered plan
        with remember_plans(plans):
            ours, _ = _attend(
                None, query, key, value, None, scaling=0.3, cu_seq_lens_q=torch.tensor(borders)
            )
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)
    assert len(plans) == 1


def test_equal_windows_need_no_reordering():
    plan = plan_segments(torch.arange(0, 65, 16))
    assert plan.back is None
    assert [tuple(group.shape) for group in plan.groups] == [(4, 16)]


@pytest.mark.parametrize(("dtype", "frames"), [(torch.float32, 1), (torch.bfloat16, 2)])
def test_a_patch_projection_is_its_convolution_of_equal_frames(dtype, frames):
    torch.manual_seed(0)
    convolution = torch.nn.Conv3d(3, 16, (2, 14, 14), (2, 14, 14), bias=False, dtype=dtype)
    still = torch.randn(10, 3, 1, 14, 14, dtype=dtype)
    expected = convolution(still.expand(-1, -1, 2, -1, -1)).flatten(1)
    projection = PatchProjection(convolution)
    assert projection.frames == frames
    ours = projection(still.expand(-1, -1, frames, -1, -1).flatten(1))
    torch.testing.assert_close(ours, expected)
    assert set(projection.state_dict()) == {"proj.weight"}
