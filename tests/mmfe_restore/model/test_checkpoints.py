from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmfe_cache.embeddings import Embeddings
from mmfe_cache.errors import ModelError
from mmfe_restore import Restorer, load_recipe

Make = Callable[..., Restorer]


def test_a_saved_restorer_comes_back_whole(
    tiny: Make, guidance: Callable[..., Embeddings], tmp_path: Path
) -> None:
    restorer, image = tiny(), torch.rand(1, 3, 20, 12).double()
    restorer.save_pretrained(tmp_path / "model")
    loaded = Restorer.from_pretrained(tmp_path / "model")
    assert loaded.config == restorer.config
    assert torch.equal(loaded(image, guidance()), restorer(image, guidance()))
    assert "multimodal LLM" in (tmp_path / "model" / "README.md").read_text()
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip


def test_the_recipe_travels_with_the_weights(tmp_path: Path) -> None:
    recipe = load_recipe("demo", ["model.width=8", "model.num_heads=[1,1,2,2]"])
    Restorer.from_recipe(recipe).save_pretrained(tmp_path)
    assert Restorer.from_pretrained(tmp_path).recipe == recipe


def damage_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def another_width(folder: Path) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values["model"]["guidance_dim"] = 24
    path.write_text(json.dumps(values))


def unknown_key(folder: Path) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values["model"]["depth"] = 3
    path.write_text(json.dumps(values))


DAMAGE = {
    damage_weights: "damaged",
    another_width: "another network",
    unknown_key: "does not describe",
    lambda f: (f / "config.json").write_text("{"): "cannot be read",
    lambda f: (f / "config.json").unlink(): "not a checkpoint folder",
    lambda f: (f / "model.safetensors").unlink(): "no weights",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_says_what_is_wrong(
    tiny: Make, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    tiny().save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(ModelError, match=DAMAGE[damage]):
        Restorer.from_pretrained(tmp_path)


def test_a_disk_that_takes_no_more_gives_an_os_error_and_no_folder_to_load(
    tiny: Make, tmp_path: Path
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError):
            tiny().save_pretrained(tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "model").iterdir())
