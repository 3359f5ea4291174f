"""Caches, and packs of the data set `synth`, belong to pictures, not to the ids of these."""

import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from benchmarks.cache_support import TinyGuide, tree
from mmfe_cache.datasets import load_dataset, same_pixels
from mmfe_cache.datasets.same_pixels import check_same_pixels, few_pixels
from mmfe_cache.degradations import light
from mmfe_cache.errors import CacheError, DataError
from mmfe_cache.images import pixel_digest, write_png
from mmfe_cache.packing import forget_packs, pack, pack_path
from mmfe_cache.packing.reader import PackedSource
from mmfe_cache.precompute import build_cache
from mmfe_cache.precompute.plan import plan_build
from mmfe_cache.store import open_cache


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for name in "abcdefgh":
        small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        image = small.resize((40, 32), Image.Resampling.BICUBIC)
        (tmp_path / "photos").mkdir(exist_ok=True)
        write_png(tmp_path / "photos" / f"{name}.png", np.asarray(image))
    say(tmp_path / "photos", "varied_share: 0.5")
    return tmp_path / "photos"


def say(root, settings):
    (root / "degradations.yaml").write_text(settings)


def build(root):
    samples = load_dataset("synth", "train", root)
    return build_cache(samples, TinyGuide(), ["whole@16"], root.parent / "a.zarr", workers=1)


def test_a_cache_of_other_weather_is_refused_although_its_ids_are_the_same(root, monkeypatch):
    report = build(root)
    before = tree(root.parent / "a.zarr")
    assert build(root).encodings == 0
    monkeypatch.setattr(light, "VARIED_AIRLIGHT", (0.5, 0.9))  # another version of varied haze
    with pytest.raises(CacheError, match="have changed since") as caught:
        build(root)
    assert "haze" in caught.value.problem
    assert "--out" in str(caught.value)
    monkeypatch.undo()
    say(root, "varied_share: 0")
    with pytest.raises(CacheError, match="have changed since"):
        build(root)
    say(root, "varied_share: 0.5")
    assert build(root).reused == report.encodings
    assert tree(root.parent / "a.zarr") == before


def test_a_cache_may_outlive_its_photographs(root):
    build(root)
    samples = load_dataset("synth", "train", root)
    shutil.rmtree(root)
    again = build_cache(samples, TinyGuide(), ["whole@16"], root.parent / "a.zarr", workers=1)
    assert again.encodings == 0


def with_files(root):
    """Settings that name a mask and depth maps, in a format whose size tells nothing of pixels."""
    for folder, names in (("rain", "ab"), ("depth", "abcdefgh")):
        (root / folder).mkdir()
        for name in names:
            save_map(root / folder / f"{name}.bmp", 120)
    say(root, "rain_masks: rain\ndepth: depth")


def save_map(path, value):
    Image.fromarray(np.full((16, 16), value, np.uint8)).save(path)


def pack_anew(root):
    path = pack_path(root, "synth", "train", shared=True)
    path.unlink(missing_ok=True)
    pack(load_dataset("synth", "train", root, packed=False), path)
    assert load_dataset("synth", "train", root).layout.endswith("(packed)")
    return path


def refused(root, words):
    """What is said of the pack by a new process."""
    forget_packs()
    with pytest.raises(DataError, match=words) as caught:
        load_dataset("synth", "train", root)
    assert "then mmfe data pack" in caught.value.remedy
    return str(caught.value)


def test_a_pack_is_refused_once_its_masks_or_maps_are_others(root):
    with_files(root)
    pack_anew(root)
    save_map(root / "depth" / "c.png", 30)  # one of eight, and another mask
    (root / "depth" / "c.bmp").unlink()
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save(root / "rain" / "c.bmp")
    message = refused(root, "masks or maps have changed since")
    assert "depth/c.bmp, depth/c.png, rain_masks/c.bmp\n" in message
    pack_anew(root)
    for path in (root / "depth").iterdir():
        save_map(path, 200)  # of the same sizes
    message = refused(root, "the pixels of 'haze/.' have changed since")
    assert "a mask or map" in message
    pack_anew(root)
    (root / "rain" / "a.bmp").unlink()
    assert "rain_masks/a.bmp" in refused(root, "masks or maps have changed since")


def test_a_pack_is_refused_by_another_version_of_the_degradations(root, monkeypatch):
    pack_anew(root)
    monkeypatch.setattr(light, "VARIED_AIRLIGHT", (0.5, 0.9))
    assert "the version of the degradations is another" in refused(root, "haze.* have changed")
    monkeypatch.undo()
    for path in root.glob("*.png"):  # other photographs of the same length
        size = path.stat().st_size
        write_png(path, np.full((32, 40, 3), 99, np.uint8))
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    assert "the photograph" in refused(root, "the pixels of .* have changed")


