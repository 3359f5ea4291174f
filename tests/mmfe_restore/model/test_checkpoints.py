from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

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


def test_the_hub_gets_what_it_gives_back(
    tiny: Make, guidance: Callable[..., Embeddings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, bool]] = []

    class Hub:
        def __init__(self, token: str | None) -> None:
            assert token == "secret"

        def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> None:
            assert exist_ok
            made.append((name, private))

        def upload_folder(self, *, repo_id: str, folder_path: str, **more: object) -> str:
            shutil.copytree(folder_path, tmp_path / repo_id)
            return f"https://hub/{repo_id}/commit/1"

    def snapshot(name: str, **more: object) -> str:
        if not (tmp_path / name).exists():
            raise LocalEntryNotFoundError("Got: ConnectError: no network\nand much more")
        return str(tmp_path / name)

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    restorer, image = tiny(), torch.rand(1, 3, 16, 16).double()
    commit = restorer.push_to_hub("owner/name", private=True, token="secret")
    assert (commit, made) == ("https://hub/owner/name/commit/1", [("owner/name", True)])
    loaded = Restorer.from_pretrained("owner/name")
    assert torch.equal(loaded(image, guidance()), restorer(image, guidance()))
    with pytest.raises(ModelError, match="neither a folder nor a repository") as refused:
        Restorer.from_pretrained("owner/other")
    assert refused.value.got == "ConnectError: no network"


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
