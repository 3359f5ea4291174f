"""Checkpoints on this machine: found in the Hugging Face cache, complete or refused."""

import hashlib
import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmfe_cache.errors import GuideError
from mmfe_cache.guides import GUIDES, load_guide
from mmfe_cache.guides.checkpoint_files import INDEX, checkpoint_digests, find_checkpoint, is_local
from mmfe_cache.guides.lineage import differing_guide
from mmfe_cache.parsing import flatten

NAME = "qwen2.5-vl-3b"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty Hugging Face cache of our own."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(hub, repository, checkpoint, leave_out=()):
    """Lay a checkpoint into the cache as a download would: blobs by hash, a snapshot of links."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("c" * 40)
    (folder / "blobs").mkdir(parents=True)
    (folder / "refs").mkdir()
    snapshot.mkdir(parents=True)
    (folder / "refs/main").write_text("c" * 40)
    for file in checkpoint.iterdir():
        if file.name in leave_out:
            continue
        blob = folder / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copyfile(file, blob)
        (snapshot / file.name).symlink_to(blob)
    return snapshot


@pytest.mark.parametrize("name", ["qwen2.5-vl-3b", "qwen2.5-vl-7b", "fastvlm-0.5b", "fastvlm-1.5b"])
def test_a_missing_checkpoint_names_the_command_that_fetches_it(hub, name):
    assert not is_local(GUIDES[name])
    with pytest.raises(GuideError) as caught:
        load_guide(name, device="cpu")
    assert f"hf download {GUIDES[name].repository}" in caught.value.remedy


def test_a_downloaded_checkpoint_is_found_and_loaded(hub, tiny_qwen):
    snapshot = put(hub, GUIDES[NAME].repository, tiny_qwen)
    assert is_local(GUIDES[NAME])
    assert find_checkpoint(GUIDES[NAME], NAME) == snapshot
    assert load_guide(NAME, device="cpu").fingerprint()["repository"] == GUIDES[NAME].repository


def test_half_a_download_is_refused(hub, tiny_qwen):
    put(hub, GUIDES[NAME].repository, tiny_qwen, leave_out=("model.safetensors",))
    assert not is_local(GUIDES[NAME])
    with pytest.raises(GuideError, match="not complete"):
        load_guide(NAME, device="cpu")


def test_a_missing_shard_of_an_index_is_named(tmp_path, tiny_qwen):
    copied = shutil.copytree(tiny_qwen, tmp_path / "copy")
    (copied / "model.safetensors").rename(copied / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (copied / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(GuideError, match="not complete") as caught:
        load_guide(copied, device="cpu")
    assert "model-1.safetensors" in str(caught.value)


def test_the_digest_follows_every_byte_that_matters(tmp_path, tiny_qwen):
    copied = shutil.copytree(tiny_qwen, tmp_path / "copy")
    before = checkpoint_digests(copied)
    assert before == checkpoint_digests(tiny_qwen)
    (copied / "README.md").write_text("says nothing")
    assert checkpoint_digests(copied) == before
    (copied / "chat_template.jinja").write_text("another conversation")
    assert checkpoint_digests(copied) != before


def seen(guide):
    """What a cache or a network says of a guide."""
    return flatten({"guide": dict(guide.fingerprint())})


def test_one_checkpoint_is_one_guide_wherever_it_lies(hub, tiny_qwen, tmp_path):
    snapshot = put(hub, GUIDES[NAME].repository, tiny_qwen)
    linked = seen(load_guide(NAME, device="cpu"))
    shared = tmp_path / "shared"  # where a later huggingface_hub keeps what blobs then link to
    shared.mkdir()
    for index, blob in enumerate(sorted((snapshot.parents[1] / "blobs").iterdir())):
        blob.rename(shared / f"{index:064x}")
        blob.symlink_to(shared / f"{index:064x}")
    assert seen(load_guide(NAME, device="cpu")) == linked
    copied = seen(load_guide(shutil.copytree(tiny_qwen, tmp_path / "copy"), device="cpu"))
    for link in list(snapshot.iterdir()):  # as the Hub's cache is where there are no links
        content = link.read_bytes()
        link.unlink()
        link.write_bytes(content)
    unlinked = seen(load_guide(NAME, device="cpu"))
    for trained, here in itertools.permutations((linked, copied, unlinked), 2):
        assert differing_guide(trained, here) == []
    # As an earlier version called a directory: by its bytes, the names among them.
    text = hashlib.blake2b(digest_size=16)
    files = ("config.json", "preprocessor_config.json", "processor_config.json",
             "tokenizer_config.json", "tokenizer.json", "vocab.json", "merges.txt",
             "chat_template.json", "chat_template.jinja", "model.safetensors")  # fmt: skip
    for file in (tiny_qwen / name for name in files if (tiny_qwen / name).is_file()):
        text.update(file.name.encode() + b"\0" + file.read_bytes())
    del copied["guide.checkpoint_bytes"]
    copied["guide.checkpoint"] = text.hexdigest()
    assert differing_guide(copied, unlinked) == differing_guide(unlinked, copied) == []
    copied["guide.checkpoint"] = "0" * 32
    assert differing_guide(copied, unlinked)[0].startswith(f"checkpoint: '{'0' * 32}' / ")


def test_a_single_file_comes_before_an_index_as_for_transformers(tiny_qwen, tmp_path):
    """Who trains a sharded checkpoint on may save it in one file beside the parts."""
    folder = shutil.copytree(tiny_qwen, tmp_path / "toy")
    parts = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (folder / INDEX).write_text(json.dumps(parts))
    picture = np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    before = load_guide(folder, device="cpu")
    known = before.fingerprint()
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {name: tensor * 1.5 for name, tensor in tensors.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    after = load_guide(folder, device="cpu")
    first, second = (guide.encode([picture]).answer for guide in (before, after))
    assert not torch.allclose(first, second)
    assert after.fingerprint() != known
