"""Embeddings of any scale: routers that would start saturated, and `guide.normalise`."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmfe_cache.embeddings import Embeddings, rms_normalised
from mmfe_cache.progress import Progress
from mmfe_restore import Restorer
from mmfe_restore.training import initial_weights, train
from mmfe_restore.training.initial_weights import saturated_share, warn_if_saturated

sys.path.insert(0, str(Path(__file__).parents[3]))

from benchmarks.router_scale import answers, simulate


class Heard(Progress):
    def __init__(self):
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)


class Scaled:
    """Guidance whose answers have an RMS of `scale`."""

    def __init__(self, scale, dim=64):
        self._answers = scale * answers(40, dim)

    def read_answers(self, positions, view):
        return self._answers[list(positions)].half()


def test_normalising_is_dividing_by_the_root_mean_square():
    random = np.random.default_rng(0)
    values = random.normal(3, 20, (2, 5, 7))
    expected = values / np.sqrt((values**2).mean(axis=-1, keepdims=True))
    found = rms_normalised(torch.from_numpy(values))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    torch.testing.assert_close(rms_normalised(found), found)
    for scale in (1, 5, 20):
        torch.testing.assert_close(rms_normalised(scale * torch.from_numpy(values)), found)
    assert rms_normalised(torch.zeros(2, 3)).tolist() == [[0, 0, 0]] * 2
    # float16 squares overflow from 256 on; its own values do not.
    large = torch.full((1, 4), 60_000.0, dtype=torch.float16)
    assert rms_normalised(large).tolist() == [[1.0] * 4]


@pytest.mark.parametrize("scale", [1.0, 5.0, 20.0])
def test_a_network_that_normalises_does_not_see_the_scale(world, scale):
    torch.manual_seed(0)
    recipe = world.recipe("guide.normalise=rms", "model.guidance_dropout=0")
    restorer = Restorer.from_recipe(recipe).eval()
    dim = recipe.model.guidance_dim
    plain = Embeddings(torch.randn(1, 16, dim), torch.randn(1, 16, dim), torch.randn(1, dim))
    scaled = plain.map(lambda t: scale * t)
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(restorer(image, scaled), restorer(image, plain))
        weights = restorer.router_weights(scaled.answer)
        for site, found in restorer.router_weights(plain.answer).items():
            torch.testing.assert_close(weights[site], found)
        unlike = Restorer.from_recipe(world.recipe("model.guidance_dropout=0"))
        unlike.load_state_dict(restorer.state_dict())
        # Without the key it is the same network on embeddings that somebody else normalised.
        torch.testing.assert_close(
            unlike.eval()(image, scaled.normalised()), restorer(image, scaled)
        )


def test_saturation_counts_both_ends():
    weights = {"a": torch.tensor([[0.005, 0.5], [0.995, 0.02]]), "b": torch.tensor([[0.99, 0.6]])}
    assert saturated_share(weights) == pytest.approx(2 / 6)


@pytest.mark.parametrize(("scale", "warned"), [(1.0, False), (5.0, True), (20.0, True)])
def test_a_router_that_would_start_saturated_is_named(world, scale, warned):
    torch.manual_seed(0)
    recipe = world.recipe()
    heard = Heard()
    restorer = Restorer.from_recipe(recipe)
    warn_if_saturated(restorer, recipe, [Scaled(scale)], 40, heard)
    assert bool(heard.warnings) == warned
    if warned:
        assert "guide.normalise=rms" in heard.warnings[0]
        assert f"of RMS {scale:.0f}" in heard.warnings[0].replace("4.99", "5").replace("5.01", "5")
    normalising = replace(recipe, guide=replace(recipe.guide, normalise="rms"))
    quiet = Heard()
    warn_if_saturated(Restorer.from_recipe(normalising), normalising, [Scaled(scale)], 40, quiet)
    assert not quiet.warnings
    unguided = world.recipe("model.experts=none", "loss.mgl=0")
    warn_if_saturated(Restorer.from_recipe(unguided), unguided, [Scaled(20)], 40, quiet)
    assert not quiet.warnings


def test_routers_that_were_trained_are_not_named(world, tmp_path, monkeypatch):
    monkeypatch.setattr(initial_weights, "SATURATED_SHARE", 0.0)  # every new router is named
    recipe = world.recipe("train.max_steps=1")
    for begin, warned in ((None, True), (tmp_path / "new" / "model", False)):
        heard = Heard()
        out = tmp_path / ("new" if warned else "further")
        train(recipe, **world.sources, out=out, init_from=begin, progress=heard)
        assert any("start saturated" in line for line in heard.warnings) == warned


def test_a_new_routers_saturation_follows_from_its_initialisation():
    """Sums of D products with weights uniform in ±1/√D have a standard deviation of RMS/√3."""
    (row,) = simulate(5.0, normalise=False, steps=0)
    edge = math.log(99) / (5 / math.sqrt(3))
    assert row["saturated"] == pytest.approx(math.erfc(edge / math.sqrt(2)), abs=0.06)


def test_scale_saturates_a_router_and_normalising_takes_it_away():
    small = {"steps": 30, "after": (30,)}
    one, five = (simulate(scale, normalise=False, **small)[-1] for scale in (1.0, 5.0))
    assert one["saturated"] < 0.05
    assert five["saturated"] > 0.1
    normalised = [simulate(scale, normalise=True, **small)[-1] for scale in (5.0, 20.0)]
    for row in normalised:
        assert row["saturated"] == pytest.approx(one["saturated"], abs=0.01)
        assert row["loss"] == pytest.approx(one["loss"], abs=1e-3)


def test_training_normalises_and_records_it(world, tmp_path):
    recipe = world.recipe("guide.normalise=rms", "train.max_steps=2")
    done = train(recipe, **world.sources, out=tmp_path / "run")
    assert done.completed
    saved = Restorer.from_pretrained(tmp_path / "run" / "model")
    assert saved.recipe.guide.normalise == "rms"
    plain = train(world.recipe("train.max_steps=2"), **world.sources, out=tmp_path / "plain")
    assert plain.loss != done.loss


def test_a_network_that_normalises_is_not_exported_without_that(world):
    from mmfe_cache.errors import UsageError
    from mmfe_restore.export.files import gather_parts

    restorer = Restorer.from_recipe(world.recipe("guide.normalise=rms"))
    for inside in ("auto", "inputs", "scene"):
        with pytest.raises(UsageError, match="normalises its embeddings"):
            gather_parts(restorer, inside)
    assert gather_parts(restorer, "none").null_guidance
    assert gather_parts(Restorer.from_recipe(world.recipe()), "inputs").asks_for
