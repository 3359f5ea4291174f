"""Restormer's parts on channels-last maps: layers, attention between channels (MDTA), the block.

Shape legend: B batch, H and W height and width, C channels, T guidance tokens, D guidance width,
N experts, P pixels (H * W), h heads, d channels of a head.

Inside the network every map is (B, H, W, C) and contiguous: LayerNorm over the channels and
1×1 convolutions then work on rows of memory, and a convolution sees the same memory as NCHW in
the channels-last format, without a copy.

MDTA attends from a map to itself or to another (Eqs. 5, 6). Attention over channels is a C×C matrix
per head, a sum over pixels, so its cost is linear in the image. Two steps of exact algebra keep
full-size maps few: Q and K are L2-normalised over the pixels *after* their product, on the C×C
matrix, and the 1×1 output convolution is multiplied into the attention matrix, so that V is read
once.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfe_restore.model.local_attention import (
    attend_locally,
    is_local,
    over_windows,
    sums_of_cells,
)

ALIGNED = 16
"""A GPU multiplies, and loads, channels in groups: hidden widths become multiples of this."""

_EPS = 1e-5
"""What LayerNorm adds to the variance (Restormer)."""


def to_nhwc(x_BCHW: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H, W, C); a view where the memory already is channels-last."""
    return x_BCHW.permute(0, 2, 3, 1)


def to_nchw(x_BHWC: Tensor) -> Tensor:
    """(B, H, W, C) to (B, C, H, W), a view."""
    return x_BHWC.permute(0, 3, 1, 2)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A block in which operations on ``x``'s device keep the types that they are given."""
    # The meta device, which counts arithmetic without computing, knows no autocast.
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def convolve(x_BHWC: Tensor, conv: nn.Conv2d | nn.Sequential) -> Tensor:
    """Run ``conv`` on a channels-last map: (B, H, W, C) to (B, H', W', C')."""
    return to_nhwc(conv(to_nchw(x_BHWC)))


