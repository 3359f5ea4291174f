"""The same network in strips of rows and in place: exact, for inference.

MDTA's attention is C×C, a sum over pixels (Restormer), and everything else is local to three
rows. So a whole image is restored exactly in strips: each MDTA takes two passes, one that adds up
QᵀK and the norms (in float64; on the CPU where the device has none) and one that applies the
attention to V. Strips that fit the cache make this the fastest way on a CPU, and only one full-size
map is alive beside the skips.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfe_restore.model.mgfb import MGFB
from mmfe_restore.model.mofe import Experts, MoFE
from mmfe_restore.model.pages import give_back, give_back_free
from mmfe_restore.model.parts import (
    Fill,
    Part,
    Place,
    add_product,
    cast,
    conv_of,
    convolve_rows,
    convolve_slice,
    doubled_rows,
    fusion_parts,
    gdfn_part,
    is_kept,
    product,
    projection,
    query_key_projection,
    rolling_rows,
    rows_of,
    rows_within,
)
from mmfe_restore.model.restormer import (
    MDTA,
    CrossMDTA,
    Downsample,
    LayerNorm,
    TransformerBlock,
    Upsample,
    to_nhwc,
)
from mmfe_restore.model.runners import Meter
from mmfe_restore.model.strip_attention import (
    AttentionSums,
    WindowMatrices,
    add_attended,
    value_part,
)


class Strips:
    """Runs the parts in place; needs `torch.no_grad`.

    Args:
        budget: bytes of a strip's widest buffer.
        puts_away: whether `down` uses its input up and returns it in half precision, where it is
            in full precision: for photographs of many megapixels.

    Attributes:
        meter: is told what is done.
    """

    def __init__(self, budget: int, puts_away: bool = False) -> None:
        self.budget = budget
        self.meter = Meter()
        self._puts_away = puts_away

    def block(self, block: TransformerBlock, x: Tensor) -> Tensor:
        """One Transformer block."""
        for one in x:
            self._mdta(block.attn, block.norm1, one)
            self._in_place(gdfn_part(block.ffn, block.norm2, one), one)
        self._tidy()
        return x

    def fuse(self, mgfb: MGFB, x: Tensor, guidance: Tensor) -> Tensor:
        """One MGFB."""
        for one, tokens in zip(x, guidance, strict=True):
            for part in fusion_parts(mgfb, tokens, one):
                self._in_place(part, one)
        return x

    def mix(self, mofe: MoFE, x: Tensor, bands: Tensor, answer: Tensor) -> Tensor:
        """One MoFE."""
        weights = mofe.router(answer)  # Eq. 4
        for one, seen, scale in zip(x, cast(bands, x), weights, strict=True):
            self._cross_mdta(mofe, one, self._experts(mofe.experts, seen, scale))
        self._tidy()
        return x

    def down(self, down: Downsample, x: Tensor) -> tuple[Tensor, Tensor]:
        """To the next level of the encoder."""
        batch, height, width, channels = x.shape
        weight = conv_of(down.body).weight
        if not is_kept(x, weight):
            weight = cast(weight, x)
        out = weight.new_empty((batch, height // 2, width // 2, 2 * channels))
        halves = self._halves(x)
        kept = x.new_empty(x.shape, dtype=torch.float16) if halves else x
        rows = rows_within(self.budget, width, channels, x) // 2 * 2
        for one, put, result in zip(x, kept, out, strict=True):
            for first in range(0, height, rows):
                last = min(first + rows, height)
                halved = convolve_slice(one, weight, first, last)
                result[first // 2 : last // 2] = to_nhwc(F.pixel_unshuffle(halved, 2))[0]
                if halves:
                    put[first:last] = one[first:last]
                    give_back(one[max(first - 1, 0) : last - 1])  # the next strip sees one row more
                self.meter.add(last - first, width, channels)
        self._tidy()
        return out, kept

    def up(self, up: Upsample, x: Tensor, skip: Tensor, reduce: nn.Conv2d | None) -> Tensor:
        """To the next level of the decoder."""
        batch, height, width, channels = x.shape
        half = channels // 2
        weight = cast(conv_of(up.body).weight, x)
        # Reducing the joined channels is a sum of two products: nothing needs to be joined, and the
        # result takes the place of the skip, if that was not put away.
        reduced: tuple[Tensor, ...] = ()
        out = skip
        put_away = self._puts_away and skip.dtype != x.dtype
        if reduce is not None:
            matrix = cast(reduce.weight.flatten(1), x)
            reduced = matrix[:, :half].contiguous(), matrix[:, half:].contiguous()
            out = x.new_empty(skip.shape) if put_away else skip
        else:
            out = skip.new_empty((batch, 2 * height, 2 * width, channels))
        rows = rows_within(self.budget, width, 2 * channels, x)
        for one, kept, result in zip(x, skip, out, strict=True):
            for first in range(0, height, rows):
                last = min(first + rows, height)
                doubled = convolve_slice(one, weight, first, last)
                enlarged = to_nhwc(F.pixel_shuffle(doubled, 2))[0]
                window = slice(2 * first, 2 * last)
                if not reduced:
                    result[window, :, :half] = enlarged
                    result[window, :, half:] = kept[window]
                else:
                    both = product(enlarged.contiguous(), reduced[0])
                    add_product(both, cast(kept[window], x), reduced[1])
                    result[window] = both
                if put_away:
                    give_back(kept[window])
                    give_back(one[max(first - 1, 0) : last - 1])  # the next strip sees one row more
                self.meter.add(last - first, width, 2 * channels)
        self._tidy()
        return out

    def put_away(self, x: Tensor) -> Tensor:
        """Use a map (B, H, W, C) up and return it in half precision, where `down` would."""
        if not self._halves(x):
            return x
        kept = x.new_empty(x.shape, dtype=torch.float16)
        rows = rows_within(self.budget, x.shape[2], x.shape[3], x)
        for one, put in zip(x, kept, strict=True):
            for first in range(0, len(one), rows):
                window = slice(first, min(first + rows, len(one)))
                put[window] = one[window]
                give_back(one[window])
        return kept

    def _halves(self, x: Tensor) -> bool:
        return self._puts_away and x.dtype == torch.float32 and fits_half(x)

    def _tidy(self) -> None:
        """After parts that held sums of windows, and between levels, where buffers change size."""
        if self._puts_away:
            give_back_free()

    def _mdta(self, attn: MDTA, norm: LayerNorm, x: Tensor) -> None:
        """In place: x += MDTA(norm(x)) for one image (H, W, C)."""
        project, kernel = query_key_projection(attn, norm, x)
        matrices = self._attention(x, rows_of(x, project), kernel, attn)
        self._in_place(value_part(attn, norm, matrices, x), x)

    def _cross_mdta(self, mofe: MoFE, x: Tensor, mixed: Tensor) -> None:
        """Eqs. 5 and 6 for one image (H, W, C) and ``mixed`` (H, W, K) or (H/2, W/2, K)."""
        attn, channels = mofe.attn, x.shape[-1]
        to_key, to_value = attn.key_value_matrix(mofe.project).chunk(2)
        key_kernel, value_kernel = cast(attn.key_value_dwconv.weight, x).chunk(2)
        ask = projection(None, attn.query.weight.flatten(1), x)
        answer = projection(None, to_key, x)

        def seen(first: int, last: int) -> Tensor:
            whole = mixed.shape[:2] == x.shape[:2]
            return mixed[first:last] if whole else cast(doubled_rows(mixed, first, last), x)

        def fill(first: int, last: int, out: Tensor) -> None:
            ask(x[first:last], out[..., :channels])
            answer(seen(first, last), out[..., channels:])

        kernel = torch.cat([cast(attn.query_dwconv.weight, x), key_kernel])
        matrices = self._attention(x, fill, kernel, attn)
        project = projection(None, to_value, x)

        def value(first: int, last: int, out: Tensor) -> None:
            project(seen(first, last), out)

        for window, buffer in self._roll((x.shape[0], x.shape[1]), channels, value, x):
            values = convolve_rows(buffer, value_kernel)
            add_attended(x[window], values, matrices, attn.cell, Place(window.start))

    def _attention(
        self, x: Tensor, fill: Fill, kernel: Tensor, attn: MDTA | CrossMDTA
    ) -> WindowMatrices:
        """The first pass: W_O · blockdiag(attention) of the windows, from sums.

        ``fill`` writes Q and K side by side, 2C channels before their depthwise ``kernel``.
        """
        height, width, channels = x.shape
        sums = AttentionSums(attn, (height, width), x.device)
        for window, buffer in self._roll((height, width), 2 * channels, fill, x):
            sums.add(convolve_rows(buffer, kernel), Place(window.start))
        return sums.matrices(x)

    def _in_place(self, part: Part, x: Tensor) -> None:
        """One part of one image (H, W, C)."""
        height, width, _ = x.shape
        for window, buffer in self._roll(
            (height, width), part.channels, rows_of(x, part.project), x
        ):
            part.use(x[window], convolve_rows(buffer, part.kernel), Place(window.start))

    def _experts(self, experts: Experts, bands: Tensor, weights: Tensor) -> Tensor:
        """Σ S_i · M_i for one image (H, W, K)."""
        height, width, _ = bands.shape
        expand, expand_bias = cast(experts.expand.weight, bands), experts.expand.bias
        assert expand_bias is not None
        expand_bias = cast(expand_bias, bands)
        scale = cast(weights, bands).repeat_interleave(experts.channels)
        contract = cast(experts.contract.weight, bands)
        bias = cast(weights @ experts.bias.to(weights.dtype), bands)

        def fill(first: int, last: int, out: Tensor) -> None:
            hidden = convolve_slice(bands, expand, first, last, expand_bias)
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
        rows = rows_within(self.budget, width, channels, like)
        for window, buffer in rolling_rows(size, channels, fill, rows=rows, like=like):
            yield window, buffer
            self.meter.add(window.stop - window.start, width, channels)


def fits_half(x: Tensor) -> bool:
    """Whether half precision holds every number of a map: beyond 65,504 it has only infinity."""
    least, most = torch.aminmax(x)  # unlike abs(), without a copy
    return max(-float(least), float(most)) <= torch.finfo(torch.float16).max
