"""Counts what a training step computes, moves and keeps, without a GPU and without computing it.

    python -m benchmarks.count_traffic [--size 128] [--batch 64] [--json] [--write]

The step is traced on tensors without storage, in bf16 under autocast: forward, losses' gradient of
the output, backward. Counted are multiplications and additions of products and convolutions, bytes
that kernels read and write, and bytes that the forward pass keeps for the backward pass. Three ways
to run it:

- *eager*: every operation that is no view reads its inputs and writes its outputs;
- *compiled*: the graphs that AOTAutograd makes of each block (see `mmfe_restore.model.runners`),
  in which all elementwise work and reductions between two products or convolutions are one kernel;
- *fused*: what the kernels of `mmfe_restore.kernels` move, by hand (`FUSED_MAPS`); Transformer
  blocks alone, the rest as compiled.

Caches are not modelled: a map that still lies in the GPU's L2 is counted all the same.
`--write` puts the table, and what has the largest shares of it, into docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from functorch.compile import make_boxed_func
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.traffic import (
    CELL,
    HEIGHT,
    WIDTH,
    Bytes,
    convolved_bytes,
    graph_bytes,
    kept_bytes,
    without_storage,
)
from mmfe_cache.embeddings import Embeddings
from mmfe_restore import Restorer, load_recipe
from mmfe_restore.model.mgfb import MGFB
from mmfe_restore.model.mofe import MoFE
from mmfe_restore.model.restormer import TransformerBlock
from mmfe_restore.recipes.schema import ModelConfig

DOCS = Path(__file__).parents[1] / "docs/performance.md"
BEGIN, END = "<!-- count_traffic: begin -->", "<!-- count_traffic: end -->"

BANDWIDTH, PRODUCTS = 3.0e12, 800e12
"""Bytes and FLOP a second of an H200-class card, to turn counts into a floor of time."""

FUSED_MAPS = (
    ("norm_product", 1, 3),  # x to u
    ("attention_sums", 2, 0),  # q and k of u
    ("attention_output", 2, 1),  # v of u, and x, to x'
    ("norm_product", 1, "2h"),  # x' to h
    ("gated_product", "2h+1", 1),  # h and x' to y
    ("gated_product_backward", "2h+1", "2h"),  # h and y's gradient g to those of a and b
    ("norm_product_weight", "2h+1", 0),  # those and x'; its sums fit no other kernel's registers
    ("norm_product_data", "2h+2", 1),  # those, x' and g to the gradient of x'
    ("attention_output_backward", 2, 1),  # v of u, and the gradient of x', to v's
    ("attention_sums_backward", 2, 2),  # q and k of u to their gradients
    ("norm_product_weight", 4, 0),  # the gradients of q, k and v, and x
    ("norm_product_data", 5, 1),  # those, x and the gradient of x' to that of x
)
"""Maps of C channels that each kernel of a fused Transformer block reads and writes, in the order
of `mmfe_restore.kernels.block`; h is the hidden width in units of C. Kept are x, u, x' and h."""


@dataclass(frozen=True)
class Step:
    """One way to run a training step.

    Attributes:
        name: for the table.
        flop: multiplications and additions of products and convolutions.
        moved: bytes read and written by kernels.
        kept: bytes that the forward pass leaves for the backward pass.
        kinds: bytes moved by kind of operation, the largest first; empty where not counted.
    """

    name: str
    flop: float
    moved: float
    kept: float
    kinds: dict[str, float]


# Eager


def eager(name: str, make: Callable[[], nn.Module], size: int, batch: int, passes: int = 3) -> Step:
    """Trace one step of the network that ``make`` makes.

    Args:
        name: for the table.
        make: a network, given an image (B, 3, H, W) alone.
        size: side of the crops.
        batch: B.
        passes: how often the forward pass's arithmetic is done; 4 with checkpointing.
    """
    with without_storage():
        network = make().train()
        image = torch.empty(batch, 3, size, size)
        counted = Bytes()
        with counted:
            with (
                FlopCounterMode(display=False) as flops,
                kept_bytes(network.parameters()) as kept,
                torch.autocast("cpu", dtype=torch.bfloat16),
            ):
                loss = (network(image) - image).abs().mean()
            saved = sum(kept.values())
            loss.backward()
    kinds = dict(counted.kinds.most_common())
    # Backward, every product and convolution is done twice: for the data and for the weights.
    # (PyTorch's counter takes a depthwise convolution's backward pass for a dense one's.)
    return Step(name, passes * flops.get_total_flops(), counted.total, saved, kinds)


