"""The guide ``scene`` as ONNX operators: from a picture of any size to its embeddings.

`SceneGuide.prepare` shrinks pictures with Pillow's bicubic filter, on 8 bits. Its passes are
products with two matrices, so they are written as that, rounded as Pillow rounds.

Shape legend: B batch, C channels, H and W pixels, h and w cells of 16 pixels, D = 128, K = 4.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mmfe_cache.degradations import KINDS
from mmfe_cache.guides.pooling import GRID
from mmfe_cache.guides.scene.guide import MAX_PIXELS
from mmfe_cache.guides.scene.network import DIM, LEVELS, LOCAL, MIN_SIDE, SceneNetwork
from mmfe_cache.views import View
from mmfe_restore.export.graph import Graph, Value
from mmfe_restore.export.restorer_graph import weights_of

_FIXED_POINT = float(1 << 22)
"""Pillow holds its filters in 22 bits after the point."""


def write_view(graph: Graph, image: Value, view: View) -> Value:
    """What the guide's network is given of a picture.

    Args:
        graph: what is written to.
        image: (B, 3, H, W) in [0, 1].
        view: ``native`` or ``whole@r``.

    Returns:
        (B, 3, h, w) in [0, 1], of 8 bits, as `View.render` and `SceneGuide.prepare` make it.
    """
    limits = graph.constant(0.0), graph.constant(255.0)
    levels = graph.add("Clip", graph.add("Round", graph.times(image, 255.0)), *limits)
    # Downscaled by columns first, as Pillow does it.
    sizes = [graph.size(levels, axis) for axis in (2, 3)]
    if view.family == "whole":
        assert view.resolution is not None
        side = graph.constant(view.resolution, np.int64)
        levels = _resize(graph, levels, sizes, [side, side])
        sizes = [side, side]
    large, smaller = _within_budget(graph, *sizes)
    whole = levels
    # Not by the identity where nothing is shrunk: its size is the square of a picture's side.
    levels = graph.either(
        large,
        lambda: _resize(graph, whole, sizes, smaller),
        lambda: graph.add("Identity", whole),
    )
    for axis, side in zip((2, 3), smaller, strict=True):
        levels = _mirror(graph, levels, axis, side)
    return graph.add("Div", levels, graph.constant(255.0))


def _within_budget(graph: Graph, height: Value, width: Value) -> tuple[Value, list[Value]]:
    """Whether a picture is above the pixel budget, and its sizes as of `SceneGuide.prepare`."""
    pixels = graph.whole(height, "Mul", width)
    large = graph.add("Greater", pixels, graph.constant(MAX_PIXELS, np.int64))
    budget = graph.constant(float(MAX_PIXELS), np.float64)
    scale = graph.add("Sqrt", graph.add("Div", budget, graph.cast(pixels, np.float64)))
    found: list[Value] = []
    for side in (height, width):
        scaled = graph.add("Round", graph.add("Mul", graph.cast(side, np.float64), scale))
        shrunk = graph.whole(graph.cast(scaled, np.int64), "Max", 1)
        found.append(graph.add("Where", large, shrunk, side))
    return large, found


def _resize(graph: Graph, levels: Value, sizes: list[Value], smaller: list[Value]) -> Value:
    """`PIL.Image.resize` with the bicubic filter on 8 bits: columns first, then rows."""
    columns = _bicubic(graph, sizes[1], smaller[1])
    across = _to_levels(
        graph, graph.add("MatMul", levels, graph.add("Transpose", columns, perm=[1, 0]))
    )
    rows = _bicubic(graph, sizes[0], smaller[0])
    return _to_levels(graph, graph.add("MatMul", rows, across))


def _to_levels(graph: Graph, values: Value) -> Value:
    rounded = graph.add("Floor", graph.plus(values, 0.5))
    return graph.add("Clip", rounded, graph.constant(0.0), graph.constant(255.0))


def _bicubic(graph: Graph, size: Value, smaller: Value) -> Value:
    """(smaller, size): the weights by which Pillow's bicubic filter mixes pixels, a = -1/2."""

    def double(value: float) -> Value:
        return graph.constant(value, np.float64)

    def polynomial(x: Value, *factors: float) -> Value:
        found = double(factors[0])
        for factor in factors[1:]:
            found = graph.add("Add", graph.add("Mul", found, x), double(factor))
        return found

    step = graph.add("Div", graph.cast(size, np.float64), graph.cast(smaller, np.float64))
    stretch = graph.add("Max", step, double(1.0))
    targets = graph.cast(graph.count_up(smaller), np.float64)
    centres = graph.add("Mul", graph.add("Add", targets, double(0.5)), step)
    pixels = graph.add("Add", graph.cast(graph.count_up(size), np.float64), double(0.5))
    away = graph.add("Sub", pixels, graph.add("Unsqueeze", centres, graph.integers(1)))
    x = graph.add("Abs", graph.add("Div", away, stretch))
    near = polynomial(x, 1.5, -2.5, 0.0, 1.0)
    far = polynomial(x, -0.5, 2.5, -4.0, 2.0)
    weights = graph.add("Where", graph.add("Less", x, double(2.0)), far, double(0.0))
    weights = graph.add("Where", graph.add("Less", x, double(1.0)), near, weights)
    weights = graph.add("Div", weights, graph.add("ReduceSum", weights, graph.integers(1)))
    fixed = graph.add("Round", graph.add("Mul", weights, double(_FIXED_POINT)))
    return graph.cast(graph.add("Div", fixed, double(_FIXED_POINT)), np.float32)