def test_a_pack_may_outlive_what_it_was_made_from(root, tmp_path):
    with_files(root)
    path = pack_anew(root)
    forget_packs()
    shutil.move(root / "depth", tmp_path / "elsewhere")
    assert load_dataset("synth", "train", root).layout.endswith("(packed)")
    for photograph in root.glob("*.png"):
        photograph.unlink()
    assert len(load_dataset("synth", "train", root)) > 0
    copied = tmp_path / "copied"
    copied.mkdir()
    shutil.copy(path, copied)
    assert len(load_dataset("synth", "train", copied)) > 0


def test_a_pack_that_was_copied_with_its_files_is_taken(root, tmp_path):
    """Times of change are others then."""
    with_files(root)
    pack_anew(root)
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    assert load_dataset("synth", "train", tmp_path / "copy").layout.endswith("(packed)")


def test_pictures_are_made_again_once_a_process(root, monkeypatch):
    pack_anew(root)
    made = []
    monkeypatch.setattr(same_pixels, "pixel_digest", made.append)
    load_dataset("synth", "train", root)
    assert made == []
    forget_packs()
    with pytest.raises(DataError):
        load_dataset("synth", "train", root)
    assert len(made) == 1


def test_a_cache_is_held_to_the_pictures_of_a_pack(root):
    """All of them: no picture is made, so a single one that differs is found."""
    with_files(root)
    build(root)
    save_map(root / "depth" / "c.bmp", 30)
    scenes = {sample.scene for sample in load_dataset("synth", "train", root)}
    assert "c" in scenes
    pack_anew(root)
    with pytest.raises(CacheError, match="/c' have changed since") as caught:
        build(root)
    assert "synth-train.h5:c.png + " in caught.value.got
    save_map(root / "depth" / "c.bmp", 120)
    pack_anew(root)
    assert build(root).encodings == 0


def paired(root, shift):
    rng = np.random.default_rng(0)
    for number in range(20):
        image = rng.integers(0, 200, (16, 16, 3), dtype=np.uint8)
        for side, pixels in (("degraded", image + np.uint8(shift)), ("clean", image)):
            write_png(root / "train" / side / f"{number:02d}.png", pixels)
    return load_dataset("folder", "train", root)


def test_files_of_the_same_names_with_other_pixels_are_refused(tmp_path):
    samples, path = paired(tmp_path / "one", 0), tmp_path / "a.zarr"
    build_cache(samples, TinyGuide(), ["whole@16"], path, workers=1)
    assert build_cache(samples, TinyGuide(), ["whole@16"], path, workers=1).encodings == 0
    other = paired(tmp_path / "other", 1)
    assert other.ids == samples.ids
    for work in (partial(build_cache, workers=1), plan_build):
        with pytest.raises(CacheError, match="have changed since") as caught:
            work(other, TinyGuide(), ["whole@16"], path)
        assert "--root" in str(caught.value)


def test_one_class_alone_that_changed_is_noticed(tmp_path):
    labels = ["haze"] * 10 + ["low"] * 2 + ["rain"] * 8

    def classes(samples):
        named = [replace(s, label=one) for s, one in zip(samples, labels, strict=True)]
        return replace(samples, samples=tuple(named))

    before, path = classes(paired(tmp_path / "one", 0)), tmp_path / "a.zarr"
    build_cache(before, TinyGuide(), ["whole@16"], path, workers=1)
    after = classes(paired(tmp_path / "other", 1))
    # Of the others everything is as it was.
    mixed = tuple(a if a.label == "low" else b for a, b in zip(after, before, strict=True))
    with pytest.raises(CacheError, match=r"1[01]' have changed since"):
        check_same_pixels(replace(before, samples=mixed), open_cache(path))


def test_a_few_files_are_read_again_and_skipped_ones_are_not(tmp_path, monkeypatch):
    samples, path = paired(tmp_path / "one", 0), tmp_path / "a.zarr"
    first = tmp_path / "one" / "train" / "degraded" / "00.png"
    whole = first.read_bytes()
    first.write_bytes(b"no picture")
    build_cache(samples, TinyGuide(), ["whole@16"], path, workers=1, on_error="skip")
    first.write_bytes(whole)
    read = []
    monkeypatch.setattr(same_pixels, "pixel_digest", lambda image: read.append(1) or digest(image))
    digest = pixel_digest
    check_same_pixels(samples, open_cache(path))
    assert 4 <= len(read) <= same_pixels.FILES


def test_a_few_pictures_have_one_digest_in_files_made_and_packed(root, tmp_path):
    made = few_pixels(load_dataset("synth", "train", root, packed=False))
    assert few_pixels(load_dataset("synth", "train", root)) == made
    pack_anew(root)
    packed = load_dataset("synth", "train", root)
    assert isinstance(packed.samples[0].degraded, PackedSource)
    assert few_pixels(packed) == made
    say(root, "varied_share: 0")
    assert few_pixels(load_dataset("synth", "train", root, packed=False)) != made
    one, two = paired(tmp_path / "one", 0), paired(tmp_path / "two", 1)
    assert len(few_pixels(one)) == 32
    assert few_pixels(one) != few_pixels(two)
