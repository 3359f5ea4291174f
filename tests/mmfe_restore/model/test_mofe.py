"""MoFE equals Eqs. 3 to 6 written out as the paper prints them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from mmfe_restore.model.mofe import MoFE, Router, bands_at, haar
from mmfe_restore.recipes.schema import ModelConfig

B, H, W, C, HEADS, D, N, K = 2, 6, 8, 8, 2, 5, 3, 9


def test_the_router_is_equation_4() -> None:
    router, answer = Router(D, N).double(), torch.randn(B, D).double()
    scores = answer @ router.linear.weight.T + router.linear.bias
    torch.testing.assert_close(router(answer), 1 / (1 + (-scores).exp()))


@pytest.mark.parametrize("low", [False, True])
def test_the_bands_are_equation_3(low: bool) -> None:
    image = torch.rand(1, 3, 16, 24).double()
    bands = bands_at(image, (8, 12), replace(ModelConfig(), low_band=low))
    # Halving bilinearly without antialiasing averages 2×2 pixels.
    small = F.avg_pool2d(image, 2)
    a, b = small[..., 0::2, 0::2], small[..., 0::2, 1::2]
    c, d = small[..., 1::2, 0::2], small[..., 1::2, 1::2]
    of_rows, of_columns, of_both = a + b - c - d, a - b + c - d, a - b - c + d
    expected = torch.cat([of_rows, of_columns, of_both], dim=1) / 2
    if low:
        expected = torch.cat([(a + b + c + d) / 2, expected], dim=1)
    torch.testing.assert_close(bands, expected.permute(0, 2, 3, 1))


def test_the_spatial_domain_sees_the_resized_image_itself() -> None:
    image = torch.rand(1, 3, 16, 24).double()
    bands = bands_at(image, (8, 12), replace(ModelConfig(), experts="spatial"))
    torch.testing.assert_close(bands, F.avg_pool2d(image, 2).permute(0, 2, 3, 1))


def test_the_block_is_equations_5_and_6() -> None:
    torch.manual_seed(0)
    mofe = MoFE(C, HEADS, D, N, K).double()
    for parameter in mofe.parameters():
        parameter.data = torch.randn_like(parameter) * 0.5
    x, answer = torch.randn(B, H, W, C).double(), torch.randn(B, D).double()
    bands = torch.randn(B, H // 2, W // 2, K).double()

    gates = mofe.router(answer)
    mixed = sum(gates[:, i, None, None, None] * mofe.experts.single(i, bands) for i in range(N))
    assert isinstance(mixed, torch.Tensor)
    larger = F.interpolate(mixed.permute(0, 3, 1, 2), scale_factor=2, mode="bilinear")
    frequency = F.conv2d(larger, mofe.project.weight)  # F'_HF
    attn = mofe.attn
    q = F.conv2d(x.permute(0, 3, 1, 2), attn.query.weight)
    q = F.conv2d(q, attn.query_dwconv.weight, padding=1, groups=C)
    kv = F.conv2d(frequency, attn.key_value.weight)
    kv = F.conv2d(kv, attn.key_value_dwconv.weight, padding=1, groups=2 * C)
    # MDTA: channels attend to channels, Q and K of unit length over the pixels.
    q, k, v = (t.reshape(B, HEADS, C // HEADS, H * W) for t in (q, *kv.chunk(2, dim=1)))
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    weights = (q @ k.transpose(-1, -2) * attn.temperature).softmax(dim=-1)
    out = F.conv2d((weights @ v).reshape(B, C, H, W), attn.project_out.weight)
    torch.testing.assert_close(mofe(x, bands, answer), x + out.permute(0, 2, 3, 1))


def test_inference_takes_the_same_transform_without_the_package() -> None:
    image = torch.rand(2, 3, 6, 10)
    low, high = haar(image)
    with torch.no_grad():
        sliced_low, sliced_high = haar(image)
    torch.testing.assert_close(sliced_low, low, atol=1e-6, rtol=0)
    torch.testing.assert_close(sliced_high, high, atol=1e-6, rtol=0)
