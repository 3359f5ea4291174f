"""The restorer as ONNX operators, on channels-first maps.

The same algebra as `mmfe_restore.model`: every 1×1 product is a convolution, LayerNorm's scale and
shift lie in the convolution that follows it, channels are never split or joined where two
convolutions do, and changes of resolution need no transposed map.

Shape legend: B batch, H and W height and width, C channels, T guidance tokens, D guidance width,
N experts, h heads, d channels of a head, P pixels (H * W).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from mmfe_restore.export.graph import Graph, Value
from mmfe_restore.model.local_attention import SPAN
from mmfe_restore.model.network import MOFE_SITES

if TYPE_CHECKING:
    from mmfe_restore.model.mgfb import MGFB, CrossAttention
    from mmfe_restore.model.mofe import Experts, MoFE
    from mmfe_restore.model.restorer import Restorer
    from mmfe_restore.model.restormer import (
        GDFN,
        MDTA,
        CrossMDTA,
        Downsample,
        LayerNorm,
        TransformerBlock,
        Upsample,
    )

_LAYER_NORM_EPS, _NORM_EPS = 1e-5, 1e-12
"""What LayerNorm adds to the variance; the smallest norm that Q and K are divided by."""

Array = NDArray[np.float32]


def write_restorer(
    graph: Graph,
    restorer: Restorer,
    image: Value,
    e_image: Value | None,
    e_joint: Value | None,
    e_answer: Value | None,
) -> Value:
    """`Restorer` without its checks: (B, 3, H, W) in [0, 1] to the same.

    Args:
        graph: what is written to.
        restorer: float32, on the CPU.
        image: (B, 3, H, W), any H and W from 1.
        e_image: (B, T, D), where the network reads it.
        e_joint: (B, T, D), where the network reads it.
        e_answer: (B, D), where the network reads it.
    """
    padded = image
    for axis in (2, 3):
        padded = _pad(graph, padded, axis, restorer.size_multiple)
    run = GraphRunner(graph)
    x = graph.conv(padded, weights_of(restorer.patch_embed.proj.weight), padding=1)
    x = restorer.run_levels(run, x, _bands(graph, restorer, padded), (e_image, e_joint, e_answer))
    restored = graph.plus(graph.conv(x, weights_of(restorer.output.weight), padding=1), padded)
    starts, axes = graph.integers(0, 0), graph.integers(2, 3)
    ends = graph.vector(graph.size(image, 2), graph.size(image, 3))
    cropped = graph.add("Slice", restored, starts, ends, axes)
    return graph.add("Clip", cropped, graph.constant(0.0), graph.constant(1.0))


def weights_of(tensor: Tensor) -> Array:
    """A tensor of a network as a float32 array."""
    return tensor.detach().float().cpu().numpy()


def _pad(graph: Graph, image: Value, axis: int, multiple: int) -> Value:
    """`mmfe_restore.model.restorer.pad_to_multiple` along one axis.

    Reflecting again and again repeats a picture of n pixels every 2 (n - 1).
    """
    side = graph.size(image, axis)
    larger = graph.whole(graph.whole(side, "Add", multiple - 1), "Div", multiple)
    places = graph.count_up(graph.whole(larger, "Mul", multiple))
    twice = graph.whole(graph.whole(side, "Mul", 2), "Sub", 2)
    period = graph.whole(twice, "Max", 1)
    forward = graph.whole(places, "Mod", period)
    index = graph.whole(forward, "Min", graph.whole(period, "Sub", forward))
    return graph.add("Gather", image, index, axis=axis)


def _bands(graph: Graph, restorer: Restorer, padded: Value) -> tuple[Value, ...]:
    """`Network.bands`, (B, K, h, w) each: bilinear halving is the mean of the middle pixels."""
    config = restorer.config
    if config.experts == "none":
        return ()
    found: list[Value] = []
    for level in range(1, max(MOFE_SITES.values()) + 1):
        step = 2**level
        middle = np.zeros((3, 1, step, step), np.float32)
        middle[:, :, step // 2 - 1 : step // 2 + 1, step // 2 - 1 : step // 2 + 1] = 0.25
        small = graph.conv(padded, middle, stride=step, groups=3)
        if config.experts != "spatial":
            small = graph.conv(small, _haar(config.low_band), stride=2)
        found.append(small)
    return tuple(found)


def _haar(low_band: bool) -> Array:
    """The wavelet transform of R, G, B as a 2×2 convolution: LH, HL, HH of each; LL in front."""
    signs = [[[1, 1], [1, 1]]] if low_band else []
    signs += [[[1, 1], [-1, -1]], [[1, -1], [1, -1]], [[1, -1], [-1, 1]]]
    kernel = np.zeros((3 * len(signs), 3, 2, 2), np.float32)
    for band, sign in enumerate(signs):
        for colour in range(3):
            kernel[3 * band + colour, colour] = np.array(sign) / 2
    return kernel


class GraphRunner:
    """Writes the network's parts; see `mmfe_restore.model.runners.Runner`.

    Args:
        graph: what is written to.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def block(self, block: TransformerBlock, x: Value) -> Value:
        """One Transformer block."""
        x = self._graph.plus(x, self._mdta(block.attn, block.norm1, x))
        return self._graph.plus(x, self._gdfn(block.ffn, block.norm2, x))

    def fuse(self, mgfb: MGFB, x: Value, guidance: Value) -> Value:
        """One MGFB; ``guidance`` is (B, T, D)."""
        x = self._graph.plus(x, self._cross_attention(mgfb.attn, mgfb.norm1, x, guidance))
        return self._graph.plus(x, self._gdfn(mgfb.ffn, mgfb.norm2, x))

    def mix(self, mofe: MoFE, x: Value, bands: Value, answer: Value) -> Value:
        """One MoFE."""
        graph, router = self._graph, mofe.router.linear
        scores = graph.linear(answer, weights_of(router.weight), weights_of(router.bias))
        mixed = self._experts(mofe.experts, bands, graph.add("Sigmoid", scores))  # Eq. 4
        if mofe.experts.expand.in_channels != 3:  # the wavelet transform halved the size
            scales = graph.constant([1, 1, 2, 2])
            mixed = graph.add("Resize", mixed, "", scales, mode="linear")
        return graph.plus(x, self._cross_mdta(mofe.attn, mofe.project, x, mixed))

    def down(self, down: Downsample, x: Value) -> tuple[Value, Value]:
        """To the next level of the encoder.

        Pixel-unshuffle after a 3×3 convolution is one 4×4 convolution in steps of two pixels, whose
        kernels are zero in the row and column that a pixel of the four does not see.
        """
        weight = _conv(down.body)  # (C/2, C, 3, 3)
        channels, inputs = weight.shape[:2]
        kernel = np.zeros((channels, 2, 2, inputs, 4, 4), np.float32)
        for i in range(2):
            for j in range(2):
                kernel[:, i, j, :, i : i + 3, j : j + 3] = weight
        return self._graph.conv(x, kernel.reshape(-1, inputs, 4, 4), stride=2, padding=1), x

    def up(self, up: Upsample, x: Value, skip: Value, reduce: nn.Conv2d | None) -> Value:
        """To the next level of the decoder."""
        graph, weight = self._graph, _conv(up.body)
        wide = graph.conv(x, weight, padding=1)
        larger = graph.add("DepthToSpace", wide, blocksize=2, mode="CRD")
        if reduce is None:
            return graph.join(larger, skip, axis=1)
        matrix = weights_of(reduce.weight)
        own = len(weight) // 4
        return graph.plus(graph.conv(larger, matrix[:, :own]), graph.conv(skip, matrix[:, own:]))

    def _mdta(self, attn: MDTA, norm: LayerNorm, x: Value) -> Value:
        x = self._standardise(x)
        kernels = np.split(weights_of(attn.qkv_dwconv.weight), 3)
        q, k, v = (
            self._depthwise(self._normed(x, norm, matrix), kernel)
            for matrix, kernel in zip(attn.qkv.weight.chunk(3), kernels, strict=True)
        )
        return self._attend(attn, q, k, v)

    def _cross_mdta(self, attn: CrossMDTA, project: nn.Conv2d, x: Value, mixed: Value) -> Value:
        q = self._graph.conv(x, weights_of(attn.query.weight))
        q = self._depthwise(q, weights_of(attn.query_dwconv.weight))
        matrices = np.split(weights_of(attn.key_value_matrix(project))[:, :, None, None], 2)
        kernels = np.split(weights_of(attn.key_value_dwconv.weight), 2)
        k, v = (
            self._depthwise(self._graph.conv(mixed, matrix), kernel)
            for matrix, kernel in zip(matrices, kernels, strict=True)
        )
        return self._attend(attn, q, k, v)

    def _gdfn(self, ffn: GDFN, norm: LayerNorm, x: Value) -> Value:
        x = self._standardise(x)
        kernels = np.split(weights_of(ffn.dwconv.weight), 2)
        gate, value = (
            self._depthwise(self._normed(x, norm, matrix), kernel)
            for matrix, kernel in zip(ffn.project_in.weight.chunk(2), kernels, strict=True)
        )
        gated = self._graph.times(self._graph.add("Gelu", gate), value)
        return self._graph.conv(gated, weights_of(ffn.project_out.weight))

    def _cross_attention(
        self, attn: CrossAttention, norm: LayerNorm, x: Value, tokens: Value
    ) -> Value:
        """Eq. 1; the softmax is written out, since engines transpose to do it over tokens."""
        graph, heads = self._graph, attn.heads
        q = self._normed(self._standardise(x), norm, attn.query.weight)
        q = self._depthwise(q, weights_of(attn.query_dwconv.weight))
        project = attn.project_guidance
        tokens = graph.linear(tokens, weights_of(project.weight), weights_of(project.bias))
        d = attn.query.weight.shape[0] // heads
        key = weights_of(attn.key.weight) * d**-0.5
        keys = graph.reshape(graph.linear(tokens, key), 0, 0, heads, d)
        keys = graph.add("Transpose", keys, perm=[0, 2, 1, 3])  # (B, h, T, d)
        values = graph.reshape(graph.linear(tokens, weights_of(attn.value.weight)), 0, 0, heads, d)
        values = graph.add("Transpose", values, perm=[0, 2, 1, 3])
        out = weights_of(attn.project_out.weight.flatten(1)).reshape(-1, heads, d)  # (C, h, d)
        # W_O is applied to T tokens and not to P pixels: (h, C, d) times (B, h, d, T).
        folded = graph.constant(out.transpose(1, 0, 2))
        values = graph.add("MatMul", folded, graph.add("Transpose", values, perm=[0, 1, 3, 2]))
        logits = graph.add("MatMul", keys, graph.reshape(q, 0, heads, d, -1))  # (B, h, T, P)
        highest = graph.add("ReduceMax", logits, graph.integers(2))
        weights = graph.add("Exp", graph.minus(logits, highest))
        weights = graph.add("Div", weights, graph.total(weights, 2))
        fused = graph.add("MatMul", values, weights)  # (B, h, C, P)
        return graph.reshape_like(graph.total(fused, 1) if heads > 1 else fused, x)

    def _experts(self, experts: Experts, bands: Value, weights: Value) -> Value:
        """Σ S_i · M_i of (B, K, H, W); ``weights`` is (B, N)."""
        graph, expand = self._graph, experts.expand
        assert expand.bias is not None
        hidden = graph.conv(bands, weights_of(expand.weight), weights_of(expand.bias), padding=1)
        # Every expert's S once for each of its channels.
        repeat = np.repeat(np.eye(len(experts.bias)), experts.channels, axis=1)
        scale = graph.add("MatMul", weights, graph.constant(repeat))
        scaled = graph.times(graph.add("Gelu", hidden), self._per_channel(scale))
        mixed = graph.conv(scaled, weights_of(experts.contract.weight), padding=1)
        bias = graph.add("MatMul", weights, graph.constant(weights_of(experts.bias)))
        return graph.plus(mixed, self._per_channel(bias))

    def _attend(self, attn: MDTA | CrossMDTA, q: Value, k: Value, v: Value) -> Value:
        """`mmfe_restore.model.restormer.transposed_attention` of (B, C, H, W)."""
        graph, cell = self._graph, attn.cell
        if cell is None:
            return self._attend_to_all(attn, q, k, v)
        longer = graph.whole(graph.size(q, 2), "Max", graph.size(q, 3))
        return graph.either(
            graph.whole(longer, "Greater", SPAN * cell),
            lambda: self._attend_locally(attn, cell, q, k, v),
            lambda: self._attend_to_all(attn, q, k, v),
        )

    def _attend_to_all(self, attn: MDTA | CrossMDTA, q: Value, k: Value, v: Value) -> Value:
        """The same, where the map is one window."""
        graph = self._graph
        heads, channels = attn.temperature.shape[0], attn.project_out.weight.shape[0]
        q, k = (graph.reshape(one, 0, heads, channels // heads, -1) for one in (q, k))
        product = graph.add("MatMul", q, graph.add("Transpose", k, perm=[0, 1, 3, 2]))
        q_norm, k_norm = (graph.add("ReduceL2", one, graph.integers(3)) for one in (q, k))
        matrix = self._matrices(attn, product, q_norm, k_norm)
        flat = graph.reshape(v, 0, channels, -1)
        return graph.reshape_like(graph.add("MatMul", matrix, flat), v)

    def _matrices(
        self,
        attn: MDTA | CrossMDTA,
        product: Value,
        q_norm: Value,
        k_norm: Value,
        grid_axes: int = 0,
    ) -> Value:
        """`attention_matrix` and `fold_output`.

        Args:
            attn: the attention.
            product: (B, …, h, d, d), with ``grid_axes`` axes after the first.
            q_norm: (B, …, h, d, 1).
            k_norm: likewise.
            grid_axes: 2 where there is a matrix for each window, else 0.

        Returns:
            (B, …, C, C).
        """
        graph = self._graph
        heads, channels = attn.temperature.shape[0], attn.project_out.weight.shape[0]
        axes = list(range(1 + grid_axes))
        least = graph.constant(_NORM_EPS)
        q_norm, k_norm = (graph.add("Max", one, least) for one in (q_norm, k_norm))
        cosine = graph.add("Div", product, q_norm)
        h, row, column = (1 + grid_axes + axis for axis in range(3))
        across = graph.add("Transpose", k_norm, perm=[*axes, h, column, row])
        cosine = graph.add("Div", cosine, across)
        warm = graph.times(cosine, graph.constant(weights_of(attn.temperature)))
        attention = graph.add("Softmax", warm, axis=-1)  # (B, …, h, d, d)
        out = weights_of(attn.project_out.weight.flatten(1)).reshape(channels, heads, -1)
        folded = graph.add("MatMul", graph.constant(out.transpose(1, 0, 2)), attention)
        matrix = graph.add("Transpose", folded, perm=[*axes, row, h, column])  # (B, …, C, h, d)
        return graph.reshape(matrix, *([0] * len(axes)), channels, channels)

    def _attend_locally(
        self, attn: MDTA | CrossMDTA, cell: int, q: Value, k: Value, v: Value
    ) -> Value:
        """The same by windows: `mmfe_restore.model.local_attention`, with its letters."""
        graph = self._graph
        heads, channels = attn.temperature.shape[0], attn.project_out.weight.shape[0]
        q, k = (
            graph.reshape(self._in_cells(x, cell), 0, 0, 0, heads, channels // heads, cell * cell)
            for x in (q, k)
        )
        product = graph.add("MatMul", q, graph.add("Transpose", k, perm=[0, 1, 2, 3, 5, 4]))
        squares = (graph.add("ReduceSumSquare", x, graph.integers(5)) for x in (q, k))
        product, *both = (self._over_windows(sums) for sums in (product, *squares))
        q_norm, k_norm = (graph.add("Sqrt", sums) for sums in both)
        matrices = self._matrices(attn, product, q_norm, k_norm, grid_axes=2)  # (B, m, m', C, C)
        # Two more of the nearest on every side: each block of pixels lies between four.
        margin = graph.integers(0, 2, 2, 0, 0, 0, 2, 2, 0, 0)
        matrices = graph.add("Pad", matrices, margin, mode="edge")
        blocks = self._in_cells(v, cell, before=cell // 2)  # n or n + 1 along each side
        after = (np.arange(cell) + 0.5) / cell
        parts: list[Value] = []
        for down in range(2):
            for across in range(2):
                shares = (1 - after, after)
                share = np.outer(shares[down], shares[across]).reshape(-1)
                corner = self._first(matrices, 1, down, blocks)
                corner = self._first(corner, 2, across, blocks)
                shared = graph.times(blocks, graph.constant(share))
                parts.append(graph.add("MatMul", corner, shared))
        whole = graph.add("Sum", *parts)
        whole = graph.reshape(whole, 0, 0, 0, 0, cell, cell)
        whole = graph.add("Transpose", whole, perm=[0, 3, 1, 4, 2, 5])
        rows, columns = (graph.whole(graph.size(whole, axis), "Mul", cell) for axis in (2, 4))
        shape = graph.join(graph.integers(0, channels), graph.vector(rows, columns), axis=0)
        whole = graph.add("Reshape", whole, shape)
        starts = graph.integers(cell // 2, cell // 2)
        size = graph.vector(graph.size(v, 2), graph.size(v, 3))
        return graph.add("Slice", whole, starts, graph.plus(starts, size), graph.integers(2, 3))

    def _in_cells(self, x: Value, cell: int, before: int = 0) -> Value:
        """(B, C, H, W), after ``before`` rows and columns of zeros, to (B, n, n', C, cell²)."""
        graph = self._graph
        missing: list[Value] = []
        for axis in (2, 3):
            side = graph.size(x, axis)
            filled = graph.whole(side, "Add", before)
            count = graph.whole(graph.whole(filled, "Add", cell - 1), "Div", cell)
            missing.append(graph.whole(graph.whole(count, "Mul", cell), "Sub", filled))
        front = graph.integers(0, 0, before, before, 0, 0)
        x = graph.add("Pad", x, graph.join(front, graph.vector(*missing), axis=0))
        counts = (graph.whole(graph.size(x, axis), "Div", cell) for axis in (2, 3))
        rows, columns = (graph.add("Unsqueeze", one, graph.integers(0)) for one in counts)
        side = graph.integers(cell)
        x = graph.add(
            "Reshape", x, graph.join(graph.integers(0, 0), rows, side, columns, side, axis=0)
        )
        x = graph.add("Transpose", x, perm=[0, 2, 4, 1, 3, 5])
        return graph.reshape(x, 0, 0, 0, 0, cell * cell)

    def _first(self, matrices: Value, axis: int, start: int, like: Value) -> Value:
        """As many as ``like`` has along an axis, from ``start`` on."""
        graph = self._graph
        begin, where = graph.integers(start), graph.integers(axis)
        end = graph.plus(begin, graph.vector(graph.size(like, axis)))
        return graph.add("Slice", matrices, begin, end, where)

    def _over_windows(self, sums: Value) -> Value:
        """(B, n, n', h, d, …) to (B, m, m', h, d, …); a side of fewer cells is one window."""
        graph = self._graph
        span = graph.constant(SPAN, np.int64)
        lacking = (graph.whole(span, "Sub", graph.size(sums, axis)) for axis in (1, 2))
        rows, columns = (graph.vector(graph.whole(one, "Max", 0)) for one in lacking)
        front = graph.integers(*[0] * 7)
        ends = graph.join(front, rows, columns, graph.integers(0, 0, 0), axis=0)
        sums = graph.add("Pad", sums, ends)
        for axis in (1, 2):
            stops = (first - SPAN + 1 or 2**62 for first in range(SPAN))
            parts = [graph.slice(sums, axis, first, stop) for first, stop in enumerate(stops)]
            sums = graph.add("Sum", *parts)
        return sums

    def _standardise(self, x: Value) -> Value:
        """LayerNorm over the channels without scale and shift."""
        graph = self._graph
        centred = graph.minus(x, graph.mean(x, 1))
        variance = graph.mean(graph.times(centred, centred), 1)
        spread = graph.add("Sqrt", graph.plus(variance, _LAYER_NORM_EPS))
        return graph.times(centred, graph.add("Reciprocal", spread))

    def _normed(self, x: Value, norm: LayerNorm, weight: Tensor) -> Value:
        """The 1×1 convolution ``weight`` of what ``norm`` makes of standardised ``x``."""
        matrix, bias = norm.folded(weight.flatten(1))
        return self._graph.conv(x, weights_of(matrix)[:, :, None, None], weights_of(bias))

    def _depthwise(self, x: Value, kernel: Array) -> Value:
        return self._graph.conv(x, kernel, padding=1, groups=len(kernel))

    def _per_channel(self, vector: Value) -> Value:
        return self._graph.reshape(vector, 0, -1, 1, 1)


def _conv(body: nn.Sequential) -> Array:
    conv = body[0]
    assert isinstance(conv, nn.Conv2d)
    return weights_of(conv.weight)
