"""The fused block against the block itself, in Triton's interpreter: run as a process of its own.

TRITON_INTERPRET must be there before Triton is imported. Prints one line of JSON.
"""

import json
import os
import sys
from contextlib import nullcontext

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch
import triton.language as tl
import triton.runtime.interpreter as interpreter

from benchmarks.depthwise_kernels import convolve, gradient_of_taps
from mmfe_restore.kernels.block import run_block
from mmfe_restore.model.restormer import TransformerBlock


def mend_interpreter():
    """Patch each module once a launch, not at every call; round to bfloat16 as a GPU does.

    Triton 3.8's interpreter looks through all of `triton.language` whenever one function calls
    another, and cuts the bits off that bfloat16 has no room for.
    """
    patched, patch, launch = set(), interpreter._patch_lang, interpreter.GridExecutor.__call__

    def patch_once(function):
        if id(function.__globals__) in patched:
            return None
        patched.add(id(function.__globals__))
        return patch(function)

    def start(self, *arguments, **named):
        patched.clear()
        return launch(self, *arguments, **named)

    interpreter._patch_lang, interpreter.GridExecutor.__call__ = patch_once, start
    builder = interpreter.InterpreterBuilder
    cast, convert = builder.cast_impl, builder.create_fp_to_fp

    def rounds(source, kind):
        return source.dtype.scalar == tl.float32 and kind.scalar == tl.bfloat16

    def rounded(source, kind):
        values = torch.from_numpy(np.ascontiguousarray(source.data)).bfloat16().view(torch.uint16)
        return interpreter.TensorHandle(values.numpy().reshape(source.data.shape), kind.scalar)

    def cast_rounding(self, source, kind):
        return rounded(source, kind) if rounds(source, kind) else cast(self, source, kind)

    def convert_rounding(self, source, kind, mode):
        return rounded(source, kind) if rounds(source, kind) else convert(self, source, kind, mode)

    builder.cast_impl = builder.create_fp_trunc = cast_rounding
    builder.create_fp_to_fp = convert_rounding


def distance(found, expected):
    """The largest difference, relative to the largest value."""
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).abs().max() / expected.abs().max())


def make(channels, heads, seed=0):
    torch.manual_seed(seed)
    block = TransformerBlock(channels, heads, 2.66).double()
    with torch.no_grad():  # LayerNorm begins at 1 and 0, which hides much
        for norm in (block.norm1.body, block.norm2.body):
            norm.weight.add_(0.3 * torch.randn(channels))
            norm.bias.add_(0.3 * torch.randn(channels))
        block.attn.temperature.add_(torch.rand(heads, 1, 1))
    return block


def results(run, block, x, weights, kind, autocast):
    """Output and all gradients, by name."""
    made = TransformerBlock(block.attn.qkv.in_channels, len(block.attn.temperature), 2.66).to(kind)
    made.load_state_dict(block.state_dict())
    x = x.to(autocast or kind).detach().requires_grad_()
    with torch.autocast("cpu", dtype=autocast) if autocast else nullcontext():
        y = run(made, x)
    (y.double() * weights).sum().backward()
    gradients = {name: value.grad for name, value in made.named_parameters()}
    return {"output": y, "input": x.grad, **gradients}


def example(channels, heads, shape, seed=0):
    """A block, its input, and what to weight its output with."""
    return make(channels, heads, seed), *torch.randn(2, *shape, channels).double()


def compare(channels, heads, shape, kind, autocast=None, seed=0):
    """Distances of the fused block and of the block itself from float64, by name."""
    block, x, weights = example(channels, heads, shape, seed)
    truth = results(lambda b, x: b(x), block, x, weights, torch.float64, None)
    found = results(run_block, block, x, weights, kind, autocast)
    plain = results(lambda b, x: b(x), block, x, weights, kind, autocast)
    return {name: [distance(found[name], t), distance(plain[name], t)] for name, t in truth.items()}


def summed_temperature(channels, heads, shape, seed):
    """How badly the temperature's gradient is conditioned, a sum of (C / h)² signed numbers.

    Returns:
        The largest sum of the numbers' absolute values, relative to the largest gradient; how far
        the gradient moves in float64 if nothing but the block's input is rounded to bfloat16.
    """
    block, x, weights = example(channels, heads, shape, seed)
    d = channels // heads
    apart = block.attn.temperature.detach().expand(-1, d, d).clone().requires_grad_()

    def gradient(x):
        y = torch.func.functional_call(block, {"attn.temperature": apart}, x)
        return torch.autograd.grad((y * weights).sum(), apart)[0]

    terms = gradient(x)
    truth, moved = terms.sum((1, 2)), gradient(x.bfloat16().double()).sum((1, 2))
    absolute = terms.abs().sum((1, 2)).max() / truth.abs().max()
    return {"absolute": float(absolute), "input rounded": distance(moved, truth)}


def depthwise():
    """Distances of the depthwise convolution alone and of both its gradients from torch's."""
    torch.manual_seed(0)
    x, g = torch.randn(2, 2, 10, 9, 40).double()  # more than one tile, and channels of two chunks
    weight = torch.randn(40, 1, 3, 3).double().requires_grad_()
    image = x.movedim(-1, 1).requires_grad_()
    y = torch.nn.functional.conv2d(image, weight, padding=1, groups=40)
    of_image, of_weight = torch.autograd.grad(y, (image, weight), g.movedim(-1, 1))
    taps = weight.detach().flatten(1).t().contiguous()
    pairs = {
        "forward": (convolve(x, taps), y.movedim(1, -1)),
        "data gradient": (convolve(g, taps, turned=True), of_image.movedim(1, -1)),
        "weight gradient": (gradient_of_taps(x, g), of_weight.flatten(1).t()),
    }
    return {name: distance(*pair) for name, pair in pairs.items()}


def gradcheck():
    """Whether small random steps change the output as the gradients say."""
    block = make(6, 2)
    x = torch.randn(1, 3, 5, 6).double().requires_grad_()
    names, values = zip(*block.named_parameters(), strict=True)

    def run(x, *parameters):
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(
            Fused(block), {f"block.{n}": v for n, v in given.items()}, x
        )

    return torch.autograd.gradcheck(run, (x, *values), fast_mode=True)


class Fused(torch.nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        return run_block(self.block, x)


def main():
    torch.set_num_threads(1)
    mend_interpreter()
    three_heads = (24, 3, (2, 3, 5))
    seed = 18  # of its temperatures' gradient bfloat16 leaves less than of the others'
    found = {
        "one head, several tiles": compare(24, 1, (2, 9, 10), torch.float32),
        "three heads, two images": compare(*three_heads, torch.float32),
        "one row": compare(10, 2, (1, 1, 3), torch.float32),
        "bfloat16": compare(24, 1, (2, 5, 9), torch.float32, torch.bfloat16),
        "bfloat16, three heads": compare(*three_heads, torch.float32, torch.bfloat16, seed),
        "temperature": summed_temperature(*three_heads, seed),
        "float64": compare(6, 2, (1, 4, 3), torch.float64),
        "gradcheck": gradcheck(),
        "depthwise": depthwise(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
