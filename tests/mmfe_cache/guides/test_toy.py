"""Toy checkpoints: whole, reproducible, refused where they would overwrite something."""

import json

import pytest
from safetensors import SafetensorError
from safetensors.torch import load_file

from mmfe_cache.errors import GuideError, UsageError
from mmfe_cache.guides.toy import make_tiny


def test_the_same_seed_gives_the_same_weights(tiny_qwen, tmp_path):
    again = load_file(make_tiny(tmp_path / "again") / "model.safetensors")
    other = load_file(make_tiny(tmp_path / "other", seed=1) / "model.safetensors")
    first = load_file(tiny_qwen / "model.safetensors")
    assert first.keys() == again.keys() == other.keys()
    assert all(first[name].equal(again[name]) for name in first)
    assert not all(first[name].equal(other[name]) for name in first)


def test_the_toy_is_small_and_says_it_is_a_qwen(tiny_qwen):
    config = json.loads((tiny_qwen / "config.json").read_text())
    assert config["model_type"] == "qwen2_5_vl"
    assert config["architectures"] == ["Qwen2_5_VLForConditionalGeneration"]
    assert sum(file.stat().st_size for file in tiny_qwen.iterdir()) < 2e6


def test_an_empty_directory_is_filled_and_a_full_one_left_alone(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    make_tiny(empty)
    before = sorted(file.name for file in empty.iterdir())
    with pytest.raises(UsageError, match="taken"):
        make_tiny(empty)
    assert sorted(file.name for file in empty.iterdir()) == before


def test_incomplete_published_files_leave_nothing_behind(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files/config.json").write_text("{}")
    with pytest.raises(GuideError, match="not complete"):
        make_tiny(tmp_path / "toy", files=tmp_path / "files")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["files"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", "{}"),
        ("tokenizer_config.json", '{"added_tokens_decoder": []}'),
        ("config.json", "[]"),
        ("config.json", '{"vocab_size": "many"}'),
    ],
)
def test_published_files_that_make_no_sense_are_a_guide_error(tmp_path, name, content):
    files = tmp_path / "files"
    files.mkdir()
    for each in ("tokenizer.json", "preprocessor_config.json"):
        (files / each).write_text("{}")
    (files / "tokenizer_config.json").write_text('{"added_tokens_decoder": {}}')
    (files / "config.json").write_text('{"vocab_size": 9}')
    (files / name).write_text(content)
    with pytest.raises(GuideError, match="cannot be read"):
        make_tiny(tmp_path / "toy", files=files)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["files"]


def test_a_full_disk_names_the_checkpoint_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_arguments, **_options):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(
        "mmfe_cache.guides.toy.Qwen2_5_VLForConditionalGeneration.save_pretrained", full
    )
    with pytest.raises(GuideError, match="toy cannot be written") as caught:
        make_tiny(tmp_path / "toy")
    assert "No space left" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_kinds_are_checked(tmp_path):
    with pytest.raises(UsageError, match="kind"):
        make_tiny(tmp_path / "toy", kind="gpt")
    with pytest.raises(UsageError, match="--files"):
        make_tiny(tmp_path / "toy", kind="fastvlm", files=tmp_path)
