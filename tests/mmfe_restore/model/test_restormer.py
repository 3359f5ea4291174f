"""An independent Restormer is the oracle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmfe_cache.errors import ModelError
from mmfe_restore import Restorer
from mmfe_restore.recipes.schema import ModelConfig

arch = pytest.importorskip("spandrel_extra_arches.architectures.Restormer")
SIZES = {"num_blocks": (1, 2, 1, 2), "num_refinement_blocks": 1}
OFF = ModelConfig(
    encoder_guidance="none", decoder_guidance="none", experts="none", width=16, **SIZES
)


def oracle() -> torch.nn.Module:
    from spandrel_extra_arches.architectures.Restormer.__arch.restormer_arch import Restormer

    torch.manual_seed(0)
    network = Restormer(dim=16, num_blocks=[1, 2, 1, 2], num_refinement_blocks=1)
    for parameter in network.parameters():
        parameter.data += torch.randn_like(parameter) * 0.05
    return network


def ours(network: torch.nn.Module) -> Restorer:
    restorer = Restorer(OFF)
    restorer.load_state_dict(network.state_dict())  # strict: the keys are equal
    return restorer


def test_outputs_equal_with_and_without_gradients() -> None:
    network, image = oracle(), torch.rand(2, 3, 40, 24)
    restorer = ours(network).eval()
    with torch.no_grad():
        expected = network(image)
        in_strips = restorer(image)
    torch.testing.assert_close(restorer(image), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(in_strips, expected, atol=1e-5, rtol=1e-5)


def test_gradients_equal() -> None:
    network, image = oracle().double(), torch.rand(1, 3, 24, 16).double()
    restorer = ours(network.float()).double()
    network = network.double()
    network(image).square().sum().backward()
    restorer(image).square().sum().backward()
    theirs = dict(network.named_parameters())
    for name, parameter in restorer.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("wrapped", [True, False])
def test_published_weights_start_a_guided_network(tmp_path: Path, wrapped: bool) -> None:
    network = oracle()
    state = network.state_dict()
    torch.save({"params": state} if wrapped else state, tmp_path / "restormer.pth")
    config = ModelConfig(width=16, guidance_dim=8, **SIZES)
    restorer = Restorer.from_restormer(tmp_path / "restormer.pth", config)
    name = "encoder_level2.1.attn.qkv.weight"
    torch.testing.assert_close(restorer.state_dict()[name], state[name], rtol=0, atol=0)
    with pytest.raises(ModelError, match="another network"):
        Restorer.from_restormer(tmp_path / "restormer.pth", ModelConfig(width=8, **SIZES))


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    import pickle

    marker = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (marker,))

    (tmp_path / "bad.pth").write_bytes(pickle.dumps({"params": Hostile()}))
    with pytest.raises(ModelError):
        Restorer.from_restormer(tmp_path / "bad.pth")
    assert not marker.exists()
