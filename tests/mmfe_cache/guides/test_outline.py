"""Guides without their weights count the tokens that the loaded guide counts."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from mmfe_cache.errors import GuideError
from mmfe_cache.guides import GUIDES, load_guide
from mmfe_cache.guides.checkpoint_files import is_local
from mmfe_cache.guides.outline import outline_guide
from mmfe_cache.guides.registry import TOY_KINDS, find_guide
from mmfe_cache.guides.toy import QWEN_3B, make_tiny, qwen_config
from mmfe_cache.guides.toy_families import SPECIAL_TOKENS

PICTURES = [np.zeros((*size, 3), np.uint8) for size in ((224, 224), (96, 130), (30, 200), (1, 1))]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty Hugging Face cache of our own."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def without_weights(directory, folder, *names):
    """A copy without weights; of the files ``names`` only, where any are named."""
    kept = names or [f.name for f in directory.iterdir() if f.suffix != ".safetensors"]
    folder.mkdir()
    for name in kept:
        shutil.copyfile(directory / name, folder / name)
    return folder


@pytest.mark.parametrize("kind", ["tiny_qwen", "tiny_fastvlm"])
@pytest.mark.parametrize("prompt", [None, "Was stört dieses Bild, und wie sehr?"])
def test_a_checkpoint_without_weights_counts_as_the_loaded_guide_does(
    kind, prompt, tmp_path, request
):
    directory = request.getfixturevalue(kind)
    guide = load_guide(directory, device="cpu", prompt=prompt)
    bare = without_weights(directory, tmp_path / directory.name)
    assert not is_local(find_guide(bare), bare)
    outline = outline_guide(bare, prompt)
    assert (outline.exact, outline.name, outline.dim) == (True, guide.name, guide.dim)
    for picture in PICTURES:
        counted = outline.sequence_tokens(outline.prepare(picture))
        assert counted == guide.sequence_tokens(guide.prepare(picture))


@pytest.mark.parametrize("kind", TOY_KINDS[2:])
def test_an_image_text_model_without_weights_counts_by_its_own_processor(kind, tmp_path):
    directory = make_tiny(tmp_path / kind, kind=kind)
    guide, bare = load_guide(directory, device="cpu"), tmp_path / "bare"
    outline = outline_guide(without_weights(directory, bare))
    assert outline.exact
    for picture in PICTURES[:2]:
        counted = outline.sequence_tokens(outline.prepare(picture))
        assert counted == guide.sequence_tokens(guide.prepare(picture)) > 0
    with pytest.raises(GuideError, match="only prepares"):
        outline.encode(PICTURES[:1])
    (bare / "tokenizer.json").unlink()
    with pytest.raises(GuideError, match=r"cannot be loaded|no usable image tokens|cannot take"):
        outline_guide(bare)


@pytest.mark.parametrize("kind", ["tiny_qwen", "tiny_fastvlm"])
def test_config_json_alone_tells_the_image_tokens(kind, tmp_path, request):
    directory = request.getfixturevalue(kind)
    guide = load_guide(directory, device="cpu")
    outline = outline_guide(without_weights(directory, tmp_path / "bare", "config.json"))
    assert not outline.exact
    assert outline.download is None
    for picture in PICTURES:
        layout = guide.layout(guide._shape(guide.prepare(picture)))
        assert outline.prepare(picture) == layout.rows * layout.columns


def test_what_is_assumed_without_files_is_what_the_published_files_say(published_files, hub):
    exact, assumed = outline_guide(published_files), outline_guide("qwen2.5-vl-7b")
    assert (exact.exact, assumed.exact) == (True, False)
    assert exact.dim == assumed.dim == 3584
    # The index of the weights names their size, too.
    assert exact.download == assumed.download == GUIDES["qwen2.5-vl-7b"].download
    for picture in PICTURES:
        counts = [one.sequence_tokens(one.prepare(picture)) for one in (exact, assumed)]
        assert counts[0] == counts[1]


def test_the_download_of_the_papers_guide_is_two_bytes_a_parameter():
    ids = {token: number for number, token in enumerate(SPECIAL_TOKENS)}
    with torch.device("meta"):
        network = Qwen2_5_VLForConditionalGeneration(qwen_config(QWEN_3B, ids, 151936))
    assert GUIDES["qwen2.5-vl-3b"].download == 2 * sum(p.numel() for p in network.parameters())


def test_only_what_is_missing_is_still_to_be_downloaded(tiny_qwen, tmp_path):
    bare = without_weights(tiny_qwen, tmp_path / "bare")
    index = {"metadata": {"total_size": 5000}, "weight_map": {"a": "1.safetensors", "b": "2"}}
    (bare / "model.safetensors.index.json").write_text(json.dumps(index))
    (bare / "1.safetensors").write_bytes(bytes(1200))
    assert outline_guide(bare).download == 3800
    (bare / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(GuideError, match="index"):
        outline_guide(bare)


def test_an_outline_encodes_nothing_and_refuses_what_the_guide_would(hub):
    outline = outline_guide("qwen2.5-vl-3b")
    with pytest.raises(GuideError, match="only prepares"):
        outline.encode(PICTURES)
    with pytest.raises(GuideError, match="of this shape"):
        outline.prepare(np.zeros((1, 400, 3), np.uint8))
    assert outline_guide("fastvlm-0.5b").prepare(PICTURES[0]) == 256


def test_guides_that_come_with_the_package_need_no_outline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scene").mkdir()  # a folder of that name is not the guide
    assert is_local(find_guide("scene"), "scene")


def test_an_encoder_without_weights_reads_no_tokens(hub):
    info = find_guide("timm:resnet18")
    assert not is_local(info, "timm:resnet18")
    untrained = "timm:resnet18,weights=random"
    assert is_local(find_guide(untrained), untrained)
    outline = outline_guide("timm:resnet18")
    assert (outline.dim, outline.sequence_tokens(outline.prepare(PICTURES[0]))) == (info.dim, 0)