def _mirror(graph: Graph, levels: Value, axis: int, side: Value) -> Value:
    """`mmfe_cache.views.mirror_to` along one axis, to an even size of `MIN_SIDE` at least."""
    even = graph.whole(side, "Add", graph.whole(side, "Mod", 2))
    wanted = graph.whole(even, "Max", MIN_SIDE)
    before = graph.whole(graph.whole(wanted, "Sub", side), "Div", 2)
    places = graph.whole(graph.count_up(wanted), "Sub", before)
    # Mirrored with its border pixel repeated, a side of n comes again every 2 n.
    period = graph.whole(side, "Mul", 2)
    forward = graph.whole(places, "Mod", period)
    back = graph.whole(graph.whole(period, "Sub", 1), "Sub", forward)
    return graph.add("Gather", levels, graph.whole(forward, "Min", back), axis=axis)


def write_scene(graph: Graph, network: SceneNetwork, picture: Value) -> tuple[Value, Value, Value]:
    """`SceneNetwork` as the guide uses it.

    Args:
        graph: what is written to.
        network: as `load_scene` returns it.
        picture: (B, 3, H, W) as `write_view` gives it.

    Returns:
        ``image`` (B, 17, D), ``joint`` (B, 17, D) and ``answer`` (B, D).
    """
    front, luminance = _front(graph, picture)
    # SpaceToDepth's channels are four times the six; pixel-unshuffle's six times the four.
    packed = graph.add("SpaceToDepth", front, blocksize=2)
    order = [4 * colour + place for place in range(4) for colour in range(6)]
    fine = _sequence(graph, network.fine, _sequence(graph, network.stem, packed, order))
    middle = _sequence(graph, network.middle, fine)
    coarse = _sequence(graph, network.coarse, middle)
    moments = [_moments(graph, maps) for maps in (fine, middle, coarse)]
    pooled = graph.join(*moments, _tones(graph, luminance, front), axis=1)

    scaling, narrow, _, widen = network.summary
    summary = _norm(graph, scaling, pooled)
    summary = graph.add("Gelu", _linear(graph, narrow, summary))
    answer = _norm(graph, network.answer_norm, _linear(graph, widen, summary))
    present, severities, traits = (
        graph.add("Sigmoid", _linear(graph, head, answer))
        for head in (network.label_head, network.severity_head, network.trait_head)
    )
    image = graph.conv(coarse, weights_of(network.to_image.weight))
    image = _norm(graph, network.image_norm, image)
    said = graph.join(present, severities, axis=1)
    condition = graph.reshape(_linear(graph, network.condition, said), 0, -1, 1, 1)
    scale, shift = (graph.slice(condition, 1, at, at + DIM) for at in (0, DIM))
    second = graph.plus(graph.times(coarse, graph.plus(scale, 1.0)), shift)
    second = _sequence(graph, network.second, second)
    power = graph.plus(graph.mean(graph.times(second, second), 1), 1e-4)
    second = graph.add("Div", second, graph.add("Sqrt", power))
    joint = _norm(graph, network.joint_norm, second)
    words = _description_vector(graph, present, severities, traits)
    return (
        _tokens(graph, image, _description_tokens(graph, network.image_said, words)),
        _tokens(graph, joint, _description_tokens(graph, network.joint_said, words)),
        answer,
    )


