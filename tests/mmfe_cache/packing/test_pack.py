"""Packs hold the same samples and pixels, and are read safely by many."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from mmfe_cache.datasets import find_packs, load_dataset, splits_of
from mmfe_cache.errors import DataError
from mmfe_cache.images import read_rgb8, write_png
from mmfe_cache.packing import (
    PackedSource,
    forget_packs,
    open_pack,
    pack,
    pack_path,
    unpacked_cost,
)
from mmfe_cache.packing.codec import TILE, join_tiles, split_tiles
from mmfe_cache.samples import PixelSource
from mmfe_cache.seeds import generator


@pytest.mark.parametrize("compress", [False, True])
def test_a_pack_gives_the_same_samples_and_pixels(samples, compress, tmp_path):
    path = tmp_path / "train.h5"
    report = pack(samples, path, compress)
    assert (report.samples, report.pictures, report.reused) == (4, 8, 0)
    assert report.pack_bytes == path.stat().st_size
    packed = open_pack(path).samples(samples.root)
    assert packed.ids == samples.ids
    assert packed.layout == "as published (packed)"
    for before, after in zip(samples, packed, strict=True):
        assert (before.label, before.scene) == (after.label, after.scene)
        for one, other in ((before.degraded, after.degraded), (before.clean, after.clean)):
            assert isinstance(other, PixelSource)
            assert one.size() == other.size()
            assert np.array_equal(one.read(), other.read())
    assert list(tmp_path.glob("train.h5*")) == [path], "something was left behind"


@pytest.mark.parametrize("compress", [False, True])
def test_every_crop_equals_the_slice(samples, compress, tmp_path):
    pack(samples, tmp_path / "p.h5", compress)
    rng = generator("crops")
    for sample in open_pack(tmp_path / "p.h5").samples(samples.root):
        whole = sample.degraded.read()
        height, width = whole.shape[:2]
        for _ in range(40):
            top, left = int(rng.integers(height)), int(rng.integers(width))
            rows = int(rng.integers(1, height - top + 1))
            columns = int(rng.integers(1, width - left + 1))
            window = sample.degraded.read_crop(top, left, rows, columns)
            assert np.array_equal(window, whole[top : top + rows, left : left + columns])
            window[:] = 0  # a crop is the caller's own
        with pytest.raises(DataError, match="does not lie inside"):
            sample.degraded.read_crop(0, 0, height + 1, 1)


@pytest.mark.parametrize("compress", [False, True])
def test_any_hdf5_reader_finds_the_tiles(samples, compress, tmp_path):
    pack(samples, tmp_path / "p.h5", compress)
    with h5py.File(tmp_path / "p.h5") as file:
        number = [n.decode() for n in file["name"][...]].index("our485/low/p 0ü.png")
        height, width = int(file["height"][number]), int(file["width"][number])
        first = int(file["first_tile"][number])
        tiles = file["tiles"][first : first + 6]
        assert file["tiles"].compression == ("gzip" if compress else None)
        assert file.attrs["stored_as"] == ("green-up" if compress else "pixels")
    if compress:  # the three lines that codec.py and the documentation give
        tiles = np.stack([np.add.accumulate(tile, axis=0, dtype=np.uint8) for tile in tiles])
        tiles[..., 0] += tiles[..., 1]
        tiles[..., 2] += tiles[..., 1]
    image = join_tiles(lambda n, _: tiles[n], (height, width), 0, 0, height, width)
    assert np.array_equal(image, read_rgb8(samples.root / "our485/low/p 0ü.png"))


def test_tiles_round_trip():
    for height, width in ((1, 1), (TILE, TILE), (TILE + 1, 3), (130, 200)):
        image = generator("t", height, width).integers(0, 256, (height, width, 3), np.uint8)
        tiles = split_tiles(image)
        back = join_tiles(lambda n, _, t=tiles: t[n], (height, width), 0, 0, height, width)
        assert np.array_equal(back, image)


def test_load_dataset_takes_the_pack_by_itself(samples, lol):
    unpacked = {s.id: s.degraded.read() for s in samples}
    pack(samples, pack_path(lol, "lol-v1", "train", shared=True))
    found = load_dataset("lol-v1", "train", lol)
    assert found.layout.endswith("(packed)")
    assert not load_dataset("lol-v1", "train", lol, packed=False).layout.endswith("(packed)")
    for path in (lol / "our485").rglob("*.png"):
        path.unlink()
    for sample in load_dataset("lol-v1", "train", lol):
        assert np.array_equal(sample.degraded.read(), unpacked[sample.id])


def test_a_pack_of_another_set_is_left_alone_and_a_stale_one_refused(samples, lol):
    path = pack_path(lol, "lol-v1", "train", shared=True)
    pack(samples, path)
    path.rename(pack_path(lol, "lol-v1", "test"))
    for side in ("low", "high"):
        write_png(lol / "eval15" / side / "1.png", np.zeros((8, 8, 3), np.uint8))
    forget_packs()
    found = load_dataset("lol-v1", "test", lol)
    assert found.layout == "as published"
    pack(samples, path)
    write_png(lol / "our485/low/p 0ü.png", np.zeros((100, 130, 3), np.uint8))
    with pytest.raises(DataError, match="have changed since they were packed"):
        load_dataset("lol-v1", "train", lol)


def test_a_pack_in_a_folder_of_its_own_is_a_root(samples, lol, tmp_path):
    for name in ("lol-v1-train.h5", "train.h5"):
        place = tmp_path / f"only-{name}"
        pack(samples, place / name)
        found = load_dataset("lol-v1", "train", place)
        assert found.layout == "as published (packed)"
        assert found.ids == samples.ids
        assert np.array_equal(found.samples[0].clean.read(), samples.samples[0].clean.read())
        with pytest.raises(DataError, match="is not there"):
            load_dataset("lol-v1", "test", place)


def test_another_programs_file_beside_the_splits_hides_none(make_pair, tmp_path):
    for split in ("train", "test"):
        make_pair(tmp_path / split, "a")
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file["weights"] = np.zeros(3)
    assert splits_of("folder", tmp_path) == ("train", "test")
    found = load_dataset("folder", "train", tmp_path)
    assert found.ids == ("folder/a",)
    assert found.warnings == (f"{tmp_path / 'train.h5'} is no pack of mmfe and is left out",)
    with pytest.raises(DataError, match="there is no pack") as caught:
        find_packs("folder", tmp_path, ["train"])
    assert "train.h5 is no pack of mmfe" in str(caught.value)


@pytest.mark.parametrize("folders", [("train", "test"), ("",)])
def test_a_pack_beside_the_files_hides_no_split(make_pair, tmp_path, folders):
    for folder in folders:
        make_pair(tmp_path / folder, "a")
    pack(load_dataset("folder", "test", tmp_path), tmp_path / "folder-test.h5")
    assert splits_of("folder", tmp_path) == ("train", "test")


def test_a_picture_beside_a_pack_makes_no_split(make_pair, tmp_path):
    make_pair(tmp_path / "files" / "train", "a")
    alone = tmp_path / "alone"
    alone.mkdir()
    pack(load_dataset("folder", "train", tmp_path / "files"), alone / "train.h5")
    (alone / "packed").mkdir()
    write_png(alone / "preview.png", np.zeros((8, 8, 3), np.uint8))
    assert splits_of("folder", alone) == ("train",)


def test_a_pack_beside_published_files_hides_no_split(samples, lol):
    pack(samples, lol / "lol-v1-test.h5")
    assert splits_of("lol-v1", lol) == ("train", "test")
    pack(samples, lol / "packed/lol-v1-train.h5")
    (lol / "our485").rename(lol / "gone")
    assert splits_of("lol-v1", lol) == ("train", "test")
    (lol / "packed").rename(lol / "away")
    assert splits_of("lol-v1", lol) == ("test",)


def test_an_older_pack_of_gopro_has_the_sequences_as_scenes(tmp_path):
    names = [f"GOPR0372_07_00-00004{frame}" for frame in range(2)]
    for name in names:
        for side in ("blur", "sharp"):
            pixels = generator("g", side, name).integers(0, 256, (20, 24, 3)).astype(np.uint8)
            write_png(tmp_path / "gopro/test" / side / f"{name}.png", pixels)
    found = load_dataset("gopro", "test", tmp_path)
    assert {sample.scene for sample in found} == {"GOPR0372_07_00"}
    before = [replace(one, scene=name) for one, name in zip(found, names, strict=True)]
    pack(replace(found, samples=tuple(before)), tmp_path / "packed/gopro-test.h5")
    packed = load_dataset("gopro", "test", tmp_path)
    assert packed.layout.endswith("(packed)")
    assert packed.ids == found.ids
    assert {sample.scene for sample in packed} == {"GOPR0372_07_00"}


def test_files_that_came_after_packing_are_named(samples, lol):
    path = pack_path(lol, "lol-v1", "train", shared=True)
    pack(samples, path)
    assert load_dataset("lol-v1", "train", lol).warnings == samples.warnings
    for side in ("low", "high"):
        write_png(lol / "our485" / side / "new.png", np.zeros((8, 8, 3), np.uint8))
    found = load_dataset("lol-v1", "train", lol)
    assert len(found) == 4
    (line,) = [line for line in found.warnings if "newer" in line]
    assert "our485/high: new.png, our485/low: new.png" in line
    assert str(path) in line
    for side in ("low", "high"):  # as many went
        (lol / "our485" / side / "p 0ü.png").unlink()
    found = load_dataset("lol-v1", "train", lol)
    assert "our485/high: new.png" in found.warnings[-1]


def test_files_that_came_after_packing_are_counted_where_some_were_not_packed(lol):
    for name in ("alone", "later"):
        write_png(lol / "our485/high" / f"{name}.png", np.zeros((8, 8, 3), np.uint8))
        if name == "alone":
            path = pack_path(lol, "lol-v1", "train", shared=True)
            pack(load_dataset("lol-v1", "train", lol), path)
    (line,) = [n for n in load_dataset("lol-v1", "train", lol).warnings if "newer" in n]
    assert "(our485/high: 6 images, 5 when it was packed)" in line


def test_at_most_64_files_are_compared_and_they_are_of_the_whole_pack(make_pair, tmp_path):
    for number in range(50):
        make_pair(tmp_path, f"{number:02d}")
    pack(load_dataset("folder", "train", tmp_path), tmp_path / "packed/folder-train.h5")
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"changed")
    with pytest.raises(DataError, match="have changed since they were packed") as caught:
        load_dataset("folder", "train", tmp_path)
    assert "and 45 more" in str(caught.value)  # 50 of 100: every second one


def test_recipes_survive_over_one_copy_of_the_pixels(tmp_path):
    for name in ("1", "2"):
        image = generator("r", name).integers(0, 256, (40, 50, 3)).astype(np.uint8)
        write_png(tmp_path / "CBSD68" / f"{name}.png", image)
        write_png(tmp_path / "photos" / f"{name}.png", image)
    for side in ("blur", "sharp"):
        image = generator("r", side).integers(0, 256, (520, 600, 3)).astype(np.uint8)
        write_png(tmp_path / "GoPro" / "train" / "S" / side / "1.png", image)
    # Weather is stored as pixels: a photograph and its eleven classes.
    cases = (("denoise", "test", "", 2), ("synth", "test", "photos", 12), ("gopro", "train", "", 2))
    for name, split, folder, pictures in cases:
        samples = load_dataset(name, split, tmp_path / folder, packed=False)
        path = tmp_path / f"{name}.h5"
        assert pack(samples, path).pictures == pictures
        packed = open_pack(path).samples(samples.root)
        assert packed.ids == samples.ids
        for before, after in zip(samples, packed, strict=True):
            assert before.noise_sigma == after.noise_sigma
            assert before.severities == after.severities
            assert np.array_equal(before.degraded.read(), after.degraded.read())
            assert np.array_equal(before.clean.read(), after.clean.read())


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_many_workers_read_the_same(samples, tmp_path, method):
    path = tmp_path / "p.h5"
    pack(samples, path, compress=True)
    script = Path(__file__).with_name("worker_reads.py")
    done = subprocess.run(
        [sys.executable, script, method, path, "8"],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["agree"]
    assert found["pickled"] < 500
    assert found["threads"] == 1
    # An HDF5 handle that crosses a fork is not safe: none is open before, and none there.
    assert (found["hdf5_files_here"], found["hdf5_files_there"]) == (0, 0)


@pytest.fixture
def make_pair():
    """Writes a pair of the data set `folder`: make_pair(folder, name)."""

    def write(folder, name):
        for side in ("input", "target"):
            pixels = generator("p", side, name).integers(0, 256, (20, 24, 3)).astype(np.uint8)
            write_png(folder / side / f"{name}.png", pixels)

    return write


def read_all(source):
    return source.number, source.read_crop(0, 0, 1, 1).tobytes(), source.read().tobytes()


def test_many_threads_read_the_same(samples, tmp_path):
    path = tmp_path / "p.h5"
    pack(samples, path, compress=True)
    sources = [PackedSource(path, number) for number in range(8)]
    here = sorted(map(read_all, sources))
    found = []
    threads = [
        threading.Thread(target=lambda: found.extend(map(read_all, sources))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(here * 4)


@pytest.mark.parametrize("compress", [False, True])
def test_nothing_in_a_pack_bears_a_time(samples, compress, tmp_path):
    pack(samples, tmp_path / "a.h5", compress)
    time.sleep(1.05)  # HDF5 would record seconds
    pack(samples, tmp_path / "b.h5", compress)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_the_warning_names_weather_too(tmp_path):
    for name in ("1", "2"):
        pixels = generator("w", name).integers(0, 256, (40, 50, 3)).astype(np.uint8)
        write_png(tmp_path / f"{name}.png", pixels)
    samples = load_dataset("synth", "train", tmp_path)
    assert "weather" in unpacked_cost(samples)
    pack(samples, pack_path(tmp_path, "synth", "train", shared=True))
    packed = load_dataset("synth", "train", tmp_path)
    assert packed.layout.endswith("(packed)")
    assert unpacked_cost(packed) is None


def test_a_pack_of_made_pictures_is_refused_once_they_would_be_made_otherwise(tmp_path):
    root, packs = tmp_path / "photos", tmp_path / "packs"
    root.mkdir()
    for name in ("1", "2"):
        pixels = generator("w", name).integers(0, 256, (40, 50, 3)).astype(np.uint8)
        write_png(root / f"{name}.png", pixels)
    settings = root / "degradations.yaml"
    for before, after in ((None, "varied_share: 1\n"), ("varied_share: 1\n", None)):
        settings.unlink(missing_ok=True)
        if before is not None:
            settings.write_text(before, "utf-8")
        path = pack_path(root, "synth", "train", shared=True)
        pack(load_dataset("synth", "train", root, packed=False), path)
        assert load_dataset("synth", "train", root).layout.endswith("(packed)")
        packs.mkdir(exist_ok=True)
        shutil.copy(path, packs / path.name)
        if after is None:
            settings.unlink()
        else:
            settings.write_text(after, "utf-8")
        with pytest.raises(DataError, match=r"degradations\.yaml has changed since") as refused:
            load_dataset("synth", "train", root)
        assert f"rm '{path}', then mmfe data pack" in str(refused.value)
        assert len(load_dataset("synth", "train", packs)) == 11  # packs alone: nothing to compare


def test_the_warning_names_the_cost_and_only_where_there_is_one(samples, tmp_path):
    line = unpacked_cost(samples)
    assert "ms a pair" in line
    assert "mmfe data pack --dataset lol-v1" in line
    assert "weather" not in line
    pack(samples, tmp_path / "p.h5")
    assert unpacked_cost(open_pack(tmp_path / "p.h5").samples(samples.root)) is None
