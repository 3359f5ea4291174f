"""Every shipped recipe loads, round-trips and says what the paper's tables say."""

import json

import pytest

from mmfe_cache.errors import UsageError
from mmfe_restore.recipes import Stage, load_recipe, recipe_from_dict, recipe_names, recipe_to_dict

DESIGNED = {
    *("cdd11", "cdd11-crop", "cdd11-aligned", "aio3", "aio5", "aio5-rain13k", "demo", "small"),
    *(f"table4a/{row}" for row in ("baseline", "encoder-image", "encoder-joint")),
    *(f"table4a/{row}" for row in ("decoder-image", "decoder-joint", "mofe", "full")),
    *(f"table4b/{row}" for row in ("full", "multiscale", "neither")),
    *(f"table5a/experts-{n}" for n in (1, 2, 4, 8, 16)),
    *("table5b/frequency", "table5b/spatial"),
    *(f"table5c/{g}" for g in ("qwen2.5-vl-3b", "fastvlm-1.5b", "fastvlm-0.5b", "prompt", "scene")),
    *("tableS1/without-ll", "tableS1/with-ll"),
    *(f"prompts/{p}" for p in ("paper", "grammatical", "severity", "neutral", "drawn")),
}
PRINTED = {
    "table4a/baseline": 26.1,
    "table4a/encoder-image": 30.0,
    "table4a/decoder-joint": 30.2,
    "table4a/mofe": 29.6,
    "table4a/full": 37.5,
    "table5a/experts-1": 35.9,
    "table5a/experts-16": 39.3,
    "tableS1/with-ll": 38.1,
}


def test_every_designed_recipe_is_there_and_no_other():
    assert set(recipe_names()) == DESIGNED


