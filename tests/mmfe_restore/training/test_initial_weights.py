"""Weights that a run begins with, whose network read its guide otherwise than the run will."""

import json
from unittest.mock import Mock

import pytest

from mmfe_cache.errors import CacheError
from mmfe_cache.progress import Progress
from mmfe_cache.store import open_cache, store_path
from mmfe_restore import Restorer
from mmfe_restore.training import plan_run, run_dir, train
from mmfe_restore.training.initial_weights import reads_otherwise

ASKED = ("guide=qwen2.5-vl-3b", "model.guidance_dim=64")


@pytest.fixture
def begin(world, tmp_path):
    """Writes the model/ folder of a run of the recipe, and says what a plan warns of."""
    store = open_cache(store_path("cdd11", "train", "oracle", root=world.cache))

    def write(*overrides, **changed):
        recipe = world.recipe(*overrides)
        folder = tmp_path / "first" / "model"
        folder.parent.mkdir(exist_ok=True)
        cache = {**store.fingerprint, **changed}
        run_dir.write_model(folder, Restorer.from_recipe(recipe), recipe, cache)
        return folder

    return write


def warnings(world, folder, *overrides):
    return plan_run(world.recipe(*overrides), **world.sources, init_from=folder).warnings


def test_a_network_that_read_as_the_run_does_is_taken_without_a_word(world, begin):
    assert warnings(world, begin()) == ()
    assert warnings(world, begin("guide.normalise=rms"), "guide.normalise=rms") == ()
    # Another precision changes the last digits alone.
    assert warnings(world, begin(**{"guide.dtype": "bfloat16"})) == ()


@pytest.mark.parametrize(
    ("key", "there", "here"),
    [
        ("normalise", "rms", "none"),
        ("tokens", "mean", "grid"),
        ("control", "constant", "none"),
    ],
)
def test_each_key_that_differs_is_named_with_the_remedy(world, begin, key, there, here):
    (warning,) = warnings(world, begin(f"guide.{key}={there}"))
    assert f"guide.{key} is {here}, and was {there};" in warning
    assert f"--set guide.{key}={there} reads as before" in warning
    assert warning.count("guide.") == 2


def test_another_question_is_named(world, begin):
    def said(folder, *overrides, **cache):
        recipe = world.recipe(*ASKED, *overrides)
        return reads_otherwise(recipe, folder / "model.safetensors", cache or None)

    asked = begin(*ASKED, "guide.prompt=What is wrong?")
    assert said(asked, "guide.prompt=What is wrong?") is None
    assert """--set 'guide.prompt="What is wrong?"'""" in said(asked)
    # A recipe that names no prompt takes what its one store was asked.
    assert "guide.prompt is" not in said(asked, **{"guide.prompt": "What is wrong?"})
    pooled = begin(*ASKED, "guide.joint=from-image")
    assert "guide.joint is all, and was from-image;" in said(pooled)
    # Of several prompts any may be gone on with.
    several = begin(*ASKED, "guide.prompts=['What is wrong?', 'How noisy is it?']")
    assert said(several, "guide.prompt=How noisy is it?") is None
    assert "guide.prompt is Is it dark?" in said(several, "guide.prompt=Is it dark?")


def test_another_state_of_the_guide_is_named(world, begin):
    (warning,) = warnings(world, begin(**{"guide.weights": "another"}))
    assert "another state of the guide built the cache (weights: 'another' / None)" in warning
    assert "a cache of the guide oracle as it was then" in warning


def test_a_run_says_it_at_its_start_and_not_when_it_goes_on(world, begin, tmp_path):
    folder = begin("guide.normalise=rms")
    recipe = world.recipe("train.max_steps=2")
    for stop in (1, None):
        told = Mock(wraps=Progress())
        out = tmp_path / "second"
        train(recipe, **world.sources, out=out, init_from=folder, progress=told, stop_after=stop)
        said = [call.args[0] for call in told.warn.call_args_list]
        assert any("guide.normalise is none, and was rms" in line for line in said) == (stop == 1)


def test_what_is_recorded_is_told_before_there_is_a_cache(world, begin, tmp_path):
    folder = begin("guide.normalise=rms", **{"guide.weights": "another"})
    plan = plan_run(world.recipe(), root=world.root, cache=tmp_path / "none", init_from=folder)
    assert isinstance(plan.problem, CacheError)
    assert "guide.normalise is none" in plan.warnings[0]
    assert "state of the guide" not in plan.warnings[0]
    # Weights alone, or beside a file of somebody else's, say nothing.
    config = folder / "config.json"
    config.write_text(json.dumps({"architectures": ["Other"]}), encoding="utf-8")
    assert warnings(world, folder) == ()
    config.unlink()
    assert warnings(world, folder) == ()