def pointwise(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 1×1 convolution as a matrix product over the last axis: (..., C) to (..., C')."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)


def conv1x1(channels_in: int, channels_out: int) -> nn.Conv2d:
    """A 1×1 convolution without bias."""
    return nn.Conv2d(channels_in, channels_out, 1, bias=False)


def depthwise3x3(channels: int) -> nn.Conv2d:
    """A 3×3 convolution of each channel by itself, without bias."""
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)


class _Affine(nn.Module):
    """Scale and shift; a module of its own because Restormer's keys call it ``body``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))


class LayerNorm(nn.Module):
    """LayerNorm over the channels of each pixel, with bias (Restormer's).

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = _Affine(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        # Reduced precision keeps its type: the kernel itself sums in float32, and autocast's
        # float32 output would double the memory of every map.
        weight, bias = self.body.weight.to(x.dtype), self.body.bias.to(x.dtype)
        with without_autocast(x):
            return F.layer_norm(x, weight.shape, weight, bias, _EPS)

    def standardise(self, x: Tensor) -> Tensor:
        """LayerNorm without its scale and shift, for inference: (..., C) to (..., C)."""
        if x.dtype != torch.float32 or x.device.type != "cpu":
            with without_autocast(x):
                return F.layer_norm(x, x.shape[-1:], eps=_EPS)
        # torch's kernel works off one pixel after the other, at 20 ns each for 16 channels; whole
        # maps take half of that.
        centred = x - x.mean(dim=-1, keepdim=True)
        spread = torch.linalg.vector_norm(centred, dim=-1, keepdim=True)
        variance = spread.square_().div_(x.shape[-1])
        return centred.mul_(variance.add_(_EPS).rsqrt_())

    def folded(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift multiplied into the 1×1 convolution ``matrix`` (K', C) that follows.

        Returns:
            The matrix (K', C) and the bias (K',) to use on what `standardise` gives.
        """
        return matrix * self.body.weight, matrix @ self.body.bias


_NORM_EPS = 1e-12
"""The smallest norm that Q and K are divided by, as in `torch.nn.functional.normalize`."""


def attention_matrix(
    product: Tensor, q_norm: Tensor, k_norm: Tensor, temperature: Tensor
) -> Tensor:
    """Softmax(temperature · Q̂ᵀK̂) from sums over pixels.

    Args:
        product: (B, h, d, d) sum over the pixels of q_c · k_e.
        q_norm: (B, h, d) L2 norm of each channel of Q over the pixels.
        k_norm: (B, h, d) of K.
        temperature: (h, 1, 1) the learned one that stands for Eq. 6's 1/sqrt(d).

    Returns:
        (B, h, d, d) in float32 or better; rows sum to 1.
    """
    cosine = (
        product / q_norm.clamp_min(_NORM_EPS)[..., None] / k_norm.clamp_min(_NORM_EPS)[..., None, :]
    )
    return (cosine * temperature).softmax(dim=-1)


def fold_output(attention: Tensor, output: Tensor) -> Tensor:
    """W_O · blockdiag(attention): one matrix that takes V to the block's output.

    Args:
        attention: (B, h, d, d).
        output: (C, C) the weight of the 1×1 output convolution, C = h * d.

    Returns:
        (B, C, C): the output of a pixel is this matrix times its V.
    """
    heads, d = attention.shape[1:3]
    per_head = output.unflatten(1, (heads, d))  # (C, h, d)
    return torch.einsum("chd,bhde->bche", per_head.to(attention.dtype), attention).flatten(2)


def transposed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    temperature: Tensor,
    output: Tensor,
    cell: int | None = None,
) -> Tensor:
    """Conv1×1(Softmax(Q̂K̂ᵀ · temperature) V) (the bracket of Eq. 6).

    Args:
        q: (B, H, W, C) queries; channels of a head lie together.
        k: (B, H, W, C) keys.
        v: (B, H, W, C) values.
        temperature: (h, 1, 1).
        output: (C, C) the weight of the 1×1 output convolution.
        cell: of `local_attention`, on this map; None attends to the whole map.

    Returns:
        (B, H, W, C).
    """
    height, width = q.shape[1:3]
    if cell is not None and is_local(cell, height, width):
        return _by_windows(q, k, v, temperature, output, cell)
    q, k, v = (x.flatten(1, 2) for x in (q, k, v))
    heads = temperature.shape[0]
    if q.dtype == torch.float16:  # a sum over many pixels overflows float16: normalise first
        q = F.normalize(q.float(), dim=1, eps=_NORM_EPS).to(q.dtype)
        k = F.normalize(k.float(), dim=1, eps=_NORM_EPS).to(k.dtype)
    precise = torch.promote_types(q.dtype, torch.float32)
    with without_autocast(q):
        q_norm = torch.linalg.vector_norm(q, dim=1, dtype=precise).unflatten(-1, (heads, -1))
        k_norm = torch.linalg.vector_norm(k, dim=1, dtype=precise).unflatten(-1, (heads, -1))
        q, k = q.unflatten(-1, (heads, -1)), k.unflatten(-1, (heads, -1))
        product = torch.einsum("bphd,bphe->bhde", q, k).to(precise)
        attention = attention_matrix(product, q_norm, k_norm, temperature.to(precise))
        matrix = fold_output(attention, output).to(v.dtype)
        return (v @ matrix.transpose(1, 2)).unflatten(1, (height, width))


def _by_windows(
    q: Tensor, k: Tensor, v: Tensor, temperature: Tensor, output: Tensor, cell: int
) -> Tensor:
    """`transposed_attention` of windows."""
    heads, kind = temperature.shape[0], v.dtype
    precise = torch.promote_types(kind, torch.float32)
    if kind == torch.float16:  # whose sums over pixels overflow
        q, k = q.float(), k.float()
    with without_autocast(q):
        sums = sums_of_cells(q, k, heads, cell)
        product, q_square, k_square = (over_windows(one) for one in sums)
        d = q.shape[-1] // heads
        attention = attention_matrix(
            product.flatten(0, 2).unflatten(-1, (heads, d, d)),
            q_square.flatten(0, 2).unflatten(-1, (heads, d)).clamp_min(_NORM_EPS**2).sqrt(),
            k_square.flatten(0, 2).unflatten(-1, (heads, d)).clamp_min(_NORM_EPS**2).sqrt(),
            temperature.to(precise),
        )
        matrices = fold_output(attention, output).unflatten(0, product.shape[:3])
        return attend_locally(v, matrices, cell)


class MDTA(nn.Module):
    """Self-attention between the channels of one map; keys as in Restormer.

    Args:
        channels: C.
        heads: h; must divide C.

    Attributes:
        cell: of `local_attention`, on this map; None attends to the whole map.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.cell: int | None = None
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = conv1x1(channels, 3 * channels)
        self.qkv_dwconv = depthwise3x3(3 * channels)
        self.project_out = conv1x1(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H, W, C)."""
        q, k, v = convolve(pointwise(x, self.qkv), self.qkv_dwconv).chunk(3, dim=-1)
        output = self.project_out.weight.flatten(1)
        return transposed_attention(q, k, v, self.temperature, output, self.cell)


class CrossMDTA(nn.Module):
    """MDTA in which F^l asks and the frequency feature F'_HF answers (Eqs. 5 and 6).

    Args:
        channels: C.
        heads: h; must divide C.

    Attributes:
        cell: of `local_attention`, on this map; None attends to the whole map.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.cell: int | None = None
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.query = conv1x1(channels, channels)
        self.query_dwconv = depthwise3x3(channels)
        self.key_value = conv1x1(channels, 2 * channels)
        self.key_value_dwconv = depthwise3x3(2 * channels)
        self.project_out = conv1x1(channels, channels)

    def key_value_matrix(self, projection: nn.Conv2d) -> Tensor:
        """(2C, K): W_K and W_V times the K→C ``projection`` that precedes them.

        F'_HF has K = 9 independent channels, so one 9→2C product replaces 9→C and C→2C.
        """
        return self.key_value.weight.flatten(1) @ projection.weight.flatten(1)

    def forward(self, x: Tensor, bands: Tensor, projection: nn.Conv2d) -> Tensor:
        """Ask with ``x`` (B, H, W, C) what ``projection`` (K→C) of ``bands`` (B, H, W, K) holds.

        Returns:
            (B, H, W, C), to be added to ``x``.
        """
        q = convolve(pointwise(x, self.query), self.query_dwconv)
        key_value = F.linear(bands, self.key_value_matrix(projection))
        k, v = convolve(key_value, self.key_value_dwconv).chunk(2, dim=-1)
        output = self.project_out.weight.flatten(1)
        return transposed_attention(q, k, v, self.temperature, output, self.cell)


class GDFN(nn.Module):
    """1×1 to twice the hidden channels, depthwise 3×3, GELU(first half) · second half, 1×1.

    Args:
        channels: C.
        expansion: gamma; the hidden channels are int(gamma * C).
    """

    def __init__(self, channels: int, expansion: float) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.project_in = conv1x1(channels, 2 * hidden)
        self.dwconv = depthwise3x3(2 * hidden)
        self.project_out = conv1x1(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H, W, C)."""
        if x.is_cuda:
            return self.aligned_forward(x)
        gate, value = convolve(pointwise(x, self.project_in), self.dwconv).chunk(2, dim=-1)
        return pointwise(F.gelu(gate) * value, self.project_out)

    def aligned_forward(self, x: Tensor) -> Tensor:
        """The same with zero channels appended to both halves, see `aligned`.

        Restormer's widths of 127, 255, 510 and 1021 channels make a GPU load two bytes at a time
        and take its slow products.
        """
        matrix, kernel, output = self.aligned()
        hidden = to_nchw(F.linear(x, matrix))
        hidden = to_nhwc(F.conv2d(hidden, kernel, padding=1, groups=len(kernel)))
        gate, value = hidden.chunk(2, dim=-1)
        return F.linear(F.gelu(gate) * value, output)

    def aligned(self) -> tuple[Tensor, Tensor, Tensor]:
        """The weights of both 1×1 convolutions and the depthwise one, for aligned hidden widths.

        A zero channel stays zero through depthwise convolution, GELU and gate, and adds nothing
        to the output; the parameters and their gradients are as without it.

        Returns:
            (2h', C), (2h', 1, 3, 3) and (C, h'), h' the next multiple of `ALIGNED`.
        """
        missing = -self.project_out.in_channels % ALIGNED
        matrix, output = self.project_in.weight.flatten(1), self.project_out.weight.flatten(1)
        both = matrix.unflatten(0, (2, -1)), self.dwconv.weight.unflatten(0, (2, -1))
        # F.pad counts axes from the last one.
        matrix = F.pad(both[0], (0, 0, 0, missing)).flatten(0, 1)
        kernel = F.pad(both[1], (0, 0, 0, 0, 0, 0, 0, missing)).flatten(0, 1)
        return matrix, kernel, F.pad(output, (0, missing))


class TransformerBlock(nn.Module):
    """x + MDTA(LayerNorm(x)), then x + GDFN(LayerNorm(x)).

    Args:
        channels: C.
        heads: attention heads; must divide C.
        expansion: of the feed-forward network.
    """

    def __init__(self, channels: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels)
        self.attn = MDTA(channels, heads)
        self.norm2 = LayerNorm(channels)
        self.ffn = GDFN(channels, expansion)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H, W, C)."""
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Downsample(nn.Module):
    """Half the size, twice the channels: conv 3×3 to C/2, then pixel-unshuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False)
        self.body = nn.Sequential(conv, nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H/2, W/2, 2C)."""
        return convolve(x, self.body).contiguous()


class Upsample(nn.Module):
    """Twice the size, half the channels: conv 3×3 to 2C, then pixel-shuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False)
        self.body = nn.Sequential(conv, nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, 2H, 2W, C/2)."""
        return convolve(x, self.body).contiguous()
