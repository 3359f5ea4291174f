import pytest

from mmfe_cache.datasets import load_dataset
from mmfe_cache.errors import DataError


def test_pairs_of_each_split(tmp_path, make):
    for split in ("train", "test"):
        for side in ("input", "target"):
            make(tmp_path / split / side / f"{split}.png")
    assert load_dataset("folder", "train", tmp_path).ids == ("folder/train",)
    test = load_dataset("folder", "test", tmp_path)
    assert test.ids == ("folder/test",)
    assert test.warnings == ()
    assert test.layout == "input + target"


def test_one_pair_of_folders_serves_both_splits_and_says_so(tmp_path, make):
    for side in ("hazy", "clear"):
        make(tmp_path / side / "1.png")
    samples = load_dataset("folder", "test", tmp_path)
    assert samples.layout == "hazy + clear"
    assert "the same files serve every split" in samples.warnings[0]


def test_images_alone_have_no_answer(tmp_path, make):
    make(tmp_path / "1.jpg")
    samples = load_dataset("folder", "test", tmp_path)
    assert samples.samples[0].clean is None
    assert any("nothing can be trained" in line for line in samples.warnings)


def test_nothing_is_an_error_that_names_what_would_be_right(tmp_path):
    (tmp_path / "Input").mkdir()
    with pytest.raises(DataError, match="no pairs and no images") as caught:
        load_dataset("folder", "train", tmp_path)
    assert "input/ + target/" in str(caught.value)
    assert "Input" in str(caught.value)


def test_half_of_a_pair_of_folders_is_named(tmp_path, make):
    make(tmp_path / "input/1.png")
    with pytest.raises(DataError, match="no pairs and no images") as caught:
        load_dataset("folder", "train", tmp_path)
    assert "input, without target" in str(caught.value)


def test_what_lies_beside_images_without_answers_is_named(tmp_path, make):
    make(tmp_path / "1.jpg")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "dead.png").symlink_to("nowhere")
    text = "\n".join(load_dataset("folder", "test", tmp_path).warnings)
    assert "left out: notes.txt" in text
    assert "link that leads in a circle or nowhere, left out: dead.png" in text
