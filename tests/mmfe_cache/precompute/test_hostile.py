"""Places, names and neighbours that nobody plans for."""

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from benchmarks.cache_children import in_child, wait
from benchmarks.cache_support import Pattern, TinyGuide, sample_set, tree
from mmfe_cache import open_cache
from mmfe_cache.errors import CacheError, DataError
from mmfe_cache.lock import locked
from mmfe_cache.precompute import build_cache
from mmfe_cache.precompute.repair import repair_cache
from mmfe_cache.samples import Sample, SampleSet
from mmfe_cache.store.verify import verify

VIEWS = ("whole@16", "crop@8")


def build(path, views=VIEWS, samples=None, guide=None):
    options = {"batch_size": 2, "shard_samples": 4, "workers": 2}
    return build_cache(samples or sample_set(10), guide or TinyGuide(), views, path, **options)


def test_of_many_writers_at_once_one_builds_and_the_others_are_told(tmp_path):
    path = tmp_path / "a.zarr"
    pids = [in_child(lambda: build(path, guide=TinyGuide(seconds=0.05))) for _ in range(6)]
    codes = sorted(wait(pid) for pid in pids)
    assert codes[0] == 0
    assert set(codes) <= {0, 103}
    assert 103 in codes
    build(tmp_path / "b.zarr")
    assert tree(path) == tree(tmp_path / "b.zarr")
    assert {p.name for p in tmp_path.iterdir()} == {"a.zarr", "b.zarr"}


def test_a_link_to_a_store_shares_its_lock_and_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.zarr").symlink_to(tmp_path / "disk/a.zarr")
    build(tmp_path / "link.zarr", VIEWS[:1])
    assert (tmp_path / "link.zarr").is_symlink()
    assert open_cache(tmp_path / "disk/a.zarr").views == VIEWS[:1]
    with locked(tmp_path / "disk/a.zarr"), pytest.raises(CacheError, match="another build"):
        build(tmp_path / "link.zarr")
    (tmp_path / "disk/a.zarr/whole-16/joint/c.1.0.0").unlink()
    with locked(tmp_path / "disk/a.zarr"), pytest.raises(CacheError, match="another build"):
        repair_cache(tmp_path / "link.zarr", sample_set(10), TinyGuide())
    assert repair_cache(tmp_path / "link.zarr", sample_set(10), TinyGuide()).after.intact
    assert {p.name for p in tmp_path.iterdir()} == {"disk", "link.zarr"}
    assert {p.name for p in (tmp_path / "disk").iterdir()} == {"a.zarr"}


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_a_link_to_another_file_system(tmp_path):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        (tmp_path / "link.zarr").symlink_to(Path(other, "a.zarr"))
        build(tmp_path / "link.zarr")
        build(tmp_path / "b.zarr")
        assert tree(Path(other, "a.zarr")) == tree(tmp_path / "b.zarr")


def test_a_store_is_repaired_from_inside(tmp_path, monkeypatch):
    build(tmp_path / "a.zarr")
    expected = tree(tmp_path / "a.zarr")
    (tmp_path / "a.zarr/crop-8/joint/c.1.0.0").unlink()
    monkeypatch.chdir(tmp_path / "a.zarr")
    assert repair_cache(".", sample_set(10), TinyGuide()).after.intact
    (tmp_path / "a.zarr/crop-8/joint/c.1.0.0").unlink()
    build("../a.zarr/")
    assert tree(tmp_path / "a.zarr") == expected
    assert {p.name for p in tmp_path.iterdir()} == {"a.zarr"}


NAMES = ("夜の雨", "смог", "é", "e\u0301", "🌧️", "a b\t'\"\\", "..", "شتاء", "{}", "\r")


def named(names):
    samples = tuple(
        Sample(id=name, degraded=Pattern(k), clean=None, label="rain", scene=str(k))
        for k, name in enumerate(names)
    )
    return SampleSet("名", "train", sample_set(1).root, "patterns", samples)