@pytest.mark.parametrize("name", sorted(DESIGNED))
def test_every_recipe_round_trips(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert recipe_from_dict(recipe_to_dict(recipe)) == recipe


def test_cdd11_is_the_papers_composite_setting():
    recipe = load_recipe("cdd11")
    assert recipe.train.stages == (
        Stage(130, 128, 64),
        Stage(60, 160, 32),
        Stage(40, 192, 16),
        Stage(20, 224, 16),
    )
    assert (recipe.train.learning_rate, recipe.train.betas) == (2e-4, (0.9, 0.999))
    assert (recipe.loss.fourier, recipe.loss.mgl) == (0.1, 0.1)
    assert recipe.model.guidance_dim == 2048
    assert recipe.model.guidance_dropout == 0
    assert recipe.training_views == ("whole@128", "whole@160", "whole@192", "whole@224")


def test_the_guide_sees_crops_and_then_the_whole_picture():
    crop, aligned = load_recipe("cdd11-crop"), load_recipe("cdd11-aligned")
    assert crop.training_views == ("crop@128", "crop@160", "crop@192", "crop@224")
    assert len(aligned.training_views) == 16
    assert aligned.training_views[:5] == (
        "crop@128#0", "crop@128#1", "crop@128#2", "crop@128#3", "crop@160#0",
    )  # fmt: skip
    plain = load_recipe("cdd11")
    for recipe in (crop, aligned):
        assert recipe.eval.view == "native"
        assert (recipe.model, recipe.loss, recipe.train.stages) == (
            plain.model, plain.loss, plain.train.stages,
        )  # fmt: skip


def test_all_in_one_recipes_run_150_epochs_on_crops():
    for name in ("aio3", "aio5", "aio5-rain13k"):
        recipe = load_recipe(name)
        assert sum(stage.epochs for stage in recipe.train.stages) == 150
        assert [stage.epochs for stage in recipe.train.stages] == [70, 50, 20, 10]
        assert recipe.training_views[0] == "crop@128"
        assert recipe.eval.view == "crop@224"
        assert recipe.eval.crop_multiple == 16


@pytest.mark.parametrize("view", ["crop@224", "native"])
def test_every_stage_may_read_one_view(view):
    recipe = load_recipe("cdd11", [f"train.view={view}"])
    assert recipe.training_views == (view,)
    assert {recipe.view_at(stage.resolution) for stage in recipe.train.stages} == {view}


def test_repeats_give_the_published_epochs():
    three = load_recipe("aio3").data.repeats
    sizes = {"noise-15": 5144, "noise-25": 5144, "noise-50": 5144, "rain": 200, "haze": 72135}
    assert sum(sizes[label] * times for label, times in three.items()) == 142_431
    five = load_recipe("aio5").data.repeats
    sizes |= {"blur": 8 * 2103, "low": 485}
    assert sum(sizes[label] * times for label, times in five.items()) == 236_251


@pytest.mark.parametrize(("name", "millions"), PRINTED.items())
def test_published_counts(name, millions):
    assert load_recipe(name).published_parameters == millions


def test_rows_read_what_their_names_say():
    reads = {name: load_recipe(f"table4a/{name}").model.reads for name in ("baseline", "mofe")}
    assert reads == {"baseline": (), "mofe": ("answer",)}
    assert load_recipe("table4a/encoder-joint").model.reads == ("joint",)
    assert load_recipe("table4a/full").model.reads == ("image", "joint", "answer")


def test_a_guide_decides_the_width():
    assert load_recipe("table5c/fastvlm-0.5b").model.guidance_dim == 896
    changed = load_recipe("cdd11", ["guide=scene"])
    assert (changed.guide.name, changed.model.guidance_dim) == ("scene", 128)
    assert load_recipe("cdd11", ["guide=scene", "model.guidance_dim=64"]).model.guidance_dim == 64


def test_another_guide_brings_its_width_over_a_saved_recipe_too(tmp_path):
    saved = tmp_path / "recipe.yaml"
    saved.write_text(json.dumps(recipe_to_dict(load_recipe("cdd11"))))
    assert load_recipe(saved).model.guidance_dim == 2048
    assert load_recipe(saved, ["guide=scene"]).model.guidance_dim == 128
    assert load_recipe(saved, ["guide=scene", "model.guidance_dim=7"]).model.guidance_dim == 7
    based = tmp_path / "based.yaml"
    based.write_text(f"base: {saved}\nguide: {{name: fastvlm-0.5b}}\n")
    assert load_recipe(based).model.guidance_dim == 896


def test_overrides_are_typed_and_nested():
    recipe = load_recipe(
        "cdd11",
        [
            "model.num_experts=4",
            "train.learning_rate=1e-3",
            "train.compile=off",
            "data.repeats={low: 2}",
            "data.repeats.haze=3",
            "train.max_steps=7",
            "train.stages=[{epochs: 1, resolution: 64, batch_size: 2}]",
        ],
    )
    assert recipe.model.num_experts == 4
    assert recipe.train.learning_rate == 1e-3
    assert recipe.train.compile == "off"
    assert recipe.data.repeats == {"low": 2, "haze": 3}
    assert recipe.train.max_steps == 7
    assert recipe.train.stages == (Stage(1, 64, 2),)


def test_one_repeat_is_set_beside_the_recipes_others_and_a_mapping_in_their_place():
    published = load_recipe("aio3").data.repeats
    one = load_recipe("aio3", ["data.repeats.rain=60", "data.repeats.haze=2"])
    assert one.data.repeats == published | {"rain": 60, "haze": 2}
    assert load_recipe("aio3", ["data.repeats={rain: 60}"]).data.repeats == {"rain": 60}
    both = load_recipe("aio3", ["data.repeats.haze=2", "data.repeats={rain: 60}"])
    assert both.data.repeats == {"rain": 60}


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("model.num_expert=4", "did you mean model.num_experts"),
        ("num_experts=4", "did you mean model.num_experts"),
        ("model.num_experts", "KEY=VALUE"),
        ("model=4", "is a part of a recipe"),
        ("model.num_experts=many", "model.num_experts"),
        ("model.num_experts=true", "model.num_experts"),
        ("model.num_experts=0", "1 or more"),
        ("model.guidance_dropout=1", "[0, 1)"),
        ("model.num_heads=[1,2,4,7]", "level 4"),
        ("model.experts=freqency", "frequency"),
        ("train.stages=[]", "at least one stage"),
        ("train.stages=[{epoch: 1, resolution: 64, batch_size: 2}]", "train.stages.epochs"),
        ("train.accumulate=5", "train.accumulate"),
        ("train.aligned_crops=2", "train.view=crop"),
        ("guide=[", "not YAML"),
        ("model.width=49", "an even number"),
        ("train.learning_rate=.inf", "finite"),
        ("train.learning_rate=.nan", "above 0, finite"),
        ("train.ema_decay=1", "(0, 1), or null"),
        ("train.betas=[0.9, 1]", "out of range in the recipe: train.betas"),
        ("data.repeats.low=-1", "out of range in the recipe: data.repeats.low"),
        ("train.precision=true", "wrong value in the recipe: train.precision"),
        ("loss.mgl=.inf", "finite"),
        ("eval.view=whol@224", "eval.view"),
        ("train.view=whol", "train.view"),
        ("train.view=crop@0", "train.view"),
        ("train.stages=[{epochs: 1, resolution: 5000, batch_size: 2}]", "whole@5000"),
    ],
)
def test_wrong_overrides_say_what_would_be_right(override, told):
    with pytest.raises(UsageError) as caught:
        load_recipe("cdd11", [override])
    assert caught.value.exit_code == 2
    assert told in str(caught.value)


