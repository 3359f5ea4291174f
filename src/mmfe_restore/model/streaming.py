"""Level 1 in rows that are never all there at once, for photographs of many megapixels.

The maps of level 1 take nearly all the memory that a restoration needs: the decoder's has twice the
encoder's channels at full size. Where each side of level 1 has one Transformer block, only one sum
over all pixels stands between its input and its output (MDTA's, see `strips`). So the rows are made
twice: once for the sums, and once to be used. The encoder's map, which the decoder needs again, is
kept in half precision, and what is restored takes the place of its pixels that were used. An image
of 8 bits is turned into floating point strip by strip. A wide image is done in bands of columns,
one after the other, so that what a strip holds does not grow with its width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfe_restore.model.mgfb import MGFB
from mmfe_restore.model.parts import (
    Part,
    Place,
    Projection,
    cast,
    conv_of,
    convolve_rows,
    convolve_slice,
    fusion_parts,
    gdfn_part,
    is_kept,
    query_key_projection,
    rows_within,
    unit,
)
from mmfe_restore.model.restormer import TransformerBlock, Upsample, to_nchw, to_nhwc
from mmfe_restore.model.runners import hidden_channels
from mmfe_restore.model.strip_attention import AttentionSums, value_part
from mmfe_restore.model.strips import Strips, fits_half

LEAST_ROWS = 8
"""Of a strip, whatever the budget. Each strip takes some twenty calls, and a photograph of 4,000
columns would be done two rows at a time: 6 megapixels on two cores took 17.0 s with 2 rows, 14.9
with 4, 12.9 with 16, 17.7 with 32. On one thread of a busy machine 8 and 16 took the same
processor time, and 8 hold half as much."""

LEAST_COLUMNS = 2048
"""Of a band, whatever the budget: some 0.1 GiB for the decoder's strips of `LEAST_ROWS`. Each band
also computes its margins and begins anew: 4,000 columns by 96 rows took 1.03 times the processor
time in bands of 1,024 columns and 1.07 in bands of 512 (one thread, busy machine)."""

MARGIN = 8
"""Columns that a band sees on either side of its own. At its border each 3×3 convolution spoils one
more: six at most, of which the one at level 2 counts double."""

Rows = Iterator[Tensor]
"""An image's rows from the first to the last, in strips (n, W, C) of any height."""


class Columns(NamedTuple):
    """A band: its own columns ``first`` to ``last``, and what it sees, ``left`` to ``right``."""

    left: int
    first: int
    last: int
    right: int

    @property
    def seen(self) -> slice:
        """What it sees, of the image."""
        return slice(self.left, self.right)

    @property
    def own(self) -> slice:
        """Its own columns, of the image."""
        return slice(self.first, self.last)

    @property
    def inner(self) -> slice:
        """Its own columns, of what it sees."""
        return slice(self.first - self.left, self.last - self.left)