def test_names_in_any_script(tmp_path):
    path, samples = tmp_path / "ñ 雪.zarr", named(NAMES)
    build(path, samples=samples)
    reader = open_cache(path)
    assert reader.ids == NAMES
    assert reader.dataset == "名"
    for order in (NAMES, NAMES[::-1], NAMES[3:4]):
        assert reader.index_of(order).tolist() == [NAMES.index(name) for name in order]
    table = zarr.open_group(path, mode="r")["samples"]["ids"][:].tobytes().decode()
    assert tuple(table.split("\n")[:-1]) == NAMES
    file = path / "whole-16/image/c.0.0.0"
    data = bytearray(file.read_bytes())
    data[3] ^= 1
    file.write_bytes(data)
    assert verify(path).damages[0].samples == (NAMES[0],)
    with pytest.raises(CacheError, match="夜の雨"):
        open_cache(path).gather([0], "whole@16")
    (path / "samples/ids/c.0").unlink()
    assert repair_cache(path, samples, TinyGuide()).after.intact


@pytest.mark.parametrize("bad", ["a\nb", "", "\udcff.png"])
def test_names_that_no_table_can_hold(tmp_path, bad):
    with pytest.raises(DataError) as caught:
        build(tmp_path / "a.zarr", samples=named(["fine", bad]))
    assert repr(bad) in str(caught.value)
    str(caught.value).encode()
    assert not (tmp_path / "a.zarr").exists()


def test_a_view_that_is_added_while_others_read(tmp_path):
    path = tmp_path / "a.zarr"
    build(path, VIEWS[:1])
    expected = open_cache(path).gather(range(10), VIEWS[0], tokens="all").image
    pid = in_child(lambda: build(path, guide=TinyGuide(seconds=0.02)))
    old = open_cache(path)
    while True:
        fresh = open_cache(path)
        for reader in (old, fresh):
            assert torch.equal(reader.gather(range(10), VIEWS[0], tokens="all").image, expected)
        if VIEWS[1] in fresh.views:
            break
        with pytest.raises(CacheError, match=r"not finished|is not in"):
            fresh.gather([0], VIEWS[1])
    assert wait(pid) == 0
    assert open_cache(path).gather(range(10), VIEWS[1]).image.shape[0] == 10


def test_threads_that_touch_a_store_first_together(tmp_path):
    path = tmp_path / "a.zarr"
    build(path, VIEWS[:1], sample_set(200))
    whole = open_cache(path).gather(range(200), VIEWS[0], tokens="all", check="never")
    spoilt = path / "whole-16/joint/c.3.0.0"
    data = bytearray(spoilt.read_bytes())
    data[9] ^= 1  # Sample 12.
    spoilt.write_bytes(data)
    for _ in range(5):
        reader, wrong, gate = open_cache(path), [], threading.Barrier(8)

        def work(seed, reader=reader, wrong=wrong, gate=gate):
            order = np.random.default_rng(seed).permutation(200)
            gate.wait()
            for index in order.tolist():
                try:
                    found = reader.gather([index], VIEWS[0], tokens="all")
                except CacheError:
                    wrong += [seed] * (index != 12)
                else:
                    wrong += [seed] * (
                        index == 12 or not torch.equal(found.joint[0], whole.joint[index])
                    )

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="mounts as root")
def test_a_store_on_a_read_only_mount(tmp_path):
    build(tmp_path / "disk/a.zarr")
    expected = open_cache(tmp_path / "disk/a.zarr").gather(range(10), VIEWS[0]).image
    place = tmp_path / "mounted"
    place.mkdir()
    bind = ["mount", "--bind", str(tmp_path / "disk"), str(place)]
    if subprocess.run(bind, capture_output=True, check=False).returncode:
        pytest.skip("may not mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
        reader = open_cache(place / "a.zarr")
        assert torch.equal(reader.gather(range(10), VIEWS[0]).image, expected)
        assert verify(place / "a.zarr").intact
        with pytest.raises(Exception, match="cannot write") as caught:
            build(place / "a.zarr", (*VIEWS, "native"))
        assert "Read-only" in str(caught.value)
    finally:
        # Lazily: a reader that is still referred to keeps its maps.
        subprocess.run(["umount", "--lazy", str(place)], check=True)