def _front(graph: Graph, picture: Value) -> tuple[Value, Value]:
    """(B, 6, H, W): colours, log luminance, both luminances' fine structure; and luminance."""
    luminance = graph.mean(picture, 1)
    log2 = graph.times(graph.add("Log", graph.plus(luminance, 1 / 64)), 1 / math.log(2))
    logarithm = graph.plus(graph.times(log2, 1 / 3), 1.0)
    tall = graph.join(luminance, logarithm, axis=1)
    edges = graph.integers(0, 0, 3, 3, 0, 0, 3, 3)
    around = graph.add("Pad", tall, edges, mode="edge")
    down = graph.add("AveragePool", around, kernel_shape=[7, 1])
    fine = graph.minus(tall, graph.add("AveragePool", down, kernel_shape=[1, 7]))
    colours = graph.times(graph.minus(picture, 0.5), 4.0)
    return graph.join(colours, logarithm, graph.times(fine, 8.0), axis=1), luminance


def _tones(graph: Graph, luminance: Value, front: Value) -> Value:
    """(B, 3·LEVELS): how often each luminance and log luminance occurs; the noise at each."""
    light = graph.reshape(graph.every_other(luminance), 0, 1, -1)
    log2 = graph.times(graph.add("Log", graph.plus(light, 1 / 64)), 1 / math.log(2))
    logarithm = graph.add("Div", graph.plus(log2, 6.0), graph.constant(6.03))
    fine = graph.every_other(graph.slice(front, 1, 4, 5))
    noise = graph.reshape(graph.add("Abs", fine), 0, 1, -1)
    levels = graph.constant(np.arange(LEVELS)[:, None])
    share: list[Value] = []
    for tone in (light, logarithm):
        apart = graph.add("Abs", graph.minus(graph.times(tone, LEVELS - 1.0), levels))
        share.append(graph.add("Relu", graph.add("Sub", graph.constant(1.0), apart)))
    often = [graph.mean(part, 2, keep=False) for part in share]
    grain = graph.mean(graph.times(share[1], noise), 2, keep=False)
    return graph.join(*often, graph.add("Div", grain, graph.plus(often[1], 1e-3)), axis=1)


def _moments(graph: Graph, maps: Value) -> Value:
    """(B, 2C): each channel's mean and standard deviation over the picture."""
    mean = graph.mean(maps, 2, 3)
    centred = graph.minus(maps, mean)
    variance = graph.mean(graph.times(centred, centred), 2, 3)
    both = graph.join(mean, graph.add("Sqrt", graph.plus(variance, 1e-4)), axis=1)
    return graph.reshape(both, 0, -1)


def _description_vector(graph: Graph, present: Value, severities: Value, traits: Value) -> Value:
    """`mmfe_cache.guides.scene.network._description_vector`, (B, K + 3)."""

    def column(of: Value, index: int) -> Value:
        return graph.slice(of, 1, index, index + 1)

    low, haze = (column(present, KINDS.index(kind)) for kind in ("low", "haze"))
    airlight, noise, luminance = (column(traits, index) for index in range(3))
    scaled = [
        graph.times(graph.times(haze, graph.plus(airlight, 1.0)), 0.5),
        graph.times(low, noise),
        graph.times(luminance, 2.0),
    ]
    return graph.join(graph.times(present, severities), *scaled, axis=1)


