"""The same network in strips of rows and in place: exact, for inference.

MDTA's attention is C×C, a sum over pixels (Restormer), and everything else is local to three
rows. So a whole image is restored exactly in strips: each MDTA takes two passes, one that adds up
QᵀK and the norms (in float64) and one that applies the attention to V. Strips that fit the cache
make this the fastest way on a CPU, and only one full-size map is alive beside the skips.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfe_restore.model.block import Downsample, TransformerBlock, Upsample
from mmfe_restore.model.experts import Experts
from mmfe_restore.model.feedforward import GDFN
from mmfe_restore.model.layers import LayerNorm, to_nchw, to_nhwc, without_autocast
from mmfe_restore.model.mdta import MDTA, attention_matrix, fold_output
from mmfe_restore.model.mgfb import MGFB, CrossAttention
from mmfe_restore.model.mofe import MoFE
from mmfe_restore.model.products import add_product, multiply_rows
from mmfe_restore.model.rolling import Fill, convolve_rows, rolling_rows, rows_within


class Strips:
    """Runs the parts in place; needs `torch.no_grad`.

    Args:
        budget: bytes of a strip's widest buffer.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget

    def block(self, block: TransformerBlock, x: Tensor) -> Tensor:
        """One Transformer block."""
        for one in x:
            self._mdta(block.attn, block.norm1, one)
            self._gdfn(block.ffn, block.norm2, one)
        return x

    def fuse(self, mgfb: MGFB, x: Tensor, guidance: Tensor) -> Tensor:
        """One MGFB."""
        for one, tokens in zip(x, guidance, strict=True):
            self._cross_attention(mgfb.attn, mgfb.norm1, one, tokens)
            self._gdfn(mgfb.ffn, mgfb.norm2, one)
        return x

    def mix(self, mofe: MoFE, x: Tensor, bands: Tensor, answer: Tensor) -> Tensor:
        """One MoFE."""
        weights = mofe.router(answer)  # Eq. 4
        for one, seen, scale in zip(x, _cast(bands, x), weights, strict=True):
            mixed = self._experts(mofe.experts, seen, scale)
            if mixed.shape[:2] != one.shape[:2]:
                size = [one.shape[0], one.shape[1]]
                larger = F.interpolate(to_nchw(mixed[None]), size=size, mode="bilinear")
                mixed = to_nhwc(larger)[0].contiguous()
            self._cross_mdta(mofe, one, mixed)
        return x

    def down(self, down: Downsample, x: Tensor) -> Tensor:
        """To the next level of the encoder."""
        batch, height, width, channels = x.shape
        out = x.new_empty((batch, height // 2, width // 2, 2 * channels))
        weight = _cast(_conv(down.body).weight, x)
        rows = rows_within(self._budget, width, channels, x) // 2 * 2
        for one, result in zip(x, out, strict=True):
            for first in range(0, height, rows):
                last = min(first + rows, height)
                halved = _convolve_slice(one, weight, first, last)
                result[first // 2 : last // 2] = to_nhwc(F.pixel_unshuffle(halved, 2))[0]
        return out

    def up(self, up: Upsample, x: Tensor, skip: Tensor, reduce: nn.Conv2d | None) -> Tensor:
        """To the next level of the decoder."""
        batch, height, width, channels = x.shape
        half = channels // 2
        out = skip.new_empty((batch, 2 * height, 2 * width, half if reduce else channels))
        weight = _cast(_conv(up.body).weight, x)
        # Reducing the joined channels is a sum of two products: nothing needs to be joined.
        reduced: tuple[Tensor, ...] = ()
        if reduce is not None:
            matrix = _cast(reduce.weight.flatten(1), x)
            reduced = matrix[:, :half].contiguous(), matrix[:, half:].contiguous()
        rows = rows_within(self._budget, width, 2 * channels, x)
        for one, kept, result in zip(x, skip, out, strict=True):
            for first in range(0, height, rows):
                last = min(first + rows, height)
                doubled = _convolve_slice(one, weight, first, last)
                enlarged = to_nhwc(F.pixel_shuffle(doubled, 2))[0]
                window = slice(2 * first, 2 * last)
                if not reduced:
                    result[window, :, :half] = enlarged
                    result[window, :, half:] = kept[window]
                else:
                    multiply_rows(enlarged.contiguous(), reduced[0], result[window])
                    add_product(result[window], kept[window], reduced[1])
        return out

    def _mdta(self, attn: MDTA, norm: LayerNorm, x: Tensor) -> None:
        """In place: x += MDTA(norm(x)) for one image (H, W, C)."""
        projections = _cast(attn.qkv.weight.flatten(1), x).chunk(3)
        kernels = _cast(attn.qkv_dwconv.weight, x).chunk(3)
        fill = _project(x, norm, projections[:2])
        matrix = self._attention(x, fill, kernels[:2], attn.temperature, attn.project_out)
        self._apply(x, _project(x, norm, projections[2:]), kernels[2], matrix)

    def _cross_mdta(self, mofe: MoFE, x: Tensor, mixed: Tensor) -> None:
        """Eqs. 5 and 6 for one image (H, W, C)."""
        attn = mofe.attn
        to_key, to_value = _cast(attn.key_value_matrix(mofe.project), x).chunk(2)
        key_kernel, value_kernel = _cast(attn.key_value_dwconv.weight, x).chunk(2)
        query, query_kernel = _cast(attn.query.weight.flatten(1), x), attn.query_dwconv.weight

        def fill(first: int, last: int, outs: Sequence[Tensor]) -> None:
            multiply_rows(x[first:last], query, outs[0])
            multiply_rows(mixed[first:last], to_key, outs[1])

        kernels = (_cast(query_kernel, x), key_kernel)
        matrix = self._attention(x, fill, kernels, attn.temperature, attn.project_out)
        self._apply(x, _project(mixed, None, (to_value,)), value_kernel, matrix)

    def _attention(
        self,
        x: Tensor,
        fill: Fill,
        kernels: Sequence[Tensor],
        temperature: Tensor,
        output: nn.Conv2d,
    ) -> Tensor:
        """The first pass: W_O · blockdiag(attention), (C, C), from sums over all pixels."""
        height, width, channels = x.shape
        heads = temperature.shape[0]
        shape = (heads, channels // heads)
        product = torch.zeros((*shape, shape[1]), dtype=torch.float64, device=x.device)
        squares = torch.zeros((2, *shape), dtype=torch.float64, device=x.device)
        rows = rows_within(self._budget, width, 2 * channels, x)
        precise = torch.promote_types(x.dtype, torch.float32)
        strips = rolling_rows((height, width), (channels, channels), fill, rows=rows, like=x)
        for _, buffers in strips:
            q, k = (
                convolve_rows(buffer, kernel).reshape(-1, *shape)
                for buffer, kernel in zip(buffers, kernels, strict=True)
            )
            if q.dtype == torch.float16:  # sums over pixels overflow float16
                q, k = q.float(), k.float()
            with without_autocast(x):  # which would cast the float32 back
                product += torch.bmm(q.permute(1, 2, 0), k.transpose(0, 1))
            for index, values in enumerate((q, k)):
                norm = torch.linalg.vector_norm(values, dim=0, dtype=precise)
                squares[index] += norm.double().square_()
        norms = squares.sqrt_()
        attention = attention_matrix(product[None], norms[0, None], norms[1, None], temperature)
        weight = output.weight.flatten(1).to(torch.float64)
        return fold_output(attention, weight)[0].to(x.dtype)

    def _apply(self, x: Tensor, fill: Fill, kernel: Tensor, matrix: Tensor) -> None:
        """The second pass: x += V · matrixᵀ."""
        height, width, channels = x.shape
        rows = rows_within(self._budget, width, channels, x)
        for window, (buffer,) in rolling_rows(
            (height, width), (channels,), fill, rows=rows, like=x
        ):
            add_product(x[window], convolve_rows(buffer, kernel), matrix)

    def _gdfn(self, ffn: GDFN, norm: LayerNorm, x: Tensor) -> None:
        """In place: x += GDFN(norm(x)) for one image (H, W, C)."""
        height, width, _ = x.shape
        # Odd hidden sizes (255) halve the speed of a product: zero channels change nothing.
        projections = [_padded(w, x) for w in ffn.project_in.weight.flatten(1).chunk(2)]
        kernels = [_padded(w, x) for w in ffn.dwconv.weight.chunk(2)]
        hidden = len(kernels[0])
        output = _padded(ffn.project_out.weight.flatten(1).t(), x).t().contiguous()
        fill = _project(x, norm, projections)
        rows = rows_within(self._budget, width, 2 * hidden, x)
        for window, buffers in rolling_rows(
            (height, width), (hidden, hidden), fill, rows=rows, like=x
        ):
            gate, value = (convolve_rows(b, k) for b, k in zip(buffers, kernels, strict=True))
            add_product(x[window], F.gelu(gate).mul_(value), output)

    def _cross_attention(
        self, attn: CrossAttention, norm: LayerNorm, x: Tensor, tokens: Tensor
    ) -> None:
        """Eq. 2 for one image (H, W, C) and its tokens (T, D)."""
        height, width, channels = x.shape
        keys, values = attn.keys_values(tokens[None])
        keys, values = _cast(keys, x), _cast(values, x)
        kernel = _cast(attn.query_dwconv.weight, x)
        fill = _project(x, norm, (_cast(attn.query.weight.flatten(1), x),))
        rows = rows_within(self._budget, width, channels, x)
        for window, (buffer,) in rolling_rows(
            (height, width), (channels,), fill, rows=rows, like=x
        ):
            q = convolve_rows(buffer, kernel).reshape(1, -1, channels)
            x[window].view(-1, channels).add_(attn.attend(q, keys, values)[0])

    def _experts(self, experts: Experts, bands: Tensor, weights: Tensor) -> Tensor:
        """Σ S_i · M_i for one image (H, W, K)."""
        height, width, _ = bands.shape
        expand, expand_bias = _cast(experts.expand.weight, bands), experts.expand.bias
        assert expand_bias is not None
        expand_bias = _cast(expand_bias, bands)
        scale = _cast(weights, bands).repeat_interleave(experts.channels)
        contract = _cast(experts.contract.weight, bands)
        bias = _cast(weights @ experts.bias.to(weights.dtype), bands)

        def fill(first: int, last: int, outs: Sequence[Tensor]) -> None:
            hidden = _convolve_slice(bands, expand, first, last, expand_bias)
            torch.mul(to_nhwc(F.gelu(hidden))[0], scale, out=outs[0])

        out = torch.empty_like(bands)
        hidden = len(scale)
        rows = rows_within(self._budget, width, hidden, bands)
        for window, (buffer,) in rolling_rows(
            (height, width), (hidden,), fill, rows=rows, like=bands
        ):
            out[window] = convolve_rows(buffer, contract, bias)
        return out


def _conv(body: nn.Sequential) -> nn.Conv2d:
    conv = body[0]
    assert isinstance(conv, nn.Conv2d)
    return conv


def _cast(tensor: Tensor, like: Tensor) -> Tensor:
    return tensor.to(like.dtype)


def _padded(weight: Tensor, like: Tensor) -> Tensor:
    """``weight`` with zeros appended along the first axis, to a multiple of 16."""
    missing = -len(weight) % 16
    zeros = weight.new_zeros((missing, *weight.shape[1:]))
    return _cast(torch.cat([weight, zeros]), like)


def _project(x: Tensor, norm: LayerNorm | None, matrices: Sequence[Tensor]) -> Fill:
    def fill(first: int, last: int, outs: Sequence[Tensor]) -> None:
        rows = x[first:last] if norm is None else norm(x[first:last])
        for matrix, out in zip(matrices, outs, strict=True):
            multiply_rows(rows, matrix, out)

    return fill


def _convolve_slice(
    x: Tensor, weight: Tensor, first: int, last: int, bias: Tensor | None = None
) -> Tensor:
    """Rows first..last of a dense 3×3 convolution of (H, W, C), as (1, C', n, W)."""
    above, below = max(first - 1, 0), min(last + 1, len(x))
    rows = to_nchw(x[above:below][None])
    # Padding is right at the image's own border and spoils a row elsewhere, which is cut off.
    out = F.conv2d(rows, weight, bias, padding=1)
    return out[:, :, first - above : last - above]
