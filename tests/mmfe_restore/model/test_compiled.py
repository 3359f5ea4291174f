"""Blocks compiled one shape at a time: as many graphs as shapes, and the same network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mmfe_cache.embeddings import Embeddings
from mmfe_restore import Restorer
from mmfe_restore.model.mgfb import MGFB
from mmfe_restore.model.mofe import MoFE
from mmfe_restore.model.restormer import TransformerBlock
from mmfe_restore.model.runners import WholeMaps, compile_parts
from mmfe_restore.recipes import load_recipe
from mmfe_restore.training.machine import Machine

Make = Callable[..., Restorer]
Guide = Callable[..., Embeddings]


class Counted:
    """A compiler that counts what it is given and runs it as it is."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        self.graphs += 1
        return graph.forward


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
    torch._functorch.config.activation_memory_budget = 1.0


def step(restorer: Restorer, side: int, embeddings: Embeddings | None) -> None:
    image = torch.ones(1, 3, side, side, dtype=torch.float64) * 0.3
    restorer(image, embeddings).square().sum().backward()


def test_thirteen_graphs_however_many_blocks(tiny: Make, guidance: Guide) -> None:
    counted = Counted()
    restorer = tiny(num_blocks=(2, 1, 1, 2), num_refinement_blocks=2).train()
    restorer.compile_core(backend=counted)
    step(restorer, 32, guidance())
    # Transformer blocks at four levels and at the decoder's first, MGFBs likewise, MoFEs at three.
    assert counted.graphs == 5 + 5 + 3
    step(restorer, 32, guidance())
    assert counted.graphs == 13
    with torch.no_grad():  # as validation does
        restorer.eval()(torch.ones(1, 3, 48, 48).double(), guidance())
    assert counted.graphs == 13


def test_four_stages_have_their_shapes_times_four_and_none_is_dynamic(tiny: Make) -> None:
    off = {"encoder_guidance": "none", "decoder_guidance": "none", "experts": "none"}
    # Three shapes of block a stage, where a whole network has five: twelve in all are already more
    # than the eight that dynamo would compile by itself.
    off |= {"num_blocks": (1, 0, 0, 1), "num_refinement_blocks": 0}
    counted, restorer = Counted(), tiny(**off).train()
    restorer.compile_core(backend=counted)
    for number, side in enumerate((16, 24, 32, 40), 1):
        step(restorer, side, None)
        step(restorer, side, None)
        assert counted.graphs == 3 * number
    assert torch._dynamo.config.recompile_limit >= 5 * 4


def parts() -> dict[str, tuple[torch.nn.Module, tuple[torch.Tensor, ...]]]:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 4, 8)
    return {
        "block": (TransformerBlock(8, 2, 2.66), (x,)),
        "mgfb": (MGFB(8, 2, 2.66, 12), (x, torch.randn(2, 3, 12))),
        "mofe": (MoFE(8, 2, 12, 3, 9), (x, torch.randn(2, 3, 2, 9), torch.randn(2, 12))),
    }


@pytest.mark.parametrize("name", ["block", "mgfb", "mofe"])
def test_a_compiled_part_has_the_same_output_and_gradients(name: str) -> None:
    module, inputs = parts()[name]
    module.double()
    inputs = tuple(t.double().requires_grad_() for t in inputs)
    compiled = compile_parts(0.5, backend="aot_eager")
    assert torch._functorch.config.activation_memory_budget == 0.5
    found = []
    for run in (WholeMaps(), WholeMaps(checkpointing=True, compiled=compiled)):
        out = run._call(module, *inputs)
        out.sin().sum().backward()
        tensors = (*inputs, *module.parameters())
        found.append([out.detach(), *(t.grad for t in tensors)])
        for tensor in tensors:
            tensor.grad = None
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_maps_keep_their_layout_in_a_compiled_part(monkeypatch: pytest.MonkeyPatch) -> None:
    # Inductor would otherwise give a part that is compiled alone a transposed copy of its map.
    given: list[dict[str, object]] = []
    monkeypatch.setattr(torch, "compile", lambda forward, **options: given.append(options))
    compile_parts()
    assert len(given) == 3
    for options in given:
        assert options == {"dynamic": False, "options": {"layout_optimization": False}}


def test_gradients_compiled_for_a_cpu_in_bfloat16_are_finite_and_right() -> None:
    # Of this shape, with half of the activations, Inductor's code gives NaN; see
    # `Machine.activation_memory`.
    torch.manual_seed(0)
    mofe = MoFE(64, 4, 128, 8, 9)
    torch.nn.init.normal_(mofe.attn.project_out.weight, std=0.1)
    inputs = (torch.randn(8, 16, 16, 64), torch.randn(8, 8, 8, 9), torch.randn(8, 128))
    here = Machine(0, 1, 1, 1, "cpu", None)
    kept = here.activation_memory(load_recipe("demo"))
    found = []
    for run in (WholeMaps(), WholeMaps(compiled=compile_parts(kept))):
        mofe.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            run._call(mofe, inputs[0].bfloat16(), *inputs[1:]).float().square().mean().backward()
        found.append([p.grad.clone() for p in mofe.parameters() if p.grad is not None])
    for one, other in zip(*found, strict=True):
        assert torch.isfinite(other).all()
        assert (one - other).abs().max() <= 0.1 * one.abs().max()
