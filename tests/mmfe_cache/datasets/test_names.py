"""Names in two forms of Unicode, repeated names, and names that are too long or no text."""

import json
import os
import shutil
import unicodedata

import pytest

from mmfe_cache.datasets import load_dataset, write_synth
from mmfe_cache.datasets.photographs import find_photographs, split_photographs
from mmfe_cache.errors import DataError
from mmfe_cache.packing import open_pack, pack

NFC, NFD = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))


def test_a_folder_in_another_form_of_unicode_is_the_same_folder(tmp_path, make):
    for folder in (f"{NFD} 1.5", "b"):
        make(tmp_path / "p" / folder / "1.png", name=folder)
    names = [photograph.name for photograph in find_photographs(tmp_path / "p")]
    assert names == ["b-1", f"{NFC} 1.5-1"]
    write_synth(tmp_path / "p", tmp_path / "out", compositions=["low"], test_share=0.5)
    for form in ("NFC", "NFD"):  # an earlier version recorded what the file system said
        for split in ("train", "test"):
            recorded = tmp_path / "out" / split / "severities.json"
            samples = json.loads(recorded.read_text())["samples"]
            samples = {unicodedata.normalize(form, name): entry for name, entry in samples.items()}
            recorded.write_text(json.dumps({"samples": samples}))
            for sample in load_dataset("cdd11", split, tmp_path / "out"):
                assert set(sample.severities) == {"low"}


def test_a_folder_whose_name_is_no_text_is_refused_where_it_names_photographs(tmp_path, make):
    picture = make(tmp_path / "p" / "a" / "1.png")
    odd = tmp_path / "p" / os.fsdecode(b"\xff")
    try:
        odd.mkdir()
    except OSError:
        pytest.skip("this file system takes only names that are text")
    shutil.copy(picture, odd / "2.png")
    assert [photograph.name for photograph in find_photographs(tmp_path / "p")] == ["1", "2"]
    shutil.copy(picture, odd / "1.png")
    with pytest.raises(DataError, match="folder's name is not text"):
        write_synth(tmp_path / "p", tmp_path / "out", compositions=["low"])
    assert not (tmp_path / "out").exists()


def test_files_of_one_stem_in_one_folder_are_one_scene(tmp_path, make):
    """A camera's JPEG and what was made of it show the same: the two are no test of each other."""
    for stem in ("IMG_1", "IMG_2_left", "IMG_3", "IMG_4"):
        for ending in ("jpg", "png"):
            make(tmp_path / "p" / f"{stem}.{ending}")
    for seed in range(8):
        split = split_photographs(find_photographs(tmp_path / "p"), 0.5, seed)
        train, test = ({p.path.stem for p in photographs} for photographs in split.values())
        assert train and test and not train & test
    names = [photograph.name for photograph in find_photographs(tmp_path / "p")]
    assert names[:4] == ["IMG_1", "IMG_1-png", "IMG_2_left", "IMG_2_left-png"]


def test_samples_of_one_photograph_in_two_formats_are_of_one_scene(tmp_path, make):
    """What holds photographs out of a training split goes by scenes: `synth` and made sets."""
    for stem in ("IMG_1", "IMG_2_left", "IMG_2_right", "b-png"):
        for ending in ("jpg", "png"):
            make(tmp_path / "p" / f"{stem}.{ending}", name=f"{stem}.{ending}")
    write_synth(tmp_path / "p", tmp_path / "out", compositions=["low"], test_share=0.4)
    found = {}
    for split in ("train", "test"):
        made = load_dataset("cdd11", split, tmp_path / "out")
        for sample in made:
            found[sample.id.split("/")[1]] = sample.scene
        path = tmp_path / f"{split}.h5"
        pack(made, path)
        packed = open_pack(path).samples(tmp_path / "out")
        assert [sample.scene for sample in packed] == [sample.scene for sample in made]
    assert found == {
        "IMG_1": "IMG_1",
        "IMG_1-png": "IMG_1",
        "IMG_2_left": "IMG_2",
        "IMG_2_left-png": "IMG_2",
        "IMG_2_right": "IMG_2",
        "IMG_2_right-png": "IMG_2",
        "b-png": "b-png",  # there is no b
        "b-png-png": "b-png",
    }
    live = [load_dataset("synth", split, tmp_path / "p") for split in ("train", "test")]
    for sample in (*live[0], *live[1]):
        assert sample.scene == found[sample.id.split("/")[1]]