class Guided(nn.Module):
    """Ours with embeddings of its own, so that both networks are called alike."""

    def __init__(self, config: ModelConfig, checkpointing: bool = False) -> None:
        super().__init__()
        self.restorer = Restorer(config)
        self.restorer.activation_checkpointing = checkpointing
        self.config = config

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 3, H, W)."""
        tokens = image.new_zeros(len(image), 16, self.config.guidance_dim)
        return self.restorer(image, Embeddings(tokens, tokens, tokens[:, 0]))


# Compiled

TRACED = 96
"""Channels at which blocks are traced; maps of other widths are counted in proportion."""


def blocks(config: ModelConfig) -> dict[type[nn.Module], float]:
    """Values of one map in and one map out of all blocks, by class, for one pixel of the image."""
    with torch.device("meta"):
        network = Restorer(config)
    found: dict[type[nn.Module], float] = dict.fromkeys((TransformerBlock, MGFB, MoFE), 0.0)
    for name, module in network.named_modules():
        if not isinstance(module, TransformerBlock | MGFB | MoFE):
            continue
        channels = int(module.attn.project_out.out_channels)
        top = name.startswith(("encoder_level1", "decoder_level1", "refinement", "mgfb.decoder1"))
        level = 0 if top else (channels // config.width).bit_length() - 1
        found[type(module)] += channels / 4**level
    return found


class FeedForward(TransformerBlock):
    """A Transformer block's second half."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H, W, C)."""
        return x + self.ffn(self.norm2(x))


class Maps(NamedTuple):
    """Bytes of a block over those of one bf16 map of its channels.

    Attributes:
        moved: read and written by all kernels, forward and backward.
        kept: by the forward pass for the backward pass.
        convolved: of what is moved, by convolutions; in a Transformer block they are depthwise.
    """

    moved: float
    kept: float
    convolved: float


