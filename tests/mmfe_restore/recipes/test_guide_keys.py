"""What a recipe may say of its guide: prompts, the pooling of E_Joint, and normalisation."""

from __future__ import annotations

import json

import pytest

from mmfe_cache.embeddings import DEFAULT_PROMPT
from mmfe_cache.errors import UsageError
from mmfe_cache.guides.registry import GUIDES
from mmfe_restore.recipes import load_recipe, recipe_from_dict, recipe_to_dict


def test_by_default_the_papers_question_is_asked():
    guide = load_recipe("cdd11").guide
    assert (guide.prompt, guide.prompts, guide.joint, guide.normalise) == (
        None, None, "all", "none",
    )  # fmt: skip
    assert guide.asked == DEFAULT_PROMPT


def test_evaluation_asks_the_first_of_several_prompts():
    recipe = load_recipe("cdd11", ["guide.prompts=['Is it dark?', 'Is it wet?']"])
    assert recipe.guide.asked == "Is it dark?"
    assert recipe_from_dict(recipe_to_dict(recipe)) == recipe
    assert [(one.guide.prompt, one.guide.prompts) for one in recipe.each_prompt] == [
        ("Is it dark?", None),
        ("Is it wet?", None),
    ]
    other = load_recipe(
        "cdd11", ["guide.prompts=['Is it dark?', 'Is it wet?']", "guide.prompt=Is it wet?"]
    )
    assert other.guide.asked == "Is it wet?"


def test_a_list_replaces_the_prompt_below(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("base: prompts/neutral\nguide: {prompts: ['Is it dark?', 'Is it wet?']}\n")
    assert load_recipe(file).guide.asked == "Is it dark?"
    # What the guide is asked changes no parameters.
    assert load_recipe(file).published_parameters == 37.5


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["guide.promt=x"], ["unknown recipe key", "guide.promt", "guide.prompt"]),
        (["guide.normalize=rms"], ["unknown recipe key", "guide.normalise"]),
        (["guide.prompts=[]"], ["out of range", "guide.prompts", "at least one prompt"]),
        (["guide.prompts=[a, b, a]"], ["guide.prompts", "['a']", "every prompt once"]),
        (["guide.prompts=[a, '  ']"], ["guide.prompts", "'  '", "a question about the image"]),
        (["guide.prompt=' '"], ["guide.prompt", "a question about the image"]),
        (["guide.prompts=[a, b]", "guide.prompt=c"], ["guide.prompt", "one of guide.prompts"]),
        (["guide.prompts=a"], ["wrong value", "guide.prompts"]),
        (["guide.prompt=3"], ["wrong value", "guide.prompt"]),
        (["guide=scene", "guide.prompt=a"], ["guide.prompt", "the guide scene is asked nothing"]),
        (["guide=scene", "guide.prompts=[a]"], ["the guide scene is asked nothing"]),
        (["guide=scene", "guide.joint=from-image"], ["guide.joint", "scene is asked nothing"]),
        (["guide.joint=image"], ["wrong value", "guide.joint", "from-image"]),
        (["guide.normalise=std"], ["wrong value", "guide.normalise", "rms"]),
    ],
)
def test_bad_input_is_refused_by_name(overrides, words):
    with pytest.raises(UsageError) as caught:
        load_recipe("cdd11", overrides)
    for word in words:
        assert word in str(caught.value)


def test_the_registry_knows_which_guides_take_a_prompt():
    """Without importing them, as recipes need."""
    from importlib import import_module

    for info in GUIDES.values():
        module, _, name = info.implementation.partition(":")
        assert info.takes_prompt == getattr(import_module(module), name).takes_prompt, info.name


def test_any_image_text_model_is_asked(tmp_path):
    config = {"model_type": "qwen2_vl", "vision_config": {}, "hidden_size": 8}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    guide = load_recipe("cdd11", [f"guide={tmp_path}", "guide.prompts=[a, b]"]).guide
    assert (guide.name, guide.asked) == (str(tmp_path), "a")


def test_normalising_changes_no_parameter():
    from mmfe_restore.model import Restorer, count_parameters

    small = ["model.width=8", "guide=scene"]
    counts = {
        count_parameters(
            Restorer.from_recipe(load_recipe("demo", [*small, f"guide.normalise={n}"]))
        )
        for n in ("none", "rms")
    }
    assert len(counts) == 1
