"""Parts of the network as strips of rows run them: what is projected, convolved and added.

A part sees one row above and below. `strips` runs it over a map that lies in memory, in place;
`streaming` over rows that come and go.

torch hands float32 products on a CPU to MKL, which leaves half of the vector unit of some
processors idle; oneDNN's convolution does not. So float32 rows on a CPU are convolved, and
everything else is multiplied. `benchmarks/restore_speed.py` measures both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfe_restore.model.mgfb import MGFB
from mmfe_restore.model.restormer import GDFN, MDTA, LayerNorm, to_nchw, to_nhwc

Fill = Callable[[int, int, Tensor], None]
"""``fill(first, last, out)`` writes rows first..last of the input, (last - first, W, K)."""


def rolling_rows(
    size: tuple[int, int], channels: int, fill: Fill, *, rows: int, like: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    """Walk down an image in strips, with the one row above and below that a 3×3 kernel needs.

    Rows outside the image are zero, as zero padding wants them. Row r + 1 is filled before
    strip ..r is handed out, and never again: the caller may write over rows of the strip that
    it holds even where ``fill`` reads from the same map.

    Args:
        size: (H, W).
        channels: K.
        fill: computes rows of the convolution's input.
        rows: height of a strip, at least 2.
        like: gives device and dtype.

    Yields:
        The strip's rows, and a (rows + 2, W, K) buffer that is valid until the next step.
    """
    height, width = size
    rows = min(rows, height)  # a buffer larger than the image would be of no use
    buffer = like.new_empty((rows + 2, width, channels))
    buffer[0].zero_()
    ready = 0
    for first in range(0, height, rows):
        last = min(first + rows, height)
        if first:
            buffer[:2].copy_(buffer[rows : rows + 2])
        wanted = min(last + 1, height)
        if wanted > ready:
            fill(ready, wanted, buffer[ready - first + 1 : wanted - first + 1])
            ready = wanted
        if last == height:
            buffer[last - first + 1].zero_()
        yield slice(first, last), buffer[: last - first + 2]


def rows_within(budget: int, width: int, channels: int, like: Tensor) -> int:
    """How many rows of ``width`` × ``channels`` fit into ``budget`` bytes; at least 2."""
    return max(2, budget // (width * channels * like.element_size()))


def convolve_rows(buffer: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 3×3 convolution of a buffer of `rolling_rows`: (n + 2, W, K) to (n, W, K').

    Depthwise where ``weight`` is (K, 1, 3, 3).
    """
    groups = buffer.shape[2] // weight.shape[1]
    # The batch axis comes first: only its stride then tells torch that this is channels-last.
    nchw = to_nchw(buffer[None])
    return to_nhwc(F.conv2d(nchw, weight, bias, padding=(0, 1), groups=groups))[0]