def make_block(kind: type[nn.Module], config: ModelConfig) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A block of `TRACED` channels and what it is called with, for one image."""
    heads, wide = max(1, TRACED // 48), config.guidance_dim
    x = torch.zeros(1, HEIGHT, WIDTH, TRACED, dtype=torch.bfloat16, requires_grad=True)
    if kind in (TransformerBlock, FeedForward):
        return kind(TRACED, heads, config.expansion), (x,)
    if kind is MGFB:
        return MGFB(TRACED, heads, config.expansion, wide), (x, torch.zeros(1, 16, wide))
    mofe = MoFE(TRACED, heads, wide, config.num_experts, 9)
    return mofe, (x, torch.zeros(1, HEIGHT // 2, WIDTH // 2, 9), torch.zeros(1, wide))


@cache
def compiled_block(kind: type[nn.Module], config: ModelConfig, budget: float) -> Maps:
    """How often a compiled block's own map is moved and kept.

    Args:
        kind: the block's class.
        config: the network.
        budget: the share of activations that the forward pass keeps.
    """
    graphs: list[torch.fx.Graph] = []

    def watch(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph.graph)
        return make_boxed_func(graph.forward)

    backend = aot_autograd(
        fw_compiler=watch,
        bw_compiler=watch,
        partition_fn=min_cut_rematerialization_partition,
        decompositions=core_aten_decompositions(),
    )
    module, inputs = make_block(kind, config)
    torch._dynamo.reset()
    with torch._functorch.config.patch(activation_memory_budget=budget):
        run = torch.compile(module, backend=backend, dynamic=False)
        with kept_bytes(()) as kept, torch.autocast("cpu", dtype=torch.bfloat16):
            out = run(*inputs)
        out.float().sum().backward()
    torch._dynamo.reset()
    one = 2 * HEIGHT * WIDTH * TRACED
    return Maps(
        moved=sum(map(graph_bytes, graphs)) / one,
        kept=sum(n for n in kept.values() if n % (2 * CELL) == 0) / one,
        convolved=sum(map(convolved_bytes, graphs)) / one,
    )


def compiled(
    name: str, config: ModelConfig, size: int, batch: int, budget: float, rest: Step
) -> Step:
    """Blocks compiled, what lies between them eager.

    Args:
        name: for the table.
        config: the network.
        size: side of the crops.
        batch: B.
        budget: as for `compiled_block`.
        rest: what lies between the blocks; with the arithmetic of all.
    """
    moved, kept = rest.moved, rest.kept
    for kind, values in blocks(config).items():
        one = 2 * values * batch * size**2
        maps = compiled_block(kind, config, budget)
        moved, kept = moved + one * maps.moved, kept + one * maps.kept
    return Step(name, rest.flop, moved, kept, {})


def between(config: ModelConfig, size: int, batch: int) -> Step:
    """The network without its blocks, eagerly."""
    bare = replace(
        config,
        num_blocks=(0, 0, 0, 0),
        num_refinement_blocks=0,
        encoder_guidance="none",
        decoder_guidance="none",
        experts="none",
    )
    return eager("", lambda: Guided(bare), size, batch)


def fused(config: ModelConfig, size: int, batch: int, rest: Step) -> Step:
    """Transformer blocks as `FUSED_MAPS` has them, MGFB and MoFE compiled."""
    hidden = hidden_width(config)
    step = compiled("blocks fused", config, size, batch, 1.0, rest)
    one = 2 * blocks(config)[TransformerBlock] * batch * size**2
    maps = compiled_block(TransformerBlock, config, 1.0)
    moved = step.moved + one * (fused_maps(hidden) - maps.moved)
    return replace(step, moved=moved, kept=step.kept + one * (5 + 2 * hidden - maps.kept))


def hidden_width(config: ModelConfig) -> float:
    """Channels of one half of h, with those that align it, in units of C."""
    with torch.device("meta"):
        block = TransformerBlock(TRACED, 1, config.expansion)
    return block.ffn.aligned()[2].shape[1] / TRACED


def fused_maps(hidden: float) -> float:
    """Maps of C channels that a fused block reads and writes, forward and backward."""
    return sum(
        kernel_maps(read, hidden) + kernel_maps(written, hidden) for _, read, written in FUSED_MAPS
    )


def kernel_maps(count: int | str, hidden: float) -> float:
    """A number of `FUSED_MAPS`."""
    return sum(2 * hidden if word == "2h" else float(word) for word in str(count).split("+"))


# The table


def count(config: ModelConfig, size: int, batch: int, reference: bool = True) -> list[Step]:
    """All ways to run a step of ``config``, the reference first."""
    steps: list[Step] = []
    if reference:
        from spandrel_extra_arches.architectures.Restormer.__arch.restormer_arch import Restormer

        steps.append(eager("Restormer, eager", Restormer, size, batch))
    ours = eager("ours, eager", lambda: Guided(config), size, batch)
    again = eager("ours, eager, checkpointing", lambda: Guided(config, True), size, batch, 4)
    rest = replace(between(config, size, batch), flop=ours.flop)
    whole = compiled("ours, blocks compiled, memory 1", config, size, batch, 1.0, rest)
    half = compiled("ours, blocks compiled, memory 0.5 (default)", config, size, batch, 0.5, rest)
    return [*steps, ours, again, whole, half, fused(config, size, batch, rest)]


def table(steps: list[Step], size: int, batch: int) -> str:
    """The steps as a table in Markdown."""
    lines = [
        f"| {batch} crops of {size}², bf16 | TFLOP | moved, GB | at least, ms | kept, GiB |",
        "|---|---|---|---|---|",
    ]
    for step in steps:
        seconds = max(step.moved / BANDWIDTH, step.flop / PRODUCTS)
        lines.append(
            f"| {step.name} | {step.flop / 1e12:.1f} | {step.moved / 1e9:,.0f} | "
            f"{1e3 * seconds:.0f} | {step.kept / 2**30:.1f} |"
        )
    return "\n".join(lines)


def shares(config: ModelConfig, size: int, batch: int, half: Step) -> str:
    """What moves most in a step of compiled blocks, as a sentence.

    Args:
        config: the network.
        size: side of the crops.
        batch: B.
        half: the step, at memory 0.5.
    """
    widest, count = 2 * config.width, config.num_blocks[0] + config.num_refinement_blocks
    block = compiled_block(TransformerBlock, config, 0.5)
    fed = compiled_block(FeedForward, config, 0.5)
    moved = 2 * widest * count * batch * size**2 * block.moved
    return (
        f"Of what the default moves, the {count} blocks of {widest} channels at {size}² are "
        f"{moved / half.moved:.0%}; of what such a block moves, its feed-forward network (GDFN) "
        f"is {fed.moved / block.moved:.0%}, and the depthwise convolutions of both its halves "
        f"are {block.convolved / block.moved:.0%}."
    ).replace("%", " %")


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help=f"put both into {DOCS.name}")
    arguments = parser.parse_args()
    config = load_recipe("cdd11").model
    steps = count(config, arguments.size, arguments.batch)
    if arguments.json:
        print(json.dumps([vars(step) for step in steps], indent=2))
        return
    largest = shares(config, arguments.size, arguments.batch, steps[-2])
    largest = textwrap.fill(largest, 110, break_on_hyphens=False)
    text = f"{table(steps, arguments.size, arguments.batch)}\n\n{largest}"
    print(text)
    if arguments.write:
        before, rest = DOCS.read_text(encoding="utf-8").split(BEGIN)
        after = rest.split(END)[1]
        DOCS.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
