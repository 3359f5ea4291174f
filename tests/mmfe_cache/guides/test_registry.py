"""The registry: cheap to ask, strict about what it takes for a guide."""

import json
import subprocess
import sys

import pytest

from mmfe_cache.errors import GuideError, UsageError
from mmfe_cache.guides import GUIDES, find_guide, guide_dim, load_guide

DIMS = {
    "qwen2.5-vl-3b": 2048,
    "qwen2.5-vl-7b": 3584,
    "fastvlm-0.5b": 896,
    "fastvlm-1.5b": 1536,
    "scene": 128,
    "prompt": 128,
    "oracle": 64,
}


def test_every_guide_of_the_design_is_there_with_its_width():
    assert {name: guide_dim(name) for name in GUIDES} == DIMS
    for info in GUIDES.values():
        assert info.licence
        assert info.description
        assert info.how_to_get


def test_asking_for_a_width_imports_neither_torch_nor_transformers(tiny_qwen):
    code = (
        "import sys; from mmfe_cache.guides import guide_dim, GUIDES; "
        f"assert guide_dim({str(tiny_qwen)!r}) == 64; guide_dim('scene'); "
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_directory_is_a_guide_by_its_configuration(tiny_qwen, tiny_fastvlm):
    assert find_guide(tiny_qwen).kind == "qwen2.5-vl"
    assert find_guide(str(tiny_fastvlm)).kind == "fastvlm"
    assert find_guide(tiny_qwen).name == tiny_qwen.name


def test_flat_configurations_as_qwen_published_them_are_read(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "qwen2_5_vl", "hidden_size": 3584, "vision_config": {}})
    )
    assert guide_dim(tmp_path) == 3584


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('{"model_type": "llama", "hidden_size": 8}', "takes no images"),
        ('{"model_type": "qwen2_5_vl"}', "hidden_size"),
        ("[1, 2]", "no JSON object"),
        ("{", "cannot be read"),
    ],
)
def test_a_directory_of_another_kind_is_refused(tmp_path, config, said):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(GuideError, match=said):
        guide_dim(tmp_path)


def test_an_empty_directory_and_an_unknown_name_say_what_to_do(tmp_path):
    with pytest.raises(GuideError) as empty:
        find_guide(tmp_path)
    assert "make-tiny" in empty.value.remedy
    with pytest.raises(UsageError) as unknown:
        load_guide("qwen9")
    assert "scene" in unknown.value.expected
    assert unknown.value.remedy == "mmfe guide list"


def test_a_file_that_is_no_scene_guide_is_refused(tmp_path, tiny_qwen):
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"\x05\0\0\0\0\0\0\0hello")
    with pytest.raises(GuideError):
        guide_dim(junk)
    with pytest.raises(GuideError, match="holds no guide"):
        guide_dim(tiny_qwen / "model.safetensors")


@pytest.mark.parametrize(
    "metadata", [[1], "mmfe", 7, {"format": "mmfe-scene"}, {"format": "mmfe-scene", "dim": "x"}]
)
def test_a_file_with_a_forged_header_is_refused(tmp_path, metadata):
    header = json.dumps({"__metadata__": metadata}).encode()
    forged = tmp_path / "forged.safetensors"
    forged.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(GuideError, match="forged"):
        guide_dim(forged)


@pytest.mark.parametrize("name", ["scene", "prompt", "oracle"])
def test_guides_without_words_take_no_prompt(name):
    with pytest.raises(UsageError, match="takes no prompt"):
        load_guide(name, prompt="Why?")


def test_an_impossible_device_is_a_wrong_option():
    with pytest.raises(UsageError, match="device"):
        load_guide("scene", device="toaster")
