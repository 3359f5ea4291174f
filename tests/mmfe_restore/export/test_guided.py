"""One safetensors file with network and guide: as spandrel and ComfyUI use it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmfe_cache.errors import ModelError, UsageError
from mmfe_restore import Restorer
from mmfe_restore.export import export_model
from mmfe_restore.export.guided import CONFIG, read_guided
from mmfe_restore.inference import guide_for, restore_image

ROOT = Path(__file__).parents[3]


def picture(height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(0)
    blocks = random.integers(0, 120, (height // 8 + 1, width // 8 + 1, 3))
    return np.kron(blocks, np.ones((8, 8, 1)))[:height, :width].astype(np.uint8)


@pytest.fixture(scope="module")
def small() -> Restorer:
    return Restorer.from_pretrained("mmfe-small")


@pytest.fixture(scope="module")
def small_file(small: Restorer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("guided") / "small.safetensors"
    export_model(small, path, source="mmfe-small")
    assert path.stat().st_size < 8e6  # float16, as it is shipped
    return path


@pytest.fixture(scope="module")
def expected(small: Restorer) -> np.ndarray:
    """What `mmfe restore` makes of the picture of 37 × 53, as floats."""
    image = picture(37, 53)
    return restore_image(small, image / np.float32(255), guide_for(small).look(image))


def test_spandrel_reads_the_file(small_file, expected):
    spandrel = pytest.importorskip("spandrel")
    from mmfe_restore.spandrel import install, registry

    with pytest.raises(spandrel.UnsupportedModelError):
        spandrel.ModelLoader().load_from_file(small_file)
    assert [str(one.architecture.id) for one in install()] == ["MMFE"]
    try:
        assert install(ignore_duplicates=True) == []
        model = spandrel.ModelLoader().load_from_file(small_file)
    finally:
        spandrel.MAIN_REGISTRY.__dict__.update(before_installing(spandrel).__dict__)
    assert isinstance(model, spandrel.ImageModelDescriptor)
    assert model.purpose == "Restoration"
    assert model.size_requirements.none
    assert model.tiling == spandrel.ModelTiling.INTERNAL
    with pytest.raises(spandrel.UnsupportedDtypeError):
        model.half()
    image = torch.from_numpy(picture(37, 53)).permute(2, 0, 1)[None] / 255
    found = model(image)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert "MMFE" in registry()


@pytest.mark.parametrize("window", [None, 48])
def test_the_file_restores_with_the_windows_of_its_network(window, tmp_path):
    small = Restorer.from_pretrained("mmfe-small")
    small.attend_within(window)
    export_model(small, tmp_path / "windows.safetensors", source="mmfe-small")
    image = picture(70, 100)
    seen = guide_for(small).look(image)
    wanted = restore_image(small, image / np.float32(255), seen)
    with torch.no_grad():
        model = read_guided(load_file(tmp_path / "windows.safetensors"))
        found = model(torch.from_numpy(image).permute(2, 0, 1)[None] / 255).clamp(0, 1)
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), wanted, atol=1e-6)
    small.attend_within(None if window else 48)
    other = restore_image(small, image / np.float32(255), seen)
    assert np.abs(other - wanted).max() > 1e-3


def test_without_spandrel_the_line_that_installs_it_is_said(monkeypatch):
    from mmfe_restore.spandrel import install

    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(UsageError, match="not installed") as said:
        install()
    assert "mmfe[spandrel]" in str(said.value)


def before_installing(spandrel: ModuleType) -> object:
    """spandrel's main registry without ours, so that no other test sees it."""
    others = spandrel.ArchRegistry()
    others.add(*(one for one in spandrel.MAIN_REGISTRY if one.architecture.id != "MMFE"))
    return others


def test_the_node_takes_and_gives_images_as_comfyui_does(expected):
    node = load_node()
    kinds = node.INPUT_TYPES()["required"]
    assert kinds["image"] == ("IMAGE",)
    assert kinds["model"][0][0] == "mmfe-small"
    image = torch.from_numpy(picture(37, 53))[None] / 255
    images = torch.cat([image, image.flip(1)])
    restore = getattr(node(), node.FUNCTION)
    (found,) = restore(image=images, model="mmfe-small", strength=1.0)
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-5)
    (half,) = restore(image=images[:1], model="mmfe-small", strength=0.5)
    np.testing.assert_allclose(half, (image + found[:1]) / 2, atol=1e-5)
    (with_alpha,) = restore(image=torch.cat([image, image[..., :1]], -1), model="mmfe-small")
    assert torch.equal(with_alpha[..., 3:], image[..., :1])


def test_the_node_finds_exported_files_and_names_what_is_missing(
    small_file, expected, tmp_path, monkeypatch
):
    node = load_node()
    comfy = ModuleType("folder_paths")
    comfy.models_dir = str(tmp_path)
    monkeypatch.setitem(sys.modules, "folder_paths", comfy)
    image = torch.from_numpy(picture(37, 53))[None] / 255
    with pytest.raises(RuntimeError, match="there is no network mine") as said:
        node().restore(image=image, model="mine.safetensors")
    assert "\n" not in str(said.value)
    (tmp_path / "mmfe").mkdir()
    target = tmp_path / "mmfe" / "mine.safetensors"
    target.write_bytes(small_file.read_bytes()[:1000])
    assert node.INPUT_TYPES()["required"]["model"][0] == ["mmfe-small", "mine.safetensors"]
    with pytest.raises(RuntimeError, match="damaged") as said:
        node().restore(image=image, model="mine.safetensors")
    assert "\n" not in str(said.value)
    target.write_bytes(small_file.read_bytes())
    (found,) = node().restore(image=image, model="mine.safetensors")
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-5)


def test_the_node_says_that_the_packages_weights_are_missing(monkeypatch, tmp_path):
    import shutil

    from mmfe_restore.model import folders

    shutil.copytree(folders.shipped_models()["mmfe-small"].folder.parent, tmp_path / "weights")
    (tmp_path / "weights" / "mmfe-small" / "model.safetensors").unlink()
    monkeypatch.setattr(folders.resources, "files", lambda _: tmp_path)
    with pytest.raises(RuntimeError, match="weights of mmfe-small are missing") as said:
        load_node()().restore(image=torch.zeros(1, 8, 8, 3), model="mmfe-small")
    assert "\n" not in str(said.value)


def load_node() -> type:
    """The node's class, loaded as ComfyUI loads a folder of `custom_nodes`."""
    folder = ROOT / "integrations" / "comfyui"
    name = "custom_nodes.mmfe"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.modules.pop(f"{name}.nodes", None)
    spec.loader.exec_module(module)
    assert set(module.NODE_DISPLAY_NAME_MAPPINGS) == set(module.NODE_CLASS_MAPPINGS)
    return module.NODE_CLASS_MAPPINGS["MmfeRestore"]


def test_a_file_of_another_version_is_named(small_file, tmp_path):
    state = load_file(small_file)
    with pytest.raises(ModelError, match="no file of mmfe"):
        read_guided({name: t for name, t in state.items() if name != CONFIG})
    later = state[CONFIG].numpy().tobytes().replace(b"mmfe-guided-1", b"mmfe-guided-7")
    state[CONFIG] = torch.frombuffer(bytearray(later), dtype=torch.uint8)
    save_file(state, tmp_path / "later.safetensors")
    with pytest.raises(ModelError, match="another version") as said:
        read_guided(load_file(tmp_path / "later.safetensors"))
    assert "mmfe-guided-7" in str(said.value)