def _description_tokens(graph: Graph, said: Any, words: Value) -> Value:
    """What is wrong with the picture in D numbers for each of 16 places: (B, 16, D)."""
    spoken = graph.add("MatMul", words, graph.constant(weights_of(said.weights)))
    spoken = graph.add("Tanh", graph.plus(spoken, graph.constant(weights_of(said.bias))))
    return graph.reshape(graph.times(spoken, math.sqrt(2)), 0, GRID * GRID, DIM)


def _tokens(graph: Graph, maps: Value, said: Value) -> Value:
    """Token 0 the mean, 1 to 16 the 4×4 grid, with what was said on top: (B, 17, D)."""
    rows, columns = (_adaptive(graph, graph.size(maps, axis)) for axis in (2, 3))
    grid = graph.add("MatMul", maps, graph.add("Transpose", columns, perm=[1, 0]))
    cells = graph.reshape(graph.add("MatMul", rows, grid), 0, 0, -1)
    own = graph.join(graph.reshape(graph.mean(maps, 2, 3), 0, 0, 1), cells, axis=2)
    own = graph.add("Transpose", own, perm=[0, 2, 1])
    own = graph.add("Pad", own, graph.integers(0, 0, 0, 0, 0, DIM - LOCAL))
    return graph.plus(graph.join(graph.mean(said, 1), said, axis=1), own)


def _adaptive(graph: Graph, size: Value) -> Value:
    """(GRID, size): adaptive average pooling as a matrix."""
    numbers = graph.constant(np.arange(GRID)[:, None], np.int64)
    first = graph.whole(graph.add("Mul", numbers, size), "Div", GRID)
    after = graph.whole(graph.whole(numbers, "Add", 1), "Mul", size)
    last = graph.whole(graph.whole(after, "Add", GRID - 1), "Div", GRID)
    place = graph.count_up(size)
    inside = graph.add(
        "And", graph.add("GreaterOrEqual", place, first), graph.add("Less", place, last)
    )
    width = graph.cast(graph.whole(last, "Sub", first), np.float32)
    return graph.add("Div", graph.cast(inside, np.float32), width)


def _sequence(
    graph: Graph, layers: nn.Sequential, x: Value, order: list[int] | None = None
) -> Value:
    """Convolutions, ReLUs and residual blocks; batch norms were folded when it was loaded."""
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            weight = weights_of(layer.weight)
            weight, order = (weight if order is None else weight[:, order]), None
            bias = None if layer.bias is None else weights_of(layer.bias)
            stride, padding = layer.stride[0], int(layer.padding[0])
            x = graph.conv(x, weight, bias, stride=stride, padding=padding)
        elif isinstance(layer, nn.ReLU):
            x = graph.add("Relu", x)
        elif isinstance(layer, nn.Sequential):
            x = _sequence(graph, layer, x)
        elif not isinstance(layer, nn.Identity):
            body = layer.body
            assert isinstance(body, nn.Sequential)
            x = graph.add("Relu", graph.plus(x, _sequence(graph, body, x)))
    return x


def _linear(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.linear(x, weights_of(layer.weight), weights_of(layer.bias))


def _norm(graph: Graph, norm: Any, x: Value) -> Value:
    """A batch norm in evaluation, of (B, C) or (B, C, H, W)."""
    spread = 1 / np.sqrt(weights_of(norm.running_var).astype(np.float64) + norm.eps)
    shift = -weights_of(norm.running_mean) * spread
    if norm.affine:
        scale = weights_of(norm.weight)
        spread, shift = spread * scale, shift * scale + weights_of(norm.bias)
    shape = (-1, 1, 1) if isinstance(norm, nn.BatchNorm2d) else (-1,)
    constants: list[NDArray[Any]] = [spread.reshape(shape), shift.reshape(shape)]
    return graph.affine(x, *constants)
