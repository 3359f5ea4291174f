"""MGFB equals Eqs. 1 and 2 written out as the paper prints them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mmfe_restore.model.mgfb import MGFB, CrossAttention

B, H, W, C, HEADS, D, T = 2, 5, 4, 8, 2, 6, 3


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn_like(parameter) * 0.5
    return module.double()


def as_printed(attention: CrossAttention, x: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
    """Softmax(QKᵀ/√d) V (Eq. 1), then W_O; Q a 1×1 and a depthwise 3×3, E first D→C."""
    query = F.conv2d(x.permute(0, 3, 1, 2), attention.query.weight)
    query = F.conv2d(query, attention.query_dwconv.weight, padding=1, groups=C)
    tokens = guidance @ attention.project_guidance.weight.T + attention.project_guidance.bias
    key, value = tokens @ attention.key.weight.T, tokens @ attention.value.weight.T
    d = C // HEADS
    parts = []
    for head in range(HEADS):
        window = slice(head * d, (head + 1) * d)
        q = query[:, window].flatten(2).transpose(1, 2)
        weights = (q @ key[..., window].transpose(1, 2) / d**0.5).softmax(dim=-1)
        parts.append(weights @ value[..., window])
    return (torch.cat(parts, dim=-1) @ attention.project_out.weight.flatten(1).T).view(x.shape)


def test_attention_is_equation_1() -> None:
    attention = randomised(CrossAttention(C, HEADS, D))
    assert isinstance(attention, CrossAttention)
    x, guidance = torch.randn(B, H, W, C).double(), torch.randn(B, T, D).double()
    torch.testing.assert_close(attention(x, guidance), as_printed(attention, x, guidance))


def test_the_block_adds_it_to_the_feature_as_equation_2_does() -> None:
    block = randomised(MGFB(C, HEADS, 2.66, D))
    assert isinstance(block, MGFB)
    torch.nn.init.zeros_(block.ffn.project_out.weight)
    x, guidance = torch.randn(B, H, W, C).double(), torch.randn(B, T, D).double()
    norm = block.norm1.body
    normed = F.layer_norm(x, (C,), norm.weight, norm.bias)
    torch.testing.assert_close(block(x, guidance), x + as_printed(block.attn, normed, guidance))


def test_the_order_of_the_tokens_does_not_matter() -> None:
    # So a random crop may use the whole image's tokens.
    attention = randomised(CrossAttention(C, HEADS, D))
    x, guidance = torch.randn(B, H, W, C).double(), torch.randn(B, T, D).double()
    torch.testing.assert_close(attention(x, guidance), attention(x, guidance.flip(1)))
