import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmfe_cache.errors import ModelError
from mmfe_restore import Restorer
from mmfe_restore.evaluation import load_checkpoint
from mmfe_restore.model import folders
from mmfe_restore.model.folders import DEFAULT, shipped_folder, shipped_models
from mmfe_restore.recipes import recipe_from_dict

from ...small import small_recipe


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """The package's networks, in a folder that may be damaged."""
    folder = shipped_models()[DEFAULT].folder
    shutil.copytree(folder.parent, tmp_path / "weights")
    monkeypatch.setattr(folders.resources, "files", lambda _: tmp_path)
    return tmp_path / "weights"


def test_other_names_are_left_to_others():
    assert shipped_folder("runs/demo") is None
    assert shipped_folder("no-such-model") is None
    assert shipped_folder(f"./{DEFAULT}") is None


def test_what_is_shipped_is_small_named_and_whole():
    for name, model in shipped_models().items():
        assert shipped_folder(name) == model.folder
        assert model.licence
        assert model.training_data
        assert sum(f.stat().st_size for f in model.folder.iterdir()) <= 8 * 2**20


def test_a_damaged_file_is_named_with_its_hash(copy):
    weights = copy / DEFAULT / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelError, match="not the ones that were shipped") as problem:
        shipped_folder(DEFAULT)
    assert shipped_models()[DEFAULT].sha256 in str(problem.value)
    weights.unlink()
    with pytest.raises(ModelError, match="missing"):
        shipped_folder(DEFAULT)


def test_a_damaged_list_is_named(copy):
    (copy / "index.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        shipped_models()
    (copy / "index.json").write_text(json.dumps({DEFAULT: {"sha256": "0"}}))
    with pytest.raises(ModelError, match="cannot be read"):
        shipped_models()


def test_a_shipped_name_is_a_checkpoint_wherever_one_is_asked_for():
    opened = load_checkpoint(Path(DEFAULT))
    assert opened.path == shipped_models()[DEFAULT].folder
    assert opened.recipe.name == "small"
    assert next(opened.restorer.parameters()).dtype == torch.float32


def test_a_guide_on_another_drive_is_found_where_it_is(tmp_path, monkeypatch):
    """Windows has no relative path from one drive to another."""
    guide = tmp_path / "my-guide.safetensors"
    guide.touch()

    def other_drive(path, start):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr("os.path.relpath", other_drive)
    recipe = small_recipe("scene")
    recipe = replace(recipe, guide=replace(recipe.guide, name=str(guide)))
    Restorer.from_recipe(recipe).save_pretrained(tmp_path / "run" / "model")
    kept = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert kept["guide_path"] == {"absolute": str(guide)}
    kept["recipe"]["guide"]["name"] = "my-guide.safetensors"  # as from another working directory
    found = folders.find_recorded_guide(recipe_from_dict(kept["recipe"]), kept, tmp_path)
    assert found.guide.name == str(guide)
    guide.unlink()
    gone = folders.find_recorded_guide(recipe_from_dict(kept["recipe"]), kept, tmp_path)
    assert gone.guide.name == str(guide)


def test_a_guide_that_is_a_link_keeps_the_links_name(tmp_path):
    (tmp_path / "blob").write_bytes(b"")
    (tmp_path / "student.safetensors").symlink_to(tmp_path / "blob")
    assert folders.name_of_guide(str(tmp_path / "student.safetensors")) == "student.safetensors"
