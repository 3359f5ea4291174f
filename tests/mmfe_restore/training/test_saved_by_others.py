"""A model and a run that an earlier version saved stay readable, whatever settings are added.

``saved/0.1.0.zip`` was written by the code of November 2026, when config.json did not name its
version: a guided network, and an unguided run of 3 steps that stopped after its first.
"""

import json
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from mmfe_cache.embeddings import Embeddings
from mmfe_cache.errors import ModelError, UsageError
from mmfe_restore import Restorer
from mmfe_restore.recipes import load_recipe
from mmfe_restore.training import train

ARCHIVE = Path(__file__).with_name("saved") / "0.1.0.zip"


@pytest.fixture
def saved(tmp_path):
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    return tmp_path


def change_config(saved, change):
    path = saved / "model" / "config.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def ramp(low, *shape):
    return torch.linspace(low, 1, torch.Size(shape).numel()).reshape(shape)


def restored(folder):
    restorer = Restorer.from_pretrained(folder)
    embeddings = Embeddings(ramp(-1, 1, 16, 4), ramp(-1, 1, 16, 4), ramp(-1, 1, 4))
    with torch.no_grad():
        return restorer, restorer(ramp(0, 1, 3, 16, 16), embeddings)


def test_a_saved_model_restores_as_it_did(saved):
    restorer, image = restored(saved / "model")
    assert restorer.guide_fingerprint == {"guide.name": "oracle", "guide.dim": 4}
    # What the network gave before it was saved.
    expected = torch.tensor([0.04945047199726105, 0.5416386723518372, 0.6497347950935364])
    torch.testing.assert_close(image[0, :, 3, 5], expected)
    assert float(image.mean()) == pytest.approx(0.5163556933403015, abs=1e-5)


def test_settings_that_a_saved_model_lacks_are_at_their_defaults(saved):
    """As if the settings of `forget` were added after it."""

    def forget(values):
        for part in (values["model"], values["recipe"]["model"]):
            del part["identity_start"], part["low_band"]
        del values["recipe"]["eval"]["crop_multiple"], values["recipe"]["guide"]["control"]

    _, before = restored(saved / "model")
    change_config(saved, forget)
    restorer, image = restored(saved / "model")
    assert torch.equal(image, before)
    assert restorer.recipe.guide.control == "none"
    assert restorer.recipe.eval.crop_multiple == 1


def test_a_setting_that_was_taken_back_is_ignored_where_it_said_nothing(saved):
    _, before = restored(saved / "model")
    change_config(saved, lambda values: values["recipe"]["eval"].update(tile=None))
    _, image = restored(saved / "model")
    assert torch.equal(image, before)
    change_config(saved, lambda values: values["recipe"]["eval"].update(tile=320))
    with pytest.raises(ModelError, match="has a key that this version"):
        restored(saved / "model")


@pytest.mark.parametrize("part", ["model", "train"])
def test_settings_of_a_later_version_are_refused_by_name(saved, part):
    def add(values):
        values["mmfe"] = "7.1"
        values["recipe"][part]["novelty"] = 3

    change_config(saved, add)
    with pytest.raises(ModelError) as caught:
        Restorer.from_pretrained(saved / "model")
    assert f"'{part}.novelty', written by mmfe 7.1" in str(caught.value)


def test_a_model_names_the_version_that_writes_it(saved, tmp_path):
    from importlib.metadata import version

    Restorer.from_pretrained(saved / "model").save_pretrained(tmp_path / "again")
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert config["mmfe"] == version("mmfe")


def recipe_of(saved, **changes):
    path = saved / "recipe-now.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load((saved / "run/recipe.yaml").read_text())))
    return load_recipe(path, [f"{key}={value}" for key, value in changes.items()])


def test_a_saved_run_is_resumed(saved, world):
    report = train(recipe_of(saved), root=world.root, out=saved / "run")
    assert (report.resumed_from, report.steps, report.completed) == (1, 3, True)
    rows = (saved / "run" / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "1", "2", "3"]


def test_a_saved_run_that_lacks_settings_is_resumed(saved, world):
    file = saved / "run" / "recipe.yaml"
    recipe = recipe_of(saved)
    values = yaml.safe_load(file.read_text())
    del values["train"]["activation_checkpointing"], values["model"]["low_band"]
    values["description"] = "worded otherwise by an earlier version"
    file.write_text(yaml.safe_dump(values))
    path = saved / "run/checkpoints/step-00000001.ckpt"
    state = torch.load(path, weights_only=True)
    del state["recipe"]["model"]["low_band"]
    torch.save(state, path)
    report = train(recipe, root=world.root, out=saved / "run")
    assert (report.resumed_from, report.completed) == (1, True)


def test_a_run_of_another_recipe_is_still_refused(saved, world):
    recipe = load_recipe(saved / "run/recipe.yaml", ["train.learning_rate=0.5"])
    with pytest.raises(UsageError, match="another recipe") as caught:
        train(recipe, root=world.root, out=saved / "run")
    assert "train.learning_rate=0.001 (now 0.5)" in str(caught.value)


def test_a_run_of_a_later_version_is_refused_by_name(saved, world):
    recipe = recipe_of(saved)
    file = saved / "run" / "recipe.yaml"
    values = yaml.safe_load(file.read_text())
    values["train"]["novelty"] = 1
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(UsageError) as caught:
        train(recipe, root=world.root, out=saved / "run")
    assert "'train.novelty', written by mmfe 0.1.0" in str(caught.value)
