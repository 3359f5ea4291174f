import errno
import json
import os
import subprocess
import sys
import threading
import time
import zlib
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from mmfe_cache.datasets import load_dataset
from mmfe_cache.errors import DataError
from mmfe_cache.images import read_rgb8, write_png
from mmfe_cache.packing import (
    PackedSource,
    PackReader,
    forget_packs,
    open_pack,
    pack,
    pack_path,
    unpacked_cost,
)
from mmfe_cache.packing.tiles import TILE, join_tiles, split_tiles
from mmfe_cache.samples import PixelSource
from mmfe_cache.seeds import generator


@pytest.fixture(autouse=True)
def fresh_packs():
    forget_packs()
    yield
    forget_packs()


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


def test_files_that_came_after_packing_are_named(samples, lol):
    path = pack_path(lol, "lol-v1", "train", shared=True)
    pack(samples, path)
    assert load_dataset("lol-v1", "train", lol).warnings == samples.warnings
    for side in ("low", "high"):
        write_png(lol / "our485" / side / "new.png", np.zeros((8, 8, 3), np.uint8))
    found = load_dataset("lol-v1", "train", lol)
    assert len(found) == 4
    (line,) = [line for line in found.warnings if "newer" in line]
    assert "our485/high: 5 images, 4 when it was packed" in line
    assert str(path) in line


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


class Stopping:
    """A source that fails once, as a run that is stopped does."""

    def __init__(self, source, armed):
        self.source, self.armed = source, armed

    @property
    def name(self):
        return self.source.name

    def size(self):
        return self.source.size()

    def read(self):
        if self.armed:
            raise KeyboardInterrupt
        return self.source.read()

    def read_crop(self, *window):
        return self.source.read_crop(*window)


@pytest.mark.parametrize("compress", [False, True])
def test_a_stopped_run_goes_on_and_ends_in_the_same_bytes(samples, compress, tmp_path):
    whole, path = tmp_path / "whole.h5", tmp_path / "p.h5"

    def armed(on):
        last = samples.samples[-1]
        cut = replace(last, clean=Stopping(last.clean, on))
        return replace(samples, samples=(*samples.samples[:-1], cut))

    pack(armed(False), whole, compress)
    with pytest.raises(KeyboardInterrupt):
        pack(armed(True), path, compress, workers=1)
    assert not path.exists()
    report = pack(armed(False), path, compress, workers=1)
    assert path.read_bytes() == whole.read_bytes()
    assert report.reused == 7


def test_the_journal_is_used_and_a_torn_one_survived(samples, tmp_path, monkeypatch):
    path = tmp_path / "p.h5"
    stopped_before_hdf5(samples, path, monkeypatch)
    journal = tmp_path / "p.h5.part.journal"
    lines = journal.read_text().splitlines()
    assert len(lines) == 9
    journal.write_text("\n".join(lines[:6]) + "\n" + lines[6][:20])
    report = pack(samples, path)
    assert report.reused == 5
    assert PackReader(path).damaged() == ()
    # The journal of other settings is of no use.
    stopped_before_hdf5(samples, path, monkeypatch)
    assert pack(samples, path, compress=True).reused == 0


def stopped_before_hdf5(samples, path, monkeypatch, compress=False):
    """Leave what a run leaves that is stopped once all tiles are written."""

    def refuse(self, about, samples):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mmfe_cache.packing.staging.Staging.assemble", refuse)
        with pytest.raises(KeyboardInterrupt):
            pack(samples, path, compress)


@pytest.mark.parametrize("compress", [False, True])
def test_tiles_that_the_disk_spoilt_do_not_spoil_every_further_run(
    samples, tmp_path, monkeypatch, compress
):
    path = tmp_path / "p.h5"
    stopped_before_hdf5(samples, path, monkeypatch, compress)
    tiles = tmp_path / "p.h5.part.tiles"
    content = bytearray(tiles.read_bytes())
    content[100] ^= 0xFF
    tiles.write_bytes(content)
    with pytest.raises(DataError, match=r"1 pictures of .* read back differently") as caught:
        pack(samples, path, compress)
    assert Path(samples.samples[0].degraded.name).name in str(caught.value)
    assert list(tmp_path.glob("p.h5*")) == []
    assert pack(samples, path, compress).reused == 0
    assert PackReader(path).damaged() == ()


