"""The same network in strips of rows and in place: exact, for inference.

MDTA's attention is C×C, a sum over pixels (Restormer), and everything else is local to three
rows. So a whole image is restored exactly in strips: each MDTA takes two passes, one that adds up
QᵀK and the norms (in float64) and one that applies the attention to V. Strips that fit the cache
make this the fastest way on a CPU, and only one full-size map is alive beside the skips.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfe_restore.model.block import GDFN, Downsample, TransformerBlock, Upsample
from mmfe_restore.model.layers import LayerNorm, to_nchw, to_nhwc, without_autocast
from mmfe_restore.model.mdta import MDTA, CrossMDTA, attention_matrix, fold_output
from mmfe_restore.model.mgfb import MGFB, CrossAttention
from mmfe_restore.model.mofe import Experts, MoFE
from mmfe_restore.model.rows import (
    Fill,
    add_product,
    convolve_rows,
    product,
    rolling_rows,
    rows_within,
    write_product,
)
from mmfe_restore.model.runners import Meter


class Strips:
    """Runs the parts in place; needs `torch.no_grad`.

    Args:
        budget: bytes of a strip's widest buffer.

    Attributes:
        meter: is told what is done.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self.meter = Meter()

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
                self.meter.add(last - first, width, channels)
        return out

    def up(self, up: Upsample, x: Tensor, skip: Tensor, reduce: nn.Conv2d | None) -> Tensor:
        """To the next level of the decoder."""
        batch, height, width, channels = x.shape
        half = channels // 2
        weight = _cast(_conv(up.body).weight, x)
        # Reducing the joined channels is a sum of two products: nothing needs to be joined, and the
        # result takes the place of the skip.
        reduced: tuple[Tensor, ...] = ()
        out = skip
        if reduce is not None:
            matrix = _cast(reduce.weight.flatten(1), x)
            reduced = matrix[:, :half].contiguous(), matrix[:, half:].contiguous()
        else:
            out = skip.new_empty((batch, 2 * height, 2 * width, channels))
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
                    both = product(enlarged.contiguous(), reduced[0])
                    add_product(both, kept[window], reduced[1])
                    result[window] = both
                self.meter.add(last - first, width, 2 * channels)
        return out

    def _mdta(self, attn: MDTA, norm: LayerNorm, x: Tensor) -> None:
        """In place: x += MDTA(norm(x)) for one image (H, W, C)."""
        channels = x.shape[-1]
        matrix, kernel = attn.qkv.weight.flatten(1), _cast(attn.qkv_dwconv.weight, x)
        asked, answered = matrix.split((2 * channels, channels))
        fill = _project(x, norm, asked)
        folded = self._attention(x, fill, kernel[: 2 * channels], attn)
        self._apply(x, _project(x, norm, answered), kernel[2 * channels :], folded)

    def _cross_mdta(self, mofe: MoFE, x: Tensor, mixed: Tensor) -> None:
        """Eqs. 5 and 6 for one image (H, W, C)."""
        attn, channels = mofe.attn, x.shape[-1]
        to_key, to_value = attn.key_value_matrix(mofe.project).chunk(2)
        key_kernel, value_kernel = _cast(attn.key_value_dwconv.weight, x).chunk(2)
        ask = _project(x, None, attn.query.weight.flatten(1))
        answer = _project(mixed, None, to_key)

        def fill(first: int, last: int, out: Tensor) -> None:
            ask(first, last, out[..., :channels])
            answer(first, last, out[..., channels:])

        kernel = torch.cat([_cast(attn.query_dwconv.weight, x), key_kernel])
        folded = self._attention(x, fill, kernel, attn)
        self._apply(x, _project(mixed, None, to_value), value_kernel, folded)

    def _attention(self, x: Tensor, fill: Fill, kernel: Tensor, attn: MDTA | CrossMDTA) -> Tensor:
        """The first pass: W_O · blockdiag(attention), (C, C), from sums over all pixels.

        ``fill`` writes Q and K side by side, 2C channels before their depthwise ``kernel``.
        """
        height, width, channels = x.shape
        heads = attn.temperature.shape[0]
        shape = (heads, channels // heads)
        products = torch.zeros((*shape, shape[1]), dtype=torch.float64, device=x.device)
        squares = torch.zeros(2 * channels, dtype=torch.float64, device=x.device)
        for _, buffer in self._roll((height, width), 2 * channels, fill, x):
            both = convolve_rows(buffer, kernel).flatten(0, 1)
            if both.dtype == torch.float16:  # sums over pixels overflow float16
                both = both.float()
            q, k = both.unflatten(-1, (2, *shape)).unbind(1)  # (P, h, d)
            with without_autocast(x):  # which would cast the float32 back
                products += torch.bmm(q.permute(1, 2, 0), k.transpose(0, 1))
            squares += _squares(both)
        norms = squares.sqrt_().view(2, 1, *shape)
        attention = attention_matrix(products[None], norms[0], norms[1], attn.temperature)
        weight = attn.project_out.weight.flatten(1).to(torch.float64)
        return fold_output(attention, weight)[0].to(x.dtype)

    def _apply(self, x: Tensor, fill: Fill, kernel: Tensor, matrix: Tensor) -> None:
        """The second pass: x += V · matrixᵀ."""
        height, width, channels = x.shape
        for window, buffer in self._roll((height, width), channels, fill, x):
            add_product(x[window], convolve_rows(buffer, kernel), matrix)

    def _gdfn(self, ffn: GDFN, norm: LayerNorm, x: Tensor) -> None:
        """In place: x += GDFN(norm(x)) for one image (H, W, C)."""
        height, width, _ = x.shape
        # Zero channels change nothing; `hidden_channels` says why they are there.
        matrix = torch.cat([_padded(w) for w in ffn.project_in.weight.flatten(1).chunk(2)])
        kernel = torch.cat([_padded(w) for w in ffn.dwconv.weight.chunk(2)])
        output = _cast(_padded(ffn.project_out.weight.flatten(1).t()).t().contiguous(), x)
        fill, kernel = _project(x, norm, matrix), _cast(kernel, x)
        for window, buffer in self._roll((height, width), len(kernel), fill, x):
            gate, value = convolve_rows(buffer, kernel).chunk(2, dim=-1)
            add_product(x[window], F.gelu(gate).mul_(value), output)

    def _cross_attention(
        self, attn: CrossAttention, norm: LayerNorm, x: Tensor, tokens: Tensor
    ) -> None:
        """Eq. 2 for one image (H, W, C) and its tokens (T, D)."""
        height, width, channels = x.shape
        keys, values = attn.keys_values(tokens[None])
        # All heads in one product: the zeros between them cost less than h small products.
        ask, answer = _cast(torch.block_diag(*keys[0]).t(), x), _cast(values[0].t(), x)
        ask, answer = ask.contiguous(), answer.contiguous()
        kernel = _cast(attn.query_dwconv.weight, x)
        fill = _project(x, norm, attn.query.weight.flatten(1))
        for window, buffer in self._roll((height, width), channels, fill, x):
            logits = product(convolve_rows(buffer, kernel), ask)  # (n, W, h * T)
            weights = logits.unflatten(-1, (attn.heads, -1)).softmax(dim=-1).flatten(-2)
            add_product(x[window], _cast(weights, x), answer)

    def _experts(self, experts: Experts, bands: Tensor, weights: Tensor) -> Tensor:
        """Σ S_i · M_i for one image (H, W, K)."""
        height, width, _ = bands.shape
        expand, expand_bias = _cast(experts.expand.weight, bands), experts.expand.bias
        assert expand_bias is not None
        expand_bias = _cast(expand_bias, bands)
        scale = _cast(weights, bands).repeat_interleave(experts.channels)
        contract = _cast(experts.contract.weight, bands)
        bias = _cast(weights @ experts.bias.to(weights.dtype), bands)

        def fill(first: int, last: int, out: Tensor) -> None:
            hidden = _convolve_slice(bands, expand, first, last, expand_bias)
            torch.mul(to_nhwc(F.gelu(hidden))[0], scale, out=out)

        out = torch.empty_like(bands)
        hidden = len(scale)
        for window, buffer in self._roll((height, width), hidden, fill, bands):
            out[window] = convolve_rows(buffer, contract, bias)
        return out

    def _roll(
        self, size: tuple[int, int], channels: int, fill: Fill, like: Tensor
    ) -> Iterator[tuple[slice, Tensor]]:
        """`rolling_rows` within the budget; each strip counts as done once it was used."""
        width = size[1]
        rows = rows_within(self._budget, width, channels, like)
        for window, buffer in rolling_rows(size, channels, fill, rows=rows, like=like):
            yield window, buffer
            self.meter.add(window.stop - window.start, width, channels)


def _conv(body: nn.Sequential) -> nn.Conv2d:
    conv = body[0]
    assert isinstance(conv, nn.Conv2d)
    return conv


def _cast(tensor: Tensor, like: Tensor) -> Tensor:
    return tensor.to(like.dtype)


def _padded(weight: Tensor) -> Tensor:
    """``weight`` with zeros appended along the first axis, to a multiple of 16."""
    missing = -len(weight) % 16
    return torch.cat([weight, weight.new_zeros((missing, *weight.shape[1:]))])


def _squares(pixels: Tensor) -> Tensor:
    """Sums of the squares of (P, C) over the pixels, (C,) in float32 or better."""
    precise = torch.promote_types(pixels.dtype, torch.float32)
    if pixels.device.type == "cpu" and pixels.dtype == precise:
        # A quarter of `vector_norm`'s time, which does not use that channels lie together.
        return (pixels * pixels).sum(dim=0)
    return torch.linalg.vector_norm(pixels, dim=0, dtype=precise).square_()


def _project(x: Tensor, norm: LayerNorm | None, matrix: Tensor) -> Fill:
    """Fill rows with the 1×1 convolution ``matrix`` of ``x``, normalised by ``norm``."""
    matrix, bias = (matrix, None) if norm is None else norm.folded(matrix)
    matrix, bias = _cast(matrix, x).contiguous(), None if bias is None else _cast(bias, x)

    def fill(first: int, last: int, out: Tensor) -> None:
        rows = x[first:last] if norm is None else norm.standardise(x[first:last])
        write_product(out, rows, matrix, bias)

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
