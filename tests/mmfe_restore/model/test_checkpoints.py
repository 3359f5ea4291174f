from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image
from safetensors.torch import load_file, save_file

from mmfe_cache.embeddings import Embeddings
from mmfe_cache.errors import ModelError, UsageError
from mmfe_restore import Restorer, load_recipe
from mmfe_restore.model.card import model_card

from ...small import small_recipe

Make = Callable[..., Restorer]


def test_a_saved_restorer_comes_back_whole(
    tiny: Make, guidance: Callable[..., Embeddings], tmp_path: Path
) -> None:
    restorer, image = tiny(), torch.rand(1, 3, 20, 12).double()
    restorer.save_pretrained(tmp_path / "model")
    loaded = Restorer.from_pretrained(tmp_path / "model")
    assert loaded.config == restorer.config
    assert torch.equal(loaded(image, guidance()), restorer(image, guidance()))
    assert "guided by embeddings" in (tmp_path / "model" / "README.md").read_text()
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


def set_model(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        values = json.loads(path.read_text())
        values["model"] |= changes
        path.write_text(json.dumps(values))

    return change


def whole_numbers(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({name: t.long() for name, t in load_file(path).items()}, path)


DAMAGE = {
    damage_weights: "damaged",
    set_model(experts="wavelet"): "model.experts",
    set_model(width="8"): "model.width",
    set_model(width=0): "model.width",
    set_model(num_heads=[1, 2, 4]): "model.num_heads",
    set_model(expansion=None): "model.expansion",
    whole_numbers: "int64",
    another_width: "another network",
    unknown_key: "'model.depth', written by mmfe",
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
    with pytest.raises(ModelError) as caught:
        Restorer.from_pretrained(tmp_path)
    assert DAMAGE[damage] in str(caught.value)


class Hub:
    """Stands for the Hub's client; repositories are folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[dict[str, object]] = []

    def __call__(self, token: str | None) -> Hub:
        self.told.append({"token": token})
        return self

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        self.told[-1] |= {"name": name, "private": private}

    def upload_folder(self, *, repo_id: str, folder_path: str, **more: object) -> str:
        self.told[-1] |= more
        shutil.copytree(folder_path, self.folder / repo_id)
        return f"https://hub/{repo_id}/commit/1"

    def snapshot(self, name: str, **more: object) -> str:
        self.told.append(more)
        if not (self.folder / name).exists():
            raise LocalEntryNotFoundError("Got: ConnectError: no network\nand much more")
        return str(self.folder / name)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.HfApi", made)
    monkeypatch.setattr("huggingface_hub.snapshot_download", made.snapshot)
    return made


def test_the_hub_gets_what_it_gives_back(
    tiny: Make, guidance: Callable[..., Embeddings], hub: Hub
) -> None:
    restorer, image = tiny(), torch.rand(1, 3, 16, 16).double()
    commit = restorer.push_to_hub("owner/name", private=True, token="secret", create_pr=True)
    assert commit == "https://hub/owner/name/commit/1"
    assert hub.told == [
        {
            "token": "secret",
            "name": "owner/name",
            "private": True,
            "revision": None,
            "commit_message": "Upload a restorer",
            "create_pr": True,
        }
    ]
    loaded = Restorer.from_pretrained("owner/name@dev", token="secret")
    assert torch.equal(loaded(image, guidance()), restorer(image, guidance()))
    told = hub.told[-1]
    assert (told["revision"], told["token"]) == ("dev", "secret")
    Restorer.from_pretrained("owner/name@dev", revision="main")
    assert hub.told[-1]["revision"] == "main"
    with pytest.raises(ModelError, match="neither a folder nor a repository") as refused:
        Restorer.from_pretrained("owner/other")
    assert refused.value.got == "ConnectError: no network"


def test_options_that_are_none_are_not_passed_over(tiny: Make, tmp_path: Path, hub: Hub) -> None:
    for misspelt in ({"privat": True}, {"branch": "dev"}):
        with pytest.raises(TypeError):
            tiny().push_to_hub("owner/name", **misspelt)
    assert not hub.told
    tiny().save_pretrained(tmp_path / "model")
    for source in (tmp_path / "model", "mmfe-small"):
        with pytest.raises(TypeError):
            Restorer.from_pretrained(source, devise="cpu")
        with pytest.raises(UsageError, match="has no revisions"):
            Restorer.from_pretrained(source, revision="main")
        Restorer.from_pretrained(source, token=None, local_files_only=True)


@pytest.mark.parametrize("own", ["{}/my-scene.safetensors", "{}/scene", "timm:a,weights={}/w.pth"])
def test_nothing_that_is_pushed_names_a_path_of_this_machine(
    own: str, tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("my-scene.safetensors", "scene", "w.pth"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)  # where the last part of the path leads to the guide too
    guide = own.format(tmp_path)
    recipe = small_recipe("scene")
    recipe = replace(recipe, guide=replace(recipe.guide, name=guide))
    restorer = Restorer.from_recipe(recipe)
    restorer.push_to_hub("owner/name")
    for path in (hub.folder / "owner" / "name").iterdir():
        assert str(tmp_path) not in path.read_bytes().decode("latin-1")
    assert restorer.recipe == recipe
    kept = json.loads((hub.folder / "owner" / "name" / "config.json").read_text())
    assert kept["recipe"]["guide"]["name"] == {
        "scene": "./scene",  # the guide that comes with mmfe is another
        "w.pth": "timm:a,weights=w.pth",
    }.get(Path(guide).name, Path(guide).name)


@pytest.mark.parametrize(
    ("changes", "said", "tag"),
    [
        ({"guide": "qwen2.5-vl-3b"}, "what a multimodal LLM sees", True),
        ({"guide": "scene"}, "a guide of the kind scene", False),
        ({"encoder_guidance": "none", "decoder_guidance": "none", "experts": "none"},
         "without a guide", False),
    ],
)  # fmt: skip
def test_a_card_says_what_guided_the_training(
    changes: dict[str, str], said: str, tag: bool
) -> None:
    restorer = Restorer.from_recipe(small_recipe(**changes))
    card = model_card(restorer, restorer.recipe)
    assert said in card
    assert ("multimodal-llm" in card) == tag
    assert ("mixture-of-experts" in card) == (restorer.config.experts != "none")


@pytest.mark.parametrize("reads", [True, False])
def test_the_example_on_a_card_runs(
    reads: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = {"encoder_guidance": "none", "decoder_guidance": "none", "experts": "none"}
    restorer = Restorer.from_recipe(small_recipe(guidance_dim=128, **({} if reads else off)))
    restorer.save_pretrained(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    code = card.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save("photo.jpg")
    names: dict[str, Any] = {}
    exec(code.replace("path/or/owner/name", "model"), names)
    assert names["restored"].shape == (16, 24, 3)
    assert names["restored"].dtype == np.uint8


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


def test_that_no_login_is_to_be_sent_reaches_the_hub(monkeypatch, tmp_path):
    given: dict[str, object] = {}

    def note(name: str, **options: object) -> Path:
        given.update(options)
        raise ModelError("looked at")

    monkeypatch.setattr("mmfe_restore.model.checkpoints.hub_folder", note)
    with pytest.raises(ModelError, match="looked at"):
        Restorer.from_pretrained("owner/name", token=False)
    assert given["token"] is False