@pytest.mark.parametrize("torn", [b"\xff\xfe\x00", b"7", b"{}", b"null"])
def test_a_journal_of_any_bytes_is_survived(samples, tmp_path, monkeypatch, torn):
    path = tmp_path / "p.h5"
    stopped_before_hdf5(samples, path, monkeypatch)
    journal = tmp_path / "p.h5.part.journal"
    lines = journal.read_bytes().splitlines()
    journal.write_bytes(b"\n".join([*lines[:3], torn]) + b"\n")
    assert pack(samples, path).reused == 2
    assert PackReader(path).damaged() == ()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own with a megabyte of room, and how to give it more."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "mmfe-test", str(place)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount here")
    yield (
        place,
        lambda size: subprocess.run(
            ["mount", "-o", f"remount,size={size}", str(place)], check=True
        ),
    )
    forget_packs()
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("compress", [False, True])
def test_a_full_disk_is_named_and_nothing_is_lost(lol, tmp_path, small_disk, compress):
    place, resize = small_disk
    for number in range(20):
        pixels = generator("full", number).integers(0, 256, (128, 128, 3)).astype(np.uint8)
        for side in ("low", "high"):
            write_png(lol / "our485" / side / f"{number}.png", pixels)
    samples = load_dataset("lol-v1", "train", lol)
    pack(samples, tmp_path / "whole.h5", compress)
    path = place / "p.h5"
    for size in ("1m", "2m", "3m", "4m"):
        resize(size)
        # What a plain pack needs is known before; a compressed one finds out.
        with pytest.raises(OSError if compress else DataError) as caught:
            pack(samples, path, compress)
        if compress:
            assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
        else:
            assert f"no room for the pack {path}" in str(caught.value)
        assert not path.exists()
    resize("16m")
    assert pack(samples, path, compress).reused == (48 if compress else 0)
    assert path.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert [p.name for p in place.iterdir()] == ["p.h5"]


def test_a_disk_that_fills_while_hdf5_is_written_is_named(samples, tmp_path, monkeypatch):
    def fail(self, *_):
        try:
            raise OSError(errno.ENOSPC, "Can't write data (file write failed: time = ...)")
        finally:
            raise RuntimeError("Disable slist on flush dest failure failed")  # as h5py does

    with monkeypatch.context() as patch:
        patch.setattr("mmfe_cache.packing.staging.Staging._write_deflated", fail)
        with pytest.raises(OSError, match="No space left") as caught:
            pack(samples, tmp_path / "p.h5", compress=True)
    assert caught.value.filename == str(tmp_path / "p.h5")
    assert not (tmp_path / "p.h5.part").exists()
    assert pack(samples, tmp_path / "p.h5", compress=True).reused == 8


def test_two_runs_never_write_one_pack(samples, tmp_path):
    pytest.importorskip("fcntl")
    path = tmp_path / "p.h5"
    last = samples.samples[-1]

    class Second(Stopping):
        def read(self):
            with pytest.raises(DataError, match="another process is writing the pack"):
                pack(samples, path)
            return self.source.read()

    both = replace(last, clean=Second(last.clean, False))
    pack(replace(samples, samples=(*samples.samples[:-1], both)), path, workers=1)
    assert PackReader(path).damaged() == ()
    assert pack(samples, path).reused == 0, "a finished run leaves no lock"


