"""What `benchmarks.count_traffic` counts, where the right number can be worked out."""

import re

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from benchmarks import count_traffic
from benchmarks.count_traffic import (
    BEGIN,
    DOCS,
    END,
    blocks,
    compiled_block,
    count,
    eager,
    fused_maps,
    shares,
    table,
)
from benchmarks.traffic import convolved_bytes, graph_bytes
from mmfe_restore import load_recipe
from mmfe_restore.model.mgfb import MGFB
from mmfe_restore.model.mofe import MoFE
from mmfe_restore.model.restormer import TransformerBlock
from mmfe_restore.recipes.schema import ModelConfig
from mmfe_restore.training.dry_run import KEPT_COMPILED, KEPT_HALF

pytestmark = pytest.mark.timeout(900)  # a busy machine decides nothing


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


def test_a_convolution_reads_its_map_and_writes_another_in_both_directions():
    def work(x, w):
        y = torch.nn.functional.conv2d(x, w, padding=1, groups=2).sin()
        return torch.autograd.grad(y.sum(), (x, w))

    x = torch.zeros(1, 2, count_traffic.HEIGHT, count_traffic.WIDTH, requires_grad=True)
    graph = traced(work, x, torch.zeros(2, 1, 3, 3, requires_grad=True)).graph
    # Forward one in and one out; backward the map and its gradient in and one out.
    assert convolved_bytes(graph) == 5 * x.numel() * 4


def test_the_full_networks_blocks():
    found = blocks(ModelConfig())
    # Channels over pixels: level 1 at 48 (4) and 96 (4 + 4), levels 2 to 4 at 96/4, 192/16, 384/64.
    assert found[TransformerBlock] == 4 * 48 + 8 * 96 + 12 * 24 + 12 * 12 + 8 * 6
    assert found[MGFB] == 48 + 96 + 2 * 24 + 2 * 12 + 2 * 6
    assert found[MoFE] == 2 * 24 + 2 * 12 + 2 * 6


def test_a_compiled_block_moves_and_keeps_less_than_an_eager_one_and_a_fused_one_least():
    config = ModelConfig()
    moved, kept, convolved = compiled_block(TransformerBlock, config, 1.0)
    moved_half, kept_half, _ = compiled_block(TransformerBlock, config, 0.5)
    # By hand: kept are x, both norms' outputs, qkv before and after its convolution (6), x', h
    # before and after (10.6), the gated product (2.7), and statistics.
    assert kept == pytest.approx(1 + 2 + 6 + 1 + 10.64 + 2.66, abs=0.1)
    # Of qkv (3) and h (5.3) forward one map in and one out, backward two in and one out.
    assert convolved == pytest.approx(5 * (3 + 5.32), abs=0.1)
    assert kept_half < 0.5 * kept
    assert moved < moved_half < 1.3 * moved
    assert fused_maps(2.66) < 0.4 * moved


CLOSE = 0.03
"""Other versions of PyTorch decompose and partition a little otherwise."""


@pytest.fixture(scope="module")
def steps():
    """All rows of the table in docs/performance.md, counted now."""
    return count(load_recipe("cdd11").model, 128, 64)


@pytest.fixture(scope="module")
def docs():
    """The table's lines, and what is said of it."""
    kept = DOCS.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    lines, sentence = kept.strip().split("\n\n")
    return lines.splitlines(), " ".join(sentence.split())


def numbers(line):
    """Of a line of the table, behind its name."""
    return [float(cell.replace(",", "")) for cell in line.strip("| ").split(" | ")[1:]]


def test_the_docs_hold_the_table_as_it_is_counted_today(steps, docs):
    counted = table(steps, 128, 64).splitlines()
    assert len(docs[0]) == len(counted) == 2 + 6
    assert docs[0][:2] == counted[:2]
    for kept, line in zip(docs[0][2:], counted[2:], strict=True):
        assert kept.split(" | ")[0] == line.split(" | ")[0]
        assert numbers(kept) == pytest.approx(numbers(line), rel=CLOSE), kept


def test_the_docs_say_what_moves_most(steps, docs):
    counted = shares(load_recipe("cdd11").model, 128, 64, steps[-2])
    percent = r"\d+ %"
    assert re.sub(percent, "", docs[1]) == re.sub(percent, "", counted)
    kept, found = (
        [int(share.split()[0]) for share in re.findall(percent, text)]
        for text in (docs[1], counted)
    )
    assert len(found) == 3
    assert kept == pytest.approx(found, abs=2)


def test_the_largest_stage_keeps_what_was_aimed_at_and_what_a_dry_run_reckons_with(steps):
    reference, ours, _, whole, half, _ = (step.kept for step in steps)
    assert half < 0.4 * reference
    assert pytest.approx(whole / ours, rel=CLOSE) == KEPT_COMPILED
    assert pytest.approx(half / ours, rel=CLOSE) == KEPT_HALF
