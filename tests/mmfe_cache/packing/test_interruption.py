"""Packing that is stopped, meets a full disk or bad pictures: nothing half, nothing lost."""

import errno
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest

from mmfe_cache.datasets import load_dataset
from mmfe_cache.errors import DataError
from mmfe_cache.images import write_png
from mmfe_cache.lock import try_lock
from mmfe_cache.packing import (
    PackReader,
    forget_packs,
    pack,
)
from mmfe_cache.seeds import generator


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


@pytest.mark.parametrize("last", ["staging.Staging._fill_raw", "reader.PackReader.damaged"])
def test_a_second_run_is_refused_until_the_first_pack_has_its_name(
    samples, tmp_path, monkeypatch, last
):
    pytest.importorskip("fcntl")
    path, place = tmp_path / "p.h5", f"mmfe_cache.packing.{last}"
    step, refused = resolve_name(place), []

    def meanwhile(self, *arguments):
        with pytest.raises(DataError, match="another process is writing the pack"):
            pack(samples, path)
        refused.append(last)
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(place, meanwhile)
        pack(samples, path)
    assert refused == [last]
    assert PackReader(path).damaged() == ()
    assert list(tmp_path.glob("p.h5*")) == [path]


def test_a_run_that_waited_for_the_end_of_another_keeps_its_tiles(samples, tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    path, ended = tmp_path / "p.h5", []

    def slowly(handle, file):
        if not ended:  # the other run ends between our opening its file and locking it
            ended.append(file.unlink())
        return try_lock(handle, file)

    monkeypatch.setattr("mmfe_cache.packing.staging.try_lock", slowly)
    pack(samples, path)
    assert ended
    assert PackReader(path).damaged() == ()


def test_unreadable_pictures_stop_it_before_anything_is_written(samples, lol, tmp_path):
    (lol / "our485/high/p 1ü.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="1 pictures cannot be read") as caught:
        pack(samples, tmp_path / "p.h5")
    assert "p 1ü.png" in str(caught.value)
    assert not (tmp_path / "p.h5").exists()


def test_pairs_that_differ_in_size_stop_it_before_anything_is_written(samples, lol, tmp_path):
    write_png(lol / "our485/high/p 1ü.png", np.zeros((9, 7, 3), np.uint8))
    with pytest.raises(DataError, match="1 pairs differ in size; nothing was packed") as caught:
        pack(samples, tmp_path / "p.h5")
    assert "p 1ü.png: (64, 64)" in str(caught.value)
    assert "p 1ü.png: (9, 7)" in str(caught.value)
    assert not list(tmp_path.glob("p.h5*"))
