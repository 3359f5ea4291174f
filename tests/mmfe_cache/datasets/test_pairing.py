import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from mmfe_cache.datasets import load_dataset
from mmfe_cache.datasets.pairing import (
    by_frame,
    by_haze_id,
    by_name,
    by_order,
    by_rain_number,
    by_sequence,
)
from mmfe_cache.datasets.photographs import list_images, similar_folder
from mmfe_cache.errors import DataError


def paths(*names):
    return [Path(name) for name in names]


def stems(pairing):
    return [(p.degraded.name, p.clean.name) for p in pairing.pairs]


def test_names_pair_across_endings():
    found = by_name(paths("in/b.jpg", "in/a.png"), paths("gt/a.png", "gt/b.png"))
    assert stems(found) == [("a.png", "a.png"), ("b.jpg", "b.png")]


def test_rain_numbers_pair_with_and_without_leading_zeros():
    found = by_rain_number(
        paths("rainy/rain-1.png", "rainy/rain-12.png", "rainy/rain-100x2.png"),
        paths("gt/norain-012.png", "gt/norain-100.png", "gt/norain-1.png"),
    )
    assert stems(found) == [
        ("rain-1.png", "norain-1.png"),
        ("rain-12.png", "norain-012.png"),
        ("rain-100x2.png", "norain-100.png"),
    ]


def test_both_sides_may_bear_the_clean_name():
    found = by_rain_number(paths("rain/norain-3.png"), paths("norain/norain-3.png"))
    assert len(found.pairs) == 1


def test_haze_ids_keep_several_hazes_of_one_scene():
    found = by_haze_id(paths("a/1_0.8_1.jpg", "a/1_1_1.jpg", "a/2_1_1.jpg"), paths("c/1.png"))
    assert [p.scene for p in found.pairs] == ["1", "1"]
    assert [p.name for p in found.unpaired_degraded] == ["2_1_1.jpg"]


def test_sequences_keep_equal_frame_names_apart():
    found = by_sequence(
        paths("S1/blur/1.png", "S2/blur/1.png"), paths("S1/sharp/1.png", "S2/sharp/1.png")
    )
    assert [p.stem for p in found.pairs] == ["S1-1", "S2-1"]
    assert [p.scene for p in found.pairs] == ["S1", "S2"]


def test_frames_and_crops_in_one_folder_are_of_the_scene_of_their_sequence():
    names = (
        "GOPR0372_07_00-000047.png",
        "GOPR0372_07_00-000048-s001.png",
        "GOPR0372_07_01_000047.png",
        "night-000047.png",
    )
    both = [paths(*(f"{side}/{name}" for name in names)) for side in ("blur", "sharp")]
    found = by_frame(*both)
    assert [f"{p.stem}.png" for p in found.pairs] == list(names)
    scenes = ["GOPR0372_07_00", "GOPR0372_07_00", "GOPR0372_07_01", "night-000047"]
    assert [p.scene for p in found.pairs] == scenes


def test_order_decides_only_where_names_cannot(tmp_path, make):
    rainy = [make(tmp_path / "r" / f"{name}.png") for name in "12"]
    clean = [make(tmp_path / "g" / f"{name}.png") for name in "ab"]
    by_sort = by_order(rainy, clean)
    assert stems(by_sort) == [("1.png", "a.png"), ("2.png", "b.png")]
    assert "sort order" in by_sort.notes[0]
    make(clean[1], height=41)
    with pytest.raises(DataError, match="different sizes"):
        by_order(rainy, clean)
    # One name agrees: then order would pair 2 with 3 in silence.
    named = by_order(paths("r/1.png", "r/2.png"), paths("g/1.png", "g/3.png"))
    assert stems(named) == [("1.png", "1.png")]
    assert len(by_order(paths("r/1.png"), paths("g/a.png", "g/b.png")).pairs) == 0