def product(rows: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """The 1×1 convolution ``matrix`` (K', K) of ``rows`` (n, W, K), plus ``bias``: (n, W, K').

    ``rows`` are contiguous, and so is the result.
    """
    if not _convolves(rows):
        return F.linear(rows, matrix, bias)
    # Not conv2d: on one thread it takes 1×1 kernels to a fallback of less than half this speed.
    # The batch axis comes first: only its stride then tells torch that this is channels-last.
    kernel = matrix[:, :, None, None]
    out = torch.mkldnn_convolution(to_nchw(rows[None]), kernel, bias, (0, 0), (1, 1), (1, 1), 1)
    return to_nhwc(out)[0]


def write_product(out: Tensor, rows: Tensor, matrix: Tensor, bias: Tensor | None = None) -> None:
    """Write `product` to ``out`` (n, W, K'), at best contiguous."""
    if _convolves(rows) or not out.is_contiguous():
        out.copy_(product(rows, matrix, bias))
        return
    flat, pixels = out.view(-1, len(matrix)), rows.reshape(-1, rows.shape[-1])
    if bias is None:
        torch.mm(pixels, matrix.t(), out=flat)
    else:
        torch.addmm(bias, pixels, matrix.t(), out=flat)


def add_product(out: Tensor, rows: Tensor, matrix: Tensor) -> None:
    """Add `product` to ``out`` (n, W, K'), which is contiguous."""
    if _convolves(rows):
        out.add_(product(rows, matrix))
    else:
        out.view(-1, len(matrix)).addmm_(rows.reshape(-1, rows.shape[-1]), matrix.t())


def _convolves(rows: Tensor) -> bool:
    on_cpu = rows.device.type == "cpu" and rows.dtype == torch.float32
    return on_cpu and torch.backends.mkldnn.is_available()


Projection = Callable[[Tensor, Tensor], None]
"""``project(rows, out)`` writes a 1×1 convolution of rows (n, W, C) to ``out`` (n, W, K)."""


class Place(NamedTuple):
    """Where rows lie on a map: their first row, and their first column."""

    row: int
    column: int = 0


class Part(NamedTuple):
    """A part of the network that sees one row above and below, and adds to its input.

    Attributes:
        channels: K, of the map that is convolved.
        project: makes that map's rows of the input's.
        kernel: of the 3×3 convolution.
        use: adds what was convolved, (n, W, K'), to rows (n, W, C), in place, at their place.
    """

    channels: int
    project: Projection
    kernel: Tensor
    use: Callable[[Tensor, Tensor, Place], None]


def gdfn_part(ffn: GDFN, norm: LayerNorm, like: Tensor) -> Part:
    """Add GDFN(norm(x)) to x.

    Args:
        ffn: the feed-forward network.
        norm: before it.
        like: gives the type to compute in.
    """
    matrix, kernel, output = ffn.aligned()
    kernel, output = cast(kernel, like), cast(output, like)

    def use(rows: Tensor, convolved: Tensor, _: Place) -> None:
        gate, value = convolved.chunk(2, dim=-1)
        add_product(rows, F.gelu(gate).mul_(value), output)

    return Part(len(kernel), projection(norm, matrix, like), kernel, use)


def fusion_parts(mgfb: MGFB, tokens: Tensor, like: Tensor) -> tuple[Part, Part]:
    """An MGFB: cross-attention (Eq. 2), then its feed-forward network.

    Args:
        mgfb: the block.
        tokens: (T, D) of one image.
        like: gives the type to compute in.
    """
    attn = mgfb.attn
    keys, values = attn.keys_values(tokens[None])
    # All heads in one product: the zeros between them cost less than h small products.
    ask, answer = cast(torch.block_diag(*keys[0]).t(), like), cast(values[0].t(), like)
    ask, answer = ask.contiguous(), answer.contiguous()

    def use(rows: Tensor, convolved: Tensor, _: Place) -> None:
        logits = product(convolved, ask)  # (n, W, h * T)
        weights = logits.unflatten(-1, (attn.heads, -1)).softmax(dim=-1).flatten(-2)
        add_product(rows, cast(weights, like), answer)

    matrix, kernel = attn.query.weight.flatten(1), cast(attn.query_dwconv.weight, like)
    asked = Part(len(kernel), projection(mgfb.norm1, matrix, like), kernel, use)
    return asked, gdfn_part(mgfb.ffn, mgfb.norm2, like)


def query_key_projection(attn: MDTA, norm: LayerNorm, like: Tensor) -> tuple[Projection, Tensor]:
    """For the first pass of x += MDTA(norm(x)): what makes Q and K, and their depthwise kernel."""
    asked = 2 * len(attn.project_out.weight)
    matrix, kernel = attn.qkv.weight.flatten(1)[:asked], attn.qkv_dwconv.weight[:asked]
    return projection(norm, matrix, like), cast(kernel, like)


def projection(norm: LayerNorm | None, matrix: Tensor, like: Tensor) -> Projection:
    """The 1×1 convolution ``matrix`` of rows that ``norm`` normalised."""
    matrix, bias = (matrix, None) if norm is None else norm.folded(matrix)
    matrix, bias = cast(matrix, like).contiguous(), None if bias is None else cast(bias, like)

    def project(rows: Tensor, out: Tensor) -> None:
        write_product(out, rows if norm is None else norm.standardise(rows), matrix, bias)

    return project


def rows_of(x: Tensor, project: Projection) -> Fill:
    """Fill rows with what ``project`` makes of the rows of ``x``, (H, W, C)."""

    def fill(first: int, last: int, out: Tensor) -> None:
        project(x[first:last], out)

    return fill


def cast(tensor: Tensor, like: Tensor) -> Tensor:
    """``tensor`` in the type of ``like``."""
    return tensor.to(like.dtype)


def conv_of(body: nn.Sequential) -> nn.Conv2d:
    """The convolution of a change of resolution."""
    conv = body[0]
    assert isinstance(conv, nn.Conv2d)
    return conv


def convolve_slice(
    x: Tensor, weight: Tensor, first: int, last: int, bias: Tensor | None = None
) -> Tensor:
    """Rows first..last of a dense 3×3 convolution of (H, W, C), as (1, C', n, W).

    Bytes count as `unit` has them.
    """
    above, below = max(first - 1, 0), min(last + 1, len(x))
    rows = unit(to_nchw(x[above:below][None]), weight.dtype)
    # Padding is right at the image's own border and spoils a row elsewhere, which is cut off.
    out = F.conv2d(rows, weight, bias, padding=1)
    return out[:, :, first - above : last - above]


def doubled_rows(x: Tensor, first: int, last: int) -> Tensor:
    """Rows first..last of (H, W, K) enlarged bilinearly to twice its sides, (last - first, 2W, K).

    Autocast gives float32.
    """
    above, below = max((first - 1) // 2, 0), min(last // 2 + 1, len(x))
    # As `convolve_slice`: what the cut spoils lies outside first..last.
    doubled = F.interpolate(to_nchw(x[above:below][None]), scale_factor=2, mode="bilinear")
    return to_nhwc(doubled)[0, first - 2 * above : last - 2 * above].contiguous()


def unit(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """``pixels`` in ``dtype``; bytes, 0 to 255, become 0 to 1."""
    return pixels.to(dtype).div_(255) if pixels.dtype == torch.uint8 else pixels.to(dtype)


def is_kept(x: Tensor, weight: Tensor) -> bool:
    """Whether a map was only put away in half precision, beside weights of full precision."""
    halved = x.dtype == torch.float16 and weight.dtype == torch.float32
    return halved and not torch.is_autocast_enabled(x.device.type)
