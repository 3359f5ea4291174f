"""What runs a network's blocks is no part of its weights or of how they are read."""

from importlib.util import find_spec

import pytest
import torch

from mmfe_restore import Restorer, load_recipe
from mmfe_restore.model.restormer import TransformerBlock
from mmfe_restore.training.initial_weights import new_restorer

SMALL = ("model.width=8", "model.num_heads=[1,1,2,2]", "model.num_blocks=[1,1,1,1]")


def recipe_for(kernels):
    return load_recipe("demo", [*SMALL, f"train.kernels={kernels}"])


def network(kernels):
    """As a training run makes it; random, so that no two are alike."""
    restorer = new_restorer(recipe_for(kernels), None)
    if kernels == "triton":
        if find_spec("triton") is None:
            pytest.skip("no Triton here")
        from mmfe_restore.kernels.block import run_block

        restorer.run_parts_by({TransformerBlock: run_block})
    return restorer


@pytest.mark.parametrize(("trained", "further"), [("torch", "triton"), ("triton", "torch")])
def test_weights_trained_one_way_are_read_and_trained_further_the_other(trained, further, tmp_path):
    made = network(trained)
    made.save_pretrained(tmp_path, recipe=recipe_for(trained))

    read = Restorer.from_pretrained(tmp_path)
    assert read.recipe == recipe_for(trained) != recipe_for(further)
    assert read.config == made.config == network(further).config
    begun = new_restorer(recipe_for(further), tmp_path / "model.safetensors")
    assert begun.recipe == recipe_for(further)
    for other in (read, begun):
        state = other.state_dict()
        assert list(state) == list(made.state_dict())
        assert all(torch.equal(state[name], value) for name, value in made.state_dict().items())


def test_restoring_needs_no_kernels_whatever_a_network_was_trained_by(tmp_path):
    network("torch").save_pretrained(tmp_path, recipe=recipe_for("triton"))
    image = torch.rand(1, 3, 16, 24)
    with torch.inference_mode():
        restored = Restorer.from_pretrained(tmp_path).eval()(image)
    assert restored.shape == image.shape