@pytest.mark.parametrize("experts", ["spatial", "none"])
def test_an_ll_band_without_bands_is_refused(experts):
    with pytest.raises(UsageError, match="only the frequency domain has an LL band"):
        load_recipe("cdd11", [f"model.experts={experts}", "model.low_band=true"])


@pytest.mark.parametrize("first", ["data.repeats=3", "data.repeats=null"])
def test_an_override_inside_a_single_value_is_refused(first):
    with pytest.raises(UsageError, match=r"data\.repeats\.low is set inside"):
        load_recipe("cdd11", [first, "data.repeats.low=2"])


@pytest.mark.parametrize("precision", ["32", "16", "bf16", "tf32", "'64'"])
def test_a_precision_may_be_written_as_a_number(precision):
    recipe = load_recipe("cdd11", [f"train.precision={precision}"])
    assert recipe.train.precision == precision.strip("'")


def test_a_printed_count_belongs_to_the_network_it_was_printed_for(tmp_path):
    assert load_recipe("cdd11", ["model.num_experts=5"]).published_parameters is None
    assert load_recipe("cdd11", ["guide=scene"]).published_parameters is None
    assert load_recipe("cdd11", ["train.seed=3"]).published_parameters == 37.5
    own = tmp_path / "own.yaml"
    own.write_text("base: cdd11\nmodel: {num_experts: 5}\n")
    assert load_recipe(own).published_parameters is None


def test_an_unknown_recipe_names_its_neighbours():
    with pytest.raises(UsageError, match="unknown recipe") as caught:
        load_recipe("table4a/mof")
    assert "table4a/mofe" in str(caught.value)


def test_a_recipe_may_be_a_file_of_ones_own(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("base: table5a/experts-4\ntrain: {learning_rate: 1e-4}\n")
    recipe = load_recipe(file)
    assert (recipe.name, recipe.model.num_experts) == ("mine", 4)
    assert recipe.train.learning_rate == 1e-4
    assert load_recipe(str(file)) == recipe


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("base: cdd11\nmodle: {width: 4}\n", "did you mean model"),
        ("base: cdd11\nmodel: 4\n", "a mapping"),
        ("base: cdd11\nguide: 4\n", "a mapping"),
        ("base: cdd11\ntrain: [4]\n", "a mapping"),
        ("base: cdd11\nmodel: {width: 3}\nmodle: {}\n", "did you mean model"),
        ("- a\n", "not a mapping"),
        ("a: [\n", "not YAML"),
        ("base: nothing\n", "unknown recipe"),
    ],
)
def test_wrong_files_are_refused(tmp_path, text, told):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_recipe(file)
    assert told in str(caught.value)


def test_a_missing_or_circular_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        load_recipe(tmp_path / "none.yaml")
    loop = tmp_path / "loop.yaml"
    loop.write_text(f"base: {loop}\n")
    with pytest.raises(UsageError, match="based on itself"):
        load_recipe(loop)


def test_a_file_may_bear_the_name_of_its_base(tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text("base: small\ntrain: {seed: 5}\n")
    recipe = load_recipe(file)
    assert (recipe.train.seed, recipe.model) == (5, load_recipe("small").model)


def test_a_base_is_looked_for_beside_the_file_then_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "base.yaml").write_text("base: small\ntrain: {seed: 5}\n")
    file = tmp_path / "own" / "mine.yaml"
    file.write_text("base: base.yaml\n")
    assert load_recipe(file).train.seed == 5
    monkeypatch.chdir(tmp_path)
    file.write_text("base: own/base.yaml\n")
    assert load_recipe(file).train.seed == 5
    (tmp_path / "own" / "base.yaml").write_text("base: mine.yaml\n")
    with pytest.raises(UsageError, match="based on itself"):
        load_recipe(file)