def bands_of(width: int, columns: int) -> list[Columns]:
    """Divide ``width``, which is even, into equal bands of ``columns`` or fewer.

    Not so few that a margin would reach beyond the band beside it.
    """
    count = -(-width // columns)
    edges = [width // 2 * index // count * 2 for index in range(count + 1)]
    return [
        Columns(max(first - MARGIN, 0), first, last, min(last + MARGIN, width))
        for first, last in pairwise(edges)
    ]


def bands_within(budget: int, width: int, block: TransformerBlock) -> list[Columns]:
    """The bands whose strips of `LEAST_ROWS` fit the budget; at least `LEAST_COLUMNS` wide.

    Args:
        budget: bytes of a strip's widest buffer, at four a number.
        width: of the image.
        block: its feed-forward network has the widest map.
    """
    column = LEAST_ROWS * len(block.ffn.dwconv.weight) * 4
    return bands_of(width, max(LEAST_COLUMNS, budget // column))


class StreamedLevel1:
    """Runs level 1 of the encoder and of the decoder, for one image at a time.

    Args:
        strips: runs the other levels; gives the height of the strips, and counts the work.
    """

    def __init__(self, strips: Strips) -> None:
        self._strips = strips

    def encode(
        self,
        image: Tensor,
        embed: nn.Conv2d,
        mgfb: MGFB | None,
        tokens: Tensor | None,
        block: TransformerBlock,
    ) -> Tensor:
        """From the image to level 1.

        Args:
            image: (1, 3, H, W), 0 to 1, or uint8.
            embed: the first convolution.
            mgfb: before the block; None where there is none.
            tokens: what ``mgfb`` reads, (1, T, D).
            block: the only one.

        Returns:
            (1, H, W, C); in half precision where the rest is in full precision, if every number
            fits it.
        """
        pixels, weight = to_nhwc(image)[0], embed.weight
        height, width, _ = pixels.shape
        like = to_nhwc(convolve_slice(pixels[:1, :1], weight, 0, 1))  # for its type alone
        bands = bands_within(self._strips.budget, width, block)
        step = self._height(bands, block, like)
        before = () if mgfb is None or tokens is None else fusion_parts(mgfb, tokens[0], like)

        def embedded(band: Columns) -> Rows:
            columns = pixels[:, band.seen]
            for first in range(0, height, step):
                last = min(first + step, height)
                yield to_nhwc(convolve_slice(columns, weight, first, last))[0].contiguous()

        def start(band: Columns) -> Rows:
            return self._run(embedded(band), before, step, band.left)

        parts = self._attend(start, bands, block, like, step, (height, width))
        kept = torch.float16 if like.dtype == torch.float32 else like.dtype
        level1 = like.new_empty((1, height, width, like.shape[-1]), dtype=kept)
        for band in bands:
            first = 0
            for strip in self._run(start(band), parts, step, band.left):
                own = strip[:, band.inner]
                if level1.dtype != own.dtype and not fits_half(own):
                    level1 = level1.to(own.dtype)
                level1[0, first : first + len(own), band.own] = own
                first += len(strip)
        return level1

    def decode(
        self,
        x: Tensor,
        skip: Tensor,
        up: Upsample,
        block: TransformerBlock,
        mgfb: MGFB | None,
        tokens: Tensor | None,
        output: nn.Conv2d,
        image: Tensor,
    ) -> Tensor:
        """From level 2 of the decoder to the restored image.

        Args:
            x: (1, H/2, W/2, 2C); may be put away in half precision.
            skip: what `encode` returned; it is written over.
            up: to level 1.
            block: the only one.
            mgfb: after the block; None where there is none.
            tokens: what ``mgfb`` reads, (1, T, D).
            output: the last convolution.
            image: as for `encode`.

        Returns:
            (1, 3, H, W), of the image's type; of the weights' where that is uint8.
        """
        small, kept = x[0], skip[0]
        weight = conv_of(up.body).weight
        if not is_kept(x, weight):
            weight = cast(weight, x)
        bands = bands_within(self._strips.budget, kept.shape[1], block)
        step = self._height(bands, block, weight)
        half = max(1, step // 2)
        # Of a band's left margin, whose place the band before it has written over.
        saved = kept[:, :0]

        def start(band: Columns) -> Rows:
            columns = small[:, band.left // 2 : band.right // 2]
            for first in range(0, len(small), half):
                last = min(first + half, len(small))
                doubled = convolve_slice(columns, weight, first, last)
                rows = slice(2 * first, 2 * last)
                there = kept[rows, band.left + saved.shape[1] : band.right]
                if saved.shape[1]:
                    there = torch.cat([saved[rows], there], dim=1)
                enlarged = to_nhwc(F.pixel_shuffle(doubled, 2))[0]
                yield torch.cat([enlarged, cast(there, weight)], dim=-1)

        after = () if mgfb is None or tokens is None else fusion_parts(mgfb, tokens[0], weight)
        size = (kept.shape[0], kept.shape[1])
        parts = (*self._attend(start, bands, block, weight, step, size), *after)
        last = cast(output.weight, weight)
        pixels = to_nhwc(image)[0]
        # Not the type of the maps: under autocast they have fewer digits than the image.
        exact = output.weight.dtype if image.dtype == torch.uint8 else image.dtype
        restored = _in_place_of(kept, exact)
        for band in bands:
            coming = kept[:, max(band.last - MARGIN, band.first) : band.last].clone()
            rows = self._run(start(band), parts, step, band.left)
            first = 0
            for _, buffer in self._with_neighbours(rows, last.shape[1], _as_they_are, step):
                added = convolve_rows(buffer, last)[:, band.inner]
                window = slice(first, first + len(added)), band.own
                torch.add(unit(pixels[window], exact), added, out=restored[window])
                first = window[0].stop
            saved = coming
        return to_nchw(restored[None])

    def _height(self, bands: Sequence[Columns], block: TransformerBlock, like: Tensor) -> int:
        """An even number of rows whose widest map, the feed-forward network's, fits the budget.

        At least `LEAST_ROWS`.
        """
        widest = len(block.ffn.dwconv.weight)
        width = max(band.right - band.left for band in bands)
        rows = rows_within(self._strips.budget, width, widest, like) // 2 * 2
        return max(rows, LEAST_ROWS)

    def _attend(
        self,
        start: Callable[[Columns], Rows],
        bands: Sequence[Columns],
        block: TransformerBlock,
        like: Tensor,
        step: int,
        size: tuple[int, int],
    ) -> tuple[Part, Part]:
        """A Transformer block's two parts, once its attention is known.

        ``start`` begins a band of its input anew; ``size`` is the map's (H, W).
        """
        project, kernel = query_key_projection(block.attn, block.norm1, like)
        sums = AttentionSums(block.attn, size, like.device)
        for band in bands:
            row = 0
            for _, buffer in self._with_neighbours(start(band), len(kernel), project, step):
                both = convolve_rows(buffer, kernel)
                # Another band adds these; zeros add nothing, and nothing is copied.
                both[:, : band.inner.start] = 0
                both[:, band.inner.stop :] = 0
                sums.add(both, Place(row, band.left))
                row += len(both)
        matrices = sums.matrices(like)
        answer = value_part(block.attn, block.norm1, matrices, like)
        return answer, gdfn_part(block.ffn, block.norm2, like)

    def _run(self, rows: Rows, parts: Sequence[Part], step: int, column: int) -> Rows:
        """One part after the other, on rows that begin at ``column`` of the map."""
        for part in parts:
            rows = self._part(rows, part, step, column)
        return rows

    def _part(self, rows: Rows, part: Part, step: int, column: int) -> Rows:
        row = 0
        for own, buffer in self._with_neighbours(rows, part.channels, part.project, step):
            part.use(own, convolve_rows(buffer, part.kernel), Place(row, column))
            row += len(own)
            yield own

    def _with_neighbours(
        self, rows: Rows, channels: int, project: Projection, step: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Project rows, and hand them out once the row below them is there.

        Args:
            rows: strips of at most ``step`` rows, (n, W, C).
            channels: K, of what is projected.
            project: makes (n, W, K) of rows.
            step: see ``rows``.

        Yields:
            Rows (m, W, C) that the caller may write over, and what was projected of them with one
            row above and below, (m + 2, W, K); rows outside the image are zero. The second is
            valid until the next step.
        """
        buffer: Tensor | None = None
        waiting: list[Tensor] = []  # at most one row
        ready = 1
        for strip in rows:
            if buffer is None:
                buffer = strip.new_empty((step + 3, strip.shape[1], channels))
                buffer[0].zero_()
            project(strip, buffer[ready : ready + len(strip)])
            ready += len(strip)
            both = torch.cat([*waiting, strip]) if waiting else strip
            waiting = [both[-1:].clone()]
            if ready > 2:
                yield both[:-1], buffer[:ready]
                self._strips.meter.add(ready - 2, strip.shape[1], channels)
                buffer[:2] = buffer[ready - 2 : ready].clone()
                ready = 2
        if buffer is not None:
            buffer[ready].zero_()
            yield waiting[0], buffer[: ready + 1]
            self._strips.meter.add(1, buffer.shape[1], channels)


def channels_passed(block: TransformerBlock, mgfb: MGFB | None, *, encoder: bool) -> int:
    """The channels of all passes over a side of level 1: what `Strips.meter` counts per pixel.

    Pixels of a band's margins are counted too.

    Args:
        block: the side's only one.
        mgfb: before it in the encoder, after it in the decoder; None where there is none.
        encoder: whether this is the encoder's side.
    """
    width = len(block.attn.project_out.weight)
    fusion = 0 if mgfb is None else width + hidden_channels(mgfb.ffn)
    # The encoder makes its input twice, fusion and all; the decoder has the last convolution.
    rest = 2 * fusion if encoder else fusion + width
    return 3 * width + hidden_channels(block.ffn) + rest


def _in_place_of(kept: Tensor, dtype: torch.dtype) -> Tensor:
    """(H, W, 3) of ``dtype`` in the memory of ``kept`` (H, W, C), pixel by pixel, if it fits.

    Whoever writes a pixel must have read it of ``kept`` before.
    """
    height, width, channels = kept.shape
    pixel = channels * kept.element_size()
    if 3 * dtype.itemsize > pixel or pixel % dtype.itemsize:
        return kept.new_empty((height, width, 3), dtype=dtype)
    return kept.view(dtype)[..., :3]


def _as_they_are(rows: Tensor, out: Tensor) -> None:
    out.copy_(rows)
