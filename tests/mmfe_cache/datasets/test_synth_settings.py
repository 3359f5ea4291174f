"""Masks, maps and settings of synthetic sets: recorded, resumed with, read and refused by name."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from benchmarks.cache_support import tree
from mmfe_cache.datasets import load_dataset, write_synth
from mmfe_cache.degradations import COMPOSITIONS, DegradationConfig
from mmfe_cache.errors import DataError, MmfeError


@pytest.fixture
def maps(photos, tmp_path):
    """Two rain masks, and depth maps of every photograph."""
    for name, column in (("a", 3), ("b", 9)):
        mask = np.zeros((20, 20), np.uint8)
        mask[:, column] = 200
        (tmp_path / "maps" / "rain").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "maps" / "rain" / f"{name}.png")
    (tmp_path / "maps" / "depth").mkdir()
    for photo in photos.glob("*.png"):
        Image.fromarray(np.full((8, 8), 100, np.uint8)).save(
            tmp_path / "maps" / "depth" / photo.name
        )
    return tmp_path / "maps"


def test_masks_and_maps_are_recorded_and_resumed_with(photos, maps, tmp_path):
    config = DegradationConfig.from_folders(rain_masks=maps / "rain", depth=maps / "depth")
    classes = ("haze", "rain", "clear")
    out = tmp_path / "out"
    report = write_synth(photos, out, compositions=classes, config=config, test_share=0.5)
    assert report.pairs["train"] == 3 * report.scenes["train"]
    recorded = json.loads((out / "train" / "severities.json").read_text())["samples"]
    for name, entry in recorded.items():
        label, scene = name.split("/")
        used = entry.get("files", {})
        assert set(used) == ({label} if label != "clear" else set())
        if label == "rain":
            assert used["rain"] in ("a.png", "b.png")
        if label == "haze":
            assert used["haze"] == f"{scene}.png"
        if label == "clear":
            assert entry["severities"] == {}
    samples = load_dataset("cdd11", "train", out)
    assert set(samples.labels) == set(classes)
    for sample in samples:
        same = np.array_equal(sample.degraded.read(), sample.clean.read())
        assert same == (sample.label == "clear")
    before = tree(out)
    again = write_synth(photos, out, compositions=classes, config=config, test_share=0.5)
    assert again.written == 0
    assert tree(out) == before
    Image.fromarray(np.full((20, 20), 77, np.uint8)).save(maps / "rain" / "a.png")
    changed = DegradationConfig.from_folders(rain_masks=maps / "rain", depth=maps / "depth")
    with pytest.raises(DataError, match="other photographs or settings"):
        write_synth(photos, out, compositions=classes, config=changed, test_share=0.5)


def test_the_data_set_synth_reads_its_settings_beside_the_photographs(photos, maps, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(photos, root / "photos")
    shutil.copytree(maps, root / "maps")
    (root / "degradations.yaml").write_text(
        "rain_masks: maps/rain\ndepth: maps/depth\nclear: true\nmask_share: 0.5\n"
    )
    config = DegradationConfig.from_folders(
        rain_masks=maps / "rain", depth=maps / "depth", mask_share=0.5
    )
    write_synth(photos, tmp_path / "out", compositions=(*COMPOSITIONS, "clear"), config=config)
    for split in ("train", "test"):
        made = load_dataset("cdd11", split, tmp_path / "out")
        live = load_dataset("synth", split, root)
        assert list(made.ids) == list(live.ids)
        for first, second in zip(made, live, strict=True):
            assert first.severities == second.severities
            assert np.array_equal(first.degraded.read(), second.degraded.read())


def same_as_written(photos, root, out, **options):
    """Whether the data set `synth` gives what `write_synth` writes; the ids of both splits."""
    write_synth(photos, out, compositions=COMPOSITIONS, **options)
    ids = []
    for split in ("train", "test"):
        made, live = load_dataset("cdd11", split, out), load_dataset("synth", split, root)
        assert made.ids == live.ids
        for first, second in zip(made, live, strict=True):
            assert first.severities == second.severities
            assert np.array_equal(first.degraded.read(), second.degraded.read())
        ids += made.ids
    return ids


def test_photographs_keep_their_folders_names_where_maps_lie_beside_them(maps, tmp_path, make):
    photos, root = tmp_path / "clean", tmp_path / "root"
    for folder in ("x", "y", "z"):
        make(photos / folder / "a.png", name=folder)
        depth = tmp_path / "maps" / "depth" / f"{folder}-a.png"
        Image.fromarray(np.full((8, 8), 100, np.uint8)).save(depth)
    config = DegradationConfig.from_folders(rain_masks=maps / "rain", depth=maps / "depth")
    shutil.copytree(photos, root)
    shutil.copytree(maps, root / "maps")
    (root / "degradations.yaml").write_text("rain_masks: maps/rain\ndepth: maps/depth\n")
    ids = same_as_written(photos, root, tmp_path / "out", config=config)
    assert {name.split("/")[1] for name in ids} == {"x-a", "y-a", "z-a"}


def test_low_light_photographs_may_be_of_one_split_only(photos, tmp_path):
    root = tmp_path / "root"
    for split, names in (("train", ("one", "two")), ("test", ("three", "four"))):
        for name in names:
            (root / split).mkdir(parents=True, exist_ok=True)
            shutil.copy(photos / f"{name}.png", root / split)
    (root / "dark").mkdir()
    Image.fromarray(np.zeros((40, 56, 3), np.uint8)).save(root / "dark" / "four.png")
    (root / "degradations.yaml").write_text("dark_photos: dark\n")
    train, test = (load_dataset("synth", split, root) for split in ("train", "test"))
    assert next(s for s in train if s.id == "low/one").degraded.read().any()
    assert not next(s for s in test if s.id == "low/four").degraded.read().any()
    (root / "dark" / "four.png").rename(root / "dark" / "4.png")
    with pytest.raises(DataError, match="no low-light photograph"):
        load_dataset("synth", "train", root)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rain_mask: maps/rain", "unknown key"),
        ("mask_share: often", "wrong type"),
        ("clear: 1", "wrong type"),
        ("rain_masks: nowhere", "does not exist"),
        ("[", "cannot be read"),
        ("3", "no settings"),
    ],
)
def test_bad_settings_are_named(photos, tmp_path, text, words):
    shutil.copytree(photos, tmp_path / "root")
    (tmp_path / "root" / "degradations.yaml").write_text(text)
    with pytest.raises(DataError, match=words):
        load_dataset("synth", "train", tmp_path / "root")


def test_a_setting_that_stands_twice_is_refused_with_its_lines(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "root")
    settings = "mask_share: 0.5\nclear: true\nmask_share: 1.0\n"
    (tmp_path / "root" / "degradations.yaml").write_text(settings)
    with pytest.raises(MmfeError, match="line 1 and in line 3") as problem:
        load_dataset("synth", "train", tmp_path / "root")
    assert problem.value.exit_code == 2


def test_a_photograph_without_its_map_is_named_before_anything_is_written(photos, maps, tmp_path):
    next((maps / "depth").glob("*.png")).unlink()
    config = DegradationConfig.from_folders(depth=maps / "depth")
    with pytest.raises(DataError, match="have no depth map"):
        write_synth(photos, tmp_path / "out", config=config)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["depth", "light_maps", "dark_photos"])
def test_a_map_of_two_photographs_of_one_name_is_refused(tmp_path, make, key):
    """One in train and one in test: the map can be that of one of them only."""
    root = tmp_path / "root"
    for split in ("train", "test"):
        for name in ("one", split):
            make(root / split / f"{name}.png", name=f"{split} {name}")
    for name in ("one", "train", "test"):
        make(root / "maps" / f"{name}.png")
    (root / "degradations.yaml").write_text(f"{key}: maps\n")
    for split in ("train", "test"):
        with pytest.raises(DataError, match="would serve two photographs of one name") as refused:
            load_dataset("synth", split, root)
        assert refused.value.got == "one"
    folders = {"dark" if key == "dark_photos" else key: root / "maps"}
    config = DegradationConfig.from_folders(**folders)
    options = {"test_photos": root / "test", "config": config}
    with pytest.raises(DataError, match="would serve two photographs of one name"):
        write_synth(root / "train", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    write_synth(root / "train", tmp_path / "out", **options, compositions=["rain"])  # needs none
    (root / "test" / "one.png").rename(root / "test" / "two.png")
    shutil.copy(root / "maps" / "one.png", root / "maps" / "two.png")
    assert len(load_dataset("synth", "train", root)) == 22
