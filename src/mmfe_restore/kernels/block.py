"""A Transformer block by the kernels of this folder, forward and backward.

    u = LN(x) W_qkv                                          norm_product
    q, k, v = depthwise(u);  S = Σ q kᵀ, |q|², |k|²          attention_sums
    M = W_O softmax(τ · S / |q| / |k|)                       attention_matrix, fold_output (torch)
    x' = x + v Mᵀ                                            attention_output
    h = LN(x') W_in                                          norm_product
    a, b = depthwise(h);  y = x' + (GELU(a) · b) W_out       gated_product

Kept for the backward pass are x, u, x' and h, and sums without pixels. It goes the same way back:

    ∂a, ∂b, ∂W_out from h and ∂y                             gated_product_backward
    ∂x', ∂W_in and the norm's from ∂a, ∂b and x'             norm_product_data, norm_product_weight
    ∂v, ∂M from u and ∂x'                                    attention_output_backward
    ∂S, ∂|q|², ∂|k|², ∂W_O, ∂τ from ∂M                       autograd
    ∂q, ∂k from u                                            attention_sums_backward
    ∂x, ∂W_qkv and the norm's from ∂q, ∂k, ∂v and x          norm_product_data, norm_product_weight

Depthwise convolutions, forward and transposed, are done by whoever reads a map, so neither q, k, v
nor a, b nor the gradients of u and h are ever written.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmfe_restore.kernels.attention_output import attention_output, attention_output_backward
from mmfe_restore.kernels.attention_sums import attention_sums, attention_sums_backward
from mmfe_restore.kernels.gated_product import gated_product, gated_product_backward
from mmfe_restore.kernels.norm_product import (
    norm_product,
    norm_product_data,
    norm_product_weight,
)
from mmfe_restore.kernels.tiles import sums_in
from mmfe_restore.model.local_attention import is_local
from mmfe_restore.model.restormer import (
    TransformerBlock,
    attention_matrix,
    fold_output,
    without_autocast,
)

_LEAST = 1e-24
"""The square of the smallest norm that q and k are divided by; see `attention_matrix`."""


def run_block(block: TransformerBlock, x: Tensor) -> Tensor:
    """``block(x)`` with gradients, in autocast's type where it is on.

    Args:
        block: its parameters get their gradients.
        x: (B, H, W, C) on a CUDA device.

    Returns:
        (B, H, W, C).
    """
    if not x.is_meta and torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    if is_local(block.attn.cell, *x.shape[1:3]):
        return block(x)  # the kernels sum over whole maps
    kind, precise = x.dtype, sums_in(x.dtype)
    matrix, taps, output = block.ffn.aligned()
    # Triton launches on the current device; going back, autograd makes x's the current one.
    with torch.cuda.device_of(x):
        out: Any = _Block.apply(
            x.contiguous(),
            block.norm1.body.weight,
            block.norm1.body.bias,
            block.attn.qkv.weight.flatten(1).to(kind),
            _as_taps(block.attn.qkv_dwconv.weight).to(precise),
            block.attn.temperature.to(precise),
            block.attn.project_out.weight.flatten(1).to(precise),
            block.norm2.body.weight,
            block.norm2.body.bias,
            matrix.to(kind),
            _as_taps(taps).to(precise),
            output.to(kind),
        )
    return out


def _as_taps(weight: Tensor) -> Tensor:
    """(N, 1, 3, 3) to (9, N)."""
    return weight.flatten(1).t().contiguous()


def _matrix(products: Tensor, squares: Tensor, temperature: Tensor, output: Tensor) -> Tensor:
    """M (B, C, C) from the sums over the pixels."""
    with without_autocast(products):
        q_norm, k_norm = squares.clamp_min(_LEAST).sqrt().unbind(1)
        matrix = fold_output(attention_matrix(products, q_norm, k_norm, temperature), output)
    return matrix.contiguous()  # of one head it comes transposed; the kernels need its rows


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale1: Tensor,
        shift1: Tensor,
        w_qkv: Tensor,
        taps1: Tensor,
        temperature: Tensor,
        w_o: Tensor,
        scale2: Tensor,
        shift2: Tensor,
        w_in: Tensor,
        taps2: Tensor,
        w_out: Tensor,
    ) -> Tensor:
        channels = x.shape[-1]
        u = norm_product(x, scale1, shift1, w_qkv)
        products, squares = attention_sums(u[..., : 2 * channels], taps1, len(temperature))
        matrix = _matrix(products, squares, temperature, w_o).to(x.dtype)
        middle = attention_output(u[..., 2 * channels :], taps1, matrix, x)
        h = norm_product(middle, scale2, shift2, w_in)
        y = gated_product(h, taps2, w_out, middle)
        ctx.save_for_backward(
            x, u, middle, h, products, squares, scale1, shift1, w_qkv, taps1, temperature, w_o,
            scale2, shift2, w_in, taps2, w_out,
        )  # fmt: skip
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        (
            x, u, middle, h, products, squares, scale1, shift1, w_qkv, taps1, temperature, w_o,
            scale2, shift2, w_in, taps2, w_out,
        ) = ctx.saved_tensors  # fmt: skip
        channels = x.shape[-1]
        g = gradients[0].contiguous()

        g_ab, g_w_out, g_taps2 = gated_product_backward(h, taps2, w_out, g)
        g_w_in = norm_product_weight(g_ab, taps2, middle, scale2, shift2)
        g, g_scale2, g_shift2 = norm_product_data(g_ab, taps2, w_in, middle, scale2, g)
        del g_ab

        small = [t.detach().requires_grad_() for t in (products, squares, temperature, w_o)]
        with torch.enable_grad():
            matrix = _matrix(*small)
        g_qkv = torch.empty_like(u)
        g_matrix, g_taps_v = attention_output_backward(
            u[..., 2 * channels :],
            taps1,
            matrix.detach().to(x.dtype),
            g,
            g_qkv[..., 2 * channels :],
        )
        g_products, g_squares, g_temperature, g_w_o = torch.autograd.grad(matrix, small, g_matrix)
        g_taps_qk = attention_sums_backward(
            u[..., : 2 * channels],
            taps1,
            g_products.to(x.dtype).contiguous(),
            g_squares,
            g_qkv[..., : 2 * channels],
        )
        g_taps1 = torch.cat([g_taps_qk, g_taps_v], 1)
        g_w_qkv = norm_product_weight(g_qkv, taps1, x, scale1, shift1)
        g, g_scale1, g_shift1 = norm_product_data(g_qkv, taps1, w_qkv, x, scale1, g)
        return (
            g, g_scale1, g_shift1, g_w_qkv, g_taps1, g_temperature, g_w_o,
            g_scale2, g_shift2, g_w_in, g_taps2, g_w_out,
        )  # fmt: skip
