"""What `benchmarks.count_traffic` counts, where the right number can be worked out."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from benchmarks import count_traffic
from benchmarks.count_traffic import (
    BEGIN,
    DOCS,
    END,
    Guided,
    between,
    blocks,
    compiled,
    compiled_block,
    eager,
    fused,
    fused_maps,
    table,
)
from benchmarks.traffic import graph_bytes
from mmfe_restore import load_recipe
from mmfe_restore.model.mgfb import MGFB
from mmfe_restore.model.mofe import MoFE
from mmfe_restore.model.restormer import TransformerBlock
from mmfe_restore.recipes.schema import ModelConfig


class Scaled(nn.Module):
    """Two elementwise operations on an image, which the second keeps nothing of."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, image):
        return (image * self.factor).sin()


def test_eager_operations_read_their_inputs_and_write_their_outputs():
    step = eager("", Scaled, size=16, batch=2)
    one = 2 * 3 * 16 * 16 * 4
    # Forward: product and sine, and of the loss difference, absolute value and mean.
    forward = {"sin": 2 * one, "mean": one + 4}
    for name, moved in forward.items():
        assert step.kinds[name] == moved
    # Kept: the image, for the factor's gradient; the sine's input; the sign's of the loss.
    assert step.kept == 3 * one
    assert step.flop == 0


def traced(function, *inputs):
    return make_fx(function, tracing_mode="fake")(*inputs)


def test_elementwise_work_between_two_products_is_one_kernel():
    def work(x, w):
        y = torch.mm(x, w)  # reads x, writes y
        z = (y * 2).sin() + x  # reads y and x, writes z
        return torch.mm(z, w)  # reads z, writes the result

    x, w = torch.zeros(count_traffic.CELL, 8), torch.zeros(8, 8)
    graph = traced(work, x, w).graph
    assert graph_bytes(graph) == (2 + 3 + 2) * x.numel() * 4


def test_of_a_map_that_was_split_a_kernel_reads_its_own_half():
    def work(x, w):
        left, right = torch.mm(x, w).chunk(2, dim=1)
        return torch.mm(left.sin(), w[:4]), right

    x, w = torch.zeros(count_traffic.CELL, 8), torch.zeros(8, 8)
    one = x.numel() * 4
    # The product 1 + 1; the sine a half in and a half out; the second product a half and 1.
    assert graph_bytes(traced(work, x, w).graph) == 2 * one + one + 1.5 * one


def test_the_full_networks_blocks():
    found = blocks(ModelConfig())
    # Channels over pixels: level 1 at 48 (4) and 96 (4 + 4), levels 2 to 4 at 96/4, 192/16, 384/64.
    assert found[TransformerBlock] == 4 * 48 + 8 * 96 + 12 * 24 + 12 * 12 + 8 * 6
    assert found[MGFB] == 48 + 96 + 2 * 24 + 2 * 12 + 2 * 6
    assert found[MoFE] == 2 * 24 + 2 * 12 + 2 * 6


def test_a_compiled_block_moves_and_keeps_less_than_an_eager_one_and_a_fused_one_least():
    config = ModelConfig()
    moved, kept = compiled_block(TransformerBlock, config, 1.0)
    moved_half, kept_half = compiled_block(TransformerBlock, config, 0.5)
    # By hand: kept are x, both norms' outputs, qkv before and after its convolution (6), x', h
    # before and after (10.6), the gated product (2.7), and statistics.
    assert kept == pytest.approx(1 + 2 + 6 + 1 + 10.64 + 2.66, abs=0.1)
    assert kept_half < 0.5 * kept
    assert moved < moved_half < 1.3 * moved
    assert fused_maps(2.66) < 0.4 * moved


def numbers(line):
    """Of a line of the table, behind its name."""
    return [float(cell.replace(",", "")) for cell in line.strip("| ").split(" | ")[1:]]


def test_the_docs_hold_the_table_as_it_is_counted_today():
    kept = DOCS.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip().splitlines()
    config = load_recipe("cdd11").model
    ours = eager("ours, eager", lambda: Guided(config), 128, 64)
    rest = replace(between(config, 128, 64), flop=ours.flop)
    name = "ours, blocks compiled, memory 0.5 (default)"
    half = compiled(name, config, 128, 64, 0.5, rest)
    counted = table([ours, half, fused(config, 128, 64, rest)], 128, 64).splitlines()
    assert kept[:2] == counted[:2]
    lines = {line.split(" | ")[0]: line for line in kept}
    for line in counted[2:]:
        # Other versions of PyTorch decompose and partition a little otherwise.
        assert numbers(lines[line.split(" | ")[0]]) == pytest.approx(numbers(line), rel=0.03)
    # The goal of the largest stage's memory, of the reference's.
    assert half.kept / 2**30 < 0.4 * numbers(lines["| Restormer, eager"])[3]