def test_unreadable_pictures_stop_it_before_anything_is_written(samples, lol, tmp_path):
    (lol / "our485/high/p 1ü.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="1 pictures cannot be read") as caught:
        pack(samples, tmp_path / "p.h5")
    assert "p 1ü.png" in str(caught.value)
    assert not (tmp_path / "p.h5").exists()


@pytest.mark.parametrize("compress", [False, True])
def test_damage_is_found(samples, compress, tmp_path):
    path = tmp_path / "p.h5"
    pack(samples, path, compress)
    with h5py.File(path) as file:
        data = file["tiles"].id
        offset = data.get_chunk_info(3).byte_offset if compress else data.get_offset() + 3 * 12288
    content = bytearray(path.read_bytes())
    content[offset + 40] ^= 0xFF
    path.write_bytes(content)
    forget_packs()
    assert len(open_pack(path).damaged()) == 1
    path.write_bytes(content[:-1])
    forget_packs()
    with pytest.raises(DataError, match="cannot be read"):
        open_pack(path)


def test_foreign_and_linked_files_are_refused(samples, tmp_path):
    good = tmp_path / "good.h5"
    pack(samples, good)
    foreign = tmp_path / "foreign.h5"
    with h5py.File(foreign, "w") as file:
        file["tiles"] = np.zeros(3)
    with pytest.raises(DataError, match="not a pack of this version"):
        open_pack(foreign)
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(DataError, match="cannot be read"):
        open_pack(tmp_path / "text.h5")
    with pytest.raises(DataError, match="does not exist"):
        open_pack(tmp_path / "gone.h5")

    linked = tmp_path / "linked.h5"
    linked.write_bytes(good.read_bytes())
    with h5py.File(linked, "r+") as file:
        del file["tiles"]
        file["tiles"] = h5py.ExternalLink(str(good), "/tiles")
    with pytest.raises(DataError, match="what a pack does not hold"):
        open_pack(linked)

    extra = tmp_path / "extra.h5"
    extra.write_bytes(good.read_bytes())
    with h5py.File(extra, "r+") as file:
        file["more"] = 1
    with pytest.raises(DataError, match="more"):
        open_pack(extra)

    outside = tmp_path / "outside.h5"
    outside.write_bytes(good.read_bytes())
    with h5py.File(outside, "r+") as file:
        shape = file["tiles"].shape
        del file["tiles"]
        place = [(str(tmp_path / "raw"), 0, int(np.prod(shape)))]
        file.create_dataset("tiles", shape, np.uint8, external=place)
    with pytest.raises(DataError, match="tiles"):
        open_pack(outside)

    unfinished = tmp_path / "unfinished.h5"
    unfinished.write_bytes(good.read_bytes())
    with h5py.File(unfinished, "r+") as file:
        file.attrs["complete"] = False
    with pytest.raises(DataError, match="not finished"):
        open_pack(unfinished)


def change(file, name, value):
    del file[name]
    file[name] = value


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: change(f, "height", f["height"][...] + 64), "do not fit together"),
        (lambda f: change(f, "first_tile", f["first_tile"][...] - 1), "do not fit together"),
        (lambda f: change(f, "width", f["width"][:-1]), "does not list 8 pictures"),
        (lambda f: change(f, "height", f["height"][...].astype(float)), "does not list 8"),
        (lambda f: change(f, "digest", f["digest"][:, :8]), "digests are"),
        (lambda f: change(f, "name", f["height"][...]), "cannot be read"),
        (lambda f: change(f, "about", np.frombuffer(b"nothing", np.uint8)), "damaged"),
        (lambda f: change(f, "tiles", f["tiles"][...].astype(np.uint16)), "tiles are"),
        (lambda f: f.attrs.__setitem__("stored_as", "secrets"), "stored as"),
        (lambda f: f.attrs.__setitem__("version", 1), "not a pack of this version"),
        (lambda f: f.attrs.__delitem__("compressed"), "cannot be read"),
    ],
)
def test_an_index_that_cannot_be_true_is_refused(samples, tmp_path, compress, spoil, words):
    path = tmp_path / "p.h5"
    pack(samples, path, compress)
    with h5py.File(path, "r+") as file:
        spoil(file)
        file.attrs["file_bytes"] = 0
    with h5py.File(path, "r+") as file:
        file.attrs.modify("file_bytes", path.stat().st_size)
    with pytest.raises(DataError) as caught:
        PackReader(path)
    assert words in str(caught.value)


@pytest.mark.parametrize("spoil", [lambda p: p[:3], lambda p: p.astype(float)])
def test_places_of_tiles_that_cannot_be_true_are_refused(samples, tmp_path, spoil):
    path = tmp_path / "p.h5"
    pack(samples, path, compress=True)
    with h5py.File(path, "r+") as file:
        change(file, "location", spoil(file["location"][...]))
        file.attrs["file_bytes"] = 0
    with h5py.File(path, "r+") as file:
        file.attrs.modify("file_bytes", path.stat().st_size)
    with pytest.raises(DataError, match="cannot be read") as caught:
        PackReader(path)
    assert "places of tiles" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"), [(b'"picture":1}', b'"picture":99}'), (b'"clean"', b'"dirty"'), (b'"id"', b"7")]
)
def test_a_list_of_samples_that_cannot_be_true_is_refused(samples, tmp_path, old, new):
    path = tmp_path / "p.h5"
    pack(samples, path)
    with h5py.File(path, "r+") as file:
        text = zlib.decompress(file["samples"][...].tobytes())
        assert old in text
        change(file, "samples", np.frombuffer(zlib.compress(text.replace(old, new)), np.uint8))
        file.attrs["file_bytes"] = 0
    with h5py.File(path, "r+") as file:
        file.attrs.modify("file_bytes", path.stat().st_size)
    with pytest.raises(DataError, match="list of samples is damaged"):
        PackReader(path).samples(samples.root)


def test_pairs_that_differ_in_size_stop_it_before_anything_is_written(samples, lol, tmp_path):
    write_png(lol / "our485/high/p 1ü.png", np.zeros((9, 7, 3), np.uint8))
    with pytest.raises(DataError, match="1 pairs differ in size; nothing was packed") as caught:
        pack(samples, tmp_path / "p.h5")
    assert "p 1ü.png: (64, 64)" in str(caught.value)
    assert "p 1ü.png: (9, 7)" in str(caught.value)
    assert not list(tmp_path.glob("p.h5*"))


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


def test_the_warning_names_the_cost_and_only_where_there_is_one(samples, tmp_path):
    line = unpacked_cost(samples)
    assert "ms a pair" in line
    assert "mmfe data pack --dataset lol-v1" in line
    assert "weather" not in line
    pack(samples, tmp_path / "p.h5")
    assert unpacked_cost(open_pack(tmp_path / "p.h5").samples(samples.root)) is None
