"""The feed-forward network at hidden widths that a GPU likes: the same function and gradients."""

from __future__ import annotations

import pytest
import torch

from mmfe_restore.model.restormer import ALIGNED, GDFN


@pytest.mark.parametrize("channels", [6, 48, 12])  # 15, 127 and 31 hidden channels; none missing
def test_zero_channels_change_neither_output_nor_gradient(channels: int) -> None:
    torch.manual_seed(0)
    network = GDFN(channels, 2.66).double()
    keys = {name: value.shape for name, value in network.state_dict().items()}
    x = torch.randn(2, 5, 7, channels, dtype=torch.float64, requires_grad=True)
    found = []
    for run in (network, network.aligned_forward):
        out = run(x)
        out.sin().sum().backward()
        found.append([out.detach(), x.grad, *(p.grad for p in network.parameters())])
        x.grad = None
        network.zero_grad(set_to_none=True)
    for plain, aligned in zip(*found, strict=True):
        torch.testing.assert_close(aligned, plain, rtol=1e-12, atol=1e-14)
    assert {name: value.shape for name, value in network.state_dict().items()} == keys


@pytest.mark.parametrize(("channels", "width"), [(48, 128), (96, 256), (192, 512), (384, 1024)])
def test_the_full_networks_widths(channels: int, width: int) -> None:
    matrix, kernel, output = GDFN(channels, 2.66).aligned()
    assert matrix.shape == (2 * width, channels)
    assert kernel.shape == (2 * width, 1, 3, 3)
    assert output.shape == (channels, width)
    assert width % ALIGNED == 0
    assert matrix[width - 1].abs().sum() == matrix[-1].abs().sum() == 0
    assert output[:, -1].abs().sum() == 0