def test_folder_listing_survives_loops(tmp_path, make):
    make(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    found = list_images(tmp_path, recursive=True)
    assert [p.name for p in found.images] == ["1.png"]
    assert {p.name for p in found.loops} == {"back", "dangling.png"}


def test_listing_names_what_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    for name, what in (("file", "not a folder"), ("gone", "does not exist")):
        with pytest.raises(DataError, match=what):
            list_images(tmp_path / name)


def test_similar_folder_finds_case_changes_only(tmp_path):
    (tmp_path / "Clear").mkdir()
    assert similar_folder(tmp_path / "clear") == tmp_path / "Clear"
    assert similar_folder(tmp_path / "Clear") is None
    assert similar_folder(tmp_path / "clean") is None


def test_one_name_in_two_forms_of_unicode_is_one_name(tmp_path, make):
    composed, decomposed = (unicodedata.normalize(form, "été 1") for form in ("NFC", "NFD"))
    assert composed != decomposed
    for split in ("our485", "eval15"):
        make(tmp_path / split / "low" / f"{decomposed}.png")
        make(tmp_path / split / "high" / f"{composed}.png")
    samples = load_dataset("lol-v1", "train", tmp_path)
    assert samples.ids == (f"low/{composed}",)
    # Nor may the weather and noise that are drawn from an id depend on the file system.
    drawn = []
    for form in (composed, decomposed):
        for split in ("train", "test"):
            make(tmp_path / f"of {len(form)}" / split / f"{form}.png", name=split)
        drawn.append(load_dataset("synth", "train", tmp_path / f"of {len(form)}"))
    assert drawn[0].ids == drawn[1].ids
    for one, other in zip(*drawn, strict=True):
        assert np.array_equal(one.degraded.read(), other.degraded.read())


def test_what_lies_beside_rain_in_its_folder_is_named():
    both = paths(
        *(f"r/{name}.png" for name in ("Rain-2", "norain-1", "norain-2", "photo", "rain-1"))
    )
    found = by_rain_number(both, both)
    assert stems(found) == [("rain-1.png", "norain-1.png")]
    assert [path.name for path in found.unpaired_clean] == ["norain-2.png"]
    assert found.notes == (
        "2 images that are neither rain-N nor norain-N, left out: Rain-2.png, photo.png",
    )


def test_frames_of_different_sequences_do_not_differ_in_case_only():
    found = by_sequence(paths("S1/blur/1.png", "s3/blur/1.png"), paths("S2/sharp/1.png"))
    assert found.notes == ()
    found = by_sequence(paths("s1/blur/1.png"), paths("S1/sharp/1.png"))
    assert "differ in case only" in found.notes[0]


def test_a_pipe_is_left_out_by_name(tmp_path, make):
    make(tmp_path / "1.png")
    os.mkfifo(tmp_path / "pipe.png")
    found = list_images(tmp_path)
    assert [path.name for path in found.images] == ["1.png"]
    assert found.left_out() == ("1 file that is not an image, or folder, left out: pipe.png",)


def test_what_a_system_keeps_for_itself_is_hidden(tmp_path, make):
    for name in ("a.png", "._a.png", "__MACOSX/b.png", ".thumbnails/a.png", "out/a.png", "c/d.PNG"):
        make(tmp_path / name)
    found = list_images(tmp_path, recursive=True, skip=[tmp_path / "out"])
    assert [str(path.relative_to(tmp_path)) for path in found.images] == ["a.png", "c/d.PNG"]
    assert [path.name for path in found.hidden] == ["._a.png", ".thumbnails", "__MACOSX"]
    assert found.skipped == (tmp_path / "out",)
    assert found.ignored == found.loops == ()


def test_a_name_that_is_no_text_is_refused_by_name(tmp_path, make):
    for folder in ("low", "high"):
        picture = make(tmp_path / "our485" / folder / "1.png")
        odd = os.fsencode(picture.parent) + b"/\xff.png"
        try:
            os.link(picture, odd)
        except OSError:
            pytest.skip("this file system takes only names that are text")
    with pytest.raises(DataError, match="name is not text") as caught:
        load_dataset("lol-v1", "train", tmp_path)
    assert r"\udcff.png" in str(caught.value)
    str(caught.value).encode()
